/* Jobs through the whole core, from records to transactions, with a model of the store: crashes between a decision and its transaction and right
 * after it, and transactions that are lost. No tick is taken twice, none is lost, nothing is written where nothing has changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-scheduler/sched_core.h"

#define T0 INT64_C(1772323200000)
#define KEYS_MAX 4000u

struct item {
  char key[KEY_MAX];
  uint8_t *value;
  size_t len;
};

struct world {
  struct sched_core *core;
  struct sched_actions actions;
  struct item *items;
  size_t count;
  int64_t now;
  uint64_t seed, starts;
};

static uint64_t below(struct world *w, uint64_t n) {
  w->seed ^= w->seed << 13;
  w->seed ^= w->seed >> 7;
  w->seed ^= w->seed << 17;
  return w->seed % n;
}

static size_t find(const struct world *w, const char *key) {
  size_t i = 0;
  while (i < w->count && strcmp(w->items[i].key, key) != 0)
    i++;
  return i;
}

static void store_put(struct world *w, const char *key, const uint8_t *value, size_t len) {
  size_t i = find(w, key);
  if (i == w->count) {
    assert_true(w->count < KEYS_MAX);
    w->items[w->count++] = (struct item){0};
    snprintf(w->items[i].key, sizeof w->items[i].key, "%s", key);
  }
  free(w->items[i].value);
  w->items[i].value = malloc(len + 1);
  assert_non_null(w->items[i].value);
  memcpy(w->items[i].value, value, len);
  w->items[i].len = len;
}

static void store_delete(struct world *w, const char *key) {
  size_t i = find(w, key);
  if (i == w->count)
    return;
  free(w->items[i].value);
  w->items[i] = w->items[--w->count];
}

static void feed(struct world *w, const struct item *item) {
  const struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = item->key, .value = item->value, .len = item->len};
  assert_int_equal(sched_core_step(w->core, &event, w->now, &w->actions, NULL), 0);
}

static void begin(struct world *w) {
  const struct sched_event synced = {.kind = SCHED_EVENT_SYNCED};
  sched_core_free(w->core);
  w->core = sched_core_new();
  assert_non_null(w->core);
  for (size_t i = 0; i < w->count; i++)
    feed(w, &w->items[i]);
  assert_int_equal(sched_core_step(w->core, &synced, w->now, &w->actions, NULL), 0);
}

static void put(struct world *w, const char *key, const ProtobufCMessage *m) {
  uint8_t bytes[8192];
  assert_true(protobuf_c_message_get_packed_size(m) <= sizeof bytes);
  store_put(w, key, bytes, protobuf_c_message_pack(m, bytes));
  feed(w, &w->items[find(w, key)]);
}

static void del(struct world *w, const char *key) {
  const struct sched_event event = {.kind = SCHED_EVENT_DELETE, .key = key};
  store_delete(w, key);
  assert_int_equal(sched_core_step(w->core, &event, w->now, &w->actions, NULL), 0);
}

/* The store takes no transaction that changes a key twice. */
static void check_once(const struct sched_actions *actions) {
  for (size_t i = 0; i < actions->count; i++)
    for (size_t k = 0; k < i; k++)
      assert_string_not_equal(actions->list[i].key, actions->list[k].key);
}

static void apply(struct world *w) {
  check_once(&w->actions);
  for (size_t i = 0; i < w->actions.count; i++) {
    const struct sched_action *a = &w->actions.list[i];
    if (a->kind == SCHED_ACTION_PUT)
      store_put(w, a->key, a->value, a->len);
    else
      store_delete(w, a->key);
  }
}

static size_t decide(struct world *w) {
  const struct sched_event event = {.kind = SCHED_EVENT_RUN, .wall_ms = w->now};
  assert_int_equal(sched_core_step(w->core, &event, w->now, &w->actions, NULL), 0);
  return w->actions.count;
}

static struct world *new_world(uint64_t seed) {
  struct world *w = calloc(1, sizeof *w);
  assert_non_null(w);
  w->items = calloc(KEYS_MAX, sizeof *w->items);
  assert_non_null(w->items);
  w->seed = seed;
  w->now = T0;
  begin(w);
  Model__Node node = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  char n1[] = "n1";
  node.name = n1;
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_READY);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, 1 << 30);
  PB_SET(&status, cpu_milli, 64000);
  put(w, "/nodes/n1", &node.base);
  put(w, "/node-status/n1", &status.base);
  return w;
}

static void free_world(struct world *w) {
  for (size_t i = 0; i < w->count; i++)
    free(w->items[i].value);
  free(w->items);
  sched_core_free(w->core);
  sched_actions_fini(&w->actions);
  free(w);
}

