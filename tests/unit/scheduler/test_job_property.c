/* Jobs through the whole core in random histories: a store, agents of a few lines each, virtual time, and faults: containers that fail or hang, nodes
 * that cannot be reached for a while and go on, reports that are slow, transactions that fail or whose outcome is lost, schedulers that die and start
 * over, clocks that are set; and people who ask for runs, stop, start, remove and deploy again. */
#include "orca-scheduler/job_core.h"
#include "tests/unit/scheduler/random_history.h"

#define MAX_KEYS 1024
#define MAX_CONTAINERS 256
#define MAX_NUMBERS 8192
#define NODES 2
#define FIRST_MS INT64_C(1772323200000)
#define HOUR INT64_C(3600000)
#define MISLED_MS 15000
#define REPORT_MS 3000 /* until what an agent has seen is in the store */

struct container {
  bool in_use, started, ended, failed, hangs;
  int node;
  uint64_t number;
  int64_t starts_at, ends_at, gone_at, told_at; /* told_at: when the store has what its agent knows */
};

struct node {
  bool connected, ready; /* ready: as the store has it */
  int64_t changes_at;
};

struct sim {
  struct history h;
  struct container containers[MAX_CONTAINERS];
  struct node nodes[NODES];
  /* The job, as it is wanted. */
  bool exists, suspended;
  uint64_t requested, revision, answered, excused; /* answered: requests that came to a run; excused: they were asked for when it was stopped */
  int64_t created_ms;
  Model__Overlap overlap;
  const char *schedule;
  uint32_t retries, most_retries;
  uint64_t over[JOB_STATES]; /* runs of this job that were seen to end */
  int64_t last_tick, taken_at;
  bool alone[MAX_NUMBERS]; /* instances that were sent to a node when none may run beside them */
};

static Model__Instance *instance_of(struct sim *s, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCES, "shop", "j", number);
  return rig_get(&s->h.rig, &model__instance__descriptor, key);
}

/* ---- what the apiserver would do ---- */

static void put_job(struct sim *s) {
  Model__Job job = MODEL__JOB__INIT;
  PB_SET(&job, revision, s->revision);
  PB_SET(&job, requested, s->requested);
  PB_SET(&job, suspended, s->suspended);
  PB_SET(&job, created_ms, s->created_ms);
  PB_SET(&job, updated_ms, history_wall(&s->h));
  rig_put(&s->h.rig, "/jobs/shop/j", &job.base);
}

static bool is_used(struct sim *s, uint64_t revision) {
  bool used = revision == s->revision;
  for (size_t i = 0; i < s->h.rig.count && !used; i++) {
    const char *key = s->h.rig.records[i].key;
    if (has_prefix(key, KEY_INSTANCES)) {
      Model__Instance *m = rig_get(&s->h.rig, &model__instance__descriptor, key);
      used = m->revision == revision;
      free_message(m);
    } else if (has_prefix(key, KEY_JOB_RUNS)) {
      Model__JobRun *m = rig_get(&s->h.rig, &model__job_run__descriptor, key);
      used = m->revision == revision && !job_run_is_over(m->state);
      free_message(m);
    }
  }
  return used;
}

static void tidy_revisions(struct sim *s, bool all) {
  for (uint64_t n = 1; n <= s->revision; n++) {
    char key[KEY_MAX];
    key_numbered(key, KEY_REVISIONS, "shop", "j", n);
    if (all || !is_used(s, n))
      rig_delete(&s->h.rig, key);
  }
}

