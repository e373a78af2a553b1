#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "orca-proxy/head.h"

static struct head h;

static enum head_result request(const char *text) {
  return head_parse_request(&h, (const uint8_t *)text, strlen(text));
}

static enum head_result answer(const char *text) {
  return head_parse_answer(&h, (const uint8_t *)text, strlen(text), false);
}

static void test_every_known_name_is_found(void **state) {
  (void)state;
  static const struct {
    enum field_id id;
    const char *name;
  } names[] = {
#define X(id, name) {id, name},
      HEAD_FIELD_IDS(X)
#undef X
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char text[64];
    snprintf(text, sizeof text, "%s", names[i].name);
    assert_int_equal(field_id_of((struct span){(const uint8_t *)text, strlen(text)}), names[i].id);
    for (char *c = text; *c; c++)
      *c = *c == '-' ? '_' : (char)(*c - ((*c >= 'a' && *c <= 'z') ? 32 : 0));
    assert_int_equal(field_id_of((struct span){(const uint8_t *)text, strlen(text)}), names[i].id);
    text[0] = '~';
    assert_int_equal(field_id_of((struct span){(const uint8_t *)text, strlen(text)}), FIELD_OTHER);
  }
}

static void test_a_request(void **state) {
  (void)state;
  const char *text =
      "POST /a?b HTTP/1.1\r\nHost: x.test\r\nX-A:  1 \r\nContent-Length: 12\r\nConnection: close, X-A\r\nExpect: 100-Continue\r\n\r\nbody";
  assert_int_equal(request(text), HEAD_OK);
  assert_int_equal(h.size, strlen(text) - 4);
  assert_true(span_is(h.method, "POST") && span_is(h.target, "/a?b") && span_is(h.host, "x.test"));
  assert_int_equal(h.count, 5);
  assert_true(span_is(h.fields[1].value, "1") && h.fields[1].named_by_connection && !h.fields[0].named_by_connection);
  assert_int_equal(h.body, BODY_LENGTH);
  assert_int_equal(h.length, 12);
  assert_true(h.expects_continue && !h.keep_alive && !h.idempotent);
}

static void test_partial_heads_at_every_cut(void **state) {
  (void)state;
  const char *text = "\r\nGET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";
  for (size_t i = 0; i < strlen(text); i++) {
    assert_int_equal(head_parse_request(&h, (const uint8_t *)text, i), HEAD_PARTIAL);
    assert_false(head_may_be_complete((const uint8_t *)text + 2, i > 2 ? i - 2 : 0, 0));
  }
  assert_int_equal(request(text), HEAD_OK);
  for (size_t from = 0; from < strlen(text); from++)
    assert_true(head_may_be_complete((const uint8_t *)text, strlen(text), from) || from > strlen(text) - 1);
}

static void test_framing(void **state) {
  (void)state;
  assert_int_equal(request("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), HEAD_OK);
  assert_int_equal(h.body, BODY_NONE);
  assert_int_equal(request("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n"), HEAD_OK);
  assert_int_equal(h.body, BODY_CHUNKED);
  static const char *const bad[] = {"Content-Length: 1\r\nContent-Length: 1",
                                    "Content-Length: 1\r\nTransfer-Encoding: chunked",
                                    "Transfer-Encoding: chunked, chunked",
                                    "Transfer-Encoding: gzip",
                                    "Content-Length: 1 1",
                                    "Content-Length: 9999999999999999999",
                                    "Content_Length: 3",
                                    "A: b\r\n c",
                                    "A: \x01",
                                    "A : b",
                                    "Host: x"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[256];
    snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", bad[i]);
    assert_int_equal(request(text), HEAD_BAD);
    assert_int_equal(h.bad_status, 400);
  }
}

static void test_keep_alive_of_both_versions(void **state) {
  (void)state;
  request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  assert_true(h.keep_alive && h.idempotent);
  request("GET / HTTP/1.0\r\n\r\n");
  assert_true(!h.keep_alive && h.host.at == NULL);
  request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
  assert_true(h.keep_alive);
}

static void test_websocket_handshake(void **state) {
  (void)state;
#define WS "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
  assert_int_equal(request(WS "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), HEAD_OK);
  assert_true(h.upgrade_websocket && !h.idempotent);
  assert_int_equal(request(WS "\r\n"), HEAD_OK);
  assert_false(h.upgrade_websocket);
#undef WS
}

static void test_answers(void **state) {
  (void)state;
  assert_int_equal(answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), HEAD_OK);
  assert_true(h.body == BODY_LENGTH && h.length == 3 && h.keep_alive && span_is(h.reason, "OK"));
  assert_int_equal(answer("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"), HEAD_OK);
  assert_true(h.body == BODY_CHUNKED && h.reason.len == 0);
  assert_int_equal(answer("HTTP/1.1 200 \r\n\r\n"), HEAD_OK);
  assert_true(h.body == BODY_UNTIL_CLOSE && !h.keep_alive);
  assert_int_equal(answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n"), HEAD_OK);
  assert_int_equal(h.body, BODY_NONE);
  assert_int_equal(head_parse_answer(&h, (const uint8_t *)"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 38, true), HEAD_OK);
  assert_true(h.body == BODY_NONE && h.length == 9);
  static const char *const bad[] = {"HTTP/1.1 20 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n",
                                    "SSH-2.0\r\n\r\n",        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                                    "HTTP/1.1 200 OK\n\n",    "HTTP/1.1  200 OK\r\n\r\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(answer(bad[i]), HEAD_BAD);
    assert_int_equal(h.bad_status, 502);
  }
}

static void test_too_much(void **state) {
  (void)state;
  static uint8_t text[HEAD_MAX + 100];
  int n = snprintf((char *)text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\nA: ");
  memset(text + n, 'a', sizeof text - (size_t)n);
  assert_int_equal(head_parse_request(&h, text, sizeof text), HEAD_BAD);
  assert_int_equal(h.bad_status, 431);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_known_name_is_found),
      cmocka_unit_test(test_a_request),
      cmocka_unit_test(test_partial_heads_at_every_cut),
      cmocka_unit_test(test_framing),
      cmocka_unit_test(test_keep_alive_of_both_versions),
      cmocka_unit_test(test_websocket_handshake),
      cmocka_unit_test(test_answers),
      cmocka_unit_test(test_too_much),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
