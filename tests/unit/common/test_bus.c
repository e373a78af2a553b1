/* The bus between real sockets: one process, one loop (or two, where a side has to freeze), CURVE and all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "proto/bus.pb-c.h"

#define BEAT (150 * NS_PER_MS)
static int64_t beat = BEAT;

/* Any message will do as a body: text travels in Header.message. */
static Bus__Header text_message(const char *text) {
  Bus__Header m = BUS__HEADER__INIT;
  m.message = (char *)(uintptr_t)text;
  return m;
}

static void read_text(const uint8_t *body, size_t len, char out[256]) {
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

static void on_report(void *arg, const char *peer, const char *what) {
  struct side *side = arg;
  assert_true(peer[0] && what[0]);
  side->reports++;
}

static bool allow(void *arg, const char *key, char who[64], uint64_t *tag) {
  struct world *w = arg;
  if (!w->allow || strcmp(key, w->client.keys.public_key) != 0)
    return false;
  snprintf(who, 64, "client@test");
  *tag = 42;
  return true;
}

static void server_up(void *arg, struct bus_conn *conn) {
  struct world *w = arg;
  w->server.ups++;
  w->server.peer = conn;
  assert_string_equal(bus_peer_name(conn), "client@test");
  assert_string_equal(bus_peer_key(conn), w->client.keys.public_key);
  assert_int_equal(bus_peer_tag(conn), 42);
}

static void server_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct world *w = arg;
  w->server.downs++;
  w->server.down_code = why->code;
  if (w->server.peer == conn)
    w->server.peer = NULL;
}

static void answer_cancelled(void *arg) {
  struct world *w = arg;
  w->cancelled++;
  if (w->cancelled_by_reply)
    bus_reply(w->kept, NULL); /* too late, and harmless */
  w->kept = NULL;
}

static void push_all(struct world *w) {
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

static void answer_ready(void *arg) {
  struct world *w = arg;
  w->ready++;
  push_all(w);
}

static const struct bus_answer_ops answer_ops = {answer_cancelled, answer_ready};

static void server_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
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

static void client_up(void *arg, struct bus_conn *conn) {
  struct world *w = arg;
  (void)conn;
  w->client.ups++;
}

static void client_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct world *w = arg;
  assert_false(bus_conn_is_up(conn));
  w->client.downs++;
  w->client.down_code = why->code;
}

static void client_called(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  (void)arg;
  (void)conn;
  char text[256];
  read_text(body, len, text);
  Bus__Header m = text_message(text);
  bus_reply(call, &m.base);
}

static const struct bus_conn_ops client_ops = {client_up, client_down, client_called};

static void call_done(void *arg, const uint8_t *body, size_t len) {
  struct world *w = arg;
  w->done++;
  w->call = NULL;
  w->text[0] = 0;
  if (body)
    read_text(body, len, w->text);
}

static void call_failed(void *arg, const struct err *why) {
  struct world *w = arg;
  w->failed++;
  w->call = NULL;
  w->code = why->code;
  snprintf(w->text, sizeof w->text, "%.200s", why->msg);
}

