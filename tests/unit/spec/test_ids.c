/* Keys and names of instances: as the store sorts them, cut where a buffer ends, and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/spec/ids.h"

static void keys(void **state) {
  (void)state;
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, "shop", "api");
  assert_string_equal(key, "/services/shop/api");
  key_named(key, KEY_NODES, "n1");
  assert_string_equal(key, "/nodes/n1");
  key_numbered(key, KEY_INSTANCES, "shop", "api", 0);
  assert_string_equal(key, "/instances/shop/api/0000000000");
  key_numbered(key, KEY_INSTANCES, "shop", "api", 42);
  assert_string_equal(key, "/instances/shop/api/0000000042");
  key_numbered(key, KEY_INSTANCES, "", "", UINT64_MAX);
  assert_string_equal(key, "/instances///18446744073709551615");
  key_event(key, KEY_AUDIT, 0x123, 0xf);
  assert_string_equal(key, "/audit/0000000000000123-0000000f");
}

static void cut(void **state) {
  (void)state;
  char key[KEY_MAX], id[INSTANCE_ID_MAX], lengthy[2 * KEY_MAX];
  memset(lengthy, 'x', sizeof lengthy - 1);
  lengthy[sizeof lengthy - 1] = 0;
  key_numbered(key, KEY_INSTANCES, lengthy, lengthy, 1);
  assert_int_equal(strlen(key), KEY_MAX - 1);
  key_named(key, "", lengthy);
  assert_int_equal(strlen(key), KEY_MAX - 1);
  instance_id(id, lengthy, "api", 1);
  assert_int_equal(strlen(id), INSTANCE_ID_MAX - 1);
}

static void instances(void **state) {
  (void)state;
  char id[INSTANCE_ID_MAX], project[64], service[64];
  uint64_t number;
  instance_id(id, "shop", "api", 30);
  assert_string_equal(id, "shop/api.30");
  assert_true(instance_id_parse(id, project, service, &number));
  assert_string_equal(project, "shop");
  assert_string_equal(service, "api");
  assert_int_equal(number, 30);
  instance_id(id, "shop", "api", 0);
  assert_string_equal(id, "shop/api.0");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(keys), cmocka_unit_test(cut), cmocka_unit_test(instances)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
