/* Addresses, the throttle, folding of the audit log, and the rules about tokens. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "orca-apiserver/tokens.h"
#include "tests/unit/apiserver/world.h"

/* ---- where a request came from ---- */

static struct api_from from_v4(const char *address, const char *forwarded, bool proxied) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct api_from from;
  assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
  api_from_make((const struct sockaddr *)(const void *)&in, forwarded, proxied, &from);
  return from;
}

static void addresses(void **state) {
  (void)state;
  static const struct {
    const char *peer, *forwarded, *text;
    bool local;
  } cases[] = {
      {"127.0.0.1", NULL, "127.0.0.1", true},
      {"127.9.9.9", NULL, "127.9.9.9", true},
      {"10.0.0.7", NULL, "10.0.0.7", false},
      {"127.0.0.1", "10.0.0.7", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "1.2.3.4, 10.0.0.7", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "1.2.3.4,10.0.0.7:4711", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1 via 127.0.0.1", false},
      {"127.0.0.1", "2001:db8::1", "2001:db8::1 via 127.0.0.1", false},
      {"127.0.0.1", "", "unknown via 127.0.0.1", false},
      {"127.0.0.1", "evil\033[31m", "unknown via 127.0.0.1", false},
      {"127.0.0.1", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "unknown via 127.0.0.1", false},
      {"10.0.0.7", "127.0.0.1", "10.0.0.7", false}, /* only a proxy on this machine is believed */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_from from = from_v4(cases[i].peer, cases[i].forwarded, false);
    assert_string_equal(from.text, cases[i].text);
    assert_int_equal(from.local, cases[i].local);
  }
  assert_false(from_v4("127.0.0.1", NULL, true).local);
  struct api_from a = from_v4("127.0.0.1", "10.0.0.7", false), b = from_v4("10.0.0.7", NULL, false), c = from_v4("127.0.0.1", "10.0.0.8", false);
  assert_memory_equal(a.key, b.key, 16);
  assert_memory_not_equal(a.key, c.key, 16);
  /* Of IPv6 the network counts: a client has 2^64 addresses in it. */
  a = from_v4("127.0.0.1", "2001:db8::1", false);
  b = from_v4("127.0.0.1", "2001:db8::2", false);
  c = from_v4("127.0.0.1", "2001:db9::1", false);
  assert_memory_equal(a.key, b.key, 16);
  assert_memory_not_equal(a.key, c.key, 16);
  struct api_from none;
  api_from_make(NULL, NULL, false, &none);
  assert_string_equal(none.text, "unknown");
  assert_false(none.local);
}

static void a_page_of_another_site_is_not_local(void **state) {
  (void)state;
  static const char *const local[] = {"127.0.0.1",      "127.0.0.1:6880", "127.8.0.1:1", "localhost",
                                      "LocalHost:6880", "[::1]:6880",     "[::1]",       "127.0.0.1:"},
                           *const other[] = {"evil.example:6880",
                                             "evil.example",
                                             "127.0.0.1.evil.example",
                                             "10.0.0.1",
                                             "[::2]",
                                             "",
                                             "[",
                                             "localhost.evil",
                                             "127.0.0.1:80x",
                                             "[::1]x",
                                             "[::1",
                                             "localhost:80@evil",
                                             "0.0.0.0:6880"};
  assert_true(api_host_is_local(NULL));
  for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
    if (!api_host_is_local(local[i]))
      fail_msg("%s", local[i]);
  for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
    if (api_host_is_local(other[i]))
      fail_msg("%s", other[i]);
}

/* ---- the throttle ---- */

static void waits_grow_and_end(void **state) {
  (void)state;
  static struct api_throttle t;
  const uint8_t key[16] = {1}, other[16] = {2};
  memset(&t, 0, sizeof t);
  for (int i = 0; i < API_THROTTLE_FREE; i++)
    assert_int_equal(api_throttle_failed(&t, key, T0), 0);
  assert_int_equal(api_throttle_wait(&t, key, T0), 0);
  assert_int_equal(api_throttle_failed(&t, key, T0), 1000);
  assert_int_equal(api_throttle_wait(&t, key, T0 + 400), 600);
  assert_int_equal(api_throttle_wait(&t, other, T0), 0);
  int64_t now = T0, longest = 0;
  for (int i = 0; i < 100; i++) { /* one that waits as it is told, and tries again */
    int64_t wait = api_throttle_failed(&t, key, now);
    assert_true(wait <= API_THROTTLE_WAIT_MAX_MS);
    longest = wait > longest ? wait : longest;
    now += wait;
  }
  assert_true(longest >= 60000);
  for (int i = 0; i < 100; i++) /* and one that does not wait */
    api_throttle_failed(&t, key, now += 10);
  now += api_throttle_wait(&t, key, now);
  assert_int_equal(api_throttle_failed(&t, key, now), API_THROTTLE_WAIT_MAX_MS);
  now += (int64_t)API_THROTTLE_SCORE_MAX * API_THROTTLE_FORGIVE_MS + API_THROTTLE_WAIT_MAX_MS;
  assert_int_equal(api_throttle_wait(&t, key, now), 0);
  assert_int_equal(api_throttle_failed(&t, key, now), 0);
  assert_int_equal(api_throttle_failed(&t, key, now - 1000000), 0); /* a clock that is set back */
}

static void many_addresses_push_out_the_least_guilty(void **state) {
  (void)state;
  static struct api_throttle t;
  uint8_t guilty[16] = {0xff};
  memset(&t, 0, sizeof t);
  for (int i = 0; i < 40; i++)
    api_throttle_failed(&t, guilty, T0);
  assert_true(api_throttle_wait(&t, guilty, T0) > 0);
  for (uint32_t i = 0; i < 20000; i++) {
    uint8_t key[16] = {0};
    memcpy(key, &i, sizeof i);
    api_throttle_failed(&t, key, T0);
  }
  assert_true(api_throttle_wait(&t, guilty, T0) > 0);
}

static struct api_request *knock(struct world *w, const char *token, uint8_t address) {
  struct api_request *r = api_request_new(&w->api, "GET", "/api/v1/status");
  char header[API_TOKEN_MAX + 32];
  snprintf(header, sizeof header, "Bearer %s", token);
  r->from.key[15] = address;
  snprintf(r->from.text, sizeof r->from.text, "10.0.0.%u", address);
  if (api_admit(&w->api, r, header))
    api_dispatch(&w->api, r);
  return r;
}

static int status_of(struct world *w, const char *token, uint8_t address) {
  struct api_request *r = knock(w, token, address);
  int status = r->status;
  assert_true(status != 429 || r->retry_after > 0);
  api_request_unref(r);
  return status;
}

static void declare(struct world *w, const char *name, const char *text) {
  uint8_t hash[32];
  char key[KEY_MAX];
  crypto_sha256(text, strlen(text), hash);
  Model__Token t = MODEL__TOKEN__INIT;
  t.id = TEXT(name);
  t.name = TEXT(name);
  t.role = TEXT("admin");
  t.has_hash = 1;
  t.hash = (ProtobufCBinaryData){.len = 32, .data = hash};
  PB_SET(&t, declared, 1);
  key_named(key, KEY_TOKENS, name);
  put(w, key, &t.base);
}

static void wrong_tokens_wait_and_right_ones_do_not(void **state) {
  struct world *w = *state;
  put_token(w, "made", "secret-made", "admin", NULL, 0);
  declare(w, "chosen", "secret-chosen");
  declare(w, "known", "secret-known");
  assert_int_equal(status_of(w, "secret-known", 7), 200);
  for (int i = 0; i < API_THROTTLE_FREE; i++)
    assert_int_equal(status_of(w, "wrong", 7), 401);
  assert_int_equal(status_of(w, "wrong", 7), 429);
  assert_int_equal(status_of(w, "wrong", 8), 401);
  assert_int_equal(status_of(w, "secret-made", 7), 200);   /* nobody locks others out of a shared address */
  assert_int_equal(status_of(w, "secret-known", 7), 200);  /* nor those who come from there anyway */
  assert_int_equal(status_of(w, "secret-chosen", 7), 429); /* but a text that somebody chose is not found by trying */
  assert_int_equal(status_of(w, "secret-chosen", 8), 200);
  assert_int_equal(status_of(w, "wrong", 7), 429);
}

/* ---- what is written ---- */

static size_t audit_count(struct world *w) {
  return w->api.cache.tables[API_AUDIT].count;
}

static Model__AuditEntry *audit_at(struct world *w, size_t i) {
  const struct api_object *o = w->api.cache.tables[API_AUDIT].list[i].value;
  Model__AuditEntry *e = (Model__AuditEntry *)(void *)pb_unpack(&model__audit_entry__descriptor, o->bytes, o->len, NULL);
  assert_non_null(e);
  return e;
}

static void run_for(struct world *w, int64_t ms) {
  struct err err;
  int64_t end = loop_now(w->loop) + ms * NS_PER_MS;
  while (loop_now(w->loop) < end)
    assert_int_equal(loop_once(w->loop, 10 * NS_PER_MS, &err), 0);
}

/* ---- a clock that is set ---- */

struct two_clocks {
  int64_t mono, wall;
};

static int64_t mono_of(void *arg) {
  return ((struct two_clocks *)arg)->mono;
}

static int64_t wall_of(void *arg) {
  return ((struct two_clocks *)arg)->wall;
}

static void pass(void *arg, int64_t until) {
  struct two_clocks *c = arg;
  int64_t step = until - c->mono < 10 * NS_PER_MS ? until - c->mono : 10 * NS_PER_MS;
  c->mono += step;
  c->wall += step;
}

static struct two_clocks clocks;

static int clock_setup(void **state) {
  clocks = (struct two_clocks){.mono = 1000 * NS_PER_SEC, .wall = T0 * NS_PER_MS};
  *state = world_new_at(&(struct loop_clock){.mono = mono_of, .wall = wall_of, .sleep = pass, .arg = &clocks});
  return 0;
}

static void set_back(struct world *w, int64_t by) {
  struct err err;
  clocks.wall -= by;
  clocks.mono += NS_PER_MS;
  assert_int_equal(loop_once(w->loop, 0, &err), 0);
}

static void a_clock_that_is_set_back_lengthens_no_wait(void **state) {
  struct world *w = *state;
  declare(w, "chosen", "secret-chosen");
  for (int i = 0; i < 2 * API_THROTTLE_SCORE_MAX; i++)
    status_of(w, "wrong", 7);
  set_back(w, 3600 * NS_PER_SEC);
  struct api_request *r = knock(w, "secret-chosen", 7);
  assert_int_equal(r->status, 429);
  assert_true(r->retry_after <= API_THROTTLE_WAIT_MAX_MS / 1000);
  api_request_unref(r);
  run_for(w, API_THROTTLE_WAIT_MAX_MS);
  assert_int_equal(status_of(w, "secret-chosen", 7), 200);
}

static void a_clock_that_is_set_back_holds_no_line_of_the_log(void **state) {
  struct world *w = *state;
  put_token(w, "viewer", "secret-viewer", "viewer", NULL, 0);
  for (int i = 0; i < 5; i++) /* counted, and written once */
    assert_int_equal(status_of(w, "wrong", 7), 401);
  run_for(w, 1000);
  assert_int_equal(audit_count(w), 1);
  assert_int_equal(status_of(w, "wrong", 8), 401); /* not written yet */
  assert_int_equal(status_of(w, "secret-viewer", 7), 200);
  set_back(w, 24 * 3600 * NS_PER_SEC);
  assert_int_equal(status_of(w, "wrong", 7), 401);
  run_for(w, AUDIT_MINUTE_MS + 1000);
  assert_int_equal(audit_count(w), 3);
  uint64_t times = 0;
  for (size_t i = 0; i < 3; i++) {
    Model__AuditEntry *e = audit_at(w, i);
    times += PB_GET(e, count, 1);
    model__audit_entry__free_unpacked(e, NULL);
  }
  assert_int_equal(times, 7);
  /* The use of a token is stored within the minute, too. */
  assert_int_equal(status_of(w, "secret-viewer", 7), 200);
  assert_true(loop_timer_is_set(&w->api.uses.timer));
  assert_true(w->api.uses.timer.at - loop_now(w->loop) <= API_TOKEN_USE_EVERY_MS * NS_PER_MS);
}

/* ---- folding ---- */

static struct audit_line line_of(const char *token, const char *from, const char *path, const char *result, int64_t ms, uint32_t seq) {
  struct audit_line l = {.ms = ms, .seq = seq, .status = 401, .count = 1};
  snprintf(l.token_id, sizeof l.token_id, "%s", token);
  snprintf(l.actor, sizeof l.actor, "%s", token);
  snprintf(l.from, sizeof l.from, "%s", from);
  snprintf(l.method, sizeof l.method, "GET");
  snprintf(l.path, sizeof l.path, "%s", path);
  snprintf(l.result, sizeof l.result, "%s", result);
  return l;
}

struct told {
  size_t count;
  struct audit_line last;
  uint64_t sum;
};

static void tell(void *arg, const struct audit_line *line) {
  struct told *t = arg;
  t->count++;
  t->last = *line;
  t->sum += line->count;
}

static void alike_within_a_minute_is_one_line(void **state) {
  (void)state;
  struct audit_fold f = {0};
  struct told t = {0};
  struct audit_line l = line_of("", "10.0.0.7", "/x", "unauthenticated: no", T0, 1);
  assert_int_equal(audit_fold_due(&f, 100), INT64_MAX);
  audit_fold_note(&f, &l);
  assert_int_equal(audit_fold_due(&f, 100), T0 + 100);
  assert_int_equal(audit_fold_pending(&f, T0 + 100, 10, tell, &t), 1);
  audit_fold_written(&f, 1, 1, T0 + 100);
  assert_int_equal(audit_fold_due(&f, 100), T0 + AUDIT_MINUTE_MS);
  for (int i = 0; i < 36; i++) {
    l = line_of("", "10.0.0.7", "/x", "unauthenticated: another text", T0 + 1000 * i, 2);
    audit_fold_note(&f, &l);
  }
  assert_int_equal(audit_fold_pending(&f, T0 + 36000, 10, tell, &t), 0);
  assert_int_equal(audit_fold_pending(&f, T0 + AUDIT_MINUTE_MS, 10, tell, &t), 1);
  assert_int_equal(t.last.count, 37);
  assert_int_equal(t.last.seq, 1);
  /* The next minute is another line, while the last one is still being written. */
  l = line_of("", "10.0.0.7", "/x", "unauthenticated: no", T0 + AUDIT_MINUTE_MS, 3);
  audit_fold_note(&f, &l);
  assert_int_equal(f.count, 2);
  audit_fold_written(&f, 1, 37, T0 + AUDIT_MINUTE_MS);
  assert_int_equal(f.count, 1);
  /* Other actors, results, paths and addresses are other lines. */
  l = line_of("ci", "10.0.0.7", "/x", "denied: no", T0 + AUDIT_MINUTE_MS, 4);
  audit_fold_note(&f, &l);
  l = line_of("ci", "10.0.0.8", "/x", "denied: no", T0 + AUDIT_MINUTE_MS, 5);
  audit_fold_note(&f, &l);
  l = line_of("ci", "10.0.0.7", "/y", "denied: no", T0 + AUDIT_MINUTE_MS, 6);
  audit_fold_note(&f, &l);
  assert_int_equal(f.count, 4);
  audit_fold_free(&f);
}

static void a_flood_has_few_lines_and_loses_no_count(void **state) {
  (void)state;
  struct audit_fold f = {0};
  struct told t = {0};
  char path[64], from[64];
  const unsigned n = 100000;
  for (unsigned i = 0; i < n; i++) {
    snprintf(path, sizeof path, "/%u", i);
    snprintf(from, sizeof from, "10.%u.%u.7", i % 7, i % 250);
    struct audit_line l = line_of("", from, path, "unauthenticated: no", T0, i + 1);
    audit_fold_note(&f, &l);
  }
  assert_true(f.count <= AUDIT_LINES_STRANGERS + 1);
  /* Those whom we know still have room. */
  struct audit_line l = line_of("ci", "10.0.0.1", "/x", "denied: no", T0, n + 1);
  audit_fold_note(&f, &l);
  audit_fold_pending(&f, T0 + 100, 1000, tell, &t);
  assert_int_equal(t.sum, n + 1);
  for (unsigned i = 0; i < 10000; i++) {
    snprintf(path, sizeof path, "/%u", i);
    l = line_of("ci", "10.0.0.1", path, "denied: no", T0, n + 2 + i);
    audit_fold_note(&f, &l);
  }
  assert_true(f.count <= AUDIT_LINES);
  audit_fold_free(&f);
}

/* ---- the log ---- */

static void a_change_has_its_line_in_its_transaction(void **state) {
  struct world *w = *state;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  struct api_request *r = ask(w, "POST", "/api/v1/services/api/scale", "secret-admin", "{\"replicas\":3}", NULL, NULL);
  assert_int_equal(r->status, 200);
  api_request_unref(r);
  assert_int_equal(w->commits, 1);
  assert_int_equal(audit_count(w), 1);
  Model__AuditEntry *e = audit_at(w, 0);
  assert_string_equal(e->actor, "admin");
  assert_string_equal(e->path, "/api/v1/services/{name}/scale");
  assert_string_equal(e->target, "shop/api");
  assert_string_equal(e->project, "shop");
  assert_string_equal(e->result, "ok");
  model__audit_entry__free_unpacked(e, NULL);
  /* The same again changes nothing: no line. */
  r = ask(w, "POST", "/api/v1/services/api/scale", "secret-admin", "{\"replicas\":3}", NULL, NULL);
  assert_int_equal(r->status, 200);
  api_request_unref(r);
  run_for(w, 150);
  assert_int_equal(audit_count(w), 1);
  /* Somebody was faster twice: still one line. */
  w->refuse = 2;
  r = ask(w, "POST", "/api/v1/services/api/scale", "secret-admin", "{\"replicas\":4}", NULL, NULL);
  run_for(w, 400);
  assert_int_equal(r->status, 200);
  api_request_unref(r);
  assert_int_equal(audit_count(w), 2);
}

static void refusals_have_lines_too(void **state) {
  struct world *w = *state;
  put_token(w, "viewer", "secret-viewer", "viewer", NULL, 0);
  put_token(w, "other", "secret-other", "admin", "other", 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  static const struct {
    const char *method, *path, *token, *body;
  } asked[] = {{"GET", "/api/v1/status", NULL, NULL},
               {"GET", "/secret\033path", "wrong-token-text", NULL},
               {"POST", "/api/v1/services/api/scale", "secret-viewer", "{\"replicas\":77}"},
               {"GET", "/api/v1/services/api", "secret-other", NULL},
               {"POST", "/api/v1/services/api/stop", "secret-other", NULL},
               {"GET", "/api/v1/services/nothing", "secret-viewer", NULL}, /* not there: no refusal */
               {"GET", "/api/v1/status", "secret-viewer", NULL}};
  for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
    api_request_unref(ask(w, asked[i].method, asked[i].path, asked[i].token, asked[i].body, NULL, NULL));
  run_for(w, 200);
  assert_int_equal(audit_count(w), 5);
  for (size_t i = 0; i < 5; i++) {
    static const unsigned status[] = {401, 401, 403, 404, 404};
    Model__AuditEntry *e = audit_at(w, i);
    assert_int_equal(e->status, status[i]);
    assert_null(strstr(PB_STR(e->result), "77"));
    assert_null(strstr(PB_STR(e->result), "wrong-token"));
    if (i == 1)
      assert_string_equal(e->path, "/secret?path");
    if (i == 2)
      assert_string_equal(e->target, "api");
    model__audit_entry__free_unpacked(e, NULL);
  }
}

static void committed(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)arg;
  (void)revision;
  assert_true(succeeded);
  assert_null(err);
}

/* A line that is no UTF-8 would be stored, and never shown. */
static void nothing_that_is_asked_for_hides_its_line(void **state) {
  struct world *w = *state;
  char word[128];
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "other", "secret-other", "viewer", "other", 0);
  put_service(w, "shop", "api", 1, 1);
  api_request_unref(ask(w, "GET", "/api/v1/services/api", "secret-other", NULL, "project", "sh\xff\xfeop"));
  api_request_unref(ask(w, "GET", "/api/v1/services/\xc3\x28", "secret-other", NULL, "project", "shop"));
  api_request_unref(ask(w, "DELETE", "/api/v1/tokens/\xed\xa0\x80", "secret-admin", NULL, NULL, NULL));
  /* As exec does it, of a command whose name is cut within a character. */
  struct api_request *r = ask(w, "GET", "/api/v1/services/api", "secret-admin", NULL, "project", "shop");
  memset(word, 'c', sizeof word);
  memcpy(word + 59, "\xc3\xa9 and more", 12);
  word[71] = 0;
  api_audit_target(r, "shop", "%s: %.60s", "shop/api.1", word);
  api_audit_note(r, 101, "ok");
  struct storec_txn *txn = storec_txn_new();
  api_service_event(&w->api, txn, r, "exec.started", "shop", "api", "%s: %.60s: and on", "shop/api.1", word);
  w->api.commit(w, txn, committed, NULL);
  api_request_unref(r);
  run_for(w, 200);
  r = ask(w, "GET", "/api/v1/audit", "secret-admin", NULL, NULL, NULL);
  json_t *json = answer_of(r);
  assert_int_equal(json_array_size(json_object_get(json, "entries")), 3); /* the first two are alike */
  json_decref(json);
  api_request_unref(r);
  r = ask(w, "GET", "/api/v1/events", "secret-admin", NULL, NULL, NULL);
  json = answer_of(r);
  assert_int_equal(json_array_size(json_object_get(json, "events")), 1);
  json_decref(json);
  api_request_unref(r);
}