static void put_job(struct world *w, const char *schedule, uint64_t requested) {
  Model__Job job = MODEL__JOB__INIT;
  Model__Revision revision = MODEL__REVISION__INIT;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__JobRules rules = MODEL__JOB_RULES__INIT;
  char project[] = "shop", name[] = "j", image[] = "x";
  job.project = spec.project = revision.project = project;
  job.name = spec.name = revision.name = name;
  spec.image = image;
  spec.job = &rules;
  rules.schedule = (char *)(uintptr_t)schedule;
  PB_SET(&rules, history, 1000);
  PB_SET(&job, revision, 1);
  PB_SET(&job, requested, requested);
  PB_SET(&job, created_ms, T0);
  PB_SET(&revision, number, 1);
  PB_SET(&revision, created_ms, T0);
  revision.spec = &spec;
  put(w, "/revisions/shop/j/0000000001", &revision.base);
  put(w, "/jobs/shop/j", &job.base);
}

static const ProtobufCMessage *unpack(const struct item *item, const ProtobufCMessageDescriptor *desc) {
  struct err err;
  ProtobufCMessage *m = pb_unpack(desc, item->value, item->len, &err);
  assert_non_null(m);
  return m;
}

static void free_message(const ProtobufCMessage *m) {
  protobuf_c_message_free_unpacked((ProtobufCMessage *)(uintptr_t)m, NULL);
}

/* The node's agent: starts what it is given, sees it end, removes what it is told to. */
static void agent(struct world *w) {
  struct item *copy = calloc(w->count, sizeof *copy);
  size_t count = 0;
  for (size_t i = 0; i < w->count; i++)
    if (strncmp(w->items[i].key, KEY_INSTANCES, strlen(KEY_INSTANCES)) == 0)
      copy[count++] = w->items[i];
  char names[256][KEY_MAX];
  assert_true(count < 256);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = (const Model__Instance *)(const void *)unpack(&copy[i], &model__instance__descriptor);
    key_numbered(names[i], KEY_INSTANCE_STATUS, "shop", "j", instance->number);
    assert_true(instance->job);
    size_t at = find(w, names[i]);
    bool known = at < w->count;
    if (strcmp(PB_STR(instance->node), "n1") != 0 || below(w, 3) == 0) {
      /* not now */
    } else if (instance->desired == MODEL__DESIRED__DESIRED_STOP) {
      if (known)
        del(w, names[i]);
    } else {
      Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
      char n1[] = "n1";
      status.node = n1;
      PB_SET(&status, epoch, instance->epoch);
      PB_SET(&status, number, instance->number);
      if (!known) {
        w->starts++;
        PB_SET(&status, phase, MODEL__PHASE__PHASE_RUNNING);
        PB_SET(&status, started_ms, w->now);
        put(w, names[i], &status.base);
      } else if (below(w, 2)) {
        PB_SET(&status, phase, MODEL__PHASE__PHASE_EXITED);
        PB_SET(&status, exit_code, 0);
        PB_SET(&status, started_ms, w->now);
        PB_SET(&status, ended_ms, w->now);
        put(w, names[i], &status.base);
      }
    }
    free_message(&instance->base);
  }
  free(copy);
}

/* Decides until there is nothing to decide, with all that can happen to the one who does. */
static void decide_somehow(struct world *w, bool crashes) {
  for (int rounds = 0; rounds < 50; rounds++) {
    size_t writes = decide(w);
    bool more = w->actions.more;
    switch (crashes ? below(w, 6) : 5) {
    case 0: /* dies before the transaction is stored */
      begin(w);
      continue;
    case 1: /* dies right after it */
      apply(w);
      begin(w);
      continue;
    default:
      apply(w);
    }
    if (!writes && !more)
      return;
  }
  fail_msg("it never comes to rest (seed %llu)", (unsigned long long)w->seed);
}

static size_t runs(const struct world *w, int64_t *ticks, size_t most, size_t *ret_over) {
  size_t n = 0;
  *ret_over = 0;
  for (size_t i = 0; i < w->count; i++) {
    if (strncmp(w->items[i].key, KEY_JOB_RUNS, strlen(KEY_JOB_RUNS)) != 0)
      continue;
    const Model__JobRun *run = (const Model__JobRun *)(const void *)unpack(&w->items[i], &model__job_run__descriptor);
    assert_true(n < most);
    ticks[n++] = run->scheduled_ms;
    *ret_over += run->state == MODEL__RUN_STATE__RUN_SUCCEEDED || run->state == MODEL__RUN_STATE__RUN_SKIPPED;
    free_message(&run->base);
  }
  return n;
}

