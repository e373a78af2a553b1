/* The core against a Docker in memory that is slow, fails, forgets to answer, loses events, dies and comes back, while masters change their
 * minds and the agent is replaced: at the end, once faults stop, what runs must be what is wanted; at every step an instance has at most one action
 * under way, and a job's run is never started twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-agent/core.h"

#define MAX_CONTAINERS 64
#define MAX_PENDING 512
#define SERVICES 4
#define NUMBERS 3
#define SLOTS 2
#define JOB 3 /* of the services */
#define EPOCHS 256

static struct fake {
  struct agent_core core;
  struct agent_actions out;
  int64_t now;
  uint64_t rng;
  struct agent_container containers[MAX_CONTAINERS];
  unsigned container_count, next_id;
  struct agent_found_network networks[32];
  unsigned network_count;
  struct pending {
    struct agent_action act;
    int64_t due;
    bool effect_done;
    enum err_code outcome;
    struct agent_container snapshot[MAX_CONTAINERS]; /* LIST: as it was when Docker looked */
    unsigned snapshot_count;
    struct agent_found_network nets[32];
    unsigned net_count;
    char text[AGENT_CONTAINER_ID];
    struct agent_container seen;
  } * pending[MAX_PENDING];
  unsigned pending_count;
  struct late_event {
    struct agent_event ev;
    char id[AGENT_CONTAINER_ID];
    int64_t due;
  } events[256];
  unsigned event_count;
  int64_t event_floor; /* the stream keeps its order */
  bool up, faults, image_there;
  unsigned gone, resolved, starts, creates;
  struct {
    bool assigned, stop;
    uint64_t epoch, revision;
  } want[SERVICES][NUMBERS];
  unsigned runs[NUMBERS][EPOCHS]; /* starts of the job's instances */
} f;

static const char *const names[SERVICES] = {"api", "db", "web", "job"};

static uint64_t rnd(void) {
  f.rng ^= f.rng << 13;
  f.rng ^= f.rng >> 7;
  f.rng ^= f.rng << 17;
  return f.rng;
}

static bool chance(unsigned percent) {
  return rnd() % 100 < percent;
}

static struct agent_now now(void) {
  return (struct agent_now){f.now, 1700000000000 + f.now / NS_PER_MS};
}

static int64_t wall_ns(void) {
  return INT64_C(1700000000000) * NS_PER_MS + f.now;
}

static void take_actions(void);

static void step(const struct agent_event *ev) {
  agent_core_step(&f.core, ev, now(), &f.out);
  take_actions();
}

/* ---- Docker in memory ---- */

static struct agent_container *by_name(const char *name_or_id) {
  for (unsigned n = 0; n < f.container_count; n++)
    if (strcmp(f.containers[n].name, name_or_id) == 0 || strcmp(f.containers[n].id, name_or_id) == 0)
      return &f.containers[n];
  return NULL;
}

static void emit(enum agent_container_event what, const struct agent_container *c, int32_t code) {
  if (!f.up || (f.faults && chance(10)) || f.event_count == 256)
    return;
  struct late_event *e = &f.events[f.event_count++];
  *e = (struct late_event){.ev = {.kind = AGENT_EV_CONTAINER, .what = what, .time_ns = wall_ns() + 1, .exit_code = code}};
  snprintf(e->id, sizeof e->id, "%s", c->id);
  e->due = f.now + (int64_t)(rnd() % 20) * NS_PER_MS;
  if (e->due < f.event_floor)
    e->due = f.event_floor;
  f.event_floor = e->due;
}

static void end_container(struct agent_container *c, int32_t code) {
  c->state = AGENT_C_EXITED;
  c->finished_ns = wall_ns();
  c->exit_code = code;
  c->address[0] = 0;
  c->pid = 0;
  emit(AGENT_CE_DIE, c, code);
}

static void remove_container(struct agent_container *c) {
  emit(AGENT_CE_DESTROY, c, 0);
  *c = f.containers[--f.container_count];
}

static bool is_job(const struct agent_container *c) {
  return strcmp(c->service, names[JOB]) == 0;
}

