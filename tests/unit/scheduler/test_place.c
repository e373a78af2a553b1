/* Where an instance goes: each filter with its words, the order among those that fit, and usage that never drifts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-scheduler/needs.h"
#include "orca-scheduler/place.h"
#include "tests/unit/scheduler/xorshift.h"

#define MIB (UINT64_C(1) << 20)
#define NODES 4

struct fixture {
  struct place_table table;
  Model__Node nodes[NODES];
  Model__NodeStatus status[NODES];
  Model__Pair zone[NODES], *labels[NODES][1];
  struct place_need need;
  struct place_request request;
  struct place_answer answer;
};

static int setup(void **state) {
  static const char *const names[NODES] = {"n1", "n2", "n3", "n4"};
  struct fixture *f = calloc(1, sizeof *f);
  for (int i = 0; i < NODES; i++) {
    model__node__init(&f->nodes[i]);
    model__node_status__init(&f->status[i]);
    model__pair__init(&f->zone[i]);
    f->zone[i].key = (char *)(uintptr_t) "zone";
    f->zone[i].value = (char *)(uintptr_t)(i < 2 ? "a" : "b");
    f->labels[i][0] = &f->zone[i];
    f->nodes[i].n_labels = 1;
    f->nodes[i].labels = f->labels[i];
    PB_SET(&f->status[i], state, MODEL__NODE_STATE__NODE_READY);
    PB_SET(&f->status[i], docker_ok, 1);
    PB_SET(&f->status[i], memory, 1024 * MIB);
    PB_SET(&f->status[i], cpu_milli, 4000);
    PB_SET(&f->status[i], pids, 1000);
    struct place_node *n = place_node_add(&f->table, names[NODES - 1 - i]);
    assert_non_null(n);
  }
  for (int i = 0; i < NODES; i++) {
    assert_string_equal(f->table.nodes[i]->name, names[i]); /* whatever the order they came in */
    f->table.nodes[i]->record = &f->nodes[i];
    f->table.nodes[i]->status = &f->status[i];
  }
  f->request.need = &f->need;
  *state = f;
  return 0;
}

static int teardown(void **state) {
  struct fixture *f = *state;
  place_table_fini(&f->table);
  free(f);
  return 0;
}

static const char *ask(struct fixture *f) {
  assert_int_equal(place_instance(&f->table, &f->request, &f->answer), 0);
  return f->answer.node ? f->answer.node->name : "";
}

static const char *verdict(const struct fixture *f, const char *node) {
  for (size_t i = 0; i < f->answer.verdict_count; i++)
    if (strcmp(f->answer.verdicts[i].node, node) == 0)
      return f->answer.verdicts[i].reason;
  return "none";
}

static void take(struct fixture *f, int node, const struct place_need *need) {
  int group;
  assert_int_equal(place_take(f->table.nodes[node], need, &group), 0);
}

static void test_best_fit(void **state) {
  struct fixture *f = *state;
  struct place_need half = {.memory = 512 * MIB};
  f->need.memory = 300 * MIB;
  assert_string_equal(ask(f), "n1"); /* all equal: the first by name */
  take(f, 2, &half);
  assert_string_equal(ask(f), "n3");
  assert_string_equal(verdict(f, "n3"), "best fit: 39 % full with it");
  assert_string_equal(verdict(f, "n1"), "fits: 14 % full with it");
  assert_true(f->answer.verdicts[0].chosen && f->answer.verdicts[0].fits);
  f->need.memory = 600 * MIB;
  assert_string_equal(ask(f), "n1");
  assert_string_equal(verdict(f, "n3"), "memory: needs 600 MiB, 512 MiB free");
}

static void test_ties_are_spread(void **state) {
  struct fixture *f = *state;
  uint32_t own[NODES] = {1, 0, 0, 0};
  f->request.own = own;
  assert_string_equal(ask(f), "n2");
  own[1] = own[2] = 1;
  assert_string_equal(ask(f), "n4");
}

static void test_spread_by_label_comes_first(void **state) {
  struct fixture *f = *state;
  Model__Placement placement = MODEL__PLACEMENT__INIT;
  placement.spread = (char *)(uintptr_t) "zone";
  uint32_t own[NODES] = {1, 0, 0, 0};
  struct place_need half = {.memory = 512 * MIB};
  f->request.own = own;
  f->request.placement = &placement;
  f->need.memory = 100 * MIB;
  take(f, 1, &half); /* n2 would be the best fit, but zone a has one already */
  assert_string_equal(ask(f), "n3");
  own[2] = 1;
  assert_string_equal(ask(f), "n2");
  placement.spread = (char *)(uintptr_t) "rack"; /* nobody has it: one value for all */
  assert_string_equal(ask(f), "n2");
}

