#include "tests/unit/scheduler/sim_cluster.h"

#define MAX_KEYS 512
#define MISLED_MS 5000

const char *sim_service_name(int i) {
  static const char *const names[SERVICES] = {"api", "db", "web"};
  return names[i];
}

int sim_service_of_key(const char *key) {
  static const char *const prefixes[SERVICES] = {KEY_INSTANCES "shop/api/", KEY_INSTANCES "shop/db/", KEY_INSTANCES "shop/web/"};
  for (int i = 0; i < SERVICES; i++)
    if (has_prefix(key, prefixes[i]))
      return i;
  return -1;
}

/* The watch: every change is on its way for a while. */
static void goes_its_way(void *arg, const char *key, const uint8_t *value, size_t len) {
  struct sim *s = arg;
  if (s->queue_len == s->queue_size) {
    s->queue_size = s->queue_size ? s->queue_size * 2 : 64;
    s->queue = realloc(s->queue, s->queue_size * sizeof *s->queue);
    assert_non_null(s->queue);
  }
  struct event *e = &s->queue[s->queue_len++];
  int64_t at = s->h.now + (s->h.faults && chance(&s->h, 5) ? (int64_t)rnd(&s->h, 2000) : (int64_t)rnd(&s->h, 5));
  if (at < s->last_delivery)
    at = s->last_delivery; /* one watch: in order */
  s->last_delivery = at;
  e->at = at;
  snprintf(e->key, sizeof e->key, "%s", key);
  e->value = NULL;
  e->len = len;
  if (value) {
    e->value = malloc(len + 1);
    assert_non_null(e->value);
    memcpy(e->value, value, len);
  }
}

/* ---- what the apiserver would do ---- */

Model__Service *sim_get_service(struct sim *s, int i) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, "shop", sim_service_name(i));
  return rig_get(&s->h.rig, &model__service__descriptor, key);
}

static void put_revision(struct sim *s, int i, uint64_t number, enum behaviour behaviour) {
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__DeployPolicy deploy = MODEL__DEPLOY_POLICY__INIT;
  Model__Resources resources = MODEL__RESOURCES__INIT;
  Model__ProxyRules proxy = MODEL__PROXY_RULES__INIT;
  char *db[] = {"db"};
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
  rig_put_revision(&s->h.rig, sim_service_name(i), number, &spec, 0);
  s->behaviour[i][number] = behaviour;
}

void sim_set_wanted(struct sim *s, int i, uint32_t n) {
  if (n > s->wanted[i])
    s->reached[i] = false;
  s->wanted[i] = n;
}

void sim_purge(struct sim *s, int i) {
  char key[KEY_MAX];
  say(&s->h, "purge %s", sim_service_name(i));
  key_service(key, KEY_SERVICES, "shop", sim_service_name(i));
  rig_delete(&s->h.rig, key);
  for (uint64_t n = 1; n <= s->last_revision[i]; n++) {
    key_numbered(key, KEY_REVISIONS, "shop", sim_service_name(i), n);
    rig_delete(&s->h.rig, key);
  }
  sim_set_wanted(s, i, 0);
}

void sim_deploy(struct sim *s, int i, enum behaviour behaviour, uint32_t replicas) {
  if (s->last_revision[i] + 1 >= MAX_REVISIONS)
    return;
  uint64_t number = ++s->last_revision[i];
  Model__Service *old = sim_get_service(s, i);
  Model__Service m = MODEL__SERVICE__INIT;
  PB_SET(&m, revision, number);
  PB_SET(&m, generation, old ? old->generation : 0);
  PB_SET(&m, replicas, replicas);
  PB_SET(&m, stopped, 0);
  say(&s->h, "deploy %s revision %" PRIu64 " (behaviour %d), %u replicas", sim_service_name(i), number, behaviour, replicas);
  put_revision(s, i, number, behaviour);
  rig_put_service(&s->h.rig, sim_service_name(i), &m);
  sim_set_wanted(s, i, replicas);
  free_message(old);
}

void sim_delete_node(struct sim *s, int i) {
  char name[16], key[KEY_MAX];
  snprintf(name, sizeof name, "n%d", i);
  say(&s->h, "%s is no node any more", name);
  key_named(key, KEY_NODES, name);
  rig_delete(&s->h.rig, key);
  key_named(key, KEY_NODE_STATUS, name);
  rig_delete(&s->h.rig, key);
}

void sim_put_node(struct sim *s, int i, bool ready) {
  char name[16];
  snprintf(name, sizeof name, "n%d", i);
  rig_put_node(&s->h.rig, name, ready, UINT64_C(4) << 30, 0);
}

/* ---- agents and proxies ---- */

static void report(struct sim *s, struct container *c) {
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
    PB_SET(&m, ready_since_ms, c->ready_since + s->h.wall);
  PB_SET(&m, restarts, c->restarts);
  PB_SET(&m, drained, c->drained);
  rig_put_instance_status(&s->h.rig, sim_service_name(c->service), &m);
}

static int64_t soon(struct sim *s, uint64_t ms) {
  return s->h.now + 1 + (int64_t)rnd(&s->h, ms);
}

static void plan_start(struct sim *s, struct container *c) {
  c->started_at = soon(s, s->h.faults && chance(&s->h, 5) ? 20000 : 300);
  c->ready_at = c->crash_at = NEVER;
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
    c->gone_at = c->drained_at = NEVER;
    plan_start(s, c);
    report(s, c);
    return;
  }
  CHECK(&s->h, strcmp(c->node, PB_STR(m->node)) == 0 && c->revision == m->revision, "%s.%" PRIu64 " moved or changed", sim_service_name(service),
        m->number);
  if (m->desired == MODEL__DESIRED__DESIRED_DRAIN && !c->drained && c->drained_at == NEVER)
    c->drained_at = s->h.faults && chance(&s->h, 10) ? NEVER - 1 : soon(s, 500); /* some are never acknowledged */
  if (m->desired == MODEL__DESIRED__DESIRED_STOP && c->gone_at == NEVER)
    c->gone_at = soon(s, s->h.faults && chance(&s->h, 10) ? 10000 : 300);
}

