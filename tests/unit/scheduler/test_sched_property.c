/* The scheduler's core in random histories: a store, agents and proxies of a few lines each, virtual time, and faults: crashes of instances,
 * images that never get ready, slow and lost acknowledgements, nodes that come and go, transactions that fail or whose outcome is lost, schedulers
 * that die and start over. ORCA_SEEDS=N runs more of them, ORCA_SEED=S one of them, with its story on stderr. */
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
#include "orca-scheduler/sched_core.h"

#define MAX_KEYS 512
#define MAX_AGENT 256
#define SERVICES 3
#define NODES 4
#define PROJECT "shop"
#define MISLED_MS 5000
#define FIRST_MS INT64_C(1700000000000)

enum behaviour { GOOD, NEVER_READY, CRASHING, CANNOT_START };
#define MAX_REVISIONS 64

struct entry {
  char key[KEY_MAX];
  uint8_t *value;
  size_t len;
};

struct event { /* on its way to the scheduler */
  int64_t at;
  char key[KEY_MAX];
  uint8_t *value; /* NULL: deleted */
  size_t len;
};

struct container {
  int service;
  uint64_t number, revision, epoch;
  char node[16];
  int64_t started_at, ready_at, gone_at, drained_at, crash_at; /* INT64_MAX: not planned */
  bool running, ready, drained, stopping;
  uint32_t restarts;
  int64_t ready_since;
  bool in_use;
};

struct sim {
  uint64_t rng;
  int64_t now;
  int64_t wall, base;   /* what the clock on the wall and the scheduler's are ahead of it: the scheduler's is read from the wall when it begins */
  int64_t misled_until; /* it can't tell since when something is ready, after the clock was set */
  struct entry keys[MAX_KEYS];
  size_t key_count;
  struct event *queue;
  size_t queue_len, queue_size;
  int64_t last_delivery;
  struct container containers[MAX_AGENT];
  struct sched_core *core;
  struct sched_actions actions;
  bool faults, story;
  enum behaviour behaviour[SERVICES][MAX_REVISIONS];
  uint64_t last_revision[SERVICES];
  bool reached[SERVICES]; /* the budget was reached, and nothing but the scheduler has taken from it since */
  uint32_t wanted[SERVICES], previous_wanted[SERVICES];
  uint32_t surge[SERVICES], unavailable[SERVICES];
  int strategy[SERVICES]; /* 0 rolling, 1 recreate, 2 stop-first */
  uint64_t min_ready;
  const char *seed_text;
  unsigned long seed;
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

static int64_t sched_now(const struct sim *s) {
  return s->now + s->base;
}

static void say(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct sim *s, const char *fmt, ...) {
  if (!s->story)
    return;
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "%8.3f ", (double)(s->now - FIRST_MS) / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
}

#define CHECK(s, cond, ...)                                                                                                                          \
  do {                                                                                                                                               \
    if (!(cond)) {                                                                                                                                   \
      fprintf(stderr, "seed %lu at %.3f: ", (s)->seed, (double)((s)->now - FIRST_MS) / 1000);                                                        \
      fprintf(stderr, __VA_ARGS__);                                                                                                                  \
      fputc('\n', stderr);                                                                                                                           \
      fail();                                                                                                                                        \
    }                                                                                                                                                \
  } while (0)

static const char *service_name(int i) {
  static const char *const names[SERVICES] = {"api", "db", "web"};
  return names[i];
}

/* ---- the store ---- */

static struct entry *find(struct sim *s, const char *key) {
  for (size_t i = 0; i < s->key_count; i++)
    if (strcmp(s->keys[i].key, key) == 0)
      return &s->keys[i];
  return NULL;
}

static void send(struct sim *s, const char *key, const uint8_t *value, size_t len) {
  if (strncmp(key, KEY_HISTORY, strlen(KEY_HISTORY)) == 0)
    return;
  if (s->queue_len == s->queue_size) {
    s->queue_size = s->queue_size ? s->queue_size * 2 : 64;
    s->queue = realloc(s->queue, s->queue_size * sizeof *s->queue);
    assert_non_null(s->queue);
  }
  struct event *e = &s->queue[s->queue_len++];
  int64_t at = s->now + (s->faults && chance(s, 5) ? (int64_t)rnd(s, 2000) : (int64_t)rnd(s, 5));
  if (at < s->last_delivery)
    at = s->last_delivery; /* one watch: in order */
  s->last_delivery = at;
  e->at = at;
  snprintf(e->key, sizeof e->key, "%s", key);
  e->value = NULL;
  e->len = len;
  if (value) {
    e->value = malloc(len ? len : 1);
    memcpy(e->value, value, len);
  }
}

static void put(struct sim *s, const char *key, const uint8_t *value, size_t len) {
  if (strncmp(key, KEY_HISTORY, strlen(KEY_HISTORY)) == 0)
    return;
  struct entry *e = find(s, key);
  if (!e) {
    assert_true(s->key_count < MAX_KEYS);
    e = &s->keys[s->key_count++];
    *e = (struct entry){0};
    snprintf(e->key, sizeof e->key, "%s", key);
  }
  free(e->value);
  e->value = malloc(len ? len : 1);
  memcpy(e->value, value, len);
  e->len = len;
  send(s, key, value, len);
}

static void put_message(struct sim *s, const char *key, const ProtobufCMessage *m) {
  uint8_t buf[8192];
  assert_true(protobuf_c_message_get_packed_size(m) < sizeof buf);
  put(s, key, buf, protobuf_c_message_pack(m, buf));
}

static void delete (struct sim *s, const char *key) {
  struct entry *e = find(s, key);
  if (!e)
    return;
  free(e->value);
  *e = s->keys[--s->key_count];
  send(s, key, NULL, 0);
}

static void *get(struct sim *s, const ProtobufCMessageDescriptor *d, const char *key) {
  struct entry *e = find(s, key);
  return e ? protobuf_c_message_unpack(d, NULL, e->len, e->value) : NULL;
}

#define FREE(m) protobuf_c_message_free_unpacked(&(m)->base, NULL)

/* ---- what the apiserver would do ---- */

static void put_service(struct sim *s, int i, const Model__Service *m) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, PROJECT, service_name(i));
  put_message(s, key, &m->base);
}

