/* Gathers what place_instance() asks about one revision of a service: which nodes hold its volumes, which services it avoids (or that
 * avoid it), how many of its own are where; and whether what it depends on is there.
 * Threads: none. */
#ifndef ORCA_SCHEDULER_SCHED_WHERE_H
#define ORCA_SCHEDULER_SCHED_WHERE_H

#include "orca-scheduler/sched_state.h"

struct sched_where {
  struct place_request request;
  uint32_t *own;
  const char **avoid;
  bool *has_volumes;
  char volume[PLACE_TEXT];
};

/* Good until the state changes in another way than by sched_where_placed(). -1 when memory ends. */
int sched_where_init(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                     const struct sched_revision *revision);
int sched_where_placed(struct sched_where *where, const struct sched_state *state, const struct sched_service *service,
                       const struct sched_revision *revision, const struct place_node *node); /* an instance of the revision went there */
void sched_where_fini(struct sched_where *where);

/* false, and "waiting for db", while one of depends_on has fewer ready instances than it should. ret_held: that one waits for a secret itself, or
 * for another that does. */
bool sched_dependencies_ready(const struct sched_state *state, const struct sched_service *service, const struct sched_revision *revision,
                              char why[ROLLOUT_TEXT], bool *ret_held);

#endif
