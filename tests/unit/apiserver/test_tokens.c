/* The rules about tokens: made, removed, declared in cluster.toml; and what one has open when it ends. */
#include "orca-apiserver/tokens.h"
#include "tests/unit/apiserver/access.h"

static struct api_request *make(struct world *w, const char *as, const char *body) {
  return ask(w, "POST", "/api/v1/tokens", as, body, NULL, NULL);
}

static int made(struct world *w, const char *as, const char *body) {
  struct api_request *r = make(w, as, body);
  int status = r->status;
  api_request_unref(r);
  return status;
}

static void a_token_is_made_shown_once_and_works(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  struct api_request *r = make(w, "secret-admin", "{\"name\":\"ci\",\"role\":\"viewer\",\"projects\":[\"shop\"],\"expires\":\"720h\"}");
  assert_int_equal(r->status, 200);
  json_t *json = answer_of(r);
  const char *value = json_string_value(json_object_get(json, "value"));
  assert_int_equal(strlen(value), 57);
  assert_int_equal(strncmp(value, "orca_", 5), 0);
  assert_int_equal(status_of(w, value, 1), 200);
  struct api_request *list = ask(w, "GET", "/api/v1/tokens", "secret-admin", NULL, NULL, NULL);
  assert_null(strstr(buf_str(&list->out), value));
  assert_null(strstr(buf_str(&list->out), "hash"));
  json_t *all = answer_of(list), *one = json_array_get(json_object_get(all, "tokens"), 1);
  assert_string_equal(json_string_value(json_object_get(one, "name")), "ci");
  assert_string_equal(json_string_value(json_object_get(one, "created_by")), "admin");
  assert_true(json_is_string(json_object_get(one, "last_used")));
  json_decref(all);
  api_request_unref(list);
  char text[API_TOKEN_TEXT_MAX];
  snprintf(text, sizeof text, "%s", value);
  json_decref(json);
  api_request_unref(r);
  /* Removed, it ends at once; one of its name that is made later is another. */
  r = ask(w, "DELETE", "/api/v1/tokens/ci", "secret-admin", NULL, NULL, NULL);
  assert_int_equal(r->status, 200);
  api_request_unref(r);
  assert_int_equal(status_of(w, text, 1), 401);
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 200);
  assert_int_equal(status_of(w, text, 1), 401);
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 409);
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"admin\",\"role\":\"viewer\"}"), 409);
  /* No body is in the audit log, no text of a token in the store. */
  for (size_t k = 0; k < API_KIND_COUNT; k++)
    for (size_t i = 0; i < w->api.cache.tables[k].count; i++) {
      const struct api_object *o = w->api.cache.tables[k].list[i].value;
      if (o->len)
        assert_null(memmem(o->bytes, o->len, text + 5, 20));
    }
}

static void what_is_no_token_is_not_made(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  static const char *const bodies[] = {
      "{}",
      "{\"name\":\"a\"}",
      "{\"role\":\"admin\"}",
      "{\"name\":\"A b\",\"role\":\"admin\"}",
      "{\"name\":\"../x\",\"role\":\"admin\"}",
      "{\"name\":\"a\",\"role\":\"root\"}",
      "{\"name\":\"a\",\"role\":[\"admin\"]}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"projects\":\"shop\"}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"projects\":[1]}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"projects\":[\"\\n\"]}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"expires\":\"yesterday\"}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"expires\":\"2001-01-01T00:00:00Z\"}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"expires\":\"0s\"}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"expires\":1.5}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"expires\":\"1000000h\"}",
      "{\"name\":\"a\",\"role\":\"viewer\",\"value\":\"chosen\"}",
      "{\"name\":\"a\",\"name\":\"b\",\"role\":\"viewer\"}",
  };
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
    if (made(w, "secret-admin", bodies[i]) != 400)
      fail_msg("%s was taken", bodies[i]);
  assert_int_equal(w->api.cache.tables[API_TOKENS].count, 1);
}

