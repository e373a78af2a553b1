/* A container's name that somebody else has. */
#include "tests/unit/agent/core_rig.h"

static void beside_a_foreign_one(void) {
  rig_begin(9, false);
  rig.container_count = 1;
  rig.containers[0] = (struct agent_container){.id = "abcdefabcdef", .name = "orca-cluster0-n1.shop.api.1", .state = AGENT_C_RUNNING};
  rig_come_up();
}

static void test_foreign_container_with_our_name(void **state) {
  (void)state;
  beside_a_foreign_one();
  rig_want(API, 1, 1);
  rig_tell_full();
  rig_settle(30);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_FAILED);
  assert_non_null(strstr(i->reason, "taken"));
  assert_int_equal(rig.container_count, 1);
  assert_int_equal(rig.containers[0].state, AGENT_C_RUNNING);
  rig.container_count = 0; /* its owner removes it */
  rig_settle(120);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  rig_finish();
}

/* What is not there can't be stopped: it is gone, whoever has its name. */
static void test_a_stop_is_not_held_up_by_a_foreign_container(void **state) {
  (void)state;
  beside_a_foreign_one();
  rig_want(API, 1, 1);
  rig.want[API][0].stop = true;
  rig_tell_full(); /* before the list has come: it is looked at by its name */
  rig_settle(5);
  assert_int_equal(rig.gone, 1);
  assert_int_equal(rig.containers[0].state, AGENT_C_RUNNING);
  rig_finish();
}

/* An agent that was killed is having it created still: the name is taken, and nothing is to be seen. */
static void test_a_name_that_is_taken_by_nothing(void **state) {
  (void)state;
  rig_wanted(9, API);
  rig_until(AGENT_OP_CREATE);
  rig.pending[0]->late = true;
  rig.pending[0]->due = rig.now + 60 * NS_PER_SEC;
  rig_replace_agent();
  rig_tell_full();
  rig_settle(55);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_in_range(rig.conflicts, 2, 12);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_FAILED);
  assert_non_null(strstr(i->reason, "taken"));
  rig_settle(120);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_int_equal(rig.container_count, 1);
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_foreign_container_with_our_name),
      cmocka_unit_test(test_a_stop_is_not_held_up_by_a_foreign_container),
      cmocka_unit_test(test_a_name_that_is_taken_by_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
