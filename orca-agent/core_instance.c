/* One instance: from what is wanted and what Docker has to the next action (the table stands in core.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/image_ref.h"
#include "common/spec/spec.h"
#include "orca-agent/core_internal.h"

/* ---- life ---- */

struct agent_instance *agent_instance_add(struct agent_step *s, const char *project, const char *service, uint64_t number) {
  struct agent_core *core = s->core;
  if (core->count >= AGENT_MAX_INSTANCES)
    return NULL;
  if (core->count == core->size) {
    size_t size = core->size ? core->size * 2 : 16;
    struct agent_instance **list = reallocarray(core->instances, size, sizeof *list);
    if (!list)
      return NULL;
    core->instances = list;
    core->size = size;
  }
  struct agent_instance *i = calloc(1, sizeof *i);
  if (!i)
    return NULL;
  instance_id(i->id, project, service, number);
  agent_copy(i->project, sizeof i->project, project);
  agent_copy(i->service, sizeof i->service, service);
  i->number = number;
  i->want = AGENT_WANT_NONE;
  /* A complete list has been seen and it was not in it. */
  i->c.state = core->docker == AGENT_DOCKER_UP ? AGENT_C_NONE : AGENT_C_UNKNOWN;
  i->touched = core->seq;
  i->since_ms = s->now.wall_ms;
  i->status_seq = ++core->status_seq;
  size_t at = core->count++;
  for (; at > 0 && strcmp(core->instances[at - 1]->id, i->id) > 0; at--)
    core->instances[at] = core->instances[at - 1];
  core->instances[at] = i;
  return i;
}

void agent_instance_free(struct agent_instance *i) {
  if (i->assigned)
    node__assignment__free_unpacked(i->assigned, NULL);
  free(i->last_lines);
  free(i);
}

bool agent_instance_forgettable(const struct agent_instance *i) {
  return (i->want == AGENT_WANT_NONE || i->want == AGENT_WANT_KEEP) && i->c.state == AGENT_C_NONE && i->op == AGENT_OP_NONE;
}

/* ---- beginning and ending operations ---- */

static bool heavy(enum agent_op op) {
  return op == AGENT_OP_CREATE || op == AGENT_OP_START;
}

static void begin(struct agent_step *s, struct agent_instance *i, enum agent_op op) {
  struct agent_action *act = agent_act(s, AGENT_ACT_INSTANCE);
  if (!act) {
    i->next_try = s->now.mono_ns + AGENT_LOST_RETRY;
    return;
  }
  i->op = op;
  act->op = i->op_id = ++s->core->next_op;
  act->op_kind = op;
  agent_copy(act->instance, sizeof act->instance, i->id);
  if (i->c.id[0])
    agent_copy(act->container, sizeof act->container, i->c.id);
  else
    agent_container_name(s->core, i, act->container);
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  act->grace_ms = spec ? PB_GET(spec, stop_grace_ms, 10000) : 10000;
  i->touched = s->core->seq;
  i->died_meanwhile = i->other_meanwhile = false;
  if (heavy(op))
    s->core->busy_slots++;
}

void agent_instance_op_end(struct agent_step *s, struct agent_instance *i) {
  if (heavy(i->op) && s->core->busy_slots)
    s->core->busy_slots--;
  i->op = AGENT_OP_NONE;
  i->op_id = 0;
  i->touched = s->core->seq;
}

/* Creates and starts take turns: Docker does them slower the more of them run at once. */
static bool slot(struct agent_step *s, struct agent_instance *i) {
  if (s->core->busy_slots < s->core->slots)
    return true;
  if (!i->queued) {
    i->queued = true;
    i->queued_at = s->core->seq;
  }
  return false;
}

void agent_slots_run(struct agent_step *s) {
  struct agent_core *core = s->core;
  while (core->busy_slots < core->slots && core->docker == AGENT_DOCKER_UP) {
    struct agent_instance *best = NULL;
    for (size_t n = 0; n < core->count; n++) {
      struct agent_instance *i = core->instances[n];
      if (!i->queued)
        continue;
      /* Whoever has a container already comes first: a crashed one, then one that is half made. */
      bool has = i->c.id[0] != 0, best_has = best && best->c.id[0] != 0;
      if (!best || (has && !best_has) || (has == best_has && i->queued_at < best->queued_at))
        best = i;
    }
    if (!best)
      return;
    best->queued = false;
    agent_instance_reconcile(s, best);
  }
}

