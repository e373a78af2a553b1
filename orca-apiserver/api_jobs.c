/* Reading jobs and tasks, and following a run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/audit.h"
#include "orca-apiserver/explain_view.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/status_view.h"

#define LISTED_RUNS 3u
#define NUMBER_WAIT (3 * NS_PER_SEC)

/* ---- which one ---- */

const Model__Job *api_find_job_err(struct api_request *r, uint64_t *mod, struct err *err) {
  const struct api_cache *cache = &r->api->cache;
  const char *project = api_request_query(r, "project");
  if (project) {
    const Model__Job *one = api_auth_sees(cache, &r->who, project) ? api_cache_job(cache, project, r->param, mod) : NULL;
    api_audit_target(r, project, "job %.64s/%s", project, r->param);
    if (!one)
      err_set(err, ERR_NOT_FOUND, "job not found: %.64s/%s", project, r->param);
    return one;
  }
  size_t count, found = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_JOBS, &count);
  const Model__Job *job = NULL;
  char projects[256] = "";
  for (size_t i = 0; i < count; i++) {
    const Model__Job *j = API_MSG(&all[i], Model__Job);
    if (strcmp(PB_STR(j->name), r->param) != 0 || !api_auth_sees(cache, &r->who, PB_STR(j->project)))
      continue;
    size_t used = strlen(projects);
    snprintf(projects + used, sizeof projects - used, "%s%s", found ? ", " : "", j->project);
    found++;
    job = j;
    *mod = ((const struct api_object *)all[i].value)->mod;
  }
  if (found == 1) {
    api_audit_target(r, job->project, "job %s/%s", job->project, r->param);
    return job;
  }
  if (found)
    err_set(err, ERR_CONFLICT, "several projects have a job %s: %s; say PROJECT/%s (in the API ?project=)", r->param, projects, r->param);
  else
    err_set(err, ERR_NOT_FOUND, "job not found: %s", r->param);
  return NULL;
}

const Model__Job *api_find_job(struct api_request *r, uint64_t *mod) {
  struct err err;
  const Model__Job *job = api_find_job_err(r, mod, &err);
  if (!job)
    api_fail(r, &err);
  return job;
}

int api_find_subject(struct api_request *r, struct api_subject *ret, struct err *err) {
  struct err not_job;
  uint64_t mod;
  const char *project = api_request_query(r, "project");
  *ret = (struct api_subject){.service = api_find_service_err(r, &mod, err)};
  if (!ret->service && err->code == ERR_NOT_FOUND && !(ret->job = api_find_job_err(r, &mod, &not_job)))
    return not_job.code == ERR_NOT_FOUND
               ? err_set(err, ERR_NOT_FOUND, "service or job not found: %.64s%s%s", project ? project : "", project ? "/" : "", r->param)
               : err_set(err, not_job.code, "%s", not_job.msg);
  if (!ret->service && !ret->job)
    return -1;
  ret->project = ret->service ? ret->service->project : ret->job->project;
  ret->name = ret->service ? ret->service->name : ret->job->name;
  return 0;
}

const Model__JobRun *api_last_run(const struct api_cache *cache, const char *project, const char *name, bool over) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, project, name, &count);
  for (size_t i = count; i-- > 0;) {
    const Model__JobRun *run = API_MSG(&list[i], Model__JobRun);
    if (run->state != MODEL__RUN_STATE__RUN_SKIPPED && (!over || api_run_is_over(run)))
      return run;
  }
  return NULL;
}

const Model__JobRun *api_run_by_number(const struct api_cache *cache, const char *project, const char *name, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_JOB_RUNS, project, name, number);
  const struct api_object *object = api_cache_object(cache, API_JOB_RUNS, key);
  return object ? (const Model__JobRun *)(const void *)object->msg : NULL;
}

const Model__JobRun *api_run_of_request(const struct api_cache *cache, const char *project, const char *name, uint64_t request) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, project, name, &count);
  const Model__Job *job = api_cache_job(cache, project, name, NULL);
  const Model__JobState *state = api_cache_job_state(cache, project, name);
  /* What is left of an earlier job of that name had the same requests. */
  if (job && (!state || state->created_ms != job->created_ms))
    return NULL;
  for (size_t i = count; i-- > 0;) {
    const Model__JobRun *run = API_MSG(&list[i], Model__JobRun);
    if (run->request == request && (!state || run->number >= state->first_number))
      return run;
  }
  return NULL;
}