static Model__Service *get_service(struct sim *s, int i) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, PROJECT, service_name(i));
  return get(s, &model__service__descriptor, key);
}

static void put_revision(struct sim *s, int i, uint64_t number, enum behaviour behaviour) {
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__DeployPolicy deploy = MODEL__DEPLOY_POLICY__INIT;
  Model__Resources resources = MODEL__RESOURCES__INIT;
  Model__ProxyRules proxy = MODEL__PROXY_RULES__INIT;
  char *db[] = {"db"};
  spec.name = (char *)(uintptr_t)service_name(i);
  spec.project = PROJECT;
  spec.image = "x";
  PB_SET(&deploy, strategy, s->strategy[i] == 1 ? MODEL__DEPLOY_STRATEGY__RECREATE : MODEL__DEPLOY_STRATEGY__ROLLING);
  PB_SET(&deploy, max_surge, s->surge[i]);
  PB_SET(&deploy, max_unavailable, s->unavailable[i]);
  PB_SET(&deploy, timeout_ms, 60000);
  PB_SET(&deploy, auto_rollback, 1);
  PB_SET(&deploy, min_ready_ms, s->min_ready);
  spec.deploy = &deploy;
  PB_SET(&resources, memory, UINT64_C(100) << 20);
  spec.resources = &resources;
  PB_SET(&proxy, timeout_ms, 10000);
  spec.proxy = &proxy;
  if (s->strategy[i] == 2)
    PB_SET(&spec, host_port, 7000 + (uint32_t)i);
  if (i == 0) {
    spec.depends_on = db;
    spec.n_depends_on = 1;
  }
  Model__Revision m = MODEL__REVISION__INIT;
  PB_SET(&m, number, number);
  m.spec = &spec;
  char key[KEY_MAX];
  key_numbered(key, KEY_REVISIONS, PROJECT, service_name(i), number);
  put_message(s, key, &m.base);
  s->behaviour[i][number] = behaviour;
}

static void set_wanted(struct sim *s, int i, uint32_t n) {
  if (n > s->wanted[i])
    s->reached[i] = false;
  s->wanted[i] = n;
}

/* The service and its revisions; what runs of it is the scheduler's to clear away. */
static void purge(struct sim *s, int i) {
  char key[KEY_MAX];
  say(s, "purge %s", service_name(i));
  key_service(key, KEY_SERVICES, PROJECT, service_name(i));
  delete (s, key);
  for (uint64_t n = 1; n <= s->last_revision[i]; n++) {
    key_numbered(key, KEY_REVISIONS, PROJECT, service_name(i), n);
    delete (s, key);
  }
  set_wanted(s, i, 0);
}

static void deploy(struct sim *s, int i, enum behaviour behaviour, uint32_t replicas) {
  if (s->last_revision[i] + 1 >= MAX_REVISIONS)
    return;
  uint64_t number = ++s->last_revision[i];
  Model__Service *old = get_service(s, i);
  Model__Service m = MODEL__SERVICE__INIT;
  PB_SET(&m, revision, number);
  PB_SET(&m, generation, old ? old->generation : 0);
  PB_SET(&m, replicas, replicas);
  PB_SET(&m, stopped, 0);
  say(s, "deploy %s revision %" PRIu64 " (behaviour %d), %u replicas", service_name(i), number, behaviour, replicas);
  put_revision(s, i, number, behaviour);
  put_service(s, i, &m);
  set_wanted(s, i, replicas);
  if (old)
    FREE(old);
}

