#include "orca-apiserver/gateway_peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/routes_derive.h"

/* ---- the log ---- */

#define LINES_MAX 10u /* of one peer in a minute: one that comes and goes all the time is one fact */

struct gw_lines {
  int64_t since;
  unsigned count;
};

bool gw_peers_may_log(struct gw_peers *peers, const struct bus_conn *conn) {
  void **slot = api_smap_slot(&peers->lines, bus_peer_name(conn)); /* names are the allow-list's: they are few */
  if (slot && !*slot)
    *slot = calloc(1, sizeof(struct gw_lines));
  if (!slot || !*slot)
    return false;
  struct gw_lines *lines = *slot;
  int64_t now = loop_now(peers->api->loop);
  if (!lines->count || now - lines->since > 60 * NS_PER_SEC)
    *lines = (struct gw_lines){.since = now};
  return lines->count++ < LINES_MAX;
}

/* ---- telling ---- */

/* 0: sent; 1: it has no credit; -1: it does not fit into one message, and the stream has ended with that. */
static int push(struct gw_peer *p, const Node__Item *item, const char *what) {
  int rc = bus_push(p->stream, &item->base);
  if (rc < 0) {
    struct err err;
    err_set(&err, ERR_TOO_LARGE, "the %s of %s does not fit into one message", what, p->node);
    log_error("not told", "node", p->node, "error", err.msg);
    bus_fail(p->stream, &err);
    p->stream = NULL;
  }
  p->full_up = rc == 1;
  return rc;
}

static void tell_agent(struct gw_peer *p) {
  const struct api_cache *cache = &p->all->api->cache;
  while (p->stream && !p->full_up && api_desired_pending(&p->desired)) {
    Node__DesiredState *state = api_desired_build(&p->desired, cache);
    if (!state)
      return;
    Node__Item item = NODE__ITEM__INIT;
    item.body_case = NODE__ITEM__BODY_DESIRED;
    item.desired = state;
    if (push(p, &item, "desired state") == 0)
      api_desired_sent(&p->desired, state);
    api_desired_free(state);
  }
}

static void tell_proxy(struct gw_peer *p) {
  if (!p->stream || p->full_up)
    return;
  Node__RouteTable *table = api_routes_message(p->all->table, &p->all->api->cache, p->sent_version);
  if (!table)
    return;
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_ROUTES;
  item.routes = table;
  if (push(p, &item, "route table") == 0)
    p->sent_version = table->version;
  api_routes_message_free(table);
}

static void tell(struct gw_peer *p) {
  if (p->role == GW_AGENT)
    tell_agent(p);
  else if (p->role == GW_PROXY)
    tell_proxy(p);
}

void gw_peers_tell(struct gw_peers *peers) {
  for (struct gw_peer *p = peers->list; p; p = p->next)
    tell(p);
}

void gw_peers_mark(struct gw_peers *peers, const char *node, const char *instance) {
  for (struct gw_peer *p = peers->list; p; p = p->next)
    if (p->role == GW_AGENT && strcmp(p->node, node) == 0)
      api_desired_mark(&p->desired, instance);
}

void gw_peers_mark_cluster(struct gw_peers *peers) {
  for (struct gw_peer *p = peers->list; p; p = p->next)
    p->desired.cluster = p->role == GW_AGENT;
}

/* ---- streams ---- */

static void stream_ready(void *arg) {
  struct gw_peer *p = arg;
  p->full_up = false;
  tell(p);
}

static void stream_cancelled(void *arg) {
  struct gw_peer *p = arg;
  p->stream = NULL;
  p->full_up = false;
}

static const struct bus_answer_ops stream_ops = {.cancelled = stream_cancelled, .ready = stream_ready};

/* A node has one agent and one proxy. Whoever said hello last is it: an older conversation is what a lost connection left behind, or somebody
 * else with the same key; cut, it comes again with all it has to say, if there is anybody. */
static const struct gw_peer *elder(const struct gw_peer *p) {
  for (const struct gw_peer *q = p->all->list; q; q = q->next)
    if (q != p && q->stream && q->role == p->role && strcmp(q->node, p->node) == 0)
      return q;
  return NULL;
}

