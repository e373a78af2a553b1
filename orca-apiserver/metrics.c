/* GET /metrics: Prometheus text (exposition format 0.0.4) for the whole cluster, and for this process. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "common/daemon/daemon.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/status_view.h"

#define LATENCY_BUCKETS 20

static void head(struct buf *out, const char *name, const char *type, const char *help) {
  buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Label values come from checked names, but for node names and addresses of records: quoted all the same. */
static void label(struct buf *out, const char *key, const char *value, bool first) {
  buf_printf(out, "%s%s=\"", first ? "{" : ",", key);
  for (; *value; value++) {
    if (*value == '"' || *value == '\\')
      buf_add_byte(out, '\\');
    buf_add_byte(out, *value == '\n' ? ' ' : (uint8_t)*value);
  }
  buf_add_byte(out, '"');
}

static void of_service(struct buf *out, const char *name, const Model__Service *s) {
  buf_add_str(out, name);
  label(out, "project", PB_STR(s->project), true);
  label(out, "service", PB_STR(s->name), false);
}

static bool may_see(struct api_request *r, const char *project) {
  return api_auth_sees(&r->api->cache, &r->who, project);
}

static void services(struct api_request *r, struct buf *out) {
  struct api *api = r->api;
  static const struct {
    const char *name, *help;
  } gauges[] = {{"orca_service_replicas", "Replicas that are wanted."},
                {"orca_service_running_replicas", "Replicas whose container runs."},
                {"orca_service_ready_replicas", "Replicas that get requests."},
                {"orca_service_memory_bytes", "Memory in use, without page cache."},
                {"orca_service_cpu_cores", "Cores in use, over the last sampling interval."},
                {"orca_service_restarts_total", "Restarts of the instances there are."}};
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&api->cache, API_SERVICES, &count);
  for (size_t g = 0; g < sizeof gauges / sizeof gauges[0]; g++) {
    head(out, gauges[g].name, g == 5 ? "counter" : "gauge", gauges[g].help);
    for (size_t i = 0; i < count; i++) {
      const Model__Service *s = API_MSG(&all[i], Model__Service);
      struct api_view v;
      if (!may_see(r, PB_STR(s->project)))
        continue;
      api_view(&api->cache, &api->figures, s, &v);
      of_service(out, gauges[g].name, s);
      if (g == 4)
        buf_printf(out, "} %" PRIu64 ".%03u\n", v.cpu_milli / 1000, (unsigned)(v.cpu_milli % 1000));
      else
        buf_printf(out, "} %" PRIu64 "\n", g == 0 ? v.replicas : g == 1 ? v.running : g == 2 ? v.ready : g == 3 ? v.memory : v.restarts);
    }
  }
  head(out, "orca_service_status", "gauge", "1 for the word that tells how a service is.");
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    struct api_view v;
    if (!may_see(r, PB_STR(s->project)))
      continue;
    api_view(&api->cache, &api->figures, s, &v);
    of_service(out, "orca_service_status", s);
    label(out, "status", v.status, false);
    buf_add_str(out, "} 1\n");
  }
}

/* ---- jobs ---- */

static void of_job(struct buf *out, const char *name, const Model__Job *job) {
  buf_add_str(out, name);
  label(out, "project", PB_STR(job->project), true);
  label(out, "job", PB_STR(job->name), false);
}

static void jobs(struct api_request *r, struct buf *out) {
  static const struct {
    const char *name, *type, *help;
  } figures[] = {{"orca_job_runs_total", "counter", "Runs that have ended, by how."},
                 {"orca_job_runs_live", "gauge", "Runs that go on, or wait to be placed."},
                 {"orca_job_last_success_timestamp_seconds", "gauge", "When a run last succeeded; missing: never."},
                 {"orca_job_next_tick_timestamp_seconds", "gauge", "When it runs next by its schedule; missing: it does not."}};
  const struct api_cache *cache = &r->api->cache;
  size_t count, runs;
  const struct api_smap_entry *all = api_cache_all(cache, API_JOBS, &count);
  for (size_t f = 0; f < sizeof figures / sizeof figures[0]; f++) {
    head(out, figures[f].name, figures[f].type, figures[f].help);
    for (size_t i = 0; i < count; i++) {
      const Model__Job *job = API_MSG(&all[i], Model__Job);
      const Model__JobState *state = api_cache_job_state(cache, PB_STR(job->project), PB_STR(job->name));
      if (job->task || !may_see(r, PB_STR(job->project))) /* each task is a job of its own: series without end */
        continue;
      for (size_t k = MODEL__RUN_STATE__RUN_SUCCEEDED; f == 0 && state && k < state->n_ended && k <= MODEL__RUN_STATE__RUN_STOPPED; k++) {
        of_job(out, figures[f].name, job);
        label(out, "state", api_run_state_text((Model__RunState)k), false);
        buf_printf(out, "} %" PRIu64 "\n", state->ended[k]);
      }
      if (f == 1) {
        const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, PB_STR(job->project), PB_STR(job->name), &runs);
        size_t live = 0;
        for (size_t k = 0; k < runs; k++)
          live += !api_run_is_over(API_MSG(&list[k], Model__JobRun));
        of_job(out, figures[f].name, job);
        buf_printf(out, "} %zu\n", live);
      }
      int64_t at = !state ? 0 : f == 2 ? state->last_success_ms : f == 3 && !job->suspended ? state->next_tick_ms : 0;
      if (at) {
        of_job(out, figures[f].name, job);
        buf_printf(out, "} %" PRId64 ".%03d\n", at / 1000, (int)(at % 1000));
      }
    }
  }
}

