#include "common/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level min_level = LOG_LEVEL_INFO;
static int pinned;
static const char *self_daemon, *self_node;
static int with_time = 1;

static const char *const level_names[] = {"trace", "debug", "info", "warn", "error"};

void log_init(const char *daemon, const char *node) {
  self_daemon = daemon;
  self_node = node;
  with_time = getenv("JOURNAL_STREAM") == NULL;
}

void log_pin_level(enum log_level level) {
  pinned = 1;
  __atomic_store_n(&min_level, level, __ATOMIC_RELAXED);
}

void log_follow_level(const char *text) {
  enum log_level level = LOG_LEVEL_INFO;
  if (pinned || (*text && log_level_from_text(text, &level) < 0) || level == __atomic_load_n(&min_level, __ATOMIC_RELAXED))
    return;
  __atomic_store_n(&min_level, level, __ATOMIC_RELAXED);
  log_event(LOG_LEVEL_INFO, "log level", "level", level_names[level], NULL); /* whatever it is: a log that falls silent says why */
}

int log_level_from_text(const char *text, enum log_level *ret) {
  for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
    if (strcmp(text, level_names[i]) == 0) {
      *ret = (enum log_level)i;
      return 0;
    }
  return -1;
}

int log_enabled(enum log_level level) {
  return level >= __atomic_load_n(&min_level, __ATOMIC_RELAXED);
}

struct line {
  char text[4096];
  size_t len;
};

static void put(struct line *l, char c) {
  if (l->len < sizeof l->text - 2)
    l->text[l->len++] = c;
}

static void puts_raw(struct line *l, const char *s) {
  while (*s)
    put(l, *s++);
}

static int plain(const char *s) {
  if (!*s)
    return 0;
  for (; *s; s++)
    if ((unsigned char)*s <= 0x20 || *s == '"' || *s == '=' || *s == '\\' || (unsigned char)*s == 0x7f)
      return 0;
  return 1;
}

static void put_quoted(struct line *l, const char *s) {
  put(l, '"');
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') {
      put(l, '\\');
      put(l, (char)c);
    } else if (c == '\n') {
      puts_raw(l, "\\n");
    } else if (c < 0x20 || c == 0x7f) {
      char hex[5];
      snprintf(hex, sizeof hex, "\\x%02x", c);
      puts_raw(l, hex);
    } else {
      put(l, (char)c);
    }
  }
  put(l, '"');
}

static void put_pair(struct line *l, const char *key, const char *value) {
  if (!value)
    return;
  if (l->len)
    put(l, ' ');
  puts_raw(l, key);
  put(l, '=');
  if (plain(value))
    puts_raw(l, value);
  else
    put_quoted(l, value);
}

static void put_time(struct line *l) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  struct tm tm;
  gmtime_r(&ts.tv_sec, &tm);
  char text[40];
  size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
  snprintf(text + n, sizeof text - n, ".%03ldZ", ts.tv_nsec / 1000000);
  put_pair(l, "time", text);
}

void log_event(enum log_level level, const char *msg, ...) {
  struct line l = {.len = 0};
  if (with_time)
    put_time(&l);
  put_pair(&l, "level", level_names[level]);
  put_pair(&l, "daemon", self_daemon);
  put_pair(&l, "node", self_node);
  put(&l, ' ');
  puts_raw(&l, "msg=");
  put_quoted(&l, msg);
  va_list ap;
  va_start(ap, msg);
  for (const char *key; (key = va_arg(ap, const char *));) {
    const char *value = va_arg(ap, const char *);
    put_pair(&l, key, value);
  }
  va_end(ap);
  l.text[l.len++] = '\n';
  /* Nobody is left to tell when stderr is gone. */
  ssize_t written = write(STDERR_FILENO, l.text, l.len);
  (void)written;
}

static char *number_slot(void) {
  static _Thread_local char slots[16][24];
  static _Thread_local unsigned next;
  return slots[next++ % 16];
}

const char *log_u64(uint64_t v) {
  char *s = number_slot();
  snprintf(s, 24, "%" PRIu64, v);
  return s;
}

const char *log_i64(int64_t v) {
  char *s = number_slot();
  snprintf(s, 24, "%" PRId64, v);
  return s;
}
