/* The scheduler as a pure state machine: step(state, event, now) → actions.
 *
 * Events are the mirror's (put, delete, synced) and RUN: decide now. Actions are writes for one transaction; the core has made them in its
 * own state already, so that what follows in the same step sees them. So the order for a shell is:
 *   1. feed events as they come;
 *   2. at the end of a round, while it leads, the state is synced and none of its transactions is under way: RUN;
 *   3. send the actions as one transaction; RUN again only when the mirror has told its revision;
 *   4. when its outcome is a refusal or unknown: make sure that it cannot happen later (take the leadership anew), and start over with a new core.
 * A RUN on a settled state gives no actions. `more`: there was too much for one transaction; RUN again after this one.
 *
 * Ownership: actions belong to the caller's sched_actions, reused from step to step. Threads: none. Times: Unix ms, monotonic as far as the shell can
 * make them. */
#ifndef ORCA_SCHEDULER_SCHED_CORE_H
#define ORCA_SCHEDULER_SCHED_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/spec/ids.h"
#include "orca-scheduler/sched_state.h"

#define SCHED_MAX_ACTIONS 512u  /* writes of one step */
#define SCHED_MAX_HISTORY 5000u /* events that are kept */

enum sched_event_kind { SCHED_EVENT_PUT, SCHED_EVENT_DELETE, SCHED_EVENT_SYNCED, SCHED_EVENT_RUN };

struct sched_event {
  enum sched_event_kind kind;
  const char *key;      /* PUT, DELETE */
  const uint8_t *value; /* PUT */
  size_t len;
  int64_t wall_ms; /* RUN: the clock on the wall, for schedules; 0: the same as now */
};

enum sched_action_kind { SCHED_ACTION_PUT, SCHED_ACTION_DELETE };

struct sched_action {
  enum sched_action_kind kind;
  char key[KEY_MAX];
  uint8_t *value; /* PUT; owned */
  size_t len;
};

struct sched_actions {
  struct sched_action *list;
  size_t count, size;
  int64_t next_ms; /* RUN again at this time at the latest; ROLLOUT_NEVER */
  bool more;
};
void sched_actions_fini(struct sched_actions *actions);

struct sched_core;
struct sched_core *sched_core_new(void);
void sched_core_free(struct sched_core *core);
/* Where time zones come from: without it only UTC is known. */
void sched_core_zones(struct sched_core *core, struct zone *(*load)(const char *name, struct err *err));
/* A core of its own with the same state, to plan with (plan.h): no rollout in it runs out of time. NULL: no memory. */
struct sched_core *sched_core_copy(const struct sched_core *core, int64_t now_ms, struct err *err);
const struct sched_state *sched_core_state(const struct sched_core *core); /* to look at */

/* -1: PUT or DELETE of something malformed (it is as if it had not come), or ERR_MEMORY: the core must be replaced. */
int sched_core_step(struct sched_core *core, const struct sched_event *event, int64_t now_ms, struct sched_actions *actions, struct err *err);

#endif
