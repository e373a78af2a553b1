/* One request and its answer.
 *
 *   SENDING ──head and first bytes sent──▶ WAITING ──answer's head──▶ ANSWERING ──both bodies done──▶ gone
 *      ▲  │ failed, may be repeated           │  │                        ▲
 *      └──┴───────────◀───────────────────────┘  └──101 to a WebSocket──▶ TUNNEL ──both ways closed──▶ gone
 *   Any of them: a page of our own (when no head has been passed on) or a cut connection (when one has).
 *
 * Whatever is called here may end the exchange; functions that may say so by returning false, and then nobody touches it. */
#include "orca-proxy/conn.h"

#include <errno.h>
#include <llhttp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define INTERIM_MAX 16 /* 1xx answers to one request */

static bool advance(struct worker *w, struct exchange *x);

static void add(_Atomic uint64_t *counter, uint64_t n) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void count(struct worker *w, const struct exchange *x) {
  struct service_counters *s = counters_of(w, x->service);
  if (!s)
    return;
  add(&s->requests, 1);
  if (x->status >= 500)
    add(&s->errors_5xx, 1);
  else if (x->status >= 400)
    add(&s->errors_4xx, 1);
  add(&s->bytes_in, x->sent + x->body.moved);
  add(&s->bytes_out, x->answer.moved);
  uint64_t us = (uint64_t)((x->head_us ? x->head_us : w->now_us) - x->start_us);
  unsigned bucket = us < 64 ? 0 : 64 - (unsigned)__builtin_clzll(us >> 6);
  add(&s->latency[bucket < WORKER_LATENCY_BUCKETS ? bucket : WORKER_LATENCY_BUCKETS - 1], 1);
}

/* Of the API's own requests: what `orcactl exec` runs is in there, and may hold secrets. */
static struct span without_query(struct span target) {
  const uint8_t *query = memchr(target.at, '?', target.len);
  return query ? (struct span){target.at, (size_t)(query - target.at)} : target;
}

/* "METHOD PATH HTTP/1.1 CR LF Host: HOST CR LF", as serial_request() wrote it. */
static void read_start(const struct exchange *x, struct span *method, struct span *host) {
  const uint8_t *at = x->request->data, *end = at + x->request_len;
  const uint8_t *space = memchr(at, ' ', x->request_len), *cr = memchr(at, '\r', x->request_len);
  if (!space || !cr || end - cr < 8)
    return;
  const uint8_t *name = cr + 8, *name_end = memchr(name, '\r', (size_t)(end - name));
  *method = (struct span){at, (size_t)(space - at)};
  if (name_end)
    *host = (struct span){name, (size_t)(name_end - name)};
}

static void log_exchange(struct worker *w, const struct exchange *x) {
  struct head h;
  const struct table_service *s = table_service(w->table, x->service);
  struct accesslog_entry e = {.client = x->client->ip,
                              .service = s ? s->name : "",
                              .instance = x->endpoint ? x->endpoint->instance : "",
                              .minor = x->minor,
                              .status = x->status,
                              .attempts = x->attempts,
                              .bytes_in = x->sent + x->body.moved,
                              .bytes_out = x->answer.moved,
                              .us = (uint64_t)(w->now_us - x->start_us)};
  if (x->request) {
    read_start(x, &e.method, &e.host);
    e.target = (struct span){x->request->data + BLOCK_SIZE - x->target_len, x->target_len};
    if (s && s == w->table->api)
      e.target = without_query(e.target);
  }
  /* With the fields that were added it may be more than is read of a head: then these two are missing. */
  if (x->request && head_parse_request(&h, x->request->data, x->request_len) == HEAD_OK) {
    e.referer = head_value(&h, FIELD_REFERER);
    e.agent = head_value(&h, FIELD_USER_AGENT);
  }
  accesslog_add(w->shared->log, &e);
}

/* ---- ends ---- */