static void what_was_done_is_told_behind_a_flood_of_refusals(void **state) {
  struct world *w = *state;
  char path[64];
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  for (unsigned i = 0; i < 2 * AUDIT_LINES; i++) {
    snprintf(path, sizeof path, "/nothing/%u", i);
    api_request_unref(ask(w, "POST", path, "secret-deployer", NULL, NULL, NULL));
  }
  for (unsigned i = 0; i < 3; i++) { /* as exec does */
    struct api_request *r = ask(w, "GET", "/api/v1/services/api", "secret-deployer", NULL, "project", "shop");
    api_audit_target(r, "shop", "shop/api.%u: steal", i);
    api_audit_note(r, 101, "ok");
    api_request_unref(r);
  }
  run_for(w, 1500);
  size_t told = 0;
  for (size_t i = 0; i < audit_count(w); i++) {
    Model__AuditEntry *e = audit_at(w, i);
    told += strstr(PB_STR(e->target), ": steal") != NULL;
    model__audit_entry__free_unpacked(e, NULL);
  }
  assert_int_equal(told, 3);
  assert_true(audit_count(w) <= AUDIT_LINES + 3);
}

/* A viewer's, over hours: what was done stays. */
static void refusals_push_no_change_out(void **state) {
  struct world *w = *state;
  char path[64];
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "viewer", "secret-viewer", "viewer", NULL, 0);
  put_token(w, "helpdesk", "secret-helpdesk", "viewer", NULL, 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  api_request_unref(ask(w, "POST", "/api/v1/services/api/scale", "secret-admin", "{\"replicas\":7}", NULL, NULL));
  assert_int_equal(audit_count(w), 1);
  for (unsigned minute = 0; minute < 60; minute++) {
    for (unsigned i = 0; i < 2 * AUDIT_LINES_PER_TOKEN; i++) {
      snprintf(path, sizeof path, "/nothing/%u", i);
      api_request_unref(ask(w, "POST", path, "secret-viewer", NULL, NULL, NULL));
    }
    if (!minute) /* others still have lines of their own */
      api_request_unref(ask(w, "POST", "/api/v1/services/api/scale", "secret-helpdesk", "{\"replicas\":9}", NULL, NULL));
    run_for(w, 300);
    clocks.wall += AUDIT_MINUTE_MS * NS_PER_MS;
  }
  assert_true(audit_count(w) <= API_AUDIT_REFUSED);
  Model__AuditEntry *e = audit_at(w, 0);
  assert_string_equal(e->actor, "admin");
  model__audit_entry__free_unpacked(e, NULL);
}

