/* What a deploy would do, step by step, before it is done; and that asking changes nothing. */
#include <time.h>

#include "orca-scheduler/plan.h"
#include "tests/unit/scheduler/core_rig.h"

#define MIB (UINT64_C(1) << 20)

/* A change, and its place in memory. */
struct one {
  char name[32];
  Model__Service service;
  Model__Revision revision;
  Model__ServiceSpec spec;
  Model__Resources resources;
  Model__PortMap port;
  char *depends[1];
  Node__PlannedChange change;
};

static void make(struct one *o, const char *name, uint64_t revision, uint32_t replicas, uint64_t memory, const char *depends) {
  *o = (struct one){.service = MODEL__SERVICE__INIT,
                    .revision = MODEL__REVISION__INIT,
                    .spec = MODEL__SERVICE_SPEC__INIT,
                    .resources = MODEL__RESOURCES__INIT,
                    .change = NODE__PLANNED_CHANGE__INIT};
  snprintf(o->name, sizeof o->name, "%s", name);
  o->service.project = o->revision.project = o->spec.project = o->change.project = text("shop");
  o->service.name = o->revision.name = o->spec.name = o->change.name = o->name;
  o->spec.image = text("x");
  PB_SET(&o->service, revision, revision);
  PB_SET(&o->service, replicas, replicas);
  PB_SET(&o->revision, number, revision);
  PB_SET(&o->resources, memory, memory);
  o->spec.resources = &o->resources;
  o->revision.spec = &o->spec;
  o->change.service = &o->service;
  o->change.revision = &o->revision;
  if (depends) {
    o->depends[0] = text(depends);
    o->spec.n_depends_on = 1;
    o->spec.depends_on = o->depends;
  }
}

static void store(struct rig *r, struct one *o) {
  rig_put_revision(r, o->name, o->revision.number, &o->spec, 0);
  rig_put_service(r, o->name, &o->service);
}

/* Makes the rig run what is stored: everything placed becomes ready. */
static void settle(struct rig *r) {
  for (int i = 0; i < 50; i++) {
    assert_int_equal(rig_decide(r, 0, NULL), 0);
    size_t count = r->actions.count;
    const struct sched_state *state = sched_core_state(r->core);
    for (size_t s = 0; s < state->count; s++)
      for (size_t k = 0; k < state->list[s]->instance_count; k++) {
        const struct sched_instance *in = state->list[s]->instances[k];
        if (!in->record || in->status || !*in->record->node)
          continue;
        rig_put_running(r, state->list[s]->name, in->number, in->record->node);
        count++;
      }
    r->now += 10000;
    if (!count && i > 3)
      return;
  }
}

/* "create shop/api.1@n1; stop …" */
static struct sched_plan *plan(struct rig *r, struct one *list, size_t count, char *out, size_t size) {
  Node__PlannedChange *changes[400];
  Node__Plan ask = NODE__PLAN__INIT;
  ask.changes = changes;
  for (size_t i = 0; i < count; i++)
    changes[ask.n_changes++] = &list[i].change;
  struct err err;
  struct sched_plan *p = sched_plan_new(r->core, &ask, r->now, &err);
  assert_non_null(p);
  while (sched_plan_advance(p, 10, &err) > 0) {
  }
  const Node__Planned *planned = sched_plan_result(p);
  size_t used = 0;
  out[0] = 0;
  for (size_t i = 0; i < planned->n_steps && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%s %s@%s", i ? "; " : "", planned->steps[i]->what, planned->steps[i]->instance,
                             planned->steps[i]->node);
  return p;
}

static void test_first_deploy(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 1000 * MIB, 0);
  struct one o;
  make(&o, "api", 1, 2, 100 * MIB, NULL);
  char out[1000];
  struct sched_plan *p = plan(r, &o, 1, out, sizeof out);
  assert_string_equal(out, "create shop/api.1@n1; create shop/api.2@n1");
  const Node__PlanStep *first = sched_plan_result(p)->steps[0];
  assert_int_equal(first->revision, 1);
  assert_int_equal(first->n_verdicts, 1);
  assert_true(first->verdicts[0]->chosen);
  sched_plan_free(p);
  /* Nothing of it is in the real state. */
  assert_null(rig_service(r, "api"));
  assert_int_equal(place_node_find(&sched_core_state(r->core)->nodes, "n1")->memory_used, 0);
}

static void test_rolling_update(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 1000 * MIB, 0);
  struct one o;
  make(&o, "api", 1, 2, 100 * MIB, NULL);
  store(r, &o);
  settle(r);
  make(&o, "api", 2, 2, 100 * MIB, NULL);
  char out[1000];
  sched_plan_free(plan(r, &o, 1, out, sizeof out));
  assert_string_equal(out, "create shop/api.3@n1; stop shop/api.1@n1; create shop/api.4@n1; stop shop/api.2@n1");
  /* Fewer of them. */
  make(&o, "api", 1, 1, 100 * MIB, NULL);
  o.change.revision = NULL;
  sched_plan_free(plan(r, &o, 1, out, sizeof out));
  assert_memory_equal(out, "stop shop/api.", 14);
  /* Purged. */
  o.change.service = NULL;
  sched_plan_free(plan(r, &o, 1, out, sizeof out));
  assert_string_equal(out, "stop shop/api.1@n1; stop shop/api.2@n1");
  /* And still the real one has two that run. */
  const struct sched_service *s = rig_service(r, "api");
  assert_int_equal(s->instance_count, 2);
  assert_int_equal(s->instances[0]->record->desired, MODEL__DESIRED__DESIRED_RUN);
}