static void every_tick_once_whatever_crashes(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct world *w = new_world(seed * 7919);
    int64_t ticks[300];
    size_t over;
    put_job(w, "0/10 * * * * *", 0);
    for (int second = 0; second <= 600; second++) {
      w->now = T0 + second * INT64_C(1000);
      decide_somehow(w, true);
      agent(w);
      decide_somehow(w, true);
    }
    size_t n = runs(w, ticks, 300, &over);
    assert_int_equal(n, 60); /* the one at T0 itself is not newer than the job */
    bool seen[61] = {false};
    for (size_t i = 0; i < n; i++) {
      int64_t tick = (ticks[i] - T0) / 10000;
      assert_true(tick >= 1 && tick <= 60 && !seen[tick]);
      seen[tick] = true;
    }
    assert_true(over >= 58);
    assert_true(w->starts <= 60);
    free_world(w);
  }
}

static void at_rest_nothing_is_written(void **state) {
  (void)state;
  struct world *w = new_world(1);
  put_job(w, "0 0 * * * *", 1);
  decide_somehow(w, false);
  agent(w);
  agent(w);
  for (int i = 0; i < 60; i++) {
    decide_somehow(w, false);
    agent(w);
    w->now += 100;
  }
  assert_int_equal(w->starts, 1);
  assert_int_equal(decide(w), 0);
  assert_int_equal(w->actions.next_ms, w->now + 60000); /* the clock on the wall may be set */
  begin(w);
  assert_int_equal(decide(w), 0);
  assert_true(find(w, "/instances/shop/j/0000000001") == w->count);
  /* Removed: nothing of it is left but its history of events. */
  del(w, "/jobs/shop/j");
  del(w, "/revisions/shop/j/0000000001");
  decide_somehow(w, false);
  for (size_t i = 0; i < w->count; i++)
    assert_true(strncmp(w->items[i].key, "/job", 4) != 0 && strncmp(w->items[i].key, KEY_INSTANCES, strlen(KEY_INSTANCES)) != 0);
  free_world(w);
}

/* More of it than one transaction holds. */
static void a_long_history_goes_in_parts(void **state) {
  (void)state;
  struct world *w = new_world(5);
  put_job(w, "@yearly", 0);
  decide_somehow(w, false);
  for (uint64_t n = 1; n <= 1000; n++) {
    char key[KEY_MAX];
    Model__JobRun run = MODEL__JOB_RUN__INIT;
    PB_SET(&run, number, n);
    PB_SET(&run, state, MODEL__RUN_STATE__RUN_SUCCEEDED);
    key_numbered(key, KEY_JOB_RUNS, "shop", "j", n);
    put(w, key, &run.base);
  }
  del(w, "/jobs/shop/j");
  for (int i = 0; i < 20; i++) {
    decide(w);
    assert_true(w->actions.count < 900);
    apply(w);
  }
  for (size_t i = 0; i < w->count; i++)
    assert_true(strncmp(w->items[i].key, "/job", 4) != 0);
  free_world(w);
}

static void an_unreachable_node(void **state) {
  (void)state;
  struct world *w = new_world(3);
  int64_t ticks[10];
  size_t over;
  put_job(w, NULL, 1);
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  decide_somehow(w, false);
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_UNREACHABLE);
  PB_SET(&status, since_ms, w->now);
  put(w, "/node-status/n1", &status.base);
  decide_somehow(w, false);
  assert_int_equal(decide(w), 0); /* its agent may only be starting again */
  assert_int_equal(w->actions.next_ms, w->now + 30000);
  w->now += 30000;
  decide_somehow(w, false);
  assert_int_equal(runs(w, ticks, 10, &over), 1);
  const Model__JobRun *run =
      (const Model__JobRun *)(const void *)unpack(&w->items[find(w, "/job-runs/shop/j/0000000001")], &model__job_run__descriptor);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  assert_string_equal(run->reason, "its node cannot be reached");
  assert_string_equal(run->node, "n1");
  free_message(&run->base);
  free_world(w);
}

static const Model__JobRun *job_run(const struct world *w, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_JOB_RUNS, "shop", "j", number);
  return (const Model__JobRun *)(const void *)unpack(&w->items[find(w, key)], &model__job_run__descriptor);
}

