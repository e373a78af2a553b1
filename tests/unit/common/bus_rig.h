/* The two sides of a conversation over a real socket, in one process and one loop (or two, where a side has to freeze), CURVE and all. The server
 * answers by the text it is sent: "echo", "fail", "large", "stream"; whatever else it keeps. What comes of it all is counted in the world. */
#ifndef ORCA_TESTS_UNIT_COMMON_BUS_RIG_H
#define ORCA_TESTS_UNIT_COMMON_BUS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "proto/bus.pb-c.h"

#define BEAT (150 * NS_PER_MS)
static int64_t beat = BEAT;

/* Any message will do as a body: text travels in Header.message. */
static inline Bus__Header text_message(const char *text) {
  Bus__Header m = BUS__HEADER__INIT;
  m.message = (char *)(uintptr_t)text;
  return m;
}

static inline void read_text(const uint8_t *body, size_t len, char out[256]) {
  Bus__Header *m = (Bus__Header *)pb_unpack(&bus__header__descriptor, body, len, NULL);
  assert_non_null(m);
  snprintf(out, 256, "%s", PB_STR(m->message));
  bus__header__free_unpacked(m, NULL);
}

struct side {
  struct loop *loop;
  struct bus *bus;
  struct bus_key_pair keys;
  struct bus_conn *peer; /* the listener's newest */
  unsigned ups, downs, reports;
  enum err_code down_code;
  char who[64];
};

struct world {
  struct loop *loop;
  struct side server, client;
  struct bus_listener *listener;
  struct bus_conn *conn;
  bool allow;
  /* the server's answers */
  struct bus_call *kept;
  unsigned cancelled, ready, pushed, to_push, cancelled_by_reply;
  bool pushing;
  /* the client's calls */
  unsigned done, failed, items, hold_at;
  enum err_code code;
  char text[256];
  struct bus_call *call;
};

static inline void on_report(void *arg, const char *peer, const char *what) {
  struct side *side = arg;
  assert_true(peer[0] && what[0]);
  side->reports++;
}

static inline bool allow(void *arg, const char *key, char who[64], uint64_t *tag) {
  struct world *w = arg;
  if (!w->allow || strcmp(key, w->client.keys.public_key) != 0)
    return false;
  snprintf(who, 64, "client@test");
  *tag = 42;
  return true;
}

static inline void server_up(void *arg, struct bus_conn *conn) {
  struct world *w = arg;
  w->server.ups++;
  w->server.peer = conn;
  assert_string_equal(bus_peer_name(conn), "client@test");
  assert_string_equal(bus_peer_key(conn), w->client.keys.public_key);
  assert_int_equal(bus_peer_tag(conn), 42);
}

static inline void server_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct world *w = arg;
  w->server.downs++;
  w->server.down_code = why->code;
  if (w->server.peer == conn)
    w->server.peer = NULL;
}

static inline void answer_cancelled(void *arg) {
  struct world *w = arg;
  w->cancelled++;
  if (w->cancelled_by_reply)
    bus_reply(w->kept, NULL); /* too late, and harmless */
  w->kept = NULL;
}

static inline void push_all(struct world *w) {
  while (w->pushed < w->to_push) {
    char text[32];
    snprintf(text, sizeof text, "%u", w->pushed);
    Bus__Header m = text_message(text);
    int rc = bus_push(w->kept, &m.base);
    assert_true(rc >= 0);
    if (rc == 1)
      return;
    w->pushed++;
  }
  struct bus_call *call = w->kept;
  w->kept = NULL;
  Bus__Header end = text_message("end");
  bus_reply(call, &end.base);
}

static inline void answer_ready(void *arg) {
  struct world *w = arg;
  w->ready++;
  push_all(w);
}

static const struct bus_answer_ops answer_ops = {answer_cancelled, answer_ready};

static inline void server_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct world *w = arg;
  char text[256];
  read_text(body, len, text);
  assert_ptr_equal(bus_call_conn(call), conn);
  if (strcmp(text, "echo") == 0) {
    Bus__Header m = text_message("echoed");
    bus_reply(call, &m.base);
  } else if (strcmp(text, "fail") == 0) {
    struct err why;
    err_set(&why, ERR_CONFLICT, "not now, %s", "ä");
    bus_fail(call, &why);
  } else if (strcmp(text, "large") == 0) {
    char *much = malloc(BUS_MAX_MESSAGE + 1);
    memset(much, 'x', BUS_MAX_MESSAGE);
    much[BUS_MAX_MESSAGE] = 0;
    Bus__Header m = text_message(much);
    bus_reply(call, &m.base);
    free(much);
  } else {
    w->kept = call;
    bus_answer_on(call, &answer_ops, w);
    if (strcmp(text, "stream") == 0)
      push_all(w);
  }
}

static const struct bus_conn_ops server_ops = {server_up, server_down, server_call};

static inline void client_up(void *arg, struct bus_conn *conn) {
  struct world *w = arg;
  (void)conn;
  w->client.ups++;
}

static inline void client_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct world *w = arg;
  assert_false(bus_conn_is_up(conn));
  w->client.downs++;
  w->client.down_code = why->code;
}

