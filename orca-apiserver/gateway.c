#include "orca-apiserver/gateway.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway_internal.h"

#define START_GRACE (10 * NS_PER_SEC) /* after this process's start: it is itself that was silent */
#define RETRY_AFTER (200 * NS_PER_MS)

/* ---- who may come ---- */

static bool role_of(const char *text, enum gw_role *ret) {
  if (strcmp(text, "agent") == 0)
    *ret = GW_AGENT;
  else if (strcmp(text, "proxy") == 0)
    *ret = GW_PROXY;
  else if (strcmp(text, "keeper") == 0)
    *ret = GW_KEEPER;
  else if (strcmp(text, "scheduler") == 0)
    *ret = GW_SCHEDULER;
  else
    return false;
  return true;
}

static bool allow(void *arg, const char *public_key, char who[64], uint64_t *tag) {
  struct gateway *g = arg;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&g->api->cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Node *node = API_MSG(&all[i], Model__Node);
    for (size_t k = 0; k < node->n_keys; k++) {
      enum gw_role role;
      if (strcmp(PB_STR(node->keys[k]->key), public_key) != 0 || !role_of(PB_STR(node->keys[k]->role), &role))
        continue;
      /* Names are at most 63 characters, so the longest, keeper@NAME, is cut: the node is looked up by key, this is for the log. */
      snprintf(who, 64, "%s@%s", node->keys[k]->role, PB_STR(node->name));
      *tag = (uint64_t)role;
      return true;
    }
  }
  return false;
}

static bool node_of_key(const struct gateway *g, const char *key, char ret[64]) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&g->api->cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Node *node = API_MSG(&all[i], Model__Node);
    for (size_t k = 0; k < node->n_keys; k++)
      if (strcmp(PB_STR(node->keys[k]->key), key) == 0) {
        snprintf(ret, 64, "%s", PB_STR(node->name));
        return true;
      }
  }
  return false;
}

/* ---- who comes and goes ---- */

static void peer_up(void *arg, struct bus_conn *conn) {
  struct gateway *g = arg;
  char node[64];
  if (!node_of_key(g, bus_peer_key(conn), node) || !gw_peer_new(&g->peers, conn, (enum gw_role)bus_peer_tag(conn), node))
    bus_conn_cut(conn);
}

static void peer_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct gateway *g = arg;
  struct gw_peer *p = bus_conn_data(conn);
  if (!p)
    return;
  if (gw_peers_may_log(&g->peers, conn))
    log_info("peer is gone", "peer", bus_peer_name(conn), "why", why ? why->msg : NULL);
  enum gw_role role = p->role;
  char node[sizeof p->node];
  memcpy(node, p->node, sizeof node);
  gw_peer_free(p);
  if (gw_peers_have(&g->peers, role, node)) /* it came back before its old conversation was given up */
    return;
  int64_t now = loop_now(g->api->loop);
  if (role == GW_AGENT) {
    gw_due_at(g, gw_lost_agent(&g->lost, node, 0));
  } else if (role == GW_PROXY) {
    api_routes_proxy_down(&g->table, node, now);
    gw_due_at(g, now + API_PROXY_GRACE);
  }
}

static const struct bus_conn_ops conn_ops = {.up = peer_up, .down = peer_down, .call = gw_peer_call};

/* ---- the loop's rounds ---- */

