/* The core at size and at its edges: many nodes and instances, more than one transaction holds, malformed records, services that come back
 * under the same name, history that is trimmed, unknown fields that survive. */
#include <time.h>

#include "tests/unit/scheduler/core_rig.h"

/* What it writes when it decides at a moment of its own; all else happens at NOW. */
static size_t run(struct rig *r, int64_t at) {
  r->now = at;
  assert_int_equal(rig_decide(r, 0, NULL), 0);
  r->now = NOW;
  return r->actions.count;
}

static void put_node(struct rig *r, const char *name, uint64_t memory) {
  rig_put_node(r, name, true, memory, 0);
}

static void put_revision(struct rig *r, const char *service, uint64_t number, uint64_t memory, const char *volume, const char *avoid) {
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Resources resources = MODEL__RESOURCES__INIT;
  Model__Volume data = MODEL__VOLUME__INIT, *volumes[] = {&data};
  Model__Placement placement = MODEL__PLACEMENT__INIT;
  char *avoids[] = {text(avoid)};
  spec.resources = &resources;
  PB_SET(&resources, memory, memory);
  if (volume) {
    data.source = text(volume);
    spec.n_volumes = 1;
    spec.volumes = volumes;
  }
  if (avoid) {
    placement.n_avoid = 1;
    placement.avoid = avoids;
    spec.placement = &placement;
  }
  rig_put_revision(r, service, number, &spec, 0);
}

static void put_service(struct rig *r, const char *service, uint64_t revision, uint32_t replicas) {
  Model__Service m = MODEL__SERVICE__INIT;
  PB_SET(&m, revision, revision);
  PB_SET(&m, replicas, replicas);
  rig_put_service(r, service, &m);
}

static void test_many(void **state) {
  struct rig *r = *state;
  for (int i = 0; i < 1000; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    put_node(r, name, UINT64_C(1100) << 20);
  }
  put_revision(r, "api", 1, UINT64_C(100) << 20, NULL, NULL);
  put_service(r, "api", 1, 10000);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  size_t puts = 0, rounds = 0;
  do {
    assert_true(run(r, NOW) <= SCHED_MAX_ACTIONS + 8);
    puts += r->actions.count;
    rounds++;
  } while (r->actions.more && rounds < 100);
  clock_gettime(CLOCK_MONOTONIC, &b);
  double ms = (double)(b.tv_sec - a.tv_sec) * 1000 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
  print_message("10,000 instances on 1,000 nodes: %.0f ms, %zu transactions\n", ms, rounds);
  assert_true(puts > 10000 && puts < 10100);
  assert_int_equal(run(r, NOW), 0);
  const struct sched_state *s = sched_core_state(r->core);
  for (size_t i = 0; i < s->nodes.count; i++)
    assert_true(s->nodes.nodes[i]->instances <= 11);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < 50; i++) {
    rig_put_running(r, "api", (uint64_t)i + 1, rig_instance(r, "api", (uint64_t)i + 1)->record->node);
    run(r, NOW);
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  ms = (double)(b.tv_sec - a.tv_sec) * 1000 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
  print_message("one status among 10,000: %.2f ms\n", ms / 50);
}

static void test_malformed(void **state) {
  struct rig *r = *state;
  static const char *const keys[] = {"/services/shop",        "/services/shop/api/x",
                                     "/instances/shop/api/x", "/instances/shop/api/0000000001x",
                                     "/services//api",        "/nodes/",
                                     "/revisions/a/b/",       "/nodes/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    struct err err;
    assert_int_equal(rig_hear(r, keys[i], (const uint8_t *)"", 0, &err), -1);
  }
  struct err err;
  assert_int_equal(rig_hear(r, "/services/shop/api", (const uint8_t *)"\x0a\xff\xff", 3, &err), -1);
  assert_non_null(strstr(err.msg, "/services/shop/api"));
  assert_int_equal(run(r, NOW), 0);
  /* Empty messages are well-formed, and nothing to act upon. */
  assert_int_equal(rig_hear(r, "/services/shop/api", (const uint8_t *)"", 0, NULL), 0);
  assert_int_equal(run(r, NOW), 0);
}