static void the_log_is_bounded_and_keeps_what_was_done(void **state) {
  struct world *w = *state;
  char key[KEY_MAX];
  for (uint32_t i = 0; i < API_AUDIT_MAX + 500; i++) {
    Model__AuditEntry e = MODEL__AUDIT_ENTRY__INIT;
    PB_SET(&e, ms, T0 + i);
    char kinds[KEY_MAX + 1];
    key_event(key, KEY_AUDIT, T0 + i, i);
    snprintf(kinds, sizeof kinds, "%s%s", key, i % 3 == 0 ? "" : i % 3 == 1 ? "s" : "r");
    put(w, kinds, &e.base);
  }
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_service(w, "shop", "api", 1, 1);
  put_revision(w, "shop", "api", 1, "x:1", NULL);
  size_t done = 0;
  for (unsigned i = 0; i < 200; i++) {
    char body[64];
    snprintf(body, sizeof body, "{\"replicas\":%u}", i + 2);
    api_request_unref(ask(w, "POST", "/api/v1/services/api/scale", "secret-admin", body, NULL, NULL));
  }
  assert_true(audit_count(w) <= API_AUDIT_MAX);
  for (size_t i = 0; i < audit_count(w); i++) {
    const char *k = w->api.cache.tables[API_AUDIT].list[i].key;
    done += k[strlen(k) - 1] != 's' && k[strlen(k) - 1] != 'r';
  }
  assert_int_equal(done, 200 + (API_AUDIT_MAX + 500) / 3 + 1 - ((API_AUDIT_MAX + 500) % 3 == 0)); /* of those with an actor, none has gone */
}

