/* [api] listen: an address that nobody has is told. */
#include "tests/unit/apiserver/world.h"

#include "orca-apiserver/doctor_listen.h"

static bool here(const char *host) {
  return strcmp(host, "10.0.0.5") == 0;
}

static void what_nobody_has(void **state) {
  (void)state;
  struct api_cache cache = {0};
  struct doctor_report r = {0};
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  Model__Node node = MODEL__NODE__INIT;
  char name[] = "n2", address[] = "10.0.0.7";
  char *listen[] = {TEXT("127.0.0.1:6880"), TEXT("10.0.0.5:6880"), TEXT("10.0.0.7:6880"),
                    TEXT("0.0.0.0:6881"),   TEXT("10.0.0.9:6880"), TEXT("[2001:db8::9]:6880")};
  node.name = name;
  node.address = address;
  doctor_listen_check(&r, &cache, here);
  assert_int_equal(r.count, 0);
  assert_int_equal(api_cache_put_message(&cache, "/nodes/n2", &node.base, 1, NULL), 0);
  cluster.api_listen = listen;
  cluster.n_api_listen = 4;
  assert_int_equal(api_cache_put_message(&cache, KEY_CLUSTER, &cluster.base, 2, NULL), 0);
  doctor_listen_check(&r, &cache, here);
  assert_int_equal(r.count, 0);
  cluster.n_api_listen = 6;
  assert_int_equal(api_cache_put_message(&cache, KEY_CLUSTER, &cluster.base, 3, NULL), 0);
  doctor_listen_check(&r, &cache, here);
  assert_int_equal(r.count, 2);
  assert_int_equal(r.list[0].level, DOCTOR_WRONG);
  assert_non_null(strstr(r.list[0].text, "10.0.0.9:6880, which is no node's address"));
  assert_non_null(strstr(r.list[1].text, "[2001:db8::9]:6880"));
  assert_true(doctor_listen_is_here("127.0.0.1"));
  assert_false(doctor_listen_is_here("192.0.2.1"));
  doctor_free(&r);
  api_cache_fini(&cache);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_nobody_has)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
