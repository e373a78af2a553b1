#include "orca-scheduler/job_core.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct step {
  const struct job_input *in;
  struct job_state *state;
  struct job_run *runs;
  size_t count;
  struct job_instance *instances;
  size_t instance_count;
  int64_t now, wall;
  struct job_output *out;
};

bool job_run_is_over(Model__RunState state) {
  return state != MODEL__RUN_STATE__RUN_PENDING && state != MODEL__RUN_STATE__RUN_RUNNING;
}

static int64_t after(int64_t from, uint64_t ms) {
  return ms > (uint64_t)(INT64_MAX / 2) || from > INT64_MAX / 2 ? INT64_MAX : from + (int64_t)ms;
}

static void wake(struct step *s, int64_t at) {
  if (at > s->now && at < s->out->next_ms)
    s->out->next_ms = at;
}

/* `at` is still to come; nothing waits for longer than `most`. */
static bool is_to_come(const struct step *s, int64_t at, int64_t most) {
  return at > s->now && at - s->now <= most;
}

static void tell(struct step *s, enum job_event_kind kind, uint64_t run) {
  if (s->out->event_count < JOB_EVENTS)
    s->out->events[s->out->event_count++] = (struct job_event){kind, run};
}

static void say(struct job_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct job_run *run, const char *fmt, ...) {
  char text[JOB_TEXT];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (strcmp(text, run->reason) == 0)
    return;
  memcpy(run->reason, text, sizeof text);
  run->changed = true;
}

static struct job_instance *instance_of(const struct step *s, const struct job_run *run) {
  for (size_t i = 0; run->instance && i < s->instance_count; i++)
    if (s->instances[i].number == run->instance)
      return &s->instances[i];
  return NULL;
}

/* Its agent may have started it, or be about to, and what it says of it not be here yet; when it can't be reached, not before it is back. */
static bool may_be_on_its_way(const struct step *s, const struct job_instance *i) {
  return i->unseen && (i->unreachable_ms || is_to_come(s, after(i->since_ms, JOB_UNSEEN_MS), JOB_UNSEEN_MS));
}

static bool may_run(const struct step *s, const struct job_instance *i) {
  if (i->ended || i->lost || i->drop)
    return false;
  return i->stopped ? i->placed && (i->reported || may_be_on_its_way(s, i)) : true;
}

static bool one_at_a_time(const struct step *s) {
  return s->in->rules.overlap != MODEL__OVERLAP__OVERLAP_ALLOW;
}

/* ---- runs ---- */

static void set_ended(struct step *s, struct job_run *run, Model__RunState state) {
  run->state = state;
  run->ended_ms = s->now;
  s->state->ended[state]++;
  if (state == MODEL__RUN_STATE__RUN_SUCCEEDED)
    s->state->last_success_ms = s->now;
  s->out->state_changed = true;
}

static void end(struct step *s, struct job_run *run, Model__RunState state, enum job_event_kind event) {
  set_ended(s, run, state);
  run->next_try_ms = 0;
  run->changed = true;
  tell(s, event, run->number);
}

/* The attempt came to nothing. The run has its reason. */
static void attempt_failed(struct step *s, struct job_run *run, bool timed_out) {
  if (run->attempts > s->in->rules.retries) {
    end(s, run, timed_out ? MODEL__RUN_STATE__RUN_TIMED_OUT : MODEL__RUN_STATE__RUN_FAILED, timed_out ? JOB_TIMED_OUT : JOB_FAILED);
    return;
  }
  uint64_t delay = JOB_RETRY_MAX_MS;
  if (run->attempts < 20 && (uint64_t)JOB_RETRY_MS << (run->attempts - (run->attempts > 0)) < delay)
    delay = (uint64_t)JOB_RETRY_MS << (run->attempts - (run->attempts > 0));
  run->state = MODEL__RUN_STATE__RUN_PENDING;
  run->instance = 0;
  run->next_try_ms = after(s->now, delay);
  run->changed = true;
  tell(s, JOB_RETRIED, run->number);
}

