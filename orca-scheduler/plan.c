#include "orca-scheduler/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "orca-scheduler/sched_map.h"

#define FURTHEST_MS (INT64_C(7) * 86400 * 1000) /* nothing that is waited for longer belongs to a deploy */

struct told { /* of one instance: what the steps so far (or, before the first, the state) say of it */
  char *id;
  bool placed, going, waited;
  struct told *next;
};

struct sched_plan {
  struct sched_core *core;
  struct sched_actions actions;
  struct sched_map told;
  struct told *all;
  Node__Planned planned;
  size_t size;
  int64_t now, began;
  unsigned rounds;
  bool over;
};

/* ---- steps ---- */

static void free_step(Node__PlanStep *step) {
  node__plan_step__free_unpacked(step, NULL);
}

static Node__PlanStep *add_step(struct sched_plan *plan, const char *what, const char *instance, const char *node, const char *reason,
                                uint64_t revision) {
  if (plan->planned.n_steps == plan->size) {
    size_t size = plan->size ? plan->size * 2 : 64;
    Node__PlanStep **list = reallocarray(plan->planned.steps, size, sizeof(Node__PlanStep *));
    if (!list)
      return NULL;
    plan->planned.steps = list;
    plan->size = size;
  }
  Node__PlanStep *step = malloc(sizeof *step);
  if (!step)
    return NULL;
  node__plan_step__init(step);
  step->what = strdup(what);
  step->instance = strdup(instance);
  step->node = strdup(node);
  step->reason = strdup(reason);
  if (revision)
    PB_SET(step, revision, revision);
  if (!step->what || !step->instance || !step->node || !step->reason) {
    free_step(step);
    return NULL;
  }
  plan->planned.steps[plan->planned.n_steps++] = step;
  return step;
}

static int copy_verdicts(Node__PlanStep *step, const Model__Instance *record) {
  step->verdicts = calloc(record->n_verdicts + 1, sizeof(Model__NodeVerdict *));
  if (!step->verdicts)
    return -1;
  for (size_t i = 0; i < record->n_verdicts; i++) {
    Model__NodeVerdict *copy = (Model__NodeVerdict *)(void *)pb_clone(&record->verdicts[i]->base);
    if (!copy)
      return -1;
    step->verdicts[step->n_verdicts++] = copy;
  }
  return 0;
}

static struct told *told_of(struct sched_plan *plan, const char *id) {
  struct told *t = sched_map_get(&plan->told, id);
  if (t)
    return t;
  t = calloc(1, sizeof *t);
  if (!t || !(t->id = strdup(id)) || sched_map_put(&plan->told, t->id, t) < 0) {
    if (t)
      free(t->id);
    free(t);
    return NULL;
  }
  t->next = plan->all;
  plan->all = t;
  return t;
}

static bool is_going(const Model__Instance *record) {
  return PB_GET(record, desired, MODEL__DESIRED__DESIRED_RUN) != MODEL__DESIRED__DESIRED_RUN;
}

/* What has just been decided on an instance, as a step when it is news. */
static int tell(struct sched_plan *plan, const struct sched_instance *instance) {
  const Model__Instance *record = instance->record;
  char id[INSTANCE_ID_MAX];
  instance_id(id, instance->service->project, instance->service->name, instance->number);
  struct told *t = told_of(plan, id);
  if (!t)
    return -1;
  const char *node = PB_STR(record->node), *reason = PB_STR(record->reason);
  uint64_t revision = PB_GET(record, revision, 0);
  if (is_going(record)) {
    if (t->going)
      return 0;
    t->going = true;
    return !t->placed || add_step(plan, "stop", id, node, reason, revision) ? 0 : -1;
  }
  if (*node && !t->placed) {
    t->placed = true;
    Node__PlanStep *step = add_step(plan, "create", id, node, reason, revision);
    return step ? copy_verdicts(step, record) : -1;
  }
  if (!*node && !t->waited && strncmp(reason, "waiting", 7) == 0) {
    t->waited = true;
    return add_step(plan, "wait", id, "", reason, revision) ? 0 : -1;
  }
  return 0;
}

/* ---- outcomes ---- */

static int feed(struct sched_plan *plan, const char *key, const ProtobufCMessage *message, struct err *err) {
  struct sched_actions none = {0};
  struct buf packed = BUF_INIT((size_t)8 << 20);
  struct sched_event event = {.kind = message ? SCHED_EVENT_PUT : SCHED_EVENT_DELETE, .key = key};
  if (message && pb_pack(message, &packed) < 0) {
    buf_free(&packed);
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  }
  event.value = packed.data;
  event.len = packed.len;
  int rc = sched_core_step(plan->core, &event, plan->now, &none, err);
  sched_actions_fini(&none);
  buf_free(&packed);
  return rc;
}

