/* A secret that a spec names and nobody has set. */
#include "tests/unit/agent/core_rig.h"

static void test_a_missing_secret_is_waited_for(void **state) {
  (void)state;
  rig_begin(11, false);
  rig_come_up();
  rig_want(API, 1, 1);
  Node__Assignment *a = rig_assignment(API, 0);
  Model__SecretVersion missing = MODEL__SECRET_VERSION__INIT, *list[1] = {&missing};
  char name[] = "DB", value[] = "${secrets.DB}";
  Model__Pair pair = MODEL__PAIR__INIT, *env[1] = {&pair};
  pair.key = name;
  pair.value = value;
  missing.name = name;
  PB_SET(&missing, version, 0);
  a->secrets = list;
  a->n_secrets = 1;
  a->revision->spec->env = env;
  a->revision->spec->n_env = 1;
  rig_tell(a);
  rig_settle(300);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_int_equal(rig.creates, 0);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_WAITING);
  assert_string_equal(i->reason, "secret shop/DB is missing: orcactl secrets set DB --project shop");
  assert_int_equal(i->restarts, 0);
  PB_SET(&missing, version, 1);
  rig_tell(a);
  rig_settle(5);
  assert_int_equal(rig.creates, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&missing, version, 2); /* a new value, or none any more, restarts nothing */
  rig_tell(a);
  PB_SET(&missing, version, 0);
  rig_tell(a);
  rig_settle(10);
  assert_int_equal(rig.creates, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  a->secrets = NULL;
  a->n_secrets = 0;
  a->revision->spec->env = NULL;
  a->revision->spec->n_env = 0;
  node__assignment__free_unpacked(a, NULL);
  rig_finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_missing_secret_is_waited_for),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
