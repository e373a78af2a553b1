#include "orca-proxy/conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

static void unlink_idle(struct upstream *u) {
  struct endpoint *e = u->endpoint;
  if (u->idle_prev)
    u->idle_prev->idle_next = u->idle_next;
  else
    e->idle = u->idle_next;
  if (u->idle_next)
    u->idle_next->idle_prev = u->idle_prev;
  u->idle_next = u->idle_prev = NULL;
  e->idle_count--;
}

void upstream_close(struct worker *w, struct upstream *u) {
  if (u->sock.closed)
    return;
  if (u->state == UPSTREAM_IDLE)
    unlink_idle(u);
  if (u->in)
    block_put(w, u->in);
  u->in = NULL;
  u->exchange = NULL;
  sock_close(w, &u->sock);
}

void upstream_close_idle(struct worker *w, struct endpoint *e) {
  while (e->idle)
    upstream_close(w, e->idle);
}

/* Nothing to read: neither bytes nor an end. */
static bool is_quiet(struct sock *s, bool look) {
  uint8_t byte;
  if ((look || s->readable) && !(recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN))
    return false;
  s->readable = false;
  return !s->hung_up && !s->failed;
}

static bool may_reuse(const struct worker *w, struct upstream *u, bool repeatable) {
  if (repeatable)
    return true;
  const struct endpoint *e = u->endpoint;
  return e->keeps_since && w->now_ms - e->keeps_since >= REUSE_PROOF_MS && w->now_ms - u->idle_since < REUSE_UNSAFE_MS && is_quiet(&u->sock, true);
}

struct upstream *upstream_get(struct worker *w, struct endpoint *e, bool repeatable, int *sys_errno) {
  struct upstream *u = e->idle;
  if (u && may_reuse(w, u, repeatable)) {
    unlink_idle(u);
    u->state = UPSTREAM_BUSY;
    u->reused = true;
    wheel_clear(&u->sock.timer);
    return u;
  }
  *sys_errno = 0;
  u = calloc(1, sizeof *u);
  if (!u) {
    *sys_errno = ENOMEM;
    return NULL;
  }
  u->sock = (struct sock){.kind = SOCK_UPSTREAM, .writable = true};
  u->sock.fd = socket(e->addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  socklen_t len = e->addr.sa.sa_family == AF_INET ? sizeof e->addr.in : sizeof e->addr.in6;
  int one = 1;
  if (u->sock.fd < 0 || setsockopt(u->sock.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 ||
      (connect(u->sock.fd, &e->addr.sa, len) < 0 && errno != EINPROGRESS) || sock_register(w, &u->sock) < 0) {
    *sys_errno = errno;
    if (u->sock.fd >= 0)
      close(u->sock.fd);
    free(u);
    return NULL;
  }
  u->state = UPSTREAM_CONNECTING;
  u->endpoint = e;
  wheel_set(&w->wheel, &u->sock.timer, w->now_ms + LIMIT_CONNECT);
  return u;
}

void upstream_keep(struct worker *w, struct upstream *u) {
  struct endpoint *e = u->endpoint;
  u->exchange = NULL;
  /* Anything there now was sent before we asked: not an answer to what comes next. */
  if (!e->in_table || !is_quiet(&u->sock, false) /* after a splice nobody knows whether more is there */ || u->in_len ||
      e->idle_count >= UPSTREAM_IDLE_MAX || w->stopping) {
    upstream_close(w, u);
    return;
  }
  u->state = UPSTREAM_IDLE;
  u->idle_since = w->now_ms;
  if (!e->keeps_since)
    e->keeps_since = w->now_ms;
  u->idle_prev = NULL;
  u->idle_next = e->idle;
  if (e->idle)
    e->idle->idle_prev = u;
  e->idle = u;
  e->idle_count++;
  wheel_set(&w->wheel, &u->sock.timer, w->now_ms + LIMIT_UPSTREAM_IDLE);
}

void upstream_event(struct worker *w, struct upstream *u) {
  if (u->state == UPSTREAM_IDLE) {
    if (!u->sock.readable && !u->sock.hung_up && !u->sock.failed)
      return;
    if (w->now_ms - u->idle_since < REUSE_UNSAFE_MS)
      u->endpoint->keeps_since = 0;
    upstream_close(w, u);
  } else if (u->exchange) {
    exchange_run(w, u->exchange);
  }
}

void upstream_timeout(struct worker *w, struct upstream *u) {
  if (u->state == UPSTREAM_IDLE)
    upstream_close(w, u);
  else if (u->state == UPSTREAM_CONNECTING && u->exchange)
    exchange_connect_timeout(w, u->exchange);
}
