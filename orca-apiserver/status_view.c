#include "orca-apiserver/status_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/secrets.h"

const char *api_rollout_state_text(Model__RolloutState state) {
  switch (state) {
  case MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE:
    return "complete";
  case MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING:
    return "progressing";
  case MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK:
    return "rolling_back";
  case MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK:
    return "rolled_back";
  case MODEL__ROLLOUT_STATE__ROLLOUT_FAILED:
    return "failed";
  case _MODEL__ROLLOUT_STATE_IS_INT_SIZE:
    break;
  }
  return "unknown";
}

static const char *phase_text(Model__Phase phase) {
  switch (phase) {
  case MODEL__PHASE__PHASE_WAITING:
    return "waiting";
  case MODEL__PHASE__PHASE_PULLING:
    return "pulling";
  case MODEL__PHASE__PHASE_CREATING:
    return "creating";
  case MODEL__PHASE__PHASE_STARTING:
    return "starting";
  case MODEL__PHASE__PHASE_RUNNING:
    return "running";
  case MODEL__PHASE__PHASE_BACKOFF:
    return "backoff";
  case MODEL__PHASE__PHASE_STOPPING:
    return "stopping";
  case MODEL__PHASE__PHASE_EXITED:
    return "exited";
  case MODEL__PHASE__PHASE_FAILED:
    return "failed";
  case _MODEL__PHASE_IS_INT_SIZE:
    break;
  }
  return "unknown";
}

const char *api_phase_text(const Model__Instance *instance, const Model__InstanceStatus *status) {
  if (!*PB_STR(instance->node))
    return "pending";
  if (instance->desired == MODEL__DESIRED__DESIRED_STOP)
    return "stopping";
  if (instance->desired == MODEL__DESIRED__DESIRED_DRAIN)
    return "draining";
  if (status && status->phase == MODEL__PHASE__PHASE_WAITING && secrets_is_waiting(status))
    return "pending";
  return status ? phase_text(status->phase) : "assigned";
}

static bool rollout_is_current(const Model__Rollout *rollout, const Model__Service *service) {
  return rollout && rollout->revision == service->revision && rollout->generation == service->generation;
}

/* What an instance complains about; "" when it does not. */
static const char *complaint(const Model__Instance *instance, const Model__InstanceStatus *status) {
  if (!*PB_STR(instance->node))
    return PB_STR(instance->reason);
  if (!status)
    return "";
  switch (status->phase) {
  case MODEL__PHASE__PHASE_WAITING:
  case MODEL__PHASE__PHASE_BACKOFF:
  case MODEL__PHASE__PHASE_EXITED:
  case MODEL__PHASE__PHASE_FAILED:
    return PB_STR(status->reason);
  case MODEL__PHASE__PHASE_RUNNING:
    return status->ready ? "" : PB_STR(status->reason);
  default:
    return "";
  }
}

/* On its way for the first time: what `scale` has just asked for. */
static bool is_coming(const Model__InstanceStatus *status) {
  if (!status)
    return true;
  switch (status->phase) {
  case MODEL__PHASE__PHASE_WAITING:
  case MODEL__PHASE__PHASE_PULLING:
  case MODEL__PHASE__PHASE_CREATING:
  case MODEL__PHASE__PHASE_STARTING:
    return status->restarts == 0 && !*PB_STR(status->reason);
  default:
    return false;
  }
}

static const char *word(const struct api_view *v, bool pending, bool crashing, bool coming) {
  const Model__Service *service = v->service;
  if (service->stopped || service->replicas == 0)
    return v->existing ? "stopping" : "stopped";
  bool current = rollout_is_current(v->rollout, service);
  if (current && v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK)
    return "rolling_back";
  if (current && v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK)
    return "rolled_back";
  if (current && v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_FAILED)
    return "failed";
  bool enough = v->ready >= service->replicas;
  if (v->waits_for_secret || (pending && !enough))
    return "pending";
  if (!current || v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING || v->existing < service->replicas)
    return "deploying";
  if (enough)
    return "running";
  if (coming && v->ready && !crashing)
    return "deploying";
  return crashing ? "crashing" : "degraded";
}

/* A service's instances with what is known of each, in one walk through three tables that lie in the same order. */
struct instances {
  struct api_smap_walk instances, statuses, usage;
  size_t at;
};
struct one {
  const Model__Instance *instance;
  const Model__InstanceStatus *status; /* NULL: none */
  const struct api_usage *use;         /* NULL: none */
};

static struct instances instances_of(const struct api_cache *cache, const struct api_figures *figures, const char *project, const char *name) {
  char prefix[KEY_MAX];
  key_service(prefix, "", project, name);
  strncat(prefix, "/", sizeof prefix - strlen(prefix) - 1);
  return (struct instances){.instances = api_cache_walk(cache, API_INSTANCES, project, name),
                            .statuses = api_cache_walk(cache, API_INSTANCE_STATUS, project, name),
                            .usage = api_smap_walk(&figures->usage, prefix)};
}

