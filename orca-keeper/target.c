#include "orca-keeper/target.h"

#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"

#define SPREAD_NS INT64_C(500000000)

const char *keeper_probe_name(enum keeper_probe_kind kind) {
  switch (kind) {
  case KEEPER_STARTUP:
    return "startup";
  case KEEPER_READINESS:
    return "readiness";
  case KEEPER_LIVENESS:
    return "liveness";
  case KEEPER_PROBE_KINDS:
    break;
  }
  return "probe";
}

static void activate(struct keeper_target *t, enum keeper_probe_kind kind, int64_t now) {
  if (!t->has[kind] || t->active[kind])
    return;
  t->active[kind] = true;
  keeper_probe_begin(&t->probes[kind], kind, &t->rules[kind], t->started, t->seed, now);
}

static enum keeper_probe_opinion opinion(const struct keeper_target *t, enum keeper_probe_kind kind) {
  if (!t->has[kind])
    return KEEPER_PASSES;
  return t->active[kind] ? t->probes[kind].opinion : KEEPER_UNDECIDED;
}

/* What the probes say together. The reason is kept by the caller. */
static bool judge(struct keeper_target *t, int64_t now) {
  struct keeper_verdict *v = &t->verdict;
  struct keeper_verdict before = *v;
  enum keeper_probe_opinion startup = opinion(t, KEEPER_STARTUP);
  v->started = startup == KEEPER_PASSES;
  if (v->started) {
    activate(t, KEEPER_READINESS, now);
    activate(t, KEEPER_LIVENESS, now);
  }
  enum keeper_probe_opinion readiness = opinion(t, KEEPER_READINESS);
  bool liveness_failed = t->active[KEEPER_LIVENESS] && t->probes[KEEPER_LIVENESS].opinion == KEEPER_FAILS;
  v->live = startup != KEEPER_FAILS && !liveness_failed;
  v->ready = v->started && v->live && readiness == KEEPER_PASSES;
  v->known = t->fresh || !v->live || (v->started && readiness != KEEPER_UNDECIDED);
  if (v->ready && v->live && (!before.ready || !before.known))
    v->reason[0] = 0;
  return v->known && (!before.known || v->started != before.started || v->ready != before.ready || v->live != before.live);
}

static struct keeper_target_step finish(struct keeper_target *t, bool changed, unsigned tries) {
  struct keeper_target_step step = {.changed = changed, .tries = tries, .next_at = KEEPER_NEVER};
  if (!t->verdict.live)
    return step; /* it is to be restarted: another target */
  for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
    if (t->active[k] && t->probes[k].next_at < step.next_at)
      step.next_at = t->probes[k].next_at;
  return step;
}

struct keeper_target_step keeper_target_begin(struct keeper_target *t, const struct keeper_probe_rules *const rules[KEEPER_PROBE_KINDS],
                                              int64_t started, bool news, uint64_t seed, int64_t now) {
  *t = (struct keeper_target){.started = started, .seed = seed};
  t->fresh = news && now - started < KEEPER_FRESH_NS;
  t->verdict.live = true;
  t->verdict.known = t->fresh;
  for (int k = 0; k < KEEPER_PROBE_KINDS; k++)
    if (rules[k]) {
      t->has[k] = true;
      t->rules[k] = *rules[k];
    }
  /* Those that have run for long all come at once, after a restart of the keeper: spread them out. */
  int64_t first = t->fresh ? now : now + (int64_t)(seed % (uint64_t)SPREAD_NS);
  activate(t, KEEPER_STARTUP, first);
  bool changed = judge(t, first);
  return finish(t, changed, 0);
}

struct keeper_target_step keeper_target_time(struct keeper_target *t, int64_t now) {
  unsigned tries = 0;
  for (int k = 0; k < KEEPER_PROBE_KINDS && t->verdict.live; k++)
    if (t->active[k] && keeper_probe_step(&t->probes[k], KEEPER_PROBE_TIME, now).try_now)
      tries |= 1u << k;
  return finish(t, false, tries);
}

struct keeper_target_step keeper_target_result(struct keeper_target *t, enum keeper_probe_kind kind, bool success, const char *reason, int64_t now) {
  if (!t->active[kind] || !t->verdict.live)
    return finish(t, false, 0);
  bool had_reason = t->verdict.reason[0] != 0;
  struct keeper_probe_step step = keeper_probe_step(&t->probes[kind], success ? KEEPER_PROBE_SUCCESS : KEEPER_PROBE_FAILURE, now);
  /* The first try of a fresh container fails too often to be worth a word. */
  bool worth_telling = step.counted && (step.changed || t->probes[kind].failures > 1);
  if (!success && worth_telling) {
    snprintf(t->verdict.reason, sizeof t->verdict.reason, "%s: %.220s", keeper_probe_name(kind), reason);
    pb_make_utf8(t->verdict.reason);
  }
  bool changed = judge(t, now);
  /* Why it is not ready yet is news, once. */
  if (!success && worth_telling && !had_reason && t->verdict.known && !t->verdict.ready)
    changed = true;
  return finish(t, changed, 0);
}
