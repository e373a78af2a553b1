/* What ends, or is said to have failed, is started again: at once, then later and later. */
#include "tests/unit/agent/core_rig.h"

/* It ends; what Docker says of that is given to the core by the caller. */
static struct agent_event crash(const struct agent_instance *i) {
  rig_end(&rig.containers[0], 1);
  rig.event_count = 0;
  return (struct agent_event){.kind = AGENT_EV_CONTAINER, .what = AGENT_CE_DIE, .container_id = i->c.id, .time_ns = rig_wall_ns(), .exit_code = 1};
}

static void test_crash_is_started_at_once(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  struct agent_event ev = crash(i);
  agent_core_step(&rig.core, &ev, rig_now(), &rig.out);
  /* In the very step, without a look first. */
  bool started = false;
  for (size_t n = 0; n < rig.out.count; n++)
    started |=
        rig.out.list[n].kind == AGENT_ACT_INSTANCE && rig.out.list[n].op_kind == AGENT_OP_START && strcmp(rig.out.list[n].container, i->c.id) == 0;
  assert_true(started);
  rig_finish();
}

static void test_backoff_grows_and_resets(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  int64_t waits[6];
  for (unsigned n = 0; n < 6; n++) {
    struct agent_event ev = crash(i);
    rig_step(&ev);
    waits[n] = i->next_try ? i->next_try - rig.now : 0;
    while (rig.containers[0].state != AGENT_C_RUNNING || i->phase != MODEL__PHASE__PHASE_RUNNING)
      assert_true(rig_advance(rig.now + 100 * NS_PER_SEC));
    rig.now += NS_PER_MS;
  }
  assert_int_equal(waits[0], 0);
  assert_int_equal(waits[1], 100 * NS_PER_MS);
  assert_int_equal(waits[5], 1600 * NS_PER_MS);
  rig_settle(61);
  assert_int_equal(i->restarts, 6);
  rig_end(&rig.containers[0], 1);
  rig_settle(1);
  assert_int_equal(i->restarts, 7);
  assert_int_equal(i->crash.failures, 1);
  rig_finish();
}

static void test_liveness_restarts(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  rig_settle(2);
  unsigned starts = rig.starts;
  struct agent_event ev = {
      .kind = AGENT_EV_VERDICT, .instance = i->id, .container_id = i->c.id, .started_ms = i->c.started_ns / NS_PER_MS - 1, .live = false};
  rig_step(&ev); /* of an earlier run */
  rig_settle(2);
  assert_int_equal(rig.starts, starts);
  ev.started_ms++;
  rig_step(&ev);
  rig_settle(2);
  assert_int_equal(rig.starts, starts + 1);
  assert_int_equal(i->restarts, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  rig_finish();
}

/* Its probe has failed, its stop hangs, it is removed by force: the container that follows has done nothing wrong. */
static void test_a_new_container_is_not_stopped_for_an_old_one(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  rig_verdict_on(&rig.containers[0]);
  rig_hangs(AGENT_OP_STOP);
  rig_hangs(AGENT_OP_KILL);
  assert_int_equal(rig.pending[0]->act.op_kind, AGENT_OP_REMOVE);
  rig_remove(&rig.containers[0]);
  rig.event_count = 0; /* Docker's events are late, or lost */
  unsigned starts = rig.starts;
  rig_settle(20);
  assert_int_equal(rig.creates, 2);
  assert_int_equal(rig.starts, starts + 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  rig_finish();
}

/* What ended, or began, in what is now the future makes nothing of today look old. */
static void test_a_clock_that_is_put_back(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  rig_end(&rig.containers[0], 1);
  rig_settle(5);
  assert_int_equal(i->restarts, 1);
  rig.clock -= 3600 * NS_PER_SEC;
  rig_settle(5);
  rig_end(&rig.containers[0], 1);
  rig_settle(2);
  assert_int_equal(i->restarts, 2);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  rig.clock -= 3600 * NS_PER_SEC;
  rig_settle(5);
  rig_verdict_on(&rig.containers[0]);
  rig_settle(20);
  assert_int_equal(i->restarts, 3);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  rig_finish();
}

/* What the store had of it when the agent was replaced. */
static void test_a_crash_loop_survives_the_agent(void **state) {
  (void)state;
  rig_begin(12, false);
  rig_come_up();
  rig_want(API, 1, 1);
  Node__Assignment *a = rig_assignment(API, 0);
  Model__InstanceStatus past = MODEL__INSTANCE_STATUS__INIT;
  char by[] = "exit code 3";
  uint8_t lines[] = "it broke\n";
  past.node = rig.core.node;
  past.ended_by = by;
  past.has_last_lines = 1;
  past.last_lines = (ProtobufCBinaryData){.data = lines, .len = sizeof lines - 1};
  PB_SET(&past, epoch, 1);
  PB_SET(&past, phase, MODEL__PHASE__PHASE_BACKOFF);
  PB_SET(&past, restarts, 7);
  PB_SET(&past, exit_code, 3);
  PB_SET(&past, ended_ms, rig_now().wall_ms - 100);
  PB_SET(&past, next_try_ms, rig_now().wall_ms + 5000);
  a->status = &past;
  rig_tell(a);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_int_equal(i->restarts, 7);
  assert_int_equal(i->crash.failures, 7);
  assert_string_equal(i->ended_by, "exit code 3");
  assert_int_equal(i->last_lines_len, sizeof lines - 1);
  assert_true(i->next_try > rig.now);
  /* Said again by a master that has just come: counted once. */
  rig_tell(a);
  assert_int_equal(i->restarts, 7);
  a->status = NULL;
  node__assignment__free_unpacked(a, NULL);
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crash_is_started_at_once), cmocka_unit_test(test_backoff_grows_and_resets),
      cmocka_unit_test(test_liveness_restarts),        cmocka_unit_test(test_a_new_container_is_not_stopped_for_an_old_one),
      cmocka_unit_test(test_a_clock_that_is_put_back), cmocka_unit_test(test_a_crash_loop_survives_the_agent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