static void delete_node(struct sim *s, int i) {
  char name[16], key[KEY_MAX];
  snprintf(name, sizeof name, "n%d", i);
  say(s, "%s is no node any more", name);
  key_named(key, KEY_NODES, name);
  delete (s, key);
  key_named(key, KEY_NODE_STATUS, name);
  delete (s, key);
}

static void put_node(struct sim *s, int i, bool ready) {
  char name[16], key[KEY_MAX];
  snprintf(name, sizeof name, "n%d", i);
  Model__Node node = MODEL__NODE__INIT;
  node.name = name;
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  status.name = name;
  PB_SET(&status, state, ready ? MODEL__NODE_STATE__NODE_READY : MODEL__NODE_STATE__NODE_UNREACHABLE);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, UINT64_C(4) << 30); /* room for all on one: a node that was away gets nothing back */
  PB_SET(&status, cpu_milli, 4000);
  key_named(key, KEY_NODES, name);
  put_message(s, key, &node.base);
  key_named(key, KEY_NODE_STATUS, name);
  put_message(s, key, &status.base);
}

/* ---- agents and proxies ---- */

static void report(struct sim *s, struct container *c) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, PROJECT, service_name(c->service), c->number);
  Model__InstanceStatus m = MODEL__INSTANCE_STATUS__INIT;
  PB_SET(&m, number, c->number);
  PB_SET(&m, epoch, c->epoch);
  m.node = c->node;
  enum behaviour b = s->behaviour[c->service][c->revision];
  PB_SET(&m, phase,
         c->stopping                        ? MODEL__PHASE__PHASE_STOPPING
         : c->running                       ? MODEL__PHASE__PHASE_RUNNING
         : b == CANNOT_START && c->restarts ? MODEL__PHASE__PHASE_FAILED
         : c->restarts                      ? MODEL__PHASE__PHASE_BACKOFF
                                            : MODEL__PHASE__PHASE_STARTING);
  PB_SET(&m, ready, c->ready);
  if (c->ready)
    PB_SET(&m, ready_since_ms, c->ready_since + s->wall);
  PB_SET(&m, restarts, c->restarts);
  PB_SET(&m, drained, c->drained);
  put_message(s, key, &m.base);
}

static int64_t soon(struct sim *s, uint64_t ms) {
  return s->now + 1 + (int64_t)rnd(s, ms);
}

static void plan_start(struct sim *s, struct container *c) {
  c->started_at = soon(s, s->faults && chance(s, 5) ? 20000 : 300);
  c->ready_at = c->crash_at = INT64_MAX;
}

static void agent_sees(struct sim *s, const Model__Instance *m, int service) {
  struct container *c = NULL, *unused = NULL;
  for (int i = 0; i < MAX_AGENT; i++) {
    if (s->containers[i].in_use && s->containers[i].service == service && s->containers[i].number == m->number)
      c = &s->containers[i];
    if (!s->containers[i].in_use && !unused)
      unused = &s->containers[i];
  }
  if (!c) {
    if (!*PB_STR(m->node) || m->desired != MODEL__DESIRED__DESIRED_RUN)
      return;
    assert_non_null(unused);
    c = unused;
    *c = (struct container){.in_use = true, .service = service, .number = m->number, .revision = m->revision, .epoch = m->epoch};
    snprintf(c->node, sizeof c->node, "%s", m->node);
    c->gone_at = c->drained_at = INT64_MAX;
    plan_start(s, c);
    report(s, c);
    return;
  }
  CHECK(s, strcmp(c->node, PB_STR(m->node)) == 0 && c->revision == m->revision, "%s.%" PRIu64 " moved or changed", service_name(service), m->number);
  if (m->desired == MODEL__DESIRED__DESIRED_DRAIN && !c->drained && c->drained_at == INT64_MAX)
    c->drained_at = s->faults && chance(s, 10) ? INT64_MAX - 1 : soon(s, 500); /* some are never acknowledged */
  if (m->desired == MODEL__DESIRED__DESIRED_STOP && c->gone_at == INT64_MAX)
    c->gone_at = soon(s, s->faults && chance(s, 10) ? 10000 : 300);
}

/* The budget is broken only by the scheduler: whatever else takes an instance away starts the count anew. */
static void taken_away(struct sim *s, int service) {
  s->reached[service] = false;
}

