/* The keyring's files, and secrets from the request to the record and back to an agent. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orca-apiserver/secrets.h"
#include "tests/lib/folder.h"
#include "tests/unit/apiserver/world.h"

static char dir[FOLDER_MAX], api_dir[96];

static void path_of(const char *name, char out[200]) {
  snprintf(out, 200, "%s/%s", api_dir, name);
}

static void write_key(const char *name, const char *hex, mode_t mode) {
  char path[200];
  path_of(name, path);
  unlink(path);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(hex, f);
  fclose(f);
  chmod(path, mode);
}

static bool is_there(const char *name) {
  char path[200];
  path_of(name, path);
  return access(path, F_OK) == 0;
}

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static int setup(void **state) {
  folder_make(dir);
  snprintf(api_dir, sizeof api_dir, "%s/apiserver", dir);
  mkdir(api_dir, 0700);
  write_key("master.key", KEY_A, 0400);
  struct world *w = world_new();
  struct err err;
  assert_int_equal(keyring_open(&w->api.keyring, dir, &err), 0);
  put_token(w, "admin", "a", "admin", NULL, 0);
  put_token(w, "deployer", "d", "deployer", NULL, 0);
  put_token(w, "shopper", "s", "admin", "shop", 0);
  *state = w;
  return 0;
}

static int teardown(void **state) {
  folder_remove(dir);
  world_free(*state);
  return 0;
}

static json_t *say(struct world *w, const char *method, const char *path, const char *token, const char *body, const char *project, int status) {
  return answer_to(w, method, path, token, body, project ? "project" : NULL, project, status);
}

static void does(struct world *w, const char *method, const char *path, const char *token, const char *body, const char *project, int status) {
  json_decref(say(w, method, path, token, body, project, status));
}

static void opens(struct world *w, const char *project, const char *name, const char *value) {
  struct buf b = BUF_INIT(1 << 16);
  struct err err;
  const Model__Secret *secret = secrets_get(&w->api.cache, project, name, NULL);
  assert_non_null(secret);
  assert_int_equal(secrets_open(&w->api.keyring, secret, &b, &err), 0);
  assert_string_equal(buf_str(&b), value);
  buf_free(&b);
}

static void the_key_is_ours_alone(void **state) {
  (void)state;
  struct keyring ring;
  struct err err;
  assert_int_equal(keyring_open(&ring, dir, &err), 0);
  assert_true(ring.master.there && !ring.next.there && strlen(ring.master.id) == KEYRING_ID_LEN);
  assert_null(strstr(KEY_A, ring.master.id));
  write_key("master.key", KEY_A, 0440);
  assert_int_equal(keyring_open(&ring, dir, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  assert_false(ring.master.there);
  write_key("master.key", "0011", 0400);
  assert_int_equal(keyring_open(&ring, dir, &err), -1);
  write_key("master.key", KEY_A "\n", 0400);
  assert_int_equal(keyring_open(&ring, dir, &err), 0);
  assert_int_equal(keyring_open(&ring, "/nowhere", &err), 0); /* none: secrets can't be used, all else can */
  assert_null(keyring_current(&ring, "", &err));
  assert_int_equal(err.code, ERR_UNAVAILABLE);
}

static void a_key_is_followed_by_the_next(void **state) {
  (void)state;
  struct keyring ring, after;
  struct err err;
  assert_int_equal(keyring_open(&ring, dir, &err), 0);
  assert_int_equal(keyring_make_next(&ring, &err), 0);
  assert_int_equal(keyring_make_next(&ring, &err), 0); /* the same */
  assert_string_not_equal(ring.next.id, ring.master.id);
  assert_int_equal(keyring_open(&after, dir, &err), 0); /* cut off here: both are there */
  assert_string_equal(after.next.id, ring.next.id);
  assert_ptr_equal(keyring_current(&after, ring.master.id, &err), &after.master);
  assert_ptr_equal(keyring_current(&after, ring.next.id, &err), &after.next);
  assert_null(keyring_current(&after, "0000000000000000", &err));
  assert_int_equal(keyring_settle(&after, ring.master.id, &err), 0);
  assert_true(is_there("master.key.next"));
  assert_int_equal(keyring_settle(&after, ring.next.id, &err), 0);
  assert_false(is_there("master.key.next"));
  assert_string_equal(after.master.id, ring.next.id);
  assert_int_equal(keyring_open(&after, dir, &err), 0);
  assert_string_equal(after.master.id, ring.next.id);
}