bool api_run_is_over(const Model__JobRun *run) {
  return run->state != MODEL__RUN_STATE__RUN_PENDING && run->state != MODEL__RUN_STATE__RUN_RUNNING;
}

/* ---- as JSON ---- */

const char *api_run_state_text(Model__RunState state) {
  switch (state) {
  case MODEL__RUN_STATE__RUN_PENDING:
    return "pending";
  case MODEL__RUN_STATE__RUN_RUNNING:
    return "running";
  case MODEL__RUN_STATE__RUN_SUCCEEDED:
    return "succeeded";
  case MODEL__RUN_STATE__RUN_FAILED:
    return "failed";
  case MODEL__RUN_STATE__RUN_TIMED_OUT:
    return "timed_out";
  case MODEL__RUN_STATE__RUN_SKIPPED:
    return "skipped";
  case MODEL__RUN_STATE__RUN_STOPPED:
    return "stopped";
  case _MODEL__RUN_STATE_IS_INT_SIZE:
    break;
  }
  return "unknown";
}

static const char *overlap_text(Model__Overlap overlap) {
  return overlap == MODEL__OVERLAP__OVERLAP_ALLOW ? "allow" : overlap == MODEL__OVERLAP__OVERLAP_REPLACE ? "replace" : "forbid";
}

/* What a container has written, as far as it is text. */
static void log_json(const Model__JobRun *run, struct api_json *json) {
  char text[4096 + 1];
  size_t len = run->has_last_lines ? run->last_lines.len : 0;
  if (len > sizeof text - 1 || (len && (memchr(run->last_lines.data, 0, len) || !pb_utf8_valid((const char *)run->last_lines.data, len))))
    len = 0;
  if (len)
    memcpy(text, run->last_lines.data, len);
  text[len] = 0;
  api_json_str(json, "log", text);
}

static void run_fields(const Model__JobRun *run, bool detail, struct api_json *json) {
  char id[INSTANCE_ID_MAX] = "";
  if (run->instance)
    instance_id(id, PB_STR(run->project), PB_STR(run->name), run->instance);
  api_json_u64(json, "run", run->number);
  api_json_str(json, "state", api_run_state_text(run->state));
  api_json_u64(json, "revision", run->revision);
  api_json_str(json, "by", run->request ? "request" : "schedule");
  api_json_time(json, "scheduled", run->scheduled_ms);
  api_json_time(json, "started", run->started_ms);
  api_json_time(json, "ended", run->ended_ms);
  api_json_time(json, "next_try", run->next_try_ms);
  api_json_u64(json, "attempts", run->attempts);
  if (run->has_exit_code)
    api_json_i64(json, "exit_code", run->exit_code);
  else
    api_json_null(json, "exit_code");
  api_json_str(json, "reason", PB_STR(run->reason));
  api_json_str(json, "node", PB_STR(run->node));
  api_json_str(json, "instance", id);
  if (detail)
    log_json(run, json);
}

void api_job_json(const struct api_cache *cache, const Model__Job *job, size_t runs, bool detail, struct api_json *json) {
  const Model__JobState *state = api_cache_job_state(cache, job->project, job->name);
  const Model__Revision *revision = api_cache_revision(cache, job->project, job->name, job->revision);
  const Model__JobRules none = MODEL__JOB_RULES__INIT, *rules = revision && revision->spec && revision->spec->job ? revision->spec->job : &none;
  size_t count, live = 0, pending = 0;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, job->project, job->name, &count);
  for (size_t i = 0; i < count; i++) {
    live += !api_run_is_over(API_MSG(&list[i], Model__JobRun));
    pending += API_MSG(&list[i], Model__JobRun)->state == MODEL__RUN_STATE__RUN_PENDING;
  }
  const char *last = count ? api_run_state_text(API_MSG(&list[count - 1], Model__JobRun)->state) : "";
  api_json_str(json, "project", job->project);
  api_json_str(json, "name", job->name);
  const char *now = live > pending ? "running" : live ? "pending" : "";
  api_json_str(json, "status", *now ? now : job->suspended ? "stopped" : *last ? last : *PB_STR(rules->schedule) ? "waiting" : "pending");
  api_json_str(json, "image", revision && revision->spec ? PB_STR(revision->spec->image) : "");
  api_json_u64(json, "revision", job->revision);
  api_json_bool(json, "task", job->task);
  api_json_bool(json, "stopped", job->suspended);
  api_json_str(json, "schedule", PB_STR(rules->schedule));
  api_json_str(json, "tz", *PB_STR(rules->schedule) ? (*PB_STR(rules->tz) ? rules->tz : "UTC") : "");
  api_json_str(json, "overlap", overlap_text(rules->overlap));
  api_json_time(json, "next", state && !job->suspended && state->revision == job->revision ? state->next_tick_ms : 0);
  api_json_time(json, "last_success", state ? state->last_success_ms : 0);
  api_json_str(json, "error", state ? PB_STR(state->error) : "");
  api_json_u64(json, "running", live);
  api_json_array(json, "runs");
  for (size_t i = count; i-- > 0 && count - i <= runs;) {
    api_json_object(json, NULL);
    run_fields(API_MSG(&list[i], Model__JobRun), detail, json);
    api_json_object_end(json);
  }
  api_json_array_end(json);
}

