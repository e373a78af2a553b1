#include "orca-agent/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "common/spec/spec.h"
#include "orca-agent/core_internal.h"

#define MAX_ACTIONS 100000u

/* ---- actions ---- */

struct agent_action *agent_act(struct agent_step *s, enum agent_action_kind kind) {
  struct agent_actions *out = s->out;
  if (out->count == out->size) {
    size_t size = out->size ? out->size * 2 : 16;
    struct agent_action *list = size <= MAX_ACTIONS ? reallocarray(out->list, size, sizeof *list) : NULL;
    if (!list) {
      out->failed = true;
      return NULL;
    }
    out->list = list;
    out->size = size;
  }
  struct agent_action *act = &out->list[out->count++];
  memset(act, 0, sizeof *act);
  act->kind = kind;
  return act;
}

void agent_actions_fini(struct agent_actions *actions) {
  free(actions->list);
  *actions = (struct agent_actions){0};
}

void agent_copy(char *to, size_t size, const char *from) {
  snprintf(to, size, "%s", from ? from : "");
}

void agent_history(struct agent_step *s, const struct agent_instance *i, const char *kind, const char *severity, const char *fmt, ...) {
  struct agent_action *act = agent_act(s, AGENT_ACT_EVENT);
  if (!act)
    return;
  agent_copy(act->name, sizeof act->name, kind);
  act->severity = severity;
  if (i) {
    agent_copy(act->instance, sizeof act->instance, i->id);
    agent_copy(act->project, sizeof act->project, i->project);
    agent_copy(act->service, sizeof act->service, i->service);
    act->number = i->number;
  }
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(act->text, sizeof act->text, fmt, ap);
  va_end(ap);
}

/* ---- life ---- */

int agent_core_init(struct agent_core *core, const char *node, const char *cluster_id, unsigned slots, struct err *err) {
  *core = (struct agent_core){.slots = slots ? slots : 1};
  if (!*node || strlen(node) >= sizeof core->node || !*cluster_id || strlen(cluster_id) >= sizeof core->cluster_id)
    return err_set(err, ERR_INVALID, "node name or cluster id is empty or too long");
  agent_copy(core->node, sizeof core->node, node);
  agent_copy(core->cluster_id, sizeof core->cluster_id, cluster_id);
  snprintf(core->cluster8, sizeof core->cluster8, "%.8s", cluster_id);
  return 0;
}

void agent_core_fini(struct agent_core *core) {
  for (size_t n = 0; n < core->count; n++)
    agent_instance_free(core->instances[n]);
  for (size_t n = 0; n < core->image_count; n++)
    free(core->images[n]);
  for (size_t n = 0; n < core->network_count; n++)
    free(core->networks[n]);
  free(core->instances);
  free(core->images);
  free(core->networks);
  if (core->cluster)
    model__cluster_spec__free_unpacked(core->cluster, NULL);
  *core = (struct agent_core){0};
}

/* ---- lookups ---- */

static int by_id(const void *key, const void *entry) {
  return strcmp(key, (*(struct agent_instance *const *)entry)->id);
}

struct agent_instance *agent_core_find(const struct agent_core *core, const char *id) {
  if (!core->count)
    return NULL;
  struct agent_instance **at = bsearch(id, core->instances, core->count, sizeof *core->instances, by_id);
  return at ? *at : NULL;
}

struct agent_instance *agent_core_find_container(const struct agent_core *core, const char *container_id) {
  if (!*container_id)
    return NULL;
  for (size_t n = 0; n < core->count; n++)
    if (strcmp(core->instances[n]->c.id, container_id) == 0)
      return core->instances[n];
  return NULL;
}

const struct agent_image *agent_core_image(const struct agent_core *core, const struct agent_instance *i) {
  for (size_t n = 0; n < core->image_count; n++)
    if (agent_image_is_of(core->images[n], i))
      return core->images[n];
  return NULL;
}

