/* The files of a key pair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bus/bus.h"

static void test_keys(void **state) {
  (void)state;
  struct err err;
  struct bus_key_pair pair, read;
  char dir[] = "/tmp/orca-test-keys-XXXXXX", path[128], other[128];
  assert_non_null(mkdtemp(dir));
  assert_int_equal(bus_key_new(&pair, &err), 0);
  assert_int_equal(bus_key_save(dir, "agent", &pair, &err), 0);
  assert_int_equal(bus_key_save(dir, "agent", &pair, &err), -1); /* never overwrites */
  assert_int_equal(err.code, ERR_CONFLICT);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), 0);
  assert_memory_equal(&pair, &read, sizeof pair);
  snprintf(path, sizeof path, "%s/agent.key", dir);
  assert_int_equal(chmod(path, 0440), 0);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  assert_null(strstr(err.msg, pair.secret_key));
  assert_int_equal(bus_key_load(dir, "proxy", &read, &err), -1);
  assert_int_equal(err.code, ERR_NOT_FOUND);
  /* a public half of another pair */
  struct bus_key_pair stranger;
  assert_int_equal(bus_key_new(&stranger, &err), 0);
  assert_int_equal(bus_key_save(dir, "stranger", &stranger, &err), 0);
  snprintf(path, sizeof path, "%s/stranger.pub", dir);
  snprintf(other, sizeof other, "%s/agent.pub", dir);
  assert_int_equal(rename(path, other), 0);
  snprintf(path, sizeof path, "%s/agent.key", dir);
  assert_int_equal(chmod(path, 0400), 0);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), -1);
  unlink(path);
  unlink(other);
  snprintf(path, sizeof path, "%s/stranger.key", dir);
  unlink(path);
  rmdir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