static enum err_code effect(struct pending *p) {
  const struct agent_action *a = &p->act;
  struct agent_container *c = by_name(a->container);
  const struct agent_instance *i = agent_core_find(&f.core, a->instance);
  switch (a->op_kind) {
  case AGENT_OP_PREPARE:
  case AGENT_OP_NONE:
    return ERR_NONE;
  case AGENT_OP_CREATE: {
    char name[AGENT_NAME_MAX];
    if (!i || !i->assigned)
      return ERR_INTERNAL;
    agent_container_name(&f.core, i, name);
    if (by_name(name))
      return ERR_CONFLICT;
    assert_true(f.container_count < MAX_CONTAINERS);
    c = &f.containers[f.container_count++];
    *c = (struct agent_container){.ours = true,
                                  .state = AGENT_C_CREATED,
                                  .number = i->number,
                                  .epoch = i->assigned->instance->epoch,
                                  .revision = i->assigned->instance->revision,
                                  .restart = (uint8_t)agent_instance_restart(i)};
    snprintf(c->id, sizeof c->id, "%064x", ++f.next_id);
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->project, sizeof c->project, "%s", i->project);
    snprintf(c->service, sizeof c->service, "%s", i->service);
    snprintf(c->network, sizeof c->network, "orca-cluster0-shop");
    snprintf(p->text, sizeof p->text, "%s", c->id);
    f.creates++;
    return ERR_NONE;
  }
  case AGENT_OP_START:
    if (!c)
      return ERR_NOT_FOUND;
    if (c->state == AGENT_C_RUNNING)
      return ERR_NONE;
    if (c->state == AGENT_C_BROKEN)
      return ERR_INTERNAL;
    c->state = AGENT_C_RUNNING;
    c->started_ns = wall_ns();
    c->pid = 100;
    snprintf(c->address, sizeof c->address, "172.18.0.%u", 2 + (unsigned)(rnd() % 200));
    emit(AGENT_CE_START, c, 0);
    f.starts++;
    if (is_job(c) && ++f.runs[c->number - 1][c->epoch % EPOCHS] > 1)
      fail_msg("job.%u of epoch %u was started twice", (unsigned)c->number, (unsigned)c->epoch);
    if (f.faults && chance(20)) /* it dies at once */
      end_container(c, 1);
    return ERR_NONE;
  case AGENT_OP_INSPECT:
    if (!c)
      return ERR_NOT_FOUND;
    p->seen = *c;
    return ERR_NONE;
  case AGENT_OP_STOP:
  case AGENT_OP_KILL:
    if (!c)
      return ERR_NOT_FOUND;
    if (c->state == AGENT_C_RUNNING)
      end_container(c, 137);
    return ERR_NONE;
  case AGENT_OP_REMOVE:
    if (!c)
      return ERR_NOT_FOUND;
    if (c->state == AGENT_C_RUNNING)
      end_container(c, 137);
    remove_container(by_name(a->container));
    return ERR_NONE;
  }
  return ERR_INTERNAL;
}

static void take_actions(void) {
  for (size_t n = 0; n < f.out.count; n++) {
    const struct agent_action *a = &f.out.list[n];
    if (a->kind == AGENT_ACT_GONE)
      f.gone++;
    if (a->kind == AGENT_ACT_RESOLVED)
      f.resolved++;
    if (a->kind == AGENT_ACT_GONE || a->kind == AGENT_ACT_RESOLVED || a->kind == AGENT_ACT_EVENT)
      continue;
    assert_true(f.pending_count < MAX_PENDING);
    struct pending *p = calloc(1, sizeof *p);
    p->act = *a;
    p->due = f.now + (int64_t)(rnd() % 50) * NS_PER_MS;
    if (f.faults && chance(5)) /* slow */
      p->due += (int64_t)(rnd() % 60) * NS_PER_SEC;
    p->outcome = f.faults && chance(12) ? (chance(50) ? ERR_TIMEOUT : ERR_INTERNAL) : ERR_NONE;
    /* At most one action for an instance, and no more starts at once than there are slots. */
    unsigned heavy = 0;
    for (unsigned m = 0; m < f.pending_count; m++) {
      const struct agent_action *other = &f.pending[m]->act;
      if (other->kind != AGENT_ACT_INSTANCE || (other->op_kind != AGENT_OP_CREATE && !by_name(other->container)))
        continue; /* what it is about has been removed by another hand: it will find nothing */
      /* Only a look may be overtaken: by the news that the container died. */
      if (a->kind == AGENT_ACT_INSTANCE && strcmp(a->instance, other->instance) == 0)
        assert_int_equal(other->op_kind, AGENT_OP_INSPECT);
      heavy += other->kind == AGENT_ACT_INSTANCE && (other->op_kind == AGENT_OP_CREATE || other->op_kind == AGENT_OP_START);
    }
    if (a->kind == AGENT_ACT_INSTANCE && (a->op_kind == AGENT_OP_CREATE || a->op_kind == AGENT_OP_START))
      assert_true(heavy < SLOTS);
    f.pending[f.pending_count++] = p;
  }
  f.out.count = 0;
}