static void deploy(struct sim *s) {
  static const char *const schedules[] = {NULL, NULL, "0/10 * * * * *", "0 * * * * *", "30 0/5 * * * *"};
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__JobRules rules = MODEL__JOB_RULES__INIT;
  if (!s->exists) {
    s->created_ms = history_wall(&s->h);
    s->requested = s->answered = s->excused = 0;
    memset(s->over, 0, sizeof s->over);
  }
  s->exists = true;
  s->suspended = false;
  s->revision++;
  s->overlap = (Model__Overlap)rnd(&s->h, 3);
  s->schedule = schedules[rnd(&s->h, sizeof schedules / sizeof *schedules)];
  s->retries = (uint32_t)rnd(&s->h, 3);
  s->most_retries = s->retries > s->most_retries ? s->retries : s->most_retries;
  s->requested += !s->schedule;
  rules.schedule = text(s->schedule);
  PB_SET(&rules, overlap, s->overlap);
  PB_SET(&rules, retries, s->retries);
  PB_SET(&rules, history, 1 + (uint32_t)rnd(&s->h, 5));
  if (chance(&s->h, 50))
    PB_SET(&rules, timeout_ms, 5000 + rnd(&s->h, 30000));
  spec.job = &rules;
  say(&s->h, "deploy revision %" PRIu64 ": overlap %d, retries %u, schedule %s", s->revision, (int)s->overlap, s->retries,
      s->schedule ? s->schedule : "-");
  rig_put_revision(&s->h.rig, "j", s->revision, &spec, history_wall(&s->h));
  put_job(s);
  tidy_revisions(s, false);
}

static void remove_job(struct sim *s) {
  say(&s->h, "remove");
  s->exists = false;
  rig_delete(&s->h.rig, "/jobs/shop/j");
  tidy_revisions(s, true);
}

static void put_node(struct sim *s, int i) {
  char name[16];
  snprintf(name, sizeof name, "n%d", i);
  rig_put_node(&s->h.rig, name, s->nodes[i].ready, UINT64_C(64) << 30, history_wall(&s->h));
}

/* ---- agents ---- */

/* It runs, or will. */
static bool is_alive(const struct container *c) {
  return c->in_use && !c->ended && (c->started || c->starts_at != NEVER);
}

static bool knows_it_ready(const struct sim *s, int node) {
  char name[16];
  snprintf(name, sizeof name, "n%d", node);
  const struct place_node *n = place_node_find(&sched_core_state(s->h.rig.core)->nodes, name);
  return n && n->status && PB_GET(n->status, state, 0) == MODEL__NODE_STATE__NODE_READY;
}

/* But for `allow`, none is sent to a node while another of the job may run where its node can be reached. */
static void check_alone(struct sim *s, uint64_t sent) {
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    const struct container *c = &s->containers[i];
    if (is_alive(c) && s->nodes[c->node].connected && knows_it_ready(s, c->node))
      CHECK(&s->h, !s->alone[c->number] || s->h.now < s->h.misled_until, "instance %" PRIu64 " is sent, and %" PRIu64 " runs", sent, c->number);
  }
}

static void report(struct sim *s, struct container *c) {
  char node[16];
  Model__Instance *m = instance_of(s, c->number);
  c->told_at = NEVER;
  if (!m)
    return; /* refused: nobody knows it */
  free_message(m);
  Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
  snprintf(node, sizeof node, "n%d", c->node);
  status.node = node;
  PB_SET(&status, number, c->number);
  PB_SET(&status, epoch, 1);
  PB_SET(&status, phase, c->ended ? MODEL__PHASE__PHASE_EXITED : c->started ? MODEL__PHASE__PHASE_RUNNING : MODEL__PHASE__PHASE_CREATING);
  if (c->ended) {
    PB_SET(&status, exit_code, c->failed ? 3 : 0);
    PB_SET(&status, ended_ms, history_wall(&s->h));
  }
  rig_put_instance_status(&s->h.rig, "j", &status);
}

static void has_news(struct sim *s, struct container *c) {
  if (c->told_at == NEVER)
    c->told_at = s->h.now + 1 + (int64_t)rnd(&s->h, s->h.faults && chance(&s->h, 10) ? REPORT_MS : 50);
}

static struct container *container_of(struct sim *s, int node, uint64_t number) {
  for (int i = 0; i < MAX_CONTAINERS; i++)
    if (s->containers[i].in_use && s->containers[i].node == node && s->containers[i].number == number)
      return &s->containers[i];
  return NULL;
}

static void stop_container(struct sim *s, struct container *c) {
  if (c->gone_at != NEVER)
    return;
  c->gone_at = s->h.now + 1 + (int64_t)rnd(&s->h, c->started ? 2000 : 100);
  if (!c->started)
    c->starts_at = NEVER;
}

