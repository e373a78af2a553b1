/* The core at size and at its edges: many nodes and instances, more than one transaction holds, malformed records, services that come back
 * under the same name, history that is trimmed, unknown fields that survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/bus/pb.h"
#include "orca-scheduler/sched_core.h"

#define NOW INT64_C(1700000000000)

struct fixture {
  struct sched_core *core;
  struct sched_actions actions;
};

static int setup(void **state) {
  struct fixture *f = calloc(1, sizeof *f);
  f->core = sched_core_new();
  *state = f;
  return f->core ? 0 : -1;
}

static int teardown(void **state) {
  struct fixture *f = *state;
  sched_core_free(f->core);
  sched_actions_fini(&f->actions);
  free(f);
  return 0;
}

static void put(struct fixture *f, const char *key, const ProtobufCMessage *m) {
  uint8_t buf[4096];
  assert_true(protobuf_c_message_get_packed_size(m) <= sizeof buf);
  struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = key, .value = buf, .len = protobuf_c_message_pack(m, buf)};
  assert_int_equal(sched_core_step(f->core, &event, NOW, &f->actions, NULL), 0);
}

static void del(struct fixture *f, const char *key) {
  struct sched_event event = {.kind = SCHED_EVENT_DELETE, .key = key};
  assert_int_equal(sched_core_step(f->core, &event, NOW, &f->actions, NULL), 0);
}

static size_t run(struct fixture *f, int64_t now) {
  struct sched_event event = {.kind = SCHED_EVENT_RUN};
  assert_int_equal(sched_core_step(f->core, &event, now, &f->actions, NULL), 0);
  return f->actions.count;
}

static void put_node(struct fixture *f, const char *name, uint64_t memory) {
  char key[KEY_MAX];
  Model__Node node = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  node.name = (char *)(uintptr_t)name;
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, memory);
  PB_SET(&status, cpu_milli, 64000);
  key_named(key, KEY_NODES, name);
  put(f, key, &node.base);
  key_named(key, KEY_NODE_STATUS, name);
  put(f, key, &status.base);
}

static void put_revision(struct fixture *f, const char *service, uint64_t number, uint64_t memory, const char *volume, const char *avoid) {
  Model__Revision revision = MODEL__REVISION__INIT;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Resources resources = MODEL__RESOURCES__INIT;
  Model__Volume data = MODEL__VOLUME__INIT, *volumes[] = {&data};
  Model__Placement placement = MODEL__PLACEMENT__INIT;
  char *avoids[] = {(char *)(uintptr_t)avoid};
  spec.name = (char *)(uintptr_t)service;
  spec.project = (char *)(uintptr_t) "shop";
  spec.image = (char *)(uintptr_t) "x";
  spec.resources = &resources;
  PB_SET(&resources, memory, memory);
  if (volume) {
    data.source = (char *)(uintptr_t)volume;
    spec.n_volumes = 1;
    spec.volumes = volumes;
  }
  if (avoid) {
    placement.n_avoid = 1;
    placement.avoid = avoids;
    spec.placement = &placement;
  }
  revision.spec = &spec;
  char key[KEY_MAX];
  key_numbered(key, KEY_REVISIONS, "shop", service, number);
  put(f, key, &revision.base);
}

static void put_service(struct fixture *f, const char *service, uint64_t revision, uint32_t replicas) {
  char key[KEY_MAX];
  Model__Service m = MODEL__SERVICE__INIT;
  PB_SET(&m, revision, revision);
  PB_SET(&m, replicas, replicas);
  key_service(key, KEY_SERVICES, "shop", service);
  put(f, key, &m.base);
}

static void put_status(struct fixture *f, const char *service, uint64_t number, const char *node, bool ready) {
  char key[KEY_MAX];
  Model__InstanceStatus m = MODEL__INSTANCE_STATUS__INIT;
  PB_SET(&m, epoch, 1);
  m.node = (char *)(uintptr_t)node;
  PB_SET(&m, phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&m, ready, ready);
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", service, number);
  put(f, key, &m.base);
}

static const struct sched_instance *instance(const struct fixture *f, const char *service, uint64_t number) {
  char id[64];
  snprintf(id, sizeof id, "shop/%s", service);
  const struct sched_service *s = sched_state_service(sched_core_state(f->core), id);
  return s ? sched_service_instance(s, number) : NULL;
}

static void test_many(void **state) {
  struct fixture *f = *state;
  for (int i = 0; i < 1000; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    put_node(f, name, UINT64_C(1100) << 20);
  }
  put_revision(f, "api", 1, UINT64_C(100) << 20, NULL, NULL);
  put_service(f, "api", 1, 10000);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  size_t puts = 0, rounds = 0;
  do {
    assert_true(run(f, NOW) <= SCHED_MAX_ACTIONS + 8);
    puts += f->actions.count;
    rounds++;
  } while (f->actions.more && rounds < 100);
  clock_gettime(CLOCK_MONOTONIC, &b);
  double ms = (double)(b.tv_sec - a.tv_sec) * 1000 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
  print_message("10,000 instances on 1,000 nodes: %.0f ms, %zu transactions\n", ms, rounds);
  assert_true(puts > 10000 && puts < 10100);
  assert_int_equal(run(f, NOW), 0);
  const struct sched_state *s = sched_core_state(f->core);
  for (size_t i = 0; i < s->nodes.count; i++)
    assert_true(s->nodes.nodes[i]->instances <= 11);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < 50; i++) {
    put_status(f, "api", (uint64_t)i + 1, instance(f, "api", (uint64_t)i + 1)->record->node, true);
    run(f, NOW);
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  ms = (double)(b.tv_sec - a.tv_sec) * 1000 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
  print_message("one status among 10,000: %.2f ms\n", ms / 50);
}

static void test_malformed(void **state) {
  struct fixture *f = *state;
  static const char *const keys[] = {"/services/shop",        "/services/shop/api/x",
                                     "/instances/shop/api/x", "/instances/shop/api/0000000001x",
                                     "/services//api",        "/nodes/",
                                     "/revisions/a/b/",       "/nodes/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = keys[i], .value = (const uint8_t *)"", .len = 0};
    struct err err;
    assert_int_equal(sched_core_step(f->core, &event, NOW, &f->actions, &err), -1);
  }
  struct sched_event garbage = {.kind = SCHED_EVENT_PUT, .key = "/services/shop/api", .value = (const uint8_t *)"\x0a\xff\xff", .len = 3};
  struct err err;
  assert_int_equal(sched_core_step(f->core, &garbage, NOW, &f->actions, &err), -1);
  assert_non_null(strstr(err.msg, "/services/shop/api"));
  assert_int_equal(run(f, NOW), 0);
  /* Empty messages are well-formed, and nothing to act upon. */
  struct sched_event empty = {.kind = SCHED_EVENT_PUT, .key = "/services/shop/api", .value = (const uint8_t *)"", .len = 0};
  assert_int_equal(sched_core_step(f->core, &empty, NOW, &f->actions, NULL), 0);
  assert_int_equal(run(f, NOW), 0);
}