/* ---- proxies ---- */

static void stats_line(struct buf *out, const char *name, const char *node, const Node__ServiceStats *s) {
  buf_add_str(out, name);
  label(out, "node", node, true);
  label(out, "project", PB_STR(s->project), false);
  label(out, "service", PB_STR(s->service), false);
}

static uint64_t counter_of(const Node__ServiceStats *s, size_t which) {
  const uint64_t values[] = {s->requests, s->errors_4xx, s->errors_5xx, s->bytes_in, s->bytes_out};
  return values[which];
}

static void latency(struct buf *out, const char *node, const Node__ServiceStats *s) {
  uint64_t sum = 0;
  for (size_t b = 0; b < LATENCY_BUCKETS && b < s->n_latency; b++) {
    sum += s->latency[b];
    stats_line(out, "orca_proxy_request_duration_seconds_bucket", node, s);
    buf_printf(out, ",le=\"%.6f\"} %" PRIu64 "\n", (double)(UINT64_C(64) << b) / 1e6, sum);
  }
  stats_line(out, "orca_proxy_request_duration_seconds_bucket", node, s);
  buf_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", s->requests > sum ? s->requests : sum);
  stats_line(out, "orca_proxy_request_duration_seconds_count", node, s);
  buf_printf(out, "} %" PRIu64 "\n", s->requests > sum ? s->requests : sum);
}

static void proxies(struct api_request *r, struct buf *out) {
  static const struct {
    const char *name, *help;
  } counters[] = {{"orca_proxy_requests_total", "Requests answered for a service."},
                  {"orca_proxy_errors_4xx_total", "Answers 400 to 499."},
                  {"orca_proxy_errors_5xx_total", "Answers 500 to 599."},
                  {"orca_proxy_bytes_in_total", "Bytes of requests."},
                  {"orca_proxy_bytes_out_total", "Bytes of answers."}};
  const struct api_smap *all = &r->api->figures.proxies;
  for (size_t c = 0; c <= sizeof counters / sizeof counters[0]; c++) {
    bool histogram = c == sizeof counters / sizeof counters[0];
    if (histogram)
      head(out, "orca_proxy_request_duration_seconds", "histogram", "Time to answer a request.");
    else
      head(out, counters[c].name, "counter", counters[c].help);
    for (size_t p = 0; p < all->count; p++) {
      const struct api_proxy_figures *of = all->list[p].value;
      for (size_t i = 0; of && i < of->services.count; i++) {
        const struct api_traffic *traffic = of->services.list[i].value;
        const Node__ServiceStats *s = traffic ? traffic->last : NULL;
        if (!s || !may_see(r, PB_STR(s->project)))
          continue;
        if (histogram) {
          latency(out, all->list[p].key, s);
        } else {
          stats_line(out, counters[c].name, all->list[p].key, s);
          buf_printf(out, "} %" PRIu64 "\n", counter_of(s, c));
        }
      }
    }
  }
  head(out, "orca_proxy_connections", "gauge", "Connections of clients that are open.");
  for (size_t p = 0; p < all->count; p++) {
    const struct api_proxy_figures *of = all->list[p].value;
    buf_add_str(out, "orca_proxy_connections");
    label(out, "node", all->list[p].key, true);
    buf_printf(out, "} %" PRIu64 "\n", of ? of->connections : 0);
  }
}

/* ---- nodes ---- */

