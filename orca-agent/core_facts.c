/* What Docker and the keeper say of an instance: answers to its actions, events, lists, verdicts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/spec/spec.h"
#include "orca-agent/core_internal.h"

#define ADDRESS_TRIES 5u
#define ADDRESS_RETRY (100 * NS_PER_MS)
#define CLOCK_SLACK NS_PER_SEC
#define STALE_VERDICT NS_PER_SEC /* a verdict that names no start is about an earlier run when it comes this soon */

/* A time of Docker's to compare others with. One that is still to come was noted before the clock was put back: it would make all that happens until
 * then look old. */
static int64_t noted(const struct agent_step *s, int64_t ns) {
  return ns > s->now.wall_ms * NS_PER_MS + CLOCK_SLACK ? 0 : ns;
}

static void no_container(struct agent_instance *i) {
  i->c = (struct agent_container){.state = AGENT_C_NONE};
  i->verdict.known = false;
  i->recreate = i->restart_wanted = i->forced_restart = false; /* they were of what is gone */
  i->stop_tries = i->address_tries = 0;
}

/* What it wrote last is read while it is started again. */
static void ended(struct agent_step *s, struct agent_instance *i, int64_t at_ns) {
  free(i->last_lines);
  i->last_lines = NULL;
  i->last_lines_len = 0;
  i->ended_ms = at_ns / NS_PER_MS;
  i->words_ns = 0;
  struct agent_action *act = i->c.id[0] ? agent_act(s, AGENT_ACT_WORDS) : NULL;
  if (!act)
    return;
  agent_copy(act->instance, sizeof act->instance, i->id);
  agent_copy(act->container, sizeof act->container, i->c.id);
  act->number = (uint64_t)at_ns;
  i->words_ns = at_ns;
}

void agent_instance_words(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (!i->words_ns || ev->time_ns != i->words_ns)
    return;
  i->words_ns = 0;
  if (ev->text_len && (i->last_lines = malloc(ev->text_len))) {
    memcpy(i->last_lines, ev->text, ev->text_len);
    i->last_lines_len = ev->text_len;
  }
  i->status_seq = ++s->core->status_seq;
}

/* The container has ended: when may it start again? */
static void exited(struct agent_step *s, struct agent_instance *i, int32_t code, bool oom, int64_t at_ns) {
  i->c.state = AGENT_C_EXITED;
  i->c.exit_code = i->last_exit = code;
  i->c.oom_killed = i->last_oom = oom;
  i->c.pid = 0;
  i->c.address[0] = 0;
  i->c.detailed = true;
  i->exit_handled_ns = at_ns;
  if (i->restart_wanted)
    agent_copy(i->ended_by, sizeof i->ended_by, i->restart_reason);
  else
    snprintf(i->ended_by, sizeof i->ended_by, "exit code %" PRId32 "%s", code, oom ? ", out of memory" : "");
  ended(s, i, at_ns);
  i->verdict.known = false;
  i->stop_tries = i->address_tries = 0;
  i->touched = s->core->seq;
  i->status_seq = ++s->core->status_seq;
  bool wanted = i->want == AGENT_WANT_RUN || i->want == AGENT_WANT_KEEP;
  if (wanted) {
    int64_t ran = i->run_since ? s->now.mono_ns - i->run_since : 0;
    int64_t delay = agent_backoff_crash(&i->crash, ran);
    i->next_try = delay ? s->now.mono_ns + delay : 0;
  }
  i->run_since = 0;
  agent_history(s, i, "instance.exited", wanted && code != 0 ? "warn" : "info", "exit code %" PRId32 "%s%s%s", code, oom ? ", out of memory" : "",
                i->restart_wanted ? "; " : "", i->restart_wanted ? i->restart_reason : "");
  if (i->restart_wanted) {
    i->restart_wanted = false;
    i->forced_restart = true;
  }
}

void agent_instance_docker_down(struct agent_step *s, struct agent_instance *i) {
  /* Facts go stale; phases stay as last known: containers may well run on without their daemon. */
  i->op = AGENT_OP_NONE;
  i->op_id = 0;
  i->queued = false;
  i->touched = s->core->seq;
  i->c.state = AGENT_C_UNKNOWN;
  i->c.detailed = i->look_failed = i->name_taken = false;
  i->next_try = 0;
  i->words_ns = 0;
}

