/* From instances to routes: which service is reached by which names, and which ready instances answer.
 *
 * The table has one version that grows with every change; each route remembers the version it last changed at, so what a proxy still has to
 * hear is "all that changed after what it was sent", however long it was slow, and nothing is queued for it.
 *
 * Draining: an instance is let go of when it is in no table, and every proxy that is connected, or was within the last API_PROXY_GRACE,
 * has acknowledged a version from which on it was not in it, and does not list it as draining. A proxy from which nothing was heard
 * since this process began may still serve an older table from its disk: for API_PROXY_GRACE after the start the first ones are waited for.
 * Threads: one owner; no I/O, no clock: `now` is the loop's time. */
#ifndef ORCA_APISERVER_ROUTES_DERIVE_H
#define ORCA_APISERVER_ROUTES_DERIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "orca-apiserver/cache.h"
#include "proto/node.pb-c.h"

#define API_PROXY_GRACE INT64_C(10000000000) /* ns */
#define API_TOMBSTONES_MAX 4096

struct api_proxy {
  char name[64]; /* the node's */
  bool connected, acked_any;
  uint64_t acked;
  struct api_smap draining; /* PROJECT/NAME.NUMBER */
  int64_t lost_at;
  char fault[256];             /* what it could not do of what it was told */
  int64_t certificate_ends_ms; /* of the API's certificate there; 0: it has none */
};
struct api_route_table {
  uint64_t first, version;   /* this process's first; the newest */
  uint64_t settings_version; /* when cluster.toml last changed */
  uint64_t forgotten;        /* removals up to this one are no longer known: who is behind gets everything */
  struct api_smap routes;    /* PROJECT/NAME → its route, or that it was removed */
  struct api_smap left;      /* PROJECT/NAME.NUMBER → version from which on it is in no table */
  struct api_smap proxies;   /* node → struct api_proxy */
  size_t removed_count;
  int64_t began;
};

void api_routes_init(struct api_route_table *t, uint64_t first_version, int64_t now);
void api_routes_fini(struct api_route_table *t);

/* Looks at one service again; true when the table changed. */
bool api_routes_update(struct api_route_table *t, const struct api_cache *cache, const char *project, const char *name);
/* To look at: the route of PROJECT/NAME (NULL: none) and the version it last changed at; whether a proxy still finishes requests of an instance. */
const Node__Route *api_routes_of(const struct api_route_table *t, const char *service);
uint64_t api_routes_changed(const struct api_route_table *t, const char *service);
bool api_routes_is_draining(const struct api_proxy *proxy, const char *instance);
void api_routes_settings_changed(struct api_route_table *t);

/* What a proxy that was sent `since` has to hear: NULL when nothing (or when memory ends). since 0: everything. Borrows from the table and the cache.
 */
Node__RouteTable *api_routes_message(const struct api_route_table *t, const struct api_cache *cache, uint64_t since);
void api_routes_message_free(Node__RouteTable *message);

void api_routes_proxy_up(struct api_route_table *t, const char *node);
void api_routes_proxy_ack(struct api_route_table *t, const char *node, uint64_t version, char *const *draining, size_t count);
/* What it could not do; "": nothing. true when that is news. */
bool api_routes_proxy_fault(struct api_route_table *t, const char *node, const char *fault);
void api_routes_proxy_down(struct api_route_table *t, const char *node, int64_t now);

/* Whether an instance is let go of. When not yet and only time is waited for: *again gets when to ask (else INT64_MAX). */
bool api_routes_drained(const struct api_route_table *t, const struct api_cache *cache, const Model__Instance *instance, int64_t now, int64_t *again);
/* The instance is no more. */
void api_routes_forget(struct api_route_table *t, const char *instance);

#endif
