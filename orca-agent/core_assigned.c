/* What the masters want of an instance, and what they know of it from before this process. */
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-agent/core_internal.h"

#define FAILURES_TAKEN_OVER 12u /* beyond it the pause is the longest */
#define LAST_LINES_MAX 4096u

/* A crash loop goes on where it was when the agent was replaced: its count, its pace, its last words. What this process has seen already comes on
 * top. */
static void take_over_past(struct agent_step *s, struct agent_instance *i, const Model__InstanceStatus *past) {
  if (i->past_known || !past || past->epoch != i->assigned->instance->epoch || strcmp(PB_STR(past->node), s->core->node) != 0)
    return;
  unsigned failures = past->restarts < FAILURES_TAKEN_OVER ? past->restarts : FAILURES_TAKEN_OVER;
  bool ran_well =
      past->phase == MODEL__PHASE__PHASE_RUNNING && past->started_ms && s->now.wall_ms - past->started_ms >= AGENT_BACKOFF_RESET / NS_PER_MS;
  i->restarts += past->restarts;
  if (agent_instance_is_job(i) && (past->phase == MODEL__PHASE__PHASE_RUNNING || past->phase == MODEL__PHASE__PHASE_EXITED)) {
    i->ran = true;
    /* Until Docker says more, or its last words are there: the next agent is to know it too. */
    if (i->phase == MODEL__PHASE__PHASE_WAITING || past->phase == MODEL__PHASE__PHASE_EXITED)
      i->phase = past->phase;
  }
  if (!ran_well) {
    i->crash.failures += failures;
    if (past->phase == MODEL__PHASE__PHASE_FAILED)
      i->failure.failures += failures;
    int64_t left = (past->next_try_ms - s->now.wall_ms) * NS_PER_MS;
    bool waits = past->phase == MODEL__PHASE__PHASE_BACKOFF || past->phase == MODEL__PHASE__PHASE_FAILED;
    if (waits && past->next_try_ms > s->now.wall_ms && i->c.state != AGENT_C_RUNNING && i->op == AGENT_OP_NONE)
      i->next_try = s->now.mono_ns + (left > 0 && left < AGENT_BACKOFF_MAX ? left : AGENT_BACKOFF_MAX);
  }
  if (i->ended_ms || !past->ended_ms)
    return;
  i->ended_ms = past->ended_ms;
  agent_copy(i->ended_by, sizeof i->ended_by, PB_STR(past->ended_by));
  i->last_exit = past->exit_code;
  i->last_oom = past->oom_killed;
  bool has_words = past->has_last_lines && past->last_lines.len <= LAST_LINES_MAX && (i->last_lines = malloc(past->last_lines.len + 1));
  if (has_words) {
    memcpy(i->last_lines, past->last_lines.data, past->last_lines.len);
    i->last_lines_len = past->last_lines.len;
  }
  /* That end is dealt with, and its words are there; a job's may be all that is left of it. */
  if ((has_words || (i->ran && past->has_exit_code)) && past->ended_ms > 0 && past->ended_ms < INT64_MAX / NS_PER_MS)
    i->exit_handled_ns = past->ended_ms * NS_PER_MS + NS_PER_MS - 1;
}

/* A revision's number alone does not say it: numbers begin anew with a service that is made anew under the name of a removed one. */
static bool same_assigned(const Node__Assignment *a, const Node__Assignment *b) {
  const Model__Revision *ra = a->revision, *rb = b->revision;
  return a->instance->epoch == b->instance->epoch && a->instance->revision == b->instance->revision &&
         (!ra || !rb || (ra->created_ms == rb->created_ms && strcmp(PB_STR(ra->spec_hash), PB_STR(rb->spec_hash)) == 0));
}

void agent_instance_assign(struct agent_step *s, struct agent_instance *i, const Node__Assignment *assigned) {
  Node__Assignment *copy = (Node__Assignment *)pb_clone(&assigned->base);
  if (!copy)
    return;
  const Model__Instance *inst = copy->instance;
  enum agent_want want = inst->desired == MODEL__DESIRED__DESIRED_STOP ? AGENT_WANT_STOP : AGENT_WANT_RUN;
  bool other = !i->assigned || !same_assigned(i->assigned, copy);
  if (i->assigned)
    node__assignment__free_unpacked(i->assigned, NULL);
  i->assigned = copy;
  i->checked = false;
  if (want != i->want) {
    i->next_try = 0;
    i->stop_tries = 0;
    i->gone = false;
  }
  i->want = want;
  if (want == AGENT_WANT_STOP && i->gone) /* said again: whoever asks has not heard */
    i->gone = false;
  if (other) {
    i->prepared = i->ran = false;
    i->other_meanwhile = true;
    i->failure.failures = 0;
    if (!i->c.id[0] || !agent_instance_is_of_assigned(i)) {
      i->restarts = 0;
      i->crash.failures = 0;
      i->next_try = 0;
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "%s", ""); /* what was before it says nothing of it, and Docker may be away */
    }
  }
  take_over_past(s, i, assigned->status);
  i->past_known = true;
  i->status_seq = ++s->core->status_seq;
  agent_instance_refresh_ready(s, i);
}

void agent_instance_unassign(struct agent_instance *i) {
  if (i->want == AGENT_WANT_NONE)
    return;
  i->want = AGENT_WANT_NONE;
  i->next_try = 0;
  i->stop_tries = 0;
}