void agent_instance_listed(struct agent_step *s, struct agent_instance *i, const struct agent_container *found) {
  bool first = s->core->list_seq >= i->touched;
  if (i->op != AGENT_OP_NONE || !first)
    return; /* it has changed since the list was asked for */
  if (!found) {
    if (i->c.state == AGENT_C_RUNNING)
      agent_history(s, i, "instance.lost", "warn", "its container is gone");
    if (i->c.state != AGENT_C_NONE)
      no_container(i);
    return;
  }
  bool same =
      strcmp(i->c.id, found->id) == 0 && i->c.state == found->state && (found->state != AGENT_C_RUNNING || strcmp(i->c.address, found->address) == 0);
  if (same)
    return;
  /* The list lacks what matters (exit code, start, what it was made for): look closer. */
  if (strcmp(i->c.id, found->id) != 0)
    no_container(i);
  agent_copy(i->c.id, sizeof i->c.id, found->id);
  agent_copy(i->c.network, sizeof i->c.network, found->network);
  i->c.state = AGENT_C_UNKNOWN;
  i->c.detailed = false;
}

static void inspected(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  bool name_taken = i->name_taken;
  i->look_failed = i->name_taken = false;
  if (ev->code == ERR_NOT_FOUND) {
    no_container(i);
    if (name_taken)
      agent_instance_fail(s, i, "create", "its container name is taken, and Docker shows no container that has it");
    return;
  }
  if (ev->code != ERR_NONE) {
    i->look_failed = true;
    agent_instance_set_phase(s, i, i->phase, "inspect: %s", ev->text);
    i->c.state = AGENT_C_UNKNOWN;
    i->next_try = s->now.mono_ns + agent_backoff_failure(&i->failure, AGENT_BACKOFF_FIRST);
    return;
  }
  const struct agent_container *c = ev->containers;
  if (!c->ours || c->number != i->number || strcmp(c->project, i->project) != 0 || strcmp(c->service, i->service) != 0) {
    no_container(i); /* and nothing that is to be stopped */
    if (i->want == AGENT_WANT_STOP || i->want == AGENT_WANT_NONE)
      return;
    i->c.state = AGENT_C_UNKNOWN;
    agent_instance_fail(s, i, "create", "its container name is taken by a container that is not this node's");
    return;
  }
  struct agent_container before = i->c;
  i->c = *c;
  i->c.detailed = true;
  bool new_run = c->started_ns != before.started_ns || strcmp(c->id, before.id) != 0;
  bool began = agent_instance_is_job(i) && agent_instance_is_of_assigned(i) && !i->ran &&
               c->started_ns; /* whatever was answered to its start: this is its run, and its result */
  if (began)
    i->recreate = false;
  if (c->state == AGENT_C_RUNNING) {
    if (new_run) {
      int64_t ran_ms = s->now.wall_ms - c->started_ns / NS_PER_MS;
      i->run_since = s->now.mono_ns - (ran_ms > 0 ? ran_ms : 0) * NS_PER_MS;
      i->verdict = (struct agent_verdict){0};
      i->restart_wanted = i->recreate = false;
      i->address_tries = i->stop_tries = 0;
      i->next_try = 0;
      agent_history(s, i, "instance.started", "info", "%.12s", c->id);
    }
    if (!c->host_network && !c->address[0]) {
      i->c.detailed = false;
      i->next_try = s->now.mono_ns + ADDRESS_RETRY;
      if (++i->address_tries > ADDRESS_TRIES) {
        i->restart_wanted = true;
        i->next_try = 0;
        agent_copy(i->restart_reason, sizeof i->restart_reason, "it has no address on its network");
      }
      return;
    }
    i->failure.failures = 0;
    i->status_seq = ++s->core->status_seq;
  } else if (c->state == AGENT_C_EXITED && (c->finished_ns > noted(s, i->exit_handled_ns) || began)) {
    exited(s, i, c->exit_code, c->oom_killed, c->finished_ns);
  }
}

