/* Docker's log as bytes: chunks, frames, times; the place in it; last lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/logs/mark.h"
#include "orca-agent/last_words.h"
#include "orca-agent/log_lines.h"
#include "tests/unit/agent/bare_agent.h"
#include "tests/unit/agent/fake_docker.h"

static uint8_t buf[LOG_LINES_BUFFER];

struct wire {
  uint8_t bytes[256 << 10];
  size_t len;
};
static struct wire wire;

static void frame(int kind, const char *text, size_t len) {
  char head[16];
  int n = snprintf(head, sizeof head, "%zx\r\n", len + 8);
  memcpy(wire.bytes + wire.len, head, (size_t)n);
  wire.len += (size_t)n;
  uint8_t f[8] = {(uint8_t)kind, 0, 0, 0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
  memcpy(wire.bytes + wire.len, f, 8);
  memcpy(wire.bytes + wire.len + 8, text, len);
  memcpy(wire.bytes + wire.len + 8 + len, "\r\n", 2);
  wire.len += len + 10;
}

static void say(int kind, const char *text) {
  frame(kind, text, strlen(text));
}

static void over(void) {
  memcpy(wire.bytes + wire.len, "0\r\n\r\n", 5);
  wire.len += 5;
}

static bool feed(struct log_lines *l, const uint8_t *data, size_t len) {
  size_t room;
  uint8_t *to = log_lines_room(l, &room);
  assert_true(room >= len);
  memcpy(to, data, len);
  return log_lines_received(l, len);
}

static void test_lines(void **state) {
  (void)state;
  for (size_t step = 1; step < 80; step++) { /* however it is cut up */
    wire.len = 0;
    say(1, "2026-11-21T12:00:00.123456789Z hello\n");
    say(2, "2026-11-21T12:00:00.123456790Z \n");
    say(1, "2026-11-21T12:00:01.000000000Z a piece");
    say(1, "2026-11-21T12:00:01.000000000Z and the rest\n");
    over();
    struct log_lines l;
    struct log_line line[5] = {0};
    char text[5][40];
    size_t n = 0;
    log_lines_init(&l, buf);
    for (size_t at = 0; at < wire.len; at += step) {
      assert_true(feed(&l, wire.bytes + at, wire.len - at < step ? wire.len - at : step));
      while (log_lines_next(&l, &line[n]) == 1) {
        snprintf(text[n], sizeof text[n], "%.*s", (int)line[n].len, (const char *)line[n].text);
        n++;
      }
    }
    assert_true(log_lines_over(&l));
    assert_int_equal(n, 4);
    assert_string_equal(text[0], "hello");
    assert_true(line[0].ns == INT64_C(1795262400123456789) && !line[0].err && !line[0].partial);
    assert_true(line[1].err && line[1].len == 0 && line[1].ns == line[0].ns + 1);
    assert_true(line[2].partial && !line[3].partial && line[2].ns == line[3].ns);
    assert_string_equal(text[3], "and the rest");
  }
}

static void refused(const char *bytes, size_t len, const char *why) {
  struct log_lines l;
  struct log_line line;
  log_lines_init(&l, buf);
  bool ok = feed(&l, (const uint8_t *)bytes, len);
  int rc = ok ? log_lines_next(&l, &line) : -1;
  assert_int_equal(rc, -1);
  if (!strstr(l.fault, why))
    fail_msg("%s instead of %s", l.fault, why);
}

static void refused_message(int kind, const char *text, const char *why) {
  wire.len = 0;
  say(kind, text);
  refused((const char *)wire.bytes, wire.len, why);
}

static void test_malformed(void **state) {
  (void)state;
#define REFUSED(bytes, why) refused(bytes, sizeof bytes - 1, why)
  REFUSED("zz\r\n", "no size");
  REFUSED("\r\n", "no size");
  REFUSED("123456789\r\n", "too large");
  REFUSED("1\r\nxx", "longer");
  REFUSED("0\r\n\r\nmore", "behind its end");
  REFUSED("8\r\n\1\0\0\1\0\0\0\0\r\n", "no frames");
  REFUSED("8\r\n\0\0\0\0\0\0\0\0\r\n", "no frames");
  REFUSED("8\r\n\4\0\0\0\0\0\0\0\r\n", "no frames");
  REFUSED("8\r\n\1\0\0\0\377\377\377\377\r\n", "too long");
  refused_message(1, "", "no time");
  refused_message(1, "2026-11-21T12:00:00.123456789Z", "no time");
  refused_message(1, "2026-11-21T12:00:00.12345678Z  x", "no time");
  refused_message(1, "2026-11-21 12:00:00.123456789Z x", "no time");
  refused_message(1, "2026-13-21T12:00:00.123456789Z x", "no time");
  refused_message(1, "2026-02-30T12:00:00.123456789Z x", "no time");
  refused_message(1, "1960-02-03T12:00:00.123456789Z x", "no time");
  refused_message(1, "2026-02-03T24:00:00.123456789Z x", "no time");
  refused_message(3, "Error grabbing logs: it is broken\n", "Error grabbing logs: it is broken");
}

struct entry {
  bool err;
  int64_t ns;
};

