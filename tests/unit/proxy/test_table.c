#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-proxy/drain.h"
#include "orca-proxy/routes.h"
#include "orca-proxy/service_ids.h"
#include "orca-proxy/table.h"

struct world {
  struct drain *drain;
  struct service_ids *ids;
};

static uint32_t give_service(void *arg, const char *name) {
  return service_ids_get(((struct world *)arg)->ids, name);
}

static uint32_t give_slot(void *arg, const char *instance, const char *address, uint32_t port, uint64_t *incarnation) {
  return drain_slot(((struct world *)arg)->drain, instance, address, port, incarnation);
}

/* Routes as text: "SERVICE HOST,HOST PATH,PATH" */
static struct table *build(struct world *w, const char *const *lines, size_t count, unsigned *skipped) {
  struct routes *routes = routes_new();
  Node__RouteTable t = NODE__ROUTE_TABLE__INIT;
  PB_SET(&t, full, 1);
  PB_SET(&t, version, 1);
  t.routes = calloc(count, sizeof(Node__Route *));
  for (size_t i = 0; i < count; i++) {
    char *copy = strdup(lines[i]), *save, *save2;
    Node__Route *r = calloc(1, sizeof *r);
    node__route__init(r);
    r->project = strdup("p");
    r->service = strdup(strtok_r(copy, " ", &save));
    char *hosts = strtok_r(NULL, " ", &save), *paths = strtok_r(NULL, " ", &save);
    r->domains = calloc(8, sizeof(char *));
    r->paths = calloc(8, sizeof(char *));
    for (char *x = strtok_r(hosts, ",", &save2); x; x = strtok_r(NULL, ",", &save2))
      r->domains[r->n_domains++] = strdup(x);
    for (char *x = paths ? strtok_r(paths, ",", &save2) : NULL; x; x = strtok_r(NULL, ",", &save2))
      r->paths[r->n_paths++] = strdup(x);
    r->endpoints = calloc(1, sizeof(Model__Endpoint *));
    r->endpoints[0] = calloc(1, sizeof(Model__Endpoint));
    model__endpoint__init(r->endpoints[0]);
    r->n_endpoints = 1;
    r->endpoints[0]->instance = strdup("p/x.1");
    r->endpoints[0]->address = strdup("10.0.0.1");
    PB_SET(r->endpoints[0], port, 80);
    t.routes[t.n_routes++] = r;
    free(copy);
  }
  struct err err;
  assert_int_equal(routes_apply(routes, &t, &err), 0);
  for (size_t i = 0; i < count; i++)
    node__route__free_unpacked(t.routes[i], NULL);
  free(t.routes);
  struct table_ids ids = {give_service, give_slot, w};
  static char good[] = "10.0.0.0/8", bad[] = "nonsense";
  char *trusted[] = {good, bad};
  struct table *table = table_build(routes_list(routes), routes_count(routes), trusted, 2, &ids, skipped);
  routes_free(routes);
  return table;
}

static const char *find(const struct table *t, const char *host, const char *path, size_t *prefix) {
  struct table_match m = table_lookup(t, host, strlen(host), (struct span){(const uint8_t *)path, strlen(path)});
  if (prefix)
    *prefix = m.prefix_len;
  return m.service ? m.service->name : m.host_known ? "no path" : "no host";
}

