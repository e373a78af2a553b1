/* Jobs through the whole core in random histories: a store, agents of a few lines each, virtual time, and faults: containers that fail or hang, nodes
 * that cannot be reached for a while and go on, reports that are slow, transactions that fail or whose outcome is lost, schedulers that die and start
 * over, clocks that are set; and people who ask for runs, stop, start, remove and deploy again. ORCA_SEEDS=N runs more of them, ORCA_SEED=S one of
 * them, with its story on stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "orca-scheduler/job_core.h"
#include "orca-scheduler/sched_core.h"

#define MAX_KEYS 1024
#define MAX_CONTAINERS 256
#define MAX_NUMBERS 8192
#define NODES 2
#define FIRST_MS INT64_C(1772323200000)
#define NEVER INT64_MAX
#define HOUR INT64_C(3600000)
#define MISLED_MS 15000
#define REPORT_MS 3000 /* until what an agent has seen is in the store */

struct entry {
  char key[KEY_MAX];
  uint8_t *value;
  size_t len;
};

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
  uint64_t rng;
  unsigned long seed;
  bool story, faults;
  int64_t mono, wall_off, base_off; /* the scheduler's clock is what the wall said when it began */
  struct entry keys[MAX_KEYS];
  size_t key_count;
  struct container containers[MAX_CONTAINERS];
  struct node nodes[NODES];
  struct sched_core *core;
  struct sched_actions actions;
  /* The job, as it is wanted. */
  bool exists, suspended;
  uint64_t requested, revision, answered, excused; /* answered: requests that came to a run; excused: they were asked for when it was stopped */
  int64_t created_ms;
  Model__Overlap overlap;
  const char *schedule;
  uint32_t retries, most_retries;
  uint64_t over[JOB_STATES];                 /* runs of this job that were seen to end */
  int64_t last_tick, taken_at, misled_until; /* misled: it can't tell how long ago something was, after the clock was set */
  bool alone[MAX_NUMBERS];                   /* instances that were sent to a node when none may run beside them */
};

static uint64_t rnd(struct sim *s, uint64_t below) {
  s->rng ^= s->rng << 13;
  s->rng ^= s->rng >> 7;
  s->rng ^= s->rng << 17;
  return below ? (s->rng * UINT64_C(0x2545F4914F6CDD1D) >> 11) % below : 0;
}

static bool chance(struct sim *s, unsigned percent) {
  return rnd(s, 100) < percent;
}

static int64_t now_of(const struct sim *s) {
  return s->mono + s->base_off;
}

static int64_t wall_of(const struct sim *s) {
  return s->mono + s->wall_off;
}

static void say(const struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct sim *s, const char *fmt, ...) {
  if (!s->story)
    return;
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "%9.3f ", (double)s->mono / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
}

#define CHECK(s, cond, ...)                                                                                                                          \
  do {                                                                                                                                               \
    if (!(cond)) {                                                                                                                                   \
      fprintf(stderr, "seed %lu at %.3f: ", (s)->seed, (double)(s)->mono / 1000);                                                                    \
      fprintf(stderr, __VA_ARGS__);                                                                                                                  \
      fputc('\n', stderr);                                                                                                                           \
      fail();                                                                                                                                        \
    }                                                                                                                                                \
  } while (0)

/* ---- the store ---- */

static struct entry *find(struct sim *s, const char *key) {
  for (size_t i = 0; i < s->key_count; i++)
    if (strcmp(s->keys[i].key, key) == 0)
      return &s->keys[i];
  return NULL;
}

static void feed(struct sim *s, const char *key, const uint8_t *value, size_t len) {
  struct sched_event event = {.kind = value ? SCHED_EVENT_PUT : SCHED_EVENT_DELETE, .key = key, .value = value, .len = len};
  assert_int_equal(sched_core_step(s->core, &event, now_of(s), &s->actions, NULL), 0);
}

static void keep(struct sim *s, const char *key, const uint8_t *value, size_t len) {
  struct entry *e = find(s, key);
  if (!e) {
    assert_true(s->key_count < MAX_KEYS);
    e = &s->keys[s->key_count++];
    *e = (struct entry){0};
    snprintf(e->key, sizeof e->key, "%s", key);
  }
  uint8_t *copy = malloc(len + 1);
  assert_non_null(copy);
  memcpy(copy, value, len);
  free(e->value);
  e->value = copy;
  e->len = len;
}