static void start(struct sim *s, struct container *c) {
  enum behaviour b = s->behaviour[c->service][c->revision];
  c->started_at = INT64_MAX;
  if (b == CANNOT_START) {
    c->restarts++;
    c->started_at = soon(s, 2000);
  } else {
    c->running = true;
    if (b == CRASHING)
      c->crash_at = soon(s, 1000);
    else if (b == GOOD)
      c->ready_at = soon(s, s->faults && chance(s, 5) ? 30000 : 500);
  }
  report(s, c);
}

static void crash(struct sim *s, struct container *c) {
  if (c->ready)
    taken_away(s, c->service);
  c->running = c->ready = false;
  c->restarts++;
  plan_start(s, c);
  report(s, c);
}

static void gone(struct sim *s, struct container *c) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, PROJECT, service_name(c->service), c->number);
  delete (s, key);
  c->in_use = false;
}

static void agents_work(struct sim *s) {
  for (int i = 0; i < MAX_AGENT; i++) {
    struct container *c = &s->containers[i];
    if (!c->in_use)
      continue;
    if (c->gone_at <= s->now) {
      gone(s, c);
      continue;
    }
    if (c->drained_at <= s->now) {
      c->drained = true;
      c->drained_at = INT64_MAX - 1;
      report(s, c);
    }
    if (c->started_at <= s->now)
      start(s, c);
    if (c->ready_at <= s->now) {
      c->ready = true;
      c->ready_since = s->now;
      c->ready_at = INT64_MAX;
      report(s, c);
    }
    if (c->crash_at <= s->now)
      crash(s, c);
  }
}

static int64_t agents_next(const struct sim *s) {
  int64_t next = INT64_MAX;
  for (int i = 0; i < MAX_AGENT; i++) {
    const struct container *c = &s->containers[i];
    const int64_t times[] = {c->gone_at, c->drained_at, c->started_at, c->ready_at, c->crash_at};
    for (size_t k = 0; c->in_use && k < sizeof times / sizeof *times; k++)
      if (times[k] < next && times[k] < INT64_MAX - 1)
        next = times[k];
  }
  return next;
}

/* ---- the scheduler's shell ---- */

static void start_over(struct sim *s) {
  sched_core_free(s->core);
  s->core = sched_core_new();
  assert_non_null(s->core);
  if (s->base != s->wall)
    s->misled_until = s->now + MISLED_MS;
  s->base = s->wall;
  for (size_t i = 0; i < s->queue_len; i++)
    free(s->queue[i].value);
  s->queue_len = 0;
  s->last_delivery = s->now;
  /* Any order of prefixes must do. */
  size_t from = rnd(s, s->key_count ? s->key_count : 1);
  for (size_t i = 0; i < s->key_count; i++) {
    struct entry *e = &s->keys[(from + i) % s->key_count];
    struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = e->key, .value = e->value, .len = e->len};
    assert_int_equal(sched_core_step(s->core, &event, sched_now(s), &s->actions, NULL), 0);
  }
  struct sched_event synced = {.kind = SCHED_EVENT_SYNCED};
  assert_int_equal(sched_core_step(s->core, &synced, sched_now(s), &s->actions, NULL), 0);
  s->actions.next_ms = sched_now(s); /* a new one decides at once */
}

static void deliver(struct sim *s) {
  size_t n = 0;
  while (n < s->queue_len && s->queue[n].at <= s->now) {
    struct event *e = &s->queue[n++];
    struct sched_event event = {.kind = e->value ? SCHED_EVENT_PUT : SCHED_EVENT_DELETE, .key = e->key, .value = e->value, .len = e->len};
    struct err err = {0};
    int64_t next = s->actions.next_ms;
    CHECK(s, sched_core_step(s->core, &event, sched_now(s), &s->actions, &err) == 0, "refused: %s", err.msg);
    s->actions.next_ms = next;
    free(e->value);
  }
  memmove(s->queue, s->queue + n, (s->queue_len - n) * sizeof *s->queue);
  s->queue_len -= n;
}

/* Everything on its way arrives now: the mirror has reached the transaction's revision. */
static void catch_up(struct sim *s) {
  for (size_t i = 0; i < s->queue_len; i++)
    s->queue[i].at = s->now;
  s->last_delivery = s->now;
  deliver(s);
}

struct counts {
  uint32_t unstopped, existing, available, known_available, run;
};

/* As far as the scheduler can know: it dates readiness when it hears of it, and a crash on its way to it is not its fault. */
static bool seen_available(struct sim *s, int service, uint64_t number) {
  char id[64];
  snprintf(id, sizeof id, "%s/%s", PROJECT, service_name(service));
  const struct sched_service *known = sched_state_service(sched_core_state(s->core), id);
  const struct sched_instance *instance = known ? sched_service_instance(known, number) : NULL;
  return instance && instance->ready_since_ms && instance->ready_since_ms + (int64_t)s->min_ready <= sched_now(s);
}