static bool next_instance(struct instances *all, struct one *ret) {
  if (all->at == all->instances.count)
    return false;
  const struct api_smap_entry *entry = &all->instances.list[all->at++];
  const char *number = entry->key + all->instances.skip;
  const struct api_object *status = api_smap_walk_to(&all->statuses, number);
  ret->instance = API_MSG(entry, Model__Instance);
  ret->status = status ? api_status_of_instance((const Model__InstanceStatus *)(const void *)status->msg, ret->instance) : NULL;
  ret->use = api_smap_walk_to(&all->usage, number);
  return true;
}

void api_view(const struct api_cache *cache, const struct api_figures *figures, const Model__Service *service, struct api_view *v) {
  const char *project = PB_STR(service->project), *name = PB_STR(service->name);
  *v = (struct api_view){.service = service, .replicas = service->stopped ? 0 : service->replicas, .revision = service->revision, .last_error = ""};
  v->rollout = api_cache_rollout(cache, project, name);
  bool current = rollout_is_current(v->rollout, service);
  if (current && v->rollout->stable_revision &&
      (v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK))
    v->revision = v->rollout->stable_revision;
  const Model__Revision *revision = api_cache_revision(cache, project, name, v->revision);
  v->spec = revision ? revision->spec : NULL;

  struct instances all = instances_of(cache, figures, project, name);
  v->instances = all.instances.list;
  v->instance_count = all.instances.count;
  bool pending = false, crashing = false, coming = false;
  const char *missing = "", *error = "", *old_error = ""; /* of what should run; of what it replaces */
  for (struct one one; next_instance(&all, &one);) {
    const Model__Instance *instance = one.instance;
    const Model__InstanceStatus *status = one.status;
    const char **said = instance->revision == v->revision ? &error : &old_error;
    if (one.use) {
      v->cpu_milli += one.use->cpu_milli;
      v->memory += one.use->memory;
    }
    v->existing++;
    v->restarts += status ? status->restarts : 0;
    if (instance->desired != MODEL__DESIRED__DESIRED_RUN)
      continue;
    pending = pending || !*PB_STR(instance->node);
    if (status && secrets_is_waiting(status) && !v->waits_for_secret) {
      v->waits_for_secret = true;
      missing = PB_STR(status->reason);
    }
    v->secrets_newer = v->secrets_newer || (status && secrets_are_newer(cache, project, status));
    if (status && status->phase == MODEL__PHASE__PHASE_RUNNING) {
      v->running++;
      v->ready += status->ready ? 1 : 0;
      if (status->ready && instance->revision == service->revision && instance->generation == service->generation)
        v->target_ready++;
    }
    coming |= is_coming(status);
    if (status && status->phase == MODEL__PHASE__PHASE_BACKOFF && status->restarts >= API_CRASH_LOOP)
      crashing = true;
    if (!**said)
      *said = complaint(instance, status);
  }
  v->status = word(v, pending, crashing, coming);
  if (!*error && strcmp(v->status, "deploying") != 0) /* on its way to another revision, what was wrong with the old one misleads */
    error = old_error;
  if (v->waits_for_secret)
    error = missing;
  bool gave_up =
      current && (v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_FAILED || v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK ||
                  v->rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK);
  v->last_error = gave_up && *PB_STR(v->rollout->reason) ? v->rollout->reason : error;
}

bool api_view_settled(const struct api_view *v, bool *ok) {
  *ok = true;
  if (v->replicas == 0)
    return v->existing == 0;
  if (!rollout_is_current(v->rollout, v->service))
    return false;
  switch (v->rollout->state) {
  case MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE:
    return v->target_ready >= v->replicas && v->existing <= v->replicas;
  case MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK:
  case MODEL__ROLLOUT_STATE__ROLLOUT_FAILED:
    *ok = false;
    return true;
  default:
    return false;
  }
}

/* ---- JSON ---- */

static void nodes_json(const struct api_view *v, struct api_json *json) {
  size_t seen = 0;
  const char *nodes[64];
  api_json_array(json, "nodes");
  for (size_t i = 0; i < v->instance_count && seen < 64; i++) {
    const char *node = PB_STR(API_MSG(&v->instances[i], Model__Instance)->node);
    bool known = !*node;
    for (size_t k = 0; k < seen && !known; k++)
      known = strcmp(nodes[k], node) == 0;
    if (!known) {
      nodes[seen++] = node;
      api_json_str(json, NULL, node);
    }
  }
  api_json_array_end(json);
}

