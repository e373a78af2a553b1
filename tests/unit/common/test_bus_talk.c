/* One conversation without sockets: the peer is this test, which says what no honest peer would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/internal.h"
#include "common/bus/pb.h"

struct world {
  struct loop *loop;
  struct bus *bus;
  struct bus_key_pair keys;
  struct bus_conn *conn;
  int transmit_says;
  unsigned sent, ups, calls, done, failed, items, cancelled, ready;
  enum err_code code;
  struct bus_frame last; /* that we sent */
  struct bus_call *kept;
};

static struct world *world; /* for transmit(), which knows only its conversation */

static int transmit(struct bus_conn *conn, const uint8_t *header, size_t len, zmq_msg_t *body) {
  struct err err;
  (void)conn;
  if (world->transmit_says)
    return world->transmit_says;
  assert_int_equal(bus_frame_decode(header, len, zmq_msg_size(body), &world->last, &err), 0);
  world->sent++;
  zmq_msg_close(body);
  return 0;
}

static void on_up(void *arg, struct bus_conn *conn) {
  (void)conn;
  ((struct world *)arg)->ups++;
}

static void on_cancelled(void *arg) {
  ((struct world *)arg)->cancelled++;
}

static void on_ready(void *arg) {
  ((struct world *)arg)->ready++;
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  static const struct bus_answer_ops ops = {on_cancelled, on_ready};
  struct world *w = arg;
  (void)conn;
  (void)body;
  (void)len;
  w->calls++;
  w->kept = call;
  bus_answer_on(call, &ops, w);
}

static const struct bus_conn_ops ops = {on_up, NULL, on_call};

static void call_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  ((struct world *)arg)->done++;
}

static void call_failed(void *arg, const struct err *why) {
  struct world *w = arg;
  w->failed++;
  w->code = why->code;
}

static void call_item(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  ((struct world *)arg)->items++;
}

static const struct bus_call_ops stream_ops = {call_done, call_failed, call_item};

static void say(struct world *w, const Bus__Header *h, const char *body) {
  uint8_t packed[FRAME_MAX];
  size_t len = bus__header__pack(h, packed);
  bus_conn_receive(w->conn, packed, len, (const uint8_t *)body, strlen(body));
}

static void say_frame(struct world *w, Bus__Kind kind, uint64_t id, uint32_t credit, const char *body) {
  uint8_t packed[FRAME_MAX];
  struct bus_frame frame = {.kind = kind, .id = id, .credit = credit, .session = kind <= BUS__KIND__PONG ? 7 : 0};
  err_set(&frame.error, ERR_BUSY, "busy");
  size_t len = bus_frame_encode(&frame, packed);
  bus_conn_receive(w->conn, packed, len, (const uint8_t *)body, strlen(body));
}

static uint64_t malformed(struct world *w) {
  return bus_counters(w->bus)->refused_malformed;
}

static int set_up(void **state) {
  static struct world w;
  struct err err;
  w = (struct world){0};
  world = &w;
  w.loop = loop_new(NULL, &err);
  assert_int_equal(bus_key_new(&w.keys, &err), 0);
  struct bus_config config = {.keys = &w.keys};
  w.bus = bus_new(w.loop, &config, &err);
  assert_non_null(w.bus);
  w.conn = calloc(1, sizeof *w.conn);
  bus_conn_init(w.conn, w.bus);
  w.conn->ops = &ops;
  w.conn->arg = &w;
  w.conn->transmit = transmit;
  *state = &w;
  return 0;
}

static int tear_down(void **state) {
  struct world *w = *state;
  struct err why;
  err_set(&why, ERR_CANCELLED, "over");
  bus_conn_drop_calls(w->conn, &why);
  w->conn->gone = true;
  bus_conn_fail_orphans(w->conn, &why);
  bus_conn_bury(w->conn);
  bus_free(w->bus);
  loop_free(w->loop);
  return 0;
}

static void come_up(struct world *w) {
  say_frame(w, BUS__KIND__PONG, 0, 0, "");
  assert_int_equal(w->ups, 1);
}

