/* Changing jobs that are there: run, stop, start, remove; and tasks, which are jobs of one run. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orca-apiserver/audit.h"
#include "orca-apiserver/deploy_jobs.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/upkeep.h"

#define WAITING_MAX 100u /* runs of a job that were asked for and have not ended */
#define TASKS_KEPT 100u  /* ended tasks that are remembered */
#define TASKS_TRIM 10u   /* at most so many go at once */
#define TASKS_RUNNING 1000u

enum verb { VERB_RUN, VERB_STOP, VERB_START, VERB_REMOVE };

struct change {
  enum verb verb;
  char project[64], name[64];
  uint64_t requested, revision;
  bool changed;
};

static size_t live_runs(const struct api_cache *cache, const Model__Job *job) {
  size_t count, live = 0;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, job->project, job->name, &count);
  for (size_t i = 0; i < count; i++)
    live += !api_run_is_over(API_MSG(&list[i], Model__JobRun));
  return live;
}

/* The policy may have changed since it was deployed. */
static int still_allowed(const struct api_cache *cache, const Model__Job *job, struct err *err) {
  const Model__Revision *r = api_cache_revision(cache, job->project, job->name, job->revision);
  if (!r || !r->spec)
    return err_set(err, ERR_NOT_FOUND, "%s/%s has no revision %" PRIu64, job->project, job->name, job->revision);
  return spec_check_all(r->spec, api_cache_cluster(cache, NULL), err);
}

static int apply(struct api_write *w, Model__Job *job, struct storec_txn *txn, struct err *err) {
  struct api *api = w->api;
  const struct change *c = w->ctx;
  const Model__JobState *state = api_cache_job_state(&api->cache, job->project, job->name);
  uint64_t handled = state && state->created_ms == job->created_ms ? state->handled : 0;
  switch (c->verb) {
  case VERB_RUN:
    if (job->suspended)
      return err_set(err, ERR_CONFLICT, "%s/%s is stopped: start it first", job->project, job->name);
    if (live_runs(&api->cache, job) + (job->requested > handled ? job->requested - handled : 0) >= WAITING_MAX)
      return err_set(err, ERR_BUSY, "%u runs of %s/%s have not ended yet", WAITING_MAX, job->project, job->name);
    if (still_allowed(&api->cache, job, err) < 0)
      return -1;
    PB_SET(job, requested, job->requested + 1);
    api_service_event(api, txn, w->request, "job.requested", job->project, job->name, "a run was asked for");
    return 0;
  case VERB_STOP:
    if (job->suspended)
      return 1;
    PB_SET(job, suspended, 1);
    api_service_event(api, txn, w->request, "job.suspended", job->project, job->name, "what runs of it ends; no more ticks");
    return 0;
  case VERB_START:
    if (!job->suspended)
      return 1;
    if (still_allowed(&api->cache, job, err) < 0)
      return -1;
    PB_SET(job, suspended, 0);
    api_service_event(api, txn, w->request, "job.resumed", job->project, job->name, "runs by its schedule again");
    return 0;
  case VERB_REMOVE:
    break;
  }
  return 0;
}

static bool is_this(void *arg, const char *project, const char *name) {
  const struct change *c = arg;
  return strcmp(c->project, project) == 0 && strcmp(c->name, name) == 0;
}

static void put_job(const Model__Job *job, uint64_t mod, struct storec_txn *txn) {
  char key[KEY_MAX];
  key_service(key, KEY_JOBS, job->project, job->name);
  storec_if_mod_revision(txn, key, mod);
  storec_put_message(txn, key, &job->base, 0);
}

