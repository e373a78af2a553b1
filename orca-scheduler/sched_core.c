#include "orca-scheduler/sched_core.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-scheduler/needs.h"
#include "orca-scheduler/rollout.h"
#include "orca-scheduler/sched_copy.h"
#include "orca-scheduler/sched_jobs.h"
#include "orca-scheduler/sched_run.h"
#include "orca-scheduler/sched_where.h"

/* Of an instance whose revision was removed before this scheduler came: as by default. */
#define GONE_MIN_READY_MS 5000
#define GONE_DRAIN_MS 65000

struct sched_core {
  struct sched_state state;
  struct rollout_instance *scratch;
  struct sched_instance **scratch_of; /* whose they are */
  size_t scratch_size;
  int64_t last_event_ms;
  uint32_t last_event_seq;
  bool patient; /* a copy to plan with: no rollout runs out of time */
};

struct sched_core *sched_core_new(void) {
  struct sched_core *core = calloc(1, sizeof *core);
  if (core)
    sched_state_init(&core->state);
  return core;
}

void sched_core_free(struct sched_core *core) {
  if (!core)
    return;
  sched_state_fini(&core->state);
  free(core->scratch);
  free(core->scratch_of);
  free(core);
}

struct sched_core *sched_core_copy(const struct sched_core *core, int64_t now_ms, struct err *err) {
  struct sched_core *copy = sched_core_new();
  if (!copy) {
    err_set(err, ERR_MEMORY, "no memory for a core");
    return NULL;
  }
  if (sched_state_copy(&copy->state, &core->state, now_ms, err) < 0) {
    sched_core_free(copy);
    return NULL;
  }
  copy->patient = true;
  return copy;
}

void sched_core_zones(struct sched_core *core, struct zone *(*load)(const char *name, struct err *err)) {
  core->state.load_zone = load;
}

const struct sched_state *sched_core_state(const struct sched_core *core) {
  return &core->state;
}

/* ---- actions ---- */

static void clear(struct sched_actions *actions) {
  for (size_t i = 0; i < actions->count; i++)
    free(actions->list[i].value);
  actions->count = 0;
  actions->next_ms = ROLLOUT_NEVER;
  actions->more = false;
}

void sched_actions_fini(struct sched_actions *actions) {
  clear(actions);
  free(actions->list);
  *actions = (struct sched_actions){0};
}

static struct sched_action *add(struct run *run, enum sched_action_kind kind) {
  struct sched_actions *actions = run->actions;
  if (actions->count == actions->size) {
    size_t size = actions->size ? actions->size * 2 : 32;
    struct sched_action *list = reallocarray(actions->list, size, sizeof *list);
    if (!list)
      return NULL;
    actions->list = list;
    actions->size = size;
  }
  struct sched_action *action = &actions->list[actions->count++];
  action->kind = kind;
  action->value = NULL;
  action->len = 0;
  return action;
}

static int pack_into(struct sched_action *action, const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  action->value = malloc(len ? len : 1);
  if (!action->value)
    return -1;
  action->len = protobuf_c_message_pack(message, action->value);
  return 0;
}

static int put_instance(struct run *run, const struct sched_instance *instance) {
  struct sched_action *action = add(run, SCHED_ACTION_PUT);
  if (!action)
    return -1;
  key_numbered(action->key, KEY_INSTANCES, instance->service->project, instance->service->name, instance->number);
  return pack_into(action, &instance->record->base);
}

static int put_rollout(struct run *run, const struct sched_service *service) {
  struct sched_action *action = add(run, SCHED_ACTION_PUT);
  if (!action)
    return -1;
  key_service(action->key, KEY_ROLLOUTS, service->project, service->name);
  return pack_into(action, &service->rollout->base);
}

static int set_text(char **field, const char *text) {
  if (*field && strcmp(*field, text) == 0)
    return 0;
  if (!*field && !*text)
    return 0;
  char *copy = strdup(text);
  if (!copy)
    return -1;
  free(*field);
  *field = copy;
  return 0;
}

/* ---- events for people ---- */

static int trim_history(struct run *run) {
  struct sched_state *state = &run->core->state;
  if (state->history_count <= SCHED_MAX_HISTORY)
    return 0;
  struct sched_action *action = add(run, SCHED_ACTION_DELETE);
  if (!action)
    return -1;
  const struct sched_event_key *oldest = &state->history[state->history_first];
  key_event(action->key, KEY_HISTORY_SCHEDULER, oldest->ms, oldest->seq);
  state->history_first = (state->history_first + 1) % state->history_size;
  state->history_count--;
  return 0;
}

