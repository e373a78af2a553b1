#include "orca-scheduler/sched_where.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

bool sched_dependencies_ready(const struct sched_state *state, const struct sched_service *service, const struct sched_revision *revision,
                              char why[ROLLOUT_TEXT], bool *ret_held) {
  *ret_held = false;
  for (size_t i = 0; i < revision->spec->n_depends_on; i++) {
    const char *reference = revision->spec->depends_on[i];
    char id[NEEDS_NAME_MAX];
    const struct sched_service *other = needs_full_name(service->project, reference, id) ? sched_state_service(state, id) : NULL;
    if (!other || !other->record) {
      snprintf(why, ROLLOUT_TEXT, "waiting for %.130s: there is no such service", reference);
      return false;
    }
    uint32_t needed = needs_count(other->record), ready = 0;
    for (size_t k = 0; k < other->instance_count; k++) {
      const struct sched_instance *instance = other->instances[k];
      const Model__InstanceStatus *status = sched_instance_status(instance);
      ready += status && PB_GET(status, ready, 0) && PB_GET(instance->record, desired, MODEL__DESIRED__DESIRED_RUN) == MODEL__DESIRED__DESIRED_RUN;
    }
    if (ready < (needed ? needed : 1)) {
      snprintf(why, ROLLOUT_TEXT, "waiting for %.130s", reference);
      *ret_held = other->rollout && !other->rollout_is_old && PB_GET(other->rollout, held, false);
      return false;
    }
  }
  return true;
}

/* ---- avoid ---- */

static void avoid_nodes_of(struct sched_where *where, const struct sched_service *other) {
  for (size_t k = 0; k < other->instance_count; k++)
    if (other->instances[k]->counted)
      where->avoid[other->instances[k]->counted->index] = other->id;
}

static bool names(const struct sched_service *owner, const Model__Placement *placement, const char *id) {
  char full[NEEDS_NAME_MAX];
  for (size_t i = 0; placement && i < placement->n_avoid; i++)
    if (needs_full_name(owner->project, placement->avoid[i], full) && strcmp(full, id) == 0)
      return true;
  return false;
}

static int gather_avoid(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                        const struct sched_revision *revision) {
  if (!state->avoiding)
    return 0;
  where->avoid = calloc(state->nodes.count + 1, sizeof(char *));
  if (!where->avoid)
    return -1;
  where->request.avoid = where->avoid;
  const Model__Placement *placement = revision->spec->placement;
  for (size_t i = 0; placement && i < placement->n_avoid; i++) {
    char id[NEEDS_NAME_MAX];
    const struct sched_service *other = needs_full_name(service->project, placement->avoid[i], id) ? sched_state_service(state, id) : NULL;
    if (other && other != service)
      avoid_nodes_of(where, other);
  }
  /* Keeping apart goes both ways: whoever avoids this service does not want it to come after either. */
  for (size_t i = 0; i < state->count; i++) {
    const struct sched_service *other = state->list[i];
    for (size_t k = 0; k < other->instance_count && other != service; k++) {
      const struct sched_instance *instance = other->instances[k];
      if (instance->counted && names(other, instance->counted_as->spec->placement, service->id))
        where->avoid[instance->counted->index] = other->id;
    }
  }
  return 0;
}

/* ---- volumes ---- */

static bool node_has_volume(const struct place_node *node, const char *full_name) {
  for (size_t i = 0; node->status && i < node->status->n_volumes; i++)
    if (strcmp(node->status->volumes[i], full_name) == 0)
      return true;
  return false;
}

static bool uses_volume(const struct sched_revision *revision, const char *source) {
  for (size_t i = 0; i < revision->spec->n_volumes; i++)
    if (strcmp(PB_STR(revision->spec->volumes[i]->source), source) == 0)
      return true;
  return false;
}

/* Where a volume is that no agent has reported yet: with whoever of the project was sent somewhere with it. */
static size_t mark_users(bool *here, const struct sched_state *state, const char *project, const char *source) {
  size_t found = 0;
  for (size_t i = 0; i < state->count; i++) {
    const struct sched_service *other = state->list[i];
    if (strcmp(other->project, project) != 0)
      continue;
    for (size_t k = 0; k < other->instance_count; k++) {
      const struct sched_instance *instance = other->instances[k];
      if (instance->counted && uses_volume(instance->counted_as, source)) {
        here[instance->counted->index] = true;
        found++;
      }
    }
  }
  return found;
}

static int gather_volumes(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                          const struct sched_revision *revision) {
  if (!revision->spec->n_volumes)
    return 0;
  size_t count = state->nodes.count;
  bool *here = calloc(count + 1, sizeof *here);
  bool *both = calloc(count + 1, sizeof *both);
  if (!here || !both) {
    free(here);
    free(both);
    return -1;
  }
  bool bound = false;
  for (size_t v = 0; v < revision->spec->n_volumes; v++) {
    const char *source = PB_STR(revision->spec->volumes[v]->source);
    char full[NEEDS_NAME_MAX * 2];
    snprintf(full, sizeof full, "%s/%s", service->project, source);
    size_t found = 0, first = 0;
    for (size_t i = 0; i < count; i++) {
      here[i] = node_has_volume(state->nodes.nodes[i], full);
      found += here[i];
    }
    if (!found)
      found = mark_users(here, state, service->project, source);
    if (!found)
      continue;
    for (size_t i = count; i-- > 0;) {
      if (here[i])
        first = i;
      both[i] = here[i] && (!bound || both[i]);
    }
    if (!bound)
      snprintf(where->volume, sizeof where->volume, "%.90s is on %.50s", full, state->nodes.nodes[first]->name);
    bound = true;
  }
  free(here);
  if (!bound) {
    free(both);
    return 0;
  }
  where->has_volumes = both;
  where->request.has_volumes = both;
  where->request.volume = where->volume;
  return 0;
}

/* ---- all of it ---- */

int sched_where_init(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                     const struct sched_revision *revision) {
  *where = (struct sched_where){0};
  /* As written, not with defaults: a spread that is spelled out comes before the best fit, the default one only breaks ties. */
  where->request.placement = revision->record->spec ? revision->record->spec->placement : NULL;
  where->request.need = &revision->need;
  where->own = calloc(state->nodes.count + 1, sizeof *where->own);
  if (!where->own || gather_avoid(where, state, service, revision) < 0 || gather_volumes(where, state, service, revision) < 0) {
    sched_where_fini(where);
    return -1;
  }
  where->request.own = where->own;
  for (size_t k = 0; k < service->instance_count; k++) {
    const struct sched_instance *instance = service->instances[k];
    if (instance->counted && instance->counted_as == revision &&
        PB_GET(instance->record, desired, MODEL__DESIRED__DESIRED_RUN) == MODEL__DESIRED__DESIRED_RUN)
      where->own[instance->counted->index]++;
  }
  return 0;
}

int sched_where_placed(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                       const struct sched_revision *revision, const struct place_node *node) {
  where->own[node->index]++;
  if (!revision->spec->n_volumes)
    return 0;
  free(where->has_volumes);
  where->has_volumes = NULL;
  where->request.has_volumes = NULL;
  return gather_volumes(where, state, service, revision);
}

void sched_where_fini(struct sched_where *where) {
  free(where->own);
  free(where->avoid);
  free(where->has_volumes);
  *where = (struct sched_where){0};
}
