/* The node gateway (:6881): what agents and proxies are told, and what they report.
 *
 * Who may connect is in /nodes/… (Node.keys); a peer's node and role are what that record says of its key. Agents get their desired state and
 * proxies the route table as streams: first all, then changes, merged while a peer is slow. Reports of one loop round go into
 * the store in one transaction and are acknowledged when it is committed; while one is on its way, the next gathers.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_H
#define ORCA_APISERVER_GATEWAY_H

#include "common/bus/bus.h"
#include "common/err.h"
#include "orca-apiserver/cache.h"
#include "orca-apiserver/json_out.h"

struct api;
struct api_route_table;
struct gateway;

/* Call it once the cache is whole: what it tells is the truth from then on. endpoint: "tcp://10.0.0.1:6881". */
struct gateway *gateway_open(struct api *api, const char *endpoint, struct err *err);
const char *gateway_endpoint(const struct gateway *g);
void gateway_close(struct gateway *g);

/* The cache has changed (api_cache_ops.changed). */
void gateway_changed(struct gateway *g, enum api_kind kind, const char *key, const ProtobufCMessage *old, const ProtobufCMessage *now);

/* The conversation with a node's agent, or with a scheduler, once it has said hello, to call it (bus_call); NULL: not connected now. Good until the
 * loop's next callback: bus_call keeps what it needs. */
struct bus_conn *gateway_agent(const struct gateway *g, const char *node);
struct bus_conn *gateway_scheduler(const struct gateway *g);

#define GATEWAY_WATCH_EVERY (2 * NS_PER_SEC)
#define GATEWAY_WATCH_FOR (10 * NS_PER_SEC)
/* Somebody looks at figures: agents and proxies report them more often for a while. Called again and again it asks anew when half of that is over. */
void gateway_watch_figures(struct gateway *g);

/* The route table, to look at. */
const struct api_route_table *gateway_routes(const struct gateway *g);

/* Whether every proxy that is connected serves the service's route as it is now, or has none to serve. When that may have changed, streams are woken. */
bool gateway_is_routed(const struct gateway *g, const char *project, const char *name);

/* What a proxy could not do of what it was told: one string each. */
void gateway_problems(const struct gateway *g, struct api_json *json);

struct gateway_counters {
  uint64_t agents, proxies, reports, rounds, refused;
  uint64_t table_version, routes;
};
void gateway_counters(const struct gateway *g, struct gateway_counters *ret);

#endif
