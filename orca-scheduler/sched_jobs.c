#include "orca-scheduler/sched_jobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/cron/zone.h"
#include "common/spec/spec.h"
#include "orca-scheduler/job_core.h"

#define CLOCK_CHECK_MS 60000
#define EXIT_UNKNOWN 255

static void free_message(void *message) {
  if (message)
    protobuf_c_message_free_unpacked(message, NULL);
}

/* ---- the state ---- */

static struct sched_job *want_job(struct sched_service *service) {
  if (!service->job && (service->job = calloc(1, sizeof *service->job)))
    service->job->wake_ms = service->job->wake_wall_ms = JOB_NEVER;
  return service->job;
}

static size_t run_position(const struct sched_job *job, uint64_t number, bool *found) {
  size_t i = job->run_count;
  while (i > 0 && PB_GET(job->runs[i - 1], number, 0) > number)
    i--;
  *found = i > 0 && PB_GET(job->runs[i - 1], number, 0) == number;
  return *found ? i - 1 : i;
}

/* Takes record. */
static int put_run(struct sched_job *job, Model__JobRun *record) {
  bool found;
  size_t at = run_position(job, PB_GET(record, number, 0), &found);
  if (found && job->runs) {
    free_message(job->runs[at]);
    job->runs[at] = record;
    return 0;
  }
  if (job->run_count == job->run_size || !job->runs) {
    size_t size = job->run_size ? job->run_size * 2 : 8;
    Model__JobRun **list = reallocarray(job->runs, size, sizeof(Model__JobRun *));
    if (!list) {
      free_message(record);
      return -1;
    }
    job->runs = list;
    job->run_size = size;
  }
  memmove(job->runs + at + 1, job->runs + at, (job->run_count++ - at) * sizeof(Model__JobRun *));
  job->runs[at] = record;
  return 0;
}

static void drop_run(struct sched_job *job, uint64_t number) {
  bool found;
  size_t at = run_position(job, number, &found);
  if (!found)
    return;
  free_message(job->runs[at]);
  memmove(job->runs + at, job->runs + at + 1, (--job->run_count - at) * sizeof(Model__JobRun *));
}

int sched_jobs_put(struct sched_service *service, ProtobufCMessage *message) {
  struct sched_job *job = want_job(service);
  if (!job) {
    free_message(message);
    return -1;
  }
  if (message->descriptor == &model__job__descriptor) {
    free_message(job->record);
    job->record = (Model__Job *)message;
  } else if (message->descriptor == &model__job_state__descriptor) {
    free_message(job->state);
    job->state = (Model__JobState *)message;
  } else {
    return put_run(job, (Model__JobRun *)message);
  }
  return 0;
}

void sched_jobs_delete(struct sched_service *service, const ProtobufCMessageDescriptor *what, uint64_t number) {
  struct sched_job *job = service->job;
  if (!job)
    return;
  if (what == &model__job__descriptor) {
    free_message(job->record);
    job->record = NULL;
  } else if (what == &model__job_state__descriptor) {
    free_message(job->state);
    job->state = NULL;
  } else {
    drop_run(job, number);
  }
}

void sched_jobs_free(struct sched_job *job) {
  if (!job)
    return;
  for (size_t i = 0; i < job->run_count; i++)
    free_message(job->runs[i]);
  free(job->runs);
  free_message(job->record);
  free_message(job->state);
  zone_free(job->zone);
  free(job);
}

void sched_jobs_revision_gone(struct sched_service *service, const Model__Revision *record) {
  if (service->job && service->job->rules_of == record)
    service->job->rules_of = NULL;
}

bool sched_jobs_is_empty(const struct sched_service *service) {
  const struct sched_job *job = service->job;
  return !job || (!job->record && !job->state && !job->run_count);
}

/* ---- when ---- */

bool sched_jobs_due(const struct sched_service *service, int64_t now, int64_t wall) {
  const struct sched_job *job = service->job;
  if (!job)
    return false;
  bool put_back = (job->state && PB_GET(job->state, last_tick_ms, 0) - wall > JOB_CLOCK_BACK) ||
                  (job->record && job->wake_wall_ms != JOB_NEVER && PB_GET(job->record, updated_ms, 0) - wall > JOB_CLOCK_BACK);
  return job->wake_ms <= now || job->wake_wall_ms <= wall || put_back;
}