static int build(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct change *c = w->ctx;
  uint64_t mod;
  const Model__Job *old = api_find_job_err(w->request, &mod, err);
  if (!old)
    return -1;
  api_text_copy(c->project, sizeof c->project, old->project);
  api_text_copy(c->name, sizeof c->name, old->name);
  c->revision = old->revision;
  if (c->verb == VERB_REMOVE) {
    api_job_purge(&w->api->cache, c->project, c->name, mod, txn);
    api_upkeep_files(&w->api->cache, is_this, c, NULL, txn);
    api_service_event(w->api, txn, w->request, "job.removed", c->project, c->name, "removed, its runs with it");
    c->changed = true;
    return 0;
  }
  Model__Job *job = (Model__Job *)(void *)pb_clone(&old->base);
  if (!job)
    return err_set(err, ERR_MEMORY, "no memory for a change");
  PB_SET(job, updated_ms, api_now_ms(w->api));
  int rc = apply(w, job, txn, err);
  if (rc == 0) {
    put_job(job, mod, txn);
    c->requested = job->requested;
    c->changed = true;
  }
  model__job__free_unpacked(job, NULL);
  return rc;
}

static void answer(struct api_write *w) {
  const struct change *c = w->ctx;
  if (c->verb == VERB_RUN) {
    api_answer_run(w->request, c->project, c->name, c->requested, 0);
    return;
  }
  char id[130];
  snprintf(id, sizeof id, "%s/%s", c->project, c->name);
  struct api_json json = api_reply_json(w->request, 200);
  api_json_str(&json, "job", id);
  api_json_bool(&json, "changed", c->changed);
  api_json_u64(&json, "revision", c->revision);
  api_reply_end(w->request);
}

static void start(struct api_request *r, enum verb verb) {
  struct change *c = calloc(1, sizeof *c);
  if (!c) {
    api_fail_with(r, ERR_MEMORY, "no memory for a change");
    return;
  }
  c->verb = verb;
  api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build, .answer = answer, .free_ctx = free, .ctx = c});
}

void api_post_job_run(struct api_request *r) {
  start(r, VERB_RUN);
}
void api_post_job_stop(struct api_request *r) {
  start(r, VERB_STOP);
}
void api_post_job_start(struct api_request *r) {
  start(r, VERB_START);
}
void api_delete_job(struct api_request *r) {
  start(r, VERB_REMOVE);
}

/* ---- tasks ---- */

struct task {
  struct spec_set set;
  uint64_t requested;
};

static void task_free(void *ctx) {
  struct task *t = ctx;
  spec_set_free(&t->set);
  free(t);
}

/* "80/tcp": "8080" */
static bool port_binding(const char *inside, const json_t *outside, char out[32]) {
  char *end;
  unsigned long container = *inside >= '1' && *inside <= '9' ? strtoul(inside, &end, 10) : 0;
  unsigned long host = 0;
  if (json_is_integer(outside) && json_integer_value(outside) > 0)
    host = (unsigned long)json_integer_value(outside);
  else if (json_is_string(outside) && *json_string_value(outside) >= '1' && *json_string_value(outside) <= '9') {
    char *host_end;
    host = strtoul(json_string_value(outside), &host_end, 10);
    host = *host_end ? 0 : host;
  }
  if (!container || container > 65535 || !host || host > 65535)
    return false;
  bool udp = strcmp(end, "/udp") == 0;
  if (*end && !udp && strcmp(end, "/tcp") != 0)
    return false;
  snprintf(out, 32, "%lu:%lu%s", host, container, udp ? "/udp" : "");
  return true;
}

/* Ports are a service's; a task may have them all the same: they are read as a service's would be. */
static int add_ports(Model__ServiceSpec *spec, const json_t *bindings, struct spec_faults *faults) {
  const char *inside;
  json_t *outside;
  if (!json_is_object(bindings)) {
    spec_fault_add(faults, "", 0, 0, "portBindings", "must be an object like {\"80/tcp\": \"8080\"}");
    return 0;
  }
  size_t count = json_object_size(bindings);
  if (count > 64) {
    spec_fault_add(faults, "", 0, 0, "portBindings", "more than 64 ports");
    return 0;
  }
  spec->extra_ports = calloc(count + 1, sizeof(Model__PortMap *));
  if (!spec->extra_ports)
    return -1;
  json_object_foreach((json_t *)(uintptr_t)bindings, inside, outside) {
    char text[32];
    Model__PortMap *map = malloc(sizeof *map);
    if (!map)
      return -1;
    model__port_map__init(map);
    spec->extra_ports[spec->n_extra_ports++] = map;
    unsigned host, container;
    if (!port_binding(inside, outside, text) || sscanf(text, "%u:%u", &host, &container) != 2) {
      spec_fault_add(faults, "", 0, 0, "portBindings", "must be like {\"80/tcp\": \"8080\"}, ports between 1 and 65535");
      return 0;
    }
    PB_SET(map, host_port, host);
    PB_SET(map, container_port, container);
    if (strstr(text, "/udp"))
      PB_SET(map, protocol, MODEL__PROTOCOL__UDP);
    for (size_t i = 0; i + 1 < spec->n_extra_ports; i++)
      if (spec->extra_ports[i]->host_port == host && spec->extra_ports[i]->protocol == map->protocol) {
        spec_fault_add(faults, "", 0, 0, "portBindings", "port %u of the node is named twice", host);
        return 0;
      }
  }
  return 0;
}