static void call_item(void *arg, const uint8_t *body, size_t len) {
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

static void make_side(struct side *side, struct loop *loop) {
  struct err err;
  struct bus_config config = {.keys = &side->keys, .heartbeat_ns = beat, .report = on_report, .report_arg = side};
  side->loop = loop;
  side->bus = bus_new(loop, &config, &err);
  assert_non_null(side->bus);
}

static void listen_at(struct world *w, const char *endpoint) {
  struct err err = {0};
  w->listener = bus_listen(w->server.bus, endpoint, allow, &server_ops, w, &err);
  if (!w->listener)
    fail_msg("listen: %s", err.msg);
}

static struct bus_conn *connect_to(struct world *w, const char *endpoint, const char *second) {
  struct err err = {0};
  struct bus_address to[2] = {{endpoint, w->server.keys.public_key}, {second, w->server.keys.public_key}};
  struct bus_conn *conn = bus_connect(w->client.bus, to, second ? 2 : 1, &client_ops, w, &err);
  if (!conn)
    fail_msg("connect: %s", err.msg);
  return conn;
}

static int64_t mono(void) {
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

static void run_once(struct world *w) {
  struct err err;
  bool apart = w->client.loop && w->server.loop && w->client.loop != w->server.loop;
  if (w->server.loop && apart)
    assert_int_equal(loop_once(w->server.loop, NS_PER_MS, &err), 0);
  assert_int_equal(loop_once(w->client.loop, NS_PER_MS, &err), 0);
}

static void run_for(struct world *w, int64_t ns) {
  for (int64_t until = mono() + ns; mono() < until;)
    run_once(w);
}

static void start_world(struct world *w, const char *endpoint, bool apart) {
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

static const char *endpoint_of(size_t i) {
  static char text[64];
  if (i == 0)
    return "tcp://127.0.0.1:*";
  snprintf(text, sizeof text, "ipc:///tmp/orca-test-bus-%d.sock", (int)getpid());
  return text;
}

static void stop_world(struct world *w) {
  bus_free(w->client.bus);
  bus_free(w->server.bus);
  if (w->server.loop != w->loop)
    loop_free(w->server.loop);
  loop_free(w->loop);
  unlink(endpoint_of(1) + strlen("ipc://")); /* libzmq leaves it, where there was one */
}

static void call(struct world *w, const char *text, int64_t timeout, const struct bus_call_ops *ops) {
  Bus__Header m = text_message(text);
  w->call = bus_call(w->conn, &m.base, timeout, ops, w);
  assert_non_null(w->call);
}

static void test_calls(void **state) {
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct world w;
    start_world(&w, endpoint_of(i), false);
    if (i == 1) {
      struct stat st;
      assert_int_equal(stat(bus_listener_endpoint(w.listener) + 6, &st), 0);
      assert_int_equal(st.st_mode & 0777, 0600);
    }
    call(&w, "echo", NS_PER_SEC, &plain_ops);
    RUN_UNTIL(&w, w.done == 1);
    assert_string_equal(w.text, "echoed");
    call(&w, "fail", NS_PER_SEC, &plain_ops);
    RUN_UNTIL(&w, w.failed == 1);
    assert_int_equal(w.code, ERR_CONFLICT);
    assert_string_equal(w.text, "not now, ä");
    call(&w, "large", 5 * NS_PER_SEC, &plain_ops);
    RUN_UNTIL(&w, w.failed == 2);
    assert_int_equal(w.code, ERR_TOO_LARGE);
    /* the other way round */
    w.done = 0;
    Bus__Header m = text_message("backwards");
    w.call = bus_call(w.server.peer, &m.base, NS_PER_SEC, &plain_ops, &w);
    RUN_UNTIL(&w, w.done == 1);
    assert_string_equal(w.text, "backwards");
    stop_world(&w);
  }
}

static void test_large_call(void **state) {
  (void)state;
  struct world w;
  beat = NS_PER_SEC; /* on a busy machine 8 MB take longer than three short ones, and nothing overtakes them */
  start_world(&w, endpoint_of(0), false);
  char *much = malloc(BUS_MAX_MESSAGE + 1);
  memset(much, 'x', BUS_MAX_MESSAGE);
  much[BUS_MAX_MESSAGE] = 0;
  call(&w, much, NS_PER_SEC, &plain_ops);
  assert_int_equal(w.failed, 0); /* never out of bus_call() */
  RUN_UNTIL(&w, w.failed == 1);
  assert_int_equal(w.code, ERR_TOO_LARGE);
  much[BUS_MAX_MESSAGE - 100] = 0; /* just fits */
  w.cancelled_by_reply = 0;
  call(&w, much, 5 * NS_PER_SEC, &plain_ops);
  RUN_UNTIL(&w, w.kept);
  bus_reply(w.kept, NULL);
  RUN_UNTIL(&w, w.done == 1);
  free(much);
  stop_world(&w);
  beat = BEAT;
}

static void test_deadline_and_cancel(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  int64_t begin = mono();
  call(&w, "keep", 30 * NS_PER_MS, &plain_ops);
  RUN_UNTIL(&w, w.failed == 1);
  assert_int_equal(w.code, ERR_TIMEOUT);
  assert_true(mono() - begin >= 30 * NS_PER_MS && mono() - begin < NS_PER_SEC);
  RUN_UNTIL(&w, w.cancelled == 1);
  /* cancelled by the caller: no callback, the answerer hears of it; its late reply is harmless */
  w.cancelled_by_reply = 1;
  call(&w, "keep", NS_PER_SEC, &plain_ops);
  RUN_UNTIL(&w, w.kept);
  assert_true(bus_call_deadline(w.kept) > loop_now(w.loop));
  assert_true(bus_call_deadline(w.kept) <= loop_now(w.loop) + NS_PER_SEC);
  bus_call_cancel(w.call);
  bus_call_cancel(w.call);
  RUN_UNTIL(&w, w.cancelled == 2);
  assert_int_equal(w.failed + w.done, 1);
  /* a reply that crosses the cancel is dropped without a complaint */
  w.cancelled_by_reply = 0;
  call(&w, "keep", NS_PER_SEC, &plain_ops);
  RUN_UNTIL(&w, w.kept);
  bus_call_cancel(w.call);
  bus_reply(w.kept, NULL);
  run_for(&w, 20 * NS_PER_MS);
  assert_int_equal(w.failed + w.done, 1);
  assert_int_equal(bus_counters(w.client.bus)->refused_malformed, 0);
  assert_int_equal(bus_counters(w.server.bus)->refused_malformed, 0);
  stop_world(&w);
}

static void test_stream(void **state) {
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct world w;
    start_world(&w, endpoint_of(i), false);
    w.to_push = 1000;
    call(&w, "stream", 0, &stream_ops);
    RUN_UNTIL(&w, w.done == 1);
    assert_int_equal(w.items, 1000);
    assert_string_equal(w.text, "end");
    assert_true(w.ready > 0);

    /* A slow reader: the sender stops where the credit ends, and goes on when the reader does. */
    w.items = w.pushed = w.ready = 0;
    w.hold_at = 10;
    call(&w, "stream", 0, &stream_ops);
    run_for(&w, 50 * NS_PER_MS);
    assert_int_equal(w.items, 10);
    assert_true(w.pushed <= BUS_STREAM_CREDIT + 10);
    unsigned stuck = w.pushed;
    run_for(&w, 50 * NS_PER_MS);
    assert_int_equal(w.pushed, stuck);
    bus_call_resume(w.call);
    assert_int_equal(w.items, 10);
    RUN_UNTIL(&w, w.done == 2);
    assert_int_equal(w.items, 1000);

    /* Held to the very end: the end waits behind the items. */
    w.items = w.pushed = 0;
    w.to_push = 20;
    w.hold_at = 5;
    call(&w, "stream", 0, &stream_ops);
    run_for(&w, 20 * NS_PER_MS);
    assert_int_equal(w.pushed, 20);
    assert_int_equal(w.items, 5);
    assert_int_equal(w.done, 2);
    bus_call_resume(w.call);
    RUN_UNTIL(&w, w.done == 3);
    assert_int_equal(w.items, 20);
    stop_world(&w);
  }
}

static void test_items_nobody_wants(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  w.to_push = 3;
  call(&w, "stream", 60 * NS_PER_MS, &plain_ops); /* no item callback: no credit, so the answerer can only wait */
  RUN_UNTIL(&w, w.failed == 1);
  assert_int_equal(w.pushed, 0);
  assert_int_equal(w.code, ERR_TIMEOUT);
  stop_world(&w);
}

static void test_not_connected(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  struct bus_conn *first = w.conn;
  w.conn = connect_to(&w, "tcp://127.0.0.1:1", NULL);
  call(&w, "echo", NS_PER_SEC, &plain_ops);
  assert_int_equal(w.failed, 0);
  RUN_UNTIL(&w, w.failed == 1);
  assert_int_equal(w.code, ERR_UNAVAILABLE);
  /* freed with a call that has not failed yet */
  call(&w, "echo", NS_PER_SEC, &plain_ops);
  bus_conn_free(w.conn);
  assert_int_equal(w.failed, 2);
  assert_int_equal(w.code, ERR_CANCELLED);
  w.conn = first;
  call(&w, "keep", NS_PER_SEC, &plain_ops);
  bus_conn_free(w.conn);
  assert_int_equal(w.failed, 3);
  RUN_UNTIL(&w, w.server.downs == 1);
  stop_world(&w);
}

static void test_restart(void **state) {
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct world w;
    start_world(&w, endpoint_of(i), false);
    char endpoint[256];
    snprintf(endpoint, sizeof endpoint, "%s", bus_listener_endpoint(w.listener));
    call(&w, "keep", 0, &stream_ops);
    RUN_UNTIL(&w, w.kept);
    int64_t begin = mono();
    bus_free(w.server.bus);
    assert_int_equal(w.cancelled, 1);
    RUN_UNTIL(&w, w.client.downs == 1);
    assert_true(mono() - begin < BEAT); /* by the connection's end, not by the heartbeat */
    assert_int_equal(w.failed, 1);
    assert_int_equal(w.code, ERR_UNAVAILABLE);
    run_for(&w, 30 * NS_PER_MS);
    make_side(&w.server, w.loop);
    listen_at(&w, endpoint);
    RUN_UNTIL(&w, w.client.ups == 2 && w.server.ups == 2);
    call(&w, "echo", NS_PER_SEC, &plain_ops);
    RUN_UNTIL(&w, w.done == 1);
    assert_true(bus_counters(w.client.bus)->reconnects >= 1);
    stop_world(&w);
  }
}