void gw_due_at(struct gateway *g, int64_t at) {
  struct err err;
  if (at == INT64_MAX || (loop_timer_is_set(&g->timer) && g->timer.at <= at))
    return;
  if (loop_timer_at(g->api->loop, &g->timer, at, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void on_timer(void *arg) {
  struct gateway *g = arg;
  gw_due_at(g, gw_lost_look(&g->lost, &g->round));
  gw_changes_drains(g);
}

static void reports_stored(void *arg) {
  gw_changes_drains(arg);
}

/* What is ours of a lost round we look at again. */
static void reports_failed(void *arg) {
  struct gateway *g = arg;
  gw_due_at(g, gw_lost_absent(&g->lost, 0));
  gw_due_at(g, loop_now(g->api->loop) + RETRY_AFTER);
}

static const struct gw_reports_ops reports_ops = {.stored = reports_stored, .failed = reports_failed};

static bool end_of_loop_round(void *arg) {
  struct gateway *g = arg;
  gw_changes_end_round(g);
  gw_reports_end_round(&g->reports);
  return false;
}

/* ---- open and close ---- */

struct gateway *gateway_open(struct api *api, const char *endpoint, struct err *err) {
  struct gateway *g = calloc(1, sizeof *g);
  if (!g) {
    err_set(err, ERR_MEMORY, "no memory for the gateway");
    return NULL;
  }
  g->api = api;
  api_round_init(&g->round, &api->cache);
  gw_peers_init(&g->peers, api, &g->table);
  gw_lost_init(&g->lost, api, &g->peers);
  gw_reports_init(&g->reports, api, &g->round, &reports_ops, g);
  /* Versions begin at the wall clock, so that they grow over restarts of this process. */
  api_routes_init(&g->table, (uint64_t)api_now_ms(api), loop_now(api->loop));
  g->timer = (struct loop_timer){.cb = on_timer, .arg = g};
  g->hook = (struct loop_hook){.cb = end_of_loop_round, .arg = g};
  gw_changes_all(g);
  gw_due_at(g, gw_lost_absent(&g->lost, START_GRACE)); /* unless it comes until then */
  gw_due_at(g, loop_now(api->loop) + API_PROXY_GRACE);
  g->listener = bus_listen(api->bus, endpoint, allow, &conn_ops, g, err);
  if (!g->listener) {
    gateway_close(g);
    return NULL;
  }
  loop_hook_add(api->loop, &g->hook);
  return g;
}

const char *gateway_endpoint(const struct gateway *g) {
  return bus_listener_endpoint(g->listener);
}

void gateway_close(struct gateway *g) {
  if (!g)
    return;
  if (g->listener) {
    loop_hook_remove(g->api->loop, &g->hook);
    bus_listener_free(g->listener);
  }
  loop_timer_cancel(g->api->loop, &g->timer);
  struct err err;
  err_set(&err, ERR_UNAVAILABLE, "this apiserver is ending");
  gw_reports_fini(&g->reports, &err);
  api_round_fini(&g->round);
  api_routes_fini(&g->table);
  gw_changes_fini(&g->changes);
  gw_lost_fini(&g->lost);
  gw_peers_fini(&g->peers);
  free(g);
}

/* ---- for the rest of this process ---- */

struct bus_conn *gateway_agent(const struct gateway *g, const char *node) {
  return gw_peers_conn(&g->peers, GW_AGENT, node);
}

struct bus_conn *gateway_scheduler(const struct gateway *g) {
  return gw_peers_conn(&g->peers, GW_SCHEDULER, NULL);
}

void gateway_watch_figures(struct gateway *g) {
  gw_peers_watch_figures(&g->peers);
}

const struct api_route_table *gateway_routes(const struct gateway *g) {
  return &g->table;
}

bool gateway_is_routed(const struct gateway *g, const char *project, const char *name) {
  char id[130];
  snprintf(id, sizeof id, "%s/%s", project, name);
  size_t at = api_smap_lower(&g->changes.dirty_services, id);
  if (at < g->changes.dirty_services.count && strcmp(g->changes.dirty_services.list[at].key, id) == 0)
    return false;
  uint64_t changed = api_routes_changed(&g->table, id);
  for (size_t i = 0; i < g->table.proxies.count; i++) {
    const struct api_proxy *proxy = g->table.proxies.list[i].value;
    if (proxy->connected && proxy->acked < changed)
      return false;
  }
  return true;
}

void gateway_problems(const struct gateway *g, struct api_json *json) {
  for (size_t i = 0; i < g->table.proxies.count; i++) {
    const struct api_proxy *p = g->table.proxies.list[i].value;
    char text[sizeof p->name + sizeof p->fault + 32];
    if (!p || !p->connected || !*p->fault)
      continue;
    snprintf(text, sizeof text, "%s: the proxy can't %s", p->name, p->fault);
    api_json_str(json, NULL, text);
  }
}

void gateway_counters(const struct gateway *g, struct gateway_counters *ret) {
  *ret = (struct gateway_counters){.agents = gw_peers_count(&g->peers, GW_AGENT),
                                   .proxies = gw_peers_count(&g->peers, GW_PROXY),
                                   .reports = g->reports.reports,
                                   .rounds = g->reports.rounds,
                                   .refused = g->refused + g->reports.refused,
                                   .table_version = g->table.version,
                                   .routes = g->table.routes.count - g->table.removed_count};
}
