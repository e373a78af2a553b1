/* The access log's thread, with a reader that reads, and one that does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orca-proxy/accesslog.h"

static const struct accesslog_entry entry = {
    .client = "192.0.2.1", .service = "p/a", .instance = "p/a.1", .method = SPAN("GET"), .target = SPAN("/"), .minor = 1, .status = 200};

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static size_t read_there(int fd, char *out, size_t size) {
  size_t len = 0;
  ssize_t n;
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  while (len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
    len += (size_t)n;
  out[len] = 0;
  return len;
}

static void test_all_is_written_before_a_pause(void **state) {
  (void)state;
  static char text[65536];
  struct err err;
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  struct accesslog *log = accesslog_new(ACCESSLOG_COMMON, ends[1], &err);
  assert_non_null(log);
  for (int i = 0; i < 100; i++)
    accesslog_add(log, &entry);
  accesslog_pause(log);
  read_there(ends[0], text, sizeof text);
  unsigned lines = 0;
  for (const char *at = text; (at = strchr(at, '\n')); at++)
    lines++;
  assert_int_equal(lines, 100);
  accesslog_free(log);
  close(ends[0]);
  close(ends[1]);
}

/* A proxy that is stopped or restarted does not wait for whoever no longer reads its lines: its requests would wait, too. */
static void test_a_reader_that_stalls_is_not_waited_for(void **state) {
  (void)state;
  static char text[1 << 20];
  struct err err;
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  struct accesslog *log = accesslog_new(ACCESSLOG_COMMON, ends[1], &err);
  assert_non_null(log);
  for (int i = 0; i < 2000; i++) /* more than the pipe has room for */
    accesslog_add(log, &entry);
  int64_t began = now_ms();
  alarm(20);
  accesslog_pause(log);
  assert_true(now_ms() - began < 5000);
  read_there(ends[0], text, sizeof text);
  assert_int_equal(accesslog_resume(log, &err), 0);
  accesslog_add(log, &entry);
  accesslog_pause(log);
  alarm(0);
  read_there(ends[0], text, sizeof text);
  assert_non_null(strstr(text, " lines dropped\n"));
  assert_memory_equal(text, "192.0.2.1 ", 10); /* no line was cut */
  accesslog_free(log);
  close(ends[0]);
  close(ends[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_is_written_before_a_pause),
                                     cmocka_unit_test(test_a_reader_that_stalls_is_not_waited_for)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
