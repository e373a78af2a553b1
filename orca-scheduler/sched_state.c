#include "orca-scheduler/sched_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "common/spec/spec.h"
#include "orca-scheduler/sched_jobs.h"

#define DRAIN_EXTRA_MS 5000u /* beyond the proxy's own time limit for a request */

static void free_message(void *message) {
  if (message)
    protobuf_c_message_free_unpacked(message, NULL);
}

/* ---- counting on nodes ---- */

static void uncount(struct sched_state *state, struct sched_instance *instance) {
  if (!instance->counted)
    return;
  place_release(instance->counted, &instance->counted_as->need, instance->gpu_group);
  instance->counted = NULL;
  instance->counted_as = NULL;
  state->retry = true;
}

static void drop_node_if_unused(struct sched_state *state, struct place_node *node) {
  if (!node->record && !node->status && node->instances == 0)
    place_node_remove(&state->nodes, node);
}

static struct place_node *want_node(struct sched_state *state, const char *name) {
  struct place_node *node = place_node_find(&state->nodes, name);
  return node ? node : place_node_add(&state->nodes, name);
}

static int count_on(struct sched_instance *instance, struct place_node *node, const struct sched_revision *revision) {
  if (place_take(node, &revision->need, &instance->gpu_group) < 0)
    return -1;
  instance->counted = node;
  instance->counted_as = revision;
  return 0;
}

static int count(struct sched_state *state, struct sched_instance *instance) {
  const Model__Instance *record = instance->record;
  if (instance->counted || !record || !*PB_STR(record->node))
    return 0;
  const struct sched_revision *revision = sched_service_revision(instance->service, PB_GET(record, revision, 0));
  if (!revision)
    return 0; /* counted when the revision comes */
  struct place_node *node = want_node(state, record->node);
  return node ? count_on(instance, node, revision) : -1;
}

/* ---- services ---- */

struct sched_service *sched_state_service(const struct sched_state *state, const char *id) {
  return sched_map_get(&state->services, id);
}

static struct sched_service *want_service(struct sched_state *state, const char *project, const char *name) {
  char id[NEEDS_NAME_MAX];
  snprintf(id, sizeof id, "%s/%s", project, name);
  struct sched_service *service = sched_state_service(state, id);
  if (service)
    return service;
  if (state->count == state->size) {
    size_t size = state->size ? state->size * 2 : 64;
    struct sched_service **list = reallocarray(state->list, size, sizeof(struct sched_service *));
    if (!list)
      return NULL;
    state->list = list;
    state->size = size;
  }
  service = calloc(1, sizeof *service);
  if (!service)
    return NULL;
  service->id = strdup(id);
  snprintf(service->project, sizeof service->project, "%s", project);
  snprintf(service->name, sizeof service->name, "%s", name);
  service->wake_ms = ROLLOUT_NEVER;
  if (!service->id || sched_map_put(&state->services, service->id, service) < 0) {
    free(service->id);
    free(service);
    return NULL;
  }
  state->list[state->count++] = service;
  return service;
}

static void free_revision(struct sched_state *state, struct sched_revision *revision) {
  if (revision->spec && revision->spec->placement && revision->spec->placement->n_avoid)
    state->avoiding--;
  free_message(revision->spec);
  free_message(revision->record);
  free(revision);
}

static void free_instance(struct sched_instance *instance) {
  free_message(instance->record);
  free_message(instance->status);
  free(instance);
}

static void free_service(struct sched_state *state, struct sched_service *service) {
  for (size_t i = 0; i < service->instance_count; i++) {
    uncount(state, service->instances[i]);
    free_instance(service->instances[i]);
  }
  for (size_t i = 0; i < service->revision_count; i++)
    free_revision(state, service->revisions[i]);
  free_message(service->record);
  free_message(service->rollout);
  sched_jobs_free(service->job);
  free(service->instances);
  free(service->revisions);
  free(service->id);
  free(service);
}

void sched_state_touch(struct sched_state *state, struct sched_service *service) {
  if (service->dirty)
    return;
  service->dirty = true;
  service->next_dirty = NULL;
  *state->dirty_end = service;
  state->dirty_end = &service->next_dirty;
}

struct sched_service *sched_state_next(struct sched_state *state) {
  struct sched_service *service = state->dirty;
  if (!service)
    return NULL;
  state->dirty = service->next_dirty;
  if (!state->dirty)
    state->dirty_end = &state->dirty;
  service->dirty = false;
  return service;
}