static bool waiting(const struct agent_step *s, const struct agent_instance *i) {
  return i->next_try > s->now.mono_ns;
}

/* ---- the decisions ---- */

bool agent_instance_is_of_assigned(const struct agent_instance *i) {
  const Model__Instance *inst = i->assigned->instance;
  const Model__Revision *rev = i->assigned->revision;
  return i->c.epoch == inst->epoch && i->c.revision == inst->revision &&
         !(rev && rev->spec_hash && i->c.spec_hash[0] && strcmp(rev->spec_hash, i->c.spec_hash) != 0);
}

/* The container on the node is of another epoch or revision than the one assigned: it must go first. */
bool agent_instance_mismatch(const struct agent_instance *i) {
  return i->want == AGENT_WANT_RUN && i->assigned && !agent_instance_is_of_assigned(i);
}

/* Asked politely, then killed, then removed by force: a stop can hang for ever. */
static void stop(struct agent_step *s, struct agent_instance *i) {
  if (waiting(s, i))
    return;
  begin(s, i, i->stop_tries == 0 ? AGENT_OP_STOP : i->stop_tries == 1 ? AGENT_OP_KILL : AGENT_OP_REMOVE);
}

static void wind_down(struct agent_step *s, struct agent_instance *i) {
  const char *why = i->assigned ? PB_STR(i->assigned->instance->reason) : "not assigned to this node";
  switch (i->c.state) {
  case AGENT_C_UNKNOWN:
    if (!waiting(s, i))
      begin(s, i, AGENT_OP_INSPECT);
    return;
  case AGENT_C_NONE:
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "%s", why);
    if (!i->gone) {
      struct agent_action *act = agent_act(s, AGENT_ACT_GONE);
      if (!act)
        return;
      agent_copy(act->instance, sizeof act->instance, i->id);
      i->gone = true;
      i->prepared = false; /* its files go with it */
    }
    return;
  case AGENT_C_RUNNING:
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", why);
    stop(s, i);
    return;
  case AGENT_C_CREATED:
  case AGENT_C_EXITED:
  case AGENT_C_BROKEN:
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", why);
    if (!waiting(s, i) && !i->words_ns)
      begin(s, i, AGENT_OP_REMOVE);
    return;
  }
}

static void replace(struct agent_step *s, struct agent_instance *i) {
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "replaced by revision %" PRIu64 ", epoch %" PRIu64, i->assigned->instance->revision,
                           i->assigned->instance->epoch);
  if (i->c.state == AGENT_C_RUNNING)
    stop(s, i);
  else if (!waiting(s, i) && !i->words_ns)
    begin(s, i, AGENT_OP_REMOVE);
}

/* No retry: when it is set, the assignment comes again. */
static bool waits_for_secret(struct agent_step *s, struct agent_instance *i) {
  const Model__SecretVersion *missing = agent_instance_missing_secret(i);
  if (!missing)
    return false;
  char why[sizeof i->reason];
  const char *name = PB_STR(missing->name);
  snprintf(why, sizeof why, "secret %.63s/%.80s is missing: orcactl secrets set %.80s --project %.63s", i->project, name, name, i->project);
  bool said = i->phase == MODEL__PHASE__PHASE_WAITING && strcmp(i->reason, why) == 0;
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "%s", why);
  if (!said)
    agent_history(s, i, "instance.waiting", "warn", "%s", why);
  i->next_try = 0;
  i->prepared = false;
  return true;
}

static bool is_of(const struct agent_instance *i, const char *project, const char *service) {
  return strcmp(PB_STR(project), i->project) == 0 && strcmp(PB_STR(service), i->service) == 0;
}

