/* One instance: from what is wanted and what Docker has to the next action (the table stands in core.h). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/image_ref.h"
#include "common/loop.h"
#include "common/spec/spec.h"
#include "orca-agent/core_internal.h"

#define ADDRESS_TRIES 5u
#define ADDRESS_RETRY (100 * NS_PER_MS)
#define LOST_RETRY NS_PER_SEC
#define FAILURES_TAKEN_OVER 12u /* beyond it the pause is the longest */
#define LAST_LINES_MAX 4096u
#define CLOCK_SLACK NS_PER_SEC
#define STALE_VERDICT NS_PER_SEC /* a verdict that names no start is about an earlier run when it comes this soon */

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

/* ---- what is reported ---- */

static void refresh_ready(struct agent_step *s, struct agent_instance *i) {
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

static void set_phase(struct agent_step *s, struct agent_instance *i, Model__Phase phase, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void set_phase(struct agent_step *s, struct agent_instance *i, Model__Phase phase, const char *fmt, ...) {
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
  refresh_ready(s, i);
}

static void set_running(struct agent_step *s, struct agent_instance *i) {
  const char *why = "";
  if (agent_instance_probed(i)) {
    const Model__ServiceSpec *spec = agent_instance_spec(i);
    bool passing = i->verdict.known && (spec->readiness ? i->verdict.ready : i->verdict.started);
    why = passing ? "" : i->verdict.known && i->verdict.reason[0] ? i->verdict.reason : "not probed yet";
  }
  set_phase(s, i, MODEL__PHASE__PHASE_RUNNING, "%s", why);
}

/* ---- beginning and ending operations ---- */

static bool heavy(enum agent_op op) {
  return op == AGENT_OP_CREATE || op == AGENT_OP_START;
}

static void begin(struct agent_step *s, struct agent_instance *i, enum agent_op op) {
  struct agent_action *act = agent_act(s, AGENT_ACT_INSTANCE);
  if (!act) {
    i->next_try = s->now.mono_ns + LOST_RETRY;
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

static void end(struct agent_step *s, struct agent_instance *i) {
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

/* It could not be made: said, counted, tried again later. */
static void fail(struct agent_step *s, struct agent_instance *i, const char *what, const char *why) {
  i->next_try = s->now.mono_ns + agent_backoff_failure(&i->failure, AGENT_BACKOFF_FIRST);
  i->restarts++;
  i->prepared = false;
  set_phase(s, i, MODEL__PHASE__PHASE_FAILED, "%s: %s", what, why);
  i->status_seq = ++s->core->status_seq;
  if (i->failure.failures <= 3 || i->failure.failures % 10 == 0)
    agent_history(s, i, "instance.failed", "error", "%s: %s", what, why);
}

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

/* ---- the decisions ---- */

static bool is_of_assigned(const struct agent_instance *i) {
  const Model__Instance *inst = i->assigned->instance;
  const Model__Revision *rev = i->assigned->revision;
  return i->c.epoch == inst->epoch && i->c.revision == inst->revision &&
         !(rev && rev->spec_hash && i->c.spec_hash[0] && strcmp(rev->spec_hash, i->c.spec_hash) != 0);
}

/* The container on the node is of another epoch or revision than the one assigned: it must go first. */
static bool mismatch(const struct agent_instance *i) {
  return i->want == AGENT_WANT_RUN && i->assigned && !is_of_assigned(i);
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
    set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "%s", why);
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
    set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", why);
    stop(s, i);
    return;
  case AGENT_C_CREATED:
  case AGENT_C_EXITED:
  case AGENT_C_BROKEN:
    set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", why);
    if (!waiting(s, i) && !i->words_ns)
      begin(s, i, AGENT_OP_REMOVE);
    return;
  }
}

static void replace(struct agent_step *s, struct agent_instance *i) {
  set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "replaced by revision %" PRIu64 ", epoch %" PRIu64, i->assigned->instance->revision,
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
  set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "%s", why);
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
    fail(s, i, err.code == ERR_DENIED ? "policy" : "spec", err.msg);
    return;
  }
  if (waits_for_secret(s, i) || later)
    return;
  struct agent_image *image = agent_image_for(s, i);
  char name[AGENT_NAME_MAX];
  agent_network_name(s->core, spec, name);
  struct agent_network *network = *name ? agent_network_for(s, name, i->project) : NULL;
  if (!image || (*name && !network)) {
    fail(s, i, "create", "no memory");
    return;
  }
  agent_image_reconcile(s, image);
  if (network)
    agent_network_reconcile(s, network);
  if (image->state == AGENT_IMAGE_FAILED) {
    if (i->phase != MODEL__PHASE__PHASE_FAILED || i->next_try < image->next_try) {
      fail(s, i, "image", image->error);
      i->next_try = image->next_try;
      set_phase(s, i, MODEL__PHASE__PHASE_FAILED, "image %.100s: %.140s", image->ref, image->error);
    }
    return;
  }
  if (image->state != AGENT_IMAGE_READY) {
    set_phase(s, i, MODEL__PHASE__PHASE_PULLING, "%s", image->ref);
    if (strcmp(i->progress, image->progress) != 0) {
      agent_copy(i->progress, sizeof i->progress, image->progress);
      i->status_seq = ++s->core->status_seq;
    }
    return;
  }
  if (network && network->state == AGENT_NETWORK_FAILED) {
    fail(s, i, "network", network->error);
    if (i->next_try < network->next_try)
      i->next_try = network->next_try;
    return;
  }
  set_phase(s, i, MODEL__PHASE__PHASE_CREATING, "%s", "");
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
  set_phase(s, i, MODEL__PHASE__PHASE_STARTING, "%s", "");
  if (i->c.state == AGENT_C_EXITED) {
    i->restarts++;
    i->status_seq = ++s->core->status_seq;
  }
  i->next_try = 0;
  i->forced_restart = false;
  i->c.oom_killed = false;
  begin(s, i, AGENT_OP_START);
}

static bool is_job(const struct agent_instance *i) {
  return i->assigned &&
         (PB_GET(i->assigned->instance, job, 0) || (i->assigned->revision && i->assigned->revision->spec && i->assigned->revision->spec->job));
}

Model__RestartPolicy agent_instance_restart(const struct agent_instance *i) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  return is_job(i) ? MODEL__RESTART_POLICY__RESTART_NEVER : spec ? spec_restart(spec) : (Model__RestartPolicy)i->c.restart;
}

