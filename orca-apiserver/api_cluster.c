/* The cluster as a whole: health, info, nodes. */
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/daemon/daemon.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

void api_get_health(struct api_request *r) {
  const struct api *api = r->api;
  struct api_json json = api_reply_json(r, api->in_touch ? 200 : 503);
  api_json_str(&json, "status", api->in_touch ? "ok" : "unavailable");
  if (!api->in_touch) {
    r->retry_after = 1;
    api_json_str(&json, "error", "not in touch with the store"); /* whoever asks: where it is, only the log says */
    api_json_str(&json, "code", err_code_text(ERR_UNAVAILABLE));
  }
  api_json_str(&json, "version", ORCA_VERSION);
  api_reply_end(r);
}

static const char *node_word(const Model__Node *node, const Model__NodeStatus *status) {
  if (!status || status->state != MODEL__NODE_STATE__NODE_READY)
    return "unreachable";
  if (node->drain)
    return "draining";
  return status->docker_ok ? "ready" : "degraded";
}

static void node_reason(const Model__NodeStatus *status, char out[256]) {
  if (!status)
    snprintf(out, 256, "it has not reported yet");
  else if (status->state == MODEL__NODE_STATE__NODE_READY && !status->docker_ok)
    snprintf(out, 256, "Docker does not answer%s%.200s", *PB_STR(status->docker_error) ? ": " : "", PB_STR(status->docker_error));
  else
    snprintf(out, 256, "%.250s", PB_STR(status->reason));
}

/* Those that the token sees. */
static size_t instances_on(const struct api_request *r, const char *node) {
  const struct api_cache *cache = &r->api->cache;
  size_t count, on = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_INSTANCES, &count);
  bool limited = api_auth_is_limited(cache, &r->who);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&all[i], Model__Instance);
    on += strcmp(PB_STR(instance->node), node) == 0 && (!limited || api_auth_sees(cache, &r->who, PB_STR(instance->project)));
  }
  return on;
}

static void node_json(const struct api_request *r, const Model__Node *node, struct api_json *json) {
  const struct api *api = r->api;
  const Model__NodeStatus *status = api_cache_node_status(&api->cache, PB_STR(node->name));
  const struct api_node_use *use = api_figures_of_node(&api->figures, PB_STR(node->name));
  api_json_object(json, NULL);
  api_json_str(json, "name", PB_STR(node->name));
  api_json_str(json, "address", PB_STR(node->address));
  api_json_str(json, "role", PB_STR(node->role));
  api_json_str(json, "state", node_word(node, status));
  char reason[256];
  node_reason(status, reason);
  api_json_str(json, "reason", reason);
  api_json_time(json, "since", status ? status->since_ms : 0);
  api_json_object(json, "labels");
  for (size_t i = 0; i < node->n_labels; i++)
    api_json_str(json, PB_STR(node->labels[i]->key), PB_STR(node->labels[i]->value));
  api_json_object_end(json);
  api_json_object(json, "capacity");
  api_json_milli(json, "cpu", status ? status->cpu_milli : 0);
  api_json_u64(json, "memory", status ? status->memory : 0);
  api_json_u64(json, "pids", status ? status->pids : 0);
  api_json_object_end(json);
  api_json_object(json, "used");
  api_json_milli(json, "cpu", use ? use->cpu_milli : 0);
  api_json_u64(json, "memory", use ? use->memory : 0);
  api_json_object_end(json);
  api_json_u64(json, "instances", instances_on(r, PB_STR(node->name)));
  api_json_str(json, "version", status ? PB_STR(status->version) : "");
  api_json_str(json, "docker_version", status ? PB_STR(status->docker_version) : "");
  api_json_str(json, "kernel", status ? PB_STR(status->kernel) : "");
  api_json_str(json, "arch", status ? PB_STR(status->arch) : "");
  api_json_object_end(json);
}

void api_get_nodes(struct api_request *r) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&r->api->cache, API_NODES, &count);
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, "nodes");
  for (size_t i = 0; i < count; i++)
    node_json(r, API_MSG(&all[i], Model__Node), &json);
  api_json_array_end(&json);
  api_reply_end(r);
}