int64_t sched_jobs_next(const struct sched_service *service, int64_t now, int64_t wall) {
  const struct sched_job *job = service->job;
  if (!job)
    return JOB_NEVER;
  int64_t next = job->wake_ms;
  if (job->wake_wall_ms != JOB_NEVER) {
    int64_t in = job->wake_wall_ms > wall ? job->wake_wall_ms - wall : 0;
    int64_t at = now + (in < CLOCK_CHECK_MS ? in : CLOCK_CHECK_MS);
    next = at < next ? at : next;
  }
  return next;
}

/* ---- records → what job_core sees ---- */

static int read_rules(struct run *run, struct sched_job *job, const struct sched_revision *revision, struct job_rules *ret) {
  const Model__JobRules none = MODEL__JOB_RULES__INIT, *rules = revision->spec->job ? revision->spec->job : &none;
  *ret = (struct job_rules){.scheduled = *PB_STR(rules->schedule) != 0,
                            .overlap = PB_GET(rules, overlap, MODEL__OVERLAP__OVERLAP_FORBID),
                            .retries = PB_GET(rules, retries, 0),
                            .timeout_ms = PB_GET(rules, timeout_ms, 0),
                            .history = PB_GET(rules, history, 20)};
  if (job->rules_of != revision->record) {
    struct err err;
    const char *zone = *PB_STR(rules->tz) ? rules->tz : "UTC";
    zone_free(job->zone);
    job->zone = NULL;
    job->error[0] = 0;
    job->rules_of = revision->record;
    if (ret->scheduled && cron_parse(rules->schedule, &job->cron, &err) < 0)
      snprintf(job->error, sizeof job->error, "schedule: %.140s", err.msg);
    else if (ret->scheduled && strcmp(zone, "UTC") != 0 && !(run_state(run)->load_zone && (job->zone = run_state(run)->load_zone(zone, &err))))
      snprintf(job->error, sizeof job->error, "the time zone %.100s is not known to this master", zone);
  }
  ret->cron = job->cron;
  ret->offset = job->zone ? zone_offset : NULL;
  ret->offset_arg = job->zone;
  ret->error = job->error[0] ? job->error : NULL;
  return 0;
}

static void fill_input(const struct sched_service *service, const struct sched_revision *revision, struct job_input *ret) {
  const struct sched_job *job = service->job;
  *ret = (struct job_input){0};
  const Model__Job *record = job->record;
  if (!record)
    return;
  int64_t updated = PB_GET(record, updated_ms, 0), made = revision ? PB_GET(revision->record, created_ms, 0) : 0;
  ret->exists = true;
  ret->suspended = PB_GET(record, suspended, 0);
  ret->task = PB_GET(record, task, 0);
  ret->revision = PB_GET(record, revision, 0);
  ret->requested = PB_GET(record, requested, 0);
  ret->created_ms = PB_GET(record, created_ms, 0);
  ret->changed_ms = updated > made ? updated : made;
  ret->revision_known = revision && !revision->gone;
  ret->last_instance = service->instance_count ? service->instances[service->instance_count - 1]->number : 0;
}

static void fill_state(const Model__JobState *from, struct job_state *ret) {
  *ret = (struct job_state){0};
  if (!from)
    return;
  *ret = (struct job_state){.handled = PB_GET(from, handled, 0),
                            .first_number = PB_GET(from, first_number, 0),
                            .next_number = PB_GET(from, next_number, 0),
                            .next_instance = PB_GET(from, next_instance, 0),
                            .revision = PB_GET(from, revision, 0),
                            .last_tick_ms = PB_GET(from, last_tick_ms, 0),
                            .next_tick_ms = PB_GET(from, next_tick_ms, 0),
                            .created_ms = PB_GET(from, created_ms, 0),
                            .last_success_ms = PB_GET(from, last_success_ms, 0)};
  for (size_t i = 0; i < from->n_ended && i < JOB_STATES; i++)
    ret->ended[i] = from->ended[i];
  snprintf(ret->error, sizeof ret->error, "%s", PB_STR(from->error));
}

static void fill_run(const struct sched_service *service, const Model__JobRun *from, struct job_run *ret) {
  const struct sched_revision *revision = sched_service_revision(service, PB_GET(from, revision, 0));
  *ret = (struct job_run){.number = PB_GET(from, number, 0),
                          .revision = PB_GET(from, revision, 0),
                          .instance = PB_GET(from, instance, 0),
                          .state = PB_GET(from, state, MODEL__RUN_STATE__RUN_PENDING),
                          .scheduled_ms = PB_GET(from, scheduled_ms, 0),
                          .started_ms = PB_GET(from, started_ms, 0),
                          .ended_ms = PB_GET(from, ended_ms, 0),
                          .next_try_ms = PB_GET(from, next_try_ms, 0),
                          .attempts = PB_GET(from, attempts, 0),
                          .exit_code = PB_GET(from, exit_code, 0),
                          .exit_known = from->has_exit_code,
                          .request = PB_GET(from, request, 0),
                          .revision_gone = !revision || revision->gone};
  snprintf(ret->reason, sizeof ret->reason, "%s", PB_STR(from->reason));
}