/* A log, read up to any line, gone on with from the mark: whatever came before is old, whatever comes after is new, once. */
static void goes_on(const struct entry *log, size_t count) {
  for (size_t read = 1; read <= count; read++) {
    struct log_mark mark = {0}, again;
    char text[LOG_MARK_TEXT];
    for (size_t i = 0; i < read; i++)
      log_mark_seen(&mark, log[i].err, log[i].ns);
    log_mark_text(&mark, text);
    assert_int_equal(log_mark_parse(text, strlen(text), &again), 0);
    assert_true(again.ns == mark.ns && again.err == mark.err && again.count == mark.count);
    struct log_seek seek;
    log_seek_init(&seek, &again);
    for (size_t i = 0; i < count; i++)
      assert_int_equal(log_seek_line(&seek, log[i].err, log[i].ns), i < read ? LOG_SEEK_OLD : LOG_SEEK_NEW);
  }
}

static void test_marks(void **state) {
  (void)state;
  static const struct entry plain[] = {{0, 10}, {0, 20}, {1, 25}, {0, 30}, {1, 31}};
  static const struct entry crossed[] = {{0, 10}, {1, 8}, {0, 12}, {1, 11}, {1, 13}, {0, 13}};
  static const struct entry pieces[] = {{0, 10}, {0, 10}, {1, 11}, {0, 10}, {1, 11}, {0, 12}, {0, 12}};
  static const struct entry back[] = {{0, 100}, {0, 110}, {0, 50}, {1, 55}, {0, 60}, {1, 54}, {0, 111}, {0, 112}};
  goes_on(plain, 5);
  goes_on(crossed, 6);
  goes_on(pieces, 7);
  goes_on(back, 8);
  struct log_mark mark = {0};
  struct log_seek seek;
  log_mark_seen(&mark, false, 20);
  log_seek_init(&seek, &mark);
  assert_int_equal(log_seek_line(&seek, true, 30), LOG_SEEK_OLD);
  assert_int_equal(log_seek_line(&seek, false, 21), LOG_SEEK_GONE);
  static const char *const wrong[] = {
      "", "1", "1-o", "1-o-", "1-x-1", "0-o-1", "1-o-0", "-1-o-1", "1-o-1x", "9223372036854775807-o-1", "1-o-4294967296"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_int_equal(log_mark_parse(wrong[i], strlen(wrong[i]), &mark), -1);
}

static void add(struct last_lines *l, const char *text) {
  last_lines_add(l, (const uint8_t *)text, strlen(text), false);
}

static void test_last_lines(void **state) {
  (void)state;
  static struct last_lines l;
  char text[16];
  for (int i = 0; i < 25; i++) {
    snprintf(text, sizeof text, "line %d", i);
    add(&l, text);
  }
  last_lines_end(&l);
  assert_int_equal(strncmp(l.text, "line 15\nline 16", 15), 0);
  assert_int_equal(strncmp(l.text + l.len - 7, "line 24", 7), 0);

  l.len = 0;
  last_lines_add(&l, (const uint8_t *)"half ", 5, true);
  add(&l, "whole\xff");
  last_lines_add(&l, (const uint8_t *)"a\0b\xc3\xa4\xc3", 6, false);
  last_lines_end(&l);
  assert_int_equal(l.len, strlen("half whole?\na?b\xc3\xa4?"));
  assert_memory_equal(l.text, "half whole?\na?b\xc3\xa4?", l.len);

  static char long_one[20000];
  for (size_t i = 0; i < sizeof long_one; i++)
    long_one[i] = i % 2 ? '\xa4' : '\xc3';
  l.len = 0;
  last_lines_add(&l, (const uint8_t *)long_one, sizeof long_one, false);
  last_lines_add(&l, (const uint8_t *)long_one, sizeof long_one - 1, false);
  last_lines_end(&l);
  assert_true(l.len <= LAST_BYTES && l.len > LAST_BYTES - 8);
  l.len = 0;
  last_lines_end(&l);
  assert_int_equal(l.len, 0);
}

/* A Docker of which each container has said "bye". */
static void say_bye(int fd, const char *asked) {
  (void)asked;
  static const char answer[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2b\r\n\1\0\0\0\0\0\0\x23"
                               "2026-11-21T12:00:00.000000000Z bye\n\r\n0\r\n\r\n";
  send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
  close(fd);
}

/* As when Docker, or many jobs, end in one moment. */
static void test_last_words_of_many(void **state) {
  (void)state;
  enum { MANY = 50 };
  struct err err;
  struct fake_docker d;
  fake_docker_open(&d, say_bye);
  struct daemon daemon = {.config.docker = d.path};
  struct agent *a = bare_agent_new(&daemon);
  assert_non_null(a->words = last_words_open(a, &err));
  int64_t ended = INT64_C(1795262400) * NS_PER_SEC + 1;
  while (a->core.count < MANY) {
    char id[INSTANCE_ID_MAX];
    snprintf(id, sizeof id, "shop/job.%zu", 100 + a->core.count);
    bare_agent_add(a, id)->words_ns = ended;
  }
  for (size_t n = 0; n < MANY; n++) {
    struct agent_action act = {.kind = AGENT_ACT_WORDS, .number = (uint64_t)ended, .container = "0123456789ab"};
    snprintf(act.instance, sizeof act.instance, "%s", a->core.instances[n]->id);
    last_words_read(a->words, &act);
  }
  bare_agent_run(a, NS_PER_SEC);
  for (size_t n = 0; n < MANY; n++) {
    assert_true(a->core.instances[n]->words_ns == 0);
    assert_int_equal(a->core.instances[n]->last_lines_len, 3);
  }
  last_words_close(a->words);
  bare_agent_free(a);
  fake_docker_close(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_malformed), cmocka_unit_test(test_marks),
                                     cmocka_unit_test(test_last_lines), cmocka_unit_test(test_last_words_of_many)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
