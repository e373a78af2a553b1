/* Jobs through the whole core, from records to transactions, with a model of the store: crashes between a decision and its transaction and right
 * after it, and transactions that are lost. No tick is taken twice, none is lost, nothing is written where nothing has changed. */
#include "tests/unit/scheduler/core_rig.h"
#include "tests/unit/scheduler/xorshift.h"

#define T0 INT64_C(1772323200000)

struct world {
  struct rig rig;
  uint64_t seed, starts;
};

static uint64_t below(struct world *w, uint64_t n) {
  return xorshift64(&w->seed) % n;
}

/* A scheduler dies, and another begins. */
static void begin(struct world *w) {
  rig_begin(&w->rig, 0);
}

static bool is_there(const struct world *w, const char *key) {
  return rig_find(&w->rig, key) != NULL;
}

static void apply(struct world *w) {
  assert_null(rig_changed_twice(&w->rig));
  for (size_t i = 0; i < w->rig.actions.count; i++) {
    const struct sched_action *a = &w->rig.actions.list[i];
    if (a->kind == SCHED_ACTION_PUT)
      rig_keep(&w->rig, a->key, a->value, a->len);
    else
      rig_drop(&w->rig, a->key);
  }
}

static size_t decide(struct world *w) {
  assert_int_equal(rig_decide(&w->rig, 0, NULL), 0);
  return w->rig.actions.count;
}

static void put_node_status(struct world *w, bool ready, int64_t since_ms) {
  rig_put_node_status(&w->rig, "n1", ready, 1 << 30, since_ms);
}

/* Free it with free_world. */
static struct world *new_world(uint64_t seed) {
  struct world *w = calloc(1, sizeof *w);
  assert_non_null(w);
  w->seed = seed;
  rig_init(&w->rig, T0, 4000);
  begin(w);
  rig_put_node(&w->rig, "n1", true, 1 << 30, 0);
  return w;
}

static void free_world(struct world *w) {
  rig_fini(&w->rig);
  free(w);
}

static void put_job(struct world *w, const char *schedule, uint64_t requested) {
  Model__Job job = MODEL__JOB__INIT;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__JobRules rules = MODEL__JOB_RULES__INIT;
  spec.job = &rules;
  rules.schedule = text(schedule);
  PB_SET(&rules, history, 1000);
  job.project = text("shop");
  job.name = text("j");
  PB_SET(&job, revision, 1);
  PB_SET(&job, requested, requested);
  PB_SET(&job, created_ms, T0);
  rig_put_revision(&w->rig, "j", 1, &spec, T0);
  rig_put(&w->rig, "/jobs/shop/j", &job.base);
}

/* The node's agent: starts what it is given, sees it end, removes what it is told to. */
static void agent_sees(struct world *w, const Model__Instance *instance) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", "j", instance->number);
  assert_true(instance->job);
  if (strcmp(PB_STR(instance->node), "n1") != 0 || below(w, 3) == 0)
    return; /* not now */
  if (instance->desired == MODEL__DESIRED__DESIRED_STOP) {
    rig_delete(&w->rig, key);
    return;
  }
  Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
  status.node = text("n1");
  PB_SET(&status, epoch, instance->epoch);
  PB_SET(&status, number, instance->number);
  PB_SET(&status, started_ms, w->rig.now);
  if (!is_there(w, key)) {
    w->starts++;
    PB_SET(&status, phase, MODEL__PHASE__PHASE_RUNNING);
    rig_put_instance_status(&w->rig, "j", &status);
  } else if (below(w, 2)) {
    PB_SET(&status, phase, MODEL__PHASE__PHASE_EXITED);
    PB_SET(&status, exit_code, 0);
    PB_SET(&status, ended_ms, w->rig.now);
    rig_put_instance_status(&w->rig, "j", &status);
  }
}

static void agent(struct world *w) {
  Model__Instance *given[256];
  size_t count = 0;
  for (size_t i = 0; i < w->rig.count; i++) {
    if (!has_prefix(w->rig.records[i].key, KEY_INSTANCES))
      continue;
    assert_true(count < sizeof given / sizeof *given);
    given[count++] = rig_get(&w->rig, &model__instance__descriptor, w->rig.records[i].key);
  }
  for (size_t i = 0; i < count; i++) {
    agent_sees(w, given[i]);
    free_message(given[i]);
  }
}