static void follow(struct step *s, struct job_run *run) {
  const struct job_instance *i = instance_of(s, run);
  uint64_t timeout = s->in->rules.timeout_ms;
  if (run->revision_gone && s->in->exists && !(i && i->placed)) {
    say(run, "its revision %" PRIu64 " is gone", run->revision);
    end(s, run, MODEL__RUN_STATE__RUN_FAILED, JOB_FAILED);
    return;
  }
  if (!i) {
    if (run->instance) { /* somebody has removed its record */
      say(run, "its instance %" PRIu64 " is gone", run->instance);
      attempt_failed(s, run, false);
    }
    return;
  }
  if (i->ended) {
    if (run->state != MODEL__RUN_STATE__RUN_RUNNING) /* too short to be seen running */
      tell(s, JOB_STARTED, run->number);
    run->exit_code = i->exit_code;
    run->exit_known = true;
    if (i->started_ms && !run->started_ms)
      run->started_ms = i->started_ms;
    run->changed = true;
    if (i->exit_code == 0) {
      say(run, "%s", "");
      end(s, run, MODEL__RUN_STATE__RUN_SUCCEEDED, JOB_SUCCEEDED);
      return;
    }
    if (i->detail && *i->detail)
      say(run, "%.255s", i->detail);
    else
      say(run, "exit code %" PRId32, i->exit_code);
    attempt_failed(s, run, false);
  } else if (i->lost) {
    say(run, "its node cannot be reached");
    attempt_failed(s, run, false);
  } else if (i->cannot_start && i->tries >= JOB_CANNOT_START) {
    say(run, "cannot be started: %.255s", i->detail ? i->detail : "");
    attempt_failed(s, run, false);
  } else if (i->placed && timeout && after(i->since_ms, timeout) <= s->now) {
    say(run, "ran into its timeout of %" PRIu64 " s", timeout / 1000);
    attempt_failed(s, run, true);
  } else {
    if (i->running && run->state != MODEL__RUN_STATE__RUN_RUNNING) {
      run->state = MODEL__RUN_STATE__RUN_RUNNING;
      run->changed = true;
      if (!run->started_ms)
        run->started_ms = i->started_ms ? i->started_ms : s->now;
      say(run, "%s", "");
      tell(s, JOB_STARTED, run->number);
    } else if (!i->running && run->state == MODEL__RUN_STATE__RUN_PENDING) {
      say(run, "%.255s", i->detail ? i->detail : "");
    }
    if (i->placed && timeout)
      wake(s, after(i->since_ms, timeout));
  }
}

static void stop_all(struct step *s, uint64_t before, const char *why) {
  for (size_t k = 0; k < s->count; k++) {
    struct job_run *run = &s->runs[k];
    if (job_run_is_over(run->state) || run->number >= before)
      continue;
    say(run, "%s", why);
    end(s, run, MODEL__RUN_STATE__RUN_STOPPED, JOB_STOPPED);
  }
}

static const struct job_run *live(const struct step *s) {
  for (size_t k = s->count; k-- > 0;)
    if (!job_run_is_over(s->runs[k].state))
      return &s->runs[k];
  return NULL;
}

/* ---- new runs ---- */

static struct job_run *new_run(struct step *s, int64_t scheduled_ms, size_t *room) {
  struct job_run *run = &s->runs[s->count++];
  (*room)--;
  if (!s->state->next_number)
    s->state->next_number = 1;
  *run = (struct job_run){.number = s->state->next_number++, .revision = s->in->revision, .scheduled_ms = scheduled_ms, .changed = true};
  s->out->state_changed = true;
  return run;
}

static size_t live_count(const struct step *s) {
  size_t count = 0;
  for (size_t k = 0; k < s->count; k++)
    count += !job_run_is_over(s->runs[k].state);
  return count;
}

