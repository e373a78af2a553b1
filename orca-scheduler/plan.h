/* What would happen if some changes were stored now: the scheduler's own core, on a copy of its state, with outcomes that go well.
 *
 * Simulated: a new instance becomes ready at once, one that drains is let go of at once, one that is stopped is gone at once; time passes where the
 * core waits for it (min_ready). What is in trouble now stays as it is, nothing happens on a node that is not ready, and no rollout runs out of
 * time. So the steps are what the scheduler decides and in which order, not how long it takes.
 * Bounded: PLAN_MAX_STEPS steps, PLAN_MAX_ROUNDS rounds of the core; past that the last step is "more". Advanced in slices, so that the one who
 * really schedules is never held up for long.
 * Threads: none; no clock; the core that is copied is not touched and may change or go between slices. */
#ifndef ORCA_SCHEDULER_PLAN_H
#define ORCA_SCHEDULER_PLAN_H

#include "orca-scheduler/sched_core.h"
#include "proto/node.pb-c.h"

#define PLAN_MAX_STEPS 4000u
#define PLAN_MAX_ROUNDS 20000u
#define PLAN_MAX_CHANGES 20000u

struct sched_plan;

/* Borrows nothing. NULL: the changes are malformed or too many, or no memory. */
struct sched_plan *sched_plan_new(const struct sched_core *core, const Node__Plan *ask, int64_t now_ms, struct err *err);
/* At most so many rounds further. 1: there is more; 0: sched_plan_result() is whole; -1: it can't be told. */
int sched_plan_advance(struct sched_plan *plan, unsigned rounds, struct err *err);
const Node__Planned *sched_plan_result(const struct sched_plan *plan); /* the plan's */
void sched_plan_free(struct sched_plan *plan);                         /* takes NULL */

#endif
