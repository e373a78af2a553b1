/* How a service is, in one word and a few figures: what `status`, `ps` and the metrics show.
 *
 * The word, in the order in which they are looked for:
 *   stopping, stopped      by wish (stop, or 0 replicas); stopping while something of it still runs
 *   rolling_back           the wanted revision failed, the last good one is being brought back
 *   rolled_back            it is back; last_error says what was wrong with the other
 *   failed                 the wanted revision failed and there was nothing to go back to (or auto_rollback = false)
 *   pending                an instance fits on no node, or waits for another service, and too few are ready; or one waits for a secret
 *   deploying              on its way to the wanted revision, or to more replicas
 *   crashing               too few are ready, and one is in its crash loop
 *   degraded               too few are ready
 *   running                all wanted replicas are ready
 * Threads: pure functions of the cache. */
#ifndef ORCA_APISERVER_STATUS_VIEW_H
#define ORCA_APISERVER_STATUS_VIEW_H

#include "orca-apiserver/cache.h"
#include "orca-apiserver/figures.h"
#include "orca-apiserver/json_out.h"

#define API_CRASH_LOOP 2 /* restarts from which a waiting instance counts as crashing */

struct api_view {
  const Model__Service *service;
  const Model__Rollout *rollout;  /* NULL before the scheduler has seen it */
  const Model__ServiceSpec *spec; /* of `revision`; NULL when its record is missing */
  uint64_t revision;              /* what should run: after a rollback the stable one */
  const char *status;
  const struct api_smap_entry *instances; /* all that there are; borrowed from the cache */
  size_t instance_count;
  uint32_t replicas, existing, running, ready;
  uint32_t target_ready; /* ready ones of the wanted revision and generation */
  uint64_t cpu_milli, memory, restarts;
  const char *last_error; /* "" when there is none */
  bool waits_for_secret;  /* an instance of what should run does, and will until it is set */
  bool secrets_newer;     /* than what an instance was made with: `redeploy` takes them up */
};

void api_view(const struct api_cache *cache, const struct api_figures *figures, const Model__Service *service, struct api_view *ret);
/* Whether the scheduler has come to an end with what is wanted: COMPLETE and enough ready, rolled back, failed, or stopped. */
bool api_view_settled(const struct api_view *view, bool *ok);
const char *api_rollout_state_text(Model__RolloutState state);
const char *api_phase_text(const Model__Instance *instance, const Model__InstanceStatus *status);

void api_view_status_json(const struct api_view *view, struct api_json *json);
void api_view_detail_json(const struct api_cache *cache, const struct api_figures *figures, const Model__Service *service, struct api_json *json);
/* "instances": all of a service or a job. */
void api_view_instances_json(const struct api_cache *cache, const struct api_figures *figures, const char *project, const char *name,
                             struct api_json *json);
/* changes: with what each changed against the one before. */
void api_view_revisions_json(const struct api_cache *cache, const Model__Service *service, bool changes, struct api_json *json);

#endif