static void run_effect(struct pending *p) {
  if (p->effect_done)
    return;
  p->effect_done = true;
  switch (p->act.kind) {
  case AGENT_ACT_INSTANCE:
    /* A refusal does nothing; a timeout may have done everything. */
    if (p->outcome == ERR_NONE)
      p->outcome = effect(p);
    else if (p->outcome == ERR_TIMEOUT && chance(50))
      effect(p);
    break;
  case AGENT_ACT_LIST:
    memcpy(p->snapshot, f.containers, sizeof f.containers);
    p->snapshot_count = f.container_count;
    memcpy(p->nets, f.networks, sizeof f.networks);
    p->net_count = f.network_count;
    break;
  case AGENT_ACT_NETWORK_CREATE:
    if (p->outcome == ERR_NONE) {
      bool there = false;
      for (unsigned n = 0; n < f.network_count; n++)
        there |= strcmp(f.networks[n].name, p->act.name) == 0;
      if (!there) {
        snprintf(f.networks[f.network_count].name, AGENT_NAME_MAX, "%.200s", p->act.name);
        snprintf(f.networks[f.network_count].project, 64, "%s", p->act.project);
        f.networks[f.network_count++].ours = true;
      }
    }
    break;
  case AGENT_ACT_NETWORK_REMOVE:
    for (unsigned n = 0; n < f.network_count && p->outcome == ERR_NONE; n++)
      if (strcmp(f.networks[n].name, p->act.name) == 0)
        f.networks[n--] = f.networks[--f.network_count];
    break;
  case AGENT_ACT_WORDS:
    break;
  case AGENT_ACT_REMOVE_STRAY:
    if (by_name(p->act.container))
      remove_container(by_name(p->act.container));
    break;
  case AGENT_ACT_IMAGE_PULL:
    if (p->outcome == ERR_NONE)
      f.image_there = true;
    break;
  default:
    break;
  }
}

static void reply(struct pending *p) {
  struct agent_event ev = {.op = p->act.op, .code = p->outcome, .text = "fault", .instance = p->act.instance};
  switch (p->act.kind) {
  case AGENT_ACT_INSTANCE:
    ev.kind = AGENT_EV_DONE;
    if (p->act.op_kind == AGENT_OP_CREATE && p->outcome == ERR_NONE)
      ev.text = p->text;
    ev.containers = &p->seen;
    break;
  case AGENT_ACT_LIST:
    ev.kind = AGENT_EV_LISTED;
    ev.containers = p->snapshot;
    ev.container_count = p->snapshot_count;
    ev.networks = p->nets;
    ev.network_count = p->net_count;
    break;
  case AGENT_ACT_IMAGE_LOOK:
    ev.kind = AGENT_EV_IMAGE_LOOKED;
    if (p->outcome == ERR_NONE && !f.image_there)
      ev.code = ERR_NOT_FOUND;
    ev.image_id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    break;
  case AGENT_ACT_IMAGE_PULL:
    ev.kind = AGENT_EV_IMAGE_PULLED;
    break;
  case AGENT_ACT_NETWORK_CREATE:
  case AGENT_ACT_NETWORK_REMOVE:
    ev.kind = AGENT_EV_NETWORK_DONE;
    ev.ours = true;
    break;
  case AGENT_ACT_WORDS:
    ev = (struct agent_event){.kind = AGENT_EV_WORDS, .instance = p->act.instance, .time_ns = (int64_t)p->act.number, .text = "bye", .text_len = 3};
    break;
  default:
    return;
  }
  step(&ev);
}