/* Decides until there is nothing to decide, with all that can happen to the one who does. */
static void decide_somehow(struct world *w, bool crashes) {
  for (int rounds = 0; rounds < 50; rounds++) {
    size_t writes = decide(w);
    bool more = w->rig.actions.more;
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

/* So many runs are asked for, and the first of them runs. */
static void one_runs(struct world *w, uint64_t requested) {
  put_job(w, NULL, requested);
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  decide_somehow(w, false);
}

static size_t runs(const struct world *w, int64_t *ticks, size_t most, size_t *ret_over) {
  size_t n = 0;
  *ret_over = 0;
  for (size_t i = 0; i < w->rig.count; i++) {
    if (!has_prefix(w->rig.records[i].key, KEY_JOB_RUNS))
      continue;
    Model__JobRun *run = rig_get(&w->rig, &model__job_run__descriptor, w->rig.records[i].key);
    assert_true(n < most);
    ticks[n++] = run->scheduled_ms;
    *ret_over += run->state == MODEL__RUN_STATE__RUN_SUCCEEDED || run->state == MODEL__RUN_STATE__RUN_SKIPPED;
    free_message(run);
  }
  return n;
}

/* Of a run that must be there. */
static Model__JobRun *job_run(const struct world *w, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_JOB_RUNS, "shop", "j", number);
  Model__JobRun *run = rig_get(&w->rig, &model__job_run__descriptor, key);
  assert_non_null(run);
  return run;
}

static void every_tick_once_whatever_crashes(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct world *w = new_world(seed * 7919);
    int64_t ticks[300];
    size_t over;
    put_job(w, "0/10 * * * * *", 0);
    for (int second = 0; second <= 600; second++) {
      w->rig.now = T0 + second * INT64_C(1000);
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
    w->rig.now += 100;
  }
  assert_int_equal(w->starts, 1);
  assert_int_equal(decide(w), 0);
  assert_int_equal(w->rig.actions.next_ms, w->rig.now + 60000); /* the clock on the wall may be set */
  begin(w);
  assert_int_equal(decide(w), 0);
  assert_false(is_there(w, "/instances/shop/j/0000000001"));
  /* Removed: nothing of it is left but its history of events. */
  rig_delete(&w->rig, "/jobs/shop/j");
  rig_delete(&w->rig, "/revisions/shop/j/0000000001");
  decide_somehow(w, false);
  for (size_t i = 0; i < w->rig.count; i++)
    assert_true(!has_prefix(w->rig.records[i].key, "/job") && !has_prefix(w->rig.records[i].key, KEY_INSTANCES));
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
    rig_put(&w->rig, key, &run.base);
  }
  rig_delete(&w->rig, "/jobs/shop/j");
  for (int i = 0; i < 20; i++) {
    decide(w);
    assert_true(w->rig.actions.count < 900);
    apply(w);
  }
  for (size_t i = 0; i < w->rig.count; i++)
    assert_true(!has_prefix(w->rig.records[i].key, "/job"));
  free_world(w);
}

static void an_unreachable_node(void **state) {
  (void)state;
  struct world *w = new_world(3);
  int64_t ticks[10];
  size_t over;
  one_runs(w, 1);
  put_node_status(w, false, w->rig.now);
  decide_somehow(w, false);
  assert_int_equal(decide(w), 0); /* its agent may only be starting again */
  assert_int_equal(w->rig.actions.next_ms, w->rig.now + 30000);
  w->rig.now += 30000;
  decide_somehow(w, false);
  assert_int_equal(runs(w, ticks, 10, &over), 1);
  Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  assert_string_equal(run->reason, "its node cannot be reached");
  assert_string_equal(run->node, "n1");
  free_message(run);
  free_world(w);
}