static void list_jobs(struct api_request *r, const char *key, bool tasks_only) {
  const struct api_cache *cache = &r->api->cache;
  const char *project = api_request_query(r, "project");
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_JOBS, &count);
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, key);
  for (size_t i = 0; i < count; i++) {
    const Model__Job *job = API_MSG(&all[i], Model__Job);
    if ((tasks_only && !job->task) || (project && strcmp(project, PB_STR(job->project)) != 0) || !api_auth_sees(cache, &r->who, PB_STR(job->project)))
      continue;
    api_json_object(&json, NULL);
    api_job_json(cache, job, LISTED_RUNS, false, &json);
    api_json_object_end(&json);
  }
  api_json_array_end(&json);
  api_reply_end(r);
}

void api_get_jobs(struct api_request *r) {
  list_jobs(r, "jobs", false);
}

void api_get_tasks(struct api_request *r) {
  list_jobs(r, "tasks", true);
}

void api_get_job(struct api_request *r) {
  uint64_t mod;
  const Model__Job *job = api_find_job(r, &mod);
  const char *number = api_request_query(r, "run");
  if (!job)
    return;
  if (number) {
    char *end;
    uint64_t wanted = strtoull(number, &end, 10);
    if (*number < '0' || *number > '9' || *end || !wanted)
      api_fail_with(r, ERR_INVALID, "run: the number of a run");
    else if (!api_run_by_number(&r->api->cache, job->project, job->name, wanted))
      api_fail_with(r, ERR_NOT_FOUND, "%s/%s has no run %.20s any more, or not yet", job->project, job->name, number);
    else
      api_answer_run(r, job->project, job->name, 0, wanted);
    return;
  }
  const Model__Revision *revision = api_cache_revision(&r->api->cache, job->project, job->name, job->revision);
  json_t *spec = revision && revision->spec ? spec_service_to_json(revision->spec) : NULL;
  char *text = spec ? json_dumps(spec, JSON_COMPACT) : NULL;
  struct api_json json = api_reply_json(r, 200);
  api_json_object(&json, "job");
  api_job_json(&r->api->cache, job, SIZE_MAX, true, &json);
  api_json_object_end(&json);
  if (text)
    api_json_raw(&json, "spec", text);
  else
    api_json_null(&json, "spec");
  api_view_instances_json(&r->api->cache, &r->api->figures, job->project, job->name, &json);
  api_reply_end(r);
  free(text);
  json_decref(spec);
}

void api_get_job_explain(struct api_request *r) {
  uint64_t mod;
  const Model__Job *job = api_find_job(r, &mod);
  if (!job)
    return;
  struct api_json json = api_reply_json(r, 200);
  api_explain_job_json(&r->api->cache, job, &json);
  api_reply_end(r);
}

/* ---- one run, until its number is known or it has ended ---- */

struct wait {
  struct api *api;
  struct api_request *request; /* of the answer with the number alone; held */
  char project[64], name[64];
  uint64_t asked, number;
  int64_t until;
  bool sent;
  struct buf last; /* as told */
};