static void nobody_makes_more_than_he_has(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "shop-admin", "secret-shop", "admin", "shop", 0);
  put_token(w, "brief", "secret-brief", "admin", NULL, api_now_ms(&w->api) + 3600000);
  assert_int_equal(made(w, "secret-shop", "{\"name\":\"a\",\"role\":\"viewer\"}"), 403);
  assert_int_equal(made(w, "secret-shop", "{\"name\":\"a\",\"role\":\"viewer\",\"projects\":[]}"), 403);
  assert_int_equal(made(w, "secret-shop", "{\"name\":\"a\",\"role\":\"viewer\",\"projects\":[\"shop\",\"blog\"]}"), 403);
  assert_int_equal(made(w, "secret-shop", "{\"name\":\"a\",\"role\":\"admin\",\"projects\":[\"shop\"]}"), 200);
  assert_int_equal(made(w, "secret-brief", "{\"name\":\"b\",\"role\":\"admin\"}"), 403);
  assert_int_equal(made(w, "secret-brief", "{\"name\":\"b\",\"role\":\"admin\",\"expires\":\"2h\"}"), 403);
  assert_int_equal(made(w, "secret-brief", "{\"name\":\"b\",\"role\":\"admin\",\"expires\":\"30m\"}"), 200);
  struct api_request *r = ask(w, "DELETE", "/api/v1/tokens/admin", "secret-shop", NULL, NULL, NULL);
  assert_int_equal(r->status, 404);
  api_request_unref(r);
}

static void those_that_expired_long_ago_make_room(void **state) {
  struct world *w = *state;
  int64_t now = api_now_ms(&w->api);
  char id[64], text[64];
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  for (unsigned i = 1; i < API_TOKENS_MAX; i++) {
    snprintf(id, sizeof id, "t%u", i);
    snprintf(text, sizeof text, "secret-%u", i);
    put_token(w, id, text, "viewer", NULL, i < 3 ? now - API_TOKEN_KEPT_MS - 1000 : now - 1000);
  }
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"new\",\"role\":\"viewer\"}"), 200);
  assert_int_equal(w->api.cache.tables[API_TOKENS].count, API_TOKENS_MAX - 1);
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"newer\",\"role\":\"viewer\"}"), 200);
  assert_int_equal(made(w, "secret-admin", "{\"name\":\"newest\",\"role\":\"viewer\"}"), 409);
}

static int removed(struct world *w, const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/api/v1/tokens/%s", name);
  struct api_request *r = ask(w, "DELETE", path, "secret-admin", NULL, NULL, NULL);
  int status = r->status;
  api_request_unref(r);
  return status;
}

static void a_name_that_was_another_s_opens_no_log(void **state) {
  struct world *w = *state;
  char key[KEY_MAX];
  put_token(w, "shop-admin", "secret-shop", "admin", "shop", 0);
  Model__AuditEntry e = MODEL__AUDIT_ENTRY__INIT;
  PB_SET(&e, ms, T0); /* of an "ops" that is gone */
  e.token_id = e.actor = TEXT("ops");
  e.project = TEXT("blog");
  e.target = TEXT("secret blog/DB_PASSWORD");
  key_event(key, KEY_AUDIT, T0, 0);
  put(w, key, &e.base);
  struct api_request *r = make(w, "secret-shop", "{\"name\":\"ops\",\"role\":\"admin\",\"projects\":[\"shop\"]}");
  assert_int_equal(r->status, 200);
  json_t *json = answer_of(r);
  struct api_request *own = ask(w, "GET", "/api/v1/nothing", json_string_value(json_object_get(json, "value")), NULL, NULL, NULL);
  api_audit_note(own, 404, "not_found: what it did itself");
  run_for(w, 200);
  struct api_request *log = ask(w, "GET", "/api/v1/audit", json_string_value(json_object_get(json, "value")), NULL, NULL, NULL);
  assert_int_equal(log->status, 200);
  assert_null(strstr(buf_str(&log->out), "blog"));
  assert_non_null(strstr(buf_str(&log->out), "what it did itself"));
  json_decref(json);
  api_request_unref(r);
  api_request_unref(own);
  api_request_unref(log);
}

static void the_last_one_that_may_everything_stays(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "limited", "secret-limited", "admin", "shop", 0);
  put_token(w, "brief", "secret-brief", "admin", NULL, api_now_ms(&w->api) + 3600000);
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  assert_int_equal(removed(w, "admin"), 409);
  put_token(w, "second", "secret-second", "admin", NULL, 0);
  assert_int_equal(removed(w, "second"), 200);
  put_token(w, "second", "secret-second", "admin", NULL, 0);
  assert_int_equal(removed(w, "admin"), 200); /* one's own, too */
  assert_int_equal(removed(w, "second"), 401);
}

/* ---- declared ones ---- */

static int declare_all(struct world *w, Model__TokenDecl **list, size_t count, struct err *err) {
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  cluster.tokens = list;
  cluster.n_tokens = count;
  struct storec_txn *txn = storec_txn_new();
  int rc = api_tokens_declare(&w->api.cache, &cluster, "admin", T0, txn, err);
  if (rc == 0)
    w->api.commit(w, txn, committed, NULL);
  else
    storec_txn_free(txn);
  return rc;
}

