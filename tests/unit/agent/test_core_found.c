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

/* One part of all that is wanted, with this one in it, or none. */
static void tell_part(uint32_t part, bool more, Node__Assignment *a) {
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  PB_SET(&d, full, 1);
  PB_SET(&d, version, 1);
  PB_SET(&d, part, part);
  PB_SET(&d, more, more);
  d.assigned = &a;
  d.n_assigned = a ? 1 : 0;
  rig_step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  if (a)
    node__assignment__free_unpacked(a, NULL);
}

/* What no part has had is not wanted, once the last one has come: not before, whatever is compared meanwhile, and whoever begins anew. */
static void test_what_is_wanted_comes_in_parts(void **state) {
  (void)state;
  find_running(4, 2);
  rig_settle(5);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  rig_want(API, 4, 2);
  rig_want(OPEN, 1, 1);
  tell_part(0, true, rig_assignment(OPEN, 0));
  rig_settle(100);
  assert_false(rig.core.have_desired);
  assert_int_equal(i->want, AGENT_WANT_KEEP);
  tell_part(1, false, rig_assignment(API, 0));
  assert_true(rig.core.have_desired);
  assert_int_equal(i->want, AGENT_WANT_RUN);
  assert_int_equal(agent_core_find(&rig.core, "shop/web.1")->want, AGENT_WANT_RUN);

  tell_part(0, true, rig_assignment(API, 0)); /* of a conversation that was cut off */
  tell_part(0, true, rig_assignment(OPEN, 0));
  rig_settle(100); /* in Docker's list it is all the time: that makes it none of the wanted */
  assert_int_equal(i->want, AGENT_WANT_RUN);
  tell_part(1, false, NULL);
  rig.want[API][0].assigned = false;
  rig_settle(5);
  assert_null(agent_core_find(&rig.core, "shop/api.1"));
  assert_int_equal(agent_core_find(&rig.core, "shop/web.1")->want, AGENT_WANT_RUN);
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
      cmocka_unit_test(test_what_is_wanted_comes_in_parts),
      cmocka_unit_test(test_a_look_that_fails_is_not_waited_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
