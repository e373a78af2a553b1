#include "orca-agent/docker_logs.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEAD_MAX ((size_t)8 << 10)
#define CONNECT_RETRY (20 * NS_PER_MS)
#define HEAD_TIMEOUT (30 * NS_PER_SEC)

struct docker_logs {
  struct loop *loop;
  struct loop_io io;
  struct loop_timer timer; /* connects again; then limits the wait for the answer's head; then goes on after a pause */
  const struct docker_logs_ops *ops;
  void *arg;
  struct sockaddr_un address;
  struct err why;
  bool connected, have_head, over;
  size_t head_len;
  struct log_lines lines;
  char request[512];
  uint8_t buf[LOG_LINES_BUFFER];
};

static void finish(struct docker_logs *d) {
  loop_io_remove(d->loop, &d->io);
  loop_timer_cancel(d->loop, &d->timer);
  d->over = true;
  d->ops->done(d->arg, d, &d->why);
}

static void fail(struct docker_logs *d, enum err_code code, const char *what) {
  err_set(&d->why, code, "Docker's log: %s", what);
  finish(d);
}

/* ---- the answer's head ---- */

static enum err_code code_of(long status) {
  return status == 404 ? ERR_NOT_FOUND : status == 409 ? ERR_CONFLICT : ERR_INTERNAL;
}

/* true: the body begins, what came of it is in `lines`. */
static bool read_head(struct docker_logs *d, size_t got) {
  d->head_len += got;
  char *head = (char *)d->buf, *end = memmem(head, d->head_len, "\r\n\r\n", 4);
  if (!end) {
    if (d->head_len >= HEAD_MAX)
      fail(d, ERR_INVALID, "the head of the answer is too long");
    return false;
  }
  size_t len = (size_t)(end - head) + 4;
  end[2] = 0;
  bool is_http = strncmp(head, "HTTP/1.1 ", 9) == 0;
  long status = is_http ? strtol(head + 9, NULL, 10) : 0;
  if (status != 200) {
    char text[64];
    snprintf(text, sizeof text, is_http ? "status %ld" : "what answers is not Docker", status);
    fail(d, is_http ? code_of(status) : ERR_INVALID, text);
    return false;
  }
  if (!strcasestr(head, "\r\nTransfer-Encoding: chunked\r\n")) {
    fail(d, ERR_INVALID, "the answer is not in chunks");
    return false;
  }
  size_t rest = d->head_len - len;
  memmove(d->buf, d->buf + len, rest);
  d->have_head = true;
  loop_timer_cancel(d->loop, &d->timer);
  if (!log_lines_received(&d->lines, rest)) {
    fail(d, ERR_INVALID, d->lines.fault);
    return false;
  }
  return true;
}

/* ---- reading ---- */

static void hand_on(struct docker_logs *d) {
  bool complete = d->lines.state == LOG_CHUNK_OVER;
  if (!d->ops->readable(d->arg, d)) /* d may be gone */
    return;
  if (complete && log_lines_over(&d->lines)) {
    d->why.code = ERR_NONE;
    finish(d);
  } else if (complete) {
    fail(d, ERR_INVALID, "it ends inside of a message");
  } else if (!d->io.active && loop_io_add(d->loop, &d->io, d->io.fd, EPOLLIN, &d->why) < 0) {
    finish(d);
  }
}