/* ---- tokens ---- */

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

/* ---- what another project has ---- */

static struct api_request *plan_as(struct world *w, const char *token, const char *more) {
  char body[1024];
  snprintf(body, sizeof body, "{\"services\":[{\"name\":\"mine\",\"project\":\"other\",\"image\":\"i:1\",\"port\":80%s}]}", more);
  return ask(w, "POST", "/api/v1/deploy", token, body, "dry_run", "true");
}

/* A good one is answered when the scheduler has told its steps. */
static int planned(const struct api_request *r) {
  return r->answered ? r->status : 200;
}

static void a_plan_tells_nothing_of_other_projects(void **state) {
  struct world *w = *state;
  char sha[65], key[KEY_MAX], mount[256];
  memset(sha, 'a', 64);
  sha[64] = 0;
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_service(w, "shop", "api", 1, 1);
  Model__MountFile file = MODEL__MOUNT_FILE__INIT, *files[] = {&file};
  Model__Mount of_shop = MODEL__MOUNT__INIT, *mounts[] = {&of_shop};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  char *domains[] = {TEXT("a.test")};
  file.sha256 = sha;
  of_shop.source = TEXT("conf");
  of_shop.target = TEXT("/conf");
  of_shop.files = files;
  of_shop.n_files = 1;
  spec.project = TEXT("shop");
  spec.name = TEXT("api");
  spec.image = TEXT("x:1");
  spec.domains = domains;
  spec.n_domains = 1;
  spec.mounts = mounts;
  spec.n_mounts = 1;
  PB_SET(&spec, port, 80);
  Model__Revision revision = MODEL__REVISION__INIT;
  revision.project = TEXT("shop");
  revision.name = TEXT("api");
  revision.spec = &spec;
  PB_SET(&revision, number, 1);
  key_numbered(key, KEY_REVISIONS, "shop", "api", 1);
  put(w, key, &revision.base);
  Model__File content = MODEL__FILE__INIT;
  key_named(key, KEY_FILES, sha);
  put(w, key, &content.base);
  snprintf(mount, sizeof mount, ",\"mounts\":[{\"source\":\"conf\",\"target\":\"/x\",\"files\":[{\"path\":\"f\",\"sha256\":\"%s\"}]}]", sha);
  const struct {
    const char *more;
    int as_admin, as_other;
  } cases[] = {{"", 200, 200},
               {",\"domains\":[\"a.test\"]", 422, 422},
               {",\"depends_on\":[\"shop/api\"]", 200, 422},
               {",\"placement\":{\"avoid\":[\"shop/api\"]}", 200, 422},
               {mount, 200, 422}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_request *r = plan_as(w, "secret-admin", cases[i].more);
    if (planned(r) != cases[i].as_admin)
      fail_msg("%s as admin: %d %s", cases[i].more, r->status, buf_str(&r->out));
    api_request_unref(r);
    r = plan_as(w, "secret-other", cases[i].more);
    if (planned(r) != cases[i].as_other)
      fail_msg("%s as other: %d %s", cases[i].more, r->status, buf_str(&r->out));
    if (i == 1)
      assert_null(strstr(buf_str(&r->out), "shop"));
    api_request_unref(r);
  }
}