static Model__TokenDecl decl(const char *name, const char *role, uint8_t hash[32], const char *text) {
  Model__TokenDecl d = MODEL__TOKEN_DECL__INIT;
  crypto_sha256(text, strlen(text), hash);
  d.name = TEXT(name);
  d.role = TEXT(role);
  d.has_hash = 1;
  d.hash = (ProtobufCBinaryData){.len = 32, .data = hash};
  return d;
}

static void declared_ones_come_and_go(void **state) {
  struct world *w = *state;
  uint8_t hashes[4][32];
  uint64_t mod;
  struct err err;
  put_token(w, "first", "secret-first", "admin", NULL, 0);
  Model__TokenDecl ci = decl("ci", "deployer", hashes[0], "text-ci"), ops = decl("ops", "admin", hashes[1], "text-ops");
  Model__TokenDecl *both[] = {&ci, &ops}, *twice[] = {&ci, &ci};
  assert_int_equal(declare_all(w, both, 2, &err), 0);
  assert_int_equal(status_of(w, "text-ci", 1), 200);
  assert_int_equal(status_of(w, "text-ops", 1), 200);
  assert_true(api_token_by_name(&w->api.cache, "ci", &mod)->declared);
  uint64_t revision = w->revision;
  assert_int_equal(declare_all(w, both, 2, &err), 0); /* nothing is written that is so already */
  assert_int_equal(api_token_by_name(&w->api.cache, "ci", &mod)->created_ms, T0);
  assert_true(mod <= revision);
  /* Another text: the old one ends. */
  Model__TokenDecl changed = decl("ci", "viewer", hashes[2], "text-new");
  Model__TokenDecl *with_changed[] = {&changed, &ops};
  assert_int_equal(declare_all(w, with_changed, 2, &err), 0);
  assert_int_equal(status_of(w, "text-ci", 1), 401);
  assert_int_equal(status_of(w, "text-new", 1), 200);
  /* It can't be removed by hand, nor take a name or a text that is another's. */
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  assert_int_equal(removed(w, "ci"), 409);
  assert_int_equal(declare_all(w, twice, 2, &err), -1);
  Model__TokenDecl thief = decl("first", "admin", hashes[3], "text-thief"), *thieves[] = {&thief};
  assert_int_equal(declare_all(w, thieves, 1, &err), -1);
  thief = decl("thief", "admin", hashes[3], "secret-first");
  assert_int_equal(declare_all(w, thieves, 1, &err), -1);
  thief = decl("thief", "admin", hashes[3], "text-thief");
  thief.value = TEXT("text-thief");
  assert_int_equal(declare_all(w, thieves, 1, &err), -1);
  assert_null(strstr(err.msg, "text-thief"));
  thief.value = NULL;
  thief.hash.len = 31;
  assert_int_equal(declare_all(w, thieves, 1, &err), -1);
  /* Gone from the file, gone at all; but not with the last one that may everything. */
  assert_int_equal(declare_all(w, &both[1], 1, &err), 0);
  assert_null(api_token_by_name(&w->api.cache, "ci", &mod));
  api_cache_del(&w->api.cache, "/tokens/first");
  api_cache_del(&w->api.cache, "/tokens/admin");
  assert_int_equal(declare_all(w, NULL, 0, &err), -1);
  assert_int_equal(err.code, ERR_UNPROCESSABLE);
  ops.role = TEXT("viewer");
  assert_int_equal(declare_all(w, &both[1], 1, &err), -1);
}

/* The scheduler reads cluster.toml, and no tokens. */
static void tokens_of_cluster_toml_are_not_kept_in_it(void **state) {
  struct world *w = *state;
  static const struct {
    const char *tokens;
    bool changes;
  } deploys[] = {
      {"", true},
      {"", false},
      {"{\"name\":\"ci\",\"role\":\"viewer\",\"hash\":\"", true},
      {"{\"name\":\"ci\",\"role\":\"viewer\",\"hash\":\"", false},
      {"{\"name\":\"ci\",\"role\":\"deployer\",\"hash\":\"", true},
      {"{\"name\":\"ci\",\"role\":\"deployer\",\"projects\":[\"shop\"],\"hash\":\"", true},
      {"{\"name\":\"cd\",\"role\":\"deployer\",\"projects\":[\"shop\"],\"hash\":\"", true},
      {"{\"name\":\"cd\",\"role\":\"deployer\",\"projects\":[\"shop\"],\"hash\":\"", false},
      {"", true},
      {"", false},
  };
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  for (size_t i = 0; i < sizeof deploys / sizeof deploys[0]; i++) {
    char body[512], hash[65];
    snprintf(hash, sizeof hash, "%064d", 7);
    snprintf(body, sizeof body, "{\"cluster\":{\"cluster\":{\"name\":\"c\"},\"token\":[%s%s%s]},\"services\":[]}", deploys[i].tokens,
             *deploys[i].tokens ? hash : "", *deploys[i].tokens ? "\"}" : "");
    struct api_request *r = ask(w, "POST", "/api/v1/deploy", "secret-deployer", body, NULL, NULL);
    assert_int_equal(r->status, deploys[i].changes ? 403 : 200);
    api_request_unref(r);
    r = ask(w, "POST", "/api/v1/deploy", "secret-admin", body, NULL, NULL);
    if (r->status != 200)
      fail_msg("%s: %s", body, buf_str(&r->out));
    json_t *json = answer_of(r);
    assert_int_equal(json_is_true(json_object_get(json, "cluster_changed")), deploys[i].changes);
    json_decref(json);
    api_request_unref(r);
    assert_int_equal(api_cache_cluster(&w->api.cache, NULL)->n_tokens, 0);
    assert_int_equal(w->api.cache.tables[API_TOKENS].count, *deploys[i].tokens ? 3 : 2);
  }
}