static bool is_of_job(const struct sched_instance *instance) {
  return instance->record && PB_GET(instance->record, job, 0);
}

static void fill_instance(struct run *run, const struct sched_instance *from, struct job_instance *ret) {
  const Model__Instance *record = from->record;
  const Model__InstanceStatus *status = sched_instance_status(from);
  const struct place_node *node = *PB_STR(record->node) ? place_node_find(&run_state(run)->nodes, record->node) : NULL;
  Model__Phase phase = status ? PB_GET(status, phase, MODEL__PHASE__PHASE_WAITING) : MODEL__PHASE__PHASE_WAITING;
  bool placed = *PB_STR(record->node) != 0;
  bool known = node && node->record && node->status;
  bool away = known && PB_GET(node->status, state, 0) != MODEL__NODE_STATE__NODE_READY;
  *ret = (struct job_instance){
      .number = from->number,
      .placed = placed,
      .stopped = PB_GET(record, desired, MODEL__DESIRED__DESIRED_RUN) == MODEL__DESIRED__DESIRED_STOP,
      .lost = placed && !known,
      .unreachable_ms = placed && away ? node->away_since_ms : 0,
      .node_exists = node && node->record,
      .reported = status != NULL,
      .unseen = placed && !from->was_reported,
      .running = phase == MODEL__PHASE__PHASE_RUNNING,
      .ended = phase == MODEL__PHASE__PHASE_EXITED,
      .cannot_start = phase == MODEL__PHASE__PHASE_FAILED,
      .told = status && status->has_ended_ms,
      .exit_code = status ? PB_GET(status, exit_code, EXIT_UNKNOWN) : EXIT_UNKNOWN,
      .tries = status ? PB_GET(status, restarts, 0) : 0,
      .since_ms = PB_GET(record, desired_since_ms, 0),
      .started_ms = status ? PB_GET(status, started_ms, 0) : 0,
      .detail = status && *PB_STR(status->reason) ? status->reason : PB_STR(record->reason),
  };
}

/* ---- and back ---- */

static int write_state(struct run *run, struct sched_service *service, const struct job_state *from) {
  struct sched_job *job = service->job;
  Model__JobState empty = MODEL__JOB_STATE__INIT;
  if (!job->state && !(job->state = (Model__JobState *)pb_clone(&empty.base)))
    return -1;
  Model__JobState *s = job->state;
  if (run_set_text(&s->project, service->project) < 0 || run_set_text(&s->name, service->name) < 0 || run_set_text(&s->error, from->error) < 0)
    return -1;
  PB_SET(s, handled, from->handled);
  PB_SET(s, last_tick_ms, from->last_tick_ms);
  PB_SET(s, next_tick_ms, from->next_tick_ms);
  PB_SET(s, first_number, from->first_number);
  PB_SET(s, next_number, from->next_number);
  PB_SET(s, next_instance, from->next_instance);
  PB_SET(s, revision, from->revision);
  PB_SET(s, created_ms, from->created_ms);
  PB_SET(s, last_success_ms, from->last_success_ms);
  if (s->n_ended < JOB_STATES) {
    uint64_t *counts = calloc(JOB_STATES, sizeof *counts);
    if (!counts)
      return -1;
    free(s->ended);
    s->ended = counts;
    s->n_ended = JOB_STATES;
  }
  memcpy(s->ended, from->ended, sizeof from->ended);
  char key[KEY_MAX];
  key_service(key, KEY_JOB_STATE, service->project, service->name);
  return run_put(run, key, &s->base);
}

static Model__JobRun *record_of(struct sched_service *service, uint64_t number) {
  bool found;
  size_t at = run_position(service->job, number, &found);
  if (found)
    return service->job->runs[at];
  Model__JobRun empty = MODEL__JOB_RUN__INIT, *record = (Model__JobRun *)pb_clone(&empty.base);
  if (!record)
    return NULL;
  PB_SET(record, number, number);
  if (run_set_text(&record->project, service->project) < 0 || run_set_text(&record->name, service->name) < 0) {
    free_message(record);
    return NULL;
  }
  return put_run(service->job, record) < 0 ? NULL : record;
}

