/* What nodes report and nobody stores: use of instances and nodes, counters of proxies. Lost with this process, reported again within 15 s.
 *
 * Rates are over the last interval between two reports; a proxy tells only of services that had requests since its last report, and is silent
 * when there were none.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_FIGURES_H
#define ORCA_APISERVER_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

#include "orca-apiserver/smap.h"
#include "proto/node.pb-c.h"

#define API_LATENCY_BUCKETS 20 /* of ServiceStats.latency: bucket i counts answers under 2^i × 64 µs */

struct api_usage {
  uint64_t cpu_ns, memory;
  uint32_t cpu_milli, pids;
  bool has_net, has_rates;
  uint64_t net_rx, net_tx;   /* bytes since the container's start */
  uint64_t rx_rate, tx_rate; /* bytes/s, over the last interval */
  int64_t at_ms;
};
struct api_node_use {
  uint64_t cpu_ns, memory;
  uint32_t cpu_milli; /* over the last interval */
  int64_t at_ms;
};
struct api_traffic {        /* of one service at one proxy */
  Node__ServiceStats *last; /* counters since the proxy's start */
  uint64_t seq;             /* report that last told of it; of that interval: */
  uint64_t requests, errors_4xx, errors_5xx, bytes_in, bytes_out, latency[API_LATENCY_BUCKETS];
};
struct api_proxy_figures {
  uint64_t connections, accepted, seq;
  int64_t at_ms;            /* of the last report */
  int64_t interval_ms;      /* that it is about; 0: it was the first */
  struct api_smap services; /* PROJECT/NAME → struct api_traffic */
};
struct api_figures {
  struct api_smap usage;   /* PROJECT/NAME/NUMBER, in ten digits as in the store's keys → struct api_usage */
  struct api_smap nodes;   /* name → struct api_node_use */
  struct api_smap proxies; /* node → struct api_proxy_figures */
};

void api_figures_fini(struct api_figures *f);
void api_figures_usage(struct api_figures *f, const char *project, const char *service, uint64_t number, const Node__Usage *usage, int64_t now_ms);
void api_figures_gone(struct api_figures *f, const char *project, const char *service, uint64_t number);
void api_figures_node(struct api_figures *f, const char *node, uint64_t cpu_ns, uint64_t memory, int64_t now_ms);
void api_figures_proxy(struct api_figures *f, const char *node, const Node__ProxyStats *stats, int64_t now_ms);
const struct api_usage *api_figures_of(const struct api_figures *f, const char *project, const char *service, uint64_t number);
const struct api_node_use *api_figures_of_node(const struct api_figures *f, const char *node);

/* The traffic of a service (PROJECT/NAME) over all proxies, as of their last intervals. */
struct api_rates {
  bool known;                              /* some proxy has told of it */
  double requests, errors_4xx, errors_5xx; /* per second */
  double bytes_in, bytes_out;
  int64_t p50_us, p99_us; /* upper bounds of their buckets; -1: there were no requests */
};
void api_figures_rates(const struct api_figures *f, const char *service, int64_t now_ms, struct api_rates *ret);
/* The upper bound, in µs, of the bucket in which the given share of all lies; -1 when all are empty. The last bucket has none: its lower bound. */
int64_t api_figures_quantile(const uint64_t buckets[API_LATENCY_BUCKETS], double share);

#endif