static void test_stop_first(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 1000 * MIB, 0);
  struct one o;
  for (uint64_t revision = 1; revision <= 2; revision++) {
    make(&o, "db", revision, 1, 100 * MIB, NULL);
    PB_SET(&o.spec, port, 80);
    PB_SET(&o.spec, host_port, 5432);
    if (revision == 1) {
      store(r, &o);
      settle(r);
    }
  }
  char out[1000];
  sched_plan_free(plan(r, &o, 1, out, sizeof out));
  assert_string_equal(out, "stop shop/db.1@n1; create shop/db.2@n1");
}

static void test_dependencies_come_first(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 1000 * MIB, 0);
  struct one o[2];
  make(&o[0], "web", 1, 1, MIB, "db");
  make(&o[1], "db", 1, 1, MIB, NULL);
  char out[1000];
  struct sched_plan *p = plan(r, o, 2, out, sizeof out);
  assert_non_null(strstr(out, "create shop/db.1@n1"));
  assert_non_null(strstr(out, "create shop/web.1@n1"));
  assert_true(strstr(out, "create shop/db.1@n1") < strstr(out, "create shop/web.1@n1"));
  sched_plan_free(p);
  /* Without it: blocked, with the reason. */
  p = plan(r, o, 1, out, sizeof out);
  const Node__Planned *planned = sched_plan_result(p);
  assert_true(planned->n_steps > 0);
  const Node__PlanStep *last = planned->steps[planned->n_steps - 1];
  assert_string_equal(last->what, "blocked");
  assert_non_null(strstr(last->reason, "waiting for"));
  sched_plan_free(p);
}

static void test_no_room(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 150 * MIB, 0);
  rig_put_node(r, "n2", false, 1000 * MIB, 0);
  struct one o;
  make(&o, "api", 1, 2, 100 * MIB, NULL);
  char out[1000];
  struct sched_plan *p = plan(r, &o, 1, out, sizeof out);
  assert_string_equal(out, "create shop/api.1@n1; blocked shop/api.2@");
  const Node__PlanStep *blocked = sched_plan_result(p)->steps[1];
  assert_non_null(strstr(blocked->reason, "memory"));
  assert_int_equal(blocked->n_verdicts, 2);
  sched_plan_free(p);
}

static void test_what_if(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, 150 * MIB, 0);
  struct one o;
  make(&o, "api", 1, 2, 100 * MIB, NULL);
  Model__NodeStatus more = MODEL__NODE_STATUS__INIT, *nodes[] = {&more};
  Node__PlannedChange *changes[] = {&o.change};
  Node__Plan ask = NODE__PLAN__INIT;
  more.name = text("n2");
  PB_SET(&more, memory, 1000 * MIB);
  PB_SET(&more, cpu_milli, 4000);
  ask.n_nodes = 1;
  ask.nodes = nodes;
  ask.n_changes = 1;
  ask.changes = changes;
  struct err err;
  struct sched_plan *p = sched_plan_new(r->core, &ask, r->now, &err);
  assert_int_equal(sched_plan_advance(p, 1000, &err), 0);
  assert_int_equal(sched_plan_result(p)->n_steps, 2);
  assert_string_equal(sched_plan_result(p)->steps[0]->what, "create");
  assert_string_equal(sched_plan_result(p)->steps[1]->what, "create");
  sched_plan_free(p);
  /* A node that is down takes nothing. */
  char *down[] = {text("n1")};
  ask.n_nodes_down = 1;
  ask.nodes_down = down;
  p = sched_plan_new(r->core, &ask, r->now, &err);
  assert_int_equal(sched_plan_advance(p, 1000, &err), 0);
  for (size_t i = 0; i < sched_plan_result(p)->n_steps; i++)
    assert_string_not_equal(sched_plan_result(p)->steps[i]->node, "n1");
  sched_plan_free(p);
}

static void test_hostile(void **state) {
  struct rig *r = *state;
  struct one o;
  struct err err;
  Node__PlannedChange *changes[] = {&o.change};
  Node__Plan ask = NODE__PLAN__INIT;
  ask.n_changes = 1;
  ask.changes = changes;
  make(&o, "api", 1, 1, MIB, NULL);
  const char *bad[] = {"", "a/b", "0123456789012345678901234567890123456789012345678901234567890123456789"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    o.change.name = text(bad[i]);
    assert_null(sched_plan_new(r->core, &ask, r->now, &err));
    assert_int_equal(err.code, ERR_INVALID);
  }
}

/* 200 services with 5 instances each, all replaced. */
static void test_many(void **state) {
  struct rig *r = *state;
  rig_put_node(r, "n1", true, UINT64_C(1) << 40, 0);
  rig_put_node(r, "n2", true, UINT64_C(1) << 40, 0);
  static struct one list[200];
  for (size_t i = 0; i < 200; i++) {
    char name[16];
    snprintf(name, sizeof name, "s%zu", i);
    make(&list[i], name, 1, 5, MIB, NULL);
    store(r, &list[i]);
  }
  settle(r);
  for (size_t i = 0; i < 200; i++) {
    char name[16];
    snprintf(name, sizeof name, "s%zu", i);
    make(&list[i], name, 2, 5, MIB, NULL);
  }
  static char out[200000];
  struct timespec a, b;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
  struct sched_plan *p = plan(r, list, 200, out, sizeof out);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
  assert_int_equal(sched_plan_result(p)->n_steps, 2000);
  double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
  if (getenv("ORCA_FIGURES"))
    print_message("plan of 200 services, 1,000 instances, 2,000 steps: %.1f ms\n", ms);
  assert_true(ms < 2000);
  sched_plan_free(p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_first_deploy, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_rolling_update, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_stop_first, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_dependencies_come_first, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_no_room, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_what_if, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_hostile, rig_setup, rig_teardown),
      cmocka_unit_test_setup_teardown(test_many, rig_setup, rig_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