static void drop(struct sim *s, const char *key) {
  struct entry *e = find(s, key);
  if (!e)
    return;
  free(e->value);
  *e = s->keys[--s->key_count];
}

static void put(struct sim *s, const char *key, const ProtobufCMessage *m) {
  uint8_t buf[8192];
  assert_true(protobuf_c_message_get_packed_size(m) < sizeof buf);
  size_t len = protobuf_c_message_pack(m, buf);
  keep(s, key, buf, len);
  feed(s, key, buf, len);
}

static void delete_key(struct sim *s, const char *key) {
  if (!find(s, key))
    return;
  drop(s, key);
  feed(s, key, NULL, 0);
}

static void *get(struct sim *s, const ProtobufCMessageDescriptor *d, const char *key) {
  struct entry *e = find(s, key);
  return e ? protobuf_c_message_unpack(d, NULL, e->len, e->value) : NULL;
}

#define FREE(m) protobuf_c_message_free_unpacked(&(m)->base, NULL)

static bool has_prefix(const char *key, const char *prefix) {
  return strncmp(key, prefix, strlen(prefix)) == 0;
}

static Model__Instance *instance_of(struct sim *s, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCES, "shop", "j", number);
  return get(s, &model__instance__descriptor, key);
}

/* ---- what the apiserver would do ---- */

static void put_job(struct sim *s) {
  Model__Job job = MODEL__JOB__INIT;
  PB_SET(&job, revision, s->revision);
  PB_SET(&job, requested, s->requested);
  PB_SET(&job, suspended, s->suspended);
  PB_SET(&job, created_ms, s->created_ms);
  PB_SET(&job, updated_ms, wall_of(s));
  put(s, "/jobs/shop/j", &job.base);
}

static bool is_used(struct sim *s, uint64_t revision) {
  bool used = revision == s->revision;
  for (size_t i = 0; i < s->key_count && !used; i++) {
    const char *key = s->keys[i].key;
    if (has_prefix(key, KEY_INSTANCES)) {
      Model__Instance *m = get(s, &model__instance__descriptor, key);
      used = m->revision == revision;
      FREE(m);
    } else if (has_prefix(key, KEY_JOB_RUNS)) {
      Model__JobRun *m = get(s, &model__job_run__descriptor, key);
      used = m->revision == revision && !job_run_is_over(m->state);
      FREE(m);
    }
  }
  return used;
}

static void tidy_revisions(struct sim *s, bool all) {
  for (uint64_t n = 1; n <= s->revision; n++) {
    char key[KEY_MAX];
    key_numbered(key, KEY_REVISIONS, "shop", "j", n);
    if (all || !is_used(s, n))
      delete_key(s, key);
  }
}

static void deploy(struct sim *s) {
  static const char *const schedules[] = {NULL, NULL, "0/10 * * * * *", "0 * * * * *", "30 0/5 * * * *"};
  char project[] = "shop", name[] = "j", image[] = "x", key[KEY_MAX];
  Model__Revision revision = MODEL__REVISION__INIT;
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__JobRules rules = MODEL__JOB_RULES__INIT;
  if (!s->exists) {
    s->created_ms = wall_of(s);
    s->requested = s->answered = s->excused = 0;
    memset(s->over, 0, sizeof s->over);
  }
  s->exists = true;
  s->suspended = false;
  s->revision++;
  s->overlap = (Model__Overlap)rnd(s, 3);
  s->schedule = schedules[rnd(s, sizeof schedules / sizeof *schedules)];
  s->retries = (uint32_t)rnd(s, 3);
  s->most_retries = s->retries > s->most_retries ? s->retries : s->most_retries;
  s->requested += !s->schedule;
  rules.schedule = (char *)(uintptr_t)s->schedule;
  PB_SET(&rules, overlap, s->overlap);
  PB_SET(&rules, retries, s->retries);
  PB_SET(&rules, history, 1 + (uint32_t)rnd(s, 5));
  if (chance(s, 50))
    PB_SET(&rules, timeout_ms, 5000 + rnd(s, 30000));
  revision.project = spec.project = project;
  revision.name = spec.name = name;
  spec.image = image;
  spec.job = &rules;
  revision.spec = &spec;
  PB_SET(&revision, number, s->revision);
  PB_SET(&revision, created_ms, wall_of(s));
  say(s, "deploy revision %" PRIu64 ": overlap %d, retries %u, schedule %s", s->revision, (int)s->overlap, s->retries,
      s->schedule ? s->schedule : "-");
  key_numbered(key, KEY_REVISIONS, "shop", "j", s->revision);
  put(s, key, &revision.base);
  put_job(s);
  tidy_revisions(s, false);
}