/* The body's words → a [[job]]'s, which its own reader checks. NULL: memory. */
static json_t *as_job(const struct api_request *r, struct spec_faults *faults) {
  static const char *const same[] = {"name", "image", "command", "entrypoint", "env", "project", "timeout", "retries", "user", "workdir", "labels"};
  json_t *job = json_object(), *resources = json_object();
  const char *key;
  json_t *value;
  int rc = job && resources ? 0 : -1;
  json_object_foreach(r->json, key, value) {
    bool known = json_is_null(value);
    for (size_t i = 0; i < sizeof same / sizeof *same && !known; i++)
      if (strcmp(key, same[i]) == 0) {
        rc = json_object_set(job, key, value) < 0 ? -1 : rc;
        known = true;
      }
    if (known)
      continue;
    if (strcmp(key, "memory") == 0 || strcmp(key, "cpu") == 0) {
      rc = json_object_set(resources, key, value) < 0 ? -1 : rc;
    } else if (strcmp(key, "nodeSelectors") == 0) {
      rc = json_object_set_new(job, "placement", json_pack("{s:O}", "labels", value)) < 0 ? -1 : rc;
    } else if (strcmp(key, "restartPolicy") == 0) {
      const char *text = json_is_string(value) ? json_string_value(value) : "";
      if (strcmp(text, "no") != 0 && strcmp(text, "never") != 0)
        spec_fault_add(faults, "", 0, 0, "restartPolicy", "must be \"no\": a task runs to its end; `retries` tries one that failed again");
    } else if (strcmp(key, "portBindings") != 0) {
      spec_fault_add(
          faults, "", 0, 0, pb_utf8_valid(key, strlen(key)) ? key : "?",
          "unknown key: known are image, name, project, command, entrypoint, env, memory, cpu, portBindings, nodeSelectors, restartPolicy, "
          "retries, timeout, user, workdir, labels");
    }
  }
  if (rc == 0 && json_object_size(resources))
    rc = json_object_set(job, "resources", resources);
  const char *project = api_request_query(r, "project");
  if (rc == 0 && project && !json_object_get(job, "project"))
    rc = json_object_set_new(job, "project", json_string(project));
  if (rc == 0 && !json_object_get(job, "name")) {
    char name[32] = "task-";
    struct err err;
    rc = crypto_random_id(name + 5, 8, &err);
    if (rc == 0)
      rc = json_object_set_new(job, "name", json_string(name));
  }
  json_decref(resources);
  if (rc == 0)
    return job;
  json_decref(job);
  return NULL;
}

static bool has_ended(const struct api_cache *cache, const Model__Job *job) {
  size_t count;
  api_cache_of_service(cache, API_JOB_RUNS, job->project, job->name, &count);
  return count && !live_runs(cache, job);
}