static void test_a_service_that_comes_back(void **state) {
  struct rig *r = *state;
  put_node(r, "n1", UINT64_C(8) << 30);
  put_revision(r, "api", 1, 0, NULL, NULL);
  put_service(r, "api", 1, 1);
  run(r, NOW);
  rig_put_running(r, "api", 1, "n1");
  run(r, NOW);
  /* Purged and deployed again before the scheduler looks: the same revision number, another service. */
  rig_delete(r, "/services/shop/api");
  rig_delete(r, "/revisions/shop/api/0000000001");
  put_revision(r, "api", 1, 0, NULL, NULL);
  put_service(r, "api", 1, 1);
  run(r, NOW + 10);
  assert_non_null(rig_instance(r, "api", 2)); /* a new one, with a number that was never given */
  rig_put_running(r, "api", 2, "n1");
  run(r, NOW + 20);
  run(r, NOW + 20000);
  assert_int_equal(rig_instance(r, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_DRAIN);
}

static void test_removal_leaves_nothing(void **state) {
  struct rig *r = *state;
  put_node(r, "n1", UINT64_C(8) << 30);
  put_revision(r, "api", 1, 0, NULL, NULL);
  put_service(r, "api", 1, 2);
  run(r, NOW);
  rig_put_running(r, "api", 1, "n1");
  rig_put_running(r, "api", 2, "n1");
  run(r, NOW);
  rig_delete(r, "/services/shop/api");
  rig_delete(r, "/revisions/shop/api/0000000001");
  run(r, NOW);
  assert_int_equal(rig_instance(r, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_DRAIN);
  assert_true(r->actions.next_ms < ROLLOUT_NEVER); /* the drain has an end, also without its revision's record */
  for (int i = 0; i < 3 && r->actions.next_ms < ROLLOUT_NEVER; i++)
    run(r, r->actions.next_ms);
  assert_int_equal(rig_instance(r, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_STOP);
  rig_delete(r, "/instance-status/shop/api/0000000001");
  rig_delete(r, "/instance-status/shop/api/0000000002");
  run(r, NOW + 100000);
  run(r, NOW + 100000);
  assert_null(rig_service(r, "api"));
  assert_int_equal(sched_core_state(r->core)->nodes.nodes[0]->instances, 0);
}

static void test_volumes_and_avoid(void **state) {
  struct rig *r = *state;
  put_node(r, "n1", UINT64_C(8) << 30);
  put_node(r, "n2", UINT64_C(16) << 30);
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  char *volumes[] = {text("shop/data")};
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, UINT64_C(16) << 30);
  status.n_volumes = 1;
  status.volumes = volumes;
  rig_put(r, "/node-status/n2", &status.base);
  put_revision(r, "db", 1, 1 << 20, "data", NULL);
  put_service(r, "db", 1, 2);
  put_revision(r, "batch", 1, 1 << 20, NULL, "db");
  put_service(r, "batch", 1, 1);
  put_revision(r, "fresh", 1, 1 << 20, "new", NULL);
  put_service(r, "fresh", 1, 3);
  run(r, NOW);
  assert_string_equal(rig_instance(r, "db", 1)->record->node, "n2");
  assert_string_equal(rig_instance(r, "db", 2)->record->node, "n2");
  assert_string_equal(rig_instance(r, "batch", 1)->record->node, "n1");
  /* A volume that exists nowhere yet: where the first goes, the others follow. */
  assert_string_equal(rig_instance(r, "fresh", 2)->record->node, rig_instance(r, "fresh", 1)->record->node);
  assert_string_equal(rig_instance(r, "fresh", 3)->record->node, rig_instance(r, "fresh", 1)->record->node);
  /* And avoiding goes both ways. */
  put_revision(r, "db2", 1, 0, NULL, NULL);
  put_revision(r, "quiet", 1, 0, NULL, "db2");
  put_service(r, "quiet", 1, 1);
  run(r, NOW);
  put_service(r, "db2", 1, 1);
  run(r, NOW);
  assert_string_not_equal(rig_instance(r, "quiet", 1)->record->node, rig_instance(r, "db2", 1)->record->node);
}

static void test_pending_is_asked_again(void **state) {
  struct rig *r = *state;
  put_node(r, "n1", UINT64_C(100) << 20);
  put_revision(r, "api", 1, UINT64_C(80) << 20, NULL, NULL);
  put_service(r, "api", 1, 3);
  run(r, NOW);
  assert_string_equal(rig_instance(r, "api", 1)->record->node, "n1");
  assert_string_equal(rig_instance(r, "api", 2)->record->node, "");
  assert_string_equal(rig_instance(r, "api", 2)->record->reason, "no node fits: n1: memory: needs 80 MiB, 20 MiB free");
  assert_int_equal(rig_instance(r, "api", 2)->record->n_verdicts, 1);
  assert_int_equal(run(r, NOW), 0);
  put_node(r, "n2", UINT64_C(1000) << 20);
  run(r, NOW);
  assert_string_equal(rig_instance(r, "api", 2)->record->node, "n2");
  assert_string_equal(rig_instance(r, "api", 3)->record->node, "n2");
  assert_string_equal(rig_instance(r, "api", 3)->record->reason, "");
}

static void test_history_is_trimmed(void **state) {
  struct rig *r = *state;
  for (uint32_t i = 0; i < SCHED_MAX_HISTORY; i++) {
    char key[KEY_MAX];
    key_event(key, KEY_HISTORY_SCHEDULER, NOW - 100000 + i, 0);
    assert_int_equal(rig_hear(r, key, (const uint8_t *)"", 0, NULL), 0);
  }
  put_node(r, "n1", UINT64_C(8) << 30);
  put_revision(r, "api", 1, 0, NULL, NULL);
  put_service(r, "api", 1, 1);
  run(r, NOW - 200000); /* also when the clock is behind what is there */
  char oldest[KEY_MAX], first[KEY_MAX] = "";
  key_event(oldest, KEY_HISTORY_SCHEDULER, NOW - 100000, 0);
  bool deleted = false;
  for (size_t i = 0; i < r->actions.count; i++) {
    const struct sched_action *a = &r->actions.list[i];
    deleted |= a->kind == SCHED_ACTION_DELETE && strcmp(a->key, oldest) == 0;
    if (a->kind == SCHED_ACTION_PUT && has_prefix(a->key, KEY_HISTORY_SCHEDULER))
      snprintf(first, sizeof first, "%s", a->key);
  }
  assert_true(deleted);
  char newest[KEY_MAX];
  key_event(newest, KEY_HISTORY_SCHEDULER, NOW - 100000 + SCHED_MAX_HISTORY - 1, 0);
  assert_true(strcmp(first, newest) > 0);
}

static void test_unknown_fields_survive(void **state) {
  struct rig *r = *state;
  put_node(r, "n1", UINT64_C(8) << 30);
  put_revision(r, "api", 1, 0, NULL, NULL);
  put_service(r, "api", 1, 0);
  /* An instance as a later version may write it: field 900 = "x". */
  static const uint8_t later[] = {0x18, 1, 0x20, 1, 0x32, 2, 'n', '1', 0x38, 1, 0x40, 0, 0xa2, 0x38, 1, 'x'};
  const char *key = "/instances/shop/api/0000000001";
  rig_put_bytes(r, key, later, sizeof later);
  rig_put_running(r, "api", 1, "n1");
  run(r, NOW);
  bool found = false;
  for (size_t i = 0; i < r->actions.count; i++)
    if (strcmp(r->actions.list[i].key, key) == 0)
      found = memmem(r->actions.list[i].value, r->actions.list[i].len, "\xa2\x38\x01x", 4) != NULL;
  assert_true(found);
}

/* Removed while it drained, and the scheduler was started again: its requests have their time all the same. */
static void test_drain_of_a_revision_that_is_gone(void **state) {
  struct rig *r = *state;
  Model__Instance instance = MODEL__INSTANCE__INIT;
  char project[] = "shop", api[] = "api", n1[] = "n1";
  put_node(r, "n1", 1 << 30);
  instance.project = project;
  instance.service = api;
  instance.node = n1;
  PB_SET(&instance, number, 1);
  PB_SET(&instance, revision, 1);
  PB_SET(&instance, epoch, 1);
  PB_SET(&instance, desired, MODEL__DESIRED__DESIRED_DRAIN);
  PB_SET(&instance, desired_since_ms, NOW);
  rig_put(r, "/instances/shop/api/0000000001", &instance.base);
  rig_put_running(r, "api", 1, "n1");
  assert_int_equal(run(r, NOW + 1), 0);
  assert_int_equal(r->actions.next_ms, NOW + 65000);
  assert_int_equal(run(r, NOW + 65000), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_many, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_malformed, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_a_service_that_comes_back, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_removal_leaves_nothing, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_volumes_and_avoid, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_pending_is_asked_again, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_history_is_trimmed, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_unknown_fields_survive, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_drain_of_a_revision_that_is_gone, rig_setup, rig_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