static void remove_job(struct sim *s) {
  say(s, "remove");
  s->exists = false;
  delete_key(s, "/jobs/shop/j");
  tidy_revisions(s, true);
}

static void put_node(struct sim *s, int i) {
  char name[16], key[KEY_MAX];
  snprintf(name, sizeof name, "n%d", i);
  Model__Node node = MODEL__NODE__INIT;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  node.name = status.name = name;
  PB_SET(&status, state, s->nodes[i].ready ? MODEL__NODE_STATE__NODE_READY : MODEL__NODE_STATE__NODE_UNREACHABLE);
  PB_SET(&status, since_ms, wall_of(s));
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, UINT64_C(64) << 30);
  PB_SET(&status, cpu_milli, 64000);
  key_named(key, KEY_NODES, name);
  put(s, key, &node.base);
  key_named(key, KEY_NODE_STATUS, name);
  put(s, key, &status.base);
}

/* ---- agents ---- */

/* It runs, or will. */
static bool is_alive(const struct container *c) {
  return c->in_use && !c->ended && (c->started || c->starts_at != NEVER);
}

static bool knows_it_ready(const struct sim *s, int node) {
  char name[16];
  snprintf(name, sizeof name, "n%d", node);
  const struct place_node *n = place_node_find(&sched_core_state(s->core)->nodes, name);
  return n && n->status && PB_GET(n->status, state, 0) == MODEL__NODE_STATE__NODE_READY;
}

/* But for `allow`, none is sent to a node while another of the job may run where its node can be reached. */
static void check_alone(struct sim *s, uint64_t sent) {
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    const struct container *c = &s->containers[i];
    if (is_alive(c) && s->nodes[c->node].connected && knows_it_ready(s, c->node))
      CHECK(s, !s->alone[c->number] || s->mono < s->misled_until, "instance %" PRIu64 " is sent, and %" PRIu64 " runs", sent, c->number);
  }
}

static void report(struct sim *s, struct container *c) {
  char key[KEY_MAX], node[16];
  Model__Instance *m = instance_of(s, c->number);
  c->told_at = NEVER;
  if (!m)
    return; /* refused: nobody knows it */
  FREE(m);
  Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
  snprintf(node, sizeof node, "n%d", c->node);
  status.node = node;
  PB_SET(&status, number, c->number);
  PB_SET(&status, epoch, 1);
  PB_SET(&status, phase, c->ended ? MODEL__PHASE__PHASE_EXITED : c->started ? MODEL__PHASE__PHASE_RUNNING : MODEL__PHASE__PHASE_CREATING);
  if (c->ended) {
    PB_SET(&status, exit_code, c->failed ? 3 : 0);
    PB_SET(&status, ended_ms, wall_of(s));
  }
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", "j", c->number);
  put(s, key, &status.base);
}

static void has_news(struct sim *s, struct container *c) {
  if (c->told_at == NEVER)
    c->told_at = s->mono + 1 + (int64_t)rnd(s, s->faults && chance(s, 10) ? REPORT_MS : 50);
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
  c->gone_at = s->mono + 1 + (int64_t)rnd(s, c->started ? 2000 : 100);
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
  CHECK(s, !find(s, key), "instance %" PRIu64 " is made, and something has that number", m->number);
  for (int i = 0; i < MAX_CONTAINERS && !c; i++)
    if (!s->containers[i].in_use)
      c = &s->containers[i];
  assert_non_null(c);
  *c = (struct container){.in_use = true, .node = node, .number = m->number, .ends_at = NEVER, .gone_at = NEVER, .told_at = NEVER};
  c->starts_at = s->mono + 1 + (int64_t)rnd(s, s->faults && chance(s, 10) ? 10000 : 300);
  c->failed = s->faults && chance(s, 30);
  c->hangs = s->faults && chance(s, 5);
  has_news(s, c);
}