/* The names of tokens are an admin's to know. */
static void a_plan_tells_no_names_of_tokens(void **state) {
  struct world *w = *state;
  static const char *const tokens[] = {"secret-admin", "secret-other", "secret-other-admin", "secret-deployer"};
  char body[512];
  put_token(w, "admin", "secret-admin", "admin", NULL, 0);
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_token(w, "other-admin", "secret-other-admin", "admin", "other", 0);
  put_token(w, "deployer", "secret-deployer", "deployer", NULL, 0);
  snprintf(body, sizeof body, "{\"cluster\":{\"token\":[{\"name\":\"admin\",\"role\":\"viewer\",\"hash\":\"%064d\"}]},\"services\":[]}", 1);
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
    struct api_request *r = ask(w, "POST", "/api/v1/deploy", tokens[i], body, "dry_run", "true");
    assert_int_equal(planned(r), i ? 200 : 422);
    assert_int_equal(strstr(buf_str(&r->out), "is taken by a token") != NULL, i == 0);
    api_request_unref(r);
    r = ask(w, "POST", "/api/v1/deploy", tokens[i], body, NULL, NULL);
    assert_int_equal(r->status, i ? 403 : 422);
    api_request_unref(r);
  }
}

/* A revision that gives a domain up may fail, and the one before comes back by itself. */
static void a_domain_is_free_once_the_rollout_is_over(void **state) {
  struct world *w = *state;
  char key[KEY_MAX];
  put_token(w, "other", "secret-other", "deployer", "other", 0);
  put_service(w, "shop", "api", 2, 1);
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  char *domains[] = {TEXT("a.test")};
  spec.project = TEXT("shop");
  spec.name = TEXT("api");
  spec.image = TEXT("x:1");
  PB_SET(&spec, port, 80);
  Model__Revision revision = MODEL__REVISION__INIT;
  revision.project = TEXT("shop");
  revision.name = TEXT("api");
  revision.spec = &spec;
  for (uint64_t n = 2; n > 0; n--) {
    spec.domains = domains;
    spec.n_domains = n == 1;
    PB_SET(&revision, number, n);
    key_numbered(key, KEY_REVISIONS, "shop", "api", n);
    put(w, key, &revision.base);
  }
  Model__Rollout rollout = MODEL__ROLLOUT__INIT;
  rollout.project = TEXT("shop");
  rollout.service = TEXT("api");
  PB_SET(&rollout, revision, 2);
  key_service(key, KEY_ROLLOUTS, "shop", "api");
  for (uint64_t stable = 1; stable <= 2; stable++) {
    PB_SET(&rollout, stable_revision, stable);
    put(w, key, &rollout.base);
    struct api_request *r = plan_as(w, "secret-other", ",\"domains\":[\"a.test\"]");
    assert_int_equal(planned(r), stable == 1 ? 422 : 200);
    api_request_unref(r);
  }
}

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(addresses),
      cmocka_unit_test(a_page_of_another_site_is_not_local),
      cmocka_unit_test(waits_grow_and_end),
      cmocka_unit_test(many_addresses_push_out_the_least_guilty),
      cmocka_unit_test_setup_teardown(wrong_tokens_wait_and_right_ones_do_not, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_clock_that_is_set_back_lengthens_no_wait, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_clock_that_is_set_back_holds_no_line_of_the_log, clock_setup, world_teardown),
      cmocka_unit_test(alike_within_a_minute_is_one_line),
      cmocka_unit_test(a_flood_has_few_lines_and_loses_no_count),
      cmocka_unit_test_setup_teardown(a_change_has_its_line_in_its_transaction, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(refusals_have_lines_too, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(nothing_that_is_asked_for_hides_its_line, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(what_was_done_is_told_behind_a_flood_of_refusals, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(refusals_push_no_change_out, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(the_log_is_bounded_and_keeps_what_was_done, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_token_is_made_shown_once_and_works, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(what_is_no_token_is_not_made, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(nobody_makes_more_than_he_has, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(those_that_expired_long_ago_make_room, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_name_that_was_another_s_opens_no_log, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(the_last_one_that_may_everything_stays, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_plan_tells_nothing_of_other_projects, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_plan_tells_no_names_of_tokens, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_domain_is_free_once_the_rollout_is_over, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(tokens_of_cluster_toml_are_not_kept_in_it, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(declared_ones_come_and_go, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_request_whose_token_ends_before_its_body_is_there_does_nothing, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_token_with_fewer_rights_loses_what_it_has_open, clock_setup, world_teardown),
  };
  return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
