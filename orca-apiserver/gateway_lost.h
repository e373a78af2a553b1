/* Agents without a conversation: for how long their node is waited for, and that it is unreachable after that.
 *
 * Times are the loop's, in ns. Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_LOST_H
#define ORCA_APISERVER_GATEWAY_LOST_H

#include <stdint.h>

#include "orca-apiserver/gateway_peers.h"
#include "orca-apiserver/round.h"
#include "orca-apiserver/smap.h"

struct gw_lost {
  const struct api *api;        /* borrowed */
  const struct gw_peers *peers; /* who is here; borrowed */
  struct api_smap nodes;        /* node → struct gw_lost_node * */
};

void gw_lost_init(struct gw_lost *lost, const struct api *api, const struct gw_peers *peers);
void gw_lost_fini(struct gw_lost *lost);

/* Each returns when to look next, INT64_MAX: not for what it did. */

/* The node's agent is gone: waited for from now on, for [cluster] node_ttl, but `grace` at least. */
int64_t gw_lost_agent(struct gw_lost *lost, const char *node, int64_t grace);
/* The same for every node that is said to be ready and whose agent is not here. */
int64_t gw_lost_absent(struct gw_lost *lost, int64_t grace);
/* Says in the round which nodes have been waited for long enough. */
int64_t gw_lost_look(struct gw_lost *lost, struct api_round *round);

#endif