static void agents_look(struct sim *s) {
  uint64_t numbers[MAX_KEYS];
  size_t count = 0;
  for (size_t i = 0; i < s->key_count; i++)
    if (has_prefix(s->keys[i].key, KEY_INSTANCES))
      numbers[count++] = strtoull(strrchr(s->keys[i].key, '/') + 1, NULL, 10);
  for (size_t i = 0; i < count; i++) {
    Model__Instance *m = instance_of(s, numbers[i]);
    agent_sees(s, m);
    FREE(m);
  }
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    Model__Instance *m = c->in_use && s->nodes[c->node].connected ? instance_of(s, c->number) : NULL;
    if (c->in_use && s->nodes[c->node].connected && !m)
      stop_container(s, c);
    if (m)
      FREE(m);
  }
}

static void agents_work(struct sim *s) {
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    if (!c->in_use)
      continue;
    if (c->starts_at <= s->mono) {
      c->starts_at = NEVER;
      c->started = true;
      c->ends_at = c->hangs ? NEVER : s->mono + 1 + (int64_t)rnd(s, s->faults && chance(s, 20) ? 90000 : 3000);
      say(s, "container %" PRIu64 " starts on n%d", c->number, c->node);
      has_news(s, c);
    }
    if (c->ends_at <= s->mono) {
      c->ends_at = NEVER;
      c->ended = true;
      say(s, "container %" PRIu64 " ends%s", c->number, c->failed ? " badly" : "");
      has_news(s, c);
    }
    if (!s->nodes[c->node].connected)
      continue;
    if (c->gone_at <= s->mono) {
      char key[KEY_MAX];
      key_numbered(key, KEY_INSTANCE_STATUS, "shop", "j", c->number);
      say(s, "container %" PRIu64 " is gone", c->number);
      c->in_use = false;
      delete_key(s, key);
    } else if (c->told_at <= s->mono) {
      report(s, c);
    }
  }
  for (int i = 0; i < NODES; i++) {
    struct node *n = &s->nodes[i];
    if (n->changes_at > s->mono)
      continue;
    n->changes_at = NEVER;
    n->ready = n->connected;
    for (int k = 0; n->connected && k < MAX_CONTAINERS; k++) /* an agent that comes back says all it has, and is there by that */
      if (s->containers[k].in_use && s->containers[k].node == i)
        report(s, &s->containers[k]);
    put_node(s, i);
  }
}

static void earlier(int64_t *next, int64_t at) {
  if (at < *next)
    *next = at;
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
  sched_core_free(s->core);
  s->core = sched_core_new();
  assert_non_null(s->core);
  if (s->base_off != s->wall_off)
    s->misled_until = s->mono + MISLED_MS;
  s->base_off = s->wall_off;
  size_t from = rnd(s, s->key_count ? s->key_count : 1); /* any order of prefixes must do */
  for (size_t i = 0; i < s->key_count; i++) {
    const struct entry *e = &s->keys[(from + i) % s->key_count];
    feed(s, e->key, e->value, e->len);
  }
  struct sched_event synced = {.kind = SCHED_EVENT_SYNCED};
  assert_int_equal(sched_core_step(s->core, &synced, now_of(s), &s->actions, NULL), 0);
  s->actions.next_ms = now_of(s); /* a new one decides at once */
}

static bool same_text(const char *a, const char *b) {
  return strcmp(PB_STR(a), PB_STR(b)) == 0;
}