static bool node_works(const struct sched_plan *plan, const char *name) {
  const struct place_node *node = place_node_find(&sched_core_state(plan->core)->nodes, name);
  return node && node->status && PB_GET(node->status, state, 0) == MODEL__NODE_STATE__NODE_READY && PB_GET(node->status, docker_ok, 0);
}

static bool will_be_ready(const struct sched_instance *instance, const Model__InstanceStatus *status) {
  if (!status)
    return true;
  switch (PB_GET(status, phase, MODEL__PHASE__PHASE_WAITING)) {
  case MODEL__PHASE__PHASE_WAITING:
  case MODEL__PHASE__PHASE_PULLING:
  case MODEL__PHASE__PHASE_CREATING:
  case MODEL__PHASE__PHASE_STARTING:
    return true;
  case MODEL__PHASE__PHASE_RUNNING:
    return !PB_GET(status, ready, 0) && !instance->first_ready_ms;
  case MODEL__PHASE__PHASE_BACKOFF: /* trouble */
  case MODEL__PHASE__PHASE_STOPPING:
  case MODEL__PHASE__PHASE_EXITED:
  case MODEL__PHASE__PHASE_FAILED:
  case _MODEL__PHASE_IS_INT_SIZE:
    break;
  }
  return false;
}

static int becomes_ready(struct sched_plan *plan, const struct sched_instance *instance, const char *key, struct err *err) {
  Model__InstanceStatus status = MODEL__INSTANCE_STATUS__INIT;
  status.project = instance->record->project;
  status.service = instance->record->service;
  status.node = instance->record->node;
  PB_SET(&status, number, instance->number);
  PB_SET(&status, epoch, PB_GET(instance->record, epoch, 1));
  PB_SET(&status, phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&status, ready, 1);
  PB_SET(&status, started, 1);
  PB_SET(&status, ready_since_ms, plan->now);
  return feed(plan, key, &status.base, err);
}

static int is_drained(struct sched_plan *plan, const Model__InstanceStatus *status, const char *key, struct err *err) {
  Model__InstanceStatus *copy = (Model__InstanceStatus *)(void *)pb_clone(&status->base);
  if (!copy)
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  PB_SET(copy, drained, 1);
  int rc = feed(plan, key, &copy->base, err);
  model__instance_status__free_unpacked(copy, NULL);
  return rc;
}

/* What the node would answer. */
static int react(struct sched_plan *plan, const struct sched_instance *instance, struct err *err) {
  const Model__Instance *record = instance->record;
  if (!record || PB_GET(record, job, 0) || !*PB_STR(record->node) || !node_works(plan, record->node))
    return 0;
  const Model__InstanceStatus *status = sched_instance_status(instance);
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, instance->service->project, instance->service->name, instance->number);
  switch (PB_GET(record, desired, MODEL__DESIRED__DESIRED_RUN)) {
  case MODEL__DESIRED__DESIRED_RUN:
    return will_be_ready(instance, status) ? becomes_ready(plan, instance, key, err) : 0;
  case MODEL__DESIRED__DESIRED_DRAIN:
    return status && !PB_GET(status, drained, 0) ? is_drained(plan, status, key, err) : 0;
  case MODEL__DESIRED__DESIRED_STOP:
    return instance->status ? feed(plan, key, NULL, err) : 0;
  case _MODEL__DESIRED_IS_INT_SIZE:
    break;
  }
  return 0;
}

static struct sched_instance *instance_of(const struct sched_plan *plan, const char *key) {
  static const char prefix[] = KEY_INSTANCES;
  if (strncmp(key, prefix, sizeof prefix - 1) != 0)
    return NULL;
  const char *id = key + sizeof prefix - 1, *end = strrchr(id, '/');
  char service[KEY_MAX];
  if (!end || (size_t)(end - id) >= sizeof service)
    return NULL;
  snprintf(service, sizeof service, "%.*s", (int)(end - id), id);
  const struct sched_service *s = sched_state_service(sched_core_state(plan->core), service);
  struct sched_instance *instance = s ? sched_service_instance(s, strtoull(end + 1, NULL, 10)) : NULL;
  return instance && instance->record && !PB_GET(instance->record, job, 0) ? instance : NULL;
}

/* ---- the beginning ---- */

