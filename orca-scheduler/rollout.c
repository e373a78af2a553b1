#include "orca-scheduler/rollout.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct step {
  const struct rollout_input *in;
  struct rollout *rollout;
  struct rollout_instance *list;
  size_t count;
  int64_t now;
  struct rollout_output *out;
  /* What is wanted just now. */
  uint64_t revision, generation;
  uint32_t wanted;
  const struct rollout_policy *policy;
};

static int64_t after(int64_t from, uint64_t delay) {
  int64_t at;
  if (delay > INT64_MAX || __builtin_add_overflow(from, (int64_t)delay, &at))
    return ROLLOUT_NEVER;
  return at;
}

static void wake(struct step *s, int64_t at) {
  if (at > s->now && at < s->out->next_ms)
    s->out->next_ms = at;
}

static void decide(struct rollout_instance *i, enum rollout_fate fate, const char *why) {
  i->fate = fate;
  i->why = why;
}

static void tell(struct step *s, enum rollout_event event) {
  if (s->out->event_count < ROLLOUT_EVENTS)
    s->out->events[s->out->event_count++] = event;
}

/* ---- one instance ---- */

static bool ready_long_enough(const struct rollout_instance *i, int64_t now) {
  return i->ready && after(i->ready_since_ms, i->min_ready_ms) <= now;
}

bool rollout_available(const struct rollout_instance *i, int64_t now) {
  return i->desired == MODEL__DESIRED__DESIRED_RUN && ready_long_enough(i, now);
}

/* Runs, and is to go on: what this step has not let go of. */
static bool runs(const struct rollout_instance *i) {
  return i->desired == MODEL__DESIRED__DESIRED_RUN && i->fate == ROLLOUT_KEEP;
}

static bool drains(const struct rollout_instance *i) {
  return i->fate == ROLLOUT_DRAIN || (i->desired == MODEL__DESIRED__DESIRED_DRAIN && i->fate == ROLLOUT_KEEP);
}

static bool is_wanted(const struct step *s, const struct rollout_instance *i) {
  return i->revision == s->revision && i->generation == s->generation;
}

/* The way out. What was never placed has nothing to drain or stop; what does not run is in no route table that matters. */
static void let_go(struct rollout_instance *i, const char *why) {
  if (!i->placed)
    decide(i, ROLLOUT_DELETE, why);
  else if (!i->reported || !i->running)
    decide(i, ROLLOUT_STOP, why);
  else
    decide(i, ROLLOUT_DRAIN, why);
}

static void carry_on(struct step *s, struct rollout_instance *i) {
  if (i->desired == MODEL__DESIRED__DESIRED_STOP) {
    if (!i->placed || !i->reported || !i->node_exists)
      decide(i, ROLLOUT_DELETE, "gone");
  } else if (i->desired == MODEL__DESIRED__DESIRED_DRAIN) {
    int64_t limit = after(i->desired_since_ms, i->drain_limit_ms);
    if (!i->placed)
      decide(i, ROLLOUT_DELETE, "gone");
    else if (!i->reported || !i->running)
      decide(i, ROLLOUT_STOP, "not running any more");
    else if (i->drained)
      decide(i, ROLLOUT_STOP, "drained");
    else if (limit <= s->now)
      decide(i, ROLLOUT_STOP, "still had requests when its time to drain was over");
    else
      wake(s, limit);
  } else if (i->ready && !ready_long_enough(i, s->now)) {
    wake(s, after(i->ready_since_ms, i->min_ready_ms));
  }
}

/* ---- the target ---- */

static void choose_wanted(struct step *s) {
  bool back = s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
  s->revision = back ? s->rollout->stable_revision : s->in->revision;
  s->generation = back ? s->rollout->stable_generation : s->in->generation;
  s->policy = back ? &s->in->stable_policy : &s->in->policy;
  s->wanted = s->in->stopped ? 0 : s->in->replicas;
}

static void retarget(struct step *s) {
  struct rollout *r = s->rollout;
  if (r->revision == s->in->revision && r->generation == s->in->generation)
    return;
  r->state = MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING;
  r->revision = s->in->revision;
  r->generation = s->in->generation;
  r->reason[0] = r->phase[0] = 0;
  r->started_ms = r->progress_ms = s->now;
  r->held = false;
  s->out->changed = true;
  tell(s, ROLLOUT_STARTED);
}

/* ---- failing ---- */