static void on_io(void *arg, uint32_t events) {
  (void)events;
  struct docker_logs *d = arg;
  size_t room = HEAD_MAX - d->head_len;
  uint8_t *to = d->have_head ? log_lines_room(&d->lines, &room) : d->buf + d->head_len;
  ssize_t got = room ? recv(d->io.fd, to, room, MSG_DONTWAIT) : 0;
  if (got < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (!room) {
    fail(d, ERR_INVALID, "a message is too long");
  } else if (got < 0) {
    fail(d, ERR_UNAVAILABLE, strerror(errno));
  } else if (got == 0) {
    fail(d, ERR_UNAVAILABLE, "the connection was lost");
  } else if (!d->have_head) {
    if (read_head(d, (size_t)got))
      hand_on(d);
  } else if (!log_lines_received(&d->lines, (size_t)got)) {
    fail(d, ERR_INVALID, d->lines.fault);
  } else {
    hand_on(d);
  }
}

struct log_lines *docker_logs_lines(struct docker_logs *d) {
  return &d->lines;
}

void docker_logs_pause(struct docker_logs *d) {
  loop_io_remove(d->loop, &d->io);
}

void docker_logs_resume(struct docker_logs *d) {
  if (!d->over && loop_timer_in(d->loop, &d->timer, 0, &d->why) < 0)
    finish(d);
}

/* ---- connecting ---- */

static int begin(struct docker_logs *d, struct err *err) {
  if (connect(d->io.fd, (struct sockaddr *)&d->address, sizeof d->address) < 0) {
    if (errno == EAGAIN) /* its queue is full */
      return loop_timer_in(d->loop, &d->timer, CONNECT_RETRY, err);
    return err_set(err, ERR_UNAVAILABLE, "Docker: %s", strerror(errno));
  }
  d->connected = true;
  size_t len = strlen(d->request);
  if (send(d->io.fd, d->request, len, MSG_NOSIGNAL) != (ssize_t)len) /* an empty socket takes it whole */
    return err_set(err, ERR_UNAVAILABLE, "Docker: %s", strerror(errno));
  if (loop_timer_in(d->loop, &d->timer, HEAD_TIMEOUT, err) < 0)
    return -1;
  return loop_io_add(d->loop, &d->io, d->io.fd, EPOLLIN, err);
}

static void on_timer(void *arg) {
  struct docker_logs *d = arg;
  if (d->have_head) {
    hand_on(d);
  } else if (d->connected) {
    fail(d, ERR_TIMEOUT, "Docker does not answer");
  } else if (begin(d, &d->why) < 0) {
    finish(d);
  }
}

struct docker_logs *docker_logs_open(struct loop *loop, const struct docker_logs_options *o, struct err *err) {
  struct docker_logs *d = malloc(sizeof *d);
  if (!d) {
    err_set(err, ERR_MEMORY, "no memory to read a log");
    return NULL;
  }
  memset(d, 0, offsetof(struct docker_logs, buf));
  d->loop = loop;
  d->ops = o->ops;
  d->arg = o->arg;
  d->io = (struct loop_io){.cb = on_io, .arg = d, .fd = -1};
  d->timer = (struct loop_timer){.cb = on_timer, .arg = d};
  log_lines_init(&d->lines, d->buf);
  char tail[32] = "all", since[64] = "";
  if (o->tail != DOCKER_LOGS_ALL)
    snprintf(tail, sizeof tail, "%" PRIu64, o->tail);
  if (o->since_ns > 0)
    snprintf(since, sizeof since, "&since=%" PRId64 ".%09" PRId64, o->since_ns / NS_PER_SEC, o->since_ns % NS_PER_SEC);
  snprintf(d->request, sizeof d->request,
           "GET /v1.41/containers/%s/logs?stdout=1&stderr=1&timestamps=1&tail=%s%s%s HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n",
           o->container, tail, since, o->follow ? "&follow=1" : "");
  d->address.sun_family = AF_UNIX;
  if (strlen(o->socket_path) >= sizeof d->address.sun_path) {
    err_set(err, ERR_INVALID, "Docker's socket has too long a name");
    free(d);
    return NULL;
  }
  memcpy(d->address.sun_path, o->socket_path, strlen(o->socket_path) + 1);
  d->io.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (d->io.fd < 0) {
    err_set(err, ERR_UNAVAILABLE, "no socket to read a log: %s", strerror(errno));
    free(d);
    return NULL;
  }
  if (begin(d, err) < 0) {
    docker_logs_close(d);
    return NULL;
  }
  return d;
}

void docker_logs_close(struct docker_logs *d) {
  if (!d)
    return;
  loop_io_remove(d->loop, &d->io);
  loop_timer_cancel(d->loop, &d->timer);
  close(d->io.fd);
  free(d);
}