static int note_what_is(struct sched_plan *plan, struct err *err) {
  const struct sched_state *state = sched_core_state(plan->core);
  for (size_t i = 0; i < state->count; i++)
    for (size_t k = 0; k < state->list[i]->instance_count; k++) {
      const struct sched_instance *instance = state->list[i]->instances[k];
      if (!instance->record)
        continue;
      char id[INSTANCE_ID_MAX];
      instance_id(id, instance->service->project, instance->service->name, instance->number);
      struct told *t = told_of(plan, id);
      if (!t)
        return err_set(err, ERR_MEMORY, "no memory for a plan");
      t->placed = *PB_STR(instance->record->node) != 0;
      t->going = is_going(instance->record);
      t->waited = !t->placed;
    }
  /* Reactions change statuses only: the lists stay as they are. */
  for (size_t i = 0; i < state->count; i++)
    for (size_t k = 0; k < state->list[i]->instance_count; k++)
      if (react(plan, state->list[i]->instances[k], err) < 0)
        return -1;
  return 0;
}

static int set_node(struct sched_plan *plan, const char *name, const Model__NodeStatus *told, bool up, struct err *err) {
  char key[KEY_MAX];
  if (!*name || strlen(name) > 63 || strchr(name, '/'))
    return err_set(err, ERR_INVALID, "a node of the plan has no proper name");
  const struct place_node *there = place_node_find(&sched_core_state(plan->core)->nodes, name);
  Model__Node record = MODEL__NODE__INIT;
  record.name = (char *)(uintptr_t)name;
  key_named(key, KEY_NODES, name);
  if (up && (!there || !there->record) && feed(plan, key, &record.base, err) < 0)
    return -1;
  const Model__NodeStatus none = MODEL__NODE_STATUS__INIT, *from = told ? told : there && there->status ? there->status : &none;
  Model__NodeStatus *status = (Model__NodeStatus *)(void *)pb_clone(&from->base);
  if (!status)
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  PB_SET(status, state, up ? MODEL__NODE_STATE__NODE_READY : MODEL__NODE_STATE__NODE_UNREACHABLE);
  if (up)
    PB_SET(status, docker_ok, 1);
  key_named(key, KEY_NODE_STATUS, name);
  int rc = feed(plan, key, &status->base, err);
  model__node_status__free_unpacked(status, NULL);
  return rc;
}

static int change(struct sched_plan *plan, const Node__PlannedChange *c, struct err *err) {
  char key[KEY_MAX];
  const char *project = PB_STR(c->project), *name = PB_STR(c->name);
  if (!*project || !*name || strlen(project) > 63 || strlen(name) > 63 || strchr(project, '/') || strchr(name, '/'))
    return err_set(err, ERR_INVALID, "a change of the plan names no service");
  if (c->revision) {
    key_numbered(key, KEY_REVISIONS, project, name, PB_GET(c->revision, number, 0));
    if (feed(plan, key, &c->revision->base, err) < 0)
      return -1;
  }
  key_service(key, KEY_SERVICES, project, name);
  return feed(plan, key, c->service ? &c->service->base : NULL, err);
}

struct sched_plan *sched_plan_new(const struct sched_core *core, const Node__Plan *ask, int64_t now_ms, struct err *err) {
  struct sched_plan *plan = calloc(1, sizeof *plan);
  if (!plan) {
    err_set(err, ERR_MEMORY, "no memory for a plan");
    return NULL;
  }
  node__planned__init(&plan->planned);
  plan->now = plan->began = now_ms;
  if (ask->n_changes + ask->n_nodes + ask->n_nodes_down > PLAN_MAX_CHANGES) {
    err_set(err, ERR_TOO_LARGE, "a plan of more than %u changes", PLAN_MAX_CHANGES);
    goto failed;
  }
  plan->core = sched_core_copy(core, now_ms, err);
  if (!plan->core || note_what_is(plan, err) < 0)
    goto failed;
  for (size_t i = 0; i < ask->n_nodes; i++)
    if (set_node(plan, PB_STR(ask->nodes[i]->name), ask->nodes[i], true, err) < 0)
      goto failed;
  for (size_t i = 0; i < ask->n_nodes_down; i++)
    if (set_node(plan, PB_STR(ask->nodes_down[i]), NULL, false, err) < 0)
      goto failed;
  for (size_t i = 0; i < ask->n_changes; i++)
    if (change(plan, ask->changes[i], err) < 0)
      goto failed;
  return plan;
failed:
  sched_plan_free(plan);
  return NULL;
}

/* ---- rounds ---- */