static void release_endpoint(struct worker *w, struct exchange *x) {
  struct endpoint *e = x->endpoint;
  x->endpoint = NULL;
  if (e)
    endpoint_release(w, e);
}

static void drop_upstream(struct worker *w, struct exchange *x) {
  if (x->up)
    upstream_close(w, x->up);
  x->up = NULL;
}

/* keep_client: as far as the exchange is concerned. */
static void end(struct worker *w, struct exchange *x, bool keep_client) {
  struct client *c = x->client;
  if (x->service != UINT32_MAX)
    count(w, x);
  if (w->shared->log)
    log_exchange(w, x);
  drop_upstream(w, x);
  release_endpoint(w, x);
  flow_fini(w, &x->body);
  flow_fini(w, &x->answer);
  if (x->request)
    block_put(w, x->request);
  x->next = w->free_exchanges;
  w->free_exchanges = x;
  w->free_exchange_count++;
  c->exchange = NULL;
  if (c->sock.closed)
    return;
  client_exchange_done(w, c, keep_client);
}

void exchange_abort(struct worker *w, struct exchange *x) {
  struct client *c = x->client;
  if (!x->status)
    x->status = 499; /* the client closed: for log and counters only */
  c->sock.failed = true;
  end(w, x, false);
}

/* After the head of an answer has been passed on, only a cut connection tells the client that the rest is missing. */
static void cut(struct worker *w, struct exchange *x) {
  struct sock *s = &x->client->sock;
  if (x->state == EXCHANGE_ANSWERING && x->answer.out == BODY_UNTIL_CLOSE) { /* an orderly end would look like the whole: a reset */
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    s->failed = true;
  }
  end(w, x, false);
}