static void skip(struct step *s, struct job_run *run, bool again, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void skip(struct step *s, struct job_run *run, bool again, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(run->reason, sizeof run->reason, fmt, ap);
  va_end(ap);
  set_ended(s, run, MODEL__RUN_STATE__RUN_SKIPPED);
  if (!again)
    tell(s, JOB_SKIPPED, run->number);
}

static void begin_run(struct step *s, int64_t scheduled_ms, uint64_t request, size_t *room) {
  const struct job_run *other = live(s);
  uint64_t running = other ? other->number : 0;
  size_t before = s->count, going_on = live_count(s);
  struct job_run *run = new_run(s, scheduled_ms, room);
  run->request = request;
  bool again = before && s->runs[before - 1].state == MODEL__RUN_STATE__RUN_SKIPPED;
  if (!request && going_on >= JOB_LIVE_MAX) {
    skip(s, run, again, "%zu runs still went on", going_on);
    return;
  }
  if (!running || s->in->rules.overlap == MODEL__OVERLAP__OVERLAP_ALLOW)
    return;
  if (s->in->rules.overlap == MODEL__OVERLAP__OVERLAP_REPLACE) {
    char why[JOB_TEXT];
    snprintf(why, sizeof why, "replaced by run %" PRIu64, run->number);
    stop_all(s, run->number, why);
  } else if (request) {
    say(run, "waits for run %" PRIu64 " to end", running);
  } else {
    skip(s, run, again, "run %" PRIu64 " still went on", running);
  }
}

/* The first tick after `from` (ms); 0 when there is none. */
static int64_t tick_after(const struct step *s, int64_t from) {
  int64_t next, seconds = from / 1000 - (from % 1000 < 0);
  if (!s->in->rules.scheduled || s->in->rules.error || !cron_next(&s->in->rules.cron, seconds, s->in->rules.offset, s->in->rules.offset_arg, &next))
    return 0;
  return next * 1000;
}

static void set_tick(struct step *s, int64_t last, int64_t next) {
  if (s->state->last_tick_ms == last && s->state->next_tick_ms == next)
    return;
  s->state->last_tick_ms = last;
  s->state->next_tick_ms = next;
  s->out->state_changed = true;
}

static bool is_far_ahead(const struct step *s, int64_t at) {
  return at > s->wall && at - s->wall > JOB_CLOCK_BACK;
}

static bool clock_was_wrong(const struct step *s) {
  const struct job_state *state = s->state;
  if (is_far_ahead(s, state->last_tick_ms))
    return true;
  /* No tick has been taken by it, but the next one was chosen: after the job came, or was changed. */
  return is_far_ahead(s, s->in->changed_ms) && state->next_tick_ms > s->wall &&
         state->next_tick_ms != tick_after(s, state->last_tick_ms > s->wall ? state->last_tick_ms : s->wall);
}

static void begin_schedule(struct step *s) {
  struct job_state *state = s->state;
  int64_t changed = s->in->changed_ms < s->wall ? s->in->changed_ms : s->wall;
  int64_t last = is_far_ahead(s, state->last_tick_ms) ? s->wall : state->last_tick_ms;
  set_tick(s, last, tick_after(s, last > changed ? last : changed));
}

static void set_error(struct step *s, const char *error) {
  if (strcmp(s->state->error, error) == 0)
    return;
  snprintf(s->state->error, sizeof s->state->error, "%s", error);
  s->out->state_changed = true;
}

static void schedule(struct step *s, size_t *room) {
  struct job_state *state = s->state;
  set_error(s, s->in->rules.scheduled && s->in->rules.error ? s->in->rules.error : "");
  if (s->in->suspended || !s->in->rules.scheduled || s->in->rules.error) {
    set_tick(s, state->last_tick_ms, 0);
    return;
  }
  if (!state->next_tick_ms || clock_was_wrong(s))
    begin_schedule(s);
  if (state->next_tick_ms && state->next_tick_ms <= s->wall) {
    if (!*room) {
      s->out->more = true;
      return;
    }
    int64_t due = state->next_tick_ms, next = tick_after(s, s->wall);
    set_tick(s, s->wall > due ? s->wall - s->wall % 1000 : due, next);
    begin_run(s, due, 0, room);
  }
  if (state->next_tick_ms)
    s->out->next_wall_ms = state->next_tick_ms;
}

/* ---- the job as a whole ---- */

/* What the state says is of an earlier job of that name, or of an earlier revision: from here on it is of this one. */
static void adopt(struct step *s) {
  struct job_state *state = s->state;
  if (state->created_ms != s->in->created_ms) {
    stop_all(s, UINT64_MAX, "the job was removed");
    state->created_ms = s->in->created_ms;
    state->handled = 0;
    state->first_number = state->next_number;
    state->last_tick_ms = state->next_tick_ms = state->last_success_ms = 0;
    memset(state->ended, 0, sizeof state->ended);
    state->revision = s->in->revision;
    s->out->state_changed = true;
  } else if (state->revision != s->in->revision) {
    state->revision = s->in->revision;
    state->next_tick_ms = 0;
    s->out->state_changed = true;
  }
}

static void requests(struct step *s, size_t *room) {
  struct job_state *state = s->state;
  if (s->in->suspended && state->handled < s->in->requested) {
    state->handled = s->in->requested;
    s->out->state_changed = true;
  }
  for (; state->handled < s->in->requested; state->handled++) {
    if (!*room) {
      s->out->more = true;
      return;
    }
    begin_run(s, 0, state->handled + 1, room);
    s->out->state_changed = true;
  }
}

/* Which of those that have none gets an instance now. */
static void give_instances(struct step *s) {
  bool busy = false;
  for (size_t i = 0; i < s->instance_count; i++)
    busy |= may_run(s, &s->instances[i]);
  for (size_t k = 0; k < s->count; k++) {
    struct job_run *run = &s->runs[k];
    if (job_run_is_over(run->state))
      continue;
    if (!run->instance && is_to_come(s, run->next_try_ms, JOB_RETRY_MAX_MS)) {
      wake(s, run->next_try_ms);
    } else if (!run->instance && !(busy && one_at_a_time(s))) {
      if (!s->state->next_instance)
        s->state->next_instance = 1;
      if (s->instance_count && s->instances[s->instance_count - 1].number >= s->state->next_instance)
        s->state->next_instance = s->instances[s->instance_count - 1].number + 1;
      if (s->in->last_instance >= s->state->next_instance)
        s->state->next_instance = s->in->last_instance + 1;
      run->instance = s->state->next_instance++;
      run->attempts++;
      run->exit_known = false;
      run->next_try_ms = 0;
      run->create = run->changed = s->out->state_changed = true;
    }
    if (one_at_a_time(s)) /* the others wait for this one, in the order in which they came */
      busy = true;
  }
}

static void let_go(struct step *s) {
  for (size_t k = 0; k < s->instance_count; k++) {
    struct job_instance *i = &s->instances[k];
    const struct job_run *of = NULL;
    for (size_t n = 0; n < s->count && !of; n++)
      if (s->runs[n].instance == i->number)
        of = &s->runs[n];
    if (of && !job_run_is_over(of->state))
      continue;
    int64_t kept_until = of ? after(of->ended_ms, JOB_LAST_LINES_MS) : 0;
    if (i->stopped || !i->placed) {
      i->drop = !i->placed || !i->node_exists || (!i->reported && !may_be_on_its_way(s, i));
      if (!i->drop && !i->reported)
        wake(s, after(i->since_ms, JOB_UNSEEN_MS));
    } else if (i->ended && !i->told && is_to_come(s, kept_until, JOB_LAST_LINES_MS)) {
      wake(s, kept_until);
    } else {
      i->stop = true;
      i->why = !of                                            ? "the attempt is over"
               : of->state == MODEL__RUN_STATE__RUN_STOPPED   ? "the run was stopped"
               : of->state == MODEL__RUN_STATE__RUN_TIMED_OUT ? "the run was too long"
                                                              : "the run has ended";
    }
  }
}

/* One that was made while another was out of reach, or while several were allowed, may still have to wait for its node. */
static void hold_back(struct step *s) {
  bool busy = false;
  if (!one_at_a_time(s))
    return;
  for (size_t k = 0; k < s->instance_count; k++)
    busy |= s->instances[k].placed && may_run(s, &s->instances[k]);
  for (size_t k = 0; k < s->instance_count; k++) {
    struct job_instance *i = &s->instances[k];
    if (i->placed || i->stopped || i->drop)
      continue;
    i->hold = busy;
    busy = true;
  }
}

/* A run that is forgotten has no instance any more, and its end was written before: somebody may wait for it. */
static void forget(struct step *s) {
  uint64_t keep = s->in->exists ? s->in->rules.history : 0, ended = 0, skipped = 0;
  size_t forgotten = 0;
  if (s->in->exists && !s->in->revision_known)
    return;
  for (size_t k = s->count; k-- > 0;) {
    struct job_run *run = &s->runs[k];
    if (!job_run_is_over(run->state))
      continue;
    if (run->number >= s->state->first_number && (run->state == MODEL__RUN_STATE__RUN_SKIPPED ? ++skipped : ++ended) <= keep)
      continue;
    const struct job_instance *i = instance_of(s, run);
    if ((i && !i->drop) || (run->changed && s->in->exists))
      continue;
    if (forgotten++ == JOB_FORGET_MAX) {
      s->out->more = true;
      return;
    }
    run->forget = true;
  }
}

void job_step(const struct job_input *in, struct job_state *state, struct job_run *runs, size_t *run_count, struct job_instance *instances,
              size_t instance_count, int64_t now_ms, int64_t wall_ms, struct job_output *out) {
  struct step s = {in, state, runs, *run_count, instances, instance_count, now_ms, wall_ms, out};
  size_t room = JOB_NEW_RUNS;
  *out = (struct job_output){.next_ms = JOB_NEVER, .next_wall_ms = JOB_NEVER};
  for (size_t k = 0; k < s.count; k++)
    runs[k].changed = runs[k].forget = runs[k].create = false;
  for (size_t k = 0; k < instance_count; k++) {
    struct job_instance *i = &instances[k];
    i->stop = i->drop = i->hold = false;
    i->why = "";
    if (i->unreachable_ms && after(i->unreachable_ms, JOB_NODE_LOST_MS) <= now_ms)
      i->lost = true;
    else if (i->unreachable_ms)
      wake(&s, after(i->unreachable_ms, JOB_NODE_LOST_MS));
  }
  if (in->exists)
    adopt(&s);
  for (size_t k = 0; k < s.count; k++)
    if (!job_run_is_over(runs[k].state))
      follow(&s, &runs[k]);
  if (!in->exists) {
    stop_all(&s, UINT64_MAX, "the job was removed");
  } else {
    if (in->suspended)
      stop_all(&s, UINT64_MAX, "the job was stopped");
    if (in->revision_known) {
      requests(&s, &room);
      schedule(&s, &room);
    }
  }
  let_go(&s);
  if (in->exists && in->revision_known) {
    hold_back(&s);
    give_instances(&s);
  }
  forget(&s);
  *run_count = s.count;
  bool left = instance_count > 0;
  for (size_t k = 0; k < s.count; k++)
    left |= !runs[k].forget;
  out->forget = !in->exists && !left;
  if (out->forget)
    out->state_changed = false;
}
