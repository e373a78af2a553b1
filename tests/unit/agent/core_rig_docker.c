#include "tests/unit/agent/core_rig.h"

#define IMAGE_ID "sha256:%064x"

static struct agent_container *by_name(const char *name_or_id) {
  for (unsigned n = 0; n < rig.container_count; n++)
    if (strcmp(rig.containers[n].name, name_or_id) == 0 || strcmp(rig.containers[n].id, name_or_id) == 0)
      return &rig.containers[n];
  return NULL;
}

static void emit(enum agent_container_event what, const struct agent_container *c, int32_t code) {
  if (!rig.up || (rig.faults && rig_chance(10)) || rig.event_count == MAX_EVENTS)
    return;
  struct rig_event *e = &rig.events[rig.event_count++];
  *e = (struct rig_event){.ev = {.kind = AGENT_EV_CONTAINER, .what = what, .time_ns = rig_wall_ns() + 1, .exit_code = code}};
  snprintf(e->id, sizeof e->id, "%s", c->id);
  e->due = rig.now + (int64_t)(rig_rnd() % 20) * NS_PER_MS;
  if (e->due < rig.event_floor)
    e->due = rig.event_floor;
  rig.event_floor = e->due;
}

void rig_end(struct agent_container *c, int32_t code) {
  c->state = AGENT_C_EXITED;
  c->finished_ns = rig_wall_ns();
  c->exit_code = code;
  c->address[0] = 0;
  c->pid = 0;
  emit(AGENT_CE_DIE, c, code);
}

void rig_remove(struct agent_container *c) {
  emit(AGENT_CE_DESTROY, c, 0);
  *c = rig.containers[--rig.container_count];
}

bool rig_is_job(const struct agent_container *c) {
  return strcmp(c->service, rig_services[JOB]) == 0;
}

static unsigned service_of(const char *name) {
  unsigned s = 0;
  while (strcmp(rig_services[s], name) != 0)
    s++;
  return s;
}

static bool holds_name(const struct rig_call *p, const char *name) {
  return p->act.kind == AGENT_ACT_INSTANCE && p->act.op_kind == AGENT_OP_CREATE && !p->effect_done && p->late && strcmp(p->made.name, name) == 0;
}

/* Docker keeps a name from the moment on in which it begins to make a container, which it shows when it has. */
static bool is_taken(const struct rig_call *by, const char *name) {
  for (unsigned n = 0; n < rig.pending_count; n++)
    if (rig.pending[n] != by && holds_name(rig.pending[n], name))
      return true;
  return by_name(name) != NULL;
}

/* One container is looked at, started and stopped by one at a time. */
static void late_effects_on(const struct agent_container *c) {
  for (unsigned n = 0; n < rig.pending_count; n++)
    if (rig.pending[n]->late && rig.pending[n]->act.op_kind == AGENT_OP_START && strcmp(rig.pending[n]->act.container, c->id) == 0)
      rig_run_effect(rig.pending[n]);
}

/* What the shell makes of an action in the moment in which it carries it out. */
static void carry_out(struct rig_call *p) {
  const struct agent_action *a = &p->act;
  if (a->op_kind != AGENT_OP_PREPARE && a->op_kind != AGENT_OP_CREATE)
    return;
  const struct agent_instance *i = agent_core_find(&rig.core, a->instance);
  const Model__Revision *revision = i && i->assigned ? i->assigned->revision : NULL;
  if (!revision) {
    fail_msg("%s is made, and nothing is assigned", a->instance);
    return;
  }
  if (a->op_kind == AGENT_OP_PREPARE) {
    p->prepares = (uint64_t)revision->created_ms << 32 | revision->number;
    return;
  }
  unsigned s = service_of(i->service);
  uint64_t *prepared = &rig.want[s][i->number - 1].prepared;
  if ((s == STORES || s == OPEN) && *prepared != ((uint64_t)revision->created_ms << 32 | revision->number))
    fail_msg("%s is created without what it needs being there", i->id);
  *prepared = 0; /* secrets are forgotten as soon as they are in the container */
  const struct agent_image *image = agent_core_image(&rig.core, i);
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
  agent_container_name(&rig.core, i, p->made.name);
  snprintf(p->made.spec_hash, sizeof p->made.spec_hash, "%s", revision->spec_hash);
  snprintf(p->made.project, sizeof p->made.project, "%s", i->project);
  snprintf(p->made.service, sizeof p->made.service, "%s", i->service);
  snprintf(p->made.network, sizeof p->made.network, "%s", s == OPEN ? "" : "orca-cluster0-shop");
}