static bool page(struct worker *w, struct exchange *x, unsigned status, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Answers with a page in place of the instance. Always returns false: the exchange is over, or waits only for its page to leave. */
static bool page(struct worker *w, struct exchange *x, unsigned status, const char *fmt, ...) {
  char detail[257];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(detail, sizeof detail, fmt, ap);
  va_end(ap);
  drop_upstream(w, x);
  struct span accept = {NULL, 0};
  if (x->request && head_parse_request(&w->head, x->request->data, x->request_len) == HEAD_OK)
    accept = head_value(&w->head, FIELD_ACCEPT);
  bool complete = x->body.in_done && !flow_blocked(&x->body);
  x->keep_client = x->keep_client && complete && !w->stopping;
  x->keep_up = false;
  x->status = status;
  x->head_us = w->now_us;
  size_t n = page_write(w->out, status, detail, w->shared->node, accept, x->to_head, x->keep_client);
  flow_start(&x->answer, NULL, &x->client->sock, BODY_NONE, BODY_NONE, 0);
  x->body.state = FLOW_DONE; /* what has not been read of the request is not going anywhere */
  x->state = EXCHANGE_ANSWERING;
  size_t used;
  if (n == 0 || flow_feed(w, &x->answer, w->out, n, NULL, 0, &used) != FLOW_OK) {
    exchange_abort(w, x);
    return false;
  }
  advance(w, x);
  return false;
}

/* ---- to an instance ---- */

static struct balance_endpoint *balance_of(void *arg, size_t i) {
  void **a = arg;
  struct endpoint *e = endpoint_of(a[0], (const struct table_endpoint *)a[1] + i);
  return e ? &e->balance : NULL;
}

static unsigned tried_indexes(const struct exchange *x, const struct table_endpoint *list, uint32_t count_, int32_t *ret) {
  unsigned n = 0;
  for (unsigned k = 0; k < x->tried_count; k++)
    for (uint32_t i = 0; i < count_; i++)
      if (n < BALANCE_ATTEMPTS && (int32_t)list[i].slot == x->tried[k])
        ret[n++] = (int32_t)i;
  return n;
}

static bool send_request(struct worker *w, struct exchange *x);
static bool failed(struct worker *w, struct exchange *x, enum balance_failure failure, unsigned status, const char *what);

static bool connect_somewhere(struct worker *w, struct exchange *x) {
  const struct table_service *s = table_service(w->table, x->service);
  if (!s || s->count == 0)
    return page(w, x, 503, s ? "no instance of %s is ready" : "%s is gone", s ? s->name : "the service");
  const struct table_endpoint *list = w->table->endpoints + s->first;
  int32_t tried[BALANCE_ATTEMPTS];
  unsigned tried_count = x->tried_count ? tried_indexes(x, list, s->count, tried) : 0;
  int i = s->count == 1 && !tried_count
              ? 0
              : balance_pick(balance_of, (void *[]){w, (void *)(uintptr_t)list}, s->count, w->turn++, tried, tried_count, w->now_ms);
  if (i < 0 && x->attempts < BALANCE_ATTEMPTS) /* all have been tried: a kept connection that had ended says nothing about its instance */
    i = balance_pick(balance_of, (void *[]){w, (void *)(uintptr_t)list}, s->count, w->turn++, NULL, 0, w->now_ms);
  struct endpoint *e = i < 0 ? NULL : endpoint_of(w, &list[i]);
  if (!e)
    return page(w, x, 503, "out of memory");
  x->tried[x->tried_count++] = (int32_t)e->slot;
  x->attempts++;
  e->balance.outstanding++;
  x->endpoint = e;
  int sys_errno;
  x->up = upstream_get(w, e, x->idempotent && x->attempts == 1, &sys_errno);
  if (!x->up && (sys_errno == EMFILE || sys_errno == ENFILE || sys_errno == ENOMEM)) /* no fault of the instance, and no other would do */
    return page(w, x, 503, "%s", strerrordesc_np(sys_errno));
  if (!x->up)
    return failed(w, x, FAILED_TO_CONNECT, 502, strerrordesc_np(sys_errno));
  x->up->exchange = x;
  x->state = EXCHANGE_SENDING;
  x->sent = 0;
  x->progress_ms = w->now_ms;
  return send_request(w, x);
}

/* The attempt has failed: another one, or a page. Returns whether the exchange goes on. */
static bool failed(struct worker *w, struct exchange *x, enum balance_failure failure, unsigned status, const char *what) {
  struct endpoint *e = x->endpoint;
  bool stale = x->up && x->up->reused && failure == FAILED_UNANSWERED; /* closed while it was idle: no fault of the instance */
  if (stale)
    e->keeps_since = 0;
  else
    balance_failed(&e->balance, w->now_ms);
  char instance[160];
  snprintf(instance, sizeof instance, "%s", e->instance);
  bool again = balance_may_retry(failure, x->attempts, x->idempotent, x->replayable, x->sent > 0) && !x->client->sock.failed;
  drop_upstream(w, x);
  if (again) {
    struct client *c = x->client;
    release_endpoint(w, x);
    if (!connect_somewhere(w, x))
      return false;
    worker_again(w, c); /* a kept connection has no event to tell that it takes the rest of the body */
    return true;
  }
  return page(w, x, status, "%s: %s", instance, what);
}

/* Sends what is at hand; goes on to WAITING when all of it has left. */
static bool send_request(struct worker *w, struct exchange *x) {
  struct upstream *u = x->up;
  while (x->sent < x->request_len) {
    struct iovec iov = {.iov_base = x->request->data + x->sent, .iov_len = x->request_len - x->sent};
    ssize_t n = u->sock.writable && !u->sock.failed ? sock_write(&u->sock, &iov, 1, false) : u->sock.failed ? -1 : 0;
    if (n < 0)
      return failed(w, x, u->state == UPSTREAM_CONNECTING ? FAILED_TO_CONNECT : FAILED_UNANSWERED, 502,
                    u->state == UPSTREAM_CONNECTING ? "the connection was refused" : "the connection was closed");
    if (n == 0)
      return true;
    if (u->state == UPSTREAM_CONNECTING) {
      u->state = UPSTREAM_BUSY;
      wheel_clear(&u->sock.timer);
    }
    x->sent += (size_t)n;
    x->progress_ms = w->now_ms;
  }
  x->state = EXCHANGE_WAITING;
  x->body.to = &u->sock;
  /* What the attempt before had read of the body, and not sent, is sent now. */
  x->body.state = x->body.in_done && !flow_blocked(&x->body) ? FLOW_DONE : FLOW_ON;
  x->answer_by_ms = w->now_ms + (int64_t)x->timeout_ms;
  return true;
}

/* ---- the answer ---- */

static void release_request(struct worker *w, struct exchange *x) {
  if (x->request && !w->shared->log) {
    block_put(w, x->request);
    x->request = NULL;
  }
}

/* Returns whether the exchange goes on; a failure of the client's connection ends it. */
static bool pass_on(struct worker *w, struct exchange *x, size_t head_len, uint8_t *rest, size_t len) {
  size_t used;
  switch (flow_feed(w, &x->answer, w->out, head_len, rest, len, &used)) {
  case FLOW_OK:
    if (used < len)
      x->keep_up = false; /* more than an answer: whatever that is, it is not for the next client */
    return true;
  case FLOW_TO_FAILED:
    exchange_abort(w, x);
    return false;
  case FLOW_BAD:
  case FLOW_FROM_FAILED:
    break;
  }
  cut(w, x);
  return false;
}

static bool start_tunnel(struct worker *w, struct exchange *x, const struct head *h, uint8_t *rest, size_t len) {
  struct span accept = head_value(h, FIELD_WS_ACCEPT);
  if (!x->websocket || !h->upgrade_websocket || !span_is(accept, x->ws_accept))
    return page(w, x, 502, "%s: it switched protocols, but not to the WebSocket that was asked for", x->endpoint->instance);
  struct serial_answer how = {.keep_alive = true};
  size_t n = serial_answer(w->out, BLOCK_SIZE, h, &how);
  struct client *c = x->client;
  flow_start(&x->answer, &x->up->sock, &c->sock, BODY_RAW, BODY_RAW, 0);
  flow_start(&x->body, &c->sock, &x->up->sock, BODY_RAW, BODY_RAW, 0);
  x->state = EXCHANGE_TUNNEL;
  x->status = 101;
  x->head_us = w->now_us;
  x->keep_client = x->keep_up = false;
  if (n == 0) {
    cut(w, x);
    return false;
  }
  if (!pass_on(w, x, n, rest, len))
    return false;
  release_request(w, x);
  if (c->in_len) { /* frames the client has sent ahead */
    size_t used, ahead = c->in_len;
    c->in_len = 0;
    if (flow_feed(w, &x->body, NULL, 0, c->in->data, ahead, &used) != FLOW_OK) {
      cut(w, x);
      return false;
    }
  }
  return true;
}

static bool final_answer(struct worker *w, struct exchange *x, const struct head *h, uint8_t *rest, size_t len) {
  x->status = h->status;
  x->head_us = w->now_us;
  balance_answered(&x->endpoint->balance);
  x->endpoint->big = h->body == BODY_LENGTH && h->length >= SPLICE_MIN;
  x->keep_up = h->keep_alive;
  x->length_known = h->body == BODY_LENGTH || h->body == BODY_NONE;
  struct client *c = x->client;
  enum body_kind out = h->body;
  if (!x->length_known)
    out = x->minor == 0 ? BODY_UNTIL_CLOSE : BODY_CHUNKED;
  /* A request that is still on its way when its answer begins may never end: the connection is not kept for another. */
  x->keep_client = x->keep_client && out != BODY_UNTIL_CLOSE && x->body.in_done && !c->sock.hung_up && !w->stopping;
  struct serial_answer how = {.http10 = x->minor == 0, .keep_alive = x->keep_client, .body = out};
  size_t n = serial_answer(w->out, BLOCK_SIZE, h, &how);
  if (n == 0)
    return page(w, x, 502, "%s: the head of its answer is too large", x->endpoint->instance);
  flow_start(&x->answer, &x->up->sock, &c->sock, h->body, out, h->length);
  x->state = EXCHANGE_ANSWERING;
  if (!pass_on(w, x, n, rest, len))
    return false;
  if (x->body.state == FLOW_DONE)
    release_request(w, x);
  return true;
}

/* 100 Continue and its like: to clients that know them, and 100 only when it was asked for. */
static bool interim_answer(struct worker *w, struct exchange *x, const struct head *h) {
  if (++x->interim > INTERIM_MAX)
    return page(w, x, 502, "%s: too many interim answers", x->endpoint->instance);
  if (x->minor == 0 || (h->status == 100 && !x->expects_continue))
    return true;
  struct serial_answer how = {.keep_alive = true};
  size_t n = serial_answer(w->out, BLOCK_SIZE, h, &how);
  if (n == 0 || flow_blocked(&x->answer))
    return true; /* they are hints: a client that does not read the first loses the next */
  flow_start(&x->answer, &x->up->sock, &x->client->sock, BODY_LENGTH, BODY_LENGTH, 0);
  return pass_on(w, x, n, NULL, 0);
}

static bool answer_failed(struct worker *w, struct exchange *x) {
  bool nothing = x->up->in_len == 0 && x->interim == 0;
  return failed(w, x, nothing ? FAILED_UNANSWERED : FAILED_ANSWER, 502,
                nothing ? "the connection was closed without an answer" : "the connection was closed within the answer's head");
}

/* Reads until the head of the final answer is there. Returns whether the exchange goes on. */
static bool read_answer(struct worker *w, struct exchange *x) {
  while (x->state == EXCHANGE_WAITING && x->up->sock.readable) {
    struct upstream *u = x->up;
    uint8_t *data = u->in ? u->in->data : w->in;
    size_t have = u->in_len, room = HEAD_MAX - have;
    if (!have && x->endpoint->big)
      room = 8192; /* the rest is spliced; after a smaller first read the splice costs twice as much (measured) */
    ssize_t n = sock_read(&u->sock, data + have, room);
    if (n <= 0) {
      if (n < 0 && !u->sock.failed)
        return true;
      return answer_failed(w, x);
    }
    size_t len = have + (size_t)n;
    if (have && !head_may_be_complete(data, len, have) && len < HEAD_MAX) {
      u->in_len = len;
      continue;
    }
    for (enum head_result r = HEAD_OK; r == HEAD_OK && x->state == EXCHANGE_WAITING;) {
      r = len ? head_parse_answer(&w->head, data, len, x->to_head) : HEAD_PARTIAL;
      if (r == HEAD_BAD) {
        balance_failed(&x->endpoint->balance, w->now_ms);
        return page(w, x, 502, "%s: its answer is not valid HTTP: %s", x->endpoint->instance, w->head.why);
      }
      if (r == HEAD_PARTIAL)
        break;
      uint8_t *rest = data + w->head.size;
      size_t rest_len = len - w->head.size;
      u->in_len = 0;
      if (w->head.status == 101) {
        if (!start_tunnel(w, x, &w->head, rest, rest_len))
          return false;
      } else if (w->head.status >= 200) {
        if (!final_answer(w, x, &w->head, rest, rest_len))
          return false;
      } else if (!interim_answer(w, x, &w->head)) {
        return false;
      }
      data = rest;
      len = rest_len;
    }
    if (x->state != EXCHANGE_WAITING) {
      if (u->in)
        block_put(w, u->in);
      u->in = NULL;
      return true;
    }
    if (len && !u->in && !(u->in = block_get(w)))
      return page(w, x, 503, "out of memory");
    if (len)
      memmove(u->in->data, data, len);
    u->in_len = len;
  }
  return true;
}

/* ---- moving on ---- */

/* The request's body. Returns whether the exchange goes on. */
static bool pump_body(struct worker *w, struct exchange *x, bool *more) {
  uint64_t before = x->body.moved;
  enum flow_result r = flow_pump(w, &x->body, more);
  if (x->body.moved != before) {
    x->replayable = false;
    x->answer_by_ms = w->now_ms + (int64_t)x->timeout_ms;
  }
  switch (r) {
  case FLOW_OK:
    return true;
  case FLOW_FROM_FAILED:
    exchange_abort(w, x);
    return false;
  case FLOW_BAD:
    if (x->state == EXCHANGE_WAITING && x->body.limit && x->body.decoded > x->body.limit)
      return page(w, x, 413, "the body is larger than this service takes");
    if (x->state == EXCHANGE_WAITING)
      return page(w, x, 400, "malformed chunked body");
    cut(w, x);
    return false;
  case FLOW_TO_FAILED:
    /* It may have answered without reading all: what it said still counts. */
    x->replayable = false;
    x->body.state = FLOW_DONE;
    x->keep_client = x->keep_up = false;
    return true;
  }
  return true;
}

static bool pump_answer(struct worker *w, struct exchange *x, bool *more) {
  switch (flow_pump(w, &x->answer, more)) {
  case FLOW_OK:
    return true;
  case FLOW_TO_FAILED:
    exchange_abort(w, x);
    return false;
  case FLOW_FROM_FAILED:
  case FLOW_BAD:
    break;
  }
  cut(w, x);
  return false;
}

static bool pump_tunnel(struct worker *w, struct exchange *x, bool *more) {
  struct flow *flows[2] = {&x->body, &x->answer};
  for (int i = 0; i < 2; i++) {
    if (flows[i]->state != FLOW_ON)
      continue;
    if (flow_pump(w, flows[i], more) != FLOW_OK) {
      cut(w, x);
      return false;
    }
    if (flows[i]->state == FLOW_DONE)
      sock_end(flows[i]->to);
  }
  if (x->body.state == FLOW_DONE && x->answer.state == FLOW_DONE) {
    end(w, x, false);
    return false;
  }
  return true;
}

/* What ends when nothing moves, and when. */
static int64_t deadline_of(const struct exchange *x) {
  int64_t patience = (int64_t)x->timeout_ms;
  switch (x->state) {
  case EXCHANGE_SENDING:
    return x->progress_ms + patience;
  case EXCHANGE_WAITING:
    if (x->body.state == FLOW_DONE || (x->expects_continue && !x->interim && !x->body.moved))
      return x->answer_by_ms;
    return x->progress_ms + (flow_blocked(&x->body) ? patience : LIMIT_STALL);
  case EXCHANGE_ANSWERING:
    if (flow_blocked(&x->answer))
      return x->progress_ms + LIMIT_STALL;
    return x->progress_ms + (x->length_known && x->body.state == FLOW_DONE ? patience : LIMIT_STREAM);
  case EXCHANGE_TUNNEL:
    break;
  }
  return x->progress_ms + LIMIT_STREAM;
}

void exchange_timeout(struct worker *w, struct exchange *x) {
  const char *instance = x->endpoint ? x->endpoint->instance : "?";
  if (x->state == EXCHANGE_SENDING || (x->state == EXCHANGE_WAITING && deadline_of(x) == x->answer_by_ms) ||
      (x->state == EXCHANGE_WAITING && flow_blocked(&x->body)))
    page(w, x, 504, "%s: no answer within %llu ms", instance, (unsigned long long)x->timeout_ms);
  else if (x->state == EXCHANGE_WAITING)
    page(w, x, 408, "the body of the request did not come");
  else
    cut(w, x);
}

void exchange_connect_timeout(struct worker *w, struct exchange *x) {
  if (failed(w, x, FAILED_TO_CONNECT, 504, "no connection within 2 s"))
    advance(w, x);
}

static bool advance(struct worker *w, struct exchange *x) {
  bool more = false;
  struct client *c = x->client;
  if (c->sock.failed) {
    exchange_abort(w, x);
    return false;
  }
  if (x->state == EXCHANGE_SENDING && !send_request(w, x))
    return false;
  if (x->state == EXCHANGE_WAITING || x->state == EXCHANGE_ANSWERING)
    if (x->body.state == FLOW_ON && !pump_body(w, x, &more))
      return false;
  if (x->state == EXCHANGE_WAITING && !read_answer(w, x))
    return false;
  if (x->state == EXCHANGE_ANSWERING) {
    if (!pump_answer(w, x, &more))
      return false;
    if (x->answer.state == FLOW_DONE) {
      bool complete = x->body.state == FLOW_DONE && x->body.in_done;
      if (x->up && x->keep_up && complete && !x->answer.ended_by_eof && !x->answer.excess) {
        upstream_keep(w, x->up);
        x->up = NULL;
      }
      end(w, x, x->keep_client && complete);
      return false;
    }
    /* Nobody is there any more to read a stream that may go on for ever. */
    if (!x->length_known && c->sock.hung_up && !flow_blocked(&x->answer)) {
      exchange_abort(w, x);
      return false;
    }
  }
  if (x->state == EXCHANGE_TUNNEL && !pump_tunnel(w, x, &more))
    return false;
  if (more)
    worker_again(w, c);
  uint64_t mark = x->body.moved + x->answer.moved;
  if (mark != x->progress_mark) {
    x->progress_mark = mark;
    x->progress_ms = w->now_ms;
  }
  wheel_set(&w->wheel, &c->sock.timer, deadline_of(x));
  return true;
}

void exchange_run(struct worker *w, struct exchange *x) {
  advance(w, x);
}

/* ---- begin ---- */

/* RFC 6455 section 4.2.2, point 5.4. */
static void websocket_accept(struct span key, char out[29]) {
  static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  uint8_t text[24 + sizeof guid - 1], digest[SHA_DIGEST_LENGTH];
  memcpy(text, key.at, 24);
  memcpy(text + 24, guid, sizeof guid - 1);
  SHA1(text, sizeof text, digest);
  EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest);
}