/* number: 0 when it is about the whole service. */
static int tell(struct run *run, const struct sched_service *service, uint64_t number, const char *severity, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
static int tell(struct run *run, const struct sched_service *service, uint64_t number, const char *severity, const char *kind, const char *fmt, ...) {
  struct sched_core *core = run->core;
  struct sched_state *state = &core->state;
  if (state->history_count) {
    const struct sched_event_key *newest = &state->history[(state->history_first + state->history_count - 1) % state->history_size];
    if (newest->ms > core->last_event_ms || (newest->ms == core->last_event_ms && newest->seq > core->last_event_seq)) {
      core->last_event_ms = newest->ms;
      core->last_event_seq = newest->seq;
    }
  }
  /* Keys must grow, also when the clock does not. */
  if (run->now > core->last_event_ms) {
    core->last_event_ms = run->now;
    core->last_event_seq = 0;
  } else {
    core->last_event_seq++;
  }
  char message[2 * ROLLOUT_TEXT];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, run->now);
  event.kind = (char *)(uintptr_t)kind;
  event.project = (char *)(uintptr_t)service->project;
  event.service = (char *)(uintptr_t)service->name;
  if (number)
    PB_SET(&event, instance, number);
  event.message = message;
  event.severity = (char *)(uintptr_t)severity;
  event.actor = (char *)(uintptr_t) "scheduler";
  struct sched_action *action = add(run, SCHED_ACTION_PUT);
  if (!action)
    return -1;
  key_event(action->key, KEY_HISTORY_SCHEDULER, core->last_event_ms, core->last_event_seq);
  if (pack_into(action, &event.base) < 0 || sched_history_add(state, core->last_event_ms, core->last_event_seq) < 0)
    return -1;
  return trim_history(run);
}

static int tell_rollout(struct run *run, const struct sched_service *service, const struct rollout *rollout, enum rollout_event event) {
  uint64_t revision = rollout->revision;
  switch (event) {
  case ROLLOUT_STARTED:
    if (rollout->stable_revision && rollout->stable_revision != revision)
      return tell(run, service, 0, "info", "rollout.started", "revision %" PRIu64 " replaces %" PRIu64, revision, rollout->stable_revision);
    return tell(run, service, 0, "info", "rollout.started", "revision %" PRIu64, revision);
  case ROLLOUT_COMPLETED:
    return tell(run, service, 0, "info", "rollout.completed", "revision %" PRIu64, revision);
  case ROLLOUT_HAS_FAILED:
    return tell(run, service, 0, "error", "rollout.failed", "revision %" PRIu64 ": %s", revision, rollout->reason);
  case ROLLOUT_GOES_BACK:
    return tell(run, service, 0, "error", "rollout.rolling_back", "revision %" PRIu64 " goes back to %" PRIu64 ": %s", revision,
                rollout->stable_revision, rollout->reason);
  case ROLLOUT_WENT_BACK:
    return tell(run, service, 0, "warn", "rollout.rolled_back", "revision %" PRIu64 " went back to %" PRIu64 ": %s", revision,
                rollout->stable_revision, rollout->reason);
  }
  return 0;
}

/* ---- a service's instances, as rollout.c sees them ---- */

static int make_room(struct sched_core *core, size_t count) {
  if (count <= core->scratch_size)
    return 0;
  size_t size = count * 2;
  struct rollout_instance *scratch = reallocarray(core->scratch, size, sizeof *scratch);
  if (scratch)
    core->scratch = scratch;
  struct sched_instance **of = reallocarray(core->scratch_of, size, sizeof(struct sched_instance *));
  if (of)
    core->scratch_of = of;
  if (!scratch || !of)
    return -1;
  core->scratch_size = size;
  return 0;
}

static bool waits_for_secret(const Model__InstanceStatus *status) {
  for (size_t i = 0; status && i < status->n_secrets; i++)
    if (!PB_GET(status->secrets[i], version, 0))
      return true;
  return false;
}