static void test_filters(void **state) {
  struct fixture *f = *state;
  Model__Placement placement = MODEL__PLACEMENT__INIT;
  f->request.placement = &placement;
  placement.node = (char *)(uintptr_t) "n2";
  assert_string_equal(ask(f), "n2");
  assert_string_equal(verdict(f, "n1"), "node: wants n2");
  placement.node = NULL;

  Model__Pair label = MODEL__PAIR__INIT, *labels[] = {&label};
  label.key = (char *)(uintptr_t) "zone";
  label.value = (char *)(uintptr_t) "b";
  placement.n_labels = 1;
  placement.labels = labels;
  assert_string_equal(ask(f), "n3");
  assert_string_equal(verdict(f, "n1"), "labels: wants zone=b, has a");
  label.key = (char *)(uintptr_t) "ssd";
  assert_string_equal(ask(f), "");
  assert_string_equal(verdict(f, "n1"), "labels: wants ssd=b, has none");
  assert_string_equal(f->answer.reason, "none of 4 nodes fits: labels 4");
  placement.n_labels = 0;

  PB_SET(&f->status[0], state, MODEL__NODE_STATE__NODE_UNREACHABLE);
  f->status[0].reason = (char *)(uintptr_t) "agent is not connected";
  PB_SET(&f->status[1], docker_ok, 0);
  PB_SET(&f->nodes[2], drain, 1);
  f->table.nodes[3]->record = NULL;
  assert_string_equal(ask(f), "");
  assert_string_equal(verdict(f, "n1"), "node: not ready: agent is not connected");
  assert_string_equal(verdict(f, "n2"), "docker: not working");
  assert_string_equal(verdict(f, "n3"), "node: draining");
  assert_string_equal(verdict(f, "n4"), "node: not registered");
}

static void test_avoid_and_volumes(void **state) {
  struct fixture *f = *state;
  const char *avoid[NODES] = {"shop/batch", NULL, NULL, NULL};
  bool has[NODES] = {true, false, true, false};
  f->request.avoid = avoid;
  f->request.has_volumes = has;
  f->request.volume = "shop/api-data is on n1";
  assert_string_equal(ask(f), "n3");
  assert_string_equal(verdict(f, "n1"), "avoid: shop/batch is here");
  assert_string_equal(verdict(f, "n2"), "volume: shop/api-data is on n1");
}

static void test_ports(void **state) {
  struct fixture *f = *state;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__PortMap udp = MODEL__PORT_MAP__INIT, *ports[] = {&udp};
  PB_SET(&spec, host_port, 8443);
  PB_SET(&udp, host_port, 53);
  PB_SET(&udp, protocol, MODEL__PROTOCOL__UDP);
  spec.n_extra_ports = 1;
  spec.extra_ports = ports;
  needs_resources(&spec, &f->need);
  assert_int_equal(f->need.port_count, 2);
  take(f, 0, &f->need);
  assert_string_equal(ask(f), "n2");
  assert_string_equal(verdict(f, "n1"), "port: 53/udp is taken");
  /* The same number of the other protocol is another port. */
  PB_SET(&udp, protocol, MODEL__PROTOCOL__TCP);
  spec.has_host_port = 0;
  needs_resources(&spec, &f->need);
  assert_string_equal(ask(f), "n1");
}

static void test_gpus(void **state) {
  struct fixture *f = *state;
  Model__Gpu has = MODEL__GPU__INIT, *gpus[] = {&has}, wanted = MODEL__GPU__INIT;
  PB_SET(&has, count, 2);
  PB_SET(&has, vram_min, 40000);
  has.vendor = (char *)(uintptr_t) "nvidia";
  has.model = (char *)(uintptr_t) "A100";
  f->nodes[1].n_gpus = 1;
  f->nodes[1].gpus = gpus;
  f->need.gpu = &wanted;
  PB_SET(&wanted, count, 1);
  PB_SET(&wanted, vram_min, 24000);
  wanted.vendor = (char *)(uintptr_t) "nvidia";
  assert_string_equal(ask(f), "n2");
  assert_string_equal(verdict(f, "n1"), "gpu: none that matches");
  int group;
  for (int i = 0; i < 2; i++)
    assert_int_equal(place_take(f->table.nodes[1], &f->need, &group), 0);
  assert_string_equal(ask(f), "");
  assert_string_equal(verdict(f, "n2"), "gpu: needs 1, 0 free");
  place_release(f->table.nodes[1], &f->need, group);
  assert_string_equal(ask(f), "n2");
  PB_SET(&wanted, vram_min, 80000);
  assert_string_equal(ask(f), "");
}

