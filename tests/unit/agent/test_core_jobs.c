/* A run is begun once, whoever takes its container away, whatever Docker says, and however many agents it outlives. */
#include "tests/unit/agent/core_rig.h"

/* Once is once: whatever the spec says of restarting, and whoever takes the container away. */
static void test_a_job_is_never_started_again(void **state) {
  (void)state;
  const struct agent_instance *i = rig_running();
  PB_SET(i->assigned->instance, job, 1);
  rig_settle(31); /* a comparison has seen it */
  unsigned starts = rig.starts;
  rig_end(&rig.containers[0], 3);
  rig_settle(120);
  assert_int_equal(rig.starts, starts);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(i->last_exit, 3);
  assert_int_equal(i->restarts, 0);
  rig_remove(&rig.containers[0]);
  rig_settle(120);
  assert_int_equal(rig.starts, starts);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_string_equal(i->reason, "its container is gone");
  rig_finish();
}

static void run_that_ended(void) {
  rig_wanted(5, JOB);
  rig_settle(5);
  rig_end(&rig.containers[0], 3);
}

/* Docker's user tidied up between two agents. What is left of the run is what the store has. */
static void test_a_run_that_is_told_of_is_not_begun_anew(void **state) {
  (void)state;
  run_that_ended();
  rig_settle(5);
  rig_report_all();
  rig_remove(&rig.containers[0]);
  for (unsigned agents = 0; agents < 2; agents++) {
    rig_replace_agent();
    rig_tell_full();
    rig_settle(40);
    const struct agent_instance *i = agent_core_find(&rig.core, "shop/job.1");
    assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
    rig_report_all();
    assert_true(rig.want[JOB][0].told->has_exit_code);
    assert_int_equal(rig.want[JOB][0].told->exit_code, 3);
  }
  assert_int_equal(rig.starts, 1);
  rig_finish();
}

/* What was told once is not taken back while its last words are read anew. */
static void test_a_told_end_stays_told(void **state) {
  (void)state;
  run_that_ended();
  rig_settle(5);
  rig_report_all();
  rig_replace_agent();
  const struct agent_instance *i = NULL;
  while (!i || !i->words_ns) { /* as the container's label says */
    assert_true(rig_advance(rig.now + NS_PER_SEC));
    i = agent_core_find(&rig.core, "shop/job.1");
  }
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_STOPPING);
  rig_tell_full();
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_true(i->words_ns);
  rig_settle(5);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  rig_finish();
}

/* Docker says that it could not start it, and has. */
static void test_a_run_that_is_said_not_to_have_started(void **state) {
  (void)state;
  rig_wanted(5, JOB);
  rig_until(AGENT_OP_START);
  rig_run_effect(rig.pending[0]);
  rig_end(&rig.containers[0], 3);
  rig.event_count = 0;
  rig.pending[0]->outcome = ERR_INTERNAL;
  rig_settle(60);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/job.1");
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(i->last_exit, 3);
  assert_int_equal(rig.container_count, 1);
  assert_int_equal(rig.starts, 1);
  rig_finish();
}

/* It has ended, and somebody's removal of it came half the way. */
static void test_a_run_whose_container_is_broken(void **state) {
  (void)state;
  run_that_ended();
  rig.containers[0].state = AGENT_C_BROKEN;
  rig_replace_agent();
  rig_tell_full();
  rig_settle(40);
  assert_int_equal(agent_core_find(&rig.core, "shop/job.1")->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(rig.container_count, 0);
  assert_int_equal(rig.starts, 1);
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_job_is_never_started_again),    cmocka_unit_test(test_a_run_that_is_told_of_is_not_begun_anew),
      cmocka_unit_test(test_a_told_end_stays_told),           cmocka_unit_test(test_a_run_that_is_said_not_to_have_started),
      cmocka_unit_test(test_a_run_whose_container_is_broken),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