static const Model__JobRun *run_of(struct wait *w) {
  const struct api_cache *cache = &w->api->cache;
  const Model__JobRun *run =
      w->number ? api_run_by_number(cache, w->project, w->name, w->number) : api_run_of_request(cache, w->project, w->name, w->asked);
  if (run)
    w->number = run->number;
  return run;
}

/* There is no such run and there will be none: it is forgotten, or the job was stopped or removed before the scheduler came to it. */
static bool is_gone(const struct wait *w) {
  const struct api_cache *cache = &w->api->cache;
  const Model__Job *job = api_cache_job(cache, w->project, w->name, NULL);
  const Model__JobState *state = api_cache_job_state(cache, w->project, w->name);
  return w->number || !job || (state && state->created_ms == job->created_ms && state->handled >= w->asked);
}

static void wait_json(const struct wait *w, const Model__JobRun *run, struct api_json *json) {
  char id[130];
  snprintf(id, sizeof id, "%s/%s", w->project, w->name);
  api_json_str(json, "job", id);
  if (run) {
    run_fields(run, true, json);
    return;
  }
  api_json_null(json, "run");
  api_json_str(json, "state", is_gone(w) ? "forgotten" : "pending");
  if (is_gone(w))
    api_json_str(json, "reason", w->number ? "there is no record of it any more" : "the job was stopped or removed before it could begin");
}

/* The last lines come a moment after the end: its instance is there until they have, or were not to be had. */
static bool is_complete(const struct wait *w, const Model__JobRun *run) {
  if (!api_run_is_over(run))
    return false;
  if (!run->instance || (run->has_last_lines && run->last_lines.len))
    return true;
  const Model__Instance *instance = api_cache_instance(&w->api->cache, w->project, w->name, run->instance);
  return !instance || instance->desired == MODEL__DESIRED__DESIRED_STOP;
}

static enum api_piece fill(void *arg, struct buf *out) {
  struct wait *w = arg;
  const Model__JobRun *run = run_of(w);
  bool gone = !run && is_gone(w);
  bool last = gone || (run && is_complete(w, run));
  if (!run && !gone)
    return API_PIECE_NONE;
  struct buf now = BUF_INIT(65536);
  struct api_json json = {.out = &now};
  api_json_object(&json, NULL);
  wait_json(w, run, &json);
  api_json_object_end(&json);
  bool same = w->sent && now.len == w->last.len && memcmp(now.data, w->last.data, now.len) == 0;
  if (last || !same)
    buf_printf(out, "event: %s\ndata: %s\n\n", last ? "done" : "run", buf_str(&now));
  buf_free(&w->last);
  w->last = now;
  w->sent = true;
  return last ? API_PIECE_LAST : same ? API_PIECE_NONE : API_PIECE_SOME;
}

static void wait_free(void *arg) {
  struct wait *w = arg;
  buf_free(&w->last);
  api_request_unref(w->request);
  free(w);
}

static const struct api_stream_ops run_ops = {.fill = fill, .free = wait_free};

static void answer_when_known(void *arg) {
  struct wait *w = arg;
  const Model__JobRun *run = run_of(w);
  int64_t left = w->until - loop_now(w->api->loop);
  if (!run && !is_gone(w) && left > 0 && w->api->in_touch && w->request->transport) {
    api_when(w->api, w->api->cache.revision + 1, left, answer_when_known, w);
    return;
  }
  struct api_json json = api_reply_json(w->request, w->request->status);
  wait_json(w, run, &json);
  api_reply_end(w->request);
  wait_free(w);
}

void api_answer_run(struct api_request *r, const char *project, const char *name, uint64_t asked, uint64_t number) {
  struct wait *w = calloc(1, sizeof *w);
  if (!w) {
    api_fail_with(r, ERR_MEMORY, "no memory to follow a run");
    return;
  }
  w->api = r->api;
  w->asked = asked;
  w->number = number;
  w->last = BUF_INIT(65536);
  api_text_copy(w->project, sizeof w->project, project);
  api_text_copy(w->name, sizeof w->name, name);
  if (api_request_flag(r, "wait")) {
    api_reply_stream(r, &run_ops, w);
    return;
  }
  r->status = asked ? 202 : 200;
  w->request = api_request_ref(r);
  w->until = loop_now(r->api->loop) + NUMBER_WAIT;
  answer_when_known(w);
}
