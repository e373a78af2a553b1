#include "orca-apiserver/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"

#define REPORTS_MS 10000 /* a proxy that is not watched tells so often, unless there is nothing to tell */
#define LATE_MS 3000     /* past its interval a report is over: there is nothing newer because nothing happens */

static void traffic_free(void *value) {
  struct api_traffic *t = value;
  if (t && t->last)
    node__service_stats__free_unpacked(t->last, NULL);
  free(t);
}

static void proxy_free(void *value) {
  struct api_proxy_figures *p = value;
  if (p)
    api_smap_clear(&p->services, traffic_free);
  free(p);
}

void api_figures_fini(struct api_figures *f) {
  api_smap_clear(&f->usage, free);
  api_smap_clear(&f->nodes, free);
  api_smap_clear(&f->proxies, proxy_free);
}

/* Figures are a courtesy: without memory for them there are none. */
static void *record(struct api_smap *map, const char *key, size_t size) {
  void **slot = api_smap_slot(map, key);
  if (slot && !*slot)
    *slot = calloc(1, size);
  return slot ? *slot : NULL;
}

static uint64_t rate(uint64_t now, uint64_t before, int64_t ms) {
  return ms > 0 && now >= before ? (uint64_t)((double)(now - before) * 1000 / (double)ms) : 0;
}

void api_figures_usage(struct api_figures *f, const char *project, const char *service, uint64_t number, const Node__Usage *usage, int64_t now_ms) {
  char key[KEY_MAX];
  key_numbered(key, "", project, service, number);
  struct api_usage *u = record(&f->usage, key, sizeof *u);
  if (!u)
    return;
  struct api_usage next = {.cpu_ns = usage->cpu_ns,
                           .memory = usage->memory,
                           .cpu_milli = usage->cpu_milli,
                           .pids = usage->pids,
                           .has_net = usage->has_net_rx && usage->has_net_tx,
                           .net_rx = usage->net_rx,
                           .net_tx = usage->net_tx,
                           .at_ms = now_ms};
  if (u->has_net && next.has_net && now_ms > u->at_ms) {
    next.has_rates = true;
    next.rx_rate = rate(next.net_rx, u->net_rx, now_ms - u->at_ms);
    next.tx_rate = rate(next.net_tx, u->net_tx, now_ms - u->at_ms);
  }
  *u = next;
}

void api_figures_gone(struct api_figures *f, const char *project, const char *service, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, "", project, service, number);
  free(api_smap_take(&f->usage, key));
}

void api_figures_node(struct api_figures *f, const char *node, uint64_t cpu_ns, uint64_t memory, int64_t now_ms) {
  struct api_node_use *u = record(&f->nodes, node, sizeof *u);
  if (!u)
    return;
  if (u->at_ms && now_ms > u->at_ms && cpu_ns >= u->cpu_ns)
    u->cpu_milli = (uint32_t)((cpu_ns - u->cpu_ns) / 1000 / (uint64_t)(now_ms - u->at_ms));
  if (cpu_ns) {
    u->cpu_ns = cpu_ns;
    u->at_ms = now_ms;
  }
  if (memory)
    u->memory = memory;
}

/* ---- proxies ---- */

/* Counters that are lower than before are a new process's: all of them are news. */
static uint64_t grown(uint64_t now, uint64_t before, bool anew) {
  return anew || now < before ? now : now - before;
}

static void traffic(struct api_proxy_figures *p, const Node__ServiceStats *stats) {
  char id[160];
  snprintf(id, sizeof id, "%.64s/%.64s", PB_STR(stats->project), PB_STR(stats->service));
  struct api_traffic *t = record(&p->services, id, sizeof *t);
  Node__ServiceStats *copy = t ? (Node__ServiceStats *)(void *)pb_clone(&stats->base) : NULL;
  if (!copy)
    return;
  const Node__ServiceStats none = NODE__SERVICE_STATS__INIT, *old = t->last ? t->last : &none;
  bool anew = copy->requests < old->requests;
  t->seq = p->seq;
  t->requests = grown(copy->requests, old->requests, anew);
  t->errors_4xx = grown(copy->errors_4xx, old->errors_4xx, anew);
  t->errors_5xx = grown(copy->errors_5xx, old->errors_5xx, anew);
  t->bytes_in = grown(copy->bytes_in, old->bytes_in, anew);
  t->bytes_out = grown(copy->bytes_out, old->bytes_out, anew);
  for (size_t i = 0; i < API_LATENCY_BUCKETS; i++)
    t->latency[i] = i < copy->n_latency ? grown(copy->latency[i], i < old->n_latency ? old->latency[i] : 0, anew) : 0;
  if (t->last)
    node__service_stats__free_unpacked(t->last, NULL);
  t->last = copy;
}

void api_figures_proxy(struct api_figures *f, const char *node, const Node__ProxyStats *stats, int64_t now_ms) {
  struct api_proxy_figures *p = record(&f->proxies, node, sizeof *p);
  if (!p)
    return;
  int64_t since = p->at_ms ? now_ms - p->at_ms : 0;
  p->interval_ms = since > REPORTS_MS ? REPORTS_MS : since;
  p->at_ms = now_ms;
  p->seq++;
  p->connections = stats->connections;
  p->accepted = stats->accepted;
  for (size_t i = 0; i < stats->n_services; i++)
    traffic(p, stats->services[i]);
}

const struct api_usage *api_figures_of(const struct api_figures *f, const char *project, const char *service, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, "", project, service, number);
  return api_smap_get(&f->usage, key);
}
const struct api_node_use *api_figures_of_node(const struct api_figures *f, const char *node) {
  return api_smap_get(&f->nodes, node);
}

int64_t api_figures_quantile(const uint64_t buckets[API_LATENCY_BUCKETS], double share) {
  uint64_t all = 0, below = 0;
  for (size_t i = 0; i < API_LATENCY_BUCKETS; i++)
    all += buckets[i];
  if (!all)
    return -1;
  for (size_t i = 0; i < API_LATENCY_BUCKETS - 1; i++) {
    below += buckets[i];
    if ((double)below >= share * (double)all)
      return INT64_C(64) << i;
  }
  return INT64_C(64) << (API_LATENCY_BUCKETS - 2);
}

void api_figures_rates(const struct api_figures *f, const char *service, int64_t now_ms, struct api_rates *ret) {
  uint64_t latency[API_LATENCY_BUCKETS] = {0};
  *ret = (struct api_rates){0};
  for (size_t i = 0; i < f->proxies.count; i++) {
    const struct api_proxy_figures *p = f->proxies.list[i].value;
    const struct api_traffic *t = p ? api_smap_get(&p->services, service) : NULL;
    if (!t)
      continue;
    ret->known = true;
    if (t->seq != p->seq || p->interval_ms <= 0 || now_ms - p->at_ms > p->interval_ms + LATE_MS)
      continue;
    double seconds = (double)p->interval_ms / 1000;
    ret->requests += (double)t->requests / seconds;
    ret->errors_4xx += (double)t->errors_4xx / seconds;
    ret->errors_5xx += (double)t->errors_5xx / seconds;
    ret->bytes_in += (double)t->bytes_in / seconds;
    ret->bytes_out += (double)t->bytes_out / seconds;
    for (size_t k = 0; k < API_LATENCY_BUCKETS; k++)
      latency[k] += t->latency[k];
  }
  ret->p50_us = api_figures_quantile(latency, 0.5);
  ret->p99_us = api_figures_quantile(latency, 0.99);
}