static void test_a_service_that_comes_back(void **state) {
  struct fixture *f = *state;
  put_node(f, "n1", UINT64_C(8) << 30);
  put_revision(f, "api", 1, 0, NULL, NULL);
  put_service(f, "api", 1, 1);
  run(f, NOW);
  put_status(f, "api", 1, "n1", true);
  run(f, NOW);
  /* Purged and deployed again before the scheduler looks: the same revision number, another service. */
  del(f, "/services/shop/api");
  del(f, "/revisions/shop/api/0000000001");
  put_revision(f, "api", 1, 0, NULL, NULL);
  put_service(f, "api", 1, 1);
  run(f, NOW + 10);
  assert_non_null(instance(f, "api", 2)); /* a new one, with a number that was never given */
  put_status(f, "api", 2, "n1", true);
  run(f, NOW + 20);
  run(f, NOW + 20000);
  assert_int_equal(instance(f, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_DRAIN);
}

static void test_removal_leaves_nothing(void **state) {
  struct fixture *f = *state;
  put_node(f, "n1", UINT64_C(8) << 30);
  put_revision(f, "api", 1, 0, NULL, NULL);
  put_service(f, "api", 1, 2);
  run(f, NOW);
  put_status(f, "api", 1, "n1", true);
  put_status(f, "api", 2, "n1", true);
  run(f, NOW);
  del(f, "/services/shop/api");
  del(f, "/revisions/shop/api/0000000001");
  run(f, NOW);
  assert_int_equal(instance(f, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_DRAIN);
  assert_true(f->actions.next_ms < ROLLOUT_NEVER); /* the drain has an end, also without its revision's record */
  for (int i = 0; i < 3 && f->actions.next_ms < ROLLOUT_NEVER; i++)
    run(f, f->actions.next_ms);
  assert_int_equal(instance(f, "api", 1)->record->desired, MODEL__DESIRED__DESIRED_STOP);
  del(f, "/instance-status/shop/api/0000000001");
  del(f, "/instance-status/shop/api/0000000002");
  run(f, NOW + 100000);
  run(f, NOW + 100000);
  assert_null(sched_state_service(sched_core_state(f->core), "shop/api"));
  assert_int_equal(sched_core_state(f->core)->nodes.nodes[0]->instances, 0);
}

static void test_volumes_and_avoid(void **state) {
  struct fixture *f = *state;
  put_node(f, "n1", UINT64_C(8) << 30);
  put_node(f, "n2", UINT64_C(16) << 30);
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  char *volumes[] = {(char *)(uintptr_t) "shop/data"};
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, UINT64_C(16) << 30);
  status.n_volumes = 1;
  status.volumes = volumes;
  put(f, "/node-status/n2", &status.base);
  put_revision(f, "db", 1, 1 << 20, "data", NULL);
  put_service(f, "db", 1, 2);
  put_revision(f, "batch", 1, 1 << 20, NULL, "db");
  put_service(f, "batch", 1, 1);
  put_revision(f, "fresh", 1, 1 << 20, "new", NULL);
  put_service(f, "fresh", 1, 3);
  run(f, NOW);
  assert_string_equal(instance(f, "db", 1)->record->node, "n2");
  assert_string_equal(instance(f, "db", 2)->record->node, "n2");
  assert_string_equal(instance(f, "batch", 1)->record->node, "n1");
  /* A volume that exists nowhere yet: where the first goes, the others follow. */
  assert_string_equal(instance(f, "fresh", 2)->record->node, instance(f, "fresh", 1)->record->node);
  assert_string_equal(instance(f, "fresh", 3)->record->node, instance(f, "fresh", 1)->record->node);
  /* And avoiding goes both ways. */
  put_revision(f, "db2", 1, 0, NULL, NULL);
  put_revision(f, "quiet", 1, 0, NULL, "db2");
  put_service(f, "quiet", 1, 1);
  run(f, NOW);
  put_service(f, "db2", 1, 1);
  run(f, NOW);
  assert_string_not_equal(instance(f, "quiet", 1)->record->node, instance(f, "db2", 1)->record->node);
}

static void test_pending_is_asked_again(void **state) {
  struct fixture *f = *state;
  put_node(f, "n1", UINT64_C(100) << 20);
  put_revision(f, "api", 1, UINT64_C(80) << 20, NULL, NULL);
  put_service(f, "api", 1, 3);
  run(f, NOW);
  assert_string_equal(instance(f, "api", 1)->record->node, "n1");
  assert_string_equal(instance(f, "api", 2)->record->node, "");
  assert_string_equal(instance(f, "api", 2)->record->reason, "no node fits: n1: memory: needs 80 MiB, 20 MiB free");
  assert_int_equal(instance(f, "api", 2)->record->n_verdicts, 1);
  assert_int_equal(run(f, NOW), 0);
  put_node(f, "n2", UINT64_C(1000) << 20);
  run(f, NOW);
  assert_string_equal(instance(f, "api", 2)->record->node, "n2");
  assert_string_equal(instance(f, "api", 3)->record->node, "n2");
  assert_string_equal(instance(f, "api", 3)->record->reason, "");
}

static void test_history_is_trimmed(void **state) {
  struct fixture *f = *state;
  for (uint32_t i = 0; i < SCHED_MAX_HISTORY; i++) {
    char key[KEY_MAX];
    key_event(key, KEY_HISTORY_SCHEDULER, NOW - 100000 + i, 0);
    struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = key, .value = (const uint8_t *)"", .len = 0};
    sched_core_step(f->core, &event, NOW, &f->actions, NULL);
  }
  put_node(f, "n1", UINT64_C(8) << 30);
  put_revision(f, "api", 1, 0, NULL, NULL);
  put_service(f, "api", 1, 1);
  run(f, NOW - 200000); /* also when the clock is behind what is there */
  char oldest[KEY_MAX], first[KEY_MAX] = "";
  key_event(oldest, KEY_HISTORY_SCHEDULER, NOW - 100000, 0);
  bool deleted = false;
  for (size_t i = 0; i < f->actions.count; i++) {
    const struct sched_action *a = &f->actions.list[i];
    deleted |= a->kind == SCHED_ACTION_DELETE && strcmp(a->key, oldest) == 0;
    if (a->kind == SCHED_ACTION_PUT && strncmp(a->key, KEY_HISTORY_SCHEDULER, strlen(KEY_HISTORY_SCHEDULER)) == 0)
      snprintf(first, sizeof first, "%s", a->key);
  }
  assert_true(deleted);
  char newest[KEY_MAX];
  key_event(newest, KEY_HISTORY_SCHEDULER, NOW - 100000 + SCHED_MAX_HISTORY - 1, 0);
  assert_true(strcmp(first, newest) > 0);
}

