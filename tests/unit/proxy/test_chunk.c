#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orca-proxy/chunk.h"

/* Decodes text in pieces of `piece` bytes; the body goes to out. */
static enum chunk_result decode(const char *text, size_t len, size_t piece, char *out, size_t *out_len, size_t *ret_used, struct chunk_decoder *d) {
  enum chunk_result r = CHUNK_MORE;
  *out_len = *ret_used = 0;
  for (size_t at = 0; at < len && r == CHUNK_MORE; at += piece) {
    uint8_t data[4096];
    size_t n = len - at < piece ? len - at : piece, used, got;
    uint8_t *body;
    memcpy(data, text + at, n);
    r = chunk_decode(d, data, n, &used, &body, &got);
    memcpy(out + *out_len, body, got);
    *out_len += got;
    *ret_used += used;
  }
  return r;
}

static void test_every_cut_gives_the_same(void **state) {
  (void)state;
  const char *text = "5\r\nhello\r\n1;a=\"b\"\r\n \r\n00A\r\n0123456789\r\n0\r\nX-A:  b \r\nHost: no\r\n\r\nGET";
  for (size_t piece = 1; piece <= strlen(text); piece++) {
    struct chunk_decoder d;
    char out[128];
    size_t len, used;
    chunk_init(&d);
    assert_int_equal(decode(text, strlen(text), piece, out, &len, &used, &d), CHUNK_DONE);
    assert_int_equal(used, strlen(text) - 3);
    assert_int_equal(len, 16);
    assert_memory_equal(out, "hello 0123456789", 16);
    assert_string_equal(buf_str(&d.trailers), "X-A: b\r\n");
    chunk_fini(&d);
  }
}

static void test_malformed(void **state) {
  (void)state;
  static const char *const bad[] = {"\r\n",
                                    "x\r\n",
                                    "-1\r\n",
                                    "+1\r\na",
                                    "0x1\r\n",
                                    "1 \r\na",
                                    "1\na\n",
                                    "1\r\nab",
                                    "1\r\na\n",
                                    "1\r\r\n",
                                    "0\r\n\n",
                                    "0\r\nnope\r\n",
                                    "0\r\n: x\r\n\r\n",
                                    "1234567890123456\r\n",
                                    "0;\x01\r\n",
                                    "0\r\nA: \x01\r\n",
                                    "0\r\nA b: c\r\n\r\n"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    for (size_t piece = 1; piece < 4; piece++) {
      struct chunk_decoder d;
      char out[128];
      size_t len, used;
      chunk_init(&d);
      assert_int_equal(decode(bad[i], strlen(bad[i]), piece, out, &len, &used, &d), CHUNK_BAD);
      chunk_fini(&d);
    }
}

static void test_heads_are_read_back(void **state) {
  (void)state;
  static const size_t sizes[] = {1, 9, 10, 15, 16, 255, 256, 65535, 65536, 1000000, (size_t)1 << 40};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    char text[CHUNK_HEAD_MAX + 1];
    size_t n = chunk_head(text, sizes[i]);
    text[n] = 0;
    assert_int_equal(strtoull(text, NULL, 16), sizes[i]);
    assert_string_equal(text + n - 2, "\r\n");
  }
}

static void test_trailers_are_bounded(void **state) {
  (void)state;
  struct chunk_decoder d;
  chunk_init(&d);
  uint8_t data[64] = "0\r\n", *body;
  size_t used, got;
  assert_int_equal(chunk_decode(&d, data, 3, &used, &body, &got), CHUNK_MORE);
  enum chunk_result r = CHUNK_MORE;
  size_t fed = 0;
  static const char trailer[] = "A: bcdefgh\r\n";
  while (r == CHUNK_MORE && fed < 1000000) {
    memcpy(data, trailer, sizeof trailer - 1);
    r = chunk_decode(&d, data, 12, &used, &body, &got);
    fed += 12;
  }
  assert_int_equal(r, CHUNK_BAD);
  assert_true(fed < 3 * CHUNK_TRAILERS_MAX);
  chunk_fini(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_cut_gives_the_same), cmocka_unit_test(test_malformed),
                                     cmocka_unit_test(test_heads_are_read_back), cmocka_unit_test(test_trailers_are_bounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