/* One attempt after the other, one instance for each, and an end that stays. */
static void check_run(struct sim *s, const struct sched_action *a, bool adopts, unsigned *ticks) {
  Model__JobRun *is = (Model__JobRun *)protobuf_c_message_unpack(&model__job_run__descriptor, NULL, a->len, a->value);
  Model__JobRun *was = get(s, &model__job_run__descriptor, a->key);
  bool over = job_run_is_over(is->state);
  say(s, "  run %" PRIu64 " state %d attempt %u instance %" PRIu64 " %s", is->number, (int)is->state, is->attempts, is->instance, PB_STR(is->reason));
  CHECK(s, is->attempts <= s->most_retries + 1, "run %" PRIu64 ": %u attempts", is->number, is->attempts);
  if (was && job_run_is_over(was->state))
    CHECK(s,
          is->state == was->state && is->ended_ms == was->ended_ms && is->attempts == was->attempts && is->exit_code == was->exit_code &&
              is->instance == was->instance && same_text(is->reason, was->reason),
          "run %" PRIu64 " had ended", is->number);
  else if (over && !(adopts && was)) /* runs of an earlier job end with it, and count for none */
    s->over[is->state]++;
  if (is->instance && (!was || was->instance != is->instance)) {
    Model__Instance *m = instance_of(s, is->instance);
    CHECK(s, is->attempts == (was ? was->attempts : 0) + 1 && !m, "run %" PRIu64 ": attempt %u with instance %" PRIu64, is->number, is->attempts,
          is->instance);
  } else {
    CHECK(s, is->attempts == (was ? was->attempts : 0), "run %" PRIu64 ": attempt %u without an instance", is->number, is->attempts);
  }
  if (!was && is->request) {
    CHECK(s, is->request == s->answered + 1 || (is->request > s->answered && is->request <= s->excused + 1), "request %" PRIu64 " after %" PRIu64,
          is->request, s->answered);
    s->answered = is->request;
  } else if (!was) {
    CHECK(s, is->scheduled_ms <= wall_of(s), "a tick before its time");
    CHECK(s, is->scheduled_ms > s->last_tick, "a tick that was taken");
    CHECK(s, ++*ticks == 1, "two ticks at once");
    s->last_tick = is->scheduled_ms;
    s->taken_at = wall_of(s);
  }
  if (was)
    FREE(was);
  FREE(is);
}

static void check_state(struct sim *s, const struct sched_action *a) {
  Model__JobState *m = (Model__JobState *)protobuf_c_message_unpack(&model__job_state__descriptor, NULL, a->len, a->value);
  for (size_t i = 0; i < JOB_STATES && m->created_ms == s->created_ms && s->exists; i++)
    CHECK(s, m->ended[i] == s->over[i], "%" PRIu64 " have ended in state %zu, not %" PRIu64, s->over[i], i, m->ended[i]);
  FREE(m);
}

static void check_actions(struct sim *s) {
  unsigned ticks = 0;
  bool adopts = false;
  for (size_t i = 0; i < s->actions.count; i++) /* the store takes no transaction that changes a key twice */
    for (size_t k = 0; k < i; k++)
      CHECK(s, strcmp(s->actions.list[i].key, s->actions.list[k].key) != 0, "%s is changed twice", s->actions.list[i].key);
  for (size_t i = 0; i < s->actions.count; i++) {
    const struct sched_action *a = &s->actions.list[i];
    if (a->kind != SCHED_ACTION_PUT || strcmp(a->key, "/job-state/shop/j") != 0)
      continue;
    Model__JobState *is = (Model__JobState *)protobuf_c_message_unpack(&model__job_state__descriptor, NULL, a->len, a->value);
    Model__JobState *was = get(s, &model__job_state__descriptor, a->key);
    adopts = is->created_ms != (was ? was->created_ms : 0);
    FREE(is);
    if (was)
      FREE(was);
  }
  if (adopts) {
    s->answered = 0;
    s->last_tick = s->taken_at = 0;
    memset(s->over, 0, sizeof s->over);
  }
  for (size_t i = 0; i < s->actions.count; i++)
    if (s->actions.list[i].kind == SCHED_ACTION_PUT && has_prefix(s->actions.list[i].key, KEY_JOB_RUNS))
      check_run(s, &s->actions.list[i], adopts, &ticks);
  for (size_t i = 0; i < s->actions.count; i++)
    if (s->actions.list[i].kind == SCHED_ACTION_PUT && strcmp(s->actions.list[i].key, "/job-state/shop/j") == 0)
      check_state(s, &s->actions.list[i]);
}