static void start_again(struct agent_step *s, struct agent_instance *i) {
  Model__RestartPolicy policy = agent_instance_restart(i);
  const char *oom = i->c.oom_killed ? ", out of memory" : "";
  bool will_not = policy == MODEL__RESTART_POLICY__RESTART_NEVER ||
                  (policy == MODEL__RESTART_POLICY__RESTART_ON_FAILURE && i->c.exit_code == 0 && !i->forced_restart);
  if (will_not && i->words_ns && i->phase != MODEL__PHASE__PHASE_EXITED) { /* its end is told with its last words, unless it was told before */
    set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "exit code %" PRId32 "%s", i->c.exit_code, oom);
  } else if (will_not) {
    i->next_try = 0;
    set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "exit code %" PRId32 "%s", i->c.exit_code, oom);
  } else if (waiting(s, i)) {
    if (i->phase != MODEL__PHASE__PHASE_FAILED)
      set_phase(s, i, MODEL__PHASE__PHASE_BACKOFF, "exit code %" PRId32 "%s%s%s", i->c.exit_code, oom,
                i->restart_reason[0] && i->forced_restart ? "; " : "", i->forced_restart ? i->restart_reason : "");
  } else {
    start(s, i);
  }
}

static void keep_running(struct agent_step *s, struct agent_instance *i) {
  if (i->want == AGENT_WANT_RUN && !agent_instance_spec(i)) {
    set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "its revision is not known here yet");
    return;
  }
  if (mismatch(i) && i->c.state != AGENT_C_NONE && i->c.state != AGENT_C_UNKNOWN) {
    replace(s, i);
    return;
  }
  if (is_job(i) && (i->c.state == AGENT_C_RUNNING || i->c.state == AGENT_C_EXITED || (i->c.state == AGENT_C_BROKEN && i->c.started_ns)))
    i->ran = true;
  switch (i->c.state) {
  case AGENT_C_UNKNOWN:
    if (!waiting(s, i))
      begin(s, i, AGENT_OP_INSPECT);
    return;
  case AGENT_C_NONE:
    if (i->ran) /* once is once, whoever took it away */
      set_phase(s, i, MODEL__PHASE__PHASE_EXITED, "its container is gone");
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
      set_phase(s, i, MODEL__PHASE__PHASE_STOPPING, "%s", i->restart_reason);
      stop(s, i);
    } else if (!i->c.detailed) {
      if (!waiting(s, i))
        begin(s, i, AGENT_OP_INSPECT);
    } else {
      i->next_try = 0;
      set_running(s, i);
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
      set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "Docker: %s", s->core->docker_error[0] ? s->core->docker_error : "not connected yet");
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

/* ---- what is wanted ---- */

/* A crash loop goes on where it was when the agent was replaced: its count, its pace, its last words. What this process has seen already comes on
 * top. */
