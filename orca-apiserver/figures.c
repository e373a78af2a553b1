#include "orca-apiserver/figures.h"

#include <stdlib.h>

static void stats_free(void *value) {
  node__proxy_stats__free_unpacked(value, NULL);
}

void api_figures_fini(struct api_figures *f) {
  api_smap_clear(&f->usage, free);
  api_smap_clear(&f->nodes, free);
  api_smap_clear(&f->proxies, stats_free);
}

/* Figures are a courtesy: without memory for them there are none. */
static void *record(struct api_smap *map, const char *key, size_t size) {
  void **slot = api_smap_slot(map, key);
  if (slot && !*slot)
    *slot = calloc(1, size);
  return slot ? *slot : NULL;
}

void api_figures_usage(struct api_figures *f, const char *id, const Node__Usage *usage) {
  struct api_usage *u = record(&f->usage, id, sizeof *u);
  if (u)
    *u = (struct api_usage){.cpu_ns = usage->cpu_ns, .memory = usage->memory, .cpu_milli = usage->cpu_milli, .pids = usage->pids};
}

void api_figures_gone(struct api_figures *f, const char *id) {
  free(api_smap_take(&f->usage, id));
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

void api_figures_proxy(struct api_figures *f, const char *node, Node__ProxyStats *stats) {
  void **slot = api_smap_slot(&f->proxies, node);
  if (!slot) {
    stats_free(stats);
    return;
  }
  if (*slot)
    stats_free(*slot);
  *slot = stats;
}

const struct api_usage *api_figures_of(const struct api_figures *f, const char *id) {
  return api_smap_get(&f->usage, id);
}
const struct api_node_use *api_figures_of_node(const struct api_figures *f, const char *node) {
  return api_smap_get(&f->nodes, node);
}
