/* The scheduler's shell towards the store: mirrors what the core needs, holds the leadership, sends the core's decisions.
 *
 * Leadership is the key /leader/scheduler, bound to a lease of this process and written only where it is absent or this node's own
 * (one process per node: main.c holds a lock). Every transaction compares its mod_revision, so whoever takes it fences all that the former leader
 * still has under way. While another leads, this one only mirrors. One transaction at a time; the next is decided once the mirror has told the last
 * one. After a refused or unknown outcome the leadership is taken anew (which fences that transaction), and the core begins again from the store.
 * Threads: the loop's. */
#ifndef ORCA_SCHEDULER_SCHED_STORE_H
#define ORCA_SCHEDULER_SCHED_STORE_H

#include <stddef.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/loop.h"
#include "orca-scheduler/sched_core.h"

struct sched_store;

struct sched_store_config {
  const char *node; /* this node's name; copied */
  const struct bus_address *stores;
  size_t store_count;
  void (*status)(void *arg, const char *text); /* what it is doing, for systemd; may be NULL */
  void *status_arg;
};
struct sched_store *sched_store_new(struct loop *loop, struct bus *bus, const struct sched_store_config *config, struct err *err);
/* To look at, whether it leads or not: what the store holds, and what was decided on top of it. NULL while it is not in touch with the store. */
const struct sched_core *sched_store_core(const struct sched_store *s);
int64_t sched_store_now_ms(const struct sched_store *s); /* the core's time */
void sched_store_free(struct sched_store *s);            /* gives the leadership back */

#endif