bool agent_core_settled(const struct agent_core *core) {
  if (!core->ever_listed)
    return false;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->look_failed) /* what one container is like may never be known: the others do not wait for it */
      continue;
    if (i->c.id[0] && (i->c.state == AGENT_C_UNKNOWN || (i->c.state == AGENT_C_RUNNING && !i->c.detailed)))
      return false;
    /* One that was assigned while Docker wrote the list is looked at by itself. */
    if (i->c.state == AGENT_C_UNKNOWN && i->op == AGENT_OP_INSPECT)
      return false;
  }
  return true;
}

int64_t agent_core_next(const struct agent_core *core) {
  int64_t next = INT64_MAX;
  if (core->docker == AGENT_DOCKER_DOWN)
    return next;
  next = core->compare_at;
  if (core->docker != AGENT_DOCKER_UP)
    return next;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->op == AGENT_OP_NONE && i->next_try && i->next_try < next)
      next = i->next_try;
  }
  for (size_t n = 0; n < core->image_count; n++)
    if (core->images[n]->state == AGENT_IMAGE_FAILED && core->images[n]->next_try < next)
      next = core->images[n]->next_try;
  for (size_t n = 0; n < core->network_count; n++)
    if (core->networks[n]->state == AGENT_NETWORK_FAILED && core->networks[n]->next_try < next)
      next = core->networks[n]->next_try;
  return next;
}

/* ---- names ---- */

const Model__ServiceSpec *agent_instance_spec(const struct agent_instance *i) {
  return i->assigned && i->assigned->revision ? i->assigned->revision->spec : NULL;
}

const Model__SecretVersion *agent_instance_missing_secret(const struct agent_instance *i) {
  for (size_t n = 0; i->assigned && n < i->assigned->n_secrets; n++)
    if (!PB_GET(i->assigned->secrets[n], version, 0))
      return i->assigned->secrets[n];
  return NULL;
}

bool agent_instance_probed(const struct agent_instance *i) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  return spec && (spec->readiness || spec->startup);
}

/* The parts of a name are joined by what no project has in its own: a-b's c is not a's b-c. */
void agent_container_name(const struct agent_core *core, const struct agent_instance *i, char out[AGENT_NAME_MAX]) {
  snprintf(out, AGENT_NAME_MAX, "orca-%s-%s.%s.%s.%llu", core->cluster8, core->node, i->project, i->service, (unsigned long long)i->number);
}

void agent_network_name(const struct agent_core *core, const Model__ServiceSpec *spec, char out[AGENT_NAME_MAX]) {
  const char *project = PB_STR(spec->project), *network = PB_STR(spec->network);
  if (strcmp(network, "host") == 0)
    out[0] = 0;
  else if (!*network || strcmp(network, "default") == 0 || strcmp(network, project) == 0)
    snprintf(out, AGENT_NAME_MAX, "orca-%s-%s", core->cluster8, project);
  else
    snprintf(out, AGENT_NAME_MAX, "orca-%s-%s.%s", core->cluster8, project, network);
}

void agent_volume_name(const struct agent_core *core, const char *project, const char *source, char out[AGENT_NAME_MAX]) {
  snprintf(out, AGENT_NAME_MAX, "orca-%s-%s.%s", core->cluster8, project, source);
}

/* ---- Docker comes and goes ---- */

static void list(struct agent_step *s) {
  struct agent_core *core = s->core;
  core->compare_at = s->now.mono_ns + AGENT_COMPARE_EVERY;
  struct agent_action *act = agent_act(s, AGENT_ACT_LIST);
  if (!act)
    return;
  core->list_op = act->op = ++core->next_op;
  core->list_seq = core->seq;
}

static void docker_up(struct agent_step *s) {
  s->core->docker = AGENT_DOCKER_LISTING;
  s->core->docker_error[0] = 0;
  list(s);
}

