#include "orca-apiserver/gateway_lost.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-apiserver/api.h"

#define NODE_TTL_MS 1000u /* unless cluster.toml says otherwise */

struct gw_lost_node {
  int64_t since, grace;
};

void gw_lost_init(struct gw_lost *lost, const struct api *api, const struct gw_peers *peers) {
  *lost = (struct gw_lost){.api = api, .peers = peers};
}

void gw_lost_fini(struct gw_lost *lost) {
  api_smap_clear(&lost->nodes, free);
}

/* When its node is unreachable: [cluster] node_ttl after its conversation ended, and not within `grace`. */
static int64_t until(const struct gw_lost *lost, const struct gw_lost_node *node) {
  const Model__ClusterSpec *cluster = api_cache_cluster(&lost->api->cache, NULL);
  uint64_t ms = cluster ? PB_GET(cluster, node_ttl_ms, NODE_TTL_MS) : NODE_TTL_MS;
  int64_t ttl = ms < INT64_MAX / NS_PER_MS / 2 ? (int64_t)ms * NS_PER_MS : INT64_MAX / 2;
  return node->since + (ttl > node->grace ? ttl : node->grace);
}

int64_t gw_lost_agent(struct gw_lost *lost, const char *node, int64_t grace) {
  void **slot = api_smap_slot(&lost->nodes, node);
  if (slot && !*slot)
    *slot = malloc(sizeof(struct gw_lost_node));
  if (!slot || !*slot)
    return INT64_MAX;
  struct gw_lost_node *entry = *slot;
  *entry = (struct gw_lost_node){.since = loop_now(lost->api->loop), .grace = grace};
  return until(lost, entry);
}

int64_t gw_lost_absent(struct gw_lost *lost, int64_t grace) {
  int64_t next = INT64_MAX;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&lost->api->cache, API_NODE_STATUS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__NodeStatus *s = API_MSG(&all[i], Model__NodeStatus);
    if (s->state != MODEL__NODE_STATE__NODE_READY || gw_peers_have(lost->peers, GW_AGENT, PB_STR(s->name)))
      continue;
    int64_t at = gw_lost_agent(lost, PB_STR(s->name), grace);
    next = at < next ? at : next;
  }
  return next;
}

int64_t gw_lost_look(struct gw_lost *lost, struct api_round *round) {
  int64_t now = loop_now(lost->api->loop), next = INT64_MAX;
  for (size_t i = 0; i < lost->nodes.count;) {
    char node[64];
    int64_t at = until(lost, lost->nodes.list[i].value);
    snprintf(node, sizeof node, "%s", lost->nodes.list[i].key);
    bool here = gw_peers_have(lost->peers, GW_AGENT, node);
    if (!here && now < at) {
      next = at < next ? at : next;
      i++;
      continue;
    }
    if (!here && api_cache_node(&lost->api->cache, node, NULL) &&
        api_round_node_state(round, node, MODEL__NODE_STATE__NODE_UNREACHABLE, "agent is not connected", api_now_ms(lost->api)) < 0)
      log_error("no memory to note a lost node", "node", node);
    free(api_smap_take(&lost->nodes, node));
  }
  return next;
}