void sched_state_tidy(struct sched_state *state, struct sched_service *service) {
  if (service->dirty)
    return;
  for (size_t i = 0; i < service->revision_count;) {
    struct sched_revision *revision = service->revisions[i];
    bool used = !revision->gone;
    for (size_t k = 0; k < service->instance_count && !used; k++)
      used = service->instances[k]->counted_as == revision ||
             (service->instances[k]->record && PB_GET(service->instances[k]->record, revision, 0) == revision->number);
    if (used) {
      i++;
      continue;
    }
    sched_jobs_revision_gone(service, revision->record);
    free_revision(state, revision);
    memmove(service->revisions + i, service->revisions + i + 1, (--service->revision_count - i) * sizeof(struct sched_revision *));
  }
  if (service->record || service->rollout || service->instance_count || service->revision_count || !sched_jobs_is_empty(service))
    return;
  sched_map_remove(&state->services, service->id);
  for (size_t i = 0; i < state->count; i++)
    if (state->list[i] == service) {
      memmove(state->list + i, state->list + i + 1, (--state->count - i) * sizeof(struct sched_service *));
      break;
    }
  free_service(state, service);
}

/* ---- revisions ---- */

static size_t revision_position(const struct sched_service *service, uint64_t number, bool *found) {
  size_t i = service->revision_count;
  while (i > 0 && service->revisions[i - 1]->number > number)
    i--;
  *found = i > 0 && service->revisions[i - 1]->number == number;
  return *found ? i - 1 : i;
}

const struct sched_revision *sched_service_revision(const struct sched_service *service, uint64_t number) {
  bool found;
  size_t i = revision_position(service, number, &found);
  return found ? service->revisions[i] : NULL;
}

static struct sched_revision *new_revision(struct sched_state *state, uint64_t number, Model__Revision *record) {
  struct sched_revision *revision = calloc(1, sizeof *revision);
  if (!revision)
    return NULL;
  revision->number = number;
  Model__ServiceSpec empty = MODEL__SERVICE_SPEC__INIT;
  revision->spec = (Model__ServiceSpec *)pb_clone(record->spec ? &record->spec->base : &empty.base);
  if (!revision->spec) {
    free(revision);
    return NULL;
  }
  Model__ServiceSpec *spec = revision->spec;
  spec_fill_defaults(spec);
  if (spec->placement && spec->placement->n_avoid)
    state->avoiding++;
  needs_resources(spec, &revision->need);
  const Model__DeployPolicy none = MODEL__DEPLOY_POLICY__INIT, *deploy = spec->deploy ? spec->deploy : &none;
  revision->policy = (struct rollout_policy){
      .strategy = PB_GET(deploy, strategy, MODEL__DEPLOY_STRATEGY__ROLLING),
      .max_unavailable = PB_GET(deploy, max_unavailable, 0),
      .max_surge = PB_GET(deploy, max_surge, 1),
      .timeout_ms = PB_GET(deploy, timeout_ms, 300000),
      .auto_rollback = PB_GET(deploy, auto_rollback, 1),
      /* Ports of network = "host" are bound on the node too. */
      .stop_first = spec_binds_node_resource(spec) || revision->need.port_count > 0,
  };
  revision->min_ready_ms = PB_GET(deploy, min_ready_ms, 5000);
  uint64_t request_limit = spec->proxy ? PB_GET(spec->proxy, timeout_ms, 60000) : 60000;
  revision->drain_limit_ms = request_limit > UINT64_MAX - DRAIN_EXTRA_MS ? UINT64_MAX : request_limit + DRAIN_EXTRA_MS;
  revision->record = record;
  return revision;
}

/* Takes record. */
static int put_revision(struct sched_state *state, struct sched_service *service, uint64_t number, Model__Revision *record) {
  struct sched_revision *revision = new_revision(state, number, record);
  if (!revision) {
    free_message(record);
    return -1;
  }
  bool found;
  size_t at = revision_position(service, number, &found);
  if (found) {
    struct sched_revision *old = service->revisions[at];
    for (size_t i = 0; i < service->instance_count; i++)
      if (service->instances[i]->counted_as == old)
        uncount(state, service->instances[i]);
    service->revisions[at] = revision;
    sched_jobs_revision_gone(service, old->record);
    free_revision(state, old);
  } else {
    if (service->revision_count == service->revision_size) {
      size_t size = service->revision_size ? service->revision_size * 2 : 4;
      struct sched_revision **list = reallocarray(service->revisions, size, sizeof(struct sched_revision *));
      if (!list) {
        free_revision(state, revision);
        return -1;
      }
      service->revisions = list;
      service->revision_size = size;
    }
    memmove(service->revisions + at + 1, service->revisions + at, (service->revision_count++ - at) * sizeof(struct sched_revision *));
    service->revisions[at] = revision;
  }
  for (size_t i = 0; i < service->instance_count; i++)
    if (count(state, service->instances[i]) < 0)
      return -1;
  return 0;
}