/* The last moment at which something moved: an instance became ready, was made, placed or let go of. */
static int64_t last_progress(struct step *s) {
  int64_t last = s->rollout->started_ms > s->rollout->progress_ms ? s->rollout->started_ms : s->rollout->progress_ms;
  if (s->in->watched_from_ms > last)
    last = s->in->watched_from_ms;
  for (size_t k = 0; k < s->count; k++) {
    const struct rollout_instance *i = &s->list[k];
    if (i->desired_since_ms > last)
      last = i->desired_since_ms;
  }
  return last < s->now ? last : s->now;
}

static void note_progress(struct step *s) {
  if (s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE || s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK)
    return;
  for (size_t k = 0; k < s->count; k++) {
    const struct rollout_instance *i = &s->list[k];
    if (is_wanted(s, i) && i->first_ready_ms > s->rollout->progress_ms && i->first_ready_ms <= s->now) {
      s->rollout->progress_ms = i->first_ready_ms;
      s->out->changed = true;
    }
  }
}

/* What waits for a secret waits for people, and so does what depends on it: its time begins anew when it need not any more. */
static void note_held(struct step *s) {
  bool held = false;
  for (size_t k = 0; k < s->count; k++) {
    const struct rollout_instance *i = &s->list[k];
    held |= (i->held || (s->in->waits_for_held && !i->placed)) && runs(i) && is_wanted(s, i);
  }
  if (held == s->rollout->held)
    return;
  s->rollout->held = held;
  if (!held)
    s->rollout->progress_ms = s->now;
  s->out->changed = true;
}

/* Ready for a moment between two crashes is not enough: a probe that comes early finds many a broken program alive. */
static bool hopeless(const struct rollout_instance *i) {
  return i->placed && !i->was_available && (i->restarts >= ROLLOUT_CRASHES || (i->cannot_start && i->restarts >= ROLLOUT_FAILURES));
}

static const char stopped_phase[] = "stopped";

/* Nor does its time run out while it is stopped. */
static void note_start(struct step *s) {
  if (s->in->stopped || strcmp(s->rollout->phase, stopped_phase) != 0)
    return;
  s->rollout->progress_ms = s->now;
  s->out->changed = true; /* and so will its phase */
}

static const struct rollout_instance *in_trouble(const struct step *s) {
  for (size_t k = 0; k < s->count; k++)
    if (runs(&s->list[k]) && is_wanted(s, &s->list[k]) && !rollout_available(&s->list[k], s->now))
      return &s->list[k];
  return NULL;
}

static bool has_failed(struct step *s, char why[ROLLOUT_TEXT]) {
  for (size_t k = 0; k < s->count; k++) {
    const struct rollout_instance *i = &s->list[k];
    if (!runs(i) || !is_wanted(s, i) || !hopeless(i))
      continue;
    snprintf(why, ROLLOUT_TEXT, "instance %" PRIu64 " %s (%" PRIu32 " tries)%s%.240s", i->number,
             i->cannot_start ? "cannot be started" : "goes on crashing", i->restarts, i->detail && *i->detail ? ": " : "",
             i->detail ? i->detail : "");
    return true;
  }
  if (s->count == 0 || s->rollout->held)
    return false;
  int64_t limit = after(last_progress(s), s->policy->timeout_ms);
  if (limit > s->now) {
    wake(s, limit);
    return false;
  }
  const struct rollout_instance *i = in_trouble(s);
  if (s->in->waiting)
    snprintf(why, ROLLOUT_TEXT, "no progress for %" PRIu64 " s: %.240s", s->policy->timeout_ms / 1000, s->in->waiting);
  else if (i && i->detail && *i->detail)
    snprintf(why, ROLLOUT_TEXT, "no progress for %" PRIu64 " s: instance %" PRIu64 ": %.240s", s->policy->timeout_ms / 1000, i->number, i->detail);
  else if (i)
    snprintf(why, ROLLOUT_TEXT, "no progress for %" PRIu64 " s: instance %" PRIu64 " is not %s", s->policy->timeout_ms / 1000, i->number,
             !i->placed   ? "placed"
             : i->running ? "ready"
                          : "running");
  else
    snprintf(why, ROLLOUT_TEXT, "no progress for %" PRIu64 " s", s->policy->timeout_ms / 1000);
  return true;
}

