#include "orca-apiserver/desired.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/secrets.h"

/* Unpacked messages have no const; what is borrowed here is only packed. */
#define BORROW(type, p) ((type *)(uintptr_t)(const void *)(p))

void api_desired_init(struct api_desired *d, const char *node) {
  *d = (struct api_desired){.full = true};
  snprintf(d->node, sizeof d->node, "%s", node);
}

void api_desired_fini(struct api_desired *d) {
  api_smap_clear(&d->dirty, NULL);
}

void api_desired_mark(struct api_desired *d, const char *instance) {
  if (d->full && !d->part)
    return; /* it comes with everything */
  if (!api_smap_slot(&d->dirty, instance)) {
    api_smap_clear(&d->dirty, NULL);
    d->full = true;
    d->part = 0;
  }
}

bool api_desired_pending(const struct api_desired *d) {
  return d->full || d->cluster || d->dirty.count;
}

/* What an agent that was started anew goes on from: how often it was started again, and how it ended; of a job, that it was begun. */
static int add_past(Node__Assignment *a, const Model__InstanceStatus *status) {
  if (!status || (!status->restarts && !status->ended_ms && !PB_GET(a->instance, job, false)))
    return 0;
  a->status = malloc(sizeof *a->status);
  if (!a->status)
    return -1;
  *a->status = *status;
  return 0;
}

static int add_assignment(Node__DesiredState *state, const struct api_cache *cache, const Model__Instance *instance, size_t *size) {
  const Model__Revision *revision = api_cache_revision(cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
  const Model__RevisionStatus *resolved = api_cache_revision_status(cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
  Node__Assignment *a = malloc(sizeof *a);
  if (!a)
    return -1;
  node__assignment__init(a);
  a->instance = BORROW(Model__Instance, instance);
  a->revision = BORROW(Model__Revision, revision);
  a->image = resolved ? resolved->image : NULL;
  if ((state->full && add_past(a, api_cache_instance_status(cache, instance)) < 0) ||
      (revision && revision->spec && secrets_versions(cache, revision->spec, &a->secrets, &a->n_secrets) < 0)) {
    free(a->status);
    free(a);
    return -1;
  }
  state->assigned[state->n_assigned++] = a;
  *size += node__assignment__get_packed_size(a);
  return 0;
}

static const Model__Instance *assigned(const struct api_desired *d, const struct api_cache *cache, const char *id) {
  char project[64], service[64];
  uint64_t number;
  if (!instance_id_parse(id, project, service, &number))
    return NULL;
  const Model__Instance *instance = api_cache_instance(cache, project, service, number);
  return instance && strcmp(PB_STR(instance->node), d->node) == 0 ? instance : NULL;
}

/* Without the hashes of tokens, which are no node's business. */
static int add_cluster(Node__DesiredState *state, const Model__ClusterSpec *cluster) {
  if (!cluster)
    return 0;
  state->cluster = malloc(sizeof *state->cluster);
  if (!state->cluster)
    return -1;
  *state->cluster = *cluster;
  state->cluster->n_tokens = 0;
  state->cluster->tokens = NULL;
  return 0;
}

/* The next part of everything. */
static int add_part(Node__DesiredState *state, const struct api_desired *d, const struct api_cache *cache) {
  const struct api_smap *map = &cache->tables[API_INSTANCES];
  size_t count, size = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_INSTANCES, &count);
  size_t i = d->part ? api_smap_lower(map, d->after) : 0;
  if (d->part && i < count && strcmp(all[i].key, d->after) == 0)
    i++;
  state->assigned = calloc(count - i + 1, sizeof(Node__Assignment *));
  if (!state->assigned)
    return -1;
  PB_SET(state, part, d->part);
  for (; i < count && size < API_DESIRED_BYTES; i++) {
    const Model__Instance *instance = API_MSG(&all[i], Model__Instance);
    if (strcmp(PB_STR(instance->node), d->node) == 0 && add_assignment(state, cache, instance, &size) < 0)
      return -1;
  }
  PB_SET(state, more, i < count);
  return 0;
}

static int add_changes(Node__DesiredState *state, const struct api_desired *d, const struct api_cache *cache) {
  state->assigned = calloc(d->dirty.count + 1, sizeof(Node__Assignment *));
  state->removed = calloc(d->dirty.count + 1, sizeof(char *));
  if (!state->assigned || !state->removed)
    return -1;
  for (size_t i = 0, size = 0; i < d->dirty.count && size < API_DESIRED_BYTES; i++) {
    const char *id = d->dirty.list[i].key;
    const Model__Instance *instance = assigned(d, cache, id);
    if (instance && add_assignment(state, cache, instance, &size) < 0)
      return -1;
    if (!instance) {
      state->removed[state->n_removed++] = BORROW(char, id);
      size += strlen(id);
    }
  }
  return 0;
}

Node__DesiredState *api_desired_build(const struct api_desired *d, const struct api_cache *cache) {
  Node__DesiredState *state = malloc(sizeof *state);
  if (!state)
    return NULL;
  node__desired_state__init(state);
  PB_SET(state, full, d->full && !(d->part && d->dirty.count));
  PB_SET(state, version, cache->revision);
  bool cluster = d->cluster || (state->full && !d->part);
  if ((state->full ? add_part(state, d, cache) : add_changes(state, d, cache)) == 0 &&
      (!cluster || add_cluster(state, api_cache_cluster(cache, NULL)) == 0))
    return state;
  api_desired_free(state);
  return NULL;
}

void api_desired_free(Node__DesiredState *state) {
  free(state->cluster);
  for (size_t i = 0; state->assigned && i < state->n_assigned; i++) {
    Node__Assignment *a = state->assigned[i];
    if (!a)
      continue;
    secrets_versions_free(a->secrets, a->n_secrets);
    free(a->status);
    free(a);
  }
  free(state->assigned);
  free(state->removed);
  free(state);
}

void api_desired_sent(struct api_desired *d, const Node__DesiredState *state) {
  d->cluster = false;
  if (state->full) {
    d->full = state->more;
    d->part = d->full ? d->part + 1 : 0;
    if (d->full) { /* it ended with an assignment, or there would be no more */
      const Model__Instance *last = state->assigned[state->n_assigned - 1]->instance;
      key_numbered(d->after, KEY_INSTANCES, PB_STR(last->project), PB_STR(last->service), last->number);
    }
    return;
  }
  size_t sent = state->n_assigned + state->n_removed; /* the first ones, in order */
  for (size_t i = 0; i < sent; i++)
    free(d->dirty.list[i].key);
  d->dirty.count -= sent;
  if (sent)
    memmove(d->dirty.list, d->dirty.list + sent, d->dirty.count * sizeof d->dirty.list[0]);
}
