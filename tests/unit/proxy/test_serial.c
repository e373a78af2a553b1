#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "orca-proxy/accesslog.h"
#include "orca-proxy/routes.h"
#include "orca-proxy/serial.h"
#include "orca-proxy/target.h"
#include "common/bus/pb.h"

static struct head h;
static struct target t;
static uint8_t room[HEAD_MAX], out[SERIAL_MAX];

static bool target(const char *method, const char *what, const char *host) {
  static char text[2048];
  const char *why;
  snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, what, host);
  return head_parse_request(&h, (const uint8_t *)text, strlen(text)) == HEAD_OK && target_parse(&t, &h, room, &why);
}

static void test_targets(void **state) {
  (void)state;
  static const struct {
    const char *in, *path, *query;
  } good[] = {{"/", "/", ""},
              {"/a/./b/../c", "/a/c", ""},
              {"/%7euser/%2f%2F", "/~user/%2F%2F", ""},
              {"/a?%2e/..", "/a", "?%2e/.."},
              {"http://x.test", "/", ""},
              {"http://x.test?q", "/", "?q"},
              {"/a/..", "/", ""},
              {"/..a/...", "/..a/...", ""},
              {"/a/%2e%2e/b", "/b", ""},
              {"//a", "//a", ""}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(target("GET", good[i].in, "x.test"));
    assert_true(span_is(t.path, good[i].path));
    assert_true(t.query.len == strlen(good[i].query) && (!t.query.len || span_is(t.query, good[i].query)));
    assert_string_equal(t.host, "x.test");
  }
  static const char *const bad[] = {"/..",  "/a/../..", "/%", "/%0",           "/%00",           "/%gg",    "/a\\b",
                                    "/a#b", "*",        "x",  "ftp://x.test/", "http://y.test/", "http://", "http://a@x.test/"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(target("GET", bad[i], "x.test"));
  assert_true(target("OPTIONS", "*", "x.test"));
}

static void test_hosts(void **state) {
  (void)state;
  static const struct {
    const char *in, *want;
  } good[] = {{"A.Test", "a.test"}, {"a.test:80", "a.test"}, {"a.test.", "a.test"}, {"[FD00::1]:80", "[fd00::1]"}, {"a_b", "a_b"}, {"a:", "a"}};
  char host[TARGET_HOST_MAX];
  size_t len;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_true(target_host((struct span){(const uint8_t *)good[i].in, strlen(good[i].in)}, host, &len));
    assert_string_equal(host, good[i].want);
    assert_int_equal(len, strlen(good[i].want));
  }
  static const char *const bad[] = {"", ":80", "a b", "a@b", "a/b", "[::1", "[]", "[x]", "a:b", "a:123456", "a\x80", "a,b", "."};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_false(target_host((struct span){(const uint8_t *)bad[i], strlen(bad[i])}, host, &len));
}

static void test_strip(void **state) {
  (void)state;
  assert_true(span_is(target_strip(SPAN("/api/x"), 4), "/x") && span_is(target_strip(SPAN("/api"), 4), "/") &&
              span_is(target_strip(SPAN("/api//x"), 4), "/x"));
  assert_true(span_is(target_strip(SPAN("/v/img1"), 6), "/img1") && span_is(target_strip(SPAN("/img1"), 4), "/img1"));
}

/* What is written must be read again as the same message, and fit for any client. */
static void test_what_is_written_is_read_back(void **state) {
  (void)state;
  const char *text = "POST /a HTTP/1.1\r\nHost: x.test:80\r\nA:1\r\nB: 2\r\nConnection: c, close\r\nC: 3\r\nTransfer-Encoding: chunked\r\nTE: "
                     "trailers\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
  const char *why;
  assert_int_equal(head_parse_request(&h, (const uint8_t *)text, strlen(text)), HEAD_OK);
  assert_true(target_parse(&t, &h, room, &why));
  struct serial_peer peer = {.ip = "::1", .ip_len = 3, .is_v6 = true, .proto = "http"};
  size_t n = serial_request(out, sizeof out, &h, &t, t.path, &peer);
  assert_true(n > 0);
  static struct head again;
  assert_int_equal(head_parse_request(&again, out, n), HEAD_OK);
  assert_int_equal(again.size, n);
  assert_true(span_is(again.host, "x.test:80") && again.body == BODY_CHUNKED && again.keep_alive);
  out[n] = 0;
  assert_non_null(strstr((const char *)out, "A: 1\r\nB: 2\r\n"));
  assert_null(strstr((const char *)out, "C: 3"));
  assert_null(strstr((const char *)out, "6.6.6.6"));
  assert_non_null(strstr((const char *)out, "Forwarded: for=\"[::1]\";host=\"x.test:80\";proto=http\r\n"));
  for (size_t cap = 0; cap < n; cap++)
    assert_int_equal(serial_request(out, cap, &h, &t, t.path, &peer), 0);

  const char *from = "HTTP/1.0 404 Not There\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
  assert_int_equal(head_parse_answer(&h, (const uint8_t *)from, strlen(from), false), HEAD_OK);
  n = serial_answer(out, sizeof out, &h, &(struct serial_answer){.keep_alive = true, .body = BODY_LENGTH});
  out[n] = 0;
  assert_string_equal((const char *)out, "HTTP/1.1 404 Not There\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\n");
}