static void delete_revision(struct sched_service *service, uint64_t number) {
  bool found;
  size_t at = revision_position(service, number, &found);
  if (found)
    service->revisions[at]->gone = true;
}

/* ---- instances ---- */

static size_t instance_position(const struct sched_service *service, uint64_t number, bool *found) {
  size_t lo = 0, hi = service->instance_count;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (service->instances[mid]->number < number)
      lo = mid + 1;
    else
      hi = mid;
  }
  *found = lo < service->instance_count && service->instances[lo]->number == number;
  return lo;
}

struct sched_instance *sched_service_instance(const struct sched_service *service, uint64_t number) {
  bool found;
  size_t at = instance_position(service, number, &found);
  return found ? service->instances[at] : NULL;
}

static struct sched_instance *want_instance(struct sched_service *service, uint64_t number) {
  bool found;
  size_t at = instance_position(service, number, &found);
  if (found)
    return service->instances[at];
  if (service->instance_count == service->instance_size) {
    size_t size = service->instance_size ? service->instance_size * 2 : 4;
    struct sched_instance **list = reallocarray(service->instances, size, sizeof(struct sched_instance *));
    if (!list)
      return NULL;
    service->instances = list;
    service->instance_size = size;
  }
  struct sched_instance *instance = calloc(1, sizeof *instance);
  if (!instance)
    return NULL;
  instance->service = service;
  instance->number = number;
  instance->gpu_group = -1;
  memmove(service->instances + at + 1, service->instances + at, (service->instance_count++ - at) * sizeof(struct sched_instance *));
  service->instances[at] = instance;
  return instance;
}

static void forget_instance_if_empty(struct sched_instance *instance) {
  if (instance->record || instance->status)
    return;
  struct sched_service *service = instance->service;
  bool found;
  size_t at = instance_position(service, instance->number, &found);
  memmove(service->instances + at, service->instances + at + 1, (--service->instance_count - at) * sizeof(struct sched_instance *));
  free_instance(instance);
}

const Model__InstanceStatus *sched_instance_status(const struct sched_instance *instance) {
  const Model__Instance *record = instance->record;
  const Model__InstanceStatus *status = instance->status;
  if (!record || !status || PB_GET(status, epoch, 1) != PB_GET(record, epoch, 1))
    return NULL;
  return strcmp(PB_STR(status->node), PB_STR(record->node)) == 0 ? status : NULL;
}

/* Written by a clock that was ahead, and has been set since: it counts from now on, or time limits would be drawn out by as much. */
#define NOT_AHEAD(m, field, now)                                                                                                                     \
  do {                                                                                                                                               \
    if (PB_GET(m, field, 0) > (now))                                                                                                                 \
      PB_SET(m, field, now);                                                                                                                         \
  } while (0)

/* Takes record. */
static int put_instance(struct sched_state *state, struct sched_service *service, uint64_t number, Model__Instance *record) {
  struct sched_instance *instance = want_instance(service, number);
  if (!instance) {
    free_message(record);
    return -1;
  }
  struct place_node *before = instance->counted;
  uncount(state, instance);
  free_message(instance->record);
  instance->record = record;
  if (count(state, instance) < 0)
    return -1;
  if (before && before != instance->counted)
    drop_node_if_unused(state, before);
  return 0;
}

void sched_instance_drop(struct sched_state *state, struct sched_instance *instance) {
  struct place_node *before = instance->counted;
  uncount(state, instance);
  if (before)
    drop_node_if_unused(state, before);
  free_message(instance->record);
  instance->record = NULL;
  forget_instance_if_empty(instance);
}

struct sched_instance *sched_state_add(struct sched_state *state, struct sched_service *service, uint64_t number, Model__Instance *record) {
  return put_instance(state, service, number, record) < 0 ? NULL : sched_service_instance(service, number);
}