static void test_two_addresses(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  char endpoint[256];
  snprintf(endpoint, sizeof endpoint, "%s", bus_listener_endpoint(w.listener));
  bus_conn_free(w.conn);
  w.conn = connect_to(&w, "tcp://127.0.0.1:1", endpoint); /* nobody listens on the first */
  RUN_UNTIL(&w, w.client.ups == 2);
  assert_string_equal(bus_peer_name(w.conn), endpoint);
  stop_world(&w);
}

static void test_unauthorized(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  w.allow = false;
  bus_listener_recheck(w.listener);
  RUN_UNTIL(&w, w.server.downs == 1 && w.client.downs == 1);
  assert_int_equal(w.server.down_code, ERR_DENIED);
  assert_int_equal(w.client.down_code, ERR_DENIED);
  RUN_UNTIL(&w, bus_counters(w.server.bus)->refused_unauthorized >= 3);
  assert_int_equal(w.client.ups, 1);
  assert_int_equal(w.server.reports, 1); /* once a minute */
  w.allow = true;                        /* it keeps trying, so it gets in as soon as it may */
  RUN_UNTIL(&w, w.client.ups == 2);
  stop_world(&w);
}

static void test_wrong_server_key(void **state) {
  (void)state;
  struct world w;
  struct err err;
  start_world(&w, endpoint_of(0), false);
  bus_conn_free(w.conn);
  struct bus_address to = {bus_listener_endpoint(w.listener), w.client.keys.public_key};
  w.conn = bus_connect(w.client.bus, &to, 1, &client_ops, &w, &err);
  assert_non_null(w.conn);
  run_for(&w, 300 * NS_PER_MS);
  assert_int_equal(w.client.ups, 1);
  to.server_key = "short";
  assert_null(bus_connect(w.client.bus, &to, 1, &client_ops, &w, &err));
  to = (struct bus_address){"nonsense", w.server.keys.public_key};
  assert_null(bus_connect(w.client.bus, &to, 1, &client_ops, &w, &err));
  assert_null(bus_listen(w.server.bus, "nonsense", allow, &server_ops, &w, &err));
  assert_null(bus_listen(w.server.bus, bus_listener_endpoint(w.listener), allow, &server_ops, &w, &err));
  assert_int_equal(err.code, ERR_CONFLICT);
  stop_world(&w);
}

