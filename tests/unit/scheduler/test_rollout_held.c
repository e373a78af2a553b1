/* When a rollout's time does not run out: while its instance waits for a secret, while it is stopped, while no scheduler is there. It begins anew
 * after that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "orca-scheduler/rollout.h"

#define T0 INT64_C(1700000000000)
#define LIMIT 3000

static const struct rollout_input one_wanted = {.exists = true,
                                                .revision = 1,
                                                .generation = 1,
                                                .replicas = 1,
                                                .revision_known = true,
                                                .policy = {.max_surge = 1, .timeout_ms = LIMIT, .auto_rollback = true}};

static void it_waits_for_days(void **state) {
  (void)state;
  struct rollout_input in = one_wanted;
  struct rollout rollout = {0};
  struct rollout_output out;
  rollout_step(&in, &rollout, NULL, 0, T0, &out);
  assert_int_equal(out.create, 1);
  struct rollout_instance one = {.number = 1,
                                 .revision = 1,
                                 .generation = 1,
                                 .desired_since_ms = T0,
                                 .placed = true,
                                 .node_exists = true,
                                 .reported = true,
                                 .held = true,
                                 .detail = "secret shop/DB is missing"};
  const int64_t day = INT64_C(24) * 3600 * 1000;
  for (int64_t now = T0; now < T0 + 3 * day; now += day / 4) {
    rollout_step(&in, &rollout, &one, 1, now, &out);
    assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
    assert_true(rollout.held);
    rollout_step(&in, &rollout, &one, 1, now + 1, &out);
    assert_false(out.changed); /* nothing is written meanwhile */
  }
  one.held = false;
  one.detail = "not ready";
  rollout_step(&in, &rollout, &one, 1, T0 + 3 * day, &out);
  assert_false(rollout.held);
  assert_true(out.changed);
  rollout_step(&in, &rollout, &one, 1, T0 + 3 * day + LIMIT - 1, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
  rollout_step(&in, &rollout, &one, 1, T0 + 3 * day + LIMIT + 1, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_FAILED);
}

static void so_does_what_depends_on_it(void **state) {
  (void)state;
  struct rollout_input in = one_wanted;
  in.waiting = "waiting for db";
  in.waits_for_held = true;
  struct rollout rollout = {0};
  struct rollout_output out;
  struct rollout_instance one = {.number = 1, .revision = 1, .generation = 1, .desired_since_ms = T0};
  rollout_step(&in, &rollout, NULL, 0, T0, &out);
  rollout_step(&in, &rollout, &one, 1, T0 + 10 * LIMIT, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
  assert_true(rollout.held && out.changed);
  in.waits_for_held = false; /* db has its secret, and is not ready yet */
  rollout_step(&in, &rollout, &one, 1, T0 + 20 * LIMIT, &out);
  assert_false(rollout.held);
  rollout_step(&in, &rollout, &one, 1, T0 + 21 * LIMIT - 1, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
  rollout_step(&in, &rollout, &one, 1, T0 + 21 * LIMIT + 1, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_FAILED);
}

static void nor_while_no_scheduler_is_there(void **state) {
  (void)state;
  struct rollout_input in = one_wanted;
  struct rollout rollout = {0};
  struct rollout_output out;
  struct rollout_instance one = {.number = 1, .revision = 1, .generation = 1, .desired_since_ms = T0, .placed = true, .node_exists = true};
  rollout_step(&in, &rollout, NULL, 0, T0, &out);
  in.watched_from_ms = T0 + 10 * LIMIT; /* another one */
  rollout_step(&in, &rollout, &one, 1, T0 + 11 * LIMIT - 1, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
  assert_int_equal(out.next_ms, T0 + 11 * LIMIT);
  rollout_step(&in, &rollout, &one, 1, T0 + 11 * LIMIT, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_FAILED);
}

/* Stopped in the middle, and started when something of it is still about, on a node that is away. */
static void nor_while_it_is_stopped(void **state) {
  (void)state;
  struct rollout_input in = one_wanted;
  struct rollout rollout = {0};
  struct rollout_output out;
  rollout_step(&in, &rollout, NULL, 0, T0, &out);
  struct rollout_instance one = {.number = 1,
                                 .revision = 1,
                                 .generation = 1,
                                 .desired = MODEL__DESIRED__DESIRED_STOP,
                                 .desired_since_ms = T0,
                                 .placed = true,
                                 .reported = true,
                                 .node_exists = true};
  in.stopped = true;
  rollout_step(&in, &rollout, &one, 1, T0 + 1, &out);
  in.stopped = false;
  rollout_step(&in, &rollout, &one, 1, T0 + 10 * LIMIT, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING);
  assert_int_equal(out.create, 1);
  rollout_step(&in, &rollout, &one, 1, T0 + 11 * LIMIT, &out);
  assert_int_equal(rollout.state, MODEL__ROLLOUT_STATE__ROLLOUT_FAILED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_waits_for_days),
      cmocka_unit_test(so_does_what_depends_on_it),
      cmocka_unit_test(nor_while_no_scheduler_is_there),
      cmocka_unit_test(nor_while_it_is_stopped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
