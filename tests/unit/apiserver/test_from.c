/* Where a request came from, and whether that is this machine. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/unit/apiserver/world.h"

static struct api_from from_v4(const char *address, const char *forwarded, bool proxied) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct api_from from;
  assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
  api_from_make((const struct sockaddr *)(const void *)&in, forwarded, proxied, &from);
  return from;
}

static void addresses(void **state) {
  (void)state;
  static const struct {
    const char *peer, *forwarded, *text;
    bool local;
  } cases[] = {
      {"127.0.0.1", NULL, "127.0.0.1", true},
      {"127.9.9.9", NULL, "127.9.9.9", true},
      {"10.0.0.7", NULL, "10.0.0.7", false},
      {"127.0.0.1", "10.0.0.7", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "1.2.3.4, 10.0.0.7", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "1.2.3.4,10.0.0.7:4711", "10.0.0.7 via 127.0.0.1", false},
      {"127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1 via 127.0.0.1", false},
      {"127.0.0.1", "2001:db8::1", "2001:db8::1 via 127.0.0.1", false},
      {"127.0.0.1", "", "unknown via 127.0.0.1", false},
      {"127.0.0.1", "evil\033[31m", "unknown via 127.0.0.1", false},
      {"127.0.0.1", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "unknown via 127.0.0.1", false},
      {"10.0.0.7", "127.0.0.1", "10.0.0.7", false}, /* only a proxy on this machine is believed */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct api_from from = from_v4(cases[i].peer, cases[i].forwarded, false);
    assert_string_equal(from.text, cases[i].text);
    assert_int_equal(from.local, cases[i].local);
  }
  assert_false(from_v4("127.0.0.1", NULL, true).local);
  struct api_from a = from_v4("127.0.0.1", "10.0.0.7", false), b = from_v4("10.0.0.7", NULL, false), c = from_v4("127.0.0.1", "10.0.0.8", false);
  assert_memory_equal(a.key, b.key, 16);
  assert_memory_not_equal(a.key, c.key, 16);
  /* Of IPv6 the network counts: a client has 2^64 addresses in it. */
  a = from_v4("127.0.0.1", "2001:db8::1", false);
  b = from_v4("127.0.0.1", "2001:db8::2", false);
  c = from_v4("127.0.0.1", "2001:db9::1", false);
  assert_memory_equal(a.key, b.key, 16);
  assert_memory_not_equal(a.key, c.key, 16);
  struct api_from none;
  api_from_make(NULL, NULL, false, &none);
  assert_string_equal(none.text, "unknown");
  assert_false(none.local);
}

static void a_page_of_another_site_is_not_local(void **state) {
  (void)state;
  static const char *const local[] = {"127.0.0.1",      "127.0.0.1:6880", "127.8.0.1:1", "localhost",
                                      "LocalHost:6880", "[::1]:6880",     "[::1]",       "127.0.0.1:"},
                           *const other[] = {"evil.example:6880",
                                             "evil.example",
                                             "127.0.0.1.evil.example",
                                             "10.0.0.1",
                                             "[::2]",
                                             "",
                                             "[",
                                             "localhost.evil",
                                             "127.0.0.1:80x",
                                             "[::1]x",
                                             "[::1",
                                             "localhost:80@evil",
                                             "0.0.0.0:6880"};
  assert_true(api_host_is_local(NULL));
  for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
    if (!api_host_is_local(local[i]))
      fail_msg("%s", local[i]);
  for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
    if (api_host_is_local(other[i]))
      fail_msg("%s", other[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(addresses),
      cmocka_unit_test(a_page_of_another_site_is_not_local),
  };
  return cmocka_run_group_tests_name("from", tests, NULL, NULL);
}
