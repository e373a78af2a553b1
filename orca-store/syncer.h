/* The thread that syncs the log. What is written while a sync runs joins the next.
 *
 * Threads: all of this is the loop's; `ended` is called there. Errors: a sync that failed is the last one. */
#ifndef ORCA_STORE_SYNCER_H
#define ORCA_STORE_SYNCER_H

#include "common/err.h"
#include "common/loop.h"
#include "orca-store/log.h"

struct syncer;

/* stable: what the newest sync covers. err: it failed, and what the disk holds is not known. */
typedef void syncer_ended_fn(void *arg, const struct raft_stable *stable, const struct err *err);

/* loop and log are borrowed, and outlive it. */
struct syncer *syncer_start(struct loop *loop, struct dlog *log, syncer_ended_fn *ended, void *arg, struct err *err);
/* What is in the log now shall be durable. */
void syncer_want(struct syncer *s);
/* Ends the thread, after a sync that was still wanted; `ended` is not called any more. NULL is fine. */
void syncer_stop(struct syncer *s);

#endif