/* Those that are still without a node when nothing moves any more. */
static int tell_blocked(struct sched_plan *plan) {
  const struct sched_state *state = sched_core_state(plan->core);
  for (size_t i = 0; i < state->count; i++)
    for (size_t k = 0; k < state->list[i]->instance_count && plan->planned.n_steps < PLAN_MAX_STEPS; k++) {
      const struct sched_instance *instance = state->list[i]->instances[k];
      const Model__Instance *record = instance->record;
      if (!record || is_going(record) || *PB_STR(record->node) || PB_GET(record, job, 0))
        continue;
      char id[INSTANCE_ID_MAX];
      instance_id(id, instance->service->project, instance->service->name, instance->number);
      Node__PlanStep *step = add_step(plan, "blocked", id, "", PB_STR(record->reason), PB_GET(record, revision, 0));
      if (!step || copy_verdicts(step, record) < 0)
        return -1;
    }
  return 0;
}

static bool same_service(const char *a, const char *b) {
  const char *dot = strrchr(a, '.');
  return dot && strncmp(a, b, (size_t)(dot - a) + 1) == 0 && !strchr(b + (dot - a) + 1, '.');
}

/* The n-th new instance of a service takes the place of its n-th old one: where that is another node, it moves. */
static int tell_moves(struct sched_plan *plan) {
  Node__PlanStep **steps = plan->planned.steps;
  size_t count = plan->planned.n_steps;
  bool *used = calloc(count + 1, sizeof *used);
  if (!used)
    return -1;
  int rc = 0;
  for (size_t i = 0; i < count && rc == 0; i++) {
    if (strcmp(steps[i]->what, "create") != 0)
      continue;
    for (size_t k = 0; k < count; k++) {
      if (used[k] || strcmp(steps[k]->what, "stop") != 0 || !same_service(steps[i]->instance, steps[k]->instance))
        continue;
      used[k] = true;
      if (strcmp(steps[i]->node, steps[k]->node) != 0) {
        free(steps[i]->what);
        steps[i]->what = strdup("move");
        steps[i]->from = strdup(steps[k]->node);
        rc = steps[i]->what && steps[i]->from ? 0 : -1;
      }
      break;
    }
  }
  free(used);
  return rc;
}

static int finish(struct sched_plan *plan, bool cut, struct err *err) {
  plan->over = true;
  if (tell_moves(plan) < 0 || tell_blocked(plan) < 0 ||
      (cut && !add_step(plan, "more", "", "", "what follows is left out: it would be too long to show", 0)))
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  return 0;
}

static int one_round(struct sched_plan *plan, struct err *err) {
  const struct sched_event run = {.kind = SCHED_EVENT_RUN};
  if (sched_core_step(plan->core, &run, plan->now, &plan->actions, err) < 0)
    return -1;
  for (size_t i = 0; i < plan->actions.count; i++) {
    const struct sched_action *action = &plan->actions.list[i];
    const struct sched_instance *instance = action->kind == SCHED_ACTION_PUT ? instance_of(plan, action->key) : NULL;
    if (!instance)
      continue;
    if (tell(plan, instance) < 0)
      return err_set(err, ERR_MEMORY, "no memory for a plan");
    if (react(plan, instance, err) < 0)
      return -1;
  }
  if (plan->actions.count || plan->actions.more)
    return 1;
  int64_t next = plan->actions.next_ms;
  if (next == ROLLOUT_NEVER || next - plan->began > FURTHEST_MS)
    return 0;
  plan->now = next > plan->now ? next : plan->now + 1;
  return 1;
}

int sched_plan_advance(struct sched_plan *plan, unsigned rounds, struct err *err) {
  while (!plan->over && rounds-- > 0) {
    bool cut = ++plan->rounds > PLAN_MAX_ROUNDS || plan->planned.n_steps > PLAN_MAX_STEPS;
    int rc = cut ? 0 : one_round(plan, err);
    if (rc < 0 || (rc == 0 && finish(plan, cut, err) < 0))
      return -1;
  }
  return plan->over ? 0 : 1;
}

const Node__Planned *sched_plan_result(const struct sched_plan *plan) {
  return &plan->planned;
}

void sched_plan_free(struct sched_plan *plan) {
  if (!plan)
    return;
  sched_core_free(plan->core);
  sched_actions_fini(&plan->actions);
  sched_map_fini(&plan->told);
  while (plan->all) {
    struct told *t = plan->all;
    plan->all = t->next;
    free(t->id);
    free(t);
  }
  for (size_t i = 0; i < plan->planned.n_steps; i++)
    free_step(plan->planned.steps[i]);
  free(plan->planned.steps);
  free(plan);
}