int sched_instance_place(struct sched_state *state, struct sched_instance *instance, struct place_node *node) {
  char *name = strdup(node->name);
  if (!name)
    return -1;
  free(instance->record->node);
  instance->record->node = name;
  return count(state, instance);
}

/* Takes status. Readiness is dated by the scheduler's own clock when it sees the change, so that min_ready does not depend on how well
 * clocks agree; what was ready before the scheduler came is dated by its agent. */
static int put_status(struct sched_state *state, struct sched_service *service, uint64_t number, Model__InstanceStatus *status, int64_t now) {
  struct sched_instance *instance = want_instance(service, number);
  if (!instance) {
    free_message(status);
    return -1;
  }
  const Model__InstanceStatus *old = instance->status;
  instance->was_reported = true;
  bool ready = PB_GET(status, ready, 0), was_ready = instance->ready_since_ms != 0;
  int64_t told = PB_GET(status, ready_since_ms, 0);
  bool anew =
      ready && (!was_ready || !old || PB_GET(old, ready_since_ms, 0) != told || strcmp(PB_STR(old->container_id), PB_STR(status->container_id)) != 0);
  if (anew)
    instance->ready_since_ms = state->synced || told <= 0 || told > now ? now : told;
  else if (!ready)
    instance->ready_since_ms = 0;
  if (ready && !instance->first_ready_ms)
    instance->first_ready_ms = instance->ready_since_ms;
  else if (!instance->first_ready_ms && told > 0)
    instance->first_ready_ms = told < now ? told : now;
  if (ready != was_ready)
    state->retry = true; /* somebody may depend on it */
  free_message(instance->status);
  instance->status = status;
  return 0;
}

static void delete_status(struct sched_state *state, struct sched_service *service, uint64_t number) {
  struct sched_instance *instance = sched_service_instance(service, number);
  if (!instance)
    return;
  free_message(instance->status);
  instance->status = NULL;
  instance->ready_since_ms = 0;
  state->retry = true;
  forget_instance_if_empty(instance);
}

/* ---- nodes ---- */

static bool same_gpus(const Model__Node *a, const Model__Node *b) {
  size_t n = a ? a->n_gpus : 0, m = b ? b->n_gpus : 0;
  if (n != m)
    return false;
  for (size_t i = 0; i < n; i++)
    if (!pb_equal(&a->gpus[i]->base, &b->gpus[i]->base))
      return false;
  return true;
}

/* Counts every GPU of the node again: its groups have changed. */
static int recount(struct sched_state *state, struct place_node *node) {
  memset(node->gpus_used, 0, sizeof node->gpus_used);
  for (size_t i = 0; i < state->count; i++)
    for (size_t k = 0; k < state->list[i]->instance_count; k++) {
      struct sched_instance *instance = state->list[i]->instances[k];
      if (instance->counted != node || !instance->counted_as->need.gpu)
        continue;
      const struct sched_revision *revision = instance->counted_as;
      instance->gpu_group = -1;
      uncount(state, instance);
      if (count_on(instance, node, revision) < 0)
        return -1;
    }
  return 0;
}

/* What runs on a node that comes or goes is theirs to judge. */
static void touch_jobs(struct sched_state *state) {
  for (size_t i = 0; i < state->count; i++)
    if (state->list[i]->job)
      sched_state_touch(state, state->list[i]);
}

/* Takes record; NULL: it is gone. */
static int set_node(struct sched_state *state, const char *name, Model__Node *record) {
  struct place_node *node = record ? want_node(state, name) : place_node_find(&state->nodes, name);
  if (!node) {
    free_message(record);
    return record ? -1 : 0;
  }
  Model__Node *old = (Model__Node *)(uintptr_t)node->record;
  bool gpus_changed = !same_gpus(old, record);
  node->record = record;
  int rc = gpus_changed ? recount(state, node) : 0;
  free_message(old);
  state->retry = true;
  touch_jobs(state);
  drop_node_if_unused(state, node);
  return rc;
}

static bool same_volumes(const Model__NodeStatus *a, const Model__NodeStatus *b) {
  if (a->n_volumes != b->n_volumes)
    return false;
  for (size_t i = 0; i < a->n_volumes; i++)
    if (strcmp(a->volumes[i], b->volumes[i]) != 0)
      return false;
  return true;
}