static void test_lookup(void **state) {
  (void)state;
  struct world w = {drain_new(1), service_ids_new()};
  static const char *const lines[] = {"web a.test,B.Test:80",        "api a.test /api/*,/v2/*",    "deep a.test /api/x/y/*",
                                      "exact a.test /api/exact,/",   "raw a.test /img*,/img-big*", "only c.test /only/*",
                                      "bad /nonsense,d.test nothing"};
  unsigned skipped;
  struct table *t = build(&w, lines, 7, &skipped);
  assert_int_equal(skipped, 3); /* a host, a path, a range */
  static const struct {
    const char *host, *path, *service;
    size_t prefix;
  } cases[] = {
      {"a.test", "/x", "p/web", 0},          {"b.test", "/", "p/web", 0},
      {"a.test", "/", "p/exact", 0},         {"a.test", "/api", "p/api", 4},
      {"a.test", "/api/", "p/api", 4},       {"a.test", "/apis", "p/web", 0},
      {"a.test", "/api/x/y", "p/deep", 8},   {"a.test", "/api/x/yy", "p/api", 4},
      {"a.test", "/api/x/y/z", "p/deep", 8}, {"a.test", "/api/exact", "p/exact", 10},
      {"a.test", "/api/exact/", "p/api", 4}, {"a.test", "/img1", "p/raw", 4},
      {"a.test", "/img-big/1", "p/raw", 8},  {"a.test", "/v2/a", "p/api", 3},
      {"c.test", "/", "no path", 0},         {"c.test", "/only", "p/only", 5},
      {"e.test", "/", "no host", 0},         {"", "/", "no host", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t prefix;
    const char *got = find(t, cases[i].host, cases[i].path, &prefix);
    assert_string_equal(got, cases[i].service);
    if (strcmp(got, "p/exact") != 0)
      assert_int_equal(prefix, cases[i].prefix);
  }
  assert_int_equal(t->trusted_count, 1);
  table_free(t);
  drain_free(w.drain);
  service_ids_free(w.ids);
}

static void test_the_first_name_wins_a_conflict(void **state) {
  (void)state;
  struct world w = {drain_new(1), service_ids_new()};
  static const char *const lines[] = {"zeta a.test /x/*", "alpha a.test /x/*"};
  unsigned skipped;
  struct table *t = build(&w, lines, 2, &skipped);
  assert_string_equal(find(t, "a.test", "/x/1", NULL), "p/alpha");
  table_free(t);
  drain_free(w.drain);
  service_ids_free(w.ids);
}

/* Against the definition: the longest pattern that matches, exact before prefix of the same length. */
static void test_random_tables_against_a_list(void **state) {
  (void)state;
  for (unsigned seed = 1; seed <= 20; seed++) {
    srand(seed);
    struct world w = {drain_new(1), service_ids_new()};
    enum { ROUTES = 60 };
    char text[ROUTES][64];
    const char *lines[ROUTES];
    char patterns[ROUTES][32];
    for (int i = 0; i < ROUTES; i++) {
      size_t n = 0;
      int depth = rand() % 4;
      for (int k = 0; k < depth; k++)
        n += (size_t)snprintf(patterns[i] + n, sizeof patterns[i] - n, "/%c", 'a' + rand() % 3);
      snprintf(patterns[i] + n, sizeof patterns[i] - n, depth == 0 || rand() % 2 ? "/*" : "");
      snprintf(text[i], sizeof text[i], "s%02d a.test %.40s", i, patterns[i]);
      lines[i] = text[i];
    }
    unsigned skipped;
    struct table *t = build(&w, lines, ROUTES, &skipped);
    for (int k = 0; k < 200; k++) {
      char path[64] = "/";
      size_t n = 0;
      int depth = rand() % 5;
      for (int d = 0; d < depth; d++)
        n += (size_t)snprintf(path + n, sizeof path - n, "/%c", 'a' + rand() % 3);
      int best = -1, best_rank = -1;
      for (int i = 0; i < ROUTES; i++) {
        size_t len = strlen(patterns[i]);
        bool star = patterns[i][len - 1] == '*';
        size_t stem = star ? len - 2 : len;
        bool match = star ? strncmp(path, patterns[i], stem) == 0 && (path[stem] == '/' || path[stem] == 0) : strcmp(path, patterns[i]) == 0;
        int rank = (int)stem * 2 + !star;
        if (match && rank > best_rank) {
          best = i;
          best_rank = rank;
        }
      }
      char want[16] = "no path";
      if (best >= 0)
        snprintf(want, sizeof want, "p/s%02d", best);
      assert_string_equal(find(t, "a.test", path, NULL), want);
    }
    table_free(t);
    drain_free(w.drain);
    service_ids_free(w.ids);
  }
}

static void test_ranges(void **state) {
  (void)state;
  struct cidr c[4];
  assert_true(cidr_parse("10.1.2.3/8", &c[0]) && cidr_parse("192.168.1.1", &c[1]) && cidr_parse("fd00::/9", &c[2]) && cidr_parse("0.0.0.0/0", &c[3]));
  struct sockaddr_in in = {.sin_family = AF_INET};
  uint8_t a[16];
  in.sin_addr.s_addr = htonl(0x0aff0001);
  assert_true(cidr_addr((const struct sockaddr *)&in, a));
  assert_true(cidr_has(c, 1, a) && !cidr_has(c + 1, 2, a) && cidr_has(c + 3, 1, a));
  uint8_t six[16] = {0xfd, 0x7f};
  assert_true(cidr_has(c, 3, six) && !cidr_has(c + 3, 1, six));
  six[1] = 0x80;
  assert_false(cidr_has(c, 3, six));
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
  uint8_t other[16];
  memcpy(&in6.sin6_addr, six, 16);
  assert_true(cidr_addr((const struct sockaddr *)&in6, other));
  assert_memory_equal(other, six, 16);
  assert_false(cidr_addr(&(const struct sockaddr){.sa_family = AF_UNIX}, other));
  static const char *const bad[] = {"", "/8", "10.0.0.0/33", "fd00::/129", "10.0.0", "10.0.0.0/", "10.0.0.0/a", "x", "10.0.0.0/8/8"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(cidr_parse(bad[i], &c[0]));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_lookup), cmocka_unit_test(test_the_first_name_wins_a_conflict),
                                     cmocka_unit_test(test_random_tables_against_a_list), cmocka_unit_test(test_ranges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