static void set_and_forgotten(void **state) {
  struct world *w = *state;
  does(w, "PUT", "/api/v1/secrets/DB", "a", "{\"value\":\"one\"}", NULL, 200);
  does(w, "PUT", "/api/v1/secrets/DB", "a", "{\"value_base64\":\"dHdv\"}", "shop", 200);
  opens(w, "", "DB", "one");
  opens(w, "shop", "DB", "two");
  assert_ptr_equal(secrets_find(&w->api.cache, "shop", "DB"), secrets_get(&w->api.cache, "shop", "DB", NULL));
  assert_ptr_equal(secrets_find(&w->api.cache, "blog", "DB"), secrets_get(&w->api.cache, "", "DB", NULL));
  unsigned commits = w->commits;
  does(w, "PUT", "/api/v1/secrets/DB", "a", "{\"value\":\"one\"}", NULL, 200); /* it has that value */
  assert_int_equal(w->commits, commits);
  w->refuse = 2; /* others are faster */
  does(w, "PUT", "/api/v1/secrets/DB", "a", "{\"value\":\"uno\"}", NULL, 200);
  assert_int_equal(secrets_get(&w->api.cache, "", "DB", NULL)->version, 2);
  assert_int_equal(w->api.keyring.sealing, 0);
  json_t *all = say(w, "GET", "/api/v1/secrets", "a", NULL, NULL, 200);
  assert_int_equal(json_array_size(json_object_get(all, "secrets")), 2);
  json_decref(all);
  does(w, "DELETE", "/api/v1/secrets/DB", "a", NULL, NULL, 200);
  does(w, "DELETE", "/api/v1/secrets/DB", "a", NULL, NULL, 404);
  assert_null(secrets_get(&w->api.cache, "", "DB", NULL));
}

static void who_may(void **state) {
  struct world *w = *state;
  does(w, "PUT", "/api/v1/secrets/X", "d", "{\"value\":\"1\"}", NULL, 403);
  does(w, "GET", "/api/v1/secrets", "d", NULL, NULL, 403);
  /* an admin of one project neither sees nor changes what is of all, or of others */
  does(w, "PUT", "/api/v1/secrets/X", "a", "{\"value\":\"1\"}", NULL, 200);
  does(w, "PUT", "/api/v1/secrets/X", "a", "{\"value\":\"1\"}", "blog", 200);
  does(w, "PUT", "/api/v1/secrets/X", "s", "{\"value\":\"2\"}", NULL, 404);
  does(w, "PUT", "/api/v1/secrets/X", "s", "{\"value\":\"2\"}", "blog", 404);
  does(w, "GET", "/api/v1/secrets/X", "s", NULL, "blog", 404);
  does(w, "DELETE", "/api/v1/secrets/X", "s", NULL, NULL, 404);
  does(w, "PUT", "/api/v1/secrets/X", "s", "{\"value\":\"2\"}", "shop", 200);
  does(w, "POST", "/api/v1/secrets/rotate-key", "s", NULL, NULL, 403);
  json_t *all = say(w, "GET", "/api/v1/secrets", "s", NULL, NULL, 200);
  assert_int_equal(json_array_size(json_object_get(all, "secrets")), 1);
  json_decref(all);
  opens(w, "", "X", "1");
  opens(w, "blog", "X", "1");
}

static void a_record_opens_only_where_it_is(void **state) {
  struct world *w = *state;
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"a\"}", "shop", 200);
  const Model__Secret *secret = secrets_get(&w->api.cache, "shop", "A", NULL);
  struct buf b = BUF_INIT(1 << 16);
  struct err err;
  Model__Secret moved = *secret;
  moved.name = TEXT("B");
  assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  assert_int_equal(err.code, ERR_CORRUPT);
  moved = *secret;
  moved.project = TEXT("blog");
  assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  moved.project = NULL;
  assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  moved = *secret;
  moved.project = TEXT("sho");
  moved.name = TEXT("pA");
  assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  moved = *secret;
  moved.key_id = TEXT("0000000000000000");
  assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  uint8_t cut[64];
  moved = *secret;
  for (size_t len = 0; len < secret->sealed.len; len++) {
    memcpy(cut, secret->sealed.data, len);
    moved.sealed = (ProtobufCBinaryData){.len = len, .data = cut};
    assert_int_equal(secrets_open(&w->api.keyring, &moved, &b, &err), -1);
  }
  buf_free(&b);
}