static struct counts count_instances(struct sim *s, int service) {
  struct counts n = {0};
  char prefix[KEY_MAX];
  snprintf(prefix, sizeof prefix, "%s%s/%s/", KEY_INSTANCES, PROJECT, service_name(service));
  for (size_t i = 0; i < s->key_count; i++) {
    if (strncmp(s->keys[i].key, prefix, strlen(prefix)) != 0)
      continue;
    Model__Instance *m = get(s, &model__instance__descriptor, s->keys[i].key);
    assert_non_null(m);
    n.existing++;
    n.unstopped += m->desired != MODEL__DESIRED__DESIRED_STOP;
    n.run += m->desired == MODEL__DESIRED__DESIRED_RUN;
    for (int k = 0; k < MAX_AGENT; k++) {
      struct container *c = &s->containers[k];
      if (c->in_use && c->service == service && c->number == m->number && m->desired == MODEL__DESIRED__DESIRED_RUN && c->ready &&
          c->ready_since + (int64_t)s->min_ready <= s->now) {
        n.available++;
        n.known_available += seen_available(s, service, m->number);
      }
    }
    FREE(m);
  }
  return n;
}

/* What the scheduler has not heard of yet it can't keep. */
static bool knows_what_is_wanted(struct sim *s, int i) {
  char id[64];
  snprintf(id, sizeof id, "%s/%s", PROJECT, service_name(i));
  const struct sched_service *service = sched_state_service(sched_core_state(s->core), id);
  return service && service->record && (service->record->stopped ? 0 : service->record->replicas) == s->wanted[i];
}

/* It counts on an instance whose crash it has not heard of. */
static bool is_deceived(struct sim *s, int service) {
  for (int k = 0; k < MAX_AGENT; k++) {
    const struct container *c = &s->containers[k];
    bool available = c->ready && c->ready_since + (int64_t)s->min_ready <= s->now;
    if (c->in_use && c->service == service && !available && seen_available(s, service, c->number))
      return true;
  }
  return false;
}

static void check_budgets(struct sim *s) {
  for (int i = 0; i < SERVICES; i++) {
    if (!knows_what_is_wanted(s, i) || is_deceived(s, i) || s->now < s->misled_until) {
      s->reached[i] = false;
      continue;
    }
    struct counts n = count_instances(s, i);
    uint32_t keep = s->wanted[i] > s->unavailable[i] ? s->wanted[i] - s->unavailable[i] : 0;
    if (s->strategy[i] == 2)
      keep = s->wanted[i] > 1 ? s->wanted[i] - (s->unavailable[i] ? s->unavailable[i] : 1) : 0;
    if (s->strategy[i] == 1)
      keep = 0;
    if (n.available >= keep)
      s->reached[i] = s->reached[i] || n.known_available >= keep;
    else
      CHECK(s, !s->reached[i], "%s: %u available, budget %u", service_name(i), n.available, keep);
  }
}

static void check_surge(struct sim *s, const uint32_t before[SERVICES], const bool created[SERVICES]) {
  for (int i = 0; i < SERVICES; i++) {
    if (!created[i])
      continue;
    struct counts n = count_instances(s, i);
    char id[64];
    snprintf(id, sizeof id, "%s/%s", PROJECT, service_name(i));
    const struct sched_service *service = sched_state_service(sched_core_state(s->core), id);
    uint32_t wanted = service->record->stopped ? 0 : service->record->replicas;
    uint32_t surge = s->strategy[i] ? 0 : s->surge[i] || s->unavailable[i] ? s->surge[i] : 1;
    CHECK(s, n.unstopped <= wanted + surge, "%s: %u un-STOPped of %u + %u (%u before)", service_name(i), n.unstopped, wanted, surge, before[i]);
    if (s->strategy[i] == 2)
      CHECK(s, n.existing <= wanted, "%s: %u exist of %u, stop-first", service_name(i), n.existing, wanted);
  }
}

static int service_of_key(const char *key) {
  for (int i = 0; i < SERVICES; i++) {
    char prefix[KEY_MAX];
    snprintf(prefix, sizeof prefix, "%s%s/%s/", KEY_INSTANCES, PROJECT, service_name(i));
    if (strncmp(key, prefix, strlen(prefix)) == 0)
      return i;
  }
  return -1;
}