static void note_sent(struct sim *s, const struct sched_action *a) {
  Model__Instance *is = (Model__Instance *)protobuf_c_message_unpack(&model__instance__descriptor, NULL, a->len, a->value);
  Model__Instance *was = instance_of(s, is->number);
  assert_true(is->number < MAX_NUMBERS);
  if (*PB_STR(is->node) && (!was || !*PB_STR(was->node))) {
    s->alone[is->number] = s->overlap != MODEL__OVERLAP__OVERLAP_ALLOW;
    if (s->alone[is->number])
      check_alone(s, is->number);
  }
  if (was)
    FREE(was);
  FREE(is);
}

static void apply(struct sim *s) {
  struct sched_actions *a = &s->actions;
  check_actions(s);
  for (size_t i = 0; i < a->count; i++) {
    if (has_prefix(a->list[i].key, KEY_HISTORY))
      continue;
    if (a->list[i].kind == SCHED_ACTION_PUT && has_prefix(a->list[i].key, KEY_INSTANCES))
      note_sent(s, &a->list[i]);
    if (a->list[i].kind == SCHED_ACTION_PUT)
      keep(s, a->list[i].key, a->list[i].value, a->list[i].len);
    else
      drop(s, a->list[i].key);
  }
}

static bool run(struct sim *s) {
  struct sched_event event = {.kind = SCHED_EVENT_RUN, .wall_ms = wall_of(s)};
  struct err err = {0};
  if (s->taken_at - wall_of(s) > JOB_CLOCK_BACK) /* that clock was wrong: ticks begin again from here */
    s->last_tick = s->taken_at = 0;
  CHECK(s, sched_core_step(s->core, &event, now_of(s), &s->actions, &err) == 0, "%s", err.msg);
  if (s->actions.count == 0) {
    CHECK(s, !s->actions.more, "nothing to do, and more");
    return false;
  }
  if (s->faults && chance(s, 3)) {
    say(s, "transaction refused");
    start_over(s);
  } else {
    apply(s);
    if (s->faults && chance(s, 3)) {
      say(s, "outcome lost");
      start_over(s);
    } else { /* its own writes come back */
      struct sched_actions told = s->actions;
      s->actions = (struct sched_actions){0};
      for (size_t i = 0; i < told.count; i++)
        if (!has_prefix(told.list[i].key, KEY_HISTORY))
          feed(s, told.list[i].key, told.list[i].kind == SCHED_ACTION_PUT ? told.list[i].value : NULL, told.list[i].len);
      sched_actions_fini(&s->actions);
      s->actions = told;
    }
  }
  agents_look(s);
  return true;
}

static void tick(struct sim *s, int64_t until) {
  int64_t next = agents_next(s), decides = s->actions.next_ms == NEVER ? NEVER : s->actions.next_ms - s->base_off;
  earlier(&next, decides);
  earlier(&next, until);
  if (next > s->mono)
    s->mono = next;
  agents_look(s);
  agents_work(s);
  for (int n = 0; run(s); n++)
    CHECK(s, n < 1000, "it decides without end");
}

static void advance(struct sim *s, int64_t ms) {
  int64_t until = s->mono + ms;
  tick(s, s->mono);
  for (int n = 0; s->mono < until; n++) {
    CHECK(s, n < 200000, "it never comes to rest");
    tick(s, until);
  }
}

/* ---- what happens to it ---- */

static void user_acts(struct sim *s) {
  if (!s->exists) {
    deploy(s);
    return;
  }
  switch (rnd(s, 8)) {
  case 0:
  case 1:
    deploy(s);
    break;
  case 2:
    s->suspended = !s->suspended;
    s->excused = s->requested;
    say(s, "%s", s->suspended ? "stop" : "start");
    put_job(s);
    break;
  case 3:
    remove_job(s);
    if (chance(s, 50)) {
      s->mono++;
      deploy(s);
    }
    break;
  default:
    for (uint64_t n = 1 + rnd(s, 3); n > 0 && !s->suspended; n--) {
      s->requested++;
      say(s, "request %" PRIu64, s->requested);
      put_job(s);
    }
  }
}