static void docker_down(struct agent_step *s, const char *why) {
  struct agent_core *core = s->core;
  core->docker = AGENT_DOCKER_DOWN;
  core->list_op = 0;
  agent_copy(core->docker_error, sizeof core->docker_error, why);
  core->busy_slots = 0;
  for (size_t n = 0; n < core->count; n++)
    agent_instance_docker_down(s, core->instances[n]);
  for (size_t n = 0; n < core->image_count; n++)
    agent_image_docker_down(core->images[n]);
  /* Networks may be gone with the daemon's state: the list says which are there. */
  for (size_t n = 0; n < core->network_count; n++) {
    core->networks[n]->state = AGENT_NETWORK_NEW;
    core->networks[n]->op_id = 0;
    core->networks[n]->next_try = 0;
  }
}

static void listed(struct agent_step *s, const struct agent_event *ev) {
  struct agent_core *core = s->core;
  if (ev->op != core->list_op)
    return;
  core->list_op = 0;
  if (ev->code != ERR_NONE) {
    /* Until the first list has come nothing may be done: ask again soon. */
    if (core->docker == AGENT_DOCKER_LISTING)
      core->compare_at = s->now.mono_ns + NS_PER_SEC;
    return;
  }
  for (size_t n = 0; n < ev->container_count; n++) {
    const struct agent_container *c = &ev->containers[n];
    if (!c->ours)
      continue;
    char id[INSTANCE_ID_MAX], name[AGENT_NAME_MAX];
    instance_id(id, c->project, c->service, c->number);
    struct agent_instance *i = agent_core_find(core, id);
    if (!i) {
      i = agent_instance_add(s, c->project, c->service, c->number);
      if (!i)
        continue;
      i->want = core->have_desired ? AGENT_WANT_NONE : AGENT_WANT_KEEP;
      i->touched = 0;
    }
    agent_container_name(core, i, name);
    if (strcmp(c->name, name) != 0) {
      /* A second one under another name (renamed by hand): the instance is the one with the name. */
      struct agent_action *act = core->have_desired ? agent_act(s, AGENT_ACT_REMOVE_STRAY) : NULL;
      if (act)
        agent_copy(act->container, sizeof act->container, c->id);
      continue;
    }
    i->seen_seq = core->seq;
    agent_instance_listed(s, i, c);
  }
  core->docker = AGENT_DOCKER_UP;
  core->ever_listed = true;
  for (size_t n = 0; n < core->count; n++)
    if (core->instances[n]->seen_seq != core->seq)
      agent_instance_listed(s, core->instances[n], NULL);
  agent_networks_listed(s, ev);
}

/* ---- what the masters want ---- */

static void desired(struct agent_step *s, const Node__DesiredState *d) {
  struct agent_core *core = s->core;
  if (d->cluster) {
    Model__ClusterSpec *copy = (Model__ClusterSpec *)pb_clone(&d->cluster->base);
    if (copy) {
      if (core->cluster)
        model__cluster_spec__free_unpacked(core->cluster, NULL);
      core->cluster = copy;
    }
  }
  core->desired_version = PB_GET(d, version, core->desired_version);
  if (PB_GET(d, full, false) && PB_GET(d, part, 0) == 0)
    core->full_since = core->seq;
  size_t ignored = 0;
  for (size_t n = 0; n < d->n_assigned; n++) {
    const Node__Assignment *a = d->assigned[n];
    const Model__Instance *inst = a ? a->instance : NULL;
    if (!inst || strcmp(PB_STR(inst->node), core->node) != 0 || !spec_name_valid(PB_STR(inst->project)) || !spec_name_valid(PB_STR(inst->service))) {
      ignored++;
      continue;
    }
    char id[INSTANCE_ID_MAX];
    instance_id(id, inst->project, inst->service, inst->number);
    struct agent_instance *i = agent_core_find(core, id);
    if (!i)
      i = agent_instance_add(s, inst->project, inst->service, inst->number);
    if (!i)
      continue;
    i->assigned_seq = core->seq;
    agent_instance_assign(s, i, a);
  }
  if (ignored)
    agent_history(s, NULL, "node.assignment_refused", "error",
                  "%zu assigned by a master ignored: of another node, or without a valid project and service", ignored);
  for (size_t n = 0; n < d->n_removed; n++) {
    struct agent_instance *i = agent_core_find(core, d->removed[n]);
    if (i)
      agent_instance_unassign(i);
  }
  if (!PB_GET(d, full, false) || PB_GET(d, more, false))
    return;
  core->have_desired = true;
  core->status_seq++; /* the keeper may now be told, even that there is nothing */
  for (size_t n = 0; n < core->count; n++)
    if (core->instances[n]->assigned_seq < core->full_since)
      agent_instance_unassign(core->instances[n]);
}

