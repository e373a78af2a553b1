/* A copy of the scheduler's state, to think with: what is decided on it touches the original in nothing.
 *
 * Cost: every record is packed and unpacked once, some µs each. History is not copied. Threads: none. */
#ifndef ORCA_SCHEDULER_SCHED_COPY_H
#define ORCA_SCHEDULER_SCHED_COPY_H

#include "orca-scheduler/sched_state.h"

/* to: initialised and empty. -1 when memory ends; it is to be freed then all the same. */
int sched_state_copy(struct sched_state *to, const struct sched_state *from, int64_t now_ms, struct err *err);

#endif
