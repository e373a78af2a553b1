/* Which names a proxy's certificate gets: those of its node's record, whatever it asked for. */
#include "orca-apiserver/certificate.h"
#include "tests/unit/apiserver/world.h"

static void put_node(struct world *w, const char *name, const char *address) {
  char key[KEY_MAX];
  Model__Node n = MODEL__NODE__INIT;
  n.name = TEXT(name);
  n.address = TEXT(address);
  key_named(key, KEY_NODES, name);
  put(w, key, &n.base);
}

static void put_listen(struct world *w, const char *domain, const char *const *listen, size_t count) {
  Model__ClusterSpec c = MODEL__CLUSTER_SPEC__INIT;
  c.name = TEXT("test");
  c.domain = TEXT(domain);
  PB_SET(&c, api_tls, 1);
  c.api_listen = (char **)(uintptr_t)listen;
  c.n_api_listen = count;
  put(w, KEY_CLUSTER, &c.base);
}

static void expect(struct world *w, const char *node, const char *expected) {
  static char room[API_CERTIFICATE_NAMES_MAX][256];
  char text[4096] = "";
  size_t n = api_certificate_names(&w->api.cache, node, room);
  for (size_t i = 0, at = 0; i < n; i++)
    at += (size_t)snprintf(text + at, sizeof text - at, i ? " %s" : "%s", room[i]);
  assert_string_equal(text, expected);
}

static void names_are_the_nodes_own(void **state) {
  struct world *w = *state;
  put_node(w, "n1", "10.0.0.1");
  put_node(w, "n2", "10.0.0.2");
  expect(w, "n1", "n1 10.0.0.1 localhost 127.0.0.1");
  put_listen(w, "example.com", (const char *const[]){"10.0.0.1:6880", "10.0.0.2:6880", "203.0.113.9:443", "[fd00::1]:6880"}, 4);
  expect(w, "n1", "n1 10.0.0.1 localhost 127.0.0.1 orca.example.com 203.0.113.9 fd00::1");
  expect(w, "n2", "n2 10.0.0.2 localhost 127.0.0.1 orca.example.com 203.0.113.9 fd00::1");
  put_node(w, "n3", "fd00::3");
  put_listen(w, NULL, (const char *const[]){"[FD00:0::3]:6880"}, 1);
  expect(w, "n2", "n2 10.0.0.2 localhost 127.0.0.1");
  put_listen(w, NULL, (const char *const[]){"rubbish", ":80", ""}, 3);
  expect(w, "n2", "n2 10.0.0.2 localhost 127.0.0.1");
  expect(w, "gone", "gone localhost 127.0.0.1");
}

static void there_is_an_end(void **state) {
  struct world *w = *state;
  static char text[200][32];
  const char *list[200];
  static char room[API_CERTIFICATE_NAMES_MAX][256];
  put_node(w, "n1", "10.0.0.1");
  for (int i = 0; i < 200; i++) {
    snprintf(text[i], sizeof text[i], "10.1.0.%d:6880", i);
    list[i] = text[i];
  }
  put_listen(w, "example.com", list, 200);
  assert_int_equal(api_certificate_names(&w->api.cache, "n1", room), API_CERTIFICATE_NAMES_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(names_are_the_nodes_own, world_setup, world_teardown),
      cmocka_unit_test_setup_teardown(there_is_an_end, world_setup, world_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
