/* Which of Docker's refusals are a command that is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "orca-agent/exec_fault.h"

static int32_t code_of(const char *text, size_t pieces, int32_t code) {
  struct exec_fault f = {0};
  size_t len = strlen(text), piece = len / pieces ? len / pieces : 1;
  for (size_t at = 0; at < len; at += piece)
    exec_fault_feed(&f, (const uint8_t *)text + at, at + piece < len ? piece : len - at);
  return exec_fault_code(&f, code);
}

static void not_found(void **state) {
  (void)state;
  static const char missing[] =
      "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\": executable file not found in "
      "$PATH: unknown\r\n";
  assert_int_equal(code_of(missing, 1, 126), 127);
  assert_int_equal(code_of(missing, 7, 126), 127);
  assert_int_equal(code_of(missing, 1, 1), 1);
  assert_int_equal(code_of("OCI runtime exec failed: exec: \"/x\": stat /x: no such file or directory: unknown\n", 1, 126), 127);
  assert_int_equal(code_of("OCI runtime exec failed: exec failed: exec: \"/bin\": permission denied: unknown\n", 1, 126), 126);
  assert_int_equal(code_of("sh: OCI runtime exec failed: executable file not found\n", 1, 126), 126); /* a command's own words */
  assert_int_equal(code_of("", 1, 126), 126);
  char much[2000];
  memset(much, 'x', sizeof much - 1);
  much[sizeof much - 1] = 0;
  memcpy(much, missing, strlen(missing));
  assert_int_equal(code_of(much, 3, 126), 126);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(not_found)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