/* The budget is broken only by the scheduler: whatever else takes an instance away starts the count anew. */
static void taken_away(struct sim *s, int service) {
  s->reached[service] = false;
}

static void start(struct sim *s, struct container *c) {
  enum behaviour b = s->behaviour[c->service][c->revision];
  c->started_at = NEVER;
  if (b == CANNOT_START) {
    c->restarts++;
    c->started_at = soon(s, 2000);
  } else {
    c->running = true;
    if (b == CRASHING)
      c->crash_at = soon(s, 1000);
    else if (b == GOOD)
      c->ready_at = soon(s, s->h.faults && chance(&s->h, 5) ? 30000 : 500);
  }
  report(s, c);
}

void sim_crash(struct sim *s, struct container *c) {
  if (c->ready)
    taken_away(s, c->service);
  c->running = c->ready = false;
  c->restarts++;
  plan_start(s, c);
  report(s, c);
}

static void gone(struct sim *s, struct container *c) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", sim_service_name(c->service), c->number);
  rig_delete(&s->h.rig, key);
  c->in_use = false;
}

void sim_agents_work(struct sim *s) {
  for (int i = 0; i < MAX_AGENT; i++) {
    struct container *c = &s->containers[i];
    if (!c->in_use)
      continue;
    if (c->gone_at <= s->h.now) {
      gone(s, c);
      continue;
    }
    if (c->drained_at <= s->h.now) {
      c->drained = true;
      c->drained_at = NEVER - 1;
      report(s, c);
    }
    if (c->started_at <= s->h.now)
      start(s, c);
    if (c->ready_at <= s->h.now) {
      c->ready = true;
      c->ready_since = s->h.now;
      c->ready_at = NEVER;
      report(s, c);
    }
    if (c->crash_at <= s->h.now)
      sim_crash(s, c);
  }
}

void sim_agents_look(struct sim *s) {
  for (size_t i = 0; i < s->h.rig.count; i++) {
    int service = sim_service_of_key(s->h.rig.records[i].key);
    if (service < 0)
      continue;
    Model__Instance *m = rig_get(&s->h.rig, &model__instance__descriptor, s->h.rig.records[i].key);
    agent_sees(s, m, service);
    free_message(m);
  }
  /* What is not assigned any more is removed. */
  for (int i = 0; i < MAX_AGENT; i++) {
    struct container *c = &s->containers[i];
    char key[KEY_MAX];
    if (!c->in_use)
      continue;
    key_numbered(key, KEY_INSTANCES, "shop", sim_service_name(c->service), c->number);
    if (!rig_find(&s->h.rig, key))
      gone(s, c);
  }
}

/* ---- the scheduler's shell ---- */

void sim_start_over(struct sim *s) {
  for (size_t i = 0; i < s->queue_len; i++)
    free(s->queue[i].value);
  s->queue_len = 0;
  s->last_delivery = s->h.now;
  history_start_over(&s->h, MISLED_MS);
}

void sim_deliver(struct sim *s) {
  size_t n = 0;
  while (n < s->queue_len && s->queue[n].at <= s->h.now) {
    struct event *e = &s->queue[n++];
    struct err err = {0};
    CHECK(&s->h, rig_hear(&s->h.rig, e->key, e->value, e->len, &err) == 0, "refused: %s", err.msg);
    free(e->value);
  }
  memmove(s->queue, s->queue + n, (s->queue_len - n) * sizeof *s->queue);
  s->queue_len -= n;
}

void sim_catch_up(struct sim *s) {
  for (size_t i = 0; i < s->queue_len; i++)
    s->queue[i].at = s->h.now;
  s->last_delivery = s->h.now;
  sim_deliver(s);
}

int64_t sim_next(const struct sim *s) {
  int64_t next = s->queue_len ? s->queue[0].at : NEVER;
  for (int i = 0; i < MAX_AGENT; i++) {
    const struct container *c = &s->containers[i];
    const int64_t times[] = {c->gone_at, c->drained_at, c->started_at, c->ready_at, c->crash_at};
    for (size_t k = 0; c->in_use && k < sizeof times / sizeof *times; k++)
      if (times[k] < next && times[k] < NEVER - 1)
        next = times[k];
  }
  return next;
}

/* ---- its life ---- */

struct sim *sim_new(unsigned long seed) {
  struct sim *s = calloc(1, sizeof *s);
  assert_non_null(s);
  history_init(&s->h, seed, FIRST_MS, MAX_KEYS);
  s->h.rig.watch = goes_its_way;
  s->h.rig.watch_arg = s;
  s->min_ready = rnd(&s->h, 3) * 1000;
  for (int i = 0; i < SERVICES; i++) {
    s->surge[i] = (uint32_t)rnd(&s->h, 3);
    s->unavailable[i] = (uint32_t)rnd(&s->h, 2);
    unsigned kind = (unsigned)rnd(&s->h, 10);
    s->strategy[i] = kind == 0 ? 1 : kind <= 2 ? 2 : 0;
  }
  sim_start_over(s);
  for (int i = 0; i < NODES; i++)
    sim_put_node(s, i, true);
  return s;
}

void sim_free(struct sim *s) {
  history_fini(&s->h);
  for (size_t i = 0; i < s->queue_len; i++)
    free(s->queue[i].value);
  free(s->queue);
  free(s);
}