void exchange_refuse(struct worker *w, struct client *c, const struct head *h, unsigned status, const char *why) {
  bool keep = h && h->keep_alive && h->body == BODY_NONE && status != 400 && !w->stopping;
  struct span accept = h ? head_value(h, FIELD_ACCEPT) : (struct span){NULL, 0};
  size_t n = page_write(w->out, status, why, w->shared->node, accept, h && h->method_id == HTTP_HEAD, keep);
  struct iovec iov = {.iov_base = w->out, .iov_len = n};
  ssize_t sent = sock_write(&c->sock, &iov, 1, false);
  if (w->shared->log) {
    struct accesslog_entry e = {
        .client = c->ip, .service = "", .instance = "", .minor = h ? h->minor : 1, .status = status, .bytes_out = n, .attempts = 0};
    if (h) {
      e.method = h->method;
      e.host = h->host;
      e.target = c->front == FRONT_API ? without_query(h->target) : h->target;
    }
    accesslog_add(w->shared->log, &e);
  }
  if (sent == (ssize_t)n && keep)
    client_exchange_done(w, c, true);
  else if (sent == (ssize_t)n)
    client_linger(w, c);
  else
    client_close(w, c);
}

static struct exchange *new_exchange(struct worker *w) {
  struct exchange *x = w->free_exchanges;
  if (x) {
    w->free_exchanges = x->next;
    w->free_exchange_count--;
    *x = (struct exchange){0};
  } else if (!(x = calloc(1, sizeof *x))) {
    return NULL;
  }
  x->request = block_get(w);
  if (x->request)
    return x;
  x->next = w->free_exchanges;
  w->free_exchanges = x;
  w->free_exchange_count++;
  return NULL;
}