static void apply(struct sim *s) {
  uint32_t before[SERVICES];
  bool created[SERVICES] = {false};
  for (int i = 0; i < SERVICES; i++)
    before[i] = count_instances(s, i).unstopped;
  for (size_t i = 0; i < s->actions.count; i++) {
    struct sched_action *a = &s->actions.list[i];
    for (size_t k = 0; k < i; k++) /* the store takes no transaction that changes a key twice */
      CHECK(s, strcmp(a->key, s->actions.list[k].key) != 0, "%s is changed twice", a->key);
    int service = service_of_key(a->key);
    if (a->kind == SCHED_ACTION_DELETE) {
      say(s, "  delete %s", a->key);
      delete (s, a->key);
      continue;
    }
    if (service >= 0 && !find(s, a->key))
      created[service] = true;
    if (service >= 0 && s->story) {
      Model__Instance *m = (Model__Instance *)protobuf_c_message_unpack(&model__instance__descriptor, NULL, a->len, a->value);
      say(s, "  put %s rev %" PRIu64 " node '%s' desired %d: %s", a->key, m->revision, m->node, (int)m->desired, PB_STR(m->reason));
      FREE(m);
    } else if (s->story && strncmp(a->key, KEY_ROLLOUTS, strlen(KEY_ROLLOUTS)) == 0) {
      Model__Rollout *m = (Model__Rollout *)protobuf_c_message_unpack(&model__rollout__descriptor, NULL, a->len, a->value);
      say(s, "  rollout %s state %d rev %" PRIu64 " stable %" PRIu64 " phase '%s' reason '%s'", m->service, (int)m->state, m->revision,
          m->stable_revision, PB_STR(m->phase), PB_STR(m->reason));
      FREE(m);
    }
    put(s, a->key, a->value, a->len);
  }
  check_surge(s, before, created);
}

static void agents_look(struct sim *s) {
  for (size_t i = 0; i < s->key_count; i++) {
    int service = service_of_key(s->keys[i].key);
    if (service < 0)
      continue;
    Model__Instance *m = get(s, &model__instance__descriptor, s->keys[i].key);
    agent_sees(s, m, service);
    FREE(m);
  }
  /* What is not assigned any more is removed. */
  for (int i = 0; i < MAX_AGENT; i++) {
    struct container *c = &s->containers[i];
    char key[KEY_MAX];
    if (!c->in_use)
      continue;
    key_numbered(key, KEY_INSTANCES, PROJECT, service_name(c->service), c->number);
    if (!find(s, key))
      gone(s, c);
  }
}

static bool run(struct sim *s) {
  struct sched_event event = {.kind = SCHED_EVENT_RUN};
  struct err err = {0};
  for (int i = 0; i < SERVICES; i++)
    s->reached[i] = s->reached[i] && knows_what_is_wanted(s, i) && !is_deceived(s, i);
  CHECK(s, sched_core_step(s->core, &event, sched_now(s), &s->actions, &err) == 0, "%s", err.msg);
  if (s->actions.count == 0) {
    CHECK(s, !s->actions.more, "nothing to do, and more");
    return false;
  }
  int64_t next = s->actions.next_ms;
  if (s->faults && chance(s, 2)) { /* refused: another leads */
    say(s, "transaction refused");
    start_over(s);
  } else {
    apply(s);
    if (s->faults && chance(s, 2)) {
      say(s, "outcome lost");
      start_over(s);
    }
    catch_up(s);
  }
  if (s->actions.next_ms > next)
    s->actions.next_ms = next;
  agents_look(s);
  check_budgets(s);
  return true;
}

/* ---- what happens to it ---- */

static void user_acts(struct sim *s) {
  int i = (int)rnd(s, SERVICES);
  Model__Service *m = get_service(s, i);
  switch (rnd(s, 7)) {
  case 6:
    if (m && chance(s, 30)) {
      purge(s, i);
      if (chance(s, 50))
        deploy(s, i, GOOD, m->replicas);
    }
    break;
  case 0:
  case 1:
    if (!m || chance(s, 60))
      deploy(s, i, GOOD, m ? m->replicas : 1 + (uint32_t)rnd(s, 4));
    else
      deploy(s, i, (enum behaviour)rnd(s, 4), m->replicas);
    break;
  case 2:
    if (m) {
      PB_SET(m, replicas, (uint32_t)rnd(s, s->strategy[i] == 2 ? NODES + 1 : 6)); /* a host port is there once per node */
      say(s, "scale %s to %u", service_name(i), m->replicas);
      put_service(s, i, m);
      set_wanted(s, i, m->stopped ? 0 : m->replicas);
    }
    break;
  case 3:
    if (m) {
      PB_SET(m, stopped, !m->stopped);
      say(s, "%s %s", m->stopped ? "stop" : "start", service_name(i));
      put_service(s, i, m);
      set_wanted(s, i, m->stopped ? 0 : m->replicas);
    }
    break;
  case 4:
    if (m) {
      PB_SET(m, generation, m->generation + 1);
      say(s, "restart %s", service_name(i));
      put_service(s, i, m);
    }
    break;
  case 5:
    if (m && m->revision > 1) {
      uint64_t to = 1 + rnd(s, s->last_revision[i]);
      char key[KEY_MAX];
      key_numbered(key, KEY_REVISIONS, PROJECT, service_name(i), to);
      PB_SET(m, revision, find(s, key) ? to : m->revision);
      say(s, "roll back %s to %" PRIu64, service_name(i), m->revision);
      put_service(s, i, m);
    }
    break;
  }
  if (m)
    FREE(m);
}

