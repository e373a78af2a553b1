#include "orca-apiserver/explain_view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/jobs.h"

#define LINE_MAX_BYTES 4096u

/* ---- an instance ---- */

void api_lines_json(struct api_json *json, const char *key, const ProtobufCBinaryData *lines) {
  api_json_array(json, key);
  const uint8_t *at = lines->data;
  for (size_t left = lines->len; left > 0;) {
    const uint8_t *end = memchr(at, '\n', left);
    size_t len = end ? (size_t)(end - at) : left, cut = len < LINE_MAX_BYTES ? len : LINE_MAX_BYTES;
    char line[LINE_MAX_BYTES + 1];
    memcpy(line, at, cut);
    line[cut] = 0;
    bool valid = pb_utf8_valid(line, cut) && !memchr(line, 0, cut);
    for (size_t i = 0; i < cut && !valid; i++)
      if ((unsigned char)line[i] >= 0x80 || !line[i])
        line[i] = '?';
    api_json_str(json, NULL, line);
    len += end != NULL;
    at += len;
    left -= len;
  }
  api_json_array_end(json);
}

static void end_text(const Model__InstanceStatus *s, char out[160]) {
  if (*PB_STR(s->ended_by))
    api_text_copy(out, 160, s->ended_by);
  else if (s->oom_killed)
    snprintf(out, 160, "out of memory");
  else if (s->has_exit_code)
    snprintf(out, 160, "exit code %d", s->exit_code);
  else
    out[0] = 0;
}

void api_explain_instance_fields(const Model__Instance *instance, const Model__InstanceStatus *status, struct api_json *json) {
  api_json_u64(json, "revision", instance->revision);
  api_json_u64(json, "restarts", status ? status->restarts : 0);
  api_json_time(json, "since", status && status->since_ms ? status->since_ms : instance->desired_since_ms);
  api_json_time(json, "next_try", status ? status->next_try_ms : 0);
  api_json_str(json, "progress", status ? PB_STR(status->progress) : "");
  char by[160] = "";
  if (status)
    end_text(status, by);
  if (*by) {
    api_json_object(json, "last_end");
    api_json_str(json, "by", by);
    api_json_time(json, "time", status->ended_ms);
    if (status->has_exit_code)
      api_json_i64(json, "exit_code", status->exit_code);
    else
      api_json_null(json, "exit_code");
    api_json_bool(json, "oom_killed", status->oom_killed);
    const ProtobufCBinaryData none = {0};
    api_lines_json(json, "lines", status->has_last_lines ? &status->last_lines : &none);
    api_json_object_end(json);
  } else {
    api_json_null(json, "last_end");
  }
  api_json_array(json, "verdicts");
  for (size_t k = 0; k < instance->n_verdicts; k++) {
    const Model__NodeVerdict *verdict = instance->verdicts[k];
    api_json_object(json, NULL);
    api_json_str(json, "node", PB_STR(verdict->node));
    api_json_bool(json, "chosen", verdict->chosen);
    api_json_bool(json, "fits", verdict->fits);
    api_json_str(json, "reason", PB_STR(verdict->reason));
    api_json_object_end(json);
  }
  api_json_array_end(json);
}

/* ---- requests ---- */

