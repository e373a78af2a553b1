/* One probe of one container: when to try, and what the results mean. A pure state machine; times are loop times in ns.
 *
 *   WAITING ── time ──▶ TRYING ── result ──▶ WAITING     next try at next_at
 *                          └── result that ends it ──▶ OVER  (a startup probe that has passed)
 *
 * A probe that waits for a first success (startup, readiness) tries soon at first: 20, 50, 100, 200, 500 ms … after it began, so that a container
 * that is ready at once is seen at once. Failures of these early tries, but for the very first, count for nothing: a slow starter has the patience
 * that its spec gives it (failure_threshold × interval, as Kubernetes counts it) and no less. All else happens on a grid of the probe's own:
 * multiples of the interval, shifted by a hash of the instance, so that thousands of probes are spread out and stay so. Threads: none. */
#ifndef ORCA_KEEPER_PROBE_H
#define ORCA_KEEPER_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#define KEEPER_NEVER INT64_MAX

enum keeper_probe_kind { KEEPER_STARTUP, KEEPER_READINESS, KEEPER_LIVENESS, KEEPER_PROBE_KINDS };

struct keeper_probe_rules {
  int64_t interval, timeout, initial_delay;      /* ns; interval and timeout above 0 */
  uint32_t failure_threshold, success_threshold; /* above 0 */
};

enum keeper_probe_state { KEEPER_PROBE_WAITING, KEEPER_PROBE_TRYING, KEEPER_PROBE_OVER };
enum keeper_probe_opinion { KEEPER_UNDECIDED, KEEPER_PASSES, KEEPER_FAILS };

struct keeper_probe {
  struct keeper_probe_rules rules;
  enum keeper_probe_kind kind;
  enum keeper_probe_state state;
  enum keeper_probe_opinion opinion;
  int64_t base;                 /* when the first try is due at the earliest */
  int64_t phase;                /* of its grid */
  int64_t next_at;              /* WAITING: the next try; KEEPER_NEVER otherwise */
  int64_t regular_from;         /* the grid is used from here on */
  bool regular;                 /* the try that is planned or under way is one of the grid */
  uint32_t early;               /* tries made in the beginning */
  uint32_t failures, successes; /* in a row */
};

enum keeper_probe_event { KEEPER_PROBE_TIME, KEEPER_PROBE_SUCCESS, KEEPER_PROBE_FAILURE };

/* started: when its container started (may be long ago, or slightly ahead). seed: a hash of the instance. */
void keeper_probe_begin(struct keeper_probe *p, enum keeper_probe_kind kind, const struct keeper_probe_rules *rules, int64_t started, uint64_t seed,
                        int64_t now);

struct keeper_probe_step {
  bool try_now; /* make a try; its result is the next event */
  bool changed; /* the opinion is another */
  bool counted; /* a failure that counts */
};
/* TIME before next_at, or a result that nobody waits for, does nothing. */
struct keeper_probe_step keeper_probe_step(struct keeper_probe *p, enum keeper_probe_event event, int64_t now);

#endif
