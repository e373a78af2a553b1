/* The keeper's state: targets, their timers, the tries under way, and which verdicts the agent has not acknowledged yet.
 *
 * At most KEEPER_MAX_TRIES tries at a time; those beyond wait their turn, oldest first. Sets and removals come from keeper_link, which also fetches
 * what is to be told. Threads: the loop's. */
#ifndef ORCA_KEEPER_KEEPER_H
#define ORCA_KEEPER_KEEPER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/loop.h"
#include "orca-keeper/target.h"
#include "proto/keeper.pb-c.h"

#define KEEPER_MAX_TRIES 256u
#define KEEPER_MAX_TARGETS 65536u

struct keeper;
struct keeper_config {
  void (*news)(void *arg); /* there is a verdict to be told: keeper_take_news() */
  void *arg;
};
struct keeper *keeper_new(struct loop *loop, const struct keeper_config *config, struct err *err);
void keeper_free(struct keeper *k);
void keeper_set_agent(struct keeper *k, struct bus_conn *agent); /* for exec probes; borrowed */

/* A target as the agent has sent it; one that is known as it is goes on undisturbed. -1: it is not usable (said in err), or there are too many. */
int keeper_set_target(struct keeper *k, const Keeper__Target *target, struct err *err);
void keeper_remove_target(struct keeper *k, const char *instance);
/* A full list, of an agent that is new or was lost: begin, set each, end: what was not set in between is removed, all that is known of the others is
 * news. */
void keeper_full_begin(struct keeper *k);
void keeper_full_end(struct keeper *k);
size_t keeper_count(const struct keeper *k);

/* ---- verdicts ---- */

struct keeper_news {
  const char *instance, *container_id; /* borrowed until the next call of anything here */
  int64_t started_ms;                  /* of the target: a restarted container keeps its id */
  const struct keeper_verdict *verdict;
};
/* Up to max verdicts that were not acknowledged; they count as sent. */
size_t keeper_take_news(struct keeper *k, struct keeper_news *out, size_t max);
void keeper_sent_is_known(struct keeper *k); /* what was taken last has been acknowledged */
void keeper_sent_is_lost(struct keeper *k);  /* it has not: it is news again */

#endif
