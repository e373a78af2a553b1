/* Rates out of counters: over several proxies, over restarts, over silence. */
#include "tests/unit/apiserver/world.h"

#include "orca-apiserver/figures.h"

static void report(struct api_figures *f, const char *node, uint64_t requests, uint64_t errors, uint64_t fast, uint64_t slow, int64_t at) {
  char project[] = "shop", name[] = "web";
  uint64_t latency[API_LATENCY_BUCKETS] = {[3] = fast, [10] = slow};
  Node__ServiceStats s = NODE__SERVICE_STATS__INIT, *list[] = {&s};
  Node__ProxyStats stats = NODE__PROXY_STATS__INIT;
  s.project = project;
  s.service = name;
  PB_SET(&s, requests, requests);
  PB_SET(&s, errors_5xx, errors);
  s.latency = latency;
  s.n_latency = API_LATENCY_BUCKETS;
  if (requests) {
    stats.services = list;
    stats.n_services = 1;
  }
  api_figures_proxy(f, node, &stats, at);
}

static void rates(void **state) {
  (void)state;
  struct api_figures f = {0};
  struct api_rates r;
  api_figures_rates(&f, "shop/web", T0, &r);
  assert_false(r.known);
  report(&f, "n1", 1000, 10, 1000, 0, T0);
  api_figures_rates(&f, "shop/web", T0, &r);
  assert_true(r.known && r.requests == 0); /* one report is no rate */
  report(&f, "n1", 1100, 12, 1090, 10, T0 + 2000);
  api_figures_rates(&f, "shop/web", T0 + 2000, &r);
  assert_true(r.requests == 50 && r.errors_5xx == 1);
  assert_int_equal(r.p50_us, 64 << 3);
  assert_int_equal(r.p99_us, 64 << 10);
  /* A second proxy: both are added, latencies too. */
  report(&f, "n2", 5, 0, 5, 0, T0);
  report(&f, "n2", 905, 0, 905, 0, T0 + 2000);
  api_figures_rates(&f, "shop/web", T0 + 2000, &r);
  assert_true(r.requests == 500);
  assert_int_equal(r.p99_us, 64 << 3); /* 990 of 1,000 */
  /* Silence: no rate, but known. */
  api_figures_rates(&f, "shop/web", T0 + 60000, &r);
  assert_true(r.known && r.requests == 0 && r.p50_us == -1);
  /* A report that does not tell of it. */
  report(&f, "n1", 0, 0, 0, 0, T0 + 4000);
  report(&f, "n2", 0, 0, 0, 0, T0 + 4000);
  api_figures_rates(&f, "shop/web", T0 + 4000, &r);
  assert_true(r.known && r.requests == 0);
  /* The proxy began anew: its counters are all news. */
  report(&f, "n1", 20, 0, 20, 0, T0 + 6000);
  api_figures_rates(&f, "shop/web", T0 + 6000, &r);
  assert_true(r.requests == 10);
  api_figures_fini(&f);
}

static void quantiles(void **state) {
  (void)state;
  uint64_t b[API_LATENCY_BUCKETS] = {0};
  assert_int_equal(api_figures_quantile(b, 0.5), -1);
  b[0] = 1;
  assert_int_equal(api_figures_quantile(b, 0.5), 64);
  assert_int_equal(api_figures_quantile(b, 0.99), 64);
  b[0] = 99;
  b[5] = 1;
  assert_int_equal(api_figures_quantile(b, 0.99), 64);
  assert_int_equal(api_figures_quantile(b, 1.0), 64 << 5);
  b[API_LATENCY_BUCKETS - 1] = 1000;
  assert_int_equal(api_figures_quantile(b, 0.5), INT64_C(64) << (API_LATENCY_BUCKETS - 2));
}

static void network(void **state) {
  (void)state;
  struct api_figures f = {0};
  Node__Usage u = NODE__USAGE__INIT;
  api_figures_usage(&f, "shop", "web", 1, &u, T0);
  assert_false(api_figures_of(&f, "shop", "web", 1)->has_net);
  PB_SET(&u, net_rx, 1000);
  PB_SET(&u, net_tx, 0);
  api_figures_usage(&f, "shop", "web", 1, &u, T0 + 1000);
  assert_false(api_figures_of(&f, "shop", "web", 1)->has_rates);
  PB_SET(&u, net_rx, 5000);
  api_figures_usage(&f, "shop", "web", 1, &u, T0 + 3000);
  assert_true(api_figures_of(&f, "shop", "web", 1)->has_rates);
  assert_int_equal(api_figures_of(&f, "shop", "web", 1)->rx_rate, 2000);
  PB_SET(&u, net_rx, 10); /* another container under that name */
  api_figures_usage(&f, "shop", "web", 1, &u, T0 + 5000);
  assert_int_equal(api_figures_of(&f, "shop", "web", 1)->rx_rate, 0);
  api_figures_fini(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(rates), cmocka_unit_test(quantiles), cmocka_unit_test(network)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