static void service_fields(const struct api_view *v, struct api_json *json) {
  const Model__ServiceSpec *spec = v->spec;
  api_json_str(json, "project", PB_STR(v->service->project));
  api_json_str(json, "name", PB_STR(v->service->name));
  api_json_str(json, "status", v->status);
  api_json_u64(json, "replicas", v->replicas);
  api_json_u64(json, "running_replicas", v->running);
  api_json_u64(json, "ready_replicas", v->ready);
  api_json_str(json, "image", spec ? PB_STR(spec->image) : "");
  api_json_str(json, "domain", spec && spec->n_domains ? spec->domains[0] : "");
  api_json_u64(json, "revision", v->revision);
  nodes_json(v, json);
  api_json_milli(json, "cpu", v->cpu_milli);
  api_json_u64(json, "memory", v->memory);
  api_json_str(json, "last_error", v->last_error);
  api_json_bool(json, "secrets_newer", v->secrets_newer);
}

void api_view_status_json(const struct api_view *v, struct api_json *json) {
  api_json_object(json, NULL);
  service_fields(v, json);
  api_json_object_end(json);
}

/* How a revision stands: what runs, what is on its way, what the scheduler gave up. "": it is of the past. */
static const char *revision_state(const Model__Service *service, const Model__Rollout *rollout, uint64_t number) {
  bool current = rollout_is_current(rollout, service);
  if (number == service->revision && service->stopped)
    return "stopped";
  if (!current)
    return number == service->revision ? "waiting" : rollout && number == rollout->stable_revision ? "running" : "";
  if (number == rollout->revision)
    switch (rollout->state) {
    case MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE:
      return "running";
    case MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING:
      return "deploying";
    case MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK:
      return "rolling back";
    case MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK:
      return "rolled back";
    case MODEL__ROLLOUT_STATE__ROLLOUT_FAILED:
      return "failed";
    case _MODEL__ROLLOUT_STATE_IS_INT_SIZE:
      break;
    }
  return number == rollout->stable_revision ? "running" : "";
}

/* Which keys differ, from a unified diff in TOML: "image, env.TEXT and 3 more". Names only: values may be long, and are in the specs. */
static void changed_keys(const char *diff, char out[200]) {
  char keys[6][64];
  size_t count = 0, more = 0;
  out[0] = 0;
  for (const char *line = diff; line && *line; line = strchr(line, '\n'), line += line != NULL) {
    const char *text = line + 1;
    bool changed = (*line == '+' || *line == '-') && strncmp(line, "+++", 3) != 0 && strncmp(line, "---", 3) != 0;
    text += strspn(text, " ");
    if (*text == '[')
      continue;
    size_t len = strcspn(text, "=\n");
    if (!changed || text[len] != '=' || !len || len > 60)
      continue;
    while (len && text[len - 1] == ' ')
      len--;
    char key[64];
    snprintf(key, sizeof key, "%.*s", (int)len, text);
    bool known = false;
    for (size_t i = 0; i < count && !known; i++)
      known = strcmp(keys[i], key) == 0;
    if (known)
      continue;
    if (count == 6)
      more++;
    else
      memcpy(keys[count++], key, sizeof key);
  }
  size_t used = 0;
  for (size_t i = 0; i < count && used < 160; i++)
    used += (size_t)snprintf(out + used, 200 - used, "%s%.24s", i ? ", " : "", keys[i]);
  if (more)
    snprintf(out + used, 200 - used, " and %zu more", more);
}

static void changes_since(const Model__Revision *r, const Model__Revision *before, char out[200]) {
  struct buf diff = BUF_INIT((size_t)8 << 20);
  out[0] = 0;
  if (before && before->spec && r->spec && spec_diff(before->spec, r->spec, &diff) >= 0)
    changed_keys(buf_str(&diff), out);
  buf_free(&diff);
  if (before && !*out)
    snprintf(out, 200, r->force_pull ? "the image was pulled again" : "nothing");
}

void api_view_revisions_json(const struct api_cache *cache, const Model__Service *service, bool changes, struct api_json *json) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_REVISIONS, PB_STR(service->project), PB_STR(service->name), &count);
  const Model__Rollout *rollout = api_cache_rollout(cache, PB_STR(service->project), PB_STR(service->name));
  api_json_array(json, "revisions");
  for (size_t i = count; i-- > 0;) {
    const Model__Revision *r = API_MSG(&list[i], Model__Revision);
    const Model__RevisionStatus *resolved = api_cache_revision_status(cache, PB_STR(r->project), PB_STR(r->name), r->number);
    api_json_object(json, NULL);
    api_json_u64(json, "number", r->number);
    api_json_time(json, "created", r->created_ms);
    api_json_str(json, "created_by", PB_STR(r->created_by));
    api_json_str(json, "image", r->spec ? PB_STR(r->spec->image) : "");
    api_json_str(json, "resolved", resolved ? PB_STR(resolved->image) : "");
    api_json_bool(json, "current", r->number == service->revision);
    api_json_bool(json, "stable", rollout && r->number == rollout->stable_revision);
    api_json_str(json, "state", revision_state(service, rollout, r->number));
    if (changes) {
      char keys[200], text[200];
      changes_since(r, i ? API_MSG(&list[i - 1], Model__Revision) : NULL, keys);
      api_text_copy(text, sizeof text, keys);
      api_json_str(json, "changes", text);
    }
    api_json_object_end(json);
  }
  api_json_array_end(json);
}