/* The store and the masters are not taken at their word: what runs here is what the API would have let through, of this service. */
static int check_assigned(const struct agent_step *s, struct agent_instance *i, struct err *err) {
  const Model__Revision *revision = i->assigned->revision;
  const char *image = PB_STR(i->assigned->image);
  struct image_ref ref;
  if (i->checked) {
    i->checked = spec_check_policy(revision->spec, s->core->cluster, err) == 0;
    return i->checked ? 0 : -1;
  }
  if (!is_of(i, revision->project, revision->name) || !is_of(i, revision->spec->project, revision->spec->name))
    return err_set(err, ERR_UNPROCESSABLE, "name: the assigned revision is another service's");
  if (*image && !image_ref_is_id(image) && image_ref_parse(image, &ref) < 0)
    return err_set(err, ERR_UNPROCESSABLE, "image: what it was resolved to is no image's name");
  if (spec_check_all(revision->spec, s->core->cluster, err) < 0)
    return -1;
  i->checked = true;
  return 0;
}

static void create(struct agent_step *s, struct agent_instance *i) {
  struct err err;
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  bool later = waiting(s, i);
  if (later && !i->checked)
    return;
  if (!later && check_assigned(s, i, &err) < 0) {
    agent_instance_fail(s, i, err.code == ERR_DENIED ? "policy" : "spec", err.msg);
    return;
  }
  if (waits_for_secret(s, i) || later)
    return;
  struct agent_image *image = agent_image_for(s, i);
  char name[AGENT_NAME_MAX];
  agent_network_name(s->core, spec, name);
  struct agent_network *network = *name ? agent_network_for(s, name, i->project) : NULL;
  if (!image || (*name && !network)) {
    agent_instance_fail(s, i, "create", "no memory");
    return;
  }
  agent_image_reconcile(s, image);
  if (network)
    agent_network_reconcile(s, network);
  if (image->state == AGENT_IMAGE_FAILED) {
    if (i->phase != MODEL__PHASE__PHASE_FAILED || i->next_try < image->next_try) {
      agent_instance_fail(s, i, "image", image->error);
      i->next_try = image->next_try;
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_FAILED, "image %.100s: %.140s", image->ref, image->error);
    }
    return;
  }
  if (image->state != AGENT_IMAGE_READY) {
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_PULLING, "%s", image->ref);
    if (strcmp(i->progress, image->progress) != 0) {
      agent_copy(i->progress, sizeof i->progress, image->progress);
      i->status_seq = ++s->core->status_seq;
    }
    return;
  }
  if (network && network->state == AGENT_NETWORK_FAILED) {
    agent_instance_fail(s, i, "network", network->error);
    if (i->next_try < network->next_try)
      i->next_try = network->next_try;
    return;
  }
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_CREATING, "%s", "");
  if (network && network->state != AGENT_NETWORK_READY)
    return;
  if (!i->prepared) {
    if (spec->n_volumes || spec->n_mounts || spec_names_secrets(spec)) {
      begin(s, i, AGENT_OP_PREPARE);
      return;
    }
    i->prepared = true;
  }
  if (!slot(s, i))
    return;
  i->prepared = false; /* for one container: its secrets are not kept, its volumes may be taken away */
  begin(s, i, AGENT_OP_CREATE);
}

static void start(struct agent_step *s, struct agent_instance *i) {
  if (!slot(s, i))
    return;
  agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STARTING, "%s", "");
  if (i->c.state == AGENT_C_EXITED) {
    i->restarts++;
    i->status_seq = ++s->core->status_seq;
  }
  i->next_try = 0;
  i->forced_restart = false;
  i->c.oom_killed = false;
  begin(s, i, AGENT_OP_START);
}

bool agent_instance_is_job(const struct agent_instance *i) {
  return i->assigned &&
         (PB_GET(i->assigned->instance, job, 0) || (i->assigned->revision && i->assigned->revision->spec && i->assigned->revision->spec->job));
}

Model__RestartPolicy agent_instance_restart(const struct agent_instance *i) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  return agent_instance_is_job(i) ? MODEL__RESTART_POLICY__RESTART_NEVER : spec ? spec_restart(spec) : (Model__RestartPolicy)i->c.restart;
}