static void misfortune(struct sim *s) {
  static const int64_t jumps[] = {-400 * 24 * HOUR, -5 * HOUR, -HOUR, -60000, 60000, HOUR, 5 * HOUR, 400 * 24 * HOUR};
  int i = (int)rnd(s, NODES);
  switch (rnd(s, 4)) {
  case 0:
  case 1:
    s->nodes[i].connected = !s->nodes[i].connected;
    s->nodes[i].changes_at = s->mono + (s->nodes[i].connected ? 10 : 1000);
    say(s, "n%d is %s", i, s->nodes[i].connected ? "back" : "away");
    break;
  case 2:
    say(s, "the scheduler dies");
    start_over(s);
    break;
  case 3:
    s->wall_off += jumps[rnd(s, sizeof jumps / sizeof *jumps)];
    say(s, "the clock says %" PRId64, wall_of(s));
    break;
  }
}

static void check_settled(struct sim *s) {
  for (size_t i = 0; i < s->key_count; i++) {
    const char *key = s->keys[i].key;
    CHECK(s, !has_prefix(key, KEY_INSTANCES) && !has_prefix(key, KEY_INSTANCE_STATUS), "%s is left", key);
    if (!has_prefix(key, KEY_JOB_RUNS))
      continue;
    Model__JobRun *m = get(s, &model__job_run__descriptor, key);
    CHECK(s, job_run_is_over(m->state), "%s has not ended: %s", key, PB_STR(m->reason));
    FREE(m);
  }
  CHECK(s, s->answered == s->requested, "%" PRIu64 " of %" PRIu64 " requests", s->answered, s->requested);
  for (int i = 0; i < MAX_CONTAINERS; i++)
    CHECK(s, !s->containers[i].in_use, "container %" PRIu64 " is left", s->containers[i].number);
}

static void one_history(unsigned long seed) {
  struct sim *s = calloc(1, sizeof *s);
  assert_non_null(s);
  s->rng = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
  s->seed = seed;
  s->story = getenv("ORCA_SEED") != NULL;
  s->wall_off = FIRST_MS;
  for (int i = 0; i < 4; i++)
    rnd(s, 2);
  start_over(s);
  for (int i = 0; i < NODES; i++) {
    s->nodes[i] = (struct node){.connected = true, .ready = true, .changes_at = NEVER};
    put_node(s, i);
  }
  s->faults = chance(s, 85);
  deploy(s);
  for (unsigned acts = 5 + (unsigned)rnd(s, 30); acts > 0; acts--) {
    advance(s, (int64_t)rnd(s, chance(s, 30) ? 120000 : 4000) + 1);
    if (s->faults && chance(s, 40))
      misfortune(s);
    else
      user_acts(s);
  }
  say(s, "the faults end");
  s->faults = false;
  for (int i = 0; i < NODES; i++) {
    s->nodes[i].connected = true;
    s->nodes[i].changes_at = s->mono;
  }
  for (int i = 0; i < MAX_CONTAINERS; i++) {
    struct container *c = &s->containers[i];
    c->hangs = false;
    if (c->in_use && c->started && !c->ended && c->ends_at == NEVER)
      c->ends_at = s->mono + 1000;
  }
  /* One last run that was asked for, and no more ticks. */
  do
    deploy(s);
  while (s->schedule);
  advance(s, INT64_C(1800000));
  check_settled(s);
  CHECK(s, !run(s), "acts on a settled state");
  start_over(s);
  CHECK(s, !run(s), "a new scheduler acts on a settled state");
  sched_core_free(s->core);
  sched_actions_fini(&s->actions);
  for (size_t i = 0; i < s->key_count; i++)
    free(s->keys[i].value);
  free(s);
}

static void test_histories(void **state) {
  (void)state;
  const char *one = getenv("ORCA_SEED"), *many = getenv("ORCA_SEEDS");
  if (one) {
    one_history(strtoul(one, NULL, 10));
    return;
  }
  unsigned long count = many ? strtoul(many, NULL, 10) : 200;
  for (unsigned long seed = 0; seed < count; seed++)
    one_history(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
