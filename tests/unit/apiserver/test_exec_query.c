/* What an exec asks for in its query, and which instance is meant. */
#include "orca-apiserver/exec_query.h"
#include "tests/unit/apiserver/world.h"

static Node__StartExec *parse(const char *const *query, struct err *err) {
  struct api_request r = {0};
  for (; *query; query += 2)
    r.query[r.query_count++] = (struct api_query){(char *)(uintptr_t)query[0], (char *)(uintptr_t)query[1]};
  return exec_query_parse(&r, err);
}

static void a_query_becomes_a_start(void **state) {
  (void)state;
  struct err err;
  const char *words[] = {"cmd", "sh", "cmd", "-c", "env", "A=1", "tty", "true", "rows", "24", "cols", "80", "user", "7:8", NULL};
  Node__StartExec *m = parse(words, &err);
  assert_non_null(m);
  assert_int_equal(m->n_argv, 2);
  assert_string_equal(m->argv[1], "-c");
  assert_string_equal(m->env[0], "A=1");
  assert_string_equal(m->user, "7:8");
  assert_true(m->tty && !m->stdin && m->rows == 24 && m->cols == 80);
  node__start_exec__free_unpacked(m, NULL);
  const char *json[] = {"cmd", "[\"echo\",\"[x]\",\"\"]", "stdin", "1", NULL};
  m = parse(json, &err);
  assert_non_null(m);
  assert_int_equal(m->n_argv, 3);
  assert_string_equal(m->argv[1], "[x]");
  assert_true(m->stdin);
  node__start_exec__free_unpacked(m, NULL);
}

static void bad_queries_are_refused(void **state) {
  (void)state;
  const char *bad[][5] = {{NULL},
                          {"cmd", "", NULL},
                          {"cmd", "[]", NULL},
                          {"cmd", "[1]", NULL},
                          {"cmd", "[\"a\"", NULL},
                          {"cmd", "a\xff", NULL},
                          {"cmd", "a", "rows", "0", NULL},
                          {"cmd", "a", "cols", "10001", NULL},
                          {"cmd", "a", "rows", "-1", NULL},
                          {"cmd", "a", "user", "\xc3", NULL}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct err err;
    assert_null(parse(bad[i], &err));
  }
}

static void add(struct world *w, uint64_t number, const char *node, Model__Phase phase, bool ready) {
  put_instance(w, "shop", "api", number, 1, node, MODEL__DESIRED__DESIRED_RUN);
  put_status(w, "shop", "api", number, node, phase, ready);
}

static uint64_t chosen(const struct world *w, const char *wanted, enum err_code *code) {
  struct err err = {.code = ERR_NONE};
  const Model__Instance *one = exec_query_instance(&w->api.cache, "shop", "api", wanted, &err);
  *code = one ? ERR_NONE : err.code;
  return one ? one->number : 0;
}

static void the_lowest_ready_one_is_meant(void **state) {
  struct world *w = *state;
  enum err_code code;
  assert_int_equal(chosen(w, NULL, &code), 0);
  assert_int_equal(code, ERR_CONFLICT);
  add(w, 1, "", MODEL__PHASE__PHASE_WAITING, false);
  add(w, 2, "n1", MODEL__PHASE__PHASE_RUNNING, false);
  assert_int_equal(chosen(w, NULL, &code), 2);
  add(w, 3, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  add(w, 4, "n1", MODEL__PHASE__PHASE_RUNNING, true);
  assert_int_equal(chosen(w, NULL, &code), 3);
  assert_int_equal(chosen(w, "", &code), 3);
  assert_int_equal(chosen(w, "4", &code), 4);
  assert_int_equal(chosen(w, "shop/api.2", &code), 2);
  assert_int_equal(chosen(w, "1", &code), 0);
  assert_int_equal(code, ERR_CONFLICT);
  assert_int_equal(chosen(w, "9", &code), 0);
  assert_int_equal(code, ERR_NOT_FOUND);
  assert_int_equal(chosen(w, "shop/db.2", &code), 0);
  assert_int_equal(code, ERR_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_query_becomes_a_start), cmocka_unit_test(bad_queries_are_refused),
                                     cmocka_unit_test_setup_teardown(the_lowest_ready_one_is_meant, world_setup, world_teardown)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
