/* A random history of a scheduler: numbers from a seed, clocks, a core and its store, its story, and what is said where something does not hold.
 * ORCA_SEEDS=N runs the first N, ORCA_SEED=S that one, with its story on stderr. Ownership: history_fini frees what history_init made.
 * Threads: one. */
#ifndef ORCA_TESTS_UNIT_SCHEDULER_RANDOM_HISTORY_H
#define ORCA_TESTS_UNIT_SCHEDULER_RANDOM_HISTORY_H

#include <inttypes.h>

#include "tests/unit/scheduler/core_rig.h"
#include "tests/unit/scheduler/xorshift.h"

#define NEVER INT64_MAX

struct history {
  struct rig rig;
  uint64_t rng;
  unsigned long seed;
  bool faults, story;
  int64_t now;          /* from 0 on, whatever is done to the clocks; history_go_to */
  int64_t wall, base;   /* what the clock on the wall and the scheduler's are ahead of it: the scheduler's is read from the wall when it begins */
  int64_t misled_until; /* it can't tell since when something is so, after the clock was set */
};

static inline uint64_t rnd(struct history *h, uint64_t below) {
  uint64_t x = xorshift64(&h->rng);
  return below ? (x * UINT64_C(0x2545F4914F6CDD1D) >> 11) % below : 0;
}

static inline bool chance(struct history *h, unsigned percent) {
  return rnd(h, 100) < percent;
}

/* A line of the story, when it is told. */
void say(const struct history *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Says where in which history, and fails the test: CHECK. */
void history_fails(const struct history *h, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#define CHECK(h, cond, ...)                                                                                                                          \
  do {                                                                                                                                               \
    if (!(cond))                                                                                                                                     \
      history_fails(h, __FILE__, __LINE__, __VA_ARGS__);                                                                                             \
  } while (0)

static inline int64_t history_wall(const struct history *h) {
  return h->now + h->wall;
}

static inline void history_go_to(struct history *h, int64_t now) {
  h->now = now;
  h->rig.now = now + h->base;
}

static inline void earlier(int64_t *next, int64_t at) {
  if (at < *next)
    *next = at;
}

/* The clock on the wall says first_ms, and the store is empty. No scheduler has begun yet: history_start_over. */
void history_init(struct history *h, unsigned long seed, int64_t first_ms, size_t most_records);
void history_fini(struct history *h);
/* When the scheduler wants to decide again, at the latest. */
int64_t history_next_decision(const struct history *h);
/* To what comes first: next, the scheduler's next decision, or until. */
void history_go_on(struct history *h, int64_t next, int64_t until);
/* Decides. False: there is nothing to do. */
bool history_decide(struct history *h);
/* A scheduler dies, and another begins. If the clock was set meanwhile, that misleads it for so long. */
void history_start_over(struct history *h, int64_t misled_ms);
/* So many of them, or those that the environment asks for. */
void histories(void (*one)(unsigned long seed), unsigned long count);

#endif