static void describe(const struct sched_core *core, int64_t now, struct sched_instance *instance, struct rollout_instance *ret) {
  const Model__Instance *record = instance->record;
  const Model__InstanceStatus *status = sched_instance_status(instance);
  const struct sched_revision *revision =
      instance->counted ? instance->counted_as : sched_service_revision(instance->service, PB_GET(record, revision, 0));
  const struct place_node *node = instance->counted || !*PB_STR(record->node) ? instance->counted : place_node_find(&core->state.nodes, record->node);
  Model__Phase phase = status ? PB_GET(status, phase, MODEL__PHASE__PHASE_WAITING) : MODEL__PHASE__PHASE_WAITING;
  *ret = (struct rollout_instance){
      .number = instance->number,
      .revision = instance->orphan ? 0 : PB_GET(record, revision, 0), /* 0 is nobody's: it is replaced */
      .generation = PB_GET(record, generation, 0),
      .desired = PB_GET(record, desired, MODEL__DESIRED__DESIRED_RUN),
      .desired_since_ms = PB_GET(record, desired_since_ms, 0),
      .placed = *PB_STR(record->node) != 0,
      .node_exists = node && node->record,
      .reported = status != NULL,
      .running = phase == MODEL__PHASE__PHASE_RUNNING,
      .cannot_start = phase == MODEL__PHASE__PHASE_FAILED,
      .held = waits_for_secret(status),
      .ready = status && PB_GET(status, ready, 0),
      .drained = status && PB_GET(status, drained, 0),
      .restarts = status ? PB_GET(status, restarts, 0) : 0,
      .ready_since_ms = instance->ready_since_ms,
      .first_ready_ms = instance->first_ready_ms,
      .min_ready_ms = revision ? revision->min_ready_ms : GONE_MIN_READY_MS,
      .drain_limit_ms = revision ? revision->drain_limit_ms : GONE_DRAIN_MS,
      .detail = status && *PB_STR(status->reason) ? status->reason : PB_STR(record->reason),
  };
  instance->was_available |= rollout_available(ret, now);
  ret->was_available = instance->was_available;
}

static size_t describe_all(struct sched_core *core, const struct sched_service *service, int64_t now) {
  size_t count = 0;
  for (size_t i = 0; i < service->instance_count; i++)
    if (service->instances[i]->record && !PB_GET(service->instances[i]->record, job, 0)) {
      core->scratch_of[count] = service->instances[i];
      describe(core, now, service->instances[i], &core->scratch[count++]);
    }
  return count;
}

static void copy_text(char out[ROLLOUT_TEXT], const char *text) {
  snprintf(out, ROLLOUT_TEXT, "%s", PB_STR(text));
}

static void read_rollout(const struct sched_service *service, struct rollout *ret) {
  *ret = (struct rollout){.state = MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING};
  const Model__Rollout *r = service->rollout;
  if (!r || service->rollout_is_old)
    return;
  ret->state = PB_GET(r, state, MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE);
  ret->revision = PB_GET(r, revision, 0);
  ret->generation = PB_GET(r, generation, 0);
  ret->stable_revision = PB_GET(r, stable_revision, 0);
  ret->stable_generation = PB_GET(r, stable_generation, 0);
  ret->started_ms = PB_GET(r, started_ms, 0);
  ret->progress_ms = PB_GET(r, progress_ms, 0);
  ret->held = PB_GET(r, held, false);
  copy_text(ret->reason, r->reason);
  copy_text(ret->phase, r->phase);
}

/* Into the record, which keeps what this version does not know. */
static int write_rollout(struct run *run, struct sched_service *service, const struct rollout *rollout, uint64_t next_number) {
  if (!service->rollout) {
    Model__Rollout empty = MODEL__ROLLOUT__INIT;
    service->rollout = (Model__Rollout *)pb_clone(&empty.base);
    if (!service->rollout)
      return -1;
  }
  Model__Rollout *r = service->rollout;
  if (set_text(&r->project, service->project) < 0 || set_text(&r->service, service->name) < 0 || set_text(&r->reason, rollout->reason) < 0 ||
      set_text(&r->phase, rollout->phase) < 0)
    return -1;
  PB_SET(r, state, rollout->state);
  PB_SET(r, revision, rollout->revision);
  PB_SET(r, generation, rollout->generation);
  PB_SET(r, stable_revision, rollout->stable_revision);
  PB_SET(r, stable_generation, rollout->stable_generation);
  PB_SET(r, started_ms, rollout->started_ms);
  PB_SET(r, progress_ms, rollout->progress_ms);
  run->core->state.retry |= PB_GET(r, held, false) != rollout->held; /* so are those that wait for it */
  PB_SET(r, held, rollout->held);
  PB_SET(r, next_number, next_number);
  PB_SET(r, updated_ms, run->now);
  service->rollout_is_old = false;
  return put_rollout(run, service);
}