static void test_malformed(void **state) {
  struct world *w = *state;
  /* before first contact nothing is heard */
  say_frame(w, BUS__KIND__CALL, 1, 0, "x");
  assert_int_equal(malformed(w), 1);
  assert_int_equal(w->calls, 0);
  come_up(w);
  uint64_t before = malformed(w);
  const struct {
    const char *bytes;
    size_t len;
  } garbage[] = {{"", 0},
                 {"\xff\xff\xff", 3},
                 {"\x0a", 1},
                 {"\x08\x01\x10\x63", 4} /* kind 99 */,
                 {"\x10\x02\x18\x01", 4} /* no version */,
                 {"\x08\x01\x10\x02", 4} /* call without an id */,
                 {"\x08\x01\x10\x04\x18\x01\x20\x01\x42\x01\xff", 11} /* not UTF-8 */};
  for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
    bus_conn_receive(w->conn, (const uint8_t *)garbage[i].bytes, garbage[i].len, NULL, 0);
    assert_int_equal(malformed(w), ++before);
  }
  uint8_t long_header[FRAME_MAX + 1] = {0};
  bus_conn_receive(w->conn, long_header, sizeof long_header, NULL, 0);
  assert_int_equal(malformed(w), ++before);
  /* a body where there is none; the wrong side's kinds; a connector is not pinged */
  say_frame(w, BUS__KIND__CREDIT, 1, 1, "body");
  assert_int_equal(malformed(w), ++before);
  Bus__Header h = BUS__HEADER__INIT;
  PB_SET(&h, version, 1);
  PB_SET(&h, kind, BUS__KIND__REPLY);
  PB_SET(&h, id, 1); /* not by_answerer */
  say(w, &h, "");
  assert_int_equal(malformed(w), ++before);
  PB_SET(&h, kind, BUS__KIND__CALL);
  PB_SET(&h, by_answerer, 1);
  say(w, &h, "");
  assert_int_equal(malformed(w), ++before);
  say_frame(w, BUS__KIND__PING, 0, 0, "");
  assert_int_equal(malformed(w), ++before);
  assert_int_equal(w->calls, 0);
  assert_true(bus_conn_is_up(w->conn));
}

static void test_versions(void **state) {
  struct world *w = *state;
  come_up(w);
  Bus__Header h = BUS__HEADER__INIT;
  PB_SET(&h, version, 2);
  PB_SET(&h, kind, BUS__KIND__CALL);
  PB_SET(&h, id, 77);
  say(w, &h, "whatever");
  assert_int_equal(w->last.kind, BUS__KIND__ERROR);
  assert_int_equal(w->last.id, 77);
  assert_int_equal(w->last.error.code, ERR_UNSUPPORTED);
  assert_int_equal(w->calls, 0);
}

static void test_answers_to_nothing(void **state) {
  struct world *w = *state;
  come_up(w);
  say_frame(w, BUS__KIND__REPLY, 1, 0, "x");
  say_frame(w, BUS__KIND__ITEM, 5, 0, "x");
  say_frame(w, BUS__KIND__ERROR, 9, 0, "");
  assert_int_equal(malformed(w), 3);
  /* about the peer's own calls that don't exist: they crossed our end, no fault */
  say_frame(w, BUS__KIND__CREDIT, 3, 5, "");
  say_frame(w, BUS__KIND__CANCEL, 3, 0, "");
  assert_int_equal(malformed(w), 3);
  /* an id that is in use */
  say_frame(w, BUS__KIND__CALL, 3, 0, "x");
  say_frame(w, BUS__KIND__CALL, 3, 0, "x");
  assert_int_equal(malformed(w), 4);
  assert_int_equal(w->calls, 1);
  say_frame(w, BUS__KIND__CANCEL, 3, 0, "");
  assert_int_equal(w->cancelled, 1);
  bus_reply(w->kept, NULL); /* ended, but our memory of it is good until the hook runs */
}

static void test_items_beyond_credit(void **state) {
  struct world *w = *state;
  come_up(w);
  Bus__Header m = BUS__HEADER__INIT;
  struct bus_call *call = bus_call(w->conn, &m.base, 0, &stream_ops, w);
  assert_int_equal(w->last.credit, BUS_STREAM_CREDIT);
  bus_call_hold(call);
  for (unsigned i = 0; i < BUS_STREAM_CREDIT; i++)
    say_frame(w, BUS__KIND__ITEM, 1, 0, "x");
  assert_int_equal(malformed(w), 0);
  assert_int_equal(w->items, 0);
  say_frame(w, BUS__KIND__ITEM, 1, 0, "x");
  assert_int_equal(malformed(w), 1);
  assert_int_equal(w->failed, 1);
  assert_int_equal(w->code, ERR_INVALID);
  assert_int_equal(w->last.kind, BUS__KIND__CANCEL);
  /* after an end nothing more comes */
  call = bus_call(w->conn, &m.base, 0, &stream_ops, w);
  bus_call_hold(call);
  say_frame(w, BUS__KIND__REPLY, 2, 0, "");
  say_frame(w, BUS__KIND__REPLY, 2, 0, "");
  assert_int_equal(malformed(w), 2);
  assert_int_equal(w->done, 0);
}