static void test_unknown_fields_survive(void **state) {
  struct fixture *f = *state;
  put_node(f, "n1", UINT64_C(8) << 30);
  put_revision(f, "api", 1, 0, NULL, NULL);
  put_service(f, "api", 1, 0);
  /* An instance as a later version may write it: field 900 = "x". */
  static const uint8_t later[] = {0x18, 1, 0x20, 1, 0x32, 2, 'n', '1', 0x38, 1, 0x40, 0, 0xa2, 0x38, 1, 'x'};
  struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = "/instances/shop/api/0000000001", .value = later, .len = sizeof later};
  assert_int_equal(sched_core_step(f->core, &event, NOW, &f->actions, NULL), 0);
  put_status(f, "api", 1, "n1", true);
  run(f, NOW);
  bool found = false;
  for (size_t i = 0; i < f->actions.count; i++)
    if (strcmp(f->actions.list[i].key, event.key) == 0)
      found = memmem(f->actions.list[i].value, f->actions.list[i].len, "\xa2\x38\x01x", 4) != NULL;
  assert_true(found);
}

/* Removed while it drained, and the scheduler was started again: its requests have their time all the same. */
static void test_drain_of_a_revision_that_is_gone(void **state) {
  struct fixture *f = *state;
  Model__Instance instance = MODEL__INSTANCE__INIT;
  char project[] = "shop", api[] = "api", n1[] = "n1";
  put_node(f, "n1", 1 << 30);
  instance.project = project;
  instance.service = api;
  instance.node = n1;
  PB_SET(&instance, number, 1);
  PB_SET(&instance, revision, 1);
  PB_SET(&instance, epoch, 1);
  PB_SET(&instance, desired, MODEL__DESIRED__DESIRED_DRAIN);
  PB_SET(&instance, desired_since_ms, NOW);
  put(f, "/instances/shop/api/0000000001", &instance.base);
  put_status(f, "api", 1, "n1", true);
  assert_int_equal(run(f, NOW + 1), 0);
  assert_int_equal(f->actions.next_ms, NOW + 65000);
  assert_int_equal(run(f, NOW + 65000), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_many, setup, teardown),
      cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_service_that_comes_back, setup, teardown),
      cmocka_unit_test_setup_teardown(test_removal_leaves_nothing, setup, teardown),
      cmocka_unit_test_setup_teardown(test_volumes_and_avoid, setup, teardown),
      cmocka_unit_test_setup_teardown(test_pending_is_asked_again, setup, teardown),
      cmocka_unit_test_setup_teardown(test_history_is_trimmed, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unknown_fields_survive, setup, teardown),
      cmocka_unit_test_setup_teardown(test_drain_of_a_revision_that_is_gone, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