static uint64_t next_number(const struct sched_service *service) {
  uint64_t next = service->rollout ? PB_GET(service->rollout, next_number, 1) : 1;
  /* A status that outlived its instance also holds its number. */
  uint64_t last = service->instance_count ? service->instances[service->instance_count - 1]->number : 0;
  return next > last ? next : last + 1;
}

/* ---- placing ---- */

static void free_verdicts(Model__Instance *record) {
  for (size_t i = 0; i < record->n_verdicts; i++)
    protobuf_c_message_free_unpacked(&record->verdicts[i]->base, NULL);
  free(record->verdicts);
  record->verdicts = NULL;
  record->n_verdicts = 0;
}

static Model__NodeVerdict *new_verdict(const struct place_verdict *from) {
  Model__NodeVerdict *verdict = malloc(sizeof *verdict);
  if (!verdict)
    return NULL;
  model__node_verdict__init(verdict);
  verdict->node = strdup(from->node);
  verdict->reason = strdup(from->reason);
  if (from->chosen)
    PB_SET(verdict, chosen, 1);
  PB_SET(verdict, fits, from->fits);
  if (verdict->node && verdict->reason)
    return verdict;
  protobuf_c_message_free_unpacked(&verdict->base, NULL);
  return NULL;
}

static int set_verdicts(Model__Instance *record, const struct place_answer *answer) {
  free_verdicts(record);
  if (!answer->verdict_count)
    return 0;
  record->verdicts = calloc(answer->verdict_count, sizeof(Model__NodeVerdict *));
  if (!record->verdicts)
    return -1;
  while (record->n_verdicts < answer->verdict_count) {
    Model__NodeVerdict *verdict = new_verdict(&answer->verdicts[record->n_verdicts]);
    if (!verdict)
      return -1;
    record->verdicts[record->n_verdicts++] = verdict;
  }
  return 0;
}

static bool same_verdicts(const Model__Instance *record, const struct place_answer *answer) {
  if (record->n_verdicts != answer->verdict_count)
    return false;
  for (size_t i = 0; i < record->n_verdicts; i++)
    if (strcmp(PB_STR(record->verdicts[i]->node), answer->verdicts[i].node) != 0 ||
        strcmp(PB_STR(record->verdicts[i]->reason), answer->verdicts[i].reason) != 0)
      return false;
  return true;
}

/* It stays pending. fresh: it was made in this step and is written in any case. */
static int keep_pending(struct run *run, struct sched_instance *instance, const struct place_answer *answer, bool fresh) {
  Model__Instance *record = instance->record;
  bool first = !*PB_STR(record->reason);
  if (!fresh && strcmp(PB_STR(record->reason), answer->reason) == 0 && same_verdicts(record, answer))
    return 0;
  if (set_text(&record->reason, answer->reason) < 0 || set_verdicts(record, answer) < 0 || put_instance(run, instance) < 0)
    return -1;
  return first ? tell(run, instance->service, instance->number, "warn", "instance.pending", "%s", answer->reason) : 0;
}

static int give_node(struct run *run, struct sched_instance *instance, const struct place_answer *answer) {
  Model__Instance *record = instance->record;
  if (sched_instance_place(&run->core->state, instance, answer->node) < 0 || set_text(&record->reason, "") < 0 || set_verdicts(record, answer) < 0)
    return -1;
  PB_SET(record, desired_since_ms, run->now);
  return put_instance(run, instance);
}

static bool is_pending(const struct sched_instance *instance) {
  return instance->record && !instance->leaves && !*PB_STR(instance->record->node) &&
         PB_GET(instance->record, desired, MODEL__DESIRED__DESIRED_RUN) == MODEL__DESIRED__DESIRED_RUN;
}

/* Pending instances of one service, revision by revision as they come. */
struct placing {
  const struct sched_revision *revision; /* what `where` was gathered for */
  struct sched_where where;
  struct place_answer answer;
  bool open, hopeless; /* hopeless: the revision fits nowhere, or waits; `answer` says why */
};