static void agent_sees(struct sim *s, const Model__Instance *m) {
  int node = atoi(PB_STR(m->node) + (*PB_STR(m->node) == 'n'));
  if (!*PB_STR(m->node) || !s->nodes[node].connected)
    return;
  struct container *c = container_of(s, node, m->number);
  if (c) {
    if (m->desired == MODEL__DESIRED__DESIRED_STOP)
      stop_container(s, c);
    return;
  }
  if (m->desired != MODEL__DESIRED__DESIRED_RUN)
    return;
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", "j", m->number);
  CHECK(&s->h, !rig_find(&s->h.rig, key), "instance %" PRIu64 " is made, and something has that number", m->number);
  for (int i = 0; i < MAX_CONTAINERS && !c; i++)
    if (!s->containers[i].in_use)
      c = &s->containers[i];
  assert_non_null(c);
  *c = (struct container){.in_use = true, .node = node, .number = m->number, .ends_at = NEVER, .gone_at = NEVER, .told_at = NEVER};
  c->starts_at = s->h.now + 1 + (int64_t)rnd(&s->h, s->h.faults && chance(&s->h, 10) ? 10000 : 300);
  c->failed = s->h.faults && chance(&s->h, 30);
  c->hangs = s->h.faults && chance(&s->h, 5);
  has_news(s, c);
}

static void agents_look(struct sim *s) {
  uint64_t numbers[MAX_KEYS];
  size_t count = 0;
  for (size_t i = 0; i < s->h.rig.count; i++)
    if (has_prefix(s->h.rig.records[i].key, KEY_INSTANCES))
      numbers[count++] = strtoull(strrchr(s->h.rig.records[i].key, '/') + 1, NULL, 10);
  for (size_t i = 0; i < count; i++) {
    Model__Instance *m = instance_of(s, numbers[i]);
    agent_sees(s, m);
    free_message(m);
  }
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    Model__Instance *m = c->in_use && s->nodes[c->node].connected ? instance_of(s, c->number) : NULL;
    if (c->in_use && s->nodes[c->node].connected && !m)
      stop_container(s, c);
    free_message(m);
  }
}

static void agents_work(struct sim *s) {
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    if (!c->in_use)
      continue;
    if (c->starts_at <= s->h.now) {
      c->starts_at = NEVER;
      c->started = true;
      c->ends_at = c->hangs ? NEVER : s->h.now + 1 + (int64_t)rnd(&s->h, s->h.faults && chance(&s->h, 20) ? 90000 : 3000);
      say(&s->h, "container %" PRIu64 " starts on n%d", c->number, c->node);
      has_news(s, c);
    }
    if (c->ends_at <= s->h.now) {
      c->ends_at = NEVER;
      c->ended = true;
      say(&s->h, "container %" PRIu64 " ends%s", c->number, c->failed ? " badly" : "");
      has_news(s, c);
    }
    if (!s->nodes[c->node].connected)
      continue;
    if (c->gone_at <= s->h.now) {
      char key[KEY_MAX];
      key_numbered(key, KEY_INSTANCE_STATUS, "shop", "j", c->number);
      say(&s->h, "container %" PRIu64 " is gone", c->number);
      c->in_use = false;
      rig_delete(&s->h.rig, key);
    } else if (c->told_at <= s->h.now) {
      report(s, c);
    }
  }
  for (int i = 0; i < NODES; i++) {
    struct node *n = &s->nodes[i];
    if (n->changes_at > s->h.now)
      continue;
    n->changes_at = NEVER;
    n->ready = n->connected;
    for (int k = 0; n->connected && k < MAX_CONTAINERS; k++) /* an agent that comes back says all it has, and is there by that */
      if (s->containers[k].in_use && s->containers[k].node == i)
        report(s, &s->containers[k]);
    put_node(s, i);
  }
}

