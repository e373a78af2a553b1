/* Stops that Docker does not carry out. */
#include "tests/unit/agent/core_rig.h"

static void test_a_stop_that_hangs(void **state) {
  (void)state;
  rig_running();
  rig.want[API][0].stop = true;
  rig_tell_full();
  rig_hangs(AGENT_OP_STOP);
  rig_hangs(AGENT_OP_KILL);
  assert_int_equal(rig.pending[0]->act.op_kind, AGENT_OP_REMOVE);
  rig_settle(5);
  assert_int_equal(rig.container_count, 0);
  assert_int_equal(rig.gone, 1);
  rig_finish();
}

/* Docker refuses to stop it, and says that it runs: asked again and again, but not at once. */
static void test_a_stop_that_is_refused(void **state) {
  (void)state;
  rig_running();
  rig.want[API][0].stop = true;
  rig_tell_full();
  unsigned asked = 0;
  for (; rig.container_count; asked++) {
    assert_true(asked < 20);
    for (unsigned n = 0; n < rig.pending_count; n++)
      if (rig.pending[n]->act.op_kind == AGENT_OP_STOP || rig.pending[n]->act.op_kind == AGENT_OP_KILL)
        rig_refuse(rig.pending[n], ERR_CONFLICT);
    assert_true(rig_advance(rig.now + NS_PER_SEC));
  }
  rig_settle(5);
  assert_int_equal(rig.gone, 1);
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_stop_that_hangs),
      cmocka_unit_test(test_a_stop_that_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