static void start_again(struct agent_step *s, struct agent_instance *i) {
  Model__RestartPolicy policy = agent_instance_restart(i);
  const char *oom = i->c.oom_killed ? ", out of memory" : "";
  bool will_not = policy == MODEL__RESTART_POLICY__RESTART_NEVER ||
                  (policy == MODEL__RESTART_POLICY__RESTART_ON_FAILURE && i->c.exit_code == 0 && !i->forced_restart);
  if (will_not && i->words_ns && i->phase != MODEL__PHASE__PHASE_EXITED) { /* its end is told with its last words, unless it was told before */
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "exit code %" PRId32 "%s", i->c.exit_code, oom);
  } else if (will_not) {
    i->next_try = 0;
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "exit code %" PRId32 "%s", i->c.exit_code, oom);
  } else if (waiting(s, i)) {
    if (i->phase != MODEL__PHASE__PHASE_FAILED)
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_BACKOFF, "exit code %" PRId32 "%s%s%s", i->c.exit_code, oom,
                               i->restart_reason[0] && i->forced_restart ? "; " : "", i->forced_restart ? i->restart_reason : "");
  } else {
    start(s, i);
  }
}

static void keep_running(struct agent_step *s, struct agent_instance *i) {
  if (i->want == AGENT_WANT_RUN && !agent_instance_spec(i)) {
    agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "its revision is not known here yet");
    return;
  }
  if (agent_instance_mismatch(i) && i->c.state != AGENT_C_NONE && i->c.state != AGENT_C_UNKNOWN) {
    replace(s, i);
    return;
  }
  if (agent_instance_is_job(i) &&
      (i->c.state == AGENT_C_RUNNING || i->c.state == AGENT_C_EXITED || (i->c.state == AGENT_C_BROKEN && i->c.started_ns)))
    i->ran = true;
  switch (i->c.state) {
  case AGENT_C_UNKNOWN:
    if (!waiting(s, i))
      begin(s, i, AGENT_OP_INSPECT);
    return;
  case AGENT_C_NONE:
    if (i->ran) /* once is once, whoever took it away */
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "its container is gone");
    else if (i->want == AGENT_WANT_RUN)
      create(s, i);
    return;
  case AGENT_C_BROKEN:
    if (!waiting(s, i))
      begin(s, i, AGENT_OP_REMOVE);
    return;
  case AGENT_C_CREATED:
  case AGENT_C_EXITED:
    if (i->recreate && i->want == AGENT_WANT_RUN) {
      if (!waiting(s, i))
        begin(s, i, AGENT_OP_REMOVE);
    } else if (i->c.state == AGENT_C_EXITED) {
      start_again(s, i);
    } else if (!waiting(s, i)) {
      start(s, i);
    }
    return;
  case AGENT_C_RUNNING:
    if (i->restart_wanted) {
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", i->restart_reason);
      stop(s, i);
    } else if (!i->c.detailed) {
      if (!waiting(s, i))
        begin(s, i, AGENT_OP_INSPECT);
    } else {
      i->next_try = 0;
      agent_instance_set_running(s, i);
    }
    return;
  }
}

void agent_instance_reconcile(struct agent_step *s, struct agent_instance *i) {
  i->queued = i->queued && i->op == AGENT_OP_NONE;
  if (i->op != AGENT_OP_NONE)
    return;
  if (s->core->docker != AGENT_DOCKER_UP) {
    if (i->c.state == AGENT_C_UNKNOWN && !i->c.id[0] && i->want == AGENT_WANT_RUN && !i->ran)
      agent_instance_set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "Docker: %s",
                               s->core->docker_error[0] ? s->core->docker_error : "not connected yet");
    return;
  }
  /* What was waited for is over: nothing ticks for it any more, whatever else it now waits for. */
  if (i->next_try && !waiting(s, i))
    i->next_try = 0;
  if (i->want == AGENT_WANT_STOP || i->want == AGENT_WANT_NONE)
    wind_down(s, i);
  else
    keep_running(s, i);
}