/* Where it runs, and the end of its log: told by its instance. 1: something is new. */
static int take_over(Model__JobRun *record, const struct sched_instance *instance) {
  const Model__InstanceStatus *status = instance ? sched_instance_status(instance) : NULL;
  int changed = 0;
  if (instance && instance->record && *PB_STR(instance->record->node) && strcmp(PB_STR(record->node), instance->record->node) != 0) {
    if (run_set_text(&record->node, instance->record->node) < 0)
      return -1;
    changed = 1;
  }
  if (status && status->has_last_lines && PB_GET(status, phase, 0) == MODEL__PHASE__PHASE_EXITED && status->last_lines.len &&
      (record->last_lines.len != status->last_lines.len || memcmp(record->last_lines.data, status->last_lines.data, status->last_lines.len) != 0)) {
    uint8_t *copy = malloc(status->last_lines.len);
    if (!copy)
      return -1;
    memcpy(copy, status->last_lines.data, status->last_lines.len);
    free(record->last_lines.data);
    record->has_last_lines = 1;
    record->last_lines.data = copy;
    record->last_lines.len = status->last_lines.len;
    changed = 1;
  }
  return changed;
}

static int write_run(struct run *run, struct sched_service *service, const struct job_run *from) {
  char key[KEY_MAX];
  key_numbered(key, KEY_JOB_RUNS, service->project, service->name, from->number);
  if (from->forget) {
    drop_run(service->job, from->number);
    return run_delete(run, key);
  }
  Model__JobRun *r = record_of(service, from->number);
  int told = r ? take_over(r, from->instance ? sched_service_instance(service, from->instance) : NULL) : -1;
  if (told < 0 || run_set_text(&r->reason, from->reason) < 0)
    return -1;
  if (!from->changed && !told)
    return 0;
  PB_SET(r, revision, from->revision);
  PB_SET(r, state, from->state);
  PB_SET(r, scheduled_ms, from->scheduled_ms);
  PB_SET(r, started_ms, from->started_ms);
  PB_SET(r, ended_ms, from->ended_ms);
  PB_SET(r, next_try_ms, from->next_try_ms);
  PB_SET(r, attempts, from->attempts);
  PB_SET(r, exit_code, from->exit_code);
  r->has_exit_code = from->exit_known;
  if (from->request)
    PB_SET(r, request, from->request);
  PB_SET(r, instance, from->instance);
  return run_put(run, key, &r->base);
}

static int write_instance(struct run *run, struct sched_instance *instance, const struct job_instance *decided) {
  char key[KEY_MAX];
  if (decided->drop) {
    key_numbered(key, KEY_INSTANCES, instance->service->project, instance->service->name, instance->number);
    sched_instance_drop(run_state(run), instance);
    return run_delete(run, key);
  }
  if (!decided->stop)
    return 0;
  PB_SET(instance->record, desired, MODEL__DESIRED__DESIRED_STOP);
  PB_SET(instance->record, desired_since_ms, run->now);
  return run_set_text(&instance->record->reason, decided->why) < 0 ? -1 : run_put_instance(run, instance);
}

static int tell(struct run *run, const struct sched_service *service, const struct job_run *runs, size_t count, const struct job_event *event) {
  const struct job_run *r = NULL;
  for (size_t i = 0; i < count; i++)
    if (runs[i].number == event->run)
      r = &runs[i];
  if (!r)
    return 0;
  uint64_t n = r->number;
  switch (event->kind) {
  case JOB_STARTED:
    return run_tell(run, service, r->instance, "info", "job.started", "run %" PRIu64 ", revision %" PRIu64, n, r->revision);
  case JOB_SUCCEEDED:
    return run_tell(run, service, r->instance, "info", "job.succeeded", "run %" PRIu64, n);
  case JOB_FAILED:
    return run_tell(run, service, r->instance, "error", "job.failed", "run %" PRIu64 ": %s (%" PRIu32 " attempts)", n, r->reason, r->attempts);
  case JOB_TIMED_OUT:
    return run_tell(run, service, r->instance, "error", "job.timed_out", "run %" PRIu64 " %s (%" PRIu32 " attempts)", n, r->reason, r->attempts);
  case JOB_SKIPPED:
    return run_tell(run, service, 0, "warn", "job.skipped", "run %" PRIu64 ": %s", n, r->reason);
  case JOB_RETRIED:
    return run_tell(run, service, 0, "warn", "job.retried", "run %" PRIu64 ", attempt %" PRIu32 ": %s", n, r->attempts, r->reason);
  case JOB_STOPPED:
    return run_tell(run, service, 0, "info", "job.stopped", "run %" PRIu64 ": %s", n, r->reason);
  }
  return 0;
}

