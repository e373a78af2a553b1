#include "orca-agent/backoff.h"

static int64_t doubled(int64_t first, unsigned times) {
  int64_t delay = first;
  while (times-- && delay < AGENT_BACKOFF_MAX)
    delay *= 2;
  return delay < AGENT_BACKOFF_MAX ? delay : AGENT_BACKOFF_MAX;
}

int64_t agent_backoff_crash(struct agent_backoff *b, int64_t ran_ns) {
  if (ran_ns >= AGENT_BACKOFF_RESET)
    b->failures = 0;
  unsigned before = b->failures++;
  return before == 0 ? 0 : doubled(AGENT_BACKOFF_FIRST, before - 1);
}

int64_t agent_backoff_failure(struct agent_backoff *b, int64_t first) {
  return doubled(first, b->failures++);
}