static void created(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  const Model__Instance *inst = i->assigned ? i->assigned->instance : NULL;
  if (ev->code == ERR_NONE && (!inst || i->other_meanwhile)) { /* it carries what was asked for when it was made: a look says what that was */
    agent_copy(i->c.id, sizeof i->c.id, ev->text);
    i->c.state = AGENT_C_UNKNOWN;
    return;
  }
  if (ev->code == ERR_NONE) {
    agent_copy(i->c.id, sizeof i->c.id, ev->text);
    i->c.state = AGENT_C_CREATED;
    i->c.ours = true;
    i->c.revision = inst->revision;
    i->c.epoch = inst->epoch;
    if (i->assigned->revision)
      agent_copy(i->c.spec_hash, sizeof i->c.spec_hash, i->assigned->revision->spec_hash);
    const Model__ServiceSpec *spec = agent_instance_spec(i);
    if (spec)
      agent_network_name(s->core, spec, i->c.network);
    return;
  }
  if (ev->code == ERR_CONFLICT || ev->code == ERR_TIMEOUT) {
    i->c.state = AGENT_C_UNKNOWN;
    i->name_taken = ev->code == ERR_CONFLICT;
    if (ev->code == ERR_TIMEOUT)
      agent_instance_fail(s, i, "create", ev->text);
    return;
  }
  if (ev->code == ERR_NOT_FOUND) {
    struct agent_image *image = i->want == AGENT_WANT_RUN ? agent_image_for(s, i) : NULL;
    if (image)
      agent_image_lost(image);
  }
  agent_instance_fail(s, i, "create", ev->text);
}

static void lose_network(struct agent_step *s, const struct agent_instance *i) {
  struct agent_network *network = i->c.network[0] ? agent_network_for(s, i->c.network, i->project) : NULL;
  if (network && network->state == AGENT_NETWORK_READY)
    network->state = AGENT_NETWORK_NEW;
}

static void started(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (ev->code == ERR_NONE) {
    i->c.state = i->died_meanwhile ? AGENT_C_UNKNOWN : AGENT_C_RUNNING;
    i->c.detailed = false;
    i->run_since = s->now.mono_ns;
    return;
  }
  i->c.state = AGENT_C_UNKNOWN;
  if (ev->code == ERR_NOT_FOUND)
    lose_network(s, i); /* or the container: the look that follows says which */
  if (ev->code == ERR_TIMEOUT) {
    agent_instance_fail(s, i, "start", ev->text);
    return;
  }
  /* Docker leaves a container that could not start as "created" or "exited" with its fault inside: made anew, it gets another chance. */
  i->recreate = true;
  int64_t at = s->now.wall_ms * NS_PER_MS, handled = noted(s, i->exit_handled_ns);
  i->exit_handled_ns = at > handled ? at : handled;
  agent_instance_fail(s, i, "start", ev->text);
}

static void stopped(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (ev->code == ERR_NONE || ev->code == ERR_NOT_FOUND || ev->code == ERR_CONFLICT) {
    bool winding_down = i->want == AGENT_WANT_STOP || i->want == AGENT_WANT_NONE || agent_instance_mismatch(i);
    if (ev->code == ERR_NONE && i->c.state == AGENT_C_RUNNING && winding_down) {
      i->c.state = AGENT_C_EXITED; /* how it ended no longer matters */
      if (noted(s, i->exit_handled_ns) < i->c.started_ns) {
        agent_copy(i->ended_by, sizeof i->ended_by, "stopped");
        ended(s, i, s->now.wall_ms * NS_PER_MS);
      }
    } else if (i->c.state == AGENT_C_RUNNING)
      i->c.state = AGENT_C_UNKNOWN;
    i->stop_tries = ev->code == ERR_CONFLICT ? i->stop_tries + 1 : 0;
    return;
  }
  i->stop_tries++;
  if (i->stop_tries <= 2)
    agent_history(s, i, "instance.stuck", "warn", "it does not stop: %s", ev->text);
}

static void removed(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (ev->code == ERR_NONE || ev->code == ERR_NOT_FOUND) {
    no_container(i);
    return;
  }
  i->c.state = AGENT_C_UNKNOWN;
  i->next_try = s->now.mono_ns + agent_backoff_failure(&i->failure, AGENT_BACKOFF_FIRST);
  if (ev->code != ERR_CONFLICT)
    agent_instance_set_phase(s, i, i->phase, "remove: %s", ev->text);
}

