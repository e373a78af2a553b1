/* Connections of the bus between real sockets: who is let in, what ends one, and what comes after. */
#include "tests/unit/common/bus_rig.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_restart),          cmocka_unit_test(test_two_addresses), cmocka_unit_test(test_unauthorized),
      cmocka_unit_test(test_wrong_server_key), cmocka_unit_test(test_frozen),        cmocka_unit_test(test_idle_stays_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