static int64_t agents_next(const struct sim *s) {
  int64_t next = NEVER;
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    const struct container *c = &s->containers[i];
    if (!c->in_use)
      continue;
    earlier(&next, c->starts_at);
    earlier(&next, c->ends_at);
    if (s->nodes[c->node].connected) {
      earlier(&next, c->gone_at);
      earlier(&next, c->told_at);
    }
  }
  for (int i = 0; i < NODES; i++)
    earlier(&next, s->nodes[i].changes_at);
  return next;
}

/* ---- the scheduler's shell, and what it may write ---- */

static void start_over(struct sim *s) {
  history_start_over(&s->h, MISLED_MS);
}

static bool same_text(const char *a, const char *b) {
  return strcmp(PB_STR(a), PB_STR(b)) == 0;
}

/* One attempt after the other, one instance for each, and an end that stays. */
static void check_run(struct sim *s, const struct sched_action *a, bool adopts, unsigned *ticks) {
  Model__JobRun *is = rig_action_message(a, &model__job_run__descriptor);
  Model__JobRun *was = rig_get(&s->h.rig, &model__job_run__descriptor, a->key);
  bool over = job_run_is_over(is->state);
  say(&s->h, "  run %" PRIu64 " state %d attempt %u instance %" PRIu64 " %s", is->number, (int)is->state, is->attempts, is->instance,
      PB_STR(is->reason));
  CHECK(&s->h, is->attempts <= s->most_retries + 1, "run %" PRIu64 ": %u attempts", is->number, is->attempts);
  if (was && job_run_is_over(was->state))
    CHECK(&s->h,
          is->state == was->state && is->ended_ms == was->ended_ms && is->attempts == was->attempts && is->exit_code == was->exit_code &&
              is->instance == was->instance && same_text(is->reason, was->reason),
          "run %" PRIu64 " had ended", is->number);
  else if (over && !(adopts && was)) /* runs of an earlier job end with it, and count for none */
    s->over[is->state]++;
  if (is->instance && (!was || was->instance != is->instance)) {
    Model__Instance *m = instance_of(s, is->instance);
    CHECK(&s->h, is->attempts == (was ? was->attempts : 0) + 1 && !m, "run %" PRIu64 ": attempt %u with instance %" PRIu64, is->number, is->attempts,
          is->instance);
  } else {
    CHECK(&s->h, is->attempts == (was ? was->attempts : 0), "run %" PRIu64 ": attempt %u without an instance", is->number, is->attempts);
  }
  if (!was && is->request) {
    CHECK(&s->h, is->request == s->answered + 1 || (is->request > s->answered && is->request <= s->excused + 1), "request %" PRIu64 " after %" PRIu64,
          is->request, s->answered);
    s->answered = is->request;
  } else if (!was) {
    CHECK(&s->h, is->scheduled_ms <= history_wall(&s->h), "a tick before its time");
    CHECK(&s->h, is->scheduled_ms > s->last_tick, "a tick that was taken");
    CHECK(&s->h, ++*ticks == 1, "two ticks at once");
    s->last_tick = is->scheduled_ms;
    s->taken_at = history_wall(&s->h);
  }
  free_message(was);
  free_message(is);
}

static void check_state(struct sim *s, const struct sched_action *a) {
  Model__JobState *m = rig_action_message(a, &model__job_state__descriptor);
  for (size_t i = 0; i < JOB_STATES && m->created_ms == s->created_ms && s->exists; i++)
    CHECK(&s->h, m->ended[i] == s->over[i], "%" PRIu64 " have ended in state %zu, not %" PRIu64, s->over[i], i, m->ended[i]);
  free_message(m);
}