/* Whether an instance that fits nowhere may fit now. */
static bool room_changed(const Model__NodeStatus *a, const Model__NodeStatus *b) {
  return !a || !b || PB_GET(a, state, 0) != PB_GET(b, state, 0) || PB_GET(a, docker_ok, 0) != PB_GET(b, docker_ok, 0) ||
         PB_GET(a, cpu_milli, 0) != PB_GET(b, cpu_milli, 0) || PB_GET(a, memory, 0) != PB_GET(b, memory, 0) ||
         PB_GET(a, pids, 0) != PB_GET(b, pids, 0) || !same_volumes(a, b);
}

static bool is_away(const Model__NodeStatus *status) {
  return PB_GET(status, state, 0) != MODEL__NODE_STATE__NODE_READY;
}

/* Takes status; NULL: it is gone. */
static int set_node_status(struct sched_state *state, const char *name, Model__NodeStatus *status, int64_t now) {
  struct place_node *node = status ? want_node(state, name) : place_node_find(&state->nodes, name);
  if (!node) {
    free_message(status);
    return status ? -1 : 0;
  }
  Model__NodeStatus *old = (Model__NodeStatus *)(uintptr_t)node->status;
  if (room_changed(old, status))
    state->retry = true;
  if (!old || !status || PB_GET(old, state, 0) != PB_GET(status, state, 0))
    touch_jobs(state);
  if (status && is_away(status) && !(old && is_away(old)))
    node->away_since_ms = now;
  node->status = status;
  free_message(old);
  drop_node_if_unused(state, node);
  return 0;
}

/* ---- history: keys of the scheduler's own events, so that it can trim them ---- */

int sched_history_add(struct sched_state *state, int64_t ms, uint32_t seq) {
  if (state->history_count == state->history_size) {
    size_t size = state->history_size ? state->history_size * 2 : 64;
    struct sched_event_key *ring = calloc(size, sizeof *ring);
    if (!ring)
      return -1;
    for (size_t i = 0; i < state->history_count; i++)
      ring[i] = state->history[(state->history_first + i) % state->history_size];
    free(state->history);
    state->history = ring;
    state->history_size = size;
    state->history_first = 0;
  }
  state->history[(state->history_first + state->history_count++) % state->history_size] = (struct sched_event_key){ms, seq};
  return 0;
}

static bool later(const struct sched_event_key *a, const struct sched_event_key *b) {
  return a->ms != b->ms ? a->ms > b->ms : a->seq > b->seq;
}

static bool parse_event_key(const char *text, struct sched_event_key *ret) {
  char *end;
  if (strlen(text) != 25 || text[16] != '-')
    return false;
  ret->ms = (int64_t)strtoull(text, &end, 16);
  if (end != text + 16)
    return false;
  ret->seq = (uint32_t)strtoul(text + 17, &end, 16);
  return *end == 0;
}

static int history_seen(struct sched_state *state, const char *text) {
  struct sched_event_key key;
  if (!parse_event_key(text, &key))
    return 0;
  /* Its own come back after they were written: those are known. */
  if (state->history_count && !later(&key, &state->history[(state->history_first + state->history_count - 1) % state->history_size]))
    return 0;
  return sched_history_add(state, key.ms, key.seq);
}

/* ---- the mirror ---- */

enum key_kind {
  KEY_OTHER,
  KEY_IS_SERVICE,
  KEY_IS_REVISION,
  KEY_IS_ROLLOUT,
  KEY_IS_INSTANCE,
  KEY_IS_STATUS,
  KEY_IS_JOB,
  KEY_IS_JOB_STATE,
  KEY_IS_JOB_RUN,
  KEY_IS_NODE,
  KEY_IS_NODE_STATUS,
  KEY_IS_EVENT
};

struct parsed_key {
  enum key_kind kind;
  char project[64], name[64]; /* name alone for nodes */
  uint64_t number;
  const char *rest;
};

static bool copy_part(const char **at, char out[64], char end) {
  size_t len = strcspn(*at, "/");
  if (len == 0 || len >= 64 || (*at)[len] != end)
    return false;
  memcpy(out, *at, len);
  out[len] = 0;
  *at += len + (end != 0);
  return true;
}

static bool parse_number(const char *text, uint64_t *ret) {
  char *end;
  if (*text < '0' || *text > '9')
    return false;
  *ret = strtoull(text, &end, 10);
  return *end == 0;
}

