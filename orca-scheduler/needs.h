/* What a service needs: how many instances, and what one of them takes from its node.
 * Threads: pure functions. Times in ms. */
#ifndef ORCA_SCHEDULER_NEEDS_H
#define ORCA_SCHEDULER_NEEDS_H

#include "orca-scheduler/place.h"
#include "proto/model.pb-c.h"

uint32_t needs_count(const Model__Service *service); /* 0 while it is stopped */

/* spec: defaults filled in; the need borrows from it. */
void needs_resources(const Model__ServiceSpec *spec, struct place_need *ret);

/* A reference in depends_on or avoid: NAME (of the same project) or PROJECT/NAME, as PROJECT/NAME. false when it does not fit. */
#define NEEDS_NAME_MAX 136
bool needs_full_name(const char *project, const char *reference, char out[NEEDS_NAME_MAX]);

#endif
