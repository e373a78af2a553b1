#include "orca-proxy/conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_BYTES ((size_t)1 << 20) /* read away before a connection is closed on a client that still sends */

static void leave_idle_ring(struct client *c) {
  if (!c->idle_next)
    return;
  c->idle_next->idle_prev = c->idle_prev;
  c->idle_prev->idle_next = c->idle_next;
  c->idle_next = c->idle_prev = NULL;
}

static void enter_ring(struct client *ring, struct client *c) {
  c->idle_next = ring;
  c->idle_prev = ring->idle_prev;
  ring->idle_prev->idle_next = c;
  ring->idle_prev = c;
}

static void become_idle(struct worker *w, struct client *c) {
  c->state = CLIENT_IDLE;
  leave_idle_ring(c);
  enter_ring(&w->idle, c);
  wheel_set(&w->wheel, &c->sock.timer, w->now_ms + (w->draining ? LIMIT_DRAIN_IDLE : LIMIT_IDLE));
}

void client_drain(struct worker *w) {
  for (struct client *c = w->idle.idle_next; c != &w->idle; c = c->idle_next)
    wheel_set(&w->wheel, &c->sock.timer, w->now_ms + LIMIT_DRAIN_IDLE);
}

void client_close(struct worker *w, struct client *c) {
  if (c->sock.closed)
    return;
  leave_idle_ring(c);
  if (c->state == CLIENT_HANDSHAKE)
    w->shaking_count--;
  if (c->in)
    block_put(w, c->in);
  c->in = NULL;
  c->in_len = 0;
  sock_close(w, &c->sock);
  atomic_store_explicit(&w->clients, atomic_load_explicit(&w->clients, memory_order_relaxed) - 1, memory_order_relaxed);
}

/* Closes in a way that lets our last words arrive: a close with unread bytes would be a reset (RFC 9112 section 9.6). */
void client_linger(struct worker *w, struct client *c) {
  if (c->in)
    block_put(w, c->in);
  c->in = NULL;
  c->in_len = 0;
  if (c->sock.failed || c->sock.closed || (w->stopping && !w->draining)) {
    client_close(w, c);
    return;
  }
  leave_idle_ring(c);
  c->state = CLIENT_LINGER;
  sock_end(&c->sock);
  wheel_set(&w->wheel, &c->sock.timer, w->now_ms + LIMIT_LINGER);
  if (!c->running)
    client_run(w, c);
}

static void read_away(struct worker *w, struct client *c) {
  while (c->sock.readable) {
    ssize_t n = sock_read(&c->sock, w->in, IO_MAX);
    if (n < 0 && !c->sock.failed)
      return;
    if (n <= 0 || (c->lingered += (size_t)n) > LINGER_BYTES) {
      client_close(w, c);
      return;
    }
  }
}

void client_exchange_done(struct worker *w, struct client *c, bool keep) {
  if (c->sock.failed) {
    client_close(w, c);
    return;
  }
  if (!keep) {
    if (c->sock.hung_up && !c->sock.readable)
      client_close(w, c);
    else
      client_linger(w, c);
    return;
  }
  become_idle(w, c);
  if (!c->running && (c->in_len || c->sock.readable))
    client_run(w, c);
}

/* What the client has sent beyond the request at hand waits in its block. */
static bool put_by(struct worker *w, struct client *c, const uint8_t *data, size_t len) {
  c->in_len = len;
  c->in_seen = 0;
  if (len == 0) {
    if (c->in)
      block_put(w, c->in);
    c->in = NULL;
    return true;
  }
  if (!c->in && !(c->in = block_get(w))) {
    c->in_len = 0;
    return false;
  }
  assert(data);
  memmove(c->in->data, data, len);
  return true;
}

static void start_request(struct worker *w, struct client *c, uint8_t *rest, size_t len) {
  leave_idle_ring(c);
  c->state = CLIENT_BUSY;
  size_t used;
  unsigned status;
  const char *why;
  struct exchange *x = exchange_new(w, c, &w->head, rest, len, &used, &status, &why);
  if (!x) {
    exchange_refuse(w, c, &w->head, status, why);
    if (c->state == CLIENT_IDLE && !c->sock.closed && !put_by(w, c, rest, len))
      client_close(w, c);
    return;
  }
  if (!put_by(w, c, rest + used, len - used))
    c->sock.failed = true; /* no memory for what was sent ahead: the connection goes, with all on it */
  exchange_begin(w, x);
}

/* Reads and starts one request. Returns false when there is nothing to go on with. */
static bool next_request(struct worker *w, struct client *c) {
  uint8_t *data;
  size_t len;
  if (c->in_seen < c->in_len) {
    data = c->in->data; /* sent ahead */
    len = c->in_len;
  } else if (!c->sock.readable) {
    return false;
  } else {
    size_t have = c->in_len;
    data = have ? c->in->data : w->in;
    ssize_t n = sock_read(&c->sock, data + have, HEAD_MAX - have);
    if (n <= 0) {
      if (n == 0 || c->sock.failed)
        client_close(w, c);
      return false;
    }
    len = have + (size_t)n;
    if (have) {
      c->in_len = len;
      if (!head_may_be_complete(data, len, have) && len < HEAD_MAX) {
        c->in_seen = len;
        return true;
      }
    }
  }
  switch (head_parse_request(&w->head, data, len)) {
  case HEAD_OK:
    start_request(w, c, data + w->head.size, len - w->head.size);
    return true;
  case HEAD_BAD:
    exchange_refuse(w, c, NULL, (unsigned)w->head.bad_status, w->head.why ? w->head.why : "not an HTTP request");
    return false;
  case HEAD_PARTIAL:
    break;
  }
  if (data == w->in && !put_by(w, c, data, len)) {
    client_close(w, c);
    return false;
  }
  c->in_seen = len;
  if (c->state == CLIENT_IDLE) {
    leave_idle_ring(c);
    c->state = CLIENT_HEAD;
    enter_ring(&w->heads, c);
    wheel_set(&w->wheel, &c->sock.timer, w->now_ms + LIMIT_HEAD);
  }
  return true;
}

