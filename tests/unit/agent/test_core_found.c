/* What runs already when an agent begins: kept as it is until a master has spoken, and reported once it has been looked at. */
#include "tests/unit/agent/core_rig.h"

/* What the agent before this one left behind. */
static void find_running(uint64_t epoch, uint64_t revision) {
  rig_begin(3, false);
  rig.container_count = 1;
  rig.containers[0] = (struct agent_container){.id = "abcdefabcdef",
                                               .name = "orca-cluster0-n1.shop.api.1",
                                               .ours = true,
                                               .project = "shop",
                                               .service = "api",
                                               .number = 1,
                                               .epoch = epoch,
                                               .revision = revision,
                                               .state = AGENT_C_RUNNING,
                                               .network = "orca-cluster0-shop",
                                               .address = "172.18.0.2",
                                               .started_ns = rig_wall_ns() - 1};
  rig_come_up();
}

static void test_without_master_keeps_and_restarts(void **state) {
  (void)state;
  find_running(4, 2);
  rig_settle(100);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_non_null(i);
  assert_int_equal(i->want, AGENT_WANT_KEEP);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_true(agent_core_settled(&rig.core));
  rig_end(&rig.containers[0], 1);
  rig_settle(1);
  assert_int_equal(rig.containers[0].state, AGENT_C_RUNNING);
  /* A master that wants it as it is changes nothing. */
  unsigned starts = rig.starts;
  rig_want(API, 4, 2);
  rig_tell_full();
  rig_settle(40);
  assert_int_equal(rig.starts, starts);
  assert_int_equal(rig.creates, 0);
  /* One that doesn't removes it. */
  rig.want[API][0].assigned = false;
  rig_tell_full();
  rig_settle(5);
  assert_int_equal(rig.container_count, 0);
  rig_finish();
}

/* Assigned while the first list is under way: nothing is known of it before it was looked at. */
static void test_assigned_between_list_and_answer(void **state) {
  (void)state;
  find_running(4, 2);
  rig_want(API, 4, 2);
  rig_tell_full();
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_non_null(i);
  for (int n = 0; n < 2000; n++) {
    if (agent_core_settled(&rig.core))
      assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
    rig_advance(rig.now + NS_PER_MS);
  }
  assert_true(agent_core_settled(&rig.core));
  rig_finish();
}

/* One that Docker can't look at keeps neither the keeper nor the masters from hearing of the others. */
static void test_a_look_that_fails_is_not_waited_for(void **state) {
  (void)state;
  find_running(1, 1);
  rig_want(API, 1, 1);
  rig_tell_full();
  rig_until(AGENT_OP_INSPECT);
  assert_false(agent_core_settled(&rig.core));
  rig_refuse(rig.pending[0], ERR_TIMEOUT);
  while (rig.pending_count)
    assert_true(rig_advance(rig.now + NS_PER_SEC));
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_int_equal(i->c.state, AGENT_C_UNKNOWN);
  assert_string_equal(i->reason, "inspect: fault");
  assert_true(agent_core_settled(&rig.core));
  rig_settle(5);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_string_equal(i->reason, "");
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_without_master_keeps_and_restarts),
      cmocka_unit_test(test_assigned_between_list_and_answer),
      cmocka_unit_test(test_a_look_that_fails_is_not_waited_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
