#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/sse.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void expect_clean(const char *from, const char *want) {
  char *text = text_cleaned(from);
  assert_string_equal(text, want);
  free(text);
}

static void test_nothing_reaches_the_terminal_that_commands_it(void **state) {
  (void)state;
  expect_clean("plain äöü 日本", "plain äöü 日本");
  expect_clean("\033[31mred\033[0m", "red");
  expect_clean("a\033]0;title\007b\033]52;c;Zm9v\033\\c", "abc");
  expect_clean("\033Pq#0\033\\x\033_apc\033\\y\033^pm\033\\z", "xyz");
  expect_clean("\033(Bx\033cy\033", "xy");
  expect_clean("\033[", "");
  expect_clean("\033]never ends", "");
  expect_clean("a\rb\nc\td", "a b c d");
  expect_clean("bell\a back\b del\x7f", "bell back del");
  expect_clean("c1 \xc2\x9b"
               "31m csi",
               "c1 31m csi");
  /* NOLINTNEXTLINE(misc-misleading-bidirectional): that is what is taken out */
  expect_clean("\xe2\x80\xae"
               "evil"
               "\xe2\x80\xac\xef\xbb\xbf\xe2\x81\xa6",
               "evil");
  expect_clean("bad \xff\xc3 utf\xe2\x82", "bad \xef\xbf\xbd\xef\xbf\xbd utf\xef\xbf\xbd\xef\xbf\xbd");
  expect_clean("\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80",
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  struct buf b = BUF_INIT(1000);
  text_clean_lines("a\n\tb\033[2J", &b);
  assert_string_equal(buf_str(&b), "a\n\tb");
  buf_free(&b);
  /* every byte, alone and behind ESC: nothing below a space, nothing invisible */
  for (unsigned c = 1; c < 256; c++) {
    const char raw[] = {'x', (char)c, 'y', '\033', (char)c, 'z', 0};
    char *text = text_cleaned(raw);
    for (const char *p = text; *p; p++)
      assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
    free(text);
  }
}

static void expect_wrapped(const char *from, unsigned used, unsigned indent, const char *want) {
  struct buf b = BUF_INIT(1000);
  text_wrap(from, used, indent, 10, &b);
  assert_string_equal(buf_str(&b), want);
  buf_free(&b);
}

static void test_lines_are_broken_between_words(void **state) {
  (void)state;
  expect_wrapped("", 0, 0, "");
  expect_wrapped("one two", 0, 0, "one two");
  expect_wrapped("one two three  four\nfive", 0, 2, "one two\n  three\n  four\n  five");
  expect_wrapped("four five", 6, 6, "four\n      five");
  expect_wrapped("1234567890 1234567890", 0, 0, "1234567890\n1234567890");
  expect_wrapped("a-word-wider-than-a-line x", 4, 4, "a-word-wider-than-a-line\n    x");
  expect_wrapped("äöüßä öüßä x", 0, 0, "äöüßä öüßä\nx");
}

static void expect_cut(const char *from, unsigned columns, const char *want) {
  struct buf b = BUF_INIT(1000);
  text_cut(from, columns, &b);
  assert_string_equal(buf_str(&b), want);
  buf_free(&b);
}

static void test_width_and_cut(void **state) {
  (void)state;
  assert_int_equal(text_width("abc"), 3);
  assert_int_equal(text_width("äöü"), 3);
  assert_int_equal(text_width("日本"), 4);
  assert_int_equal(text_width("e\xcc\x81"), 1);
  expect_cut("abcdef", 6, "abcdef");
  expect_cut("abcdef", 5, "abcd…");
  expect_cut("日本語", 5, "日本…");
  expect_cut("日本語", 4, "日…");
  expect_cut("abc", 1, "…");
  expect_cut("abc", 0, "");
}

static void test_numbers(void **state) {
  (void)state;
  char out[16];
  text_bytes(0, out);
  assert_string_equal(out, "0");
  text_bytes(999, out);
  assert_string_equal(out, "999");
  text_bytes(1536, out);
  assert_string_equal(out, "1.5Ki");
  text_bytes(UINT64_C(20) << 30, out);
  assert_string_equal(out, "20Gi");
  text_bytes(UINT64_MAX, out);
  assert_string_equal(out, "16Ei");
  text_age(59, out);
  assert_string_equal(out, "59s");
  text_age(7200, out);
  assert_string_equal(out, "2h");
  text_age(3 * 86400, out);
  assert_string_equal(out, "3d");
  text_age(INT64_MAX, out);
  assert_string_equal(out, "99999d");
  text_age(-5, out);
  assert_string_equal(out, "0s");
  assert_int_equal(text_time("2026-01-02T03:04:05Z"), 1767323045);
  assert_int_equal(text_time("2026-01-02T03:04:05.123Z"), 1767323045);
  assert_int_equal(text_time("yesterday"), -1);
  assert_int_equal(text_time(NULL), -1);
}

static void expect_table(unsigned width, bool color, const char *want) {
  struct table t = {0};
  struct buf b = BUF_INIT(10000);
  table_column(&t, "NAME", false);
  table_column(&t, "N", true);
  table_column(&t, "REASON", false);
  table_cell(&t, TABLE_PLAIN, "shop/api");
  table_cell(&t, TABLE_GREEN, "3");
  table_cell(&t, TABLE_PLAIN, "a rather long reason, \033[31mcoloured");
  table_cell(&t, TABLE_PLAIN, "ä");
  table_cellf(&t, TABLE_PLAIN, "%d", 10);
  table_cell(&t, TABLE_PLAIN, NULL);
  table_print(&t, width, color, &b);
  assert_string_equal(buf_str(&b), want);
  buf_free(&b);
  table_free(&t);
}

static void expect_services(unsigned width, const char *want) {
  static const char *const cells[] = {"shop/a-service-of-a-long-name", "running", "shop/image:1", "1.0Mi", "shop/web", "pending", "shop/web:1", "0"};
  struct table t = {.minor = "IMAGE,MEMORY"};
  struct buf b = BUF_INIT(10000);
  table_column(&t, "SERVICE", false);
  table_column(&t, "STATUS", false);
  table_column(&t, "IMAGE", false);
  table_column(&t, "MEMORY", true);
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
    table_cell(&t, TABLE_PLAIN, cells[i]);
  table_print(&t, width, false, &b);
  assert_string_equal(buf_str(&b), want);
  buf_free(&b);
  table_free(&t);
}

/* The first column says what a row is of: others go before it is cut to less than half of the terminal. */
static void test_a_narrow_table_keeps_its_names(void **state) {
  (void)state;
  expect_services(60, "SERVICE                        STATUS   IMAGE         MEMORY\n"
                      "shop/a-service-of-a-long-name  running  shop/image:1   1.0Mi\n"
                      "shop/web                       pending  shop/web:1         0\n");
  expect_services(59, "SERVICE                        STATUS   MEMORY\n"
                      "shop/a-service-of-a-long-name  running   1.0Mi\n"
                      "shop/web                       pending       0\n");
  expect_services(26, "SERVICE            STATUS\n"
                      "shop/a-service-o…  running\n"
                      "shop/web           pending\n");
}

static void test_tables(void **state) {
  (void)state;
  expect_table(0, false,
               "NAME       N  REASON\n"
               "shop/api   3  a rather long reason, coloured\n"
               "ä         10  \n");
  expect_table(30, false,
               "NAME       N  REASON\n"
               "shop/api   3  a rather long r…\n"
               "ä         10  \n");
  /* narrower than it can be: what is left stays readable */
  expect_table(5, false,
               "NAME     N  REASON\n"
               "shop/…   3  a rat…\n"
               "ä       10  \n");
  /* but many columns give a little more, where they fit then */
  expect_table(17, false,
               "NAME    N  REASON\n"
               "shop…   3  a rat…\n"
               "ä      10  \n");
  expect_table(30, true,
               "\033[1mNAME\033[0m       \033[1mN\033[0m  \033[1mREASON\033[0m\n"
               "shop/api   \033[32m3\033[0m  a rather long r…\n"
               "ä         10  \n");
}

struct heard {
  char text[512];
  unsigned count, stop_at;
};

static bool on_event(void *arg, const char *event, const char *data) {
  struct heard *h = arg;
  size_t used = strlen(h->text);
  snprintf(h->text + used, sizeof h->text - used, "[%s|%s]", event, data);
  return ++h->count != h->stop_at;
}

static const char stream[] =
    "\xef: comment\nevent: plan\ndata: {}\n\n: keep-alive\n\nid: 7\nevent:progress\r\ndata:a\r\ndata: b\r\n\r\nevent: none\n\ndata: x\rid: 8\r\r";

static void test_events_in_pieces(void **state) {
  (void)state;
  /* however the bytes are cut */
  for (size_t piece = 1; piece < sizeof stream; piece++) {
    struct sse s;
    struct heard h = {0};
    sse_init(&s);
    for (size_t at = 0; at < sizeof stream - 1; at += piece) {
      size_t len = sizeof stream - 1 - at < piece ? sizeof stream - 1 - at : piece;
      assert_true(sse_feed(&s, stream + at, len, on_event, &h));
    }
    assert_string_equal(h.text, "[plan|{}][progress|a\nb][message|x]");
    assert_string_equal(s.id, "8");
    sse_free(&s);
  }
  struct sse s;
  struct heard h = {.stop_at = 1};
  sse_init(&s);
  assert_false(sse_feed(&s, stream, sizeof stream - 1, on_event, &h));
  assert_int_equal(h.count, 1);
  sse_free(&s);
}

static void test_endless_line_is_refused(void **state) {
  (void)state;
  struct sse s;
  struct heard h = {0};
  char *block = malloc(1 << 20);
  memset(block, 'x', 1 << 20);
  sse_init(&s);
  unsigned fed = 0;
  while (fed < 20 && sse_feed(&s, block, 1 << 20, on_event, &h))
    fed++;
  assert_int_equal(fed, SSE_LINE_MAX >> 20);
  sse_free(&s);
  free(block);
}

static void test_a_locale_without_utf8_gets_ascii(void **state) {
  (void)state;
  static const struct {
    const char *all, *lang, *want;
  } cases[] = {{"C", "de_DE.UTF-8", "abc~"}, {"", "C", "abc~"},       {"", "de_DE.ISO-8859-1", "abc~"},
               {"en_US.utf8", "C", "abc…"},  {"", "C.UTF-8", "abc…"}, {"", "", "abc…"}};
  unsetenv("LC_CTYPE");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    setenv("LC_ALL", cases[i].all, 1);
    setenv("LANG", cases[i].lang, 1);
    text_init();
    expect_cut("abcdefgh", 4, cases[i].want);
  }
}

int main(void) {
  setenv("LC_ALL", "C.UTF-8", 1);
  text_init();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lines_are_broken_between_words),
      cmocka_unit_test(test_nothing_reaches_the_terminal_that_commands_it),
      cmocka_unit_test(test_width_and_cut),
      cmocka_unit_test(test_numbers),
      cmocka_unit_test(test_tables),
      cmocka_unit_test(test_events_in_pieces),
      cmocka_unit_test(test_a_narrow_table_keeps_its_names),
      cmocka_unit_test(test_endless_line_is_refused),
      cmocka_unit_test(test_a_locale_without_utf8_gets_ascii),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