/* ---- the step ---- */

struct parts {
  struct job_run *runs;
  size_t run_count;
  struct job_instance *instances;
  struct sched_instance **of;
  size_t instance_count;
};

static int gather(struct run *run, struct sched_service *service, struct parts *p) {
  const struct sched_job *job = service->job;
  p->runs = calloc(job->run_count + JOB_NEW_RUNS, sizeof *p->runs);
  p->instances = calloc(service->instance_count + 1, sizeof *p->instances);
  p->of = calloc(service->instance_count + 1, sizeof(struct sched_instance *));
  if (!p->runs || !p->instances || !p->of)
    return -1;
  for (size_t i = 0; i < job->run_count; i++)
    fill_run(service, job->runs[i], &p->runs[p->run_count++]);
  for (size_t i = 0; i < service->instance_count; i++)
    if (is_of_job(service->instances[i])) {
      p->of[p->instance_count] = service->instances[i];
      fill_instance(run, service->instances[i], &p->instances[p->instance_count++]);
    }
  return 0;
}

static int apply(struct run *run, struct sched_service *service, const struct parts *p, const struct job_state *state, const struct job_output *out) {
  uint64_t fresh = UINT64_MAX;
  for (size_t i = 0; i < out->event_count; i++)
    if (tell(run, service, p->runs, p->run_count, &out->events[i]) < 0)
      return -1;
  for (size_t i = 0; i < p->run_count; i++) {
    const struct job_run *r = &p->runs[i];
    if (!r->create)
      continue;
    struct sched_instance *instance = run_create_instance(run, service, r->instance, r->revision, 0);
    if (!instance)
      return -1;
    PB_SET(instance->record, job, 1);
    fresh = r->instance < fresh ? r->instance : fresh;
  }
  for (size_t i = 0; i < p->instance_count; i++) {
    p->of[i]->on_hold = p->instances[i].hold;
    p->of[i]->leaves = p->instances[i].drop;
  }
  if (run_place_pending(run, service, fresh) < 0)
    return -1;
  for (size_t i = 0; i < p->run_count; i++)
    if (write_run(run, service, &p->runs[i]) < 0)
      return -1;
  /* Last: a dropped one may take its sched_instance with it. */
  for (size_t i = 0; i < p->instance_count; i++)
    if (write_instance(run, p->of[i], &p->instances[i]) < 0)
      return -1;
  return out->state_changed ? write_state(run, service, state) : 0;
}

static int forget_job(struct run *run, struct sched_service *service) {
  char key[KEY_MAX];
  key_service(key, KEY_JOB_STATE, service->project, service->name);
  free_message(service->job->state);
  service->job->state = NULL;
  return run_delete(run, key);
}

int sched_jobs_step(struct run *run, struct sched_service *service) {
  struct sched_job *job = service->job;
  struct parts p = {0};
  struct job_input input;
  struct job_state state;
  struct job_output out;
  if (sched_jobs_is_empty(service)) {
    /* Of its instances only records may be left, without a job to say so. */
    bool left = false;
    for (size_t i = 0; i < service->instance_count; i++)
      left |= is_of_job(service->instances[i]);
    if (!left)
      return 0;
    if (!(job = want_job(service)))
      return -1;
  }
  const struct sched_revision *revision = job->record ? sched_service_revision(service, PB_GET(job->record, revision, 0)) : NULL;
  fill_input(service, revision, &input);
  int rc = gather(run, service, &p);
  if (rc == 0 && input.revision_known)
    rc = read_rules(run, job, revision, &input.rules);
  if (rc == 0) {
    fill_state(job->state, &state);
    job_step(&input, &state, p.runs, &p.run_count, p.instances, p.instance_count, run->now, run->wall, &out);
    job->wake_ms = out.next_ms;
    job->wake_wall_ms = out.next_wall_ms;
    rc = apply(run, service, &p, &state, &out);
    if (rc == 0 && out.forget && job->state)
      rc = forget_job(run, service);
    if (out.more) {
      run->actions->more = true;
      sched_state_touch(run_state(run), service);
    }
  }
  free(p.runs);
  free(p.instances);
  free(p.of);
  return rc;
}