static void cut_elder(struct gw_peer *p) {
  const struct gw_peer *old = elder(p);
  if (!old)
    return;
  if (gw_peers_may_log(p->all, p->conn))
    log_warn("said hello twice: the older conversation is cut", "peer", bus_peer_name(p->conn));
  bus_conn_cut(old->conn);
}

bool gw_peer_is_displaced(const struct gw_peer *p) {
  return !p->stream && elder(p);
}

void gw_peer_open(struct gw_peer *p, struct bus_call *call) {
  cut_elder(p);
  if (p->stream) { /* a second hello takes the place of the first */
    struct err err;
    err_set(&err, ERR_CANCELLED, "another hello came");
    bus_fail(p->stream, &err);
  }
  api_desired_fini(&p->desired);
  api_desired_init(&p->desired, p->node);
  p->sent_version = 0; /* whatever a proxy serves from disk: it gets all there is */
  p->stream = call;
  p->full_up = false;
  bus_answer_on(call, &stream_ops, p);
  tell(p);
}

/* ---- figures ---- */

static void wish_done(void *arg, const uint8_t *body, size_t len) {
  (void)arg;
  (void)body;
  (void)len;
}

static void wish_failed(void *arg, const struct err *why) { /* an older daemon: its figures come as they always do */
  (void)arg;
  (void)why;
}

void gw_peers_watch_figures(struct gw_peers *peers) {
  static const struct bus_call_ops ops = {.done = wish_done, .failed = wish_failed};
  int64_t now = loop_now(peers->api->loop);
  if (now < peers->watched_until - GATEWAY_WATCH_FOR / 2)
    return;
  peers->watched_until = now + GATEWAY_WATCH_FOR;
  Node__WatchFigures watch = NODE__WATCH_FIGURES__INIT;
  PB_SET(&watch, interval_ms, GATEWAY_WATCH_EVERY / NS_PER_MS);
  PB_SET(&watch, for_ms, GATEWAY_WATCH_FOR / NS_PER_MS);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_WATCH_FIGURES;
  call.watch_figures = &watch;
  for (const struct gw_peer *p = peers->list; p; p = p->next)
    if (p->stream && (p->role == GW_AGENT || p->role == GW_PROXY))
      bus_call(p->conn, &call.base, 5 * NS_PER_SEC, &ops, NULL);
}

/* ---- who is here ---- */

bool gw_peers_have(const struct gw_peers *peers, enum gw_role role, const char *node) {
  for (const struct gw_peer *p = peers->list; p; p = p->next)
    if (p->role == role && strcmp(p->node, node) == 0)
      return true;
  return false;
}

struct bus_conn *gw_peers_conn(const struct gw_peers *peers, enum gw_role role, const char *node) {
  for (const struct gw_peer *p = peers->list; p; p = p->next)
    if (p->role == role && p->stream && (!node || strcmp(p->node, node) == 0))
      return p->conn;
  return NULL;
}

size_t gw_peers_count(const struct gw_peers *peers, enum gw_role role) {
  size_t count = 0;
  for (const struct gw_peer *p = peers->list; p; p = p->next)
    count += p->role == role;
  return count;
}

struct gw_peer *gw_peer_new(struct gw_peers *peers, struct bus_conn *conn, enum gw_role role, const char *node) {
  struct gw_peer *p = calloc(1, sizeof *p);
  if (!p)
    return NULL;
  p->all = peers;
  p->conn = conn;
  p->role = role;
  snprintf(p->node, sizeof p->node, "%s", node);
  api_desired_init(&p->desired, p->node);
  p->next = peers->list;
  if (p->next)
    p->next->prev = p;
  peers->list = p;
  bus_conn_set_data(conn, p);
  return p;
}

void gw_peer_free(struct gw_peer *p) {
  if (p->prev)
    p->prev->next = p->next;
  else
    p->all->list = p->next;
  if (p->next)
    p->next->prev = p->prev;
  api_desired_fini(&p->desired);
  bus_conn_set_data(p->conn, NULL);
  free(p);
}

void gw_peers_init(struct gw_peers *peers, const struct api *api, const struct api_route_table *table) {
  *peers = (struct gw_peers){.api = api, .table = table};
}

void gw_peers_fini(struct gw_peers *peers) {
  api_smap_clear(&peers->lines, free);
}
