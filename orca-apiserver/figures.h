/* What nodes report and nobody stores: use of instances and nodes, counters of proxies. Lost with this process, reported again within 15 s.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_FIGURES_H
#define ORCA_APISERVER_FIGURES_H

#include <stdint.h>

#include "orca-apiserver/smap.h"
#include "proto/node.pb-c.h"

struct api_usage {
  uint64_t cpu_ns, memory;
  uint32_t cpu_milli, pids;
};
struct api_node_use {
  uint64_t cpu_ns, memory;
  uint32_t cpu_milli; /* over the last interval */
  int64_t at_ms;
};
struct api_figures {
  struct api_smap usage;   /* PROJECT/NAME.NUMBER → struct api_usage */
  struct api_smap nodes;   /* name → struct api_node_use */
  struct api_smap proxies; /* node → Node__ProxyStats, the last one */
};

void api_figures_fini(struct api_figures *f);
void api_figures_usage(struct api_figures *f, const char *id, const Node__Usage *usage);
void api_figures_gone(struct api_figures *f, const char *id);
void api_figures_node(struct api_figures *f, const char *node, uint64_t cpu_ns, uint64_t memory, int64_t now_ms);
void api_figures_proxy(struct api_figures *f, const char *node, Node__ProxyStats *stats); /* takes stats */
const struct api_usage *api_figures_of(const struct api_figures *f, const char *id);
const struct api_node_use *api_figures_of_node(const struct api_figures *f, const char *node);

#endif
