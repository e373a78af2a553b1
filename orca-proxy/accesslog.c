#include "orca-proxy/accesslog.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"

#define BUFFER ((size_t)256 << 10)
#define LINE_SIZE 32768
#define WAIT_MS 100
#define LAST_WORDS_MS 500

struct accesslog {
  enum accesslog_format format;
  int fd;
  pthread_t thread;
  pthread_mutex_t lock; /* guards fill, len, dropped, stop, stop_by_ms */
  pthread_cond_t more;
  char *fill, *spare;
  size_t len;
  uint64_t dropped;
  bool stop;
  int64_t stop_by_ms; /* monotonic: then a reader that stalls is waited for no more */
};

static void put_json(struct buf *b, const void *data, size_t len) {
  const uint8_t *s = data;
  if (len > 1024)
    len = 1024;
  for (size_t i = 0; i < len; i++) {
    if (s[i] == '"' || s[i] == '\\') {
      buf_add_byte(b, '\\');
      buf_add_byte(b, s[i]);
    } else if (s[i] < 0x20 || s[i] >= 0x7f) {
      buf_printf(b, "\\u%04x", s[i]);
    } else {
      buf_add_byte(b, s[i]);
    }
  }
}

static void put_plain(struct buf *b, struct span s) {
  if (!s.len)
    buf_add_byte(b, '-');
  for (size_t i = 0; i < s.len && i < 1024; i++) {
    if (s.at[i] < 0x20 || s.at[i] >= 0x7f || s.at[i] == '"')
      buf_printf(b, "\\x%02x", s.at[i]);
    else
      buf_add_byte(b, s.at[i]);
  }
}

static void json_text(struct buf *b, const char *key, struct span s) {
  if (!s.len)
    return;
  buf_printf(b, ",\"%s\":\"", key);
  put_json(b, s.at, s.len);
  buf_add_byte(b, '"');
}

static struct span text(const char *s) {
  return (struct span){(const uint8_t *)s, strlen(s)};
}

size_t accesslog_format(enum accesslog_format format, char *out, size_t cap, const struct accesslog_entry *e, int64_t wall_ms) {
  struct buf b = BUF_INIT(cap - 2);
  time_t secs = (time_t)(wall_ms / 1000);
  struct tm tm;
  gmtime_r(&secs, &tm);
  char when[64];
  if (format == ACCESSLOG_JSON) {
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(&b, "{\"time\":\"%s.%03dZ\",\"client\":\"%s\"", when, (int)(wall_ms % 1000), e->client);
    json_text(&b, "method", e->method);
    json_text(&b, "host", e->host);
    json_text(&b, "target", e->target);
    buf_printf(&b, ",\"status\":%u,\"bytes_in\":%llu,\"bytes_out\":%llu,\"us\":%llu", e->status, (unsigned long long)e->bytes_in,
               (unsigned long long)e->bytes_out, (unsigned long long)e->us);
    json_text(&b, "service", text(e->service));
    json_text(&b, "instance", text(e->instance));
    if (e->attempts > 1)
      buf_printf(&b, ",\"attempts\":%u", e->attempts);
    json_text(&b, "referer", e->referer);
    json_text(&b, "agent", e->agent);
    buf_add_byte(&b, '}');
  } else {
    strftime(when, sizeof when, "%d/%b/%Y:%H:%M:%S +0000", &tm);
    buf_printf(&b, "%s - - [%s] \"", e->client, when);
    put_plain(&b, e->method);
    buf_add_byte(&b, ' ');
    put_plain(&b, e->target);
    buf_printf(&b, " HTTP/1.%u\" %u %llu \"", e->minor, e->status, (unsigned long long)e->bytes_out);
    put_plain(&b, e->referer);
    buf_add_str(&b, "\" \"");
    put_plain(&b, e->agent);
    buf_add_byte(&b, '"');
  }
  size_t len = b.len;
  memcpy(out, buf_str(&b), len);
  out[len++] = '\n';
  buf_free(&b);
  return len;
}

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool may_wait(struct accesslog *log) {
  pthread_mutex_lock(&log->lock);
  bool yes = !log->stop || now_ms() < log->stop_by_ms;
  pthread_mutex_unlock(&log->lock);
  return yes;
}

static uint64_t count_lines(const char *data, size_t len) {
  uint64_t n = 0;
  for (const char *end = data + len; (data = memchr(data, '\n', (size_t)(end - data))); data++)
    n++;
  return n;
}