/* ---- TLS ---- */

#define TLS_HANDSHAKE 0x16 /* the first byte of whoever speaks TLS (RFC 8446 section 5.1) */

static void leave_handshake(struct worker *w, struct client *c) {
  w->shaking_count--;
  become_idle(w, c);
}

/* Whoever speaks HTTP in the clear hears so in the clear. Returns whether the handshake goes on. */
static bool says_hello(struct worker *w, struct client *c) {
  uint8_t first;
  ssize_t n = recv(c->sock.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    c->sock.readable = false;
    return false;
  }
  if (n == 1 && first == TLS_HANDSHAKE) {
    c->hello = true;
    return true;
  }
  if (n == 1 && first >= 'A' && first <= 'Z') {
    tls_stream_free(c->sock.tls);
    c->sock.tls = NULL;
    leave_handshake(w, c);
    exchange_refuse(w, c, NULL, 400, "this port speaks TLS: the address begins with https://");
    return false;
  }
  client_close(w, c);
  return false;
}

static bool shake_hands(struct worker *w, struct client *c) {
  if (c->sock.failed) {
    client_close(w, c);
    return false;
  }
  if (!c->hello && !says_hello(w, c))
    return c->state != CLIENT_HANDSHAKE;
  const char *why;
  switch (tls_handshake(c->sock.tls, &why)) {
  case 1:
    leave_handshake(w, c);
    return true;
  case 0:
    c->sock.readable = c->sock.writable = false;
    return false;
  default:
    client_close(w, c);
    return false;
  }
}

static void begin_handshake(struct worker *w, struct client *c) {
  if (w->shaking_count >= HANDSHAKES_MAX)
    client_close(w, w->shaking.idle_next);
  w->shaking_count++;
  c->state = CLIENT_HANDSHAKE;
  enter_ring(&w->shaking, c);
  wheel_set(&w->wheel, &c->sock.timer, w->now_ms + LIMIT_HANDSHAKE);
}

/* ---- events ---- */

void client_run(struct worker *w, struct client *c) {
  if (c->running || c->sock.closed)
    return;
  c->running = true;
  bool more = true;
  for (unsigned turn = 0; more && !c->sock.closed; turn++) {
    switch (c->state) {
    case CLIENT_HANDSHAKE:
      more = shake_hands(w, c);
      break;
    case CLIENT_IDLE:
    case CLIENT_HEAD:
      if (c->sock.failed)
        client_close(w, c);
      else if (turn == PUMP_ROUNDS)
        worker_again(w, c);
      else
        more = next_request(w, c);
      more = more && turn < PUMP_ROUNDS && c->state != CLIENT_BUSY;
      break;
    case CLIENT_BUSY:
      exchange_run(w, c->exchange);
      more = c->state == CLIENT_IDLE || c->state == CLIENT_LINGER;
      break;
    case CLIENT_LINGER:
      read_away(w, c);
      more = false;
      break;
    }
  }
  c->running = false;
}

void client_timeout(struct worker *w, struct client *c) {
  switch (c->state) {
  case CLIENT_HEAD:
    exchange_refuse(w, c, NULL, 408, "the head of the request did not come within 10 s");
    break;
  case CLIENT_BUSY:
    exchange_timeout(w, c->exchange);
    break;
  case CLIENT_IDLE:
    if (w->draining)
      client_linger(w, c);
    else
      client_close(w, c);
    break;
  case CLIENT_HANDSHAKE:
  case CLIENT_LINGER:
    client_close(w, c);
    break;
  }
}

void client_accept(struct worker *w, int fd, const struct sockaddr *peer, enum front front) {
  struct client *c = calloc(1, sizeof *c);
  if (!c || !cidr_addr(peer, c->addr)) {
    free(c);
    close(fd);
    return;
  }
  c->sock = (struct sock){.kind = SOCK_CLIENT, .fd = fd, .readable = true, .writable = true};
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  c->is_v6 = memcmp(c->addr, mapped, sizeof mapped) != 0;
  inet_ntop(c->is_v6 ? AF_INET6 : AF_INET, c->is_v6 ? c->addr : c->addr + 12, c->ip, sizeof c->ip);
  c->ip_len = (uint8_t)strlen(c->ip);
  c->front = front;
  if (front == FRONT_API)
    c->sock.tls = w->tls ? tls_stream_new(w->tls, fd) : NULL;
  if ((front == FRONT_API && !c->sock.tls) || sock_register(w, &c->sock) < 0) {
    tls_stream_free(c->sock.tls);
    close(fd);
    free(c);
    return;
  }
  atomic_store_explicit(&w->clients, atomic_load_explicit(&w->clients, memory_order_relaxed) + 1, memory_order_relaxed);
  if (c->sock.tls)
    begin_handshake(w, c);
  else
    become_idle(w, c);
  client_run(w, c);
}
