/* What a StartExec must look like, and what Docker is told of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-agent/exec_request.h"

static char *argv[] = {"sh", "-c", "true"}, *env[] = {"A=1", "B="};

static Node__StartExec good(void) {
  Node__StartExec m = NODE__START_EXEC__INIT;
  PB_SET(&m, session, 7);
  m.argv = argv;
  m.n_argv = 3;
  m.env = env;
  m.n_env = 2;
  return m;
}

static enum err_code checked(const Node__StartExec *m) {
  struct err err;
  return exec_request_check(m, &err) == 0 ? ERR_NONE : err.code;
}

static void what_is_asked_for_is_checked(void **state) {
  (void)state;
  static char *many[EXEC_ARGS_MAX + 1], *unnamed[] = {"=x"}, *bare[] = {"A"}, *empty[] = {""};
  static char text[EXEC_TEXT_MAX + 2], *huge[] = {text};
  Node__StartExec m = good();
  assert_int_equal(checked(&m), ERR_NONE);
  m.has_session = 0;
  assert_int_equal(checked(&m), ERR_INVALID);
  m = good(), m.n_argv = 0;
  assert_int_equal(checked(&m), ERR_INVALID);
  m = good(), m.argv = empty, m.n_argv = 1;
  assert_int_equal(checked(&m), ERR_INVALID);
  for (size_t n = 0; n <= EXEC_ARGS_MAX; n++)
    many[n] = argv[0];
  m = good(), m.argv = many, m.n_argv = EXEC_ARGS_MAX + 1;
  assert_int_equal(checked(&m), ERR_INVALID);
  m = good(), m.env = unnamed, m.n_env = 1;
  assert_int_equal(checked(&m), ERR_INVALID);
  m = good(), m.env = bare, m.n_env = 1;
  assert_int_equal(checked(&m), ERR_INVALID);
  memset(text, 'x', sizeof text - 1);
  m = good(), m.argv = huge, m.n_argv = 1;
  assert_int_equal(checked(&m), ERR_TOO_LARGE);
  char relative[] = "tmp", absolute[] = "/tmp";
  m = good(), m.workdir = relative;
  assert_int_equal(checked(&m), ERR_INVALID);
  m.workdir = absolute;
  assert_int_equal(checked(&m), ERR_NONE);
  PB_SET(&m, rows, 100000);
  assert_int_equal(checked(&m), ERR_INVALID);
}

static void docker_is_told(void **state) {
  (void)state;
  Node__StartExec m = good();
  PB_SET(&m, tty, true);
  json_t *json = exec_request_json(&m);
  assert_non_null(json);
  assert_int_equal(json_array_size(json_object_get(json, "Cmd")), 3);
  assert_string_equal(json_string_value(json_array_get(json_object_get(json, "Env"), 1)), "B=");
  assert_true(json_is_true(json_object_get(json, "Tty")));
  assert_true(json_is_false(json_object_get(json, "AttachStdin")));
  assert_null(json_object_get(json, "Privileged"));
  assert_true(strlen(json_string_value(json_object_get(json, "DetachKeys"))) > 30);
  json_decref(json);
  struct buf b = BUF_INIT(4096);
  exec_request_start("abc", true, &b);
  assert_non_null(strstr(buf_str(&b), "POST /v1.41/exec/abc/start HTTP/1.1\r\n"));
  assert_non_null(strstr(buf_str(&b), "Content-Length: 27\r\n\r\n{\"Detach\":false,\"Tty\":true}"));
  buf_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_asked_for_is_checked), cmocka_unit_test(docker_is_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