static void misfortune(struct sim *s) {
  static const int64_t jumps[] = {-INT64_C(31536000000), -3600000, -5000, 5000, 3600000, INT64_C(31536000000)};
  switch (rnd(s, 5)) {
  case 4:
    if (chance(s, 50)) {
      s->wall += jumps[rnd(s, sizeof jumps / sizeof *jumps)];
      say(s, "the clock is set: %" PRId64 " ms ahead", s->wall);
    } else {
      delete_node(s, (int)rnd(s, NODES));
    }
    break;
  case 0:
  case 1: {
    struct container *c = &s->containers[rnd(s, 12)];
    if (c->in_use && c->running && !c->stopping) {
      say(s, "crash of %s.%" PRIu64, service_name(c->service), c->number);
      crash(s, c);
    }
    break;
  }
  case 2:
    put_node(s, (int)rnd(s, NODES), chance(s, 60));
    break;
  case 3:
    say(s, "the scheduler dies");
    start_over(s);
    break;
  }
}

static void tick(struct sim *s, int64_t until) {
  int64_t next = agents_next(s);
  if (s->queue_len && s->queue[0].at < next)
    next = s->queue[0].at;
  if (s->actions.next_ms != INT64_MAX && s->actions.next_ms - s->base < next)
    next = s->actions.next_ms - s->base;
  if (next > until)
    next = until;
  if (next > s->now)
    s->now = next;
  agents_work(s);
  check_budgets(s);
  deliver(s);
  for (int n = 0; run(s); n++)
    CHECK(s, n < 1000, "it decides without end");
  check_budgets(s);
}

static void advance(struct sim *s, int64_t ms) {
  int64_t until = s->now + ms;
  for (int n = 0; s->now < until; n++) {
    CHECK(s, n < 200000, "it never comes to rest");
    tick(s, until);
  }
}

static void check_settled(struct sim *s) {
  for (int i = 0; i < SERVICES; i++) {
    Model__Service *m = get_service(s, i);
    if (!m) {
      struct counts left = count_instances(s, i);
      CHECK(s, left.existing == 0, "%s: %u are left of it", service_name(i), left.existing);
      continue;
    }
    char key[KEY_MAX];
    key_service(key, KEY_ROLLOUTS, PROJECT, service_name(i));
    Model__Rollout *r = get(s, &model__rollout__descriptor, key);
    CHECK(s, r, "%s: no rollout", service_name(i));
    struct counts n = count_instances(s, i);
    uint32_t wanted = m->stopped ? 0 : m->replicas;
    bool back = r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
    CHECK(s, r->state != MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || m->stopped || s->behaviour[i][r->stable_revision] != GOOD,
          "%s: still rolling back", service_name(i));
    CHECK(s, r->revision == m->revision, "%s: rollout of %" PRIu64 " while %" PRIu64 " is wanted", service_name(i), r->revision, m->revision);
    uint64_t runs = back ? r->stable_revision : m->revision;
    if (s->behaviour[i][runs] == GOOD && r->state != MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK) {
      CHECK(s, n.available == wanted && n.existing == wanted, "%s: %u available, %u exist, %u wanted (state %d, %s, %s)", service_name(i),
            n.available, n.existing, wanted, (int)r->state, PB_STR(r->phase), PB_STR(r->reason));
      CHECK(s, m->stopped || r->state != MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, "%s: still progressing: %s", service_name(i), PB_STR(r->phase));
    }
    FREE(m);
    FREE(r);
  }
}

static void sim_fini(struct sim *s) {
  sched_core_free(s->core);
  sched_actions_fini(&s->actions);
  for (size_t i = 0; i < s->key_count; i++)
    free(s->keys[i].value);
  for (size_t i = 0; i < s->queue_len; i++)
    free(s->queue[i].value);
  free(s->queue);
}

static void sim_init(struct sim *s, unsigned long seed) {
  *s = (struct sim){.rng = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15), .now = FIRST_MS, .seed = seed, .story = getenv("ORCA_SEED") != NULL};
  for (int i = 0; i < 4; i++)
    rnd(s, 2);
  s->min_ready = rnd(s, 3) * 1000;
  for (int i = 0; i < SERVICES; i++) {
    s->surge[i] = (uint32_t)rnd(s, 3);
    s->unavailable[i] = (uint32_t)rnd(s, 2);
    unsigned kind = (unsigned)rnd(s, 10);
    s->strategy[i] = kind == 0 ? 1 : kind <= 2 ? 2 : 0;
  }
  s->core = sched_core_new();
  start_over(s);
  for (int i = 0; i < NODES; i++)
    put_node(s, i, true);
}

