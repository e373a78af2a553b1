/* When to try again: at once the first time, then 100 ms doubling to 60 s; forgotten after 60 s of running well.
 * Threads: pure functions of the struct. Times: ns. */
#ifndef ORCA_AGENT_BACKOFF_H
#define ORCA_AGENT_BACKOFF_H

#include <stdint.h>

#define AGENT_BACKOFF_FIRST INT64_C(100000000)
#define AGENT_BACKOFF_MAX INT64_C(60000000000)
#define AGENT_BACKOFF_RESET INT64_C(60000000000)

struct agent_backoff {
  unsigned failures; /* in a row */
};

/* A container ended after having run for ran_ns: how long to wait before its next start. */
int64_t agent_backoff_crash(struct agent_backoff *b, int64_t ran_ns);
/* Something could not be done (create, pull): never at once, from `first` on. */
int64_t agent_backoff_failure(struct agent_backoff *b, int64_t first);

#endif
