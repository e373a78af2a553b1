/* Addresses of masters out of node.toml. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/daemon/masters.h"

static char a[] = "a", b[] = "b", c[] = "c", v4[] = "10.0.0.1", v6[] = "fd00::2", key[] = "gateway", store[] = "store", none[] = "";
static struct node_master list[] = {{.name = a, .address = v4, .key = key, .store_key = none},
                                    {.name = b, .address = v4, .key = key, .store_key = store},
                                    {.name = c, .address = v6, .key = key, .store_key = store}};
static const struct node_config config = {.name = c, .masters = list, .master_count = 3, .port_gateway = 6881, .port_store = 6882};

static void test_gateways_in_their_order(void **state) {
  (void)state;
  struct masters m;
  struct err err;
  assert_int_equal(masters_gateways(&config, &m, &err), 0);
  assert_int_equal(m.count, 3);
  assert_string_equal(m.list[0].endpoint, "tcp://10.0.0.1:6881");
  assert_string_equal(m.list[2].endpoint, "tcp://[fd00::2]:6881");
  assert_string_equal(m.list[2].server_key, "gateway");
  masters_free(&m);
  const struct node_config alone = {.name = c};
  assert_int_equal(masters_gateways(&alone, &m, &err), 0);
  assert_int_equal(m.count, 0);
  masters_free(&m);
}

static void test_stores_this_nodes_own_first(void **state) {
  (void)state;
  struct masters m;
  struct err err;
  assert_int_equal(masters_stores(&config, &m, &err), 0);
  assert_int_equal(m.count, 2);
  assert_string_equal(m.list[0].endpoint, "tcp://[fd00::2]:6882");
  assert_string_equal(m.list[1].endpoint, "tcp://10.0.0.1:6882");
  assert_string_equal(m.list[1].server_key, "store");
  masters_free(&m);
  const struct node_config worker = {.name = c, .masters = list, .master_count = 1};
  assert_int_equal(masters_stores(&worker, &m, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
}

static void test_an_address_is_never_cut(void **state) {
  (void)state;
  char address[MASTERS_ENDPOINT_MAX], out[MASTERS_ENDPOINT_MAX];
  struct err err;
  memset(address, '1', sizeof address - 1);
  address[sizeof address - 1] = 0;
  assert_int_equal(masters_endpoint(address, 6881, out, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gateways_in_their_order),
      cmocka_unit_test(test_stores_this_nodes_own_first),
      cmocka_unit_test(test_an_address_is_never_cut),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