/* Returns how many lines were given up. What a pipe that has room takes at once, and no more, is written at a time, so that a reader that stalls is
 * waited for in poll(): the descriptor may be a blocking one. */
static uint64_t write_all(struct accesslog *log, const char *data, size_t len) {
  while (len) {
    struct pollfd p = {.fd = log->fd, .events = POLLOUT};
    if (poll(&p, 1, WAIT_MS) <= 0) {
      if (!may_wait(log))
        return count_lines(data, len);
      continue;
    }
    size_t piece = len < PIPE_BUF ? len : PIPE_BUF;
    const char *last = memrchr(data, '\n', piece);
    if (last)
      piece = (size_t)(last + 1 - data);
    ssize_t n = write(log->fd, data, piece);
    if (n > 0) {
      data += n;
      len -= (size_t)n;
    } else if (errno != EAGAIN && errno != EINTR) {
      return 0; /* the reader has gone; the proxy goes on */
    }
  }
  return 0;
}

static void *run(void *arg) {
  struct accesslog *log = arg;
  pthread_mutex_lock(&log->lock);
  while (!log->stop || log->len) {
    if (!log->len) {
      pthread_cond_wait(&log->more, &log->lock);
      continue;
    }
    char *full = log->fill;
    size_t len = log->len;
    uint64_t dropped = log->dropped;
    log->fill = log->spare;
    log->spare = NULL;
    log->len = 0;
    log->dropped = 0;
    pthread_mutex_unlock(&log->lock);
    uint64_t lost = write_all(log, full, len);
    if (dropped && !lost) {
      char line[96];
      int n =
          snprintf(line, sizeof line, log->format == ACCESSLOG_JSON ? "{\"dropped\":%llu}\n" : "# %llu lines dropped\n", (unsigned long long)dropped);
      if (write_all(log, line, (size_t)n) == 0)
        dropped = 0;
    }
    pthread_mutex_lock(&log->lock);
    log->dropped += dropped + lost;
    log->spare = full;
  }
  pthread_mutex_unlock(&log->lock);
  return NULL;
}

struct accesslog *accesslog_new(enum accesslog_format format, int fd, struct err *err) {
  struct accesslog *log = calloc(1, sizeof *log);
  char *fill = malloc(BUFFER), *spare = malloc(BUFFER);
  if (!log || !fill || !spare) {
    err_set(err, ERR_MEMORY, "no memory for the access log");
    goto fail;
  }
  *log = (struct accesslog){.format = format, .fd = fd, .fill = fill, .spare = spare};
  pthread_mutex_init(&log->lock, NULL);
  pthread_cond_init(&log->more, NULL);
  int rc = pthread_create(&log->thread, NULL, run, log);
  if (rc == 0)
    return log;
  err_errno(err, rc, "access log thread");
fail:
  free(fill);
  free(spare);
  free(log);
  return NULL;
}

void accesslog_pause(struct accesslog *log) {
  pthread_mutex_lock(&log->lock);
  bool running = !log->stop;
  log->stop = true;
  log->stop_by_ms = now_ms() + LAST_WORDS_MS;
  pthread_cond_signal(&log->more);
  pthread_mutex_unlock(&log->lock);
  if (running)
    pthread_join(log->thread, NULL);
}

int accesslog_resume(struct accesslog *log, struct err *err) {
  log->stop = false;
  int rc = pthread_create(&log->thread, NULL, run, log);
  if (!rc)
    return 0;
  log->stop = true;
  return err_errno(err, rc, "access log thread");
}

void accesslog_free(struct accesslog *log) {
  if (!log)
    return;
  accesslog_pause(log);
  pthread_mutex_destroy(&log->lock);
  pthread_cond_destroy(&log->more);
  free(log->fill);
  free(log->spare);
  free(log);
}

void accesslog_add(struct accesslog *log, const struct accesslog_entry *e) {
  char line[LINE_SIZE];
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  size_t n = accesslog_format(log->format, line, sizeof line, e, (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
  pthread_mutex_lock(&log->lock);
  if (!log->fill || log->len + n > BUFFER) {
    log->dropped++;
  } else {
    memcpy(log->fill + log->len, line, n);
    log->len += n;
    if (log->len == n)
      pthread_cond_signal(&log->more);
  }
  pthread_mutex_unlock(&log->lock);
}