/* ---- the step ---- */

static void reconcile_all(struct agent_step *s) {
  struct agent_core *core = s->core;
  /* Without Docker nothing is begun (each looks for itself), but instances say what they wait for. */
  for (size_t n = 0; n < core->network_count; n++)
    agent_network_reconcile(s, core->networks[n]);
  for (size_t n = 0; n < core->image_count; n++)
    agent_image_reconcile(s, core->images[n]);
  for (size_t n = 0; n < core->count; n++)
    agent_instance_reconcile(s, core->instances[n]);
  agent_slots_run(s);
}

static void forget(struct agent_core *core) {
  size_t kept = 0;
  for (size_t n = 0; n < core->count; n++) {
    if (agent_instance_forgettable(core->instances[n]))
      agent_instance_free(core->instances[n]);
    else
      core->instances[kept++] = core->instances[n];
  }
  core->count = kept;
}

static void tick(struct agent_step *s) {
  struct agent_core *core = s->core;
  if (core->docker == AGENT_DOCKER_DOWN || s->now.mono_ns < core->compare_at)
    return;
  list(s);
  if (core->docker != AGENT_DOCKER_UP)
    return;
  agent_networks_tidy(s);
  size_t kept = 0;
  for (size_t n = 0; n < core->image_count; n++) {
    if (agent_image_wanted(core, core->images[n]))
      core->images[kept++] = core->images[n];
    else
      free(core->images[n]);
  }
  core->image_count = kept;
}

void agent_core_step(struct agent_core *core, const struct agent_event *ev, struct agent_now now, struct agent_actions *out) {
  struct agent_step s = {core, now, out};
  struct agent_instance *i = NULL;
  core->seq++;
  switch (ev->kind) {
  case AGENT_EV_DOCKER_UP:
    docker_up(&s);
    break;
  case AGENT_EV_DOCKER_DOWN:
    docker_down(&s, ev->text);
    reconcile_all(&s);
    break;
  case AGENT_EV_LISTED:
    listed(&s, ev);
    reconcile_all(&s);
    break;
  case AGENT_EV_DESIRED:
    desired(&s, ev->desired);
    reconcile_all(&s);
    break;
  case AGENT_EV_DONE:
    i = agent_core_find(core, ev->instance);
    if (i)
      agent_instance_done(&s, i, ev);
    break;
  case AGENT_EV_CONTAINER:
    i = agent_core_find_container(core, ev->container_id);
    if (i)
      agent_instance_container_event(&s, i, ev);
    break;
  case AGENT_EV_WORDS:
    i = agent_core_find(core, ev->instance);
    if (i)
      agent_instance_words(&s, i, ev);
    break;
  case AGENT_EV_VERDICT:
    i = agent_core_find(core, ev->instance);
    if (i)
      agent_instance_verdict(&s, i, ev);
    break;
  case AGENT_EV_IMAGE_LOOKED:
  case AGENT_EV_IMAGE_PULLED:
  case AGENT_EV_IMAGE_PROGRESS:
    agent_image_event(&s, ev);
    reconcile_all(&s);
    break;
  case AGENT_EV_NETWORK_DONE:
    agent_network_event(&s, ev);
    reconcile_all(&s);
    break;
  case AGENT_EV_TICK:
    tick(&s);
    reconcile_all(&s);
    break;
  }
  if (i) {
    agent_instance_reconcile(&s, i);
    agent_slots_run(&s);
  }
  forget(core);
}