static bool no(char why[API_WHY_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool no(char why[API_WHY_MAX], const char *fmt, ...) {
  char whole[2 * API_WHY_MAX];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(whole, sizeof whole, fmt, ap);
  va_end(ap);
  api_text_copy(why, API_WHY_MAX, whole);
  return false;
}

/* Which proxies still finish requests of one that drains. */
static void still_at(const struct api_route_table *table, const char *id, char out[128]) {
  out[0] = 0;
  for (size_t i = 0; table && i < table->proxies.count; i++) {
    const struct api_proxy *p = table->proxies.list[i].value;
    size_t used = strlen(out);
    if (p && api_routes_is_draining(p, id) && used < 100)
      snprintf(out + used, 128 - used, "%s%.24s", used ? ", " : "; requests are being finished by the proxy on ", p->name);
  }
}

static const Model__Endpoint *endpoint_of(const Node__Route *route, const char *id) {
  for (size_t i = 0; route && i < route->n_endpoints; i++)
    if (strcmp(PB_STR(route->endpoints[i]->instance), id) == 0)
      return route->endpoints[i];
  return NULL;
}

static bool not_running(const Model__InstanceStatus *status, char why[API_WHY_MAX]) {
  const char *reason = PB_STR(status->reason), *colon = *reason ? ": " : "";
  switch (status->phase) {
  case MODEL__PHASE__PHASE_RUNNING:
    return no(why, "not ready%s%s", colon, reason);
  case MODEL__PHASE__PHASE_WAITING:
    return no(why, "it waits%s%s", colon, reason);
  case MODEL__PHASE__PHASE_PULLING:
    return no(why, "its image is being pulled%s%s", *PB_STR(status->progress) ? ": " : "", PB_STR(status->progress));
  case MODEL__PHASE__PHASE_CREATING:
  case MODEL__PHASE__PHASE_STARTING:
    return no(why, "it is being started%s%s", colon, reason);
  case MODEL__PHASE__PHASE_BACKOFF:
    return no(why, "it has ended and waits for its next try%s%s", colon, reason);
  case MODEL__PHASE__PHASE_STOPPING:
    return no(why, "it is being stopped%s%s", colon, reason);
  case MODEL__PHASE__PHASE_EXITED:
    return no(why, "it has ended%s%s", colon, reason);
  case MODEL__PHASE__PHASE_FAILED:
    return no(why, "it can't be started%s%s", colon, reason);
  case _MODEL__PHASE_IS_INT_SIZE:
    break;
  }
  return no(why, "its state is not known");
}

bool api_explain_receives(const struct api_cache *cache, const struct api_route_table *table, const Model__Instance *instance,
                          char why[API_WHY_MAX]) {
  char id[INSTANCE_ID_MAX], service[INSTANCE_ID_MAX], proxies[128];
  instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  snprintf(service, sizeof service, "%s/%s", PB_STR(instance->project), PB_STR(instance->service));
  const Model__InstanceStatus *status = api_cache_instance_status(cache, instance);
  const char *reason = PB_STR(instance->reason);
  why[0] = 0;
  if (!*PB_STR(instance->node))
    return no(why, "it has no node yet%s%s", *reason ? ": " : "", reason);
  if (instance->desired != MODEL__DESIRED__DESIRED_RUN) {
    still_at(table, id, proxies);
    return no(why, "%s%s%s%s", instance->desired == MODEL__DESIRED__DESIRED_DRAIN ? "it drains" : "it is being stopped", *reason ? ": " : "", reason,
              proxies);
  }
  if (!status)
    return no(why, "the agent of %s has said nothing of it yet", instance->node);
  if (status->phase != MODEL__PHASE__PHASE_RUNNING || !status->ready)
    return not_running(status, why);
  if (!*PB_STR(status->address))
    return no(why, "it has no address");
  const Node__Route *route = table ? api_routes_of(table, service) : NULL;
  if (!route)
    return no(why, "its service has no route");
  if (!endpoint_of(route, id))
    return no(why, "it is ready, and not in the route table yet");
  return true;
}

/* ---- the route ---- */

static void texts(struct api_json *json, const char *key, char *const *list, size_t count) {
  api_json_array(json, key);
  for (size_t i = 0; i < count; i++)
    api_json_str(json, NULL, PB_STR(list[i]));
  api_json_array_end(json);
}

static void route_json(const struct api_route_table *table, const char *service, const Model__ServiceSpec *spec, struct api_json *json) {
  const Node__Route *route = table ? api_routes_of(table, service) : NULL;
  if (!route) {
    api_json_null(json, "route");
    api_json_str(json, "no_route",
                 !table             ? "the gateway is not open yet"
                 : !spec            ? "the record of its revision is missing"
                 : !spec->n_domains ? "it has no domain: other services reach it by its name"
                 : !spec->port      ? "it has a domain, and no port"
                                    : "it is not in the route table yet");
    return;
  }
  api_json_object(json, "route");
  texts(json, "domains", route->domains, route->n_domains);
  texts(json, "paths", route->paths, route->n_paths);
  api_json_u64(json, "endpoints", route->n_endpoints);
  uint64_t version = api_routes_changed(table, service);
  api_json_u64(json, "version", version);
  api_json_array(json, "proxies");
  for (size_t i = 0; i < table->proxies.count; i++) {
    const struct api_proxy *p = table->proxies.list[i].value;
    if (!p)
      continue;
    api_json_object(json, NULL);
    api_json_str(json, "node", p->name);
    api_json_bool(json, "connected", p->connected);
    api_json_bool(json, "up_to_date", p->acked_any && p->acked >= version);
    api_json_str(json, "fault", p->fault);
    api_json_object_end(json);
  }
  api_json_array_end(json);
  api_json_object_end(json);
  api_json_str(json, "no_route", "");
}

/* ---- what it waits for ---- */

static void dependency_json(const struct api_cache *cache, const struct api_figures *figures, const char *project, const char *depends,
                            struct api_json *json) {
  char in[64], id[INSTANCE_ID_MAX];
  const char *slash = strchr(depends, '/'), *name = slash ? slash + 1 : depends;
  snprintf(in, sizeof in, "%.*s", slash ? (int)(slash - depends) : (int)strlen(project), slash ? depends : project);
  snprintf(id, sizeof id, "%s/%.64s", in, name);
  const Model__Service *other = api_cache_service(cache, in, name, NULL);
  struct api_view v = {0};
  if (other)
    api_view(cache, figures, other, &v);
  uint32_t wanted = v.replicas ? v.replicas : 1;
  char why[API_WHY_MAX] = "";
  if (!other)
    snprintf(why, sizeof why, "there is no such service");
  else if (v.ready < wanted)
    snprintf(why, sizeof why, "%s: %u of %u ready", v.status, v.ready, wanted);
  api_json_object(json, NULL);
  api_json_str(json, "service", id);
  api_json_bool(json, "satisfied", !*why);
  api_json_str(json, "reason", why);
  api_json_object_end(json);
}

void api_explain_json(const struct api_cache *cache, const struct api_figures *figures, const struct api_route_table *table,
                      const Model__Service *service, struct api_json *json) {
  const char *project = PB_STR(service->project), *name = PB_STR(service->name);
  char id[INSTANCE_ID_MAX];
  struct api_view v;
  api_view(cache, figures, service, &v);
  snprintf(id, sizeof id, "%s/%s", project, name);
  api_json_str(json, "service", id);
  api_json_str(json, "status", v.status);
  api_json_u64(json, "replicas", v.replicas);
  api_json_u64(json, "ready_replicas", v.ready);
  api_json_str(json, "last_error", v.last_error);
  if (v.rollout) {
    api_json_object(json, "rollout");
    api_json_str(json, "state", api_rollout_state_text(v.rollout->state));
    api_json_u64(json, "revision", v.rollout->revision);
    api_json_u64(json, "stable_revision", v.rollout->stable_revision);
    api_json_str(json, "phase", PB_STR(v.rollout->phase));
    api_json_str(json, "reason", PB_STR(v.rollout->reason));
    api_json_object_end(json);
  } else {
    api_json_null(json, "rollout");
  }
  api_json_array(json, "depends_on");
  for (size_t i = 0; v.spec && i < v.spec->n_depends_on; i++)
    dependency_json(cache, figures, project, PB_STR(v.spec->depends_on[i]), json);
  api_json_array_end(json);
  route_json(table, id, v.spec, json);
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, project, name, &count);
  api_json_array(json, "instances");
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
    const Model__InstanceStatus *status = api_cache_instance_status(cache, instance);
    char why[API_WHY_MAX];
    instance_id(id, project, name, instance->number);
    api_json_object(json, NULL);
    api_json_str(json, "id", id);
    api_json_str(json, "node", PB_STR(instance->node));
    api_json_str(json, "state", api_phase_text(instance, status));
    api_json_bool(json, "ready", status && status->ready && instance->desired == MODEL__DESIRED__DESIRED_RUN);
    api_json_str(json, "reason", *PB_STR(instance->reason) ? instance->reason : status ? PB_STR(status->reason) : "");
    api_json_bool(json, "receives", api_explain_receives(cache, table, instance, why));
    api_json_str(json, "receives_not", why);
    api_explain_instance_fields(instance, status, json);
    api_json_object_end(json);
  }
  api_json_array_end(json);
}

/* ---- jobs ---- */

#define EXPLAINED_RUNS 3u

void api_explain_job_json(const struct api_cache *cache, const Model__Job *job, struct api_json *json) {
  size_t count;
  api_json_object(json, "job");
  api_job_json(cache, job, EXPLAINED_RUNS, true, json);
  api_json_object_end(json);
  const Model__JobRun *last = api_last_run(cache, PB_STR(job->project), PB_STR(job->name), true);
  api_json_u64(json, "last_run", last ? last->number : 0);
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, PB_STR(job->project), PB_STR(job->name), &count);
  api_json_array(json, "instances");
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
    const Model__InstanceStatus *status = api_cache_instance_status(cache, instance);
    char id[INSTANCE_ID_MAX];
    instance_id(id, PB_STR(job->project), PB_STR(job->name), instance->number);
    api_json_object(json, NULL);
    api_json_str(json, "id", id);
    api_json_str(json, "node", PB_STR(instance->node));
    api_json_str(json, "state", api_phase_text(instance, status));
    api_json_str(json, "reason", *PB_STR(instance->reason) ? instance->reason : status ? PB_STR(status->reason) : "");
    api_explain_instance_fields(instance, status, json);
    api_json_object_end(json);
  }
  api_json_array_end(json);
}