/* Connections that stay open while one side doesn't run. */
static void test_frozen(void **state) {
  (void)state;
  struct world w;
  struct err err;
  start_world(&w, endpoint_of(0), true);
  call(&w, "keep", 0, &stream_ops);
  RUN_UNTIL(&w, w.kept);
  int64_t begin = mono();
  while (!w.client.downs && mono() - begin < 5 * NS_PER_SEC)
    loop_once(w.client.loop, NS_PER_MS, &err);
  assert_int_equal(w.client.downs, 1);
  assert_true(mono() - begin >= 2 * BEAT && mono() - begin < 8 * BEAT);
  assert_int_equal(w.failed, 1);
  RUN_UNTIL(&w, w.client.ups == 2 && w.cancelled == 1); /* it wakes */
  /* now the client freezes */
  call(&w, "keep", 0, &stream_ops);
  RUN_UNTIL(&w, w.kept);
  begin = mono();
  while (w.server.downs < 2 && mono() - begin < 5 * NS_PER_SEC)
    loop_once(w.server.loop, NS_PER_MS, &err);
  assert_int_equal(w.cancelled, 2);
  assert_int_equal(w.failed, 1);
  RUN_UNTIL(&w, w.client.ups == 3 && w.failed == 2); /* it finds that its old conversation is over */
  call(&w, "echo", NS_PER_SEC, &plain_ops);
  RUN_UNTIL(&w, w.done == 1);
  stop_world(&w);
}