/* A job that comes after a service of its name gets no number of what is left of that: it would take the old one's place, and its end for its own. */
static void numbers_that_are_taken(void **state) {
  (void)state;
  char n1[] = "n1", project[] = "shop", name[] = "j";
  for (int with_record = 0; with_record < 2; with_record++) {
    struct world *w = new_world(1);
    Model__Instance instance = MODEL__INSTANCE__INIT;
    Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
    instance.project = project;
    instance.service = name;
    instance.node = status.node = n1;
    PB_SET(&instance, number, 1);
    PB_SET(&instance, epoch, 1);
    PB_SET(&instance, revision, 7);
    PB_SET(&instance, desired, MODEL__DESIRED__DESIRED_DRAIN);
    PB_SET(&instance, desired_since_ms, w->now);
    PB_SET(&status, number, 1);
    PB_SET(&status, epoch, 1);
    PB_SET(&status, phase, MODEL__PHASE__PHASE_EXITED);
    PB_SET(&status, exit_code, 0);
    if (with_record)
      put(w, "/instances/shop/j/0000000001", &instance.base);
    put(w, "/instance-status/shop/j/0000000001", &status.base);
    put_job(w, NULL, 1);
    decide_somehow(w, false);
    const Model__JobRun *run = job_run(w, 1);
    assert_int_equal(run->state, MODEL__RUN_STATE__RUN_PENDING);
    assert_int_equal(run->instance, 2);
    free_message(&run->base);
    free_world(w);
  }
}

/* A run whose revision is gone can't be made any more, and holds up nobody. */
static void a_run_whose_revision_is_gone(void **state) {
  (void)state;
  struct world *w = new_world(1);
  Model__JobRun old = MODEL__JOB_RUN__INIT;
  PB_SET(&old, number, 1);
  PB_SET(&old, revision, 9);
  PB_SET(&old, request, 1);
  put(w, "/job-runs/shop/j/0000000001", &old.base);
  Model__JobState kept = MODEL__JOB_STATE__INIT;
  PB_SET(&kept, handled, 1);
  PB_SET(&kept, next_number, 2);
  PB_SET(&kept, created_ms, T0);
  PB_SET(&kept, revision, 1);
  put(w, "/job-state/shop/j", &kept.base);
  put_job(w, NULL, 2);
  decide_somehow(w, false);
  const Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  assert_string_equal(run->reason, "its revision 9 is gone");
  free_message(&run->base);
  run = job_run(w, 2);
  assert_string_equal(run->node, "n1");
  free_message(&run->base);
  free_world(w);
}

/* Who says since when a node is away has a clock of his own, which may have been set since this one's was read. */
static void a_node_is_away_by_the_schedulers_own_clock(void **state) {
  (void)state;
  const int64_t off[] = {-INT64_C(3600000), INT64_C(3600000)};
  for (int i = 0; i < 2; i++) {
    struct world *w = new_world(3);
    put_job(w, NULL, 1);
    decide_somehow(w, false);
    while (!w->starts)
      agent(w);
    decide_somehow(w, false);
    Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
    PB_SET(&status, state, MODEL__NODE_STATE__NODE_UNREACHABLE);
    PB_SET(&status, since_ms, w->now + off[i]);
    put(w, "/node-status/n1", &status.base);
    assert_int_equal(decide(w), 0);
    assert_int_equal(w->actions.next_ms, w->now + 30000);
    put(w, "/node-status/n1", &status.base); /* told again */
    w->now += 29999;
    assert_int_equal(decide(w), 0);
    w->now++;
    assert_true(decide(w) > 0);
    free_world(w);
  }
}

/* The clock was a year ahead when these were written, and the scheduler was started again since. */
static void what_lies_in_the_future(void **state) {
  (void)state;
  const int64_t ahead = INT64_C(365) * 86400000;
  struct world *w = new_world(3);
  put_job(w, NULL, 1);
  w->now += ahead;
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  decide_somehow(w, false);
  w->now -= ahead;
  begin(w);
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  PB_SET(&status, state, MODEL__NODE_STATE__NODE_UNREACHABLE);
  PB_SET(&status, since_ms, w->now + ahead);
  put(w, "/node-status/n1", &status.base);
  begin(w);
  const struct sched_service *job = sched_state_service(sched_core_state(w->core), "shop/j");
  assert_int_equal(sched_service_instance(job, 1)->record->desired_since_ms, w->now); /* timeouts go by it */
  decide_somehow(w, false);
  w->now += 30000;
  decide_somehow(w, false);
  const Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  free_message(&run->base);
  free_world(w);
}

static void put_node_state(struct world *w, Model__NodeState state) {
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  PB_SET(&status, state, state);
  PB_SET(&status, since_ms, w->now);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, 1 << 30);
  PB_SET(&status, cpu_milli, 64000);
  put(w, "/node-status/n1", &status.base);
}

