/* The core against a Docker in memory that is slow, fails, forgets to answer, loses events, dies and comes back, while masters change their
 * minds, services are removed and made anew under their names, the clock is put back and the agent is replaced (what it asked for is still done
 * later): at the end, once faults stop, what runs must be what is wanted; at every step an instance has at most one action under way, nothing is
 * created but what was prepared, from the image of its own spec, and a job's run is never started twice. */
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
#include "orca-agent/report.h"

#define MAX_CONTAINERS 64
#define MAX_PENDING 512
#define SERVICES 4
#define NUMBERS 3
#define SLOTS 2
/* Of the services: one with a volume that is another in each revision, one on the host's network with a secret, one that ends. */
#define STORES 1
#define OPEN 2
#define JOB 3
#define EPOCHS 256
#define IMAGE_ID "sha256:%064x"

static struct fake {
  struct agent_core core;
  struct agent_actions out;
  int64_t now;
  uint64_t seed;
  int64_t clock; /* how far the wall clock was put */
  uint64_t rng;
  struct agent_container containers[MAX_CONTAINERS];
  unsigned container_count, next_id;
  struct agent_found_network networks[32];
  unsigned network_count;
  struct pending {
    struct agent_action act;
    int64_t due;
    bool effect_done, late; /* late: asked for by an agent that is gone; nobody hears the answer */
    enum err_code outcome;
    struct agent_container made; /* CREATE: what was asked for */
    unsigned image;
    uint64_t prepares;                               /* PREPARE: for what */
    struct agent_container snapshot[MAX_CONTAINERS]; /* LIST: as it was when Docker looked */
    unsigned snapshot_count;
    struct agent_found_network nets[32];
    unsigned net_count;
    char text[AGENT_CONTAINER_ID];
    struct agent_container seen;
  } * pending[MAX_PENDING];
  unsigned pending_count;
  unsigned conflicts; /* creates that were refused because of their name */
  struct late_event {
    struct agent_event ev;
    char id[AGENT_CONTAINER_ID];
    int64_t due;
  } events[256];
  unsigned event_count;
  int64_t event_floor; /* the stream keeps its order */
  bool up, faults, image_there[EPOCHS];
  unsigned gone, resolved, starts, creates;
  struct {
    bool assigned, stop;
    uint64_t epoch, revision;
    unsigned made;               /* how many services of this name there were before; its image is another in each */
    uint64_t prepared;           /* for which revision of which of them */
    Model__InstanceStatus *told; /* as the masters have it */
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

static int64_t wall_ns(void) {
  return INT64_C(1700000000000) * NS_PER_MS + f.now + f.clock;
}

static struct agent_now now(void) {
  return (struct agent_now){f.now, wall_ns() / NS_PER_MS};
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

static unsigned service_of(const char *name) {
  unsigned s = 0;
  while (strcmp(names[s], name) != 0)
    s++;
  return s;
}

static bool holds_name(const struct pending *p, const char *name) {
  return p->act.kind == AGENT_ACT_INSTANCE && p->act.op_kind == AGENT_OP_CREATE && !p->effect_done && p->late && strcmp(p->made.name, name) == 0;
}

/* Docker keeps a name from the moment on in which it begins to make a container, which it shows when it has. */
static bool is_taken(const struct pending *by, const char *name) {
  for (unsigned n = 0; n < f.pending_count; n++)
    if (f.pending[n] != by && holds_name(f.pending[n], name))
      return true;
  return by_name(name) != NULL;
}

static void run_effect(struct pending *p);

/* One container is looked at, started and stopped by one at a time. */
static void late_effects_on(const struct agent_container *c) {
  for (unsigned n = 0; n < f.pending_count; n++)
    if (f.pending[n]->late && f.pending[n]->act.op_kind == AGENT_OP_START && strcmp(f.pending[n]->act.container, c->id) == 0)
      run_effect(f.pending[n]);
}

/* What the shell makes of an action in the moment in which it carries it out. */
static void carry_out(struct pending *p) {
  const struct agent_action *a = &p->act;
  const struct agent_instance *i = agent_core_find(&f.core, a->instance);
  const Model__Revision *revision = i && i->assigned ? i->assigned->revision : NULL;
  if (a->op_kind == AGENT_OP_PREPARE)
    p->prepares = (uint64_t)revision->created_ms << 32 | revision->number;
  if (a->op_kind != AGENT_OP_CREATE)
    return;
  assert_non_null(revision);
  unsigned s = service_of(i->service);
  uint64_t *prepared = &f.want[s][i->number - 1].prepared;
  if ((s == STORES || s == OPEN) && *prepared != ((uint64_t)revision->created_ms << 32 | revision->number))
    fail_msg("%s is created without what it needs being there", i->id);
  *prepared = 0; /* secrets are forgotten as soon as they are in the container */
  const struct agent_image *image = agent_core_image(&f.core, i);
  char id[AGENT_IMAGE_MAX];
  assert_non_null(image);
  p->image = (unsigned)strtoul(strchr(revision->spec->image, ':') + 1, NULL, 10);
  snprintf(id, sizeof id, IMAGE_ID, p->image);
  if (strcmp(image->run, id) != 0)
    fail_msg("%s is created from %s, and is to be %s", i->id, image->run, id);
  p->made = (struct agent_container){.ours = true,
                                     .state = AGENT_C_CREATED,
                                     .number = i->number,
                                     .epoch = i->assigned->instance->epoch,
                                     .revision = i->assigned->instance->revision,
                                     .restart = (uint8_t)agent_instance_restart(i),
                                     .host_network = s == OPEN};
  agent_container_name(&f.core, i, p->made.name);
  snprintf(p->made.spec_hash, sizeof p->made.spec_hash, "%s", revision->spec_hash);
  snprintf(p->made.project, sizeof p->made.project, "%s", i->project);
  snprintf(p->made.service, sizeof p->made.service, "%s", i->service);
  snprintf(p->made.network, sizeof p->made.network, "%s", s == OPEN ? "" : "orca-cluster0-shop");
}

static enum err_code effect(struct pending *p) {
  const struct agent_action *a = &p->act;
  struct agent_container *c = by_name(a->container);
  switch (a->op_kind) {
  case AGENT_OP_PREPARE: {
    const struct agent_instance *i = agent_core_find(&f.core, a->instance);
    if (i)
      f.want[service_of(i->service)][i->number - 1].prepared = p->prepares;
    return ERR_NONE;
  }
  case AGENT_OP_NONE:
    return ERR_NONE;
  case AGENT_OP_CREATE:
    if (is_taken(p, p->made.name)) {
      f.conflicts++;
      return ERR_CONFLICT;
    }
    assert_true(f.container_count < MAX_CONTAINERS);
    c = &f.containers[f.container_count++];
    *c = p->made;
    snprintf(c->id, sizeof c->id, "%064x", ++f.next_id);
    snprintf(p->text, sizeof p->text, "%s", c->id);
    f.creates++;
    return ERR_NONE;
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
    if (!c->host_network)
      snprintf(c->address, sizeof c->address, "172.18.0.%u", 2 + (unsigned)(rnd() % 200));
    emit(AGENT_CE_START, c, 0);
    f.starts++;
    if (is_job(c) && ++f.runs[c->number - 1][c->epoch % EPOCHS] > 1)
      fail_msg("seed %llu: job.%u of epoch %u was started twice", (unsigned long long)f.seed, (unsigned)c->number, (unsigned)c->epoch);
    if (f.faults && chance(20)) /* it dies at once */
      end_container(c, 1);
    return ERR_NONE;
  case AGENT_OP_INSPECT:
    if (!c)
      return ERR_NOT_FOUND;
    late_effects_on(c);
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
    if (a->kind == AGENT_ACT_INSTANCE)
      carry_out(p);
    p->due = f.now + (int64_t)(rnd() % 50) * NS_PER_MS;
    if (f.faults && chance(5)) /* slow */
      p->due += (int64_t)(rnd() % 60) * NS_PER_SEC;
    p->outcome = f.faults && chance(12) ? (chance(50) ? ERR_TIMEOUT : ERR_INTERNAL) : ERR_NONE;
    /* At most one action for an instance, and no more starts at once than there are slots. */
    unsigned heavy = 0;
    for (unsigned m = 0; m < f.pending_count; m++) {
      const struct agent_action *other = &f.pending[m]->act;
      if (other->kind != AGENT_ACT_INSTANCE || f.pending[m]->late || (other->op_kind != AGENT_OP_CREATE && !by_name(other->container)))
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

static unsigned image_of(const struct pending *p) {
  return (unsigned)strtoul(strchr(p->act.name, ':') + 1, NULL, 10);
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
    else if (p->outcome == ERR_TIMEOUT && p->act.op_kind != AGENT_OP_PREPARE && chance(50))
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
      f.image_there[image_of(p) % EPOCHS] = true;
    break;
  default:
    break;
  }
}

static void reply(struct pending *p) {
  char id[AGENT_IMAGE_MAX];
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
    if (p->outcome == ERR_NONE && !f.image_there[image_of(p) % EPOCHS])
      ev.code = ERR_NOT_FOUND;
    snprintf(id, sizeof id, IMAGE_ID, image_of(p));
    ev.image_id = id;
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
    if (!old[n]->late)
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
  char name[16], project[] = "shop", image[16], node[] = "n1", hash[32];
  Model__Volume volume = MODEL__VOLUME__INIT, *volumes[] = {&volume};
  Model__SecretVersion secret = MODEL__SECRET_VERSION__INIT, *secrets[] = {&secret};
  Model__Pair pair = MODEL__PAIR__INIT, *env[] = {&pair};
  char source[16], target[] = "/data", key[] = "DB", value[] = "${secrets.DB}", host[] = "host";
  snprintf(name, sizeof name, "%s", names[service]);
  spec.name = inst.service = rev.name = name;
  spec.project = inst.project = rev.project = project;
  spec.image = image;
  inst.node = node;
  snprintf(image, sizeof image, "app:%u", f.want[service][number].made + 1);
  snprintf(hash, sizeof hash, "hash%u-%u", (unsigned)f.want[service][number].revision, f.want[service][number].made);
  PB_SET(&rev, created_ms, f.want[service][number].made + 1);
  rev.spec_hash = hash;
  PB_SET(&rev, number, f.want[service][number].revision);
  PB_SET(&inst, number, number + 1);
  PB_SET(&inst, epoch, f.want[service][number].epoch);
  PB_SET(&inst, revision, f.want[service][number].revision);
  if (service == JOB)
    PB_SET(&inst, job, 1);
  if (service == STORES) {
    snprintf(source, sizeof source, "v%u", (unsigned)f.want[service][number].revision);
    volume.source = source;
    volume.target = target;
    spec.volumes = volumes;
    spec.n_volumes = 1;
  }
  if (service == OPEN) {
    spec.network = host;
    pair.key = secret.name = key;
    pair.value = value;
    spec.env = env;
    spec.n_env = 1;
    PB_SET(&secret, version, 1);
    a.secrets = secrets;
    a.n_secrets = 1;
  }
  PB_SET(&inst, desired, f.want[service][number].stop ? MODEL__DESIRED__DESIRED_STOP : MODEL__DESIRED__DESIRED_RUN);
  rev.spec = &spec;
  a.instance = &inst;
  a.revision = &rev;
  return (Node__Assignment *)pb_clone(&a.base);
}

static void forget_told(unsigned s, unsigned n) {
  if (f.want[s][n].told)
    model__instance_status__free_unpacked(f.want[s][n].told, NULL);
  f.want[s][n].told = NULL;
}

static void report_all(void) {
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++) {
      char id[INSTANCE_ID_MAX];
      instance_id(id, "shop", names[s], n + 1);
      const struct agent_instance *i = agent_core_find(&f.core, id);
      if (!f.want[s][n].assigned || !i || !i->assigned || !f.core.have_desired || !agent_core_settled(&f.core))
        continue;
      forget_told(s, n);
      f.want[s][n].told = report_instance(&f.core, i);
    }
}

static void tell_full(void) {
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  Node__Assignment *list[SERVICES * NUMBERS];
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      if (f.want[s][n].assigned) {
        list[d.n_assigned] = assignment(s, n);
        list[d.n_assigned++]->status = f.want[s][n].told ? (Model__InstanceStatus *)pb_clone(&f.want[s][n].told->base) : NULL;
      }
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  Model__Policy policy = MODEL__POLICY__INIT;
  PB_SET(&policy, allow_host_network, 1);
  cluster.policy = &policy;
  d.cluster = &cluster;
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
    f.want[s][n].made++;
    if (s == JOB || chance(50)) { /* else its numbers begin anew, too */
      f.want[s][n].epoch++;
      f.want[s][n].revision = 1 + rnd() % 3;
    } else {
      f.want[s][n].epoch = f.want[s][n].revision = 1;
    }
  } else if (chance(40) && !(s == JOB && f.want[s][n].stop)) { /* a run that was stopped does not come back */
    f.want[s][n].stop = !f.want[s][n].stop;
  } else if (chance(50)) {
    f.want[s][n].epoch++;
  } else {
    f.want[s][n].assigned = false;
    forget_told(s, n);
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
  if (chance(50))
    report_all();
  struct pending *old[MAX_PENDING];
  unsigned count = f.pending_count;
  memcpy(old, f.pending, count * sizeof *old);
  f.pending_count = 0;
  for (unsigned n = 0; n < count; n++) {
    struct pending *p = old[n];
    /* A run's container that goes once more has happened to it takes the run along: nobody was told of it yet. */
    bool of_run = p->act.op_kind == AGENT_OP_REMOVE && strncmp(p->act.instance, "shop/job.", 9) == 0;
    if (f.up && p->act.kind == AGENT_ACT_INSTANCE && p->act.op_kind != AGENT_OP_PREPARE && !of_run && !p->effect_done && chance(30)) {
      p->late = true;
      p->due = f.now + (int64_t)(rnd() % 2000) * NS_PER_MS;
      f.pending[f.pending_count++] = p;
      continue;
    }
    if (chance(50))
      run_effect(p);
    free(p);
  }
  f.event_count = 0;
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      f.want[s][n].prepared = 0;
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
    if (told_first && chance(20))
      change_mind();
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
    if (!p->late)
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
              f.containers[c].epoch != f.want[s][n].epoch || f.containers[c].revision != f.want[s][n].revision ||
              strtoul(strchr(f.containers[c].spec_hash, '-') + 1, NULL, 10) != f.want[s][n].made)
            fail_msg("seed %llu: %s is in state %d, epoch %llu, want running, %llu", (unsigned long long)seed, id, (int)f.containers[c].state,
                     (unsigned long long)f.containers[c].epoch, (unsigned long long)f.want[s][n].epoch);
        }
      bool want = f.want[s][n].assigned && !f.want[s][n].stop;
      bool taken_away = s == JOB && !found && f.runs[n][f.want[s][n].epoch % EPOCHS];
      wanted += want && !taken_away;
      if (found != want && !taken_away)
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
  f.seed = seed;
  f.rng = seed * 0x9e3779b97f4a7c15u + 1;
  f.now = NS_PER_SEC;
  f.faults = true;
  new_core();
}

static void finish(void) {
  for (unsigned n = 0; n < f.pending_count; n++)
    free(f.pending[n]);
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      forget_told(s, n);
  agent_actions_fini(&f.out);
  agent_core_fini(&f.core);
}

static void verdict_on(const struct agent_container *c) {
  char id[INSTANCE_ID_MAX];
  if (!f.container_count || is_job(c))
    return;
  instance_id(id, c->project, c->service, c->number);
  step(&(struct agent_event){.kind = AGENT_EV_VERDICT, .instance = id, .container_id = c->id, .started_ms = c->started_ns / NS_PER_MS});
}

static bool is_told_of(const struct agent_container *c) {
  const Model__InstanceStatus *told = f.want[JOB][c->number - 1].told;
  return told && told->epoch == c->epoch && (told->phase == MODEL__PHASE__PHASE_RUNNING || told->phase == MODEL__PHASE__PHASE_EXITED);
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
      if (is_job(c) && !is_told_of(c)) /* a run that is taken away is begun anew by an agent that has never heard of it */
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
    } else if (what < 92) {
      verdict_on(&f.containers[f.container_count ? rnd() % f.container_count : 0]);
    } else if (what < 96) {
      report_all();
    } else if (what < 97) {
      f.clock += (int64_t)(rnd() % 7200) * NS_PER_SEC - 3600 * NS_PER_SEC;
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

/* What is not there can't be stopped: it is gone, whoever has its name. */
static void test_a_stop_is_not_held_up_by_a_foreign_container(void **state) {
  (void)state;
  begin(9);
  f.faults = false;
  f.container_count = 1;
  f.containers[0] = (struct agent_container){.id = "abcdefabcdef", .name = "orca-cluster0-n1.shop.api.1", .state = AGENT_C_RUNNING};
  come_up();
  f.want[0][0].assigned = f.want[0][0].stop = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  tell_full(); /* before the list has come: it is looked at by its name */
  settle(5);
  assert_int_equal(f.gone, 1);
  assert_int_equal(f.containers[0].state, AGENT_C_RUNNING);
  finish();
}

/* An agent that was killed is having it created still: the name is taken, and nothing is to be seen. */
static void test_a_name_that_is_taken_by_nothing(void **state) {
  (void)state;
  begin(9);
  f.faults = false;
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  tell_full();
  while (!f.pending_count || f.pending[0]->act.op_kind != AGENT_OP_CREATE)
    assert_true(advance(f.now + NS_PER_SEC));
  f.pending[0]->late = true;
  f.pending[0]->due = f.now + 60 * NS_PER_SEC;
  agent_core_fini(&f.core);
  new_core();
  come_up();
  tell_full();
  settle(55);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_in_range(f.conflicts, 2, 12);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_FAILED);
  assert_non_null(strstr(i->reason, "taken"));
  settle(120);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_int_equal(f.container_count, 1);
  finish();
}

/* One that Docker can't look at keeps neither the keeper nor the masters from hearing of the others. */
static void test_a_look_that_fails_is_not_waited_for(void **state) {
  (void)state;
  begin(3);
  f.faults = false;
  f.container_count = 1;
  f.containers[0] = (struct agent_container){.id = "abcdefabcdef",
                                             .name = "orca-cluster0-n1.shop.api.1",
                                             .ours = true,
                                             .project = "shop",
                                             .service = "api",
                                             .number = 1,
                                             .epoch = 1,
                                             .revision = 1,
                                             .state = AGENT_C_RUNNING,
                                             .network = "orca-cluster0-shop",
                                             .address = "172.18.0.2",
                                             .started_ns = wall_ns() - 1};
  come_up();
  f.want[0][0].assigned = true;
  f.want[0][0].epoch = f.want[0][0].revision = 1;
  tell_full();
  while (!f.pending_count || f.pending[0]->act.op_kind != AGENT_OP_INSPECT)
    assert_true(advance(f.now + NS_PER_SEC));
  assert_false(agent_core_settled(&f.core));
  f.pending[0]->effect_done = true;
  f.pending[0]->outcome = ERR_TIMEOUT;
  while (f.pending_count)
    assert_true(advance(f.now + NS_PER_SEC));
  const struct agent_instance *i = agent_core_find(&f.core, "shop/api.1");
  assert_int_equal(i->c.state, AGENT_C_UNKNOWN);
  assert_string_equal(i->reason, "inspect: fault");
  assert_true(agent_core_settled(&f.core));
  settle(5);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_string_equal(i->reason, "");
  finish();
}

/* Its probe has failed, its stop hangs, it is removed by force: the container that follows has done nothing wrong. */
static void test_a_new_container_is_not_stopped_for_an_old_one(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  verdict_on(&f.containers[0]);
  for (unsigned n = 0; n < 2; n++) {
    assert_int_equal(f.pending_count, 1);
    assert_int_equal(f.pending[0]->act.op_kind, n ? AGENT_OP_KILL : AGENT_OP_STOP);
    f.pending[0]->effect_done = true;
    f.pending[0]->outcome = ERR_TIMEOUT;
    advance(f.now + NS_PER_SEC);
  }
  assert_int_equal(f.pending[0]->act.op_kind, AGENT_OP_REMOVE);
  remove_container(&f.containers[0]);
  f.event_count = 0; /* Docker's events are late, or lost */
  unsigned starts = f.starts;
  settle(20);
  assert_int_equal(f.creates, 2);
  assert_int_equal(f.starts, starts + 1);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  finish();
}

/* Docker refuses to stop it, and says that it runs: asked again and again, but not at once. */
static void test_a_stop_that_is_refused(void **state) {
  (void)state;
  one_running();
  f.want[0][0].stop = true;
  tell_full();
  unsigned asked = 0;
  for (; f.container_count; asked++) {
    assert_true(asked < 20);
    for (unsigned n = 0; n < f.pending_count; n++)
      if (f.pending[n]->act.op_kind == AGENT_OP_STOP || f.pending[n]->act.op_kind == AGENT_OP_KILL) {
        f.pending[n]->effect_done = true;
        f.pending[n]->outcome = ERR_CONFLICT;
      }
    assert_true(advance(f.now + NS_PER_SEC));
  }
  settle(5);
  assert_int_equal(f.gone, 1);
  finish();
}

/* What ended, or began, in what is now the future makes nothing of today look old. */
static void test_a_clock_that_is_put_back(void **state) {
  (void)state;
  const struct agent_instance *i = one_running();
  end_container(&f.containers[0], 1);
  settle(5);
  assert_int_equal(i->restarts, 1);
  f.clock -= 3600 * NS_PER_SEC;
  settle(5);
  end_container(&f.containers[0], 1);
  settle(2);
  assert_int_equal(i->restarts, 2);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  f.clock -= 3600 * NS_PER_SEC;
  settle(5);
  verdict_on(&f.containers[0]);
  settle(20);
  assert_int_equal(i->restarts, 3);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  finish();
}

/* Docker's user tidied up between two agents. What is left of the run is what the store has. */
static void test_a_run_that_is_told_of_is_not_begun_anew(void **state) {
  (void)state;
  begin(5);
  f.faults = false;
  come_up();
  f.want[JOB][0].assigned = true;
  f.want[JOB][0].epoch = f.want[JOB][0].revision = 1;
  tell_full();
  settle(5);
  end_container(&f.containers[0], 3);
  settle(5);
  report_all();
  remove_container(&f.containers[0]);
  for (unsigned agents = 0; agents < 2; agents++) {
    agent_core_fini(&f.core);
    new_core();
    f.event_count = 0;
    come_up();
    tell_full();
    settle(40);
    const struct agent_instance *i = agent_core_find(&f.core, "shop/job.1");
    assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
    report_all();
    assert_true(f.want[JOB][0].told->has_exit_code);
    assert_int_equal(f.want[JOB][0].told->exit_code, 3);
  }
  assert_int_equal(f.starts, 1);
  finish();
}

/* What was told once is not taken back while its last words are read anew. */
static void test_a_told_end_stays_told(void **state) {
  (void)state;
  begin(5);
  f.faults = false;
  come_up();
  f.want[JOB][0].assigned = true;
  f.want[JOB][0].epoch = f.want[JOB][0].revision = 1;
  tell_full();
  settle(5);
  end_container(&f.containers[0], 3);
  settle(5);
  report_all();
  agent_core_fini(&f.core);
  new_core();
  f.event_count = 0;
  come_up();
  const struct agent_instance *i = NULL;
  while (!i || !i->words_ns) { /* as the container's label says */
    assert_true(advance(f.now + NS_PER_SEC));
    i = agent_core_find(&f.core, "shop/job.1");
  }
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_STOPPING);
  tell_full();
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_true(i->words_ns);
  settle(5);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  finish();
}

/* Docker says that it could not start it, and has. */
static void test_a_run_that_is_said_not_to_have_started(void **state) {
  (void)state;
  begin(5);
  f.faults = false;
  come_up();
  f.want[JOB][0].assigned = true;
  f.want[JOB][0].epoch = f.want[JOB][0].revision = 1;
  tell_full();
  while (!f.pending_count || f.pending[0]->act.op_kind != AGENT_OP_START)
    assert_true(advance(f.now + NS_PER_SEC));
  run_effect(f.pending[0]);
  end_container(&f.containers[0], 3);
  f.event_count = 0;
  f.pending[0]->outcome = ERR_INTERNAL;
  settle(60);
  const struct agent_instance *i = agent_core_find(&f.core, "shop/job.1");
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(i->last_exit, 3);
  assert_int_equal(f.container_count, 1);
  assert_int_equal(f.starts, 1);
  finish();
}

/* It has ended, and somebody's removal of it came half the way. */
static void test_a_run_whose_container_is_broken(void **state) {
  (void)state;
  begin(5);
  f.faults = false;
  come_up();
  f.want[JOB][0].assigned = true;
  f.want[JOB][0].epoch = f.want[JOB][0].revision = 1;
  tell_full();
  settle(5);
  end_container(&f.containers[0], 3);
  f.containers[0].state = AGENT_C_BROKEN;
  agent_core_fini(&f.core);
  new_core();
  f.event_count = 0;
  come_up();
  tell_full();
  settle(40);
  assert_int_equal(agent_core_find(&f.core, "shop/job.1")->phase, MODEL__PHASE__PHASE_EXITED);
  assert_int_equal(f.container_count, 0);
  assert_int_equal(f.starts, 1);
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
      cmocka_unit_test(test_a_stop_is_not_held_up_by_a_foreign_container),
      cmocka_unit_test(test_a_name_that_is_taken_by_nothing),
      cmocka_unit_test(test_a_look_that_fails_is_not_waited_for),
      cmocka_unit_test(test_a_new_container_is_not_stopped_for_an_old_one),
      cmocka_unit_test(test_a_stop_that_is_refused),
      cmocka_unit_test(test_a_clock_that_is_put_back),
      cmocka_unit_test(test_a_run_that_is_told_of_is_not_begun_anew),
      cmocka_unit_test(test_a_told_end_stays_told),
      cmocka_unit_test(test_a_run_that_is_said_not_to_have_started),
      cmocka_unit_test(test_a_run_whose_container_is_broken),
      cmocka_unit_test(test_histories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
