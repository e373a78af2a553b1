/* GET /top: what services and instances use now: cpu, memory, network, requests. Who asks makes agents and proxies tell more often for a while. */
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/status_view.h"

struct sums {
  uint64_t cpu_milli, memory, memory_limit, rx_rate, tx_rate;
  uint32_t cpu_limit, instances;
  bool has_net, unlimited;
};

static void net(struct api_json *json, bool known, uint64_t rx, uint64_t tx) {
  if (known) {
    api_json_u64(json, "net_rx_rate", rx);
    api_json_u64(json, "net_tx_rate", tx);
  } else {
    api_json_null(json, "net_rx_rate");
    api_json_null(json, "net_tx_rate");
  }
}

static void limits(const struct api_cache *cache, const Model__Instance *instance, uint64_t *memory, uint32_t *cpu_milli) {
  const Model__Revision *revision = api_cache_revision(cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
  const Model__Resources *r = revision && revision->spec ? revision->spec->resources : NULL;
  *memory = r ? PB_GET(r, memory, 0) : 0;
  *cpu_milli = r ? PB_GET(r, cpu_milli, 0) : 0;
}

static void instance_json(const struct api *api, const Model__Instance *instance, struct sums *sums, struct api_json *json) {
  const Model__InstanceStatus *status = api_cache_instance_status(&api->cache, instance);
  char id[INSTANCE_ID_MAX];
  instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  const struct api_usage *use = api_figures_of(&api->figures, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  uint64_t memory;
  uint32_t cpu;
  limits(&api->cache, instance, &memory, &cpu);
  api_json_object(json, NULL);
  api_json_str(json, "id", id);
  api_json_str(json, "node", PB_STR(instance->node));
  api_json_str(json, "state", api_phase_text(instance, status));
  api_json_milli(json, "cpu", use ? use->cpu_milli : 0);
  api_json_milli(json, "cpu_limit", cpu);
  api_json_u64(json, "memory", use ? use->memory : 0);
  api_json_u64(json, "memory_limit", memory);
  api_json_u64(json, "pids", use ? use->pids : 0);
  net(json, use && use->has_rates, use ? use->rx_rate : 0, use ? use->tx_rate : 0);
  api_json_object_end(json);
  sums->instances++;
  sums->memory_limit += memory;
  sums->unlimited |= !memory;
  sums->cpu_limit += cpu;
  if (!use)
    return;
  sums->cpu_milli += use->cpu_milli;
  sums->memory += use->memory;
  if (use->has_rates) {
    sums->has_net = true;
    sums->rx_rate += use->rx_rate;
    sums->tx_rate += use->tx_rate;
  }
}

static void rate(struct api_json *json, const char *key, double per_second) {
  api_json_milli(json, key, per_second > 0 ? (uint64_t)(per_second * 1000 + 0.5) : 0);
}

static void latency(struct api_json *json, const char *key, int64_t us) {
  if (us < 0)
    api_json_null(json, key);
  else
    api_json_milli(json, key, (uint64_t)us);
}

static void requests_json(const struct api *api, const char *id, struct api_json *json) {
  struct api_rates r;
  api_figures_rates(&api->figures, id, api_now_ms(api), &r);
  if (!r.known) {
    api_json_null(json, "requests_rate");
    api_json_null(json, "errors_rate");
    api_json_null(json, "errors_4xx_rate");
  } else {
    rate(json, "requests_rate", r.requests);
    rate(json, "errors_rate", r.errors_5xx);
    rate(json, "errors_4xx_rate", r.errors_4xx);
  }
  latency(json, "p50_ms", r.p50_us);
  latency(json, "p99_ms", r.p99_us);
}

static void service_json(const struct api *api, const Model__Service *s, struct api_json *json) {
  const char *project = PB_STR(s->project), *name = PB_STR(s->name);
  char id[INSTANCE_ID_MAX];
  struct sums sums = {0};
  size_t count;
  snprintf(id, sizeof id, "%s/%s", project, name);
  const struct api_smap_entry *list = api_cache_of_service(&api->cache, API_INSTANCES, project, name, &count);
  api_json_object(json, NULL);
  api_json_str(json, "service", id);
  api_json_array(json, "instances");
  for (size_t i = 0; i < count; i++)
    instance_json(api, API_MSG(&list[i], Model__Instance), &sums, json);
  api_json_array_end(json);
  api_json_milli(json, "cpu", sums.cpu_milli);
  api_json_milli(json, "cpu_limit", sums.cpu_limit);
  api_json_u64(json, "memory", sums.memory);
  api_json_u64(json, "memory_limit", sums.unlimited ? 0 : sums.memory_limit);
  net(json, sums.has_net, sums.rx_rate, sums.tx_rate);
  requests_json(api, id, json);
  api_json_object_end(json);
}

static void node_json(const struct api *api, const Model__Node *node, struct api_json *json) {
  const char *name = PB_STR(node->name);
  const Model__NodeStatus *status = api_cache_node_status(&api->cache, name);
  const struct api_node_use *use = api_figures_of_node(&api->figures, name);
  api_json_object(json, NULL);
  api_json_str(json, "name", name);
  api_json_milli(json, "cpu", use ? use->cpu_milli : 0);
  api_json_milli(json, "cpu_limit", status ? status->cpu_milli : 0);
  api_json_u64(json, "memory", use ? use->memory : 0);
  api_json_u64(json, "memory_limit", status ? status->memory : 0);
  api_json_object_end(json);
}

void api_get_top(struct api_request *r) {
  struct api *api = r->api;
  const char *project = api_request_query(r, "project");
  bool limited = api_auth_is_limited(&api->cache, &r->who);
  size_t count;
  if (api->gateway)
    gateway_watch_figures(api->gateway);
  const struct api_smap_entry *all = api_cache_all(&api->cache, API_SERVICES, &count);
  struct api_json json = api_reply_json(r, 200);
  api_json_time(&json, "time", api_now_ms(api));
  api_json_array(&json, "services");
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    if ((!project || strcmp(project, PB_STR(s->project)) == 0) && (!limited || api_auth_sees(&api->cache, &r->who, PB_STR(s->project))))
      service_json(api, s, &json);
  }
  api_json_array_end(&json);
  all = api_cache_all(&api->cache, API_NODES, &count);
  api_json_array(&json, "nodes");
  for (size_t i = 0; i < count; i++)
    node_json(api, API_MSG(&all[i], Model__Node), &json);
  api_json_array_end(&json);
  api_reply_end(r);
}