static size_t count_seen(const struct api_request *r, enum api_kind kind) {
  size_t count, seen = 0;
  const struct api_smap_entry *all = api_cache_all(&r->api->cache, kind, &count);
  if (!api_auth_is_limited(&r->api->cache, &r->who))
    return count;
  for (size_t i = 0; i < count; i++)
    seen += api_auth_sees(&r->api->cache, &r->who,
                          PB_STR(kind == API_SERVICES ? API_MSG(&all[i], Model__Service)->project : API_MSG(&all[i], Model__Instance)->project));
  return seen;
}

/* ---- cluster/info: what the store says of itself, when it answers in time ---- */

static void info_json(struct api *api, struct api_request *r, const Store__StatusReply *store, const char *why) {
  const struct node_config *config = api->config;
  const Model__ClusterSpec *cluster = api_cache_cluster(&api->cache, NULL);
  const struct api_object *leader = api_cache_object(&api->cache, API_LEADER, KEY_SCHEDULER_LEADER);
  const Model__Leader *scheduler = leader ? (const Model__Leader *)(const void *)leader->msg : NULL;
  struct api_json json = api_reply_json(r, 200);
  api_json_str(&json, "id", config->cluster_id);
  api_json_str(&json, "name", cluster ? PB_STR(cluster->name) : "");
  api_json_str(&json, "domain", cluster ? PB_STR(cluster->domain) : "");
  api_json_str(&json, "version", ORCA_VERSION);
  api_json_str(&json, "node", config->name);
  api_json_time(&json, "started", api->started_ms);
  api_json_array(&json, "masters");
  for (size_t i = 0; i < config->master_count; i++) {
    api_json_object(&json, NULL);
    api_json_str(&json, "name", config->masters[i].name);
    api_json_str(&json, "address", config->masters[i].address);
    api_json_object_end(&json);
  }
  api_json_array_end(&json);
  if (scheduler) {
    api_json_object(&json, "scheduler");
    api_json_str(&json, "node", PB_STR(scheduler->node));
    api_json_time(&json, "since", scheduler->since_ms);
    api_json_object_end(&json);
  } else {
    api_json_null(&json, "scheduler");
  }
  api_json_object(&json, "store");
  api_json_bool(&json, "reachable", store != NULL);
  api_json_u64(&json, "seen_revision", api->cache.revision);
  if (store) {
    api_json_str(&json, "node", PB_STR(store->node));
    api_json_str(&json, "version", PB_STR(store->version));
    api_json_str(&json, "leader", PB_STR(store->leader_node));
    api_json_u64(&json, "term", store->term);
    api_json_u64(&json, "revision", store->revision);
    api_json_u64(&json, "commit_index", store->commit_index);
    api_json_u64(&json, "applied_index", store->applied_index);
    api_json_u64(&json, "compact_revision", store->compact_revision);
    api_json_u64(&json, "keys", store->keys);
    api_json_u64(&json, "db_size", store->db_size);
    api_json_u64(&json, "db_used", store->db_used);
    api_json_u64(&json, "log_size", store->log_size);
    api_json_u64(&json, "watchers", store->watchers);
    api_json_str(&json, "fault", PB_STR(store->fault));
  } else {
    api_json_str(&json, "fault", why);
  }
  api_json_object_end(&json);
  api_json_u64(&json, "nodes", api->cache.tables[API_NODES].count);
  api_json_u64(&json, "services", count_seen(r, API_SERVICES));
  api_json_u64(&json, "instances", count_seen(r, API_INSTANCES));
  api_reply_end(r);
}

static void info_done(void *arg, const Store__Reply *reply, const struct err *err) {
  struct api_request *r = arg;
  bool ok = reply && reply->body_case == STORE__REPLY__BODY_STATUS;
  info_json(r->api, r, ok ? reply->status : NULL, err ? err->msg : "it answered something else");
  api_request_unref(r);
}

void api_get_cluster(struct api_request *r) {
  if (!r->api->store || !r->api->in_touch) {
    info_json(r->api, r, NULL, r->api->why_not);
    return;
  }
  Store__StatusRequest status = STORE__STATUS_REQUEST__INIT;
  Store__Call call = STORE__CALL__INIT;
  call.body_case = STORE__CALL__BODY_STATUS;
  call.status = &status;
  storec_call(r->api->store, &call, NS_PER_SEC, info_done, api_request_ref(r));
}