static void fail(struct step *s, const char *why) {
  struct rollout *r = s->rollout;
  bool back = s->in->policy.auto_rollback && r->stable_revision && r->stable_revision != r->revision && s->in->stable_known;
  r->state = back ? MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK : MODEL__ROLLOUT_STATE__ROLLOUT_FAILED;
  snprintf(r->reason, sizeof r->reason, "%s", why);
  s->out->changed = true;
  tell(s, back ? ROLLOUT_GOES_BACK : ROLLOUT_HAS_FAILED);
  choose_wanted(s);
}

/* ---- the moves ---- */

struct tally {
  uint32_t running, current, current_unavailable, available; /* RUN */
  uint32_t draining, existing, old_existing;                 /* existing: with what is STOPped and not yet gone */
  uint32_t others;                                           /* un-STOPped, and not of what is wanted */
};

static struct tally take_tally(const struct step *s) {
  struct tally t = {0};
  for (size_t k = 0; k < s->count; k++) {
    const struct rollout_instance *i = &s->list[k];
    bool available = rollout_available(i, s->now);
    if (i->fate != ROLLOUT_DELETE) {
      t.existing++;
      t.old_existing += !is_wanted(s, i);
    }
    if (drains(i)) {
      t.draining++;
      t.others++;
    } else if (runs(i)) {
      t.running++;
      t.available += available;
      t.others += !is_wanted(s, i);
      t.current += is_wanted(s, i);
      t.current_unavailable += is_wanted(s, i) && !available;
    }
  }
  return t;
}

/* Who goes first, among those that may: what was never placed, then what is not available, then what is neither wanted nor stable (the
 * remains of a rollout that was overtaken), then what has been ready for the shortest time, then, of the old, the oldest, and of the wanted, the
 * newest. */
static int value_of(const struct step *s, const struct rollout_instance *i) {
  int value = 0;
  if (i->placed)
    value += 8;
  if (rollout_available(i, s->now))
    value += 4;
  if (i->ready)
    value += 2;
  if (i->revision == s->rollout->stable_revision)
    value += 1;
  return value;
}

static bool less_valued(const struct step *s, const struct rollout_instance *i, const struct rollout_instance *than, bool of_wanted) {
  int a = value_of(s, i), b = value_of(s, than);
  if (a != b)
    return a < b;
  if (i->ready && !rollout_available(i, s->now) && i->ready_since_ms != than->ready_since_ms)
    return i->ready_since_ms > than->ready_since_ms;
  return of_wanted; /* the list is in order of numbers */
}

static struct rollout_instance *least_valued(struct step *s, bool of_wanted) {
  struct rollout_instance *least = NULL;
  for (size_t k = 0; k < s->count; k++) {
    struct rollout_instance *i = &s->list[k];
    if (!runs(i) || is_wanted(s, i) != of_wanted)
      continue;
    if (!least || less_valued(s, i, least, of_wanted))
      least = i;
  }
  return least;
}

static uint32_t minus(uint32_t a, uint32_t b) {
  return a > b ? a - b : 0;
}

static void let_all_go(struct step *s, bool wanted_too, const char *why) {
  for (size_t k = 0; k < s->count; k++)
    if (runs(&s->list[k]) && (wanted_too || !is_wanted(s, &s->list[k])))
      let_go(&s->list[k], why);
}

static const char *old_why(const struct step *s) {
  bool back = s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || s->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
  snprintf(s->out->old_why, sizeof s->out->old_why, back ? "rolled back to revision %" PRIu64 : "replaced by revision %" PRIu64, s->revision);
  return s->out->old_why;
}

/* Fewer are wanted than there are. */
static void shrink(struct step *s, uint32_t keep_available) {
  struct tally t = take_tally(s);
  while (t.current > s->wanted) {
    struct rollout_instance *i = least_valued(s, true);
    if (rollout_available(i, s->now) && t.available <= keep_available)
      return;
    let_go(i, s->in->stopped ? "the service is stopped" : "scaled down");
    t = take_tally(s);
  }
}

static void remove_old(struct step *s, uint32_t keep_available, uint32_t at_once) {
  const char *why = old_why(s);
  for (;;) {
    struct tally t = take_tally(s);
    struct rollout_instance *i = least_valued(s, false);
    if (!i)
      return;
    if (i->placed) {
      /* What the new ones still owe must be left to the old ones: ready again or not, they are all there is to go back to. */
      if (t.running <= (uint64_t)keep_available + t.current_unavailable)
        return;
      if (rollout_available(i, s->now) && (t.available <= keep_available || t.draining >= at_once))
        return;
    }
    let_go(i, why);
  }
}