static inline void client_called(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  (void)arg;
  (void)conn;
  char text[256];
  read_text(body, len, text);
  Bus__Header m = text_message(text);
  bus_reply(call, &m.base);
}

static const struct bus_conn_ops client_ops = {client_up, client_down, client_called};

static inline void call_done(void *arg, const uint8_t *body, size_t len) {
  struct world *w = arg;
  w->done++;
  w->call = NULL;
  w->text[0] = 0;
  if (body)
    read_text(body, len, w->text);
}

static inline void call_failed(void *arg, const struct err *why) {
  struct world *w = arg;
  w->failed++;
  w->call = NULL;
  w->code = why->code;
  snprintf(w->text, sizeof w->text, "%.200s", why->msg);
}

static inline void call_item(void *arg, const uint8_t *body, size_t len) {
  struct world *w = arg;
  char text[256], want[32];
  read_text(body, len, text);
  snprintf(want, sizeof want, "%u", w->items);
  assert_string_equal(text, want);
  w->items++;
  if (w->hold_at == w->items)
    bus_call_hold(w->call);
}

static const struct bus_call_ops plain_ops = {call_done, call_failed, NULL};
static const struct bus_call_ops stream_ops = {call_done, call_failed, call_item};

/* The side's bus, which stop_world() frees. */
static inline void make_side(struct side *side, struct loop *loop) {
  struct err err;
  struct bus_config config = {.keys = &side->keys, .heartbeat_ns = beat, .report = on_report, .report_arg = side};
  side->loop = loop;
  side->bus = bus_new(loop, &config, &err);
  assert_non_null(side->bus);
}

static inline void listen_at(struct world *w, const char *endpoint) {
  struct err err = {0};
  w->listener = bus_listen(w->server.bus, endpoint, allow, &server_ops, w, &err);
  if (!w->listener)
    fail_msg("listen: %s", err.msg);
}

static inline struct bus_conn *connect_to(struct world *w, const char *endpoint, const char *second) {
  struct err err = {0};
  struct bus_address to[2] = {{endpoint, w->server.keys.public_key}, {second, w->server.keys.public_key}};
  struct bus_conn *conn = bus_connect(w->client.bus, to, second ? 2 : 1, &client_ops, w, &err);
  if (!conn)
    fail_msg("connect: %s", err.msg);
  return conn;
}

static inline int64_t mono(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* Runs both loops until the condition holds. */
#define RUN_UNTIL(w, cond)                                                                                                                           \
  do {                                                                                                                                               \
    int64_t until_ = mono() + 5 * NS_PER_SEC;                                                                                                        \
    while (!(cond)) {                                                                                                                                \
      run_once(w);                                                                                                                                   \
      if (mono() > until_)                                                                                                                           \
        fail_msg("never came: %s", #cond);                                                                                                           \
    }                                                                                                                                                \
  } while (0)

static inline void run_once(struct world *w) {
  struct err err;
  bool apart = w->client.loop && w->server.loop && w->client.loop != w->server.loop;
  if (w->server.loop && apart)
    assert_int_equal(loop_once(w->server.loop, NS_PER_MS, &err), 0);
  assert_int_equal(loop_once(w->client.loop, NS_PER_MS, &err), 0);
}

static inline void run_for(struct world *w, int64_t ns) {
  for (int64_t until = mono() + ns; mono() < until;)
    run_once(w);
}

/* apart: each side has a loop of its own. stop_world() frees all of it. */
static inline void start_world(struct world *w, const char *endpoint, bool apart) {
  struct err err;
  *w = (struct world){.allow = true};
  w->loop = loop_new(NULL, &err);
  assert_non_null(w->loop);
  assert_int_equal(bus_key_new(&w->server.keys, &err), 0);
  assert_int_equal(bus_key_new(&w->client.keys, &err), 0);
  make_side(&w->server, apart ? loop_new(NULL, &err) : w->loop);
  make_side(&w->client, w->loop);
  listen_at(w, endpoint);
  w->conn = connect_to(w, bus_listener_endpoint(w->listener), NULL);
  RUN_UNTIL(w, w->client.ups == 1 && w->server.ups == 1);
  assert_true(bus_conn_is_up(w->conn));
}

/* 0: TCP, 1: a Unix socket. */
static inline const char *endpoint_of(size_t i) {
  static char text[64];
  if (i == 0)
    return "tcp://127.0.0.1:*";
  snprintf(text, sizeof text, "ipc:///tmp/orca-test-bus-%d.sock", (int)getpid());
  return text;
}

static inline void stop_world(struct world *w) {
  bus_free(w->client.bus);
  bus_free(w->server.bus);
  if (w->server.loop != w->loop)
    loop_free(w->server.loop);
  loop_free(w->loop);
  unlink(endpoint_of(1) + strlen("ipc://")); /* libzmq leaves it, where there was one */
}

/* Asks the server; ops: plain_ops, stream_ops or a test's own, with the world as argument. */
static inline void call(struct world *w, const char *text, int64_t timeout, const struct bus_call_ops *ops) {
  Bus__Header m = text_message(text);
  w->call = bus_call(w->conn, &m.base, timeout, ops, w);
  assert_non_null(w->call);
}

#endif
