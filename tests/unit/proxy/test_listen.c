#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "orca-proxy/certificate.h"
#include "orca-proxy/listen.h"

static unsigned forgotten;

static void note(const char *name) {
  (void)name;
  forgotten++;
}

static uint16_t free_port(void) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (const struct sockaddr *)&in, len), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
  close(fd);
  return ntohs(in.sin_port);
}

static struct listen_address at(uint16_t port) {
  struct listen_address list[2];
  assert_true(listen_http("127.0.0.2", port, list) == 1);
  return list[0];
}

static void test_which_addresses(void **state) {
  (void)state;
  struct listen_address list[2], a;
  char name[LISTEN_NAME_MAX];
  assert_int_equal(listen_http("localhost", 80, list), 2);
  assert_true(list[1].optional && list[1].addr.sa.sa_family == AF_INET6);
  assert_int_equal(listen_http("127.0.0.1", 80, list), 2);
  assert_int_equal(listen_http("127.3.0.1", 80, list), 1);
  assert_false(list[0].dual);
  assert_int_equal(listen_http("10.0.0.1", 80, list), 1);
  assert_true(list[0].dual);
  listen_name(&list[0].addr, name);
  assert_string_equal(name, "ipv6-00000000000000000000000000000000-80");
  assert_true(listen_api("127.0.0.1:6880", &a));
  listen_name(&a.addr, name);
  assert_string_equal(name, "ipv4-7f000001-6880");
  const char *const bad[] = {"192.0.2.77:6880", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "host:80", ":80", "", "[::1:80"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(listen_api(bad[i], &a));
}

static void test_sockets_are_opened_once_and_shared_by_all(void **state) {
  (void)state;
  struct listen_sockets s = {0};
  struct worker_listener list[LISTEN_MAX];
  struct listen_address a = at(free_port());
  struct err err;
  assert_int_equal(listen_ensure(&s, FRONT_HTTP, &a, 4, false, &err), 0);
  assert_int_equal(s.count, 4);
  assert_int_equal(listen_ensure(&s, FRONT_HTTP, &a, 8, false, &err), 0); /* never more of an address that has some */
  assert_int_equal(s.count, 4);
  /* However many workers there are, every socket is somebody's and everybody has one. */
  for (unsigned workers = 1; workers < 12; workers++) {
    unsigned total = 0;
    for (unsigned w = 0; w < workers; w++) {
      int n = listen_share(&s, w, workers, list, &err);
      assert_true(n >= 1);
      total += (unsigned)n;
      for (int i = 0; i < n; i++)
        close(list[i].fd);
    }
    assert_int_equal(total, workers > 4 ? workers : 4);
  }
  /* Somebody else's port stays that, whatever is shared among these. */
  struct listen_sockets other = {0};
  assert_int_equal(listen_ensure(&other, FRONT_HTTP, &a, 1, false, &err), -1);
  assert_int_equal(err.code, ERR_CONFLICT);
  assert_int_equal(other.count, 0);
  listen_close_all(&s);
}

static void test_adopted_sockets(void **state) {
  (void)state;
  struct listen_sockets before = {0}, s = {0};
  struct listen_address web = at(free_port()), api = at(free_port()), gone = at(free_port());
  struct err err;
  assert_int_equal(listen_ensure(&before, FRONT_HTTP, &web, 2, false, &err), 0);
  assert_int_equal(listen_ensure(&before, FRONT_API, &api, 1, false, &err), 0);
  assert_int_equal(listen_ensure(&before, FRONT_HTTP, &gone, 1, false, &err), 0);
  for (unsigned i = 0; i < before.count; i++)
    listen_adopt(&s, dup(before.list[i].fd));
  listen_close_all(&before);
  int no[4] = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), dup(1), dup(0)};
  for (int i = 0; i < 4; i++)
    listen_adopt(&s, no[i]);
  assert_int_equal(s.count, 4);
  assert_false(listen_has(&s, FRONT_HTTP, &web));
  assert_int_equal(listen_ensure(&s, FRONT_HTTP, &web, 4, false, &err), 0);
  assert_int_equal(listen_ensure(&s, FRONT_API, &api, 1, false, &err), 0);
  assert_true(listen_has(&s, FRONT_HTTP, &web) && listen_has(&s, FRONT_API, &api) && !listen_has(&s, FRONT_HTTP, &api));
  forgotten = 0;
  listen_close_unclaimed(&s, note);
  assert_int_equal(forgotten, 1);
  assert_int_equal(s.count, 3);
  assert_false(listen_close_others(&s, FRONT_HTTP, &web, 1, note));
  assert_true(listen_close_others(&s, FRONT_API, NULL, 0, note));
  assert_int_equal(s.count, 2);
  assert_true(listen_close_others(&s, FRONT_HTTP, &gone, 1, note));
  assert_int_equal(s.count, 0);
}

static void test_renewal_at_two_thirds(void **state) {
  (void)state;
  assert_int_equal(certificate_renew_at(1000, 4000), 3000);
  assert_int_equal(certificate_renew_at(4000, 1000), 4000);
  assert_int_equal(certificate_renew_at(0, INT64_MAX), INT64_MAX / 3 * 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_which_addresses),
      cmocka_unit_test(test_sockets_are_opened_once_and_shared_by_all),
      cmocka_unit_test(test_adopted_sockets),
      cmocka_unit_test(test_renewal_at_two_thirds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
