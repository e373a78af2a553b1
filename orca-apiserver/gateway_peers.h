/* The gateway's peers: the daemons whose conversation is up, their streams, and what is told over them.
 *
 * A peer that has said hello has a stream: it gets all there is, then changes, merged while it is slow.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_PEERS_H
#define ORCA_APISERVER_GATEWAY_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "orca-apiserver/desired.h"
#include "orca-apiserver/smap.h"

struct api;
struct api_route_table;

enum gw_role { GW_AGENT = 1, GW_PROXY, GW_KEEPER, GW_SCHEDULER };

struct gw_peer {
  struct gw_peers *all;
  struct bus_conn *conn;
  enum gw_role role;
  char node[64];
  struct bus_call *stream; /* NULL: no hello yet */
  bool full_up;            /* it has no credit now */
  struct api_desired desired;
  uint64_t sent_version; /* proxies */
  struct gw_peer *next, *prev;
};

struct gw_peers {
  const struct api *api;               /* borrowed */
  const struct api_route_table *table; /* what proxies are told; borrowed */
  struct gw_peer *list;
  struct api_smap lines; /* peer → struct gw_lines *, how much the log has had of its comings and goings */
  int64_t watched_until; /* figures come faster until then */
};

void gw_peers_init(struct gw_peers *peers, const struct api *api, const struct api_route_table *table);
void gw_peers_fini(struct gw_peers *peers); /* once all peers are gone */

/* The conversation's data from now on; NULL: no memory. */
struct gw_peer *gw_peer_new(struct gw_peers *peers, struct bus_conn *conn, enum gw_role role, const char *node);
void gw_peer_free(struct gw_peer *p); /* the conversation is over */

/* It said hello: call is its stream, and it is told everything. Takes the place of any stream before it, of this conversation or an older one. */
void gw_peer_open(struct gw_peer *p, struct bus_call *call);
/* It has not said hello, and another conversation of its node and role has. */
bool gw_peer_is_displaced(const struct gw_peer *p);

void gw_peers_tell(struct gw_peers *peers); /* whatever each has still to hear */
/* What the node's agent has still to hear: an instance (PROJECT/NAME.NUMBER); what cluster.toml says to all agents. */
void gw_peers_mark(struct gw_peers *peers, const char *node, const char *instance);
void gw_peers_mark_cluster(struct gw_peers *peers);
/* See gateway_watch_figures(). */
void gw_peers_watch_figures(struct gw_peers *peers);

/* Whether there is a conversation, hello or not. */
bool gw_peers_have(const struct gw_peers *peers, enum gw_role role, const char *node);
/* One that has said hello; node NULL: anybody's. NULL: there is none. */
struct bus_conn *gw_peers_conn(const struct gw_peers *peers, enum gw_role role, const char *node);
size_t gw_peers_count(const struct gw_peers *peers, enum gw_role role);

/* Whether this coming or going is one more line for the log; counts it. */
bool gw_peers_may_log(struct gw_peers *peers, const struct bus_conn *conn);

#endif
