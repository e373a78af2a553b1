/* The next step of one service: what becomes of each of its instances, and of its rollout.
 *
 * A pure function of what the service wants, its rollout so far, its instances and the time. It is asked again whenever one of them
 * changes or the returned time has come; asked again without a change it answers with nothing to do.
 *
 *   state         leaves it when                                             for
 *   PROGRESSING   all wanted are available, nothing else is un-STOPped       COMPLETE
 *                 failed, with a stable revision to go back to               ROLLING_BACK
 *                 failed, without                                            FAILED
 *   FAILED        all wanted are available after all                         COMPLETE
 *   ROLLING_BACK  all of the stable revision are available, nothing else     ROLLED_BACK
 *   any           the service wants another revision or generation           PROGRESSING
 * A change of the count alone leaves COMPLETE and ROLLED_BACK as they are.
 *
 * Invariants, while replicas are above 0 and the strategy is rolling (n = wanted count):
 *   - surge: at most n + max_surge instances are not STOPped; nothing is created beyond it. Stop-first: at most n exist at all;
 *   - budget: an available instance is let go only while n - max_unavailable others are available (stop-first: n - max(1, max_unavailable)); one that
 *     is not available only when that does not eat into what the new ones still owe;
 *   - an instance never goes back: RUN → DRAIN → STOP → deleted.
 * Available: RUN, ready, and ready for min_ready of its own revision.
 * Times: Unix ms; durations ms. Threads: none. */
#ifndef ORCA_SCHEDULER_ROLLOUT_H
#define ORCA_SCHEDULER_ROLLOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/model.pb-c.h"

#define ROLLOUT_TEXT 320
#define ROLLOUT_NEVER INT64_MAX
#define ROLLOUT_CRASHES 5u  /* restarts of a never available instance that fail a rollout */
#define ROLLOUT_FAILURES 3u /* the same for one that can't even be made */

enum rollout_fate { ROLLOUT_KEEP, ROLLOUT_DRAIN, ROLLOUT_STOP, ROLLOUT_DELETE };

struct rollout_instance {
  uint64_t number, revision, generation;
  Model__Desired desired;
  int64_t desired_since_ms;
  bool placed;      /* it has a node */
  bool node_exists; /* and the node is registered */
  bool reported;    /* its agent has said something of it */
  bool running, ready, drained, cannot_start;
  bool held; /* it waits for a secret that is missing: nobody's time runs out until that is set */
  uint32_t restarts;
  int64_t ready_since_ms; /* of the present readiness; when ready */
  int64_t first_ready_ms; /* 0: was never ready */
  bool was_available;     /* has been available at some time: what crashes after that is not its revision's fault alone */
  uint64_t min_ready_ms;  /* of its own revision */
  uint64_t drain_limit_ms;
  const char *detail; /* what is known of its trouble; borrowed; may be NULL */
  /* Answers. */
  enum rollout_fate fate;
  const char *why; /* of the fate: a literal, or the output's old_why */
};

struct rollout_policy {
  Model__DeployStrategy strategy;
  uint32_t max_unavailable, max_surge;
  uint64_t timeout_ms;
  bool auto_rollback;
  bool stop_first; /* binds a host port or a volume */
};

struct rollout_input {
  bool exists; /* the service; false: everything goes */
  uint64_t revision, generation;
  uint32_t replicas;
  bool stopped;
  bool revision_known, stable_known; /* their records are there */
  struct rollout_policy policy, stable_policy;
  const char *waiting;     /* "waiting for shop/db", NULL when nothing is waited for; borrowed */
  bool waits_for_held;     /* and that one waits for a secret */
  int64_t watched_from_ms; /* since when this scheduler has been there: nobody's time runs out while none is */
};

/* What a Rollout record says, and will say. All zero: there is none yet. */
struct rollout {
  Model__RolloutState state;
  uint64_t revision, generation, stable_revision, stable_generation;
  int64_t started_ms, progress_ms;
  bool held;
  char reason[ROLLOUT_TEXT], phase[ROLLOUT_TEXT];
};

enum rollout_event { ROLLOUT_STARTED, ROLLOUT_COMPLETED, ROLLOUT_HAS_FAILED, ROLLOUT_GOES_BACK, ROLLOUT_WENT_BACK };
#define ROLLOUT_EVENTS 4

struct rollout_output {
  uint32_t create; /* new instances of create_revision */
  uint64_t create_revision, create_generation;
  bool changed;    /* the rollout is to be written */
  int64_t next_ms; /* ask again then; ROLLOUT_NEVER */
  enum rollout_event events[ROLLOUT_EVENTS];
  size_t event_count;
  char old_why[ROLLOUT_TEXT]; /* why what is not wanted any more goes */
};

/* list is in order of numbers. rollout is read and written. */
void rollout_step(const struct rollout_input *in, struct rollout *rollout, struct rollout_instance *list, size_t count, int64_t now_ms,
                  struct rollout_output *out);

/* Available at now_ms, by the definition above. */
bool rollout_available(const struct rollout_instance *instance, int64_t now_ms);

#endif