static void discard(struct worker *w, struct exchange *x) {
  flow_fini(w, &x->body);
  block_put(w, x->request);
  x->next = w->free_exchanges;
  w->free_exchanges = x;
  w->free_exchange_count++;
}

static struct exchange *refused(unsigned *ret, const char **ret_why, unsigned status, const char *why) {
  *ret = status;
  *ret_why = why;
  return NULL;
}

struct exchange *exchange_new(struct worker *w, struct client *c, const struct head *h, uint8_t *rest, size_t len, size_t *used, unsigned *status,
                              const char **why) {
  static const char too_large[] = "the body is larger than this service takes";
  struct target t;
  *used = 0;
  if (h->method_id == HTTP_CONNECT || h->method_id == HTTP_TRACE)
    return refused(status, why, 405, "CONNECT and TRACE are not spoken here");
  if (!target_parse(&t, h, w->path, why))
    return refused(status, why, 400, *why);
  struct table_match m = {.service = w->table->api};
  if (c->front == FRONT_HTTP)
    m = table_lookup(w->table, t.host, t.host_len, t.path);
  const struct table_service *s = m.service;
  if (!s)
    return refused(status, why, 404, m.host_known ? "no service has a route to this path" : "no service has this host name");
  if (h->body == BODY_LENGTH && h->length > s->max_body)
    return refused(status, why, 413, too_large);
  struct exchange *x = new_exchange(w);
  if (!x)
    return refused(status, why, 503, "out of memory");
  struct serial_peer peer = {.ip = c->ip,
                             .ip_len = c->ip_len,
                             .is_v6 = c->is_v6,
                             .trusted =
                                 c->front == FRONT_HTTP && w->table->trusted_count && cidr_has(w->table->trusted, w->table->trusted_count, c->addr),
                             .proto = c->sock.tls ? "https" : "http"};
  struct span path = s->strip_prefix && t.path.at[0] == '/' ? target_strip(t.path, m.prefix_len) : t.path;
  x->request_len = serial_request(x->request->data, SERIAL_MAX, h, &t, path, &peer);
  if (!x->request_len) {
    discard(w, x);
    return refused(status, why, 431, "the head is too large");
  }
  x->body.limit = h->body == BODY_CHUNKED ? s->max_body : 0;
  flow_start(&x->body, &c->sock, NULL, h->body, h->body, h->length);
  x->body.state = FLOW_OFF;
  bool bad;
  x->request_len += flow_encode(&x->body, x->request->data + x->request_len, BLOCK_SIZE - HEAD_MAX - x->request_len, rest, len, used, &bad);
  if (bad) {
    bool over = x->body.limit && x->body.decoded > x->body.limit;
    discard(w, x);
    return over ? refused(status, why, 413, too_large) : refused(status, why, 400, "malformed chunked body");
  }
  if (w->shared->log) {
    x->target_len = h->target.len;
    memcpy(x->request->data + BLOCK_SIZE - h->target.len, h->target.at, h->target.len);
  }
  x->client = c;
  x->minor = h->minor;
  x->to_head = h->method_id == HTTP_HEAD;
  x->idempotent = h->idempotent;
  x->expects_continue = h->expects_continue;
  x->websocket = h->upgrade_websocket;
  x->replayable = true;
  x->keep_client = h->keep_alive;
  x->service = s->id;
  x->timeout_ms = s->timeout_ms;
  x->start_us = w->now_us;
  x->progress_ms = w->now_ms;
  if (x->websocket)
    websocket_accept(head_value(h, FIELD_WS_KEY), x->ws_accept);
  return x;
}

void exchange_begin(struct worker *w, struct exchange *x) {
  x->client->exchange = x;
  if (connect_somewhere(w, x))
    advance(w, x);
}