static void go_down(void) {
  f.up = false;
  f.event_count = 0;
  struct pending *old[MAX_PENDING];
  unsigned count = f.pending_count;
  memcpy(old, f.pending, count * sizeof *old);
  f.pending_count = 0;
  for (unsigned n = 0; n < count; n++) {
    if (!old[n]->effect_done && chance(50))
      run_effect(old[n]);
    old[n]->outcome = ERR_UNAVAILABLE;
    reply(old[n]);
    free(old[n]);
  }
  step(&(struct agent_event){.kind = AGENT_EV_DOCKER_DOWN, .text = "gone"});
  for (unsigned n = 0; n < f.pending_count; n++)
    free(f.pending[n]);
  f.pending_count = 0;
  if (chance(50)) /* a daemon without live restore takes its containers along */
    for (unsigned n = 0; n < f.container_count; n++)
      if (f.containers[n].state == AGENT_C_RUNNING)
        end_container(&f.containers[n], 137);
}

static void come_up(void) {
  f.up = true;
  step(&(struct agent_event){.kind = AGENT_EV_DOCKER_UP});
}

/* ---- the masters ---- */

static Node__Assignment *assignment(unsigned service, unsigned number) {
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Revision rev = MODEL__REVISION__INIT;
  Model__Instance inst = MODEL__INSTANCE__INIT;
  Node__Assignment a = NODE__ASSIGNMENT__INIT;
  char name[16], project[] = "shop", image[] = "app:1", node[] = "n1", hash[32];
  snprintf(name, sizeof name, "%s", names[service]);
  spec.name = inst.service = rev.name = name;
  spec.project = inst.project = rev.project = project;
  spec.image = image;
  inst.node = node;
  snprintf(hash, sizeof hash, "hash%u", (unsigned)f.want[service][number].revision);
  rev.spec_hash = hash;
  PB_SET(&rev, number, f.want[service][number].revision);
  PB_SET(&inst, number, number + 1);
  PB_SET(&inst, epoch, f.want[service][number].epoch);
  PB_SET(&inst, revision, f.want[service][number].revision);
  if (service == JOB)
    PB_SET(&inst, job, 1);
  PB_SET(&inst, desired, f.want[service][number].stop ? MODEL__DESIRED__DESIRED_STOP : MODEL__DESIRED__DESIRED_RUN);
  rev.spec = &spec;
  a.instance = &inst;
  a.revision = &rev;
  return (Node__Assignment *)pb_clone(&a.base);
}

static void tell_full(void) {
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  Node__Assignment *list[SERVICES * NUMBERS];
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      if (f.want[s][n].assigned)
        list[d.n_assigned++] = assignment(s, n);
  d.assigned = list;
  PB_SET(&d, full, 1);
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  for (size_t n = 0; n < d.n_assigned; n++)
    node__assignment__free_unpacked(list[n], NULL);
}

static void change_mind(void) {
  unsigned s = (unsigned)(rnd() % SERVICES), n = (unsigned)(rnd() % NUMBERS);
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  Node__Assignment *a = NULL;
  char id[INSTANCE_ID_MAX], *removed = id;
  instance_id(id, "shop", names[s], n + 1);
  if (!f.want[s][n].assigned) {
    f.want[s][n].assigned = true;
    f.want[s][n].stop = false;
    f.want[s][n].epoch++;
    f.want[s][n].revision = 1 + rnd() % 3;
  } else if (chance(40) && !(s == JOB && f.want[s][n].stop)) { /* a run that was stopped does not come back */
    f.want[s][n].stop = !f.want[s][n].stop;
  } else if (chance(50)) {
    f.want[s][n].epoch++;
  } else {
    f.want[s][n].assigned = false;
    d.removed = &removed;
    d.n_removed = 1;
  }
  if (f.want[s][n].assigned) {
    a = assignment(s, n);
    d.assigned = &a;
    d.n_assigned = 1;
  }
  if (chance(80))
    step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  else
    tell_full();
  if (a)
    node__assignment__free_unpacked(a, NULL);
}

static void new_core(void) {
  struct err err;
  assert_int_equal(agent_core_init(&f.core, "n1", "cluster0001", SLOTS, &err), 0);
}

static bool advance(int64_t until);

