#include "tests/unit/scheduler/random_history.h"

void say(const struct history *h, const char *fmt, ...) {
  if (!h->story)
    return;
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "%9.3f ", (double)h->now / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
}

void history_fails(const struct history *h, const char *file, int line, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "seed %lu at %.3f: ", h->seed, (double)h->now / 1000);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  _fail(file, line);
}

int64_t history_next_decision(const struct history *h) {
  return h->rig.actions.next_ms == NEVER ? NEVER : h->rig.actions.next_ms - h->base;
}

void history_go_on(struct history *h, int64_t next, int64_t until) {
  earlier(&next, history_next_decision(h));
  earlier(&next, until);
  if (next > h->now)
    history_go_to(h, next);
}

bool history_decide(struct history *h) {
  struct err err = {0};
  CHECK(h, rig_decide(&h->rig, history_wall(h), &err) == 0, "%s", err.msg);
  CHECK(h, h->rig.actions.count || !h->rig.actions.more, "nothing to do, and more");
  return h->rig.actions.count > 0;
}

void history_start_over(struct history *h, int64_t misled_ms) {
  if (h->base != h->wall)
    h->misled_until = h->now + misled_ms;
  h->base = h->wall;
  history_go_to(h, h->now);
  rig_begin(&h->rig, rnd(h, h->rig.count ? h->rig.count : 1));
  h->rig.actions.next_ms = h->rig.now; /* a new one decides at once */
}

void history_init(struct history *h, unsigned long seed, int64_t first_ms, size_t most_records) {
  *h = (struct history){.rng = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15), .seed = seed, .story = getenv("ORCA_SEED") != NULL};
  h->wall = h->base = first_ms;
  rig_init(&h->rig, first_ms, most_records);
  for (int i = 0; i < 4; i++) /* neighbours among the seeds part */
    rnd(h, 2);
}

void history_fini(struct history *h) {
  rig_fini(&h->rig);
}

void histories(void (*one)(unsigned long seed), unsigned long count) {
  const char *only = getenv("ORCA_SEED"), *many = getenv("ORCA_SEEDS");
  if (only) {
    one(strtoul(only, NULL, 10));
    return;
  }
  count = many ? strtoul(many, NULL, 10) : count;
  for (unsigned long seed = 0; seed < count; seed++)
    one(seed);
}