static void one_history(unsigned long seed) {
  struct sim *s = malloc(sizeof *s);
  assert_non_null(s);
  sim_init(s, seed);
  for (int i = 0; i < SERVICES; i++)
    deploy(s, i, GOOD, 1 + (uint32_t)rnd(s, 4));
  s->faults = chance(s, 80);
  unsigned acts = 4 + (unsigned)rnd(s, 12);
  for (unsigned i = 0; i < acts; i++) {
    advance(s, (int64_t)rnd(s, chance(s, 30) ? 60000 : 4000) + 1);
    if (s->faults && chance(s, 40))
      misfortune(s);
    else
      user_acts(s);
  }
  say(s, "the faults end");
  s->faults = false;
  for (int i = 0; i < NODES; i++)
    put_node(s, i, true);
  for (int i = 0; i < MAX_AGENT; i++) /* acknowledgements that were lost are sent again */
    if (s->containers[i].in_use && s->containers[i].drained_at == INT64_MAX - 1 && !s->containers[i].drained)
      s->containers[i].drained_at = s->now + 100;
  /* db must be there for api: what the user left stopped or broken is a reason to wait for ever. */
  Model__Service *db = get_service(s, 1);
  if (!db || db->stopped || db->replicas == 0 || s->behaviour[1][db->revision] != GOOD)
    deploy(s, 1, GOOD, 2);
  if (db)
    FREE(db);
  advance(s, 900000);
  if (s->last_revision[1] + 1 < MAX_REVISIONS)
    check_settled(s);
  /* A settled state: no actions, also not for a scheduler that has just come. */
  for (int i = 0; i < SERVICES; i++) {
    Model__Service *m = get_service(s, i);
    bool good = !m || s->behaviour[i][m->revision] == GOOD;
    if (m)
      FREE(m);
    if (!good) {
      sim_fini(s);
      free(s);
      return;
    }
  }
  s->now += 1000;
  CHECK(s, !run(s), "acts on a settled state");
  start_over(s);
  CHECK(s, !run(s), "a new scheduler acts on a settled state");
  s->now += 3600000;
  CHECK(s, !run(s), "acts on a settled state an hour later");
  sim_fini(s);
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

/* ---- a rollback leaves the old instances alone ---- */

static size_t running_numbers(struct sim *s, int service, uint64_t out[16]) {
  size_t n = 0;
  for (uint64_t number = 1; number < 200; number++) {
    char key[KEY_MAX];
    key_numbered(key, KEY_INSTANCES, PROJECT, service_name(service), number);
    Model__Instance *m = get(s, &model__instance__descriptor, key);
    if (!m)
      continue;
    if (m->desired == MODEL__DESIRED__DESIRED_RUN && n < 16)
      out[n++] = m->number;
    FREE(m);
  }
  return n;
}

static void one_rollback(unsigned long seed) {
  struct sim *s = malloc(sizeof *s);
  assert_non_null(s);
  sim_init(s, seed);
  for (int i = 0; i < SERVICES; i++) {
    s->strategy[i] = 0;
    s->unavailable[i] = 0;
    deploy(s, i, GOOD, 1 + (uint32_t)rnd(s, 4));
  }
  advance(s, 60000);
  check_settled(s);
  uint64_t before[16], after[16];
  size_t n = running_numbers(s, 2, before);
  Model__Service *m = get_service(s, 2);
  deploy(s, 2, (enum behaviour)(1 + rnd(s, 3)), m->replicas);
  FREE(m);
  advance(s, 1 + (int64_t)rnd(s, 3000));
  if (chance(s, 30))
    start_over(s);
  advance(s, 300000);
  char key[KEY_MAX];
  key_service(key, KEY_ROLLOUTS, PROJECT, service_name(2));
  Model__Rollout *r = get(s, &model__rollout__descriptor, key);
  CHECK(s, r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK, "not rolled back: %d %s %s", (int)r->state, PB_STR(r->phase), PB_STR(r->reason));
  CHECK(s, *PB_STR(r->reason), "rolled back without a reason");
  FREE(r);
  CHECK(s, running_numbers(s, 2, after) == n && memcmp(before, after, n * sizeof *before) == 0, "a rollback touched the old instances");
  check_settled(s);
  sim_fini(s);
  free(s);
}

static void test_rollbacks(void **state) {
  (void)state;
  const char *one = getenv("ORCA_SEED");
  for (unsigned long seed = 0; seed < 100; seed++)
    if (!one || seed == strtoul(one, NULL, 10))
      one_rollback(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories), cmocka_unit_test(test_rollbacks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
