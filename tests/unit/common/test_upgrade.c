/* The head of an answer to an upgrade, whole and in single bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/http/upgrade.h"

static enum http_upgrade_state feed(struct http_upgrade *u, const char *text, size_t piece, size_t *rest) {
  size_t len = strlen(text), at = 0, used;
  http_upgrade_init(u);
  while (at < len && u->state == HTTP_UPGRADE_MORE) {
    size_t n = len - at < piece ? len - at : piece;
    http_upgrade_feed(u, (const uint8_t *)text + at, n, &used);
    at += used;
  }
  *rest = at;
  return u->state;
}

static void docker_switches(void **state) {
  (void)state;
  const char *head =
      "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nraw bytes";
  for (size_t piece = 1; piece < 200; piece += 66) {
    struct http_upgrade u;
    size_t used;
    assert_int_equal(feed(&u, head, piece, &used), HTTP_UPGRADE_DONE);
    assert_string_equal(head + used, "raw bytes");
    assert_string_equal(u.protocol, "tcp");
    http_upgrade_fini(&u);
  }
}

static void a_refusal_has_its_body(void **state) {
  (void)state;
  const char *answers[] = {"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}",
                           "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"message\":\"x\"}\r\n0\r\n\r\n"};
  for (size_t i = 0; i < 2; i++)
    for (size_t piece = 1; piece < 400; piece += 199) {
      struct http_upgrade u;
      size_t used;
      assert_int_equal(feed(&u, answers[i], piece, &used), HTTP_UPGRADE_REFUSED);
      assert_int_equal(u.status, 409);
      assert_string_equal(buf_str(&u.body), "{\"message\":\"x\"}");
      http_upgrade_fini(&u);
    }
}

static void a_body_may_end_with_the_connection(void **state) {
  (void)state;
  struct http_upgrade u;
  size_t used;
  assert_int_equal(feed(&u, "HTTP/1.1 500 No\r\nConnection: close\r\n\r\nbroken", 7, &used), HTTP_UPGRADE_MORE);
  assert_int_equal(http_upgrade_end(&u), HTTP_UPGRADE_REFUSED);
  assert_string_equal(buf_str(&u.body), "broken");
  http_upgrade_fini(&u);
}

static void what_is_no_answer(void **state) {
  (void)state;
  const char *bad[] = {"hello\r\n\r\n",
                       "HTTP/1.1 101 OK\r\n\r\n",
                       "HTTP/1.1 101 OK\r\nUpgrade: tcp\r\n\r\n",
                       "HTTP/1.1 101 OK\r\nUpgrade : tcp\r\nConnection: Upgrade\r\n\r\n",
                       "HTTP/1.1 101 OK\r\nUpgrade: tcp\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
                       "HTTP/1.1 100 Continue\r\n\r\n",
                       "HTTP/1.1 409 No\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
                       "GET / HTTP/1.1\r\n\r\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct http_upgrade u;
    size_t used;
    assert_int_equal(feed(&u, bad[i], 1000, &used), HTTP_UPGRADE_BAD);
    http_upgrade_fini(&u);
  }
}

static void sizes_are_bounded(void **state) {
  (void)state;
  struct http_upgrade u;
  size_t used;
  uint8_t much[8192];
  memset(much, 'x', sizeof much);
  http_upgrade_init(&u);
  http_upgrade_feed(&u, (const uint8_t *)"HTTP/1.1 101 OK\r\nX: ", 20, &used);
  for (int n = 0; n < 4; n++)
    http_upgrade_feed(&u, much, sizeof much, &used);
  assert_int_equal(u.state, HTTP_UPGRADE_BAD);
  http_upgrade_fini(&u);
  http_upgrade_init(&u);
  http_upgrade_feed(&u, (const uint8_t *)"HTTP/1.1 500 No\r\n\r\n", 19, &used);
  for (int n = 0; n < 20; n++)
    http_upgrade_feed(&u, much, sizeof much, &used);
  assert_int_equal(u.state, HTTP_UPGRADE_BAD);
  http_upgrade_fini(&u);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(docker_switches), cmocka_unit_test(a_refusal_has_its_body),
                                     cmocka_unit_test(a_body_may_end_with_the_connection), cmocka_unit_test(what_is_no_answer),
                                     cmocka_unit_test(sizes_are_bounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