/* What was asked of Docker is done or not, its answers and events are lost; containers end before and while the new one looks. */
static void replace_agent(void) {
  for (unsigned n = 0; n < f.pending_count; n++) {
    if (chance(50))
      run_effect(f.pending[n]);
    free(f.pending[n]);
  }
  f.pending_count = f.event_count = 0;
  agent_core_fini(&f.core);
  new_core();
  bool told_first = chance(30);
  if (told_first)
    tell_full();
  if (f.up)
    come_up();
  for (unsigned rounds = (unsigned)(rnd() % 4); rounds; rounds--) {
    int64_t until = f.now + (int64_t)(rnd() % 40) * NS_PER_MS;
    while (advance(until))
      ;
    struct agent_container *c = f.container_count ? &f.containers[rnd() % f.container_count] : NULL;
    if (c && c->state == AGENT_C_RUNNING)
      end_container(c, chance(50) ? 0 : 139);
  }
  if (!told_first)
    tell_full();
}

/* ---- time ---- */

static bool advance(int64_t until) {
  int64_t next = agent_core_next(&f.core);
  int what = 0; /* 0: a tick, 1: an answer, 2: an event of Docker */
  unsigned which = 0;
  for (unsigned n = 0; n < f.pending_count; n++)
    if (f.pending[n]->due < next) {
      next = f.pending[n]->due;
      what = 1;
      which = n;
    }
  if (f.event_count && f.events[0].due < next) {
    next = f.events[0].due;
    what = 2;
  }
  if (next > until) {
    f.now = until;
    return false;
  }
  if (next > f.now)
    f.now = next;
  if (what == 0) {
    step(&(struct agent_event){.kind = AGENT_EV_TICK});
  } else if (what == 1) {
    struct pending *p = f.pending[which];
    if (!p->effect_done) {
      /* Docker does it now and answers a little later: what happens in between is what makes it hard. */
      run_effect(p);
      p->due = f.now + (int64_t)(rnd() % 15) * NS_PER_MS;
      return true;
    }
    f.pending[which] = f.pending[--f.pending_count];
    reply(p);
    free(p);
  } else {
    struct late_event e = f.events[0];
    memmove(f.events, f.events + 1, --f.event_count * sizeof *f.events);
    e.ev.container_id = e.id;
    step(&e.ev);
  }
  return true;
}

static void check_end(uint64_t seed) {
  unsigned wanted = 0;
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++) {
      char id[INSTANCE_ID_MAX];
      instance_id(id, "shop", names[s], n + 1);
      unsigned found = 0;
      for (unsigned c = 0; c < f.container_count; c++)
        if (strcmp(f.containers[c].service, names[s]) == 0 && f.containers[c].number == n + 1) {
          found++;
          if ((f.containers[c].state != AGENT_C_RUNNING && !(s == JOB && f.containers[c].state == AGENT_C_EXITED)) ||
              f.containers[c].epoch != f.want[s][n].epoch || f.containers[c].revision != f.want[s][n].revision)
            fail_msg("seed %llu: %s is in state %d, epoch %llu, want running, %llu", (unsigned long long)seed, id, (int)f.containers[c].state,
                     (unsigned long long)f.containers[c].epoch, (unsigned long long)f.want[s][n].epoch);
        }
      bool want = f.want[s][n].assigned && !f.want[s][n].stop;
      wanted += want;
      if (found != want)
        fail_msg("seed %llu: %s has %u containers, want %d", (unsigned long long)seed, id, found, want);
      const struct agent_instance *i = agent_core_find(&f.core, id);
      if (want && !(s == JOB && i && i->phase == MODEL__PHASE__PHASE_EXITED) && (!i || i->phase != MODEL__PHASE__PHASE_RUNNING || !i->ready))
        fail_msg("seed %llu: %s runs and is said to be in phase %d: %s", (unsigned long long)seed, id, i ? (int)i->phase : -1, i ? i->reason : "");
    }
  assert_int_equal(f.container_count, wanted);
  assert_int_equal(f.core.busy_slots, 0);
}

static void begin(uint64_t seed) {
  memset(&f, 0, sizeof f);
  f.rng = seed * 0x9e3779b97f4a7c15u + 1;
  f.now = NS_PER_SEC;
  f.faults = true;
  new_core();
}