static void test_needs(void **state) {
  (void)state;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Resources resources = MODEL__RESOURCES__INIT;
  struct place_need need;
  spec.resources = &resources;
  PB_SET(&resources, memory, 512 * MIB);
  needs_resources(&spec, &need);
  assert_int_equal(need.memory, 512 * MIB); /* the limit is the reservation too */
  PB_SET(&resources, memory_request, 256 * MIB);
  needs_resources(&spec, &need);
  assert_int_equal(need.memory, 256 * MIB);
  Model__Service service = MODEL__SERVICE__INIT;
  PB_SET(&service, replicas, 3);
  assert_int_equal(needs_count(&service), 3);
  PB_SET(&service, stopped, 1);
  assert_int_equal(needs_count(&service), 0);
  char full[NEEDS_NAME_MAX];
  assert_true(needs_full_name("shop", "db", full));
  assert_string_equal(full, "shop/db");
  assert_true(needs_full_name("shop", "infra/db", full));
  assert_string_equal(full, "infra/db");
}

static void test_one_node_says_why(void **state) {
  (void)state;
  struct place_table table = {0};
  struct place_need need = {.memory = 512 * MIB};
  struct place_request request = {.need = &need};
  struct place_answer answer;
  assert_int_equal(place_instance(&table, &request, &answer), 0);
  assert_string_equal(answer.reason, "there is no node yet");
  struct place_node *node = place_node_add(&table, "n1");
  Model__Node record = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, 128 * MIB);
  node->record = &record;
  node->status = &status;
  assert_int_equal(place_instance(&table, &request, &answer), 0);
  assert_string_equal(answer.reason, "no node fits: n1: memory: needs 512 MiB, 128 MiB free");
  place_table_fini(&table);
}

/* Taking and releasing in any order ends where it began, and what is chosen always has room. */
static void test_usage_never_drifts(void **state) {
  struct fixture *f = *state;
  struct taken {
    struct place_need need;
    int node, group;
    bool in_use;
  } *list = calloc(200, sizeof *list);
  uint64_t rng = 88172645463325252u;
  for (int i = 0; i < 50000; i++) {
    struct taken *t = &list[xorshift64(&rng) % 200];
    if (t->in_use) {
      place_release(f->table.nodes[t->node], &t->need, t->group);
      t->in_use = false;
      continue;
    }
    t->need = (struct place_need){.memory = (rng >> 8) % 100 * MIB, .cpu_milli = (rng >> 16) % 500, .pids = (rng >> 24) % 100};
    if ((rng >> 32) % 4 == 0) {
      t->need.port_count = 1;
      t->need.ports[0] = (uint32_t)((rng >> 40) % 20 + 1000);
    }
    f->request.need = &t->need;
    assert_int_equal(place_instance(&f->table, &f->request, &f->answer), 0);
    if (!f->answer.node)
      continue;
    t->node = (int)f->answer.node->index;
    take(f, t->node, &t->need);
    t->group = -1;
    t->in_use = true;
    const struct place_node *n = f->answer.node;
    assert_true(n->memory_used <= 1024 * MIB && n->cpu_used <= 4000 && n->pids_used <= 1000);
    for (size_t p = 0; p < n->port_count; p++)
      assert_int_equal(n->ports[p].users, 1);
  }
  for (int i = 0; i < 200; i++)
    if (list[i].in_use)
      place_release(f->table.nodes[list[i].node], &list[i].need, list[i].group);
  for (int i = 0; i < NODES; i++) {
    const struct place_node *n = f->table.nodes[i];
    assert_true(n->memory_used == 0 && n->cpu_used == 0 && n->pids_used == 0 && n->port_count == 0 && n->instances == 0);
  }
  free(list);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_best_fit, setup, teardown),
      cmocka_unit_test_setup_teardown(test_ties_are_spread, setup, teardown),
      cmocka_unit_test_setup_teardown(test_spread_by_label_comes_first, setup, teardown),
      cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
      cmocka_unit_test_setup_teardown(test_avoid_and_volumes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
      cmocka_unit_test_setup_teardown(test_gpus, setup, teardown),
      cmocka_unit_test(test_needs),
      cmocka_unit_test(test_one_node_says_why),
      cmocka_unit_test_setup_teardown(test_usage_never_drifts, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