static int open_placing(struct run *run, struct placing *p, const struct sched_service *service, const struct sched_revision *revision) {
  if (p->open)
    sched_where_fini(&p->where);
  p->open = p->hopeless = false;
  if (sched_where_init(&p->where, &run->core->state, service, revision) < 0)
    return -1;
  p->open = true;
  p->revision = revision;
  char why[ROLLOUT_TEXT];
  bool held;
  if (sched_dependencies_ready(&run->core->state, service, revision, why, &held))
    return 0;
  p->hopeless = true;
  p->answer.verdict_count = 0;
  snprintf(p->answer.reason, sizeof p->answer.reason, "%.150s", why);
  return 0;
}

static int keep_on_hold(struct run *run, struct sched_instance *instance, bool fresh) {
  struct place_answer answer;
  answer.verdict_count = 0;
  snprintf(answer.reason, sizeof answer.reason, "waits for what still runs of the job");
  return keep_pending(run, instance, &answer, fresh);
}

static int place_one(struct run *run, struct placing *p, struct sched_instance *instance, bool fresh) {
  struct sched_state *state = &run->core->state;
  if (instance->on_hold)
    return keep_on_hold(run, instance, fresh);
  const struct sched_service *service = instance->service;
  const struct sched_revision *revision = sched_service_revision(service, PB_GET(instance->record, revision, 0));
  if (!revision)
    return 0;
  if ((!p->open || p->revision != revision) && open_placing(run, p, service, revision) < 0)
    return -1;
  if (p->hopeless)
    return keep_pending(run, instance, &p->answer, fresh);
  if (place_instance(&state->nodes, &p->where.request, &p->answer) < 0)
    return -1;
  if (p->answer.node) {
    if (give_node(run, instance, &p->answer) < 0)
      return -1;
    return sched_where_placed(&p->where, state, service, revision, p->answer.node);
  }
  if (keep_pending(run, instance, &p->answer, fresh) < 0)
    return -1;
  /* Nothing gets roomier within a step: the others of this revision need not ask, and the verdicts are kept once. */
  p->hopeless = true;
  p->answer.verdict_count = 0;
  return 0;
}

static bool full(const struct run *run) {
  return run->actions->count >= SCHED_MAX_ACTIONS;
}

/* jobs: those of its job, else its own: whoever decides about one places it too. */
static int place_pending(struct run *run, struct sched_service *service, bool jobs, uint64_t fresh_from) {
  struct placing p = {0};
  int rc = 0;
  for (size_t i = 0; i < service->instance_count && rc == 0; i++) {
    struct sched_instance *instance = service->instances[i];
    if (!is_pending(instance) || !!PB_GET(instance->record, job, 0) != jobs)
      continue;
    bool fresh = instance->number >= fresh_from;
    if (!fresh && full(run))
      run->actions->more = true;
    else
      rc = place_one(run, &p, instance, fresh);
    service->pending += is_pending(instance);
  }
  if (p.open)
    sched_where_fini(&p.where);
  if (run->actions->more)
    sched_state_touch(&run->core->state, service);
  return rc;
}

/* ---- one service ---- */

static int apply_fate(struct run *run, struct sched_instance *instance, const struct rollout_instance *decided) {
  Model__Instance *record = instance->record;
  if (decided->fate == ROLLOUT_DELETE) {
    struct sched_action *action = add(run, SCHED_ACTION_DELETE);
    if (!action)
      return -1;
    key_numbered(action->key, KEY_INSTANCES, instance->service->project, instance->service->name, instance->number);
    sched_instance_drop(&run->core->state, instance);
    return 0;
  }
  PB_SET(record, desired, decided->fate == ROLLOUT_DRAIN ? MODEL__DESIRED__DESIRED_DRAIN : MODEL__DESIRED__DESIRED_STOP);
  PB_SET(record, desired_since_ms, run->now);
  if (set_text(&record->reason, decided->why) < 0)
    return -1;
  return put_instance(run, instance);
}

/* 1: not all of them, there is no more room in this transaction. */
static int apply_fates(struct run *run, size_t count) {
  struct sched_core *core = run->core;
  for (size_t i = 0; i < count; i++) {
    if (core->scratch[i].fate == ROLLOUT_KEEP)
      continue;
    if (full(run))
      return 1;
    if (apply_fate(run, core->scratch_of[i], &core->scratch[i]) < 0)
      return -1;
  }
  return 0;
}