/* The oldest ended ones make room for one more. -1: too many run. */
static int trim_tasks(const struct api_cache *cache, struct storec_txn *txn, struct err *err) {
  size_t count, ended = 0, tasks = 0, trimmed = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_JOBS, &count);
  for (size_t i = 0; i < count; i++) {
    tasks += API_MSG(&all[i], Model__Job)->task;
    ended += API_MSG(&all[i], Model__Job)->task && has_ended(cache, API_MSG(&all[i], Model__Job));
  }
  if (tasks - ended >= TASKS_RUNNING)
    return err_set(err, ERR_BUSY, "%u tasks have not ended yet", TASKS_RUNNING);
  for (int64_t after = INT64_MIN; ended >= TASKS_KEPT && trimmed < TASKS_TRIM; trimmed++, ended--) {
    size_t oldest = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
      const Model__Job *job = API_MSG(&all[i], Model__Job);
      if (job->task && job->created_ms > after && has_ended(cache, job) &&
          (oldest == SIZE_MAX || job->created_ms < API_MSG(&all[oldest], Model__Job)->created_ms))
        oldest = i;
    }
    if (oldest == SIZE_MAX)
      break;
    const Model__Job *job = API_MSG(&all[oldest], Model__Job);
    after = job->created_ms;
    api_job_purge(cache, job->project, job->name, ((const struct api_object *)all[oldest].value)->mod, txn);
  }
  return 0;
}

static int build_task(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct task *t = w->ctx;
  const struct api_cache *cache = &w->api->cache;
  const Model__ServiceSpec *spec = t->set.services[0];
  if (api_cache_job(cache, spec->project, spec->name, NULL) || api_cache_service(cache, spec->project, spec->name, NULL))
    return err_set(err, ERR_CONFLICT, "there is a %s %s/%s: remove it first, or take another name",
                   api_cache_job(cache, spec->project, spec->name, NULL) ? "job" : "service", spec->project, spec->name);
  if (spec_check_all(spec, api_cache_cluster(cache, NULL), err) < 0 || trim_tasks(cache, txn, err) < 0)
    return -1;
  struct api_plan_item item = {.change = API_CHANGE_CREATE, .is_job = true};
  api_text_copy(item.project, sizeof item.project, spec->project);
  api_text_copy(item.name, sizeof item.name, spec->name);
  item.job = api_job_new_revision(cache, NULL, spec, w->request->who.name, api_now_ms(w->api), &item.revision);
  if (!item.job)
    return err_set(err, ERR_MEMORY, "no memory for a task");
  PB_SET(item.job, task, 1);
  t->requested = item.job->requested;
  api_plan_put_job(cache, &item, txn);
  api_service_event(w->api, txn, w->request, "task.created", spec->project, spec->name, "%s", PB_STR(spec->image));
  model__job__free_unpacked(item.job, NULL);
  model__revision__free_unpacked(item.revision, NULL);
  return 0;
}

static void answer_task(struct api_write *w) {
  const struct task *t = w->ctx;
  api_answer_run(w->request, t->set.services[0]->project, t->set.services[0]->name, t->requested, 0);
}

void api_post_task(struct api_request *r) {
  struct spec_faults faults = {0};
  struct task *t = calloc(1, sizeof *t);
  json_t *job = t ? as_job(r, &faults) : NULL;
  json_t *set = job ? json_pack("{s:[O]}", "jobs", job) : NULL;
  int rc = set ? 0 : -1;
  if (rc == 0 && !faults.count && spec_set_from_json(set, &t->set, &faults) == 0) {
    json_t *bindings = json_object_get(r->json, "portBindings");
    Model__ServiceSpec *spec = t->set.services[0];
    rc = bindings && !json_is_null(bindings) ? add_ports(spec, bindings, &faults) : 0;
    if (rc == 0) {
      spec->job->has_history = 1;
      spec->job->history = 1;
      api_audit_target(r, spec->project, "task %s/%s", spec->project, spec->name);
    }
  }
  if (rc < 0) {
    api_fail_with(r, ERR_MEMORY, "no memory for a task");
  } else if (faults.count) {
    api_fail_faults(r, ERR_INVALID, &faults);
  } else if (!api_auth_sees(&r->api->cache, &r->who, t->set.services[0]->project)) {
    api_fail_with(r, ERR_DENIED, "token %s is not for project %s", r->who.name, t->set.services[0]->project);
  } else {
    api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build_task, .answer = answer_task, .free_ctx = task_free, .ctx = t});
    t = NULL;
  }
  if (t)
    task_free(t);
  json_decref(set);
  json_decref(job);
  spec_faults_free(&faults);
}
