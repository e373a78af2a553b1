/* A random history of a scheduler: numbers from a seed, clocks, a core and its store, its story, and what is said where something does not hold.
 * ORCA_SEEDS=N runs the first N, ORCA_SEED=S that one, with its story on stderr. Ownership: history_fini frees what history_init made. Threads: one.
 */
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

static inline void say(const struct history *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void say(const struct history *h, const char *fmt, ...) {
  if (!h->story)
    return;
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "%9.3f ", (double)h->now / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
}

static inline void history_fails(const struct history *h, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static inline void history_fails(const struct history *h, const char *file, int line, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "seed %lu at %.3f: ", h->seed, (double)h->now / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  _fail(file, line);
}

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

/* When the scheduler wants to decide again, at the latest. */
static inline int64_t history_next_decision(const struct history *h) {
  return h->rig.actions.next_ms == NEVER ? NEVER : h->rig.actions.next_ms - h->base;
}

/* Decides. False: there is nothing to do. */
static inline bool history_decide(struct history *h) {
  struct err err = {0};
  CHECK(h, rig_decide(&h->rig, history_wall(h), &err) == 0, "%s", err.msg);
  CHECK(h, h->rig.actions.count || !h->rig.actions.more, "nothing to do, and more");
  return h->rig.actions.count > 0;
}

/* A scheduler dies, and another begins. The clock that was set misleads it for so long. */
static inline void history_start_over(struct history *h, int64_t misled_ms) {
  if (h->base != h->wall)
    h->misled_until = h->now + misled_ms;
  h->base = h->wall;
  history_go_to(h, h->now);
  rig_begin(&h->rig, rnd(h, h->rig.count ? h->rig.count : 1));
  h->rig.actions.next_ms = h->rig.now; /* a new one decides at once */
}

/* The clock on the wall says first_ms, and the store is empty. No scheduler has begun yet. */
static inline void history_init(struct history *h, unsigned long seed, int64_t first_ms, size_t most_records) {
  *h = (struct history){.rng = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15), .seed = seed, .story = getenv("ORCA_SEED") != NULL};
  h->wall = h->base = first_ms;
  rig_init(&h->rig, first_ms, most_records);
  for (int i = 0; i < 4; i++) /* neighbours among the seeds part */
    rnd(h, 2);
}

static inline void history_fini(struct history *h) {
  rig_fini(&h->rig);
}

static inline void histories(void (*one)(unsigned long seed), unsigned long count) {
  const char *only = getenv("ORCA_SEED"), *many = getenv("ORCA_SEEDS");
  if (only) {
    one(strtoul(only, NULL, 10));
    return;
  }
  count = many ? strtoul(many, NULL, 10) : count;
  for (unsigned long seed = 0; seed < count; seed++)
    one(seed);
}

#endif