static void finish(void) {
  for (unsigned n = 0; n < f.pending_count; n++)
    free(f.pending[n]);
  agent_actions_fini(&f.out);
  agent_core_fini(&f.core);
}

static void run_seed(uint64_t seed) {
  begin(seed);
  if (chance(80))
    come_up();
  tell_full();
  for (unsigned round = 0; round < 200; round++) {
    int64_t until = f.now + (int64_t)(rnd() % 2000) * NS_PER_MS;
    if (chance(5))
      until += (int64_t)(rnd() % 90) * NS_PER_SEC;
    while (advance(until))
      ;
    unsigned what = (unsigned)(rnd() % 100);
    if (what < 40) {
      change_mind();
    } else if (what < 60 && f.container_count) {
      struct agent_container *c = &f.containers[rnd() % f.container_count];
      if (c->state == AGENT_C_RUNNING)
        end_container(c, chance(50) ? 0 : 139);
    } else if (what < 68 && f.container_count) {
      struct agent_container *c = &f.containers[rnd() % f.container_count];
      if (is_job(c)) /* a run that is taken away is begun anew by an agent that has never seen it */
        continue;
      if (what < 65)
        remove_container(c);
      else
        c->state = AGENT_C_BROKEN;
    } else if (what < 75) {
      if (f.up)
        go_down();
      else
        come_up();
    } else if (what < 78 && f.network_count) {
      f.network_count--;
    } else if (what < 88) {
      replace_agent();
    }
  }
  f.faults = false;
  if (!f.up)
    come_up();
  tell_full();
  int64_t end = f.now + 400 * NS_PER_SEC;
  while (advance(end))
    ;
  check_end(seed);
  /* And then nothing moves any more. */
  unsigned starts = f.starts, creates = f.creates;
  end = f.now + 300 * NS_PER_SEC;
  while (advance(end))
    ;
  assert_int_equal(f.starts, starts);
  assert_int_equal(f.creates, creates);
  finish();
}

static void test_histories(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 300; seed++)
    run_seed(seed);
}

/* ---- single stories ---- */

static void settle(int64_t seconds) {
  int64_t end = f.now + seconds * NS_PER_SEC;
  while (advance(end))
    ;
}

static const struct agent_instance *one_running(void) {
  begin(7);
  f.faults = false;
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  tell_full();
  settle(5);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_non_null(i);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_int_equal(f.resolved, 1);
  return i;
}

static void test_crash_is_started_at_once(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  struct agent_container *c = &f.containers[0];
  end_container(c, 1);
  struct agent_event ev = {.kind = AGENT_EV_CONTAINER, .what = AGENT_CE_DIE, .container_id = i->c.id, .time_ns = wall_ns(), .exit_code = 1};
  f.event_count = 0;
  agent_core_step(&f.core, &ev, now(), &f.out);
  /* In the very step, without a look first. */
  bool started = false;
  for (size_t n = 0; n < f.out.count; n++)
    started |= f.out.list[n].kind == AGENT_ACT_INSTANCE && f.out.list[n].op_kind == AGENT_OP_START && strcmp(f.out.list[n].container, i->c.id) == 0;
  assert_true(started);
  finish();
}

/* Once is once: whatever the spec says of restarting, and whoever takes the container away. */
static void test_a_job_is_never_started_again(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  PB_SET(i->assigned->instance, job, 1);
  settle(31); /* a comparison has seen it */
  unsigned starts = f.starts;
  end_container(&f.containers[0], 3);
  settle(120);
  assert_int_equal(f.starts, starts);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(i->last_exit, 3);
  assert_int_equal(i->restarts, 0);
  remove_container(&f.containers[0]);
  settle(120);
  assert_int_equal(f.starts, starts);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_string_equal(i->reason, "its container is gone");
  finish();
}

