/* What is reported of an instance: its phase with the reason, and whether it is ready. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orca-agent/core_internal.h"

void agent_instance_refresh_ready(struct agent_step *s, struct agent_instance *i) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  bool running = i->phase == MODEL__PHASE__PHASE_RUNNING;
  bool started = running, ready;
  if (spec && spec->startup)
    started = running && i->verdict.known && i->verdict.started;
  if (spec && spec->readiness)
    ready = running && started && i->verdict.known && i->verdict.ready;
  else
    ready = started;
  if (ready == i->ready && started == i->started)
    return;
  if (ready && !i->ready) {
    i->ready_since_ms = s->now.wall_ms;
    agent_history(s, i, "instance.ready", "info", "ready");
  } else if (!ready && i->ready && running) {
    agent_history(s, i, "instance.unready", "warn", "%s", i->verdict.reason);
  }
  i->ready = ready;
  i->started = started;
  i->status_seq = ++s->core->status_seq;
}

void agent_instance_set_phase(struct agent_step *s, struct agent_instance *i, Model__Phase phase, const char *fmt, ...) {
  char reason[sizeof i->reason];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(reason, sizeof reason, fmt, ap);
  va_end(ap);
  bool waits = phase == MODEL__PHASE__PHASE_BACKOFF || phase == MODEL__PHASE__PHASE_FAILED;
  int64_t next_try_ms = waits && i->next_try > s->now.mono_ns ? s->now.wall_ms + (i->next_try - s->now.mono_ns) / NS_PER_MS : 0;
  if (phase != i->phase) {
    i->phase = phase;
    i->since_ms = s->now.wall_ms;
    i->progress[0] = 0;
    i->next_try_ms = next_try_ms;
    i->status_seq = ++s->core->status_seq;
  } else if (next_try_ms && (i->next_try_ms == 0 || llabs(next_try_ms - i->next_try_ms) > 5)) {
    i->next_try_ms = next_try_ms;
    i->status_seq = ++s->core->status_seq;
  }
  if (strcmp(reason, i->reason) != 0) {
    agent_copy(i->reason, sizeof i->reason, reason);
    i->status_seq = ++s->core->status_seq;
  }
  agent_instance_refresh_ready(s, i);
}

void agent_instance_set_running(struct agent_step *s, struct agent_instance *i) {
  const char *why = "";
  if (agent_instance_probed(i)) {
    const Model__ServiceSpec *spec = agent_instance_spec(i);
    bool passing = i->verdict.known && (spec->readiness ? i->verdict.ready : i->verdict.started);
    why = passing ? "" : i->verdict.known && i->verdict.reason[0] ? i->verdict.reason : "not probed yet";
  }
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_RUNNING, "%s", why);
}

/* It could not be made: said, counted, tried again later. */
void agent_instance_fail(struct agent_step *s, struct agent_instance *i, const char *what, const char *why) {
  i->next_try = s->now.mono_ns + agent_backoff_failure(&i->failure, AGENT_BACKOFF_FIRST);
  i->restarts++;
  i->prepared = false;
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_FAILED, "%s: %s", what, why);
  i->status_seq = ++s->core->status_seq;
  if (i->failure.failures <= 3 || i->failure.failures % 10 == 0)
    agent_history(s, i, "instance.failed", "error", "%s: %s", what, why);
}
