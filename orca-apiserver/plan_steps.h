/* The second half of a plan: what the scheduler would do with what a deploy changes. Asked of a connected scheduler, which runs its own core on a
 * copy of its state; without one the plan says so, and is its diffs. Threads: the loop's. */
#ifndef ORCA_APISERVER_PLAN_STEPS_H
#define ORCA_APISERVER_PLAN_STEPS_H

#include "orca-apiserver/api.h"
#include "orca-apiserver/deploy_plan.h"

/* Ends the answer that was begun with json: adds `steps` (null when nobody could tell) and `steps_missing` (why), now or when the scheduler has
 * answered. The plan is borrowed until it returns. */
void api_plan_steps(struct api_request *request, struct api_json json, const struct api_plan *plan);

#endif
