#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orca-store/acl.h"
#include "tests/lib/folder.h"

static ProtobufCBinaryData b(const char *s) {
  return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static bool may(int (*check)(enum acl_role, const ProtobufCBinaryData *, const ProtobufCBinaryData *, struct err *), enum acl_role role,
                const char *key, const char *end) {
  ProtobufCBinaryData k = b(key), e = end ? b(end) : b("");
  struct err err = {0};
  bool ok = check(role, &k, &e, &err) == 0;
  if (!ok) {
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.msg, key));
    assert_non_null(strstr(err.msg, acl_role_name(role)));
  }
  return ok;
}

static void test_writers(void **state) {
  (void)state;
  static const struct {
    const char *key;
    bool apiserver, scheduler;
  } keys[] = {
      {"/cluster", true, false},
      {"/services/p/n", true, false},
      {"/revisions/p/n/0000000001", true, false},
      {"/files/ab", true, false},
      {"/tokens/t", true, false},
      {"/nodes/n1", true, false},
      {"/node-status/n1", true, false},
      {"/instance-status/p/n/1", true, false},
      {"/history/apiserver/1", true, false},
      {"/instances/p/n/1", false, true},
      {"/rollouts/p/n", false, true},
      {"/leader/scheduler", false, true},
      {"/history/scheduler/1", false, true},
      {"/elsewhere", false, false},
      {"/service", false, false},
      {"services/p/n", false, false},
      {"/history/", false, false},
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    assert_int_equal(may(acl_check_write, ACL_APISERVER, keys[i].key, NULL), keys[i].apiserver);
    assert_int_equal(may(acl_check_write, ACL_SCHEDULER, keys[i].key, NULL), keys[i].scheduler);
    assert_true(may(acl_check_write, ACL_ADMIN, keys[i].key, NULL));
    assert_true(may(acl_check_read, ACL_APISERVER, keys[i].key, NULL));
  }
}

static void test_ranges(void **state) {
  (void)state;
  assert_true(may(acl_check_write, ACL_SCHEDULER, "/instances/", "/instances0"));
  assert_true(may(acl_check_write, ACL_SCHEDULER, "/instances/p/", "/instances/p0"));
  assert_false(may(acl_check_write, ACL_SCHEDULER, "/instances/", "/instances1"));
  assert_false(may(acl_check_write, ACL_SCHEDULER, "/instances/", "/z"));
  assert_false(may(acl_check_read, ACL_SCHEDULER, "/secrets/p/n", NULL));
  assert_false(may(acl_check_read, ACL_SCHEDULER, "/", "0"));
  assert_false(may(acl_check_read, ACL_SCHEDULER, "/tokens/", "/tokens0"));
  assert_true(may(acl_check_read, ACL_SCHEDULER, "/cluster", "/clustes"));
  assert_true(may(acl_check_read, ACL_SCHEDULER, "/nodes/", "/nodes0"));
  ProtobufCBinaryData key = b("/instances/"), all = {1, (uint8_t[]){0}};
  struct err err;
  assert_int_equal(acl_check_read(ACL_SCHEDULER, &key, &all, &err), -1); /* everything from there on */
  assert_int_equal(acl_check_read(ACL_APISERVER, &key, &all, &err), 0);
}

#define KEY_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define KEY_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static void test_keys(void **state) {
  (void)state;
  char dir[FOLDER_MAX], long_dir[5000];
  struct acl acl = {0};
  struct err err;
  enum acl_role role;
  folder_make(dir);
  assert_int_equal(acl_load(&acl, dir, &err), -1);
  assert_int_equal(err.code, ERR_NOT_FOUND);
  folder_put_text(dir, "apiserver.pub", KEY_A "\n");
  folder_put_text(dir, "admin.pub", KEY_B);
  assert_int_equal(acl_load(&acl, dir, &err), 0);
  assert_true(acl_find(&acl, KEY_A, &role) && role == ACL_APISERVER && !acl_may_operate(role));
  assert_true(acl_find(&acl, KEY_B, &role) && role == ACL_ADMIN && acl_may_operate(role));
  assert_false(acl_find(&acl, "", &role)); /* the scheduler has none */
  assert_false(acl_find(&acl, KEY_A "a", &role));
  /* What is no key is told, and what was known stays. */
  static const char *const bad[] = {"", "\n", "short\n", KEY_A "a\n", KEY_A "\n\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    folder_put_text(dir, "scheduler.pub", bad[i]);
    assert_int_equal(acl_load(&acl, dir, &err), -1);
    assert_non_null(strstr(err.msg, "scheduler.pub"));
    assert_true(acl_find(&acl, KEY_A, &role));
  }
  memset(long_dir, 'd', sizeof long_dir);
  long_dir[sizeof long_dir - 1] = 0;
  assert_int_equal(acl_load(&acl, long_dir, &err), -1);
  folder_remove(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_writers), cmocka_unit_test(test_ranges), cmocka_unit_test(test_keys)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