static void test_backoff_grows_and_resets(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  int64_t waits[6];
  for (unsigned n = 0; n < 6; n++) {
    end_container(&f.containers[0], 1);
    f.event_count = 0;
    struct agent_event ev = {.kind = AGENT_EV_CONTAINER, .what = AGENT_CE_DIE, .container_id = i->c.id, .time_ns = wall_ns(), .exit_code = 1};
    step(&ev);
    waits[n] = i->next_try ? i->next_try - f.now : 0;
    while (f.containers[0].state != AGENT_C_RUNNING || i->phase != MODEL__PHASE__PHASE_RUNNING)
      assert_true(advance(f.now + 100 * NS_PER_SEC));
    f.now += NS_PER_MS;
  }
  assert_int_equal(waits[0], 0);
  assert_int_equal(waits[1], 100 * NS_PER_MS);
  assert_int_equal(waits[5], 1600 * NS_PER_MS);
  settle(61);
  assert_int_equal(i->restarts, 6);
  end_container(&f.containers[0], 1);
  settle(1);
  assert_int_equal(i->restarts, 7);
  assert_int_equal(i->crash.failures, 1);
  finish();
}

static void test_liveness_restarts(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  settle(2);
  unsigned starts = f.starts;
  struct agent_event ev = {
      .kind = AGENT_EV_VERDICT, .instance = i->id, .container_id = i->c.id, .started_ms = i->c.started_ns / NS_PER_MS - 1, .live = false};
  step(&ev); /* of an earlier run */
  settle(2);
  assert_int_equal(f.starts, starts);
  ev.started_ms++;
  step(&ev);
  settle(2);
  assert_int_equal(f.starts, starts + 1);
  assert_int_equal(i->restarts, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  finish();
}

/* What the agent before this one left behind. */
static void leave_running(void) {
  f.container_count = 1;
  f.containers[0] = (struct agent_container){.id = "abcdefabcdef",
                                             .name = "orca-cluster0-n1.shop.api.1",
                                             .ours = true,
                                             .project = "shop",
                                             .service = "api",
                                             .number = 1,
                                             .epoch = 4,
                                             .revision = 2,
                                             .state = AGENT_C_RUNNING,
                                             .network = "orca-cluster0-shop",
                                             .address = "172.18.0.2",
                                             .started_ns = wall_ns() - 1};
}

static void test_without_master_keeps_and_restarts(void **state) {
  (void)state;
  begin(3);
  f.faults = false;
  leave_running();
  come_up();
  settle(100);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_non_null(i);
  assert_int_equal(i->want, AGENT_WANT_KEEP);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_true(agent_core_settled(&f.core));
  end_container(&f.containers[0], 1);
  settle(1);
  assert_int_equal(f.containers[0].state, AGENT_C_RUNNING);
  /* A master that wants it as it is changes nothing. */
  unsigned starts = f.starts;
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = 4;
  f.want[0][0].revision = 2;
  tell_full();
  settle(40);
  assert_int_equal(f.starts, starts);
  assert_int_equal(f.creates, 0);
  /* One that doesn't removes it. */
  f.want[0][0].assigned = false;
  tell_full();
  settle(5);
  assert_int_equal(f.container_count, 0);
  finish();
}

/* Assigned while the first list is under way: nothing is known of it before it was looked at. */
static void test_assigned_between_list_and_answer(void **state) {
  (void)state;
  begin(3);
  f.faults = false;
  leave_running();
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = 4;
  f.want[0][0].revision = 2;
  tell_full();
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_non_null(i);
  for (int n = 0; n < 2000; n++) {
    if (agent_core_settled(&f.core))
      assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
    advance(f.now + NS_PER_MS);
  }
  assert_true(agent_core_settled(&f.core));
  finish();
}

static void test_a_stop_that_hangs(void **state) {
  (void)state;
  one_running();
  f.want[0][0].stop = true;
  tell_full();
  assert_int_equal(f.pending_count, 1);
  assert_int_equal(f.pending[0]->act.op_kind, AGENT_OP_STOP);
  f.pending[0]->effect_done = true;
  f.pending[0]->outcome = ERR_TIMEOUT;
  advance(f.now + NS_PER_SEC);
  assert_int_equal(f.pending[0]->act.op_kind, AGENT_OP_KILL);
  f.pending[0]->effect_done = true;
  f.pending[0]->outcome = ERR_TIMEOUT;
  advance(f.now + NS_PER_SEC);
  assert_int_equal(f.pending[0]->act.op_kind, AGENT_OP_REMOVE);
  settle(5);
  assert_int_equal(f.container_count, 0);
  assert_int_equal(f.gone, 1);
  finish();
}

static void test_a_missing_secret_is_waited_for(void **state) {
  (void)state;
  begin(11);
  f.faults = false;
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  Node__Assignment *a = assignment(0, 0);
  Model__SecretVersion missing = MODEL__SECRET_VERSION__INIT, *list[1] = {&missing};
  char name[] = "DB", value[] = "${secrets.DB}";
  Model__Pair pair = MODEL__PAIR__INIT, *env[1] = {&pair};
  pair.key = name;
  pair.value = value;
  missing.name = name;
  PB_SET(&missing, version, 0);
  a->secrets = list;
  a->n_secrets = 1;
  a->revision->spec->env = env;
  a->revision->spec->n_env = 1;
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  d.assigned = &a;
  d.n_assigned = 1;
  PB_SET(&d, full, 1);
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  settle(300);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_int_equal(f.creates, 0);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_WAITING);
  assert_string_equal(i->reason, "secret shop/DB is missing: orcactl secrets set DB --project shop");
  assert_int_equal(i->restarts, 0);
  PB_SET(&missing, version, 1);
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  settle(5);
  assert_int_equal(f.creates, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&missing, version, 2); /* a new value, or none any more, restarts nothing */
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  PB_SET(&missing, version, 0);
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  settle(10);
  assert_int_equal(f.creates, 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  a->secrets = NULL;
  a->n_secrets = 0;
  a->revision->spec->env = NULL;
  a->revision->spec->n_env = 0;
  node__assignment__free_unpacked(a, NULL);
  finish();
}

static void test_foreign_container_with_our_name(void **state) {
  (void)state;
  begin(9);
  f.faults = false;
  f.container_count = 1;
  f.containers[0] = (struct agent_container){.id = "abcdefabcdef", .name = "orca-cluster0-n1.shop.api.1", .state = AGENT_C_RUNNING};
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  tell_full();
  settle(30);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_FAILED);
  assert_non_null(strstr(i->reason, "taken"));
  assert_int_equal(f.container_count, 1);
  assert_int_equal(f.containers[0].state, AGENT_C_RUNNING);
  f.container_count = 0; /* its owner removes it */
  settle(120);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  finish();
}