static void nodes(struct api *api, struct buf *out) {
  static const struct {
    const char *name, *help;
  } gauges[] = {{"orca_node_ready", "1 when its agent is connected and reports."},
                {"orca_node_docker_ok", "1 when its Docker answers."},
                {"orca_node_cpu_cores", "Cores it has."},
                {"orca_node_memory_bytes", "Memory it has."},
                {"orca_node_cpu_used_cores", "Cores in use."},
                {"orca_node_memory_used_bytes", "Memory in use."}};
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&api->cache, API_NODES, &count);
  for (size_t g = 0; g < sizeof gauges / sizeof gauges[0]; g++) {
    head(out, gauges[g].name, "gauge", gauges[g].help);
    for (size_t i = 0; i < count; i++) {
      const char *name = PB_STR(API_MSG(&all[i], Model__Node)->name);
      const Model__NodeStatus *s = api_cache_node_status(&api->cache, name);
      const struct api_node_use *u = api_figures_of_node(&api->figures, name);
      const double values[] = {s && s->state == MODEL__NODE_STATE__NODE_READY,
                               s && s->docker_ok,
                               s ? s->cpu_milli / 1e3 : 0,
                               s ? (double)s->memory : 0,
                               u ? u->cpu_milli / 1e3 : 0,
                               u ? (double)u->memory : 0};
      buf_add_str(out, gauges[g].name);
      label(out, "node", name, true);
      buf_printf(out, "} %.15g\n", values[g]);
    }
  }
}

/* ---- this process ---- */

static void number(struct buf *out, const char *name, const char *type, const char *help, double value) {
  head(out, name, type, help);
  buf_printf(out, "%s %.15g\n", name, value);
}

static void process(struct api *api, struct buf *out) {
  struct timespec cpu = {0};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  number(out, "process_cpu_seconds_total", "counter", "CPU time of this process.", (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
  number(out, "process_start_time_seconds", "gauge", "When it started.", (double)api->started_ms / 1e3);
  FILE *f = fopen("/proc/self/statm", "re");
  long pages = 0, resident = 0;
  if (f && fscanf(f, "%ld %ld", &pages, &resident) == 2)
    number(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)resident * (double)sysconf(_SC_PAGESIZE));
  if (f)
    fclose(f);
  head(out, "orca_api_requests_total", "counter", "Requests to the API, by class of status.");
  for (size_t i = 2; i < 6; i++)
    buf_printf(out, "orca_api_requests_total{class=\"%zuxx\"} %" PRIu64 "\n", i, api->requests[i]);
  number(out, "orca_api_wrong_tokens_total", "counter", "Requests with a token that is not one.", (double)api->wrong_tokens);
  number(out, "orca_api_streams", "gauge", "Streams that are open.", (double)api->stream_count);
  number(out, "orca_api_cache_revision", "gauge", "Revision of the store that the cache has reached.", (double)api->cache.revision);
  number(out, "orca_api_cache_refused_total", "counter", "Stored values that did not unpack.", (double)api->cache.refused);
  number(out, "orca_api_store_up", "gauge", "1 while changes of the store are heard.", api->in_touch);
}

static void gateway_and_bus(struct api *api, struct buf *out) {
  if (api->gateway) {
    struct gateway_counters c;
    gateway_counters(api->gateway, &c);
    number(out, "orca_gateway_agents", "gauge", "Agents that are connected.", (double)c.agents);
    number(out, "orca_gateway_proxies", "gauge", "Proxies that are connected.", (double)c.proxies);
    number(out, "orca_gateway_reports_total", "counter", "Reports of agents.", (double)c.reports);
    number(out, "orca_gateway_rounds_total", "counter", "Transactions that stored reports.", (double)c.rounds);
    number(out, "orca_gateway_refused_total", "counter", "What peers said and was not theirs to say.", (double)c.refused);
    number(out, "orca_gateway_routes", "gauge", "Services in the route table.", (double)c.routes);
  }
  if (!api->bus)
    return;
  const struct bus_counters *b = bus_counters(api->bus);
  number(out, "orca_bus_sent_total", "counter", "Messages sent on the bus.", (double)b->sent);
  number(out, "orca_bus_received_total", "counter", "Messages received on the bus.", (double)b->received);
  number(out, "orca_bus_refused_malformed_total", "counter", "Malformed messages refused.", (double)b->refused_malformed);
  number(out, "orca_bus_refused_too_large_total", "counter", "Oversized messages refused.", (double)b->refused_too_large);
  number(out, "orca_bus_refused_unauthorized_total", "counter", "Peers refused.", (double)b->refused_unauthorized);
  number(out, "orca_bus_cut_slow_total", "counter", "Peers cut because they did not read.", (double)b->cut_slow);
  number(out, "orca_bus_reconnects_total", "counter", "Reconnections.", (double)b->reconnects);
}

void api_get_metrics(struct api_request *r) {
  struct buf *out = &r->out;
  head(out, "orca_build_info", "gauge", "1; the version is a label.");
  buf_add_str(out, "orca_build_info");
  label(out, "version", ORCA_VERSION, true);
  buf_add_str(out, "} 1\n");
  services(r, out);
  jobs(r, out);
  nodes(r->api, out);
  proxies(r, out);
  if (!api_auth_is_limited(&r->api->cache, &r->who)) /* they count what is in all projects */
    gateway_and_bus(r->api, out);
  process(r->api, out);
  if (buf_failed(out))
    api_fail_with(r, ERR_MEMORY, "no memory for the figures");
  else
    api_reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8");
}