/* A job that comes after a service of its name gets no number of what is left of that: it would take the old one's place, and its end for its own. */
static void numbers_that_are_taken(void **state) {
  (void)state;
  for (int with_record = 0; with_record < 2; with_record++) {
    struct world *w = new_world(1);
    Model__Instance instance = MODEL__INSTANCE__INIT;
    Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
    instance.project = text("shop");
    instance.service = text("j");
    instance.node = status.node = text("n1");
    PB_SET(&instance, number, 1);
    PB_SET(&instance, epoch, 1);
    PB_SET(&instance, revision, 7);
    PB_SET(&instance, desired, MODEL__DESIRED__DESIRED_DRAIN);
    PB_SET(&instance, desired_since_ms, w->rig.now);
    PB_SET(&status, number, 1);
    PB_SET(&status, epoch, 1);
    PB_SET(&status, phase, MODEL__PHASE__PHASE_EXITED);
    PB_SET(&status, exit_code, 0);
    if (with_record)
      rig_put(&w->rig, "/instances/shop/j/0000000001", &instance.base);
    rig_put(&w->rig, "/instance-status/shop/j/0000000001", &status.base);
    put_job(w, NULL, 1);
    decide_somehow(w, false);
    Model__JobRun *run = job_run(w, 1);
    assert_int_equal(run->state, MODEL__RUN_STATE__RUN_PENDING);
    assert_int_equal(run->instance, 2);
    free_message(run);
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
  rig_put(&w->rig, "/job-runs/shop/j/0000000001", &old.base);
  Model__JobState kept = MODEL__JOB_STATE__INIT;
  PB_SET(&kept, handled, 1);
  PB_SET(&kept, next_number, 2);
  PB_SET(&kept, created_ms, T0);
  PB_SET(&kept, revision, 1);
  rig_put(&w->rig, "/job-state/shop/j", &kept.base);
  put_job(w, NULL, 2);
  decide_somehow(w, false);
  Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  assert_string_equal(run->reason, "its revision 9 is gone");
  free_message(run);
  run = job_run(w, 2);
  assert_string_equal(run->node, "n1");
  free_message(run);
  free_world(w);
}

/* Who says since when a node is away has a clock of his own, which may have been set since this one's was read. */
static void a_node_is_away_by_the_schedulers_own_clock(void **state) {
  (void)state;
  const int64_t off[] = {-INT64_C(3600000), INT64_C(3600000)};
  for (int i = 0; i < 2; i++) {
    struct world *w = new_world(3);
    one_runs(w, 1);
    put_node_status(w, false, w->rig.now + off[i]);
    assert_int_equal(decide(w), 0);
    assert_int_equal(w->rig.actions.next_ms, w->rig.now + 30000);
    put_node_status(w, false, w->rig.now + off[i]); /* told again */
    w->rig.now += 29999;
    assert_int_equal(decide(w), 0);
    w->rig.now++;
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
  w->rig.now += ahead;
  decide_somehow(w, false);
  while (!w->starts)
    agent(w);
  decide_somehow(w, false);
  w->rig.now -= ahead;
  begin(w);
  put_node_status(w, false, w->rig.now + ahead);
  begin(w);
  assert_int_equal(rig_instance(&w->rig, "j", 1)->record->desired_since_ms, w->rig.now); /* timeouts go by it */
  decide_somehow(w, false);
  w->rig.now += 30000;
  decide_somehow(w, false);
  Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_FAILED);
  free_message(run);
  free_world(w);
}

static void suspend(struct world *w, uint64_t requested) {
  Model__Job job = MODEL__JOB__INIT;
  PB_SET(&job, revision, 1);
  PB_SET(&job, requested, requested);
  PB_SET(&job, created_ms, T0);
  PB_SET(&job, suspended, 1);
  rig_put(&w->rig, "/jobs/shop/j", &job.base);
}

/* There is room for it now, and it is not wanted any more: both came while no scheduler was there. */
static void what_goes_is_sent_nowhere_first(void **state) {
  (void)state;
  for (int with_service = 0; with_service < 2; with_service++) {
    struct world *w = new_world(3);
    put_node_status(w, false, w->rig.now);
    put_job(w, NULL, 1);
    decide_somehow(w, false);
    assert_true(is_there(w, "/instances/shop/j/0000000001"));
    put_node_status(w, true, w->rig.now);
    if (with_service) { /* of the same name, after it */
      Model__Service service = MODEL__SERVICE__INIT;
      PB_SET(&service, revision, 1);
      rig_delete(&w->rig, "/jobs/shop/j");
      rig_put(&w->rig, "/services/shop/j", &service.base);
    } else {
      suspend(w, 1);
    }
    begin(w);
    decide_somehow(w, false);
    assert_false(is_there(w, "/instances/shop/j/0000000001"));
    free_world(w);
  }
}

/* One at a time: the first goes on where its agent was away, and the second, that made up for it, waits until it has ended there. */
static void one_that_was_lost_comes_back(void **state) {
  (void)state;
  struct world *w = new_world(3);
  one_runs(w, 2);
  put_node_status(w, false, w->rig.now);
  w->rig.now += 30000;
  decide_somehow(w, false);
  Model__JobRun *run = job_run(w, 2);
  assert_int_equal(run->instance, 2);
  assert_string_equal(PB_STR(run->node), "");
  free_message(run);
  put_node_status(w, true, w->rig.now);
  decide_somehow(w, false);
  run = job_run(w, 2);
  assert_string_equal(PB_STR(run->node), "");
  free_message(run);
  assert_string_equal(rig_instance(&w->rig, "j", 2)->record->reason, "waits for what still runs of the job");
  rig_delete(&w->rig, "/instance-status/shop/j/0000000001");
  decide_somehow(w, false);
  run = job_run(w, 2);
  assert_string_equal(run->node, "n1");
  free_message(run);
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
  assert_false(is_there(w, "/instances/shop/j/0000000002"));
  assert_int_equal(w->rig.actions.next_ms, w->rig.now + 5000);
  w->rig.now += 5000;
  decide_somehow(w, false);
  assert_false(is_there(w, "/instances/shop/j/0000000001"));
  assert_true(is_there(w, "/instances/shop/j/0000000002"));
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
  put_node_status(w, false, w->rig.now);
  w->rig.now += 600000;
  begin(w);
  decide_somehow(w, false);
  Model__JobRun *run = job_run(w, 1);
  assert_int_equal(run->state, MODEL__RUN_STATE__RUN_RUNNING);
  free_message(run);
  assert_int_equal(w->rig.actions.next_ms, w->rig.now + 30000);
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