static void move(struct step *s) {
  const struct rollout_policy *p = s->policy;
  if (s->wanted == 0) {
    let_all_go(s, true, s->in->stopped ? "the service is stopped" : "scaled down");
    return;
  }
  bool recreate = p->strategy == MODEL__DEPLOY_STRATEGY__RECREATE;
  bool one_by_one = p->stop_first && !recreate;
  /* Neither surge nor a gap allowed would never move: then one is surged, as the defaults say. */
  uint32_t unavailable = one_by_one && !p->max_unavailable ? 1 : p->max_unavailable;
  uint32_t surge = one_by_one ? 0 : p->max_surge || unavailable ? p->max_surge : 1;
  uint32_t keep = minus(s->wanted, unavailable);
  shrink(s, recreate ? 0 : keep);
  if (recreate) {
    let_all_go(s, false, old_why(s));
    struct tally t = take_tally(s);
    s->out->create = t.old_existing ? 0 : minus(s->wanted, t.existing); /* nor does it ever run beside itself */
    return;
  }
  uint32_t at_once = unavailable > surge ? unavailable : surge;
  remove_old(s, keep, at_once ? at_once : 1);
  struct tally t = take_tally(s);
  uint64_t room = (uint64_t)s->wanted + surge;
  uint64_t taken = one_by_one ? t.existing : (uint64_t)t.running + t.draining;
  uint32_t missing = minus(s->wanted, t.current);
  s->out->create = taken >= room ? 0 : room - taken < missing ? (uint32_t)(room - taken) : missing;
}

/* ---- how far it is ---- */

static void set_phase(struct step *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void set_phase(struct step *s, const char *fmt, ...) {
  char text[ROLLOUT_TEXT];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (strcmp(text, s->rollout->phase) == 0)
    return;
  memcpy(s->rollout->phase, text, sizeof text);
  s->out->changed = true;
}

static void conclude(struct step *s) {
  struct rollout *r = s->rollout;
  struct tally t = take_tally(s);
  bool done = t.current == s->wanted && t.current_unavailable == 0 && t.others == 0 && s->out->create == 0 && !s->in->stopped;
  if (r->state == MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE || r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK)
    return;
  if (done && r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK) {
    r->state = MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
    set_phase(s, "%s", "");
    s->out->changed = true;
    tell(s, ROLLOUT_WENT_BACK);
  } else if (done) {
    r->state = MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE;
    r->stable_revision = r->revision;
    r->stable_generation = r->generation;
    r->reason[0] = 0;
    set_phase(s, "%s", "");
    s->out->changed = true;
    tell(s, ROLLOUT_COMPLETED);
  } else if (s->in->stopped) {
    set_phase(s, "%s", stopped_phase);
  } else if (s->in->waiting && t.current_unavailable + s->out->create > 0) {
    set_phase(s, "%s", s->in->waiting);
  } else {
    uint32_t available = t.current - t.current_unavailable;
    if (available < s->wanted)
      set_phase(s, "%" PRIu32 " of %" PRIu32 " available", available, s->wanted);
    else
      set_phase(s, "%" PRIu32 " of %" PRIu32 " available, %" PRIu32 " old to go", available, s->wanted, t.others);
  }
}

void rollout_step(const struct rollout_input *in, struct rollout *rollout, struct rollout_instance *list, size_t count, int64_t now_ms,
                  struct rollout_output *out) {
  struct step s = {.in = in, .rollout = rollout, .list = list, .count = count, .now = now_ms, .out = out};
  *out = (struct rollout_output){.next_ms = ROLLOUT_NEVER};
  for (size_t k = 0; k < count; k++) {
    list[k].fate = ROLLOUT_KEEP;
    list[k].why = "";
    carry_on(&s, &list[k]);
  }
  if (!in->exists) {
    let_all_go(&s, true, "the service was removed");
    return;
  }
  if (!in->revision_known)
    return;
  retarget(&s);
  choose_wanted(&s);
  bool back = s.policy == &in->stable_policy;
  if (back && !in->stable_known)
    return;
  if (s.wanted)
    note_progress(&s);
  note_held(&s);
  note_start(&s);
  char why[ROLLOUT_TEXT];
  if (rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING && s.wanted && has_failed(&s, why))
    fail(&s, why);
  move(&s);
  conclude(&s);
  out->create_revision = s.revision;
  out->create_generation = s.generation;
}