static void check_actions(struct sim *s) {
  const struct sched_actions *actions = &s->h.rig.actions;
  unsigned ticks = 0;
  bool adopts = false;
  const char *twice = rig_changed_twice(&s->h.rig);
  CHECK(&s->h, !twice, "%s is changed twice", twice);
  for (size_t i = 0; i < actions->count; i++) {
    const struct sched_action *a = &actions->list[i];
    if (a->kind != SCHED_ACTION_PUT || strcmp(a->key, "/job-state/shop/j") != 0)
      continue;
    Model__JobState *is = rig_action_message(a, &model__job_state__descriptor);
    Model__JobState *was = rig_get(&s->h.rig, &model__job_state__descriptor, a->key);
    adopts = is->created_ms != (was ? was->created_ms : 0);
    free_message(is);
    free_message(was);
  }
  if (adopts) {
    s->answered = 0;
    s->last_tick = s->taken_at = 0;
    memset(s->over, 0, sizeof s->over);
  }
  for (size_t i = 0; i < actions->count; i++)
    if (actions->list[i].kind == SCHED_ACTION_PUT && has_prefix(actions->list[i].key, KEY_JOB_RUNS))
      check_run(s, &actions->list[i], adopts, &ticks);
  for (size_t i = 0; i < actions->count; i++)
    if (actions->list[i].kind == SCHED_ACTION_PUT && strcmp(actions->list[i].key, "/job-state/shop/j") == 0)
      check_state(s, &actions->list[i]);
}

static void note_sent(struct sim *s, const struct sched_action *a) {
  Model__Instance *is = rig_action_message(a, &model__instance__descriptor);
  Model__Instance *was = instance_of(s, is->number);
  assert_true(is->number < MAX_NUMBERS);
  if (*PB_STR(is->node) && (!was || !*PB_STR(was->node))) {
    s->alone[is->number] = s->overlap != MODEL__OVERLAP__OVERLAP_ALLOW;
    if (s->alone[is->number])
      check_alone(s, is->number);
  }
  free_message(was);
  free_message(is);
}

static void apply(struct sim *s) {
  const struct sched_actions *actions = &s->h.rig.actions;
  check_actions(s);
  for (size_t i = 0; i < actions->count; i++) {
    const struct sched_action *a = &actions->list[i];
    if (has_prefix(a->key, KEY_HISTORY))
      continue;
    if (a->kind == SCHED_ACTION_PUT && has_prefix(a->key, KEY_INSTANCES))
      note_sent(s, a);
    if (a->kind == SCHED_ACTION_PUT)
      rig_keep(&s->h.rig, a->key, a->value, a->len);
    else
      rig_drop(&s->h.rig, a->key);
  }
}

/* The core's own writes come back. */
static void hear_of_it(struct sim *s) {
  const struct sched_actions *actions = &s->h.rig.actions;
  for (size_t i = 0; i < actions->count; i++) {
    const struct sched_action *a = &actions->list[i];
    if (!has_prefix(a->key, KEY_HISTORY))
      assert_int_equal(rig_hear(&s->h.rig, a->key, a->kind == SCHED_ACTION_PUT ? a->value : NULL, a->len, NULL), 0);
  }
}

static bool run(struct sim *s) {
  if (s->taken_at - history_wall(&s->h) > JOB_CLOCK_BACK) /* that clock was wrong: ticks begin again from here */
    s->last_tick = s->taken_at = 0;
  if (!history_decide(&s->h))
    return false;
  if (s->h.faults && chance(&s->h, 3)) {
    say(&s->h, "transaction refused");
    start_over(s);
  } else {
    apply(s);
    if (s->h.faults && chance(&s->h, 3)) {
      say(&s->h, "outcome lost");
      start_over(s);
    } else {
      hear_of_it(s);
    }
  }
  agents_look(s);
  return true;
}

static void tick(struct sim *s, int64_t until) {
  history_go_on(&s->h, agents_next(s), until);
  agents_look(s);
  agents_work(s);
  for (int n = 0; run(s); n++)
    CHECK(&s->h, n < 1000, "it decides without end");
}

static void advance(struct sim *s, int64_t ms) {
  int64_t until = s->h.now + ms;
  tick(s, s->h.now);
  for (int n = 0; s->h.now < until; n++) {
    CHECK(&s->h, n < 200000, "it never comes to rest");
    tick(s, until);
  }
}

/* ---- what happens to it ---- */