static int create(struct run *run, struct sched_service *service, uint64_t number, uint64_t revision, uint64_t generation) {
  Model__Instance empty = MODEL__INSTANCE__INIT;
  Model__Instance *record = (Model__Instance *)pb_clone(&empty.base);
  if (!record)
    return -1;
  record->project = strdup(service->project);
  record->service = strdup(service->name);
  record->node = strdup("");
  if (!record->project || !record->service || !record->node) {
    protobuf_c_message_free_unpacked(&record->base, NULL);
    return -1;
  }
  PB_SET(record, number, number);
  PB_SET(record, revision, revision);
  PB_SET(record, generation, generation);
  PB_SET(record, epoch, 1);
  PB_SET(record, desired, MODEL__DESIRED__DESIRED_RUN);
  PB_SET(record, created_ms, run->now);
  PB_SET(record, desired_since_ms, run->now);
  return sched_state_add(&run->core->state, service, number, record) ? 0 : -1;
}

static void fill_input(const struct sched_core *core, const struct sched_service *service, const struct rollout *rollout, char waiting[ROLLOUT_TEXT],
                       struct rollout_input *ret) {
  *ret = (struct rollout_input){0};
  if (!service->record)
    return;
  ret->exists = true;
  ret->revision = PB_GET(service->record, revision, 0);
  ret->generation = PB_GET(service->record, generation, 0);
  ret->replicas = PB_GET(service->record, replicas, 1);
  ret->stopped = PB_GET(service->record, stopped, 0);
  ret->watched_from_ms = core->state.synced_ms;
  const struct sched_revision *target = sched_service_revision(service, ret->revision);
  const struct sched_revision *stable = sched_service_revision(service, rollout->stable_revision);
  ret->revision_known = target && !target->gone;
  ret->stable_known = stable && !stable->gone;
  if (ret->revision_known) {
    ret->policy = target->policy;
    bool held;
    if (!sched_dependencies_ready(&core->state, service, target, waiting, &held))
      ret->waiting = waiting;
    ret->waits_for_held = held;
  }
  if (ret->stable_known)
    ret->stable_policy = stable->policy;
  if (core->patient)
    ret->policy.timeout_ms = ret->stable_policy.timeout_ms = UINT64_MAX;
}

static int forget_rollout(struct run *run, struct sched_service *service) {
  struct sched_action *action = add(run, SCHED_ACTION_DELETE);
  if (!action)
    return -1;
  key_service(action->key, KEY_ROLLOUTS, service->project, service->name);
  protobuf_c_message_free_unpacked(&service->rollout->base, NULL);
  service->rollout = NULL;
  return 0;
}

static size_t records(const struct sched_service *service) {
  size_t count = 0;
  for (size_t i = 0; i < service->instance_count; i++)
    count += service->instances[i]->record && !PB_GET(service->instances[i]->record, job, 0);
  return count;
}

static int advance(struct run *run, struct sched_service *service, struct rollout *rollout, const struct rollout_output *out) {
  uint64_t first = next_number(service), next = first;
  size_t room = SCHED_MAX_ACTIONS - run->actions->count, want = out->create;
  if (want > room) {
    run->actions->more = true;
    want = room;
  }
  for (size_t i = 0; i < want; i++)
    if (create(run, service, next++, out->create_revision, out->create_generation) < 0)
      return -1;
  if (place_pending(run, service, false, first) < 0)
    return -1;
  if ((out->changed || next != first) && write_rollout(run, service, rollout, next) < 0)
    return -1;
  for (size_t i = 0; i < out->event_count; i++)
    if (tell_rollout(run, service, rollout, out->events[i]) < 0)
      return -1;
  return 0;
}

/* ---- for sched_jobs.c ---- */

int run_put(struct run *run, const char *key, const ProtobufCMessage *message) {
  struct sched_action *action = add(run, SCHED_ACTION_PUT);
  if (!action)
    return -1;
  snprintf(action->key, sizeof action->key, "%s", key);
  return pack_into(action, message);
}

int run_delete(struct run *run, const char *key) {
  struct sched_action *action = add(run, SCHED_ACTION_DELETE);
  if (!action)
    return -1;
  snprintf(action->key, sizeof action->key, "%s", key);
  return 0;
}