/* What the store had of it when the agent was replaced. */
static void test_a_crash_loop_survives_the_agent(void **state) {
  (void)state;
  begin(12);
  f.faults = false;
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  Node__Assignment *a = assignment(0, 0);
  Model__InstanceStatus past = MODEL__INSTANCE_STATUS__INIT;
  char by[] = "exit code 3";
  uint8_t lines[] = "it broke\n";
  past.node = f.core.node;
  past.ended_by = by;
  past.has_last_lines = 1;
  past.last_lines = (ProtobufCBinaryData){.data = lines, .len = sizeof lines - 1};
  PB_SET(&past, epoch, 1);
  PB_SET(&past, phase, MODEL__PHASE__PHASE_BACKOFF);
  PB_SET(&past, restarts, 7);
  PB_SET(&past, exit_code, 3);
  PB_SET(&past, ended_ms, now().wall_ms - 100);
  PB_SET(&past, next_try_ms, now().wall_ms + 5000);
  a->status = &past;
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  d.assigned = &a;
  d.n_assigned = 1;
  PB_SET(&d, full, 1);
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_int_equal(i->restarts, 7);
  assert_int_equal(i->crash.failures, 7);
  assert_string_equal(i->ended_by, "exit code 3");
  assert_int_equal(i->last_lines_len, sizeof lines - 1);
  assert_true(i->next_try > f.now);
  /* Said again by a master that has just come: counted once. */
  step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  assert_int_equal(i->restarts, 7);
  a->status = NULL;
  node__assignment__free_unpacked(a, NULL);
  finish();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crash_is_started_at_once),
      cmocka_unit_test(test_backoff_grows_and_resets),
      cmocka_unit_test(test_a_job_is_never_started_again),
      cmocka_unit_test(test_liveness_restarts),
      cmocka_unit_test(test_without_master_keeps_and_restarts),
      cmocka_unit_test(test_assigned_between_list_and_answer),
      cmocka_unit_test(test_a_stop_that_hangs),
      cmocka_unit_test(test_a_missing_secret_is_waited_for),
      cmocka_unit_test(test_a_crash_loop_survives_the_agent),
      cmocka_unit_test(test_foreign_container_with_our_name),
      cmocka_unit_test(test_histories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