void agent_instance_done(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (i->op == AGENT_OP_NONE || ev->op != i->op_id)
    return;
  enum agent_op op = i->op;
  agent_instance_op_end(s, i);
  if ((ev->code == ERR_UNAVAILABLE || ev->code == ERR_CANCELLED) && op != AGENT_OP_PREPARE) {
    /* Docker is going away: whether it was done, nobody knows. */
    i->c.state = AGENT_C_UNKNOWN;
    i->next_try = s->now.mono_ns + AGENT_LOST_RETRY;
    return;
  }
  switch (op) {
  case AGENT_OP_PREPARE:
    if (ev->code == ERR_NONE)
      i->prepared = !i->other_meanwhile;
    else
      agent_instance_fail(s, i, "prepare", ev->text);
    break;
  case AGENT_OP_CREATE:
    created(s, i, ev);
    break;
  case AGENT_OP_START:
    started(s, i, ev);
    break;
  case AGENT_OP_INSPECT:
    inspected(s, i, ev);
    break;
  case AGENT_OP_STOP:
  case AGENT_OP_KILL:
    stopped(s, i, ev);
    break;
  case AGENT_OP_REMOVE:
    removed(s, i, ev);
    break;
  case AGENT_OP_NONE:
    break;
  }
}

static void died(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  /* Of a run that is over for us already. */
  if (ev->time_ns < noted(s, i->c.started_ns) || ev->time_ns <= noted(s, i->exit_handled_ns))
    return;
  switch (i->op) {
  case AGENT_OP_START:
    i->died_meanwhile = true;
    return;
  case AGENT_OP_INSPECT: /* what it will say is older than this */
    agent_instance_op_end(s, i);
    break;
  case AGENT_OP_PREPARE:
  case AGENT_OP_CREATE:
    return;
  case AGENT_OP_NONE:
  case AGENT_OP_STOP:
  case AGENT_OP_KILL:
  case AGENT_OP_REMOVE:
    break;
  }
  if (!i->c.ours) { /* not looked at yet: of which epoch it is, and what follows its end, its labels say */
    i->c.state = AGENT_C_UNKNOWN;
    i->next_try = 0;
    return;
  }
  exited(s, i, ev->exit_code, i->c.oom_killed, ev->time_ns);
}

void agent_instance_container_event(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  switch (ev->what) {
  case AGENT_CE_START:
    if (i->op == AGENT_OP_NONE && (i->c.state != AGENT_C_RUNNING || ev->time_ns > noted(s, i->c.started_ns) + NS_PER_SEC)) {
      i->c.state = AGENT_C_UNKNOWN;
      i->c.detailed = false;
      i->next_try = 0;
    }
    break;
  case AGENT_CE_OOM:
    i->c.oom_killed = true;
    break;
  case AGENT_CE_DIE:
    died(s, i, ev);
    break;
  case AGENT_CE_DESTROY:
    if (i->op == AGENT_OP_REMOVE)
      break;
    if (i->op != AGENT_OP_NONE)
      agent_instance_op_end(s, i);
    if (i->want == AGENT_WANT_RUN || i->want == AGENT_WANT_KEEP)
      agent_history(s, i, "instance.lost", "warn", "its container was removed by another hand");
    no_container(i);
    break;
  }
}

void agent_instance_verdict(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  /* By phase, not by what Docker says: while Docker is away containers run on, and are probed. */
  if (!i->c.id[0] || strcmp(ev->container_id, i->c.id) != 0 || i->phase != MODEL__PHASE__PHASE_RUNNING)
    return;
  bool said = ev->started_ms != 0;
  if (said && ev->started_ms != i->c.started_ns / NS_PER_MS)
    return;
  if (!said && s->now.mono_ns - i->run_since < STALE_VERDICT && !ev->live)
    return;
  i->verdict = ev->verdict;
  i->verdict.known = true;
  agent_instance_refresh_ready(s, i);
  if (!ev->live && !i->restart_wanted && (i->want == AGENT_WANT_RUN || i->want == AGENT_WANT_KEEP)) {
    i->restart_wanted = true;
    i->stop_tries = 0;
    agent_copy(i->restart_reason, sizeof i->restart_reason, ev->verdict.reason);
    agent_history(s, i, "instance.unhealthy", "warn", "%s", ev->verdict.reason);
  }
}