static void suspend(struct world *w, uint64_t requested) {
  Model__Job job = MODEL__JOB__INIT;
  PB_SET(&job, revision, 1);
  PB_SET(&job, requested, requested);
  PB_SET(&job, created_ms, T0);
  PB_SET(&job, suspended, 1);
  put(w, "/jobs/shop/j", &job.base);
}

/* There is room for it now, and it is not wanted any more: both came while no scheduler was there. */
static void what_goes_is_sent_nowhere_first(void **state) {
  (void)state;
  for (int with_service = 0; with_service < 2; with_service++) {
    struct world *w = new_world(3);
    put_node_state(w, MODEL__NODE_STATE__NODE_UNREACHABLE);
    put_job(w, NULL, 1);
    decide_somehow(w, false);
    assert_true(find(w, "/instances/shop/j/0000000001") < w->count);
    put_node_state(w, MODEL__NODE_STATE__NODE_READY);
    if (with_service) { /* of the same name, after it */
      Model__Service service = MODEL__SERVICE__INIT;
      PB_SET(&service, revision, 1);
      del(w, "/jobs/shop/j");
      put(w, "/services/shop/j", &service.base);
    } else {
      suspend(w, 1);
    }
    begin(w);
    decide_somehow(w, false);
    assert_true(find(w, "/instances/shop/j/0000000001") == w->count);
    free_world(w);
  }
}

/* One at a time: the first goes on where its agent was away, and the second, that made up for it, waits until it has ended there. */
static void one_that_was_lost_comes_back(void **state) {
  (void)state;
  struct world *w = new_world(3);
  put_job(w, NULL, 2);
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  decide_somehow(w, false);
  put_node_state(w, MODEL__NODE_STATE__NODE_UNREACHABLE);
  w->now += 30000;
  decide_somehow(w, false);
  const Model__JobRun *run = job_run(w, 2);
  assert_int_equal(run->instance, 2);
  assert_string_equal(PB_STR(run->node), "");
  free_message(&run->base);
  put_node_state(w, MODEL__NODE_STATE__NODE_READY);
  decide_somehow(w, false);
  run = job_run(w, 2);
  assert_string_equal(PB_STR(run->node), "");
  free_message(&run->base);
  const struct sched_service *job = sched_state_service(sched_core_state(w->core), "shop/j");
  assert_string_equal(sched_service_instance(job, 2)->record->reason, "waits for what still runs of the job");
  del(w, "/instance-status/shop/j/0000000001");
  decide_somehow(w, false);
  run = job_run(w, 2);
  assert_string_equal(run->node, "n1");
  free_message(&run->base);
  free_world(w);
}

/* Stopped before its agent has said anything: it may be starting all the same. */
static void one_that_nobody_has_heard_of(void **state) {
  (void)state;
  struct world *w = new_world(3);
  put_job(w, NULL, 1);
  decide_somehow(w, false);
  suspend(w, 1);
  decide_somehow(w, false);
  put_job(w, NULL, 2);
  decide_somehow(w, false);
  assert_true(find(w, "/instances/shop/j/0000000002") == w->count);
  assert_int_equal(w->actions.next_ms, w->now + 5000);
  w->now += 5000;
  decide_somehow(w, false);
  assert_true(find(w, "/instances/shop/j/0000000001") == w->count);
  assert_true(find(w, "/instances/shop/j/0000000002") < w->count);
  free_world(w);
}

/* Everything was down, and the scheduler is the first that is back: the agent will say how the run ended. */
static void nobody_was_there(void **state) {
  (void)state;
  struct world *w = new_world(3);
  put_job(w, NULL, 1);
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  put_node_state(w, MODEL__NODE_STATE__NODE_UNREACHABLE);
  w->now += 600000;
  begin(w);
  decide_somehow(w, false);
  const Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_RUNNING);
  free_message(&run->base);
  assert_int_equal(w->actions.next_ms, w->now + 30000);
  free_world(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_tick_once_whatever_crashes),
      cmocka_unit_test(at_rest_nothing_is_written),
      cmocka_unit_test(a_long_history_goes_in_parts),
      cmocka_unit_test(an_unreachable_node),
      cmocka_unit_test(numbers_that_are_taken),
      cmocka_unit_test(a_run_whose_revision_is_gone),
      cmocka_unit_test(a_node_is_away_by_the_schedulers_own_clock),
      cmocka_unit_test(what_lies_in_the_future),
      cmocka_unit_test(what_goes_is_sent_nowhere_first),
      cmocka_unit_test(one_that_was_lost_comes_back),
      cmocka_unit_test(one_that_nobody_has_heard_of),
      cmocka_unit_test(nobody_was_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