static enum err_code effect(struct rig_call *p) {
  const struct agent_action *a = &p->act;
  struct agent_container *c = by_name(a->container);
  switch (a->op_kind) {
  case AGENT_OP_PREPARE: {
    const struct agent_instance *i = agent_core_find(&rig.core, a->instance);
    if (i)
      rig.want[service_of(i->service)][i->number - 1].prepared = p->prepares;
    return ERR_NONE;
  }
  case AGENT_OP_NONE:
    return ERR_NONE;
  case AGENT_OP_CREATE:
    if (is_taken(p, p->made.name)) {
      rig.conflicts++;
      return ERR_CONFLICT;
    }
    assert_true(rig.container_count < MAX_CONTAINERS);
    c = &rig.containers[rig.container_count++];
    *c = p->made;
    snprintf(c->id, sizeof c->id, "%064x", ++rig.next_id);
    snprintf(p->text, sizeof p->text, "%s", c->id);
    rig.creates++;
    return ERR_NONE;
  case AGENT_OP_START:
    if (!c)
      return ERR_NOT_FOUND;
    if (c->state == AGENT_C_RUNNING)
      return ERR_NONE;
    if (c->state == AGENT_C_BROKEN)
      return ERR_INTERNAL;
    c->state = AGENT_C_RUNNING;
    c->started_ns = rig_wall_ns();
    c->pid = 100;
    if (!c->host_network)
      snprintf(c->address, sizeof c->address, "172.18.0.%u", 2 + (unsigned)(rig_rnd() % 200));
    emit(AGENT_CE_START, c, 0);
    rig.starts++;
    if (rig_is_job(c) && ++rig.runs[c->number - 1][c->epoch % EPOCHS] > 1)
      fail_msg("seed %llu: job.%u of epoch %u was started twice", (unsigned long long)rig.seed, (unsigned)c->number, (unsigned)c->epoch);
    if (rig.faults && rig_chance(20)) /* it dies at once */
      rig_end(c, 1);
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
      rig_end(c, 137);
    return ERR_NONE;
  case AGENT_OP_REMOVE:
    if (!c)
      return ERR_NOT_FOUND;
    if (c->state == AGENT_C_RUNNING)
      rig_end(c, 137);
    rig_remove(by_name(a->container));
    return ERR_NONE;
  }
  return ERR_INTERNAL;
}

void rig_take_actions(void) {
  for (size_t n = 0; n < rig.out.count; n++) {
    const struct agent_action *a = &rig.out.list[n];
    if (a->kind == AGENT_ACT_GONE)
      rig.gone++;
    if (a->kind == AGENT_ACT_RESOLVED)
      rig.resolved++;
    if (a->kind == AGENT_ACT_GONE || a->kind == AGENT_ACT_RESOLVED || a->kind == AGENT_ACT_EVENT)
      continue;
    assert_true(rig.pending_count < MAX_PENDING);
    struct rig_call *p = calloc(1, sizeof *p);
    p->act = *a;
    if (a->kind == AGENT_ACT_INSTANCE)
      carry_out(p);
    p->due = rig.now + (int64_t)(rig_rnd() % 50) * NS_PER_MS;
    if (rig.faults && rig_chance(5)) /* slow */
      p->due += (int64_t)(rig_rnd() % 60) * NS_PER_SEC;
    p->outcome = rig.faults && rig_chance(12) ? (rig_chance(50) ? ERR_TIMEOUT : ERR_INTERNAL) : ERR_NONE;
    /* At most one action for an instance, and no more starts at once than there are slots. */
    unsigned heavy = 0;
    for (unsigned m = 0; m < rig.pending_count; m++) {
      const struct agent_action *other = &rig.pending[m]->act;
      if (other->kind != AGENT_ACT_INSTANCE || rig.pending[m]->late || (other->op_kind != AGENT_OP_CREATE && !by_name(other->container)))
        continue; /* what it is about has been removed by another hand: it will find nothing */
      /* Only a look may be overtaken: by the news that the container died. */
      if (a->kind == AGENT_ACT_INSTANCE && strcmp(a->instance, other->instance) == 0)
        assert_int_equal(other->op_kind, AGENT_OP_INSPECT);
      heavy += other->kind == AGENT_ACT_INSTANCE && (other->op_kind == AGENT_OP_CREATE || other->op_kind == AGENT_OP_START);
    }
    if (a->kind == AGENT_ACT_INSTANCE && (a->op_kind == AGENT_OP_CREATE || a->op_kind == AGENT_OP_START))
      assert_true(heavy < SLOTS);
    rig.pending[rig.pending_count++] = p;
  }
  rig.out.count = 0;
}