static void all_are_sealed_anew(void **state) {
  struct world *w = *state;
  does(w, "POST", "/api/v1/secrets", "a", "{\"secrets\":{\"A\":\"1\",\"B\":\"2\",\"C\":\"\"}}", "shop", 200);
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"3\"}", NULL, 200);
  char before[KEYRING_ID_LEN + 1];
  snprintf(before, sizeof before, "%s", w->api.keyring.master.id);
  uint64_t version = secrets_get(&w->api.cache, "shop", "A", NULL)->version;
  w->refuse = 1;
  json_t *done = say(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, 200);
  assert_int_equal(json_integer_value(json_object_get(done, "resealed")), 4);
  json_decref(done);
  assert_string_not_equal(w->api.keyring.master.id, before);
  assert_string_equal(secrets_current_key(&w->api.cache, NULL), w->api.keyring.master.id);
  assert_false(w->api.keyring.next.there || w->api.keyring.rotating || is_there("master.key.next"));
  opens(w, "shop", "A", "1");
  opens(w, "shop", "C", "");
  opens(w, "", "A", "3");
  assert_int_equal(secrets_get(&w->api.cache, "shop", "A", NULL)->version, version);
  w->api.keyring.rotating = true; /* another is under way */
  does(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, 409);
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"4\"}", NULL, 429);
  w->api.keyring.rotating = false;
  w->api.keyring.sealing++;
  does(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, 429);
  w->api.keyring.sealing--;
  /* the files are put back to an older key: nothing is lost, and nothing is sealed with it */
  struct err err;
  write_key("master.key", KEY_A, 0400);
  assert_int_equal(keyring_open(&w->api.keyring, dir, &err), 0);
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"4\"}", NULL, 503);
  does(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, 503);
}

/* Its second transaction is kept back: nobody hears of it in time. */
static struct storec_txn *late;

static void commit_late(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg) {
  struct world *w = arg;
  if (w->commits++ == 0 || late) {
    world_commit(w, txn, done, done_arg);
    return;
  }
  struct err err;
  late = txn;
  err_set(&err, ERR_TIMEOUT, "no answer");
  done(done_arg, false, 0, &err);
}

static void landed(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)revision;
  (void)err;
  *(bool *)arg = succeeded;
}

static void a_rotation_that_lands_late_loses_no_value(void **state) {
  struct world *w = *state;
  struct err err;
  bool it_landed = true;
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"old\"}", NULL, 200);
  late = NULL;
  w->commits = 0;
  w->api.commit = commit_late;
  struct api_request *r = ask(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, NULL);
  assert_true(r->answered && r->status >= 500);
  api_request_unref(r);
  assert_non_null(late);
  assert_true(w->api.keyring.next.there && !w->api.keyring.rotating);
  w->api.commit = world_commit;
  does(w, "PUT", "/api/v1/secrets/B", "a", "{\"value\":\"new\"}", NULL, 200);
  world_commit(w, late, landed, &it_landed);
  if (it_landed)
    assert_int_equal(keyring_settle(&w->api.keyring, secrets_current_key(&w->api.cache, NULL), &err), 0);
  opens(w, "", "A", "old");
  opens(w, "", "B", "new");
  assert_false(it_landed);
  /* The next one takes the key that is there, and all of them. */
  json_t *done = say(w, "POST", "/api/v1/secrets/rotate-key", "a", NULL, NULL, 200);
  assert_int_equal(json_integer_value(json_object_get(done, "resealed")), 2);
  json_decref(done);
  opens(w, "", "A", "old");
  opens(w, "", "B", "new");
}

static void what_a_consumer_is_told(void **state) {
  struct world *w = *state;
  Model__SecretVersion **list;
  size_t count;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Pair pair = MODEL__PAIR__INIT, *pairs[1] = {&pair};
  char *files[1] = {TEXT("F")};
  spec.project = TEXT("shop");
  pair.key = TEXT("X");
  pair.value = TEXT("${secrets.A}${secrets.F}${secrets.A}");
  spec.env = pairs;
  spec.n_env = 1;
  spec.secret_files = files;
  spec.n_secret_files = 1;
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"1\"}", NULL, 200);
  assert_int_equal(secrets_versions(&w->api.cache, &spec, &list, &count), 0);
  assert_int_equal(count, 2);
  assert_true(strcmp(list[0]->name, "A") == 0 && list[0]->version == 1 && list[0]->global);
  assert_true(strcmp(list[1]->name, "F") == 0 && list[1]->version == 0);
  Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
  status.secrets = list;
  status.n_secrets = count;
  assert_true(secrets_is_waiting(&status));
  status.n_secrets = 1;
  assert_false(secrets_is_waiting(&status) || secrets_are_newer(&w->api.cache, "shop", &status));
  does(w, "PUT", "/api/v1/secrets/A", "a", "{\"value\":\"1\"}", "shop", 200); /* the project's own goes first */
  assert_true(secrets_are_newer(&w->api.cache, "shop", &status));
  assert_false(secrets_are_newer(&w->api.cache, "blog", &status));
  secrets_versions_free(list, count);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {TEST(the_key_is_ours_alone),
                                     TEST(a_key_is_followed_by_the_next),
                                     TEST(set_and_forgotten),
                                     TEST(who_may),
                                     TEST(a_record_opens_only_where_it_is),
                                     TEST(all_are_sealed_anew),
                                     TEST(a_rotation_that_lands_late_loses_no_value),
                                     TEST(what_a_consumer_is_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
