/* Contexts and their tokens: whatever fails, no token comes to stand where it would be sent to another cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orcactl/context.h"

static char home[] = "/tmp/orca-context.XXXXXX";

static int setup(void **state) {
  (void)state;
  snprintf(home, sizeof home, "/tmp/orca-context.XXXXXX");
  return mkdtemp(home) && setenv("ORCA_HOME", home, 1) == 0 ? 0 : -1;
}

static const char *below(const char *name) {
  static char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", home, name);
  return path;
}

static int teardown(void **state) {
  (void)state;
  unlink(below("tokens/one"));
  unlink(below("tokens/two"));
  rmdir(below("tokens"));
  rmdir(below("config.json.new"));
  unlink(below("config.json"));
  return rmdir(home);
}

static int save(const char *name, const char *url, const char *token) {
  struct context c = {0};
  struct err err;
  snprintf(c.name, sizeof c.name, "%s", name);
  snprintf(c.url, sizeof c.url, "%s", url);
  snprintf(c.token, sizeof c.token, "%s", token);
  return context_save(&c, true, &err);
}

static void expect(const char *name, const char *url, const char *token) {
  struct context c;
  struct err err;
  assert_int_equal(context_load(name, &c, &err), 0);
  assert_string_equal(c.url, url);
  assert_string_equal(c.token, token);
}

static void contexts_are_kept_and_replaced(void **state) {
  (void)state;
  struct context c;
  struct stat st;
  struct err err;
  assert_int_equal(context_load(NULL, &c, &err), -1);
  assert_int_equal(save("one", "http://127.0.0.1:1", "token-1"), 0);
  assert_int_equal(save("two", "http://127.0.0.1:2", "token-2"), 0);
  expect("one", "http://127.0.0.1:1", "token-1");
  expect(NULL, "http://127.0.0.1:2", "token-2");
  assert_int_equal(stat(below("tokens/one"), &st), 0);
  assert_int_equal(st.st_mode & 0777, 0400);
  assert_int_equal(save("one", "http://127.0.0.1:1", "token-new"), 0);
  expect("one", "http://127.0.0.1:1", "token-new");
  assert_int_equal(save("one", "http://127.0.0.1:3", "token-3"), 0);
  expect("one", "http://127.0.0.1:3", "token-3");
  assert_int_equal(context_remove("one", &err), 0);
  assert_int_equal(context_load("one", &c, &err), -1);
  assert_int_equal(access(below("tokens/one"), F_OK), -1);
}

static void a_token_never_meets_the_address_of_another_cluster(void **state) {
  (void)state;
  struct context c;
  struct err err;
  assert_int_equal(save("one", "http://127.0.0.1:1", "token-1"), 0);
  assert_int_equal(mkdir(below("config.json.new"), 0700), 0); /* config.json can't be written now */
  assert_int_equal(save("one", "http://127.0.0.1:2", "token-2"), -1);
  assert_int_equal(context_load("one", &c, &err), -1);
  /* The same cluster's own keeps its token, or gets the new one. */
  assert_int_equal(rmdir(below("config.json.new")), 0);
  assert_int_equal(save("one", "http://127.0.0.1:1", "token-1"), 0);
  assert_int_equal(mkdir(below("config.json.new"), 0700), 0);
  assert_int_equal(save("one", "http://127.0.0.1:1", "token-1b"), -1);
  expect("one", "http://127.0.0.1:1", "token-1");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(contexts_are_kept_and_replaced, setup, teardown),
      cmocka_unit_test_setup_teardown(a_token_never_meets_the_address_of_another_cluster, setup, teardown),
  };
  return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}