int run_put_instance(struct run *run, const struct sched_instance *instance) {
  return put_instance(run, instance);
}

int run_set_text(char **field, const char *text) {
  return set_text(field, text);
}

int run_tell(struct run *run, const struct sched_service *service, uint64_t number, const char *severity, const char *kind, const char *fmt, ...) {
  char message[2 * ROLLOUT_TEXT];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  return tell(run, service, number, severity, kind, "%s", message);
}

struct sched_instance *run_create_instance(struct run *run, struct sched_service *service, uint64_t number, uint64_t revision, uint64_t generation) {
  return create(run, service, number, revision, generation) < 0 ? NULL : sched_service_instance(service, number);
}

int run_place_pending(struct run *run, struct sched_service *service, uint64_t fresh_from) {
  return place_pending(run, service, true, fresh_from);
}

struct sched_state *run_state(struct run *run) {
  return &run->core->state;
}

static int step_service(struct run *run, struct sched_service *service) {
  struct sched_core *core = run->core;
  service->pending = 0;
  if (make_room(core, service->instance_count + 1) < 0)
    return -1;
  struct rollout rollout;
  read_rollout(service, &rollout);
  struct rollout_input input;
  char waiting[ROLLOUT_TEXT];
  fill_input(core, service, &rollout, waiting, &input);
  size_t count = describe_all(core, service, run->now);
  struct rollout_output out;
  rollout_step(&input, &rollout, core->scratch, count, run->now, &out);
  service->wake_ms = out.next_ms;
  int rc = apply_fates(run, count);
  if (rc < 0)
    return -1;
  if (rc == 1 || full(run)) {
    /* What was decided on top of those that did not fit is decided again, once they are written. */
    run->actions->more = true;
    sched_state_touch(&core->state, service);
    return 0;
  }
  if (input.exists && input.revision_known)
    return advance(run, service, &rollout, &out);
  if (!input.exists && service->rollout && records(service) == 0)
    return forget_rollout(run, service);
  return 0;
}

/* In a copy to plan with, jobs stay as they are. */
static int step_job(struct run *run, struct sched_service *service) {
  if (run->core->patient)
    return 0;
  if (!run->actions->more && run->actions->count <= SCHED_MAX_ACTIONS / 2)
    return sched_jobs_step(run, service);
  if (service->job) { /* one may need as many again */
    run->actions->more = true;
    sched_state_touch(&run->core->state, service);
  }
  return 0;
}

static int run_all(struct run *run) {
  struct sched_state *state = &run->core->state;
  for (size_t i = 0; i < state->count; i++) {
    struct sched_service *service = state->list[i];
    if (service->wake_ms <= run->now || sched_jobs_due(service, run->now, run->wall) || (state->retry && service->pending))
      sched_state_touch(state, service);
  }
  state->retry = false;
  while (!full(run) && !run->actions->more) {
    struct sched_service *service = sched_state_next(state);
    if (!service)
      break;
    if (step_service(run, service) < 0)
      return -1;
    if (step_job(run, service) < 0)
      return -1;
    sched_state_tidy(state, service);
  }
  /* Room that this very step has made: those that wait for it are asked again. */
  if (state->dirty || state->retry)
    run->actions->more = true;
  for (size_t i = 0; i < state->count; i++) {
    int64_t of_job = sched_jobs_next(state->list[i], run->now, run->wall);
    int64_t next = state->list[i]->wake_ms < of_job ? state->list[i]->wake_ms : of_job;
    if (next < run->actions->next_ms)
      run->actions->next_ms = next;
  }
  return 0;
}

int sched_core_step(struct sched_core *core, const struct sched_event *event, int64_t now_ms, struct sched_actions *actions, struct err *err) {
  clear(actions);
  switch (event->kind) {
  case SCHED_EVENT_PUT:
    return sched_state_put(&core->state, event->key, event->value, event->len, now_ms, err);
  case SCHED_EVENT_DELETE:
    return sched_state_delete(&core->state, event->key, err);
  case SCHED_EVENT_SYNCED:
    core->state.synced = true;
    core->state.synced_ms = now_ms;
    return 0;
  case SCHED_EVENT_RUN: {
    struct run run = {core, actions, now_ms, event->wall_ms ? event->wall_ms : now_ms};
    return run_all(&run) < 0 ? err_set(err, ERR_MEMORY, "no memory to decide with") : 0;
  }
  }
  return 0;
}