/* Both sides run, one says nothing for long: nothing is cut. */
static void test_idle_stays_up(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  run_for(&w, 5 * BEAT);
  assert_int_equal(w.client.downs + w.server.downs, 0);
  /* a long answer under a busy caller is no silence either */
  call(&w, "keep", 0, &stream_ops);
  run_for(&w, 4 * BEAT);
  assert_int_equal(w.client.downs + w.server.downs, 0);
  bus_conn_cut(w.conn);
  assert_int_equal(w.client.downs, 0);
  RUN_UNTIL(&w, w.client.downs == 1 && w.server.downs == 1 && w.client.ups == 2);
  bus_conn_cut(w.server.peer);
  RUN_UNTIL(&w, w.client.downs == 2 && w.server.downs == 2 && w.client.ups == 3);
  stop_world(&w);
}

/* Calls that are made in a hook which runs after the bus's own: sending takes ZeroMQ's wake-up with it, and the loop must not sleep over the
 * answer that has just come. */
struct late {
  struct loop_hook hook;
  struct world *w;
  unsigned made;
};

static bool call_late(void *arg) {
  struct late *late = arg;
  if (late->made == late->w->done && late->made < 2000) {
    late->made++;
    call(late->w, "echo", NS_PER_SEC, &plain_ops);
  }
  return false;
}

static void test_calls_from_a_later_hook(void **state) {
  (void)state;
  struct world w;
  struct err err;
  start_world(&w, endpoint_of(0), false);
  struct late late = {.hook = {.cb = call_late, .arg = &late}, .w = &w};
  /* hooks run newest first: take the buses' own out and put them in front again */
  bus_free(w.client.bus);
  loop_hook_add(w.loop, &late.hook);
  late.made = 2000;
  make_side(&w.client, w.loop);
  w.conn = connect_to(&w, bus_listener_endpoint(w.listener), NULL);
  RUN_UNTIL(&w, w.client.ups == 2);
  late.made = 0;
  int64_t begin = mono();
  while (w.done < 2000 && mono() - begin < 3 * NS_PER_SEC)
    loop_once(w.loop, 100 * NS_PER_MS, &err);
  assert_int_equal(w.done, 2000);
  assert_true(mono() - begin < 2 * NS_PER_SEC); /* each one slept over would cost a heartbeat */
  loop_hook_remove(w.loop, &late.hook);
  stop_world(&w);
}