static unsigned image_of(const struct rig_call *p) {
  return (unsigned)strtoul(strchr(p->act.name, ':') + 1, NULL, 10);
}

void rig_run_effect(struct rig_call *p) {
  if (p->effect_done)
    return;
  p->effect_done = true;
  switch (p->act.kind) {
  case AGENT_ACT_INSTANCE:
    /* A refusal does nothing; a timeout may have done everything. */
    if (p->outcome == ERR_NONE)
      p->outcome = effect(p);
    else if (p->outcome == ERR_TIMEOUT && p->act.op_kind != AGENT_OP_PREPARE && rig_chance(50))
      effect(p);
    break;
  case AGENT_ACT_LIST:
    memcpy(p->snapshot, rig.containers, sizeof rig.containers);
    p->snapshot_count = rig.container_count;
    memcpy(p->nets, rig.networks, sizeof rig.networks);
    p->net_count = rig.network_count;
    break;
  case AGENT_ACT_NETWORK_CREATE:
    if (p->outcome == ERR_NONE) {
      bool there = false;
      for (unsigned n = 0; n < rig.network_count; n++)
        there |= strcmp(rig.networks[n].name, p->act.name) == 0;
      if (!there) {
        snprintf(rig.networks[rig.network_count].name, AGENT_NAME_MAX, "%.200s", p->act.name);
        snprintf(rig.networks[rig.network_count].project, 64, "%s", p->act.project);
        rig.networks[rig.network_count++].ours = true;
      }
    }
    break;
  case AGENT_ACT_NETWORK_REMOVE:
    for (unsigned n = 0; n < rig.network_count && p->outcome == ERR_NONE; n++)
      if (strcmp(rig.networks[n].name, p->act.name) == 0)
        rig.networks[n--] = rig.networks[--rig.network_count];
    break;
  case AGENT_ACT_WORDS:
    break;
  case AGENT_ACT_REMOVE_STRAY:
    if (by_name(p->act.container))
      rig_remove(by_name(p->act.container));
    break;
  case AGENT_ACT_IMAGE_PULL:
    if (p->outcome == ERR_NONE)
      rig.image_there[image_of(p) % EPOCHS] = true;
    break;
  default:
    break;
  }
}

void rig_reply(struct rig_call *p) {
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
    if (p->outcome == ERR_NONE && !rig.image_there[image_of(p) % EPOCHS])
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
  rig_step(&ev);
}

void rig_refuse(struct rig_call *p, enum err_code outcome) {
  p->effect_done = true;
  p->outcome = outcome;
}

void rig_hangs(enum agent_op op) {
  assert_int_equal(rig.pending_count, 1);
  assert_int_equal(rig.pending[0]->act.op_kind, op);
  rig_refuse(rig.pending[0], ERR_TIMEOUT);
  rig_advance(rig.now + NS_PER_SEC);
}

void rig_come_up(void) {
  rig.up = true;
  rig_step(&(struct agent_event){.kind = AGENT_EV_DOCKER_UP});
}
