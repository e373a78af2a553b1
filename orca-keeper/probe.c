#include "orca-keeper/probe.h"

#include "common/loop.h"

/* Early tries, after `base`. Then doubling up to the interval. */
static const int64_t early_at[] = {20 * NS_PER_MS, 50 * NS_PER_MS, 100 * NS_PER_MS, 200 * NS_PER_MS, 500 * NS_PER_MS};
#define EARLY (sizeof early_at / sizeof *early_at)
#define EARLY_MAX 12u /* 500 ms doubled seven times is a minute */

static bool waits_for_success(const struct keeper_probe *p) {
  return p->kind != KEEPER_LIVENESS && p->opinion == KEEPER_UNDECIDED;
}

/* The first point of the grid at or after `at`. */
static int64_t on_grid(const struct keeper_probe *p, int64_t at) {
  int64_t interval = p->rules.interval, past = (at - p->phase) % interval;
  if (past < 0)
    past += interval;
  return past ? at + interval - past : at;
}

static int64_t early_offset(uint32_t n) {
  return n < EARLY ? early_at[n] : early_at[EARLY - 1] << (n - EARLY + 1);
}

static void plan_next(struct keeper_probe *p, int64_t now) {
  /* Results that come late (a timeout longer than the interval) don't pile tries up. */
  int64_t regular = on_grid(p, now + 1 > p->regular_from ? now + 1 : p->regular_from);
  p->next_at = regular;
  p->regular = true;
  while (waits_for_success(p) && p->early < EARLY_MAX) {
    int64_t at = p->base + early_offset(p->early);
    if (at > now) {
      if (at < regular) {
        p->next_at = at;
        p->regular = false;
      }
      return;
    }
    p->early++;
  }
}

void keeper_probe_begin(struct keeper_probe *p, enum keeper_probe_kind kind, const struct keeper_probe_rules *rules, int64_t started, uint64_t seed,
                        int64_t now) {
  *p = (struct keeper_probe){.rules = *rules, .kind = kind};
  p->opinion = kind == KEEPER_LIVENESS ? KEEPER_PASSES : KEEPER_UNDECIDED;
  /* The kinds of one instance are spread out as well. */
  uint64_t mixed = (seed + (uint64_t)kind) * UINT64_C(0x9E3779B97F4A7C15);
  p->phase = (int64_t)((mixed >> 1) % (uint64_t)rules->interval);
  int64_t due = started + rules->initial_delay;
  p->base = due > now ? due : now;
  if (kind == KEEPER_LIVENESS) {
    p->next_at = on_grid(p, p->base);
    p->regular = true;
  } else {
    /* Patience is counted from the beginning: the first try, then one in each interval after it. */
    p->regular_from = p->base + rules->interval;
    p->next_at = p->base + (rules->initial_delay > 0 && due > now ? 0 : early_at[0]);
  }
}

static struct keeper_probe_step succeeded(struct keeper_probe *p, int64_t now) {
  struct keeper_probe_step step = {0};
  p->failures = 0;
  if (p->successes < p->rules.success_threshold)
    p->successes++;
  if (p->opinion != KEEPER_PASSES && p->successes >= p->rules.success_threshold) {
    p->opinion = KEEPER_PASSES;
    step.changed = true;
  }
  if (p->kind == KEEPER_STARTUP && p->opinion == KEEPER_PASSES) {
    p->state = KEEPER_PROBE_OVER;
    p->next_at = KEEPER_NEVER;
    return step;
  }
  if (step.changed)
    p->regular_from = now;
  plan_next(p, now);
  return step;
}

static struct keeper_probe_step failed(struct keeper_probe *p, int64_t now) {
  struct keeper_probe_step step = {0};
  p->successes = 0;
  step.counted = p->regular || p->failures == 0;
  if (step.counted) {
    if (p->failures < p->rules.failure_threshold)
      p->failures++;
    if (p->opinion != KEEPER_FAILS && p->failures >= p->rules.failure_threshold) {
      p->opinion = KEEPER_FAILS;
      step.changed = true;
    }
  }
  plan_next(p, now);
  return step;
}

struct keeper_probe_step keeper_probe_step(struct keeper_probe *p, enum keeper_probe_event event, int64_t now) {
  struct keeper_probe_step nothing = {0};
  switch (event) {
  case KEEPER_PROBE_TIME:
    if (p->state != KEEPER_PROBE_WAITING || now < p->next_at)
      return nothing;
    p->state = KEEPER_PROBE_TRYING;
    p->next_at = KEEPER_NEVER;
    return (struct keeper_probe_step){.try_now = true};
  case KEEPER_PROBE_SUCCESS:
  case KEEPER_PROBE_FAILURE:
    if (p->state != KEEPER_PROBE_TRYING)
      return nothing;
    p->state = KEEPER_PROBE_WAITING;
    return event == KEEPER_PROBE_SUCCESS ? succeeded(p, now) : failed(p, now);
  }
  return nothing;
}