static void instance_json(const struct one *one, struct api_json *json) {
  const Model__Instance *instance = one->instance;
  const Model__InstanceStatus *status = one->status;
  const struct api_usage *use = one->use;
  char id[INSTANCE_ID_MAX];
  instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  const char *reason = *PB_STR(instance->reason) && (!status || instance->desired != MODEL__DESIRED__DESIRED_RUN) ? instance->reason
                       : status                                                                                   ? PB_STR(status->reason)
                                                                                                                  : "";
  api_json_object(json, NULL);
  api_json_str(json, "id", id);
  api_json_str(json, "state", api_phase_text(instance, status));
  api_json_bool(json, "ready", status && status->ready && instance->desired == MODEL__DESIRED__DESIRED_RUN);
  api_json_str(json, "reason", reason);
  api_json_u64(json, "restarts", status ? status->restarts : 0);
  if (status && status->has_exit_code)
    api_json_i64(json, "exit_code", status->exit_code);
  else
    api_json_null(json, "exit_code");
  api_json_bool(json, "oom_killed", status && status->oom_killed);
  api_json_str(json, "node", PB_STR(instance->node));
  api_json_str(json, "address", status ? PB_STR(status->address) : "");
  api_json_str(json, "container_id", status ? PB_STR(status->container_id) : "");
  api_json_u64(json, "revision", instance->revision);
  api_json_u64(json, "epoch", instance->epoch);
  api_json_time(json, "created", instance->created_ms);
  api_json_time(json, "started", status ? status->started_ms : 0);
  api_json_time(json, "next_try", status ? status->next_try_ms : 0);
  api_json_str(json, "progress", status ? PB_STR(status->progress) : "");
  api_json_milli(json, "cpu", use ? use->cpu_milli : 0);
  api_json_u64(json, "memory", use ? use->memory : 0);
  api_json_object_end(json);
}

static void spec_json(const Model__ServiceSpec *spec, struct api_json *json) {
  json_t *tree = spec ? spec_service_to_json(spec) : NULL;
  char *text = tree ? json_dumps(tree, JSON_COMPACT) : NULL;
  if (text)
    api_json_raw(json, "spec", text);
  else
    api_json_null(json, "spec");
  free(text);
  json_decref(tree);
}

void api_view_instances_json(const struct api_cache *cache, const struct api_figures *figures, const char *project, const char *name,
                             struct api_json *json) {
  struct instances all = instances_of(cache, figures, project, name);
  api_json_array(json, "instances");
  for (struct one one; next_instance(&all, &one);)
    instance_json(&one, json);
  api_json_array_end(json);
}

void api_view_detail_json(const struct api_cache *cache, const struct api_figures *figures, const Model__Service *service, struct api_json *json) {
  struct api_view v;
  api_view(cache, figures, service, &v);
  const char *project = PB_STR(service->project), *name = PB_STR(service->name);
  api_json_object(json, "service");
  service_fields(&v, json);
  api_json_u64(json, "wanted_revision", service->revision);
  api_json_u64(json, "generation", service->generation);
  api_json_bool(json, "stopped", service->stopped);
  api_json_time(json, "created", service->created_ms);
  api_json_time(json, "updated", service->updated_ms);
  api_json_object_end(json);
  spec_json(v.spec, json);
  api_view_revisions_json(cache, service, false, json);
  api_view_instances_json(cache, figures, project, name, json);
  if (!v.rollout) {
    api_json_null(json, "rollout");
    return;
  }
  api_json_object(json, "rollout");
  api_json_str(json, "state", rollout_is_current(v.rollout, service) ? api_rollout_state_text(v.rollout->state) : "waiting");
  api_json_u64(json, "revision", v.rollout->revision);
  api_json_u64(json, "stable_revision", v.rollout->stable_revision);
  api_json_str(json, "phase", PB_STR(v.rollout->phase));
  api_json_str(json, "reason", PB_STR(v.rollout->reason));
  api_json_time(json, "started", v.rollout->started_ms);
  api_json_time(json, "updated", v.rollout->updated_ms);
  api_json_object_end(json);
}