static bool parse_key(const char *key, struct parsed_key *ret) {
  static const struct {
    const char *prefix;
    enum key_kind kind;
  } kinds[] = {{KEY_SERVICES, KEY_IS_SERVICE},        {KEY_REVISIONS, KEY_IS_REVISION},      {KEY_ROLLOUTS, KEY_IS_ROLLOUT},
               {KEY_INSTANCES, KEY_IS_INSTANCE},      {KEY_INSTANCE_STATUS, KEY_IS_STATUS},  {KEY_NODES, KEY_IS_NODE},
               {KEY_NODE_STATUS, KEY_IS_NODE_STATUS}, {KEY_HISTORY_SCHEDULER, KEY_IS_EVENT}, {KEY_JOBS, KEY_IS_JOB},
               {KEY_JOB_STATE, KEY_IS_JOB_STATE},     {KEY_JOB_RUNS, KEY_IS_JOB_RUN}};
  *ret = (struct parsed_key){0};
  const char *at = NULL;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !at; i++)
    if (strncmp(key, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
      ret->kind = kinds[i].kind;
      at = key + strlen(kinds[i].prefix);
    }
  switch (ret->kind) {
  case KEY_OTHER:
    return true;
  case KEY_IS_EVENT:
    ret->rest = at;
    return true;
  case KEY_IS_NODE:
  case KEY_IS_NODE_STATUS:
    return copy_part(&at, ret->name, 0);
  case KEY_IS_SERVICE:
  case KEY_IS_ROLLOUT:
  case KEY_IS_JOB:
  case KEY_IS_JOB_STATE:
    return copy_part(&at, ret->project, '/') && copy_part(&at, ret->name, 0);
  case KEY_IS_REVISION:
  case KEY_IS_INSTANCE:
  case KEY_IS_STATUS:
  case KEY_IS_JOB_RUN:
    return copy_part(&at, ret->project, '/') && copy_part(&at, ret->name, '/') && parse_number(at, &ret->number);
  }
  return false;
}

static const ProtobufCMessageDescriptor *message_of(enum key_kind kind) {
  switch (kind) {
  case KEY_IS_SERVICE:
    return &model__service__descriptor;
  case KEY_IS_REVISION:
    return &model__revision__descriptor;
  case KEY_IS_ROLLOUT:
    return &model__rollout__descriptor;
  case KEY_IS_INSTANCE:
    return &model__instance__descriptor;
  case KEY_IS_STATUS:
    return &model__instance_status__descriptor;
  case KEY_IS_JOB:
    return &model__job__descriptor;
  case KEY_IS_JOB_STATE:
    return &model__job_state__descriptor;
  case KEY_IS_JOB_RUN:
    return &model__job_run__descriptor;
  case KEY_IS_NODE:
    return &model__node__descriptor;
  case KEY_IS_NODE_STATUS:
    return &model__node_status__descriptor;
  case KEY_OTHER:
  case KEY_IS_EVENT:
    break;
  }
  return NULL;
}

/* Takes message. */
static int put_parsed(struct sched_state *state, const struct parsed_key *key, ProtobufCMessage *message, int64_t now) {
  if (key->kind == KEY_IS_NODE)
    return set_node(state, key->name, (Model__Node *)message);
  if (key->kind == KEY_IS_NODE_STATUS)
    return set_node_status(state, key->name, (Model__NodeStatus *)message, now);
  struct sched_service *service = want_service(state, key->project, key->name);
  if (!service) {
    free_message(message);
    return -1;
  }
  sched_state_touch(state, service);
  switch (key->kind) {
  case KEY_IS_SERVICE:
    free_message(service->record);
    service->record = (Model__Service *)message;
    state->retry = true;
    return 0;
  case KEY_IS_ROLLOUT:
    free_message(service->rollout);
    service->rollout = (Model__Rollout *)message;
    NOT_AHEAD(service->rollout, started_ms, now);
    NOT_AHEAD(service->rollout, progress_ms, now);
    return 0;
  case KEY_IS_REVISION:
    return put_revision(state, service, key->number, (Model__Revision *)message);
  case KEY_IS_INSTANCE:
    NOT_AHEAD((Model__Instance *)message, desired_since_ms, now);
    return put_instance(state, service, key->number, (Model__Instance *)message);
  case KEY_IS_STATUS:
    return put_status(state, service, key->number, (Model__InstanceStatus *)message, now);
  case KEY_IS_JOB:
  case KEY_IS_JOB_STATE:
  case KEY_IS_JOB_RUN:
    if (key->kind == KEY_IS_JOB_RUN)
      PB_SET((Model__JobRun *)message, number, key->number); /* the key's is the one that counts */
    return sched_jobs_put(service, message);
  case KEY_IS_NODE:
  case KEY_IS_NODE_STATUS:
  case KEY_IS_EVENT:
  case KEY_OTHER:
    break;
  }
  return 0;
}

