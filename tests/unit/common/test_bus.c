/* Calls and streams of the bus between real sockets. */
#include <sys/stat.h>

#include "tests/unit/common/bus_rig.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_calls),
      cmocka_unit_test(test_large_call),
      cmocka_unit_test(test_deadline_and_cancel),
      cmocka_unit_test(test_stream),
      cmocka_unit_test(test_items_nobody_wants),
      cmocka_unit_test(test_not_connected),
      cmocka_unit_test(test_callbacks_free),
      cmocka_unit_test(test_calls_from_a_later_hook),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