/* Callbacks may free and call what they like. */
static void free_in_done(void *arg, const uint8_t *body, size_t len) {
  struct world *w = arg;
  (void)body;
  (void)len;
  w->done++;
  bus_conn_free(w->conn);
  w->conn = NULL;
}

static void call_again(void *arg, const struct err *why) {
  struct world *w = arg;
  (void)why;
  static const struct bus_call_ops again = {call_done, call_again, NULL};
  if (++w->failed < 5) {
    Bus__Header m = text_message("echo");
    assert_non_null(bus_call(w->conn, &m.base, NS_PER_SEC, &again, w));
  }
}

static void test_callbacks_free(void **state) {
  (void)state;
  struct world w;
  start_world(&w, endpoint_of(0), false);
  static const struct bus_call_ops freeing = {free_in_done, NULL, NULL}, again = {call_done, call_again, NULL};
  call(&w, "echo", NS_PER_SEC, &freeing);
  RUN_UNTIL(&w, w.done == 1 && w.server.downs == 1);
  w.conn = connect_to(&w, bus_listener_endpoint(w.listener), NULL);
  RUN_UNTIL(&w, w.client.ups == 2);
  call(&w, "keep", 0, &again);
  RUN_UNTIL(&w, w.kept);
  bus_conn_cut(w.conn);
  RUN_UNTIL(&w, w.failed == 5 || w.done == 2);
  RUN_UNTIL(&w, w.client.ups == 3);
  stop_world(&w);
}

static void test_keys(void **state) {
  (void)state;
  struct err err;
  struct bus_key_pair pair, read;
  char dir[] = "/tmp/orca-test-keys-XXXXXX", path[128], other[128];
  assert_non_null(mkdtemp(dir));
  assert_int_equal(bus_key_new(&pair, &err), 0);
  assert_int_equal(bus_key_save(dir, "agent", &pair, &err), 0);
  assert_int_equal(bus_key_save(dir, "agent", &pair, &err), -1); /* never overwrites */
  assert_int_equal(err.code, ERR_CONFLICT);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), 0);
  assert_memory_equal(&pair, &read, sizeof pair);
  snprintf(path, sizeof path, "%s/agent.key", dir);
  assert_int_equal(chmod(path, 0440), 0);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), -1);
  assert_int_equal(err.code, ERR_DENIED);
  assert_null(strstr(err.msg, pair.secret_key));
  assert_int_equal(bus_key_load(dir, "proxy", &read, &err), -1);
  assert_int_equal(err.code, ERR_NOT_FOUND);
  /* a public half of another pair */
  struct bus_key_pair stranger;
  assert_int_equal(bus_key_new(&stranger, &err), 0);
  assert_int_equal(bus_key_save(dir, "stranger", &stranger, &err), 0);
  snprintf(path, sizeof path, "%s/stranger.pub", dir);
  snprintf(other, sizeof other, "%s/agent.pub", dir);
  assert_int_equal(rename(path, other), 0);
  snprintf(path, sizeof path, "%s/agent.key", dir);
  assert_int_equal(chmod(path, 0400), 0);
  assert_int_equal(bus_key_load(dir, "agent", &read, &err), -1);
  unlink(path);
  unlink(other);
  snprintf(path, sizeof path, "%s/stranger.key", dir);
  unlink(path);
  rmdir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_calls),
      cmocka_unit_test(test_large_call),
      cmocka_unit_test(test_deadline_and_cancel),
      cmocka_unit_test(test_stream),
      cmocka_unit_test(test_items_nobody_wants),
      cmocka_unit_test(test_not_connected),
      cmocka_unit_test(test_restart),
      cmocka_unit_test(test_two_addresses),
      cmocka_unit_test(test_unauthorized),
      cmocka_unit_test(test_wrong_server_key),
      cmocka_unit_test(test_frozen),
      cmocka_unit_test(test_idle_stays_up),
      cmocka_unit_test(test_callbacks_free),
      cmocka_unit_test(test_calls_from_a_later_hook),
      cmocka_unit_test(test_keys),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
