/* The log's level: who sets it, and who goes before whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/log.h"

static void the_cluster_sets_the_level_until_somebody_pins_it(void **state) {
  (void)state;
  assert_true(log_enabled(LOG_LEVEL_INFO));
  assert_false(log_enabled(LOG_LEVEL_DEBUG));
  log_follow_level("trace");
  assert_true(log_enabled(LOG_LEVEL_TRACE));
  log_follow_level("error");
  assert_false(log_enabled(LOG_LEVEL_WARN));
  log_follow_level("a newer word");
  assert_false(log_enabled(LOG_LEVEL_WARN));
  assert_true(log_enabled(LOG_LEVEL_ERROR));
  log_follow_level("");
  assert_true(log_enabled(LOG_LEVEL_INFO));
  assert_false(log_enabled(LOG_LEVEL_DEBUG));
  log_pin_level(LOG_LEVEL_DEBUG);
  log_follow_level("error");
  assert_true(log_enabled(LOG_LEVEL_DEBUG));
  assert_false(log_enabled(LOG_LEVEL_TRACE));
}

int main(void) {
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* each change is a line of the log */
  int out = dup(STDERR_FILENO);
  dup2(null, STDERR_FILENO);
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_cluster_sets_the_level_until_somebody_pins_it)};
  int rc = cmocka_run_group_tests(tests, NULL, NULL);
  dup2(out, STDERR_FILENO);
  close(null);
  close(out);
  return rc;
}