static void test_routes_file(void **state) {
  (void)state;
  struct err err;
  struct routes *r = routes_new();
  Node__RouteTable change = NODE__ROUTE_TABLE__INIT, full = NODE__ROUTE_TABLE__INIT;
  assert_int_equal(routes_apply(r, &change, &err), -1); /* nothing to change yet */
  Node__Route b = NODE__ROUTE__INIT, a = NODE__ROUTE__INIT;
  char p[] = "p", sa[] = "a", sb[] = "b", removed_b[] = "p/b";
  a.project = b.project = p;
  a.service = sa;
  b.service = sb;
  Node__Route *both[] = {&b, &a}, *first[] = {&a};
  PB_SET(&full, full, 1);
  PB_SET(&full, version, 7);
  full.routes = both;
  full.n_routes = 2;
  assert_int_equal(routes_apply(r, &full, &err), 0);
  assert_true(routes_count(r) == 2 && strcmp(routes_list(r)[0]->service, "a") == 0);
  struct buf file = BUF_INIT(1 << 20);
  assert_int_equal(routes_to_file(r, &file, &err), 0);
  for (size_t i = 0; i < file.len; i++) { /* every flipped bit is seen */
    file.data[i] ^= 0x10;
    assert_null(routes_from_file(file.data, file.len, &err));
    file.data[i] ^= 0x10;
    assert_null(routes_from_file(file.data, i, &err));
  }
  Node__RouteTable *back = routes_from_file(file.data, file.len, &err);
  assert_true(back && back->n_routes == 2 && back->version == 7);
  node__route_table__free_unpacked(back, NULL);
  buf_free(&file);
  char *gone[] = {removed_b};
  PB_SET(&change, version, 8);
  change.routes = first;
  change.n_routes = 1;
  change.removed = gone;
  change.n_removed = 1;
  PB_SET(&a, strip_prefix, 1);
  assert_int_equal(routes_apply(r, &change, &err), 0);
  assert_true(routes_count(r) == 1 && routes_version(r) == 8 && routes_list(r)[0]->strip_prefix);
  routes_free(r);
}

static void test_log_lines(void **state) {
  (void)state;
  char line[4096];
  struct accesslog_entry e = {.client = "::1",
                              .service = "p/a",
                              .instance = "p/a.1",
                              .method = SPAN("GET"),
                              .host = SPAN("x"),
                              .target = SPAN("/\"\\\x01"),
                              .minor = 1,
                              .status = 200,
                              .attempts = 2,
                              .bytes_in = 1,
                              .bytes_out = 2,
                              .us = 3};
  size_t n = accesslog_format(ACCESSLOG_JSON, line, sizeof line, &e, 1234567890123);
  line[n] = 0;
  assert_string_equal(
      line,
      "{\"time\":\"2009-02-13T23:31:30.123Z\",\"client\":\"::1\",\"method\":\"GET\",\"host\":\"x\",\"target\":\"/\\\"\\\\\\u0001\",\"status\":200,"
      "\"bytes_in\":1,\"bytes_out\":2,\"us\":3,\"service\":\"p/a\",\"instance\":\"p/a.1\",\"attempts\":2}\n");
  n = accesslog_format(ACCESSLOG_COMMON, line, sizeof line, &e, 1234567890123);
  line[n] = 0;
  assert_string_equal(line, "::1 - - [13/Feb/2009:23:31:30 +0000] \"GET /\\x22\\\\x01 HTTP/1.1\" 200 2 \"-\" \"-\"\n");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_targets),     cmocka_unit_test(test_hosts),
                                     cmocka_unit_test(test_strip),       cmocka_unit_test(test_what_is_written_is_read_back),
                                     cmocka_unit_test(test_routes_file), cmocka_unit_test(test_log_lines)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
