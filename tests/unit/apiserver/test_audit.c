/* The audit log: what has a line, what does not hide it, and what is kept. */
#include "tests/unit/apiserver/access.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_clock_that_is_set_back_holds_no_line_of_the_log, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(a_change_has_its_line_in_its_transaction, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(refusals_have_lines_too, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(nothing_that_is_asked_for_hides_its_line, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(what_was_done_is_told_behind_a_flood_of_refusals, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(refusals_push_no_change_out, clock_setup, world_teardown),
      cmocka_unit_test_setup_teardown(the_log_is_bounded_and_keeps_what_was_done, world_setup, world_teardown),
  };
  return cmocka_run_group_tests_name("audit", tests, NULL, NULL);
}