/* ---- what a token has open when it ends ---- */

static struct api_request *admitted(struct world *w, const char *token) {
  struct api_request *r = api_request_new(&w->api, "POST", "/api/v1/services/api/scale");
  char header[API_TOKEN_MAX + 32];
  snprintf(header, sizeof header, "Bearer %s", token);
  assert_true(api_admit(&w->api, r, header));
  buf_add_str(&r->body, "{\"replicas\":9}");
  return r;
}

static void a_request_whose_token_ends_before_its_body_is_there_does_nothing(void **state) {
  struct world *w = *state;
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  put_token(w, "brief", "secret-brief", "deployer", NULL, T0 + 60000);
  put_token(w, "stolen", "secret-stolen", "deployer", NULL, 0);
  struct api_request *brief = admitted(w, "secret-brief"), *stolen = admitted(w, "secret-stolen");
  api_cache_del(&w->api.cache, "/tokens/stolen");
  run_for(w, 61000);
  unsigned commits = w->commits;
  api_dispatch(&w->api, brief);
  api_dispatch(&w->api, stolen);
  assert_int_equal(brief->status, 401);
  assert_int_equal(stolen->status, 401);
  assert_int_equal(w->commits, commits);
  api_request_unref(brief);
  api_request_unref(stolen);
}

static void a_token_with_fewer_rights_loses_what_it_has_open(void **state) {
  struct world *w = *state;
  uint8_t hash[32];
  struct err err;
  put_token(w, "first", "secret-first", "admin", NULL, 0);
  char *shop[] = {TEXT("shop"), TEXT("blog")};
  Model__TokenDecl ci = decl("ci", "deployer", hash, "text-ci"), *list[] = {&ci};
  ci.projects = shop;
  ci.n_projects = 2;
  assert_int_equal(declare_all(w, list, 1, &err), 0);
  struct api_request *r = knock(w, "text-ci", 1);
  assert_int_equal(r->status, 200);
  run_for(w, 2000); /* its use has been written meanwhile: that is no change */
  assert_true(api_auth_is_known(&w->api.cache, &r->who, api_now_ms(&w->api)));
  assert_true(api_auth_sees(&w->api.cache, &r->who, "blog"));
  ci.n_projects = 1;
  assert_int_equal(declare_all(w, list, 1, &err), 0);
  assert_false(api_auth_is_known(&w->api.cache, &r->who, api_now_ms(&w->api)));
  assert_false(api_auth_sees(&w->api.cache, &r->who, "shop"));
  assert_true(api_auth_is_limited(&w->api.cache, &r->who));
  api_request_unref(r);
  r = knock(w, "text-ci", 1);
  ci.role = TEXT("viewer");
  assert_int_equal(declare_all(w, list, 1, &err), 0);
  assert_false(api_auth_is_known(&w->api.cache, &r->who, api_now_ms(&w->api)));
  api_request_unref(r);
  assert_int_equal(status_of(w, "text-ci", 1), 200);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_token_is_made_shown_once_and_works, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(what_is_no_token_is_not_made, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(nobody_makes_more_than_he_has, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(those_that_expired_long_ago_make_room, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_name_that_was_another_s_opens_no_log, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(the_last_one_that_may_everything_stays, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(declared_ones_come_and_go, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(tokens_of_cluster_toml_are_not_kept_in_it, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_request_whose_token_ends_before_its_body_is_there_does_nothing, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_token_with_fewer_rights_loses_what_it_has_open, clock_setup, world_teardown),
  };
  return cmocka_run_group_tests_name("tokens", tests, NULL, NULL);
}