int sched_state_put(struct sched_state *state, const char *key, const uint8_t *value, size_t len, int64_t now, struct err *err) {
  struct parsed_key parsed;
  if (!parse_key(key, &parsed))
    return err_set(err, ERR_INVALID, "%.200s: not a key of this kind", key);
  if (parsed.kind == KEY_OTHER)
    return 0;
  if (parsed.kind == KEY_IS_EVENT)
    return history_seen(state, parsed.rest) < 0 ? err_set(err, ERR_MEMORY, "no memory for the history") : 0;
  ProtobufCMessage *message = pb_unpack(message_of(parsed.kind), value, len, err);
  if (!message)
    return err_context(err, "%.200s", key);
  if (put_parsed(state, &parsed, message, now) < 0)
    return err_set(err, ERR_MEMORY, "%.200s: no memory", key);
  return 0;
}

/* The service is gone. What runs of it is not of the next service under its name, even when that comes before the scheduler has acted. */
static void delete_service(struct sched_state *state, struct sched_service *service) {
  free_message(service->record);
  service->record = NULL;
  service->rollout_is_old = true;
  for (size_t i = 0; i < service->instance_count; i++)
    if (service->instances[i]->record)
      service->instances[i]->orphan = true;
  state->retry = true;
}

int sched_state_delete(struct sched_state *state, const char *key, struct err *err) {
  struct parsed_key parsed;
  if (!parse_key(key, &parsed))
    return err_set(err, ERR_INVALID, "%.200s: not a key of this kind", key);
  if (parsed.kind == KEY_OTHER || parsed.kind == KEY_IS_EVENT)
    return 0;
  if (parsed.kind == KEY_IS_NODE || parsed.kind == KEY_IS_NODE_STATUS) {
    int rc = parsed.kind == KEY_IS_NODE ? set_node(state, parsed.name, NULL) : set_node_status(state, parsed.name, NULL, 0);
    return rc < 0 ? err_set(err, ERR_MEMORY, "%.200s: no memory", key) : 0;
  }
  char id[NEEDS_NAME_MAX];
  snprintf(id, sizeof id, "%s/%s", parsed.project, parsed.name);
  struct sched_service *service = sched_state_service(state, id);
  if (!service)
    return 0;
  sched_state_touch(state, service);
  switch (parsed.kind) {
  case KEY_IS_SERVICE:
    delete_service(state, service);
    break;
  case KEY_IS_ROLLOUT:
    free_message(service->rollout);
    service->rollout = NULL;
    break;
  case KEY_IS_REVISION:
    delete_revision(service, parsed.number);
    break;
  case KEY_IS_INSTANCE: {
    struct sched_instance *instance = sched_service_instance(service, parsed.number);
    if (instance)
      sched_instance_drop(state, instance);
    break;
  }
  case KEY_IS_STATUS:
    delete_status(state, service, parsed.number);
    break;
  case KEY_IS_JOB:
  case KEY_IS_JOB_STATE:
  case KEY_IS_JOB_RUN:
    sched_jobs_delete(service, message_of(parsed.kind), parsed.number);
    break;
  case KEY_IS_NODE:
  case KEY_IS_NODE_STATUS:
  case KEY_IS_EVENT:
  case KEY_OTHER:
    break;
  }
  return 0;
}

void sched_state_init(struct sched_state *state) {
  *state = (struct sched_state){0};
  state->dirty_end = &state->dirty;
}

void sched_state_fini(struct sched_state *state) {
  for (size_t i = 0; i < state->count; i++)
    free_service(state, state->list[i]);
  free(state->list);
  sched_map_fini(&state->services);
  for (size_t i = 0; i < state->nodes.count; i++) {
    free_message((void *)(uintptr_t)state->nodes.nodes[i]->record);
    free_message((void *)(uintptr_t)state->nodes.nodes[i]->status);
  }
  place_table_fini(&state->nodes);
  free(state->history);
  sched_state_init(state);
}