static void test_too_many_calls(void **state) {
  struct world *w = *state;
  come_up(w);
  for (uint64_t id = 1; id <= BUS_MAX_ANSWERS; id++)
    say_frame(w, BUS__KIND__CALL, id, 0, "");
  assert_int_equal(w->calls, BUS_MAX_ANSWERS);
  say_frame(w, BUS__KIND__CALL, BUS_MAX_ANSWERS + 1, 0, "");
  assert_int_equal(w->calls, BUS_MAX_ANSWERS);
  assert_int_equal(w->last.kind, BUS__KIND__ERROR);
  assert_int_equal(w->last.error.code, ERR_BUSY);
}

static void test_credit_overflow(void **state) {
  struct world *w = *state;
  come_up(w);
  say_frame(w, BUS__KIND__CALL, 1, UINT32_MAX, "");
  say_frame(w, BUS__KIND__CREDIT, 1, UINT32_MAX, "");
  say_frame(w, BUS__KIND__CREDIT, 1, UINT32_MAX, "");
  Bus__Header m = BUS__HEADER__INIT;
  assert_int_equal(bus_push(w->kept, &m.base), 0);
  say_frame(w, BUS__KIND__CALL, 2, 0, "");
  assert_int_equal(bus_push(w->kept, &m.base), 1);
  assert_int_equal(w->ready, 0);
  say_frame(w, BUS__KIND__CREDIT, 2, 1, "");
  assert_int_equal(w->ready, 1);
}

static void test_new_session_and_refusal(void **state) {
  struct world *w = *state;
  come_up(w);
  struct bus_frame frame = {.kind = BUS__KIND__PONG, .session = 8};
  uint8_t packed[FRAME_MAX];
  bus_conn_receive(w->conn, packed, bus_frame_encode(&frame, packed), NULL, 0);
  assert_false(bus_conn_is_up(w->conn));
  assert_int_equal(w->conn->why.code, ERR_UNAVAILABLE);
}

static void test_slow_peer(void **state) {
  struct world *w = *state;
  come_up(w);
  say_frame(w, BUS__KIND__CALL, 1, 1000, "");
  struct bus_call *stream = w->kept;
  w->transmit_says = EAGAIN;
  char *much = malloc(1 << 20);
  memset(much, 'x', (1 << 20) - 1);
  much[(1 << 20) - 1] = 0;
  Bus__Header m = BUS__HEADER__INIT;
  m.message = much;
  unsigned pushed = 0;
  while (bus_push(stream, &m.base) == 0)
    pushed++;
  assert_in_range(pushed, 10, 20); /* streams wait long before the bound */
  assert_true(bus_conn_is_up(w->conn));
  w->transmit_says = 0;
  assert_true(bus_conn_flush(w->conn));
  assert_int_equal(w->ready, 1);
  assert_int_equal(w->sent, pushed);
  /* calls are not held back by credit: a peer that doesn't read them is cut at the bound */
  w->transmit_says = EAGAIN;
  for (unsigned i = 0; i < 200 && bus_conn_is_up(w->conn); i++)
    bus_call(w->conn, &m.base, 0, &stream_ops, w);
  assert_false(bus_conn_is_up(w->conn));
  assert_int_equal(bus_counters(w->bus)->cut_slow, 1);
  assert_true(w->conn->queued <= BUS_MAX_QUEUED);
  assert_int_equal(w->failed, 0); /* the loop tells, not bus_call() */
  free(much);
}

static void test_frame_round_trip(void **state) {
  (void)state;
  uint8_t packed[FRAME_MAX];
  struct bus_frame frame = {.kind = BUS__KIND__ERROR, .id = UINT64_MAX}, read;
  struct err err;
  char longest[2000];
  memset(longest, 'x', sizeof longest);
  memcpy(longest + 508, "ää", 4); /* the cut goes through a character */
  longest[sizeof longest - 1] = 0;
  err_set(&frame.error, ERR_MEMORY, "%s", longest);
  size_t len = bus_frame_encode(&frame, packed);
  assert_int_equal(bus_frame_decode(packed, len, 0, &read, &err), 0);
  assert_int_equal(read.error.code, ERR_MEMORY);
  assert_int_equal(read.id, UINT64_MAX);
  assert_true(strlen(read.error.msg) >= 508);
  err_set(&frame.error, ERR_MEMORY, "bad \xff\xfe bytes");
  len = bus_frame_encode(&frame, packed);
  assert_int_equal(bus_frame_decode(packed, len, 0, &read, &err), 0);
  assert_string_equal(read.error.msg, "bad ?? bytes");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(test_malformed),
      TEST(test_versions),
      TEST(test_answers_to_nothing),
      TEST(test_items_beyond_credit),
      TEST(test_too_many_calls),
      TEST(test_credit_overflow),
      TEST(test_new_session_and_refusal),
      TEST(test_slow_peer),
      cmocka_unit_test(test_frame_round_trip),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
