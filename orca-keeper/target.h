/* A running container under up to three probes → one verdict. Pure; times are loop times in ns.
 *
 *   startup    at first alone; until it has passed the others rest. Failed: the container is to be restarted.
 *   readiness  started, and it passes. Without one: ready as soon as it has started.
 *   liveness   after failure_threshold failures in a row: restart. Nothing is probed after that: a restarted container is another target.
 *
 * `known`: the verdict says something. A container that has just started is known not to be ready. Of one that may have run under another keeper
 * before (this one was restarted) nothing is said until its probes have decided: the agent goes on with the last verdict meanwhile, and nobody's
 * traffic is cut off for a restart of ours. Threads: none. */
#ifndef ORCA_KEEPER_TARGET_H
#define ORCA_KEEPER_TARGET_H

#include "orca-keeper/probe.h"

#define KEEPER_REASON 256
#define KEEPER_FRESH_NS INT64_C(5000000000) /* younger than this: seen from its beginning */

struct keeper_verdict {
  bool known, started, ready, live;
  char reason[KEEPER_REASON]; /* of the last failure that counted, "readiness: http 503 from /healthz"; "" when all is well */
};

struct keeper_target {
  bool has[KEEPER_PROBE_KINDS];
  struct keeper_probe_rules rules[KEEPER_PROBE_KINDS];
  struct keeper_probe probes[KEEPER_PROBE_KINDS];
  bool active[KEEPER_PROBE_KINDS];
  int64_t started;
  uint64_t seed;
  bool fresh;
  struct keeper_verdict verdict;
};

struct keeper_target_step {
  unsigned tries;  /* bit k: make a try of kind k */
  bool changed;    /* the verdict is another (and known) */
  int64_t next_at; /* TIME is due then; KEEPER_NEVER */
};

/* rules[k] NULL: no such probe. started: when its container started. news: the agent told of it as something new, not in a list of all there is. */
struct keeper_target_step keeper_target_begin(struct keeper_target *t, const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS],
                                              int64_t started, bool news, uint64_t seed, int64_t now);
struct keeper_target_step keeper_target_time(struct keeper_target *t, int64_t now);
/* The result of a try. reason: of a failure, "http 503 from /healthz". */
struct keeper_target_step keeper_target_result(struct keeper_target *t, enum keeper_probe_kind kind, bool success, const char *reason, int64_t now);

const char *keeper_probe_name(enum keeper_probe_kind kind); /* "readiness" */

#endif