static void user_acts(struct sim *s) {
  if (!s->exists) {
    deploy(s);
    return;
  }
  switch (rnd(&s->h, 8)) {
  case 0:
  case 1:
    deploy(s);
    break;
  case 2:
    s->suspended = !s->suspended;
    s->excused = s->requested;
    say(&s->h, "%s", s->suspended ? "stop" : "start");
    put_job(s);
    break;
  case 3:
    remove_job(s);
    if (chance(&s->h, 50)) {
      history_go_to(&s->h, s->h.now + 1);
      deploy(s);
    }
    break;
  default:
    for (uint64_t n = 1 + rnd(&s->h, 3); n > 0 && !s->suspended; n--) {
      s->requested++;
      say(&s->h, "request %" PRIu64, s->requested);
      put_job(s);
    }
  }
}

static void misfortune(struct sim *s) {
  static const int64_t jumps[] = {-400 * 24 * HOUR, -5 * HOUR, -HOUR, -60000, 60000, HOUR, 5 * HOUR, 400 * 24 * HOUR};
  int i = (int)rnd(&s->h, NODES);
  switch (rnd(&s->h, 4)) {
  case 0:
  case 1:
    s->nodes[i].connected = !s->nodes[i].connected;
    s->nodes[i].changes_at = s->h.now + (s->nodes[i].connected ? 10 : 1000);
    say(&s->h, "n%d is %s", i, s->nodes[i].connected ? "back" : "away");
    break;
  case 2:
    say(&s->h, "the scheduler dies");
    start_over(s);
    break;
  case 3:
    s->h.wall += jumps[rnd(&s->h, sizeof jumps / sizeof *jumps)];
    say(&s->h, "the clock says %" PRId64, history_wall(&s->h));
    break;
  }
}

static void check_settled(struct sim *s) {
  for (size_t i = 0; i < s->h.rig.count; i++) {
    const char *key = s->h.rig.records[i].key;
    CHECK(&s->h, !has_prefix(key, KEY_INSTANCES) && !has_prefix(key, KEY_INSTANCE_STATUS), "%s is left", key);
    if (!has_prefix(key, KEY_JOB_RUNS))
      continue;
    Model__JobRun *m = rig_get(&s->h.rig, &model__job_run__descriptor, key);
    CHECK(&s->h, job_run_is_over(m->state), "%s has not ended: %s", key, PB_STR(m->reason));
    free_message(m);
  }
  CHECK(&s->h, s->answered == s->requested, "%" PRIu64 " of %" PRIu64 " requests", s->answered, s->requested);
  for (int i = 0; i < MAX_CONTAINERS; i++)
    CHECK(&s->h, !s->containers[i].in_use, "container %" PRIu64 " is left", s->containers[i].number);
}

static void one_history(unsigned long seed) {
  struct sim *s = calloc(1, sizeof *s);
  assert_non_null(s);
  history_init(&s->h, seed, FIRST_MS, MAX_KEYS);
  start_over(s);
  for (int i = 0; i < NODES; i++) {
    s->nodes[i] = (struct node){.connected = true, .ready = true, .changes_at = NEVER};
    put_node(s, i);
  }
  s->h.faults = chance(&s->h, 85);
  deploy(s);
  for (unsigned acts = 5 + (unsigned)rnd(&s->h, 30); acts > 0; acts--) {
    advance(s, (int64_t)rnd(&s->h, chance(&s->h, 30) ? 120000 : 4000) + 1);
    if (s->h.faults && chance(&s->h, 40))
      misfortune(s);
    else
      user_acts(s);
  }
  say(&s->h, "the faults end");
  s->h.faults = false;
  for (int i = 0; i < NODES; i++) {
    s->nodes[i].connected = true;
    s->nodes[i].changes_at = s->h.now;
  }
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    c->hangs = false;
    if (c->in_use && c->started && !c->ended && c->ends_at == NEVER)
      c->ends_at = s->h.now + 1000;
  }
  /* One last run that was asked for, and no more ticks. */
  do
    deploy(s);
  while (s->schedule);
  advance(s, INT64_C(1800000));
  check_settled(s);
  CHECK(&s->h, !run(s), "acts on a settled state");
  start_over(s);
  CHECK(&s->h, !run(s), "a new scheduler acts on a settled state");
  history_fini(&s->h);
  free(s);
}

static void test_histories(void **state) {
  (void)state;
  histories(one_history, 200);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