static void take_over_past(struct agent_step *s, struct agent_instance *i, const Model__InstanceStatus *past) {
  if (i->past_known || !past || past->epoch != i->assigned->instance->epoch || strcmp(PB_STR(past->node), s->core->node) != 0)
    return;
  unsigned failures = past->restarts < FAILURES_TAKEN_OVER ? past->restarts : FAILURES_TAKEN_OVER;
  bool ran_well =
      past->phase == MODEL__PHASE__PHASE_RUNNING && past->started_ms && s->now.wall_ms - past->started_ms >= AGENT_BACKOFF_RESET / NS_PER_MS;
  i->restarts += past->restarts;
  if (is_job(i) && (past->phase == MODEL__PHASE__PHASE_RUNNING || past->phase == MODEL__PHASE__PHASE_EXITED)) {
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
    if (!i->c.id[0] || !is_of_assigned(i)) {
      i->restarts = 0;
      i->crash.failures = 0;
      i->next_try = 0;
      set_phase(s, i, MODEL__PHASE__PHASE_WAITING, "%s", ""); /* what was before it says nothing of it, and Docker may be away */
    }
  }
  take_over_past(s, i, assigned->status);
  i->past_known = true;
  i->status_seq = ++s->core->status_seq;
  refresh_ready(s, i);
}

void agent_instance_unassign(struct agent_step *s, struct agent_instance *i) {
  (void)s;
  if (i->want == AGENT_WANT_NONE)
    return;
  i->want = AGENT_WANT_NONE;
  i->next_try = 0;
  i->stop_tries = 0;
}

/* ---- what Docker says ---- */

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
      fail(s, i, "create", "its container name is taken, and Docker shows no container that has it");
    return;
  }
  if (ev->code != ERR_NONE) {
    i->look_failed = true;
    set_phase(s, i, i->phase, "inspect: %s", ev->text);
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
    fail(s, i, "create", "its container name is taken by a container that is not this node's");
    return;
  }
  struct agent_container before = i->c;
  i->c = *c;
  i->c.detailed = true;
  bool new_run = c->started_ns != before.started_ns || strcmp(c->id, before.id) != 0;
  bool began = is_job(i) && is_of_assigned(i) && !i->ran && c->started_ns; /* whatever was answered to its start: this is its run, and its result */
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
      fail(s, i, "create", ev->text);
    return;
  }
  if (ev->code == ERR_NOT_FOUND) {
    struct agent_image *image = i->want == AGENT_WANT_RUN ? agent_image_for(s, i) : NULL;
    if (image)
      agent_image_lost(image);
  }
  fail(s, i, "create", ev->text);
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
    fail(s, i, "start", ev->text);
    return;
  }
  /* Docker leaves a container that could not start as "created" or "exited" with its fault inside: made anew, it gets another chance. */
  i->recreate = true;
  int64_t at = s->now.wall_ms * NS_PER_MS, handled = noted(s, i->exit_handled_ns);
  i->exit_handled_ns = at > handled ? at : handled;
  fail(s, i, "start", ev->text);
}

static void stopped(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (ev->code == ERR_NONE || ev->code == ERR_NOT_FOUND || ev->code == ERR_CONFLICT) {
    bool winding_down = i->want == AGENT_WANT_STOP || i->want == AGENT_WANT_NONE || mismatch(i);
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
    set_phase(s, i, i->phase, "remove: %s", ev->text);
}

void agent_instance_done(struct agent_step *s, struct agent_instance *i, const struct agent_event *ev) {
  if (i->op == AGENT_OP_NONE || ev->op != i->op_id)
    return;
  enum agent_op op = i->op;
  end(s, i);
  if ((ev->code == ERR_UNAVAILABLE || ev->code == ERR_CANCELLED) && op != AGENT_OP_PREPARE) {
    /* Docker is going away: whether it was done, nobody knows. */
    i->c.state = AGENT_C_UNKNOWN;
    i->next_try = s->now.mono_ns + LOST_RETRY;
    return;
  }
  switch (op) {
  case AGENT_OP_PREPARE:
    if (ev->code == ERR_NONE)
      i->prepared = !i->other_meanwhile;
    else
      fail(s, i, "prepare", ev->text);
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
    end(s, i);
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
      end(s, i);
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
  refresh_ready(s, i);
  if (!ev->live && !i->restart_wanted && (i->want == AGENT_WANT_RUN || i->want == AGENT_WANT_KEEP)) {
    i->restart_wanted = true;
    i->stop_tries = 0;
    agent_copy(i->restart_reason, sizeof i->restart_reason, ev->verdict.reason);
    agent_history(s, i, "instance.unhealthy", "warn", "%s", ev->verdict.reason);
  }
}
