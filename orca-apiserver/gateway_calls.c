#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/certificate.h"
#include "orca-apiserver/gateway_files.h"
#include "orca-apiserver/gateway_internal.h"
#include "orca-apiserver/secrets.h"

static void done(struct bus_call *call) {
  Node__Done body = NODE__DONE__INIT;
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_DONE;
  reply.done = &body;
  bus_reply(call, &reply.base);
}

static void refuse(struct gateway *g, struct bus_call *call, enum err_code code, const char *why) {
  struct err err;
  err_set(&err, code, "%s", why);
  g->refused++;
  bus_fail(call, &err);
}

static void take_figures(struct api *api, const char *node, const Node__StatusReport *report) {
  for (size_t i = 0; i < report->n_usage; i++) {
    char project[64], service[64];
    uint64_t number;
    const char *id = PB_STR(report->usage[i]->instance);
    const Model__Instance *instance =
        instance_id_parse(id, project, service, &number) ? api_cache_instance(&api->cache, project, service, number) : NULL;
    if (instance && strcmp(PB_STR(instance->node), node) == 0)
      api_figures_usage(&api->figures, project, service, number, report->usage[i], api_now_ms(api));
  }
  if (report->has_cpu_ns || report->has_memory_used)
    api_figures_node(&api->figures, node, report->cpu_ns, report->memory_used, api_now_ms(api));
}

static void on_status(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__StatusReport *report) {
  struct err err;
  if (gw_peer_is_displaced(p)) {
    refuse(g, call, ERR_CONFLICT, "another conversation is this node's agent: say hello first");
    return;
  }
  take_figures(g->api, p->node, report);
  if (gw_reports_take(&g->reports, p->node, call, report, &err) < 0)
    refuse(g, call, err.code, err.msg);
}

static void on_agent_hello(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__AgentHello *hello) {
  if (gw_peers_may_log(&g->peers, p->conn))
    log_info("agent said hello", "node", p->node, "version", hello->status ? PB_STR(hello->status->version) : NULL);
  gw_peer_open(p, call);
}

static void on_proxy_hello(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__ProxyHello *hello) {
  if (gw_peers_may_log(&g->peers, p->conn))
    log_info("proxy said hello", "node", p->node, "version", log_u64(hello->version), "http", PB_STR(hello->http_address));
  api_routes_proxy_up(&g->table, p->node);
  gw_peer_open(p, call);
}

static void on_get_file(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__GetFile *get) {
  struct err err;
  if (gw_file_get(g->api, p->node, call, get, &err) < 0)
    refuse(g, call, err.code, err.msg);
}

static void note_fault(struct gateway *g, struct gw_peer *p, const char *fault) {
  if (!api_routes_proxy_fault(&g->table, p->node, fault) || !*fault)
    return;
  char kind[] = "proxy.not_listening", message[256], severity[] = "warn", actor[80];
  api_text_copy(message, sizeof message, fault);
  snprintf(actor, sizeof actor, "proxy@%s", p->node);
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, api_now_ms(g->api));
  event.kind = kind;
  event.node = p->node;
  event.message = message;
  event.severity = severity;
  event.actor = actor;
  if (api_round_event(&g->round, &event) < 0)
    log_error("no memory for an event", "kind", kind);
}

static void on_route_ack(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__RouteAck *ack) {
  api_routes_proxy_ack(&g->table, p->node, ack->version, ack->draining, ack->n_draining);
  gw_changes_drains(g);
  api_wake_streams(g->api);
  note_fault(g, p, PB_STR(ack->fault));
  struct api_proxy *proxy = api_smap_get(&g->table.proxies, p->node);
  if (proxy)
    proxy->certificate_ends_ms = PB_GET(ack, certificate_ends_ms, 0);
  done(call);
}

static void on_proxy_stats(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__ProxyStats *stats) {
  api_figures_proxy(&g->api->figures, p->node, stats, api_now_ms(g->api));
  done(call);
}

static bool may_say(enum gw_role role, Node__Call__BodyCase what) {
  switch (what) {
  case NODE__CALL__BODY_AGENT_HELLO:
  case NODE__CALL__BODY_STATUS:
  case NODE__CALL__BODY_GET_FILE:
  case NODE__CALL__BODY_GET_SECRETS:
    return role == GW_AGENT;
  case NODE__CALL__BODY_PROXY_HELLO:
  case NODE__CALL__BODY_ROUTE_ACK:
  case NODE__CALL__BODY_PROXY_STATS:
  case NODE__CALL__BODY_SIGN_CERTIFICATE:
    return role == GW_PROXY;
  case NODE__CALL__BODY_SCHEDULER_HELLO:
    return role == GW_SCHEDULER;
  case NODE__CALL__BODY_READ_LOGS: /* the gateway's to say, nobody else's */
  case NODE__CALL__BODY_START_EXEC:
  case NODE__CALL__BODY_EXEC_INPUT:
  case NODE__CALL__BODY_DIAGNOSE:
  case NODE__CALL__BODY_PLAN:
  case NODE__CALL__BODY_WATCH_FIGURES:
  case NODE__CALL__BODY__NOT_SET:
  case _NODE__CALL__BODY__CASE_IS_INT_SIZE:
    break;
  }
  return false;
}

static void dispatch(struct gateway *g, struct gw_peer *p, struct bus_call *call, const Node__Call *said) {
  switch (said->body_case) {
  case NODE__CALL__BODY_AGENT_HELLO:
    on_agent_hello(g, p, call, said->agent_hello);
    return;
  case NODE__CALL__BODY_STATUS:
    on_status(g, p, call, said->status);
    return;
  case NODE__CALL__BODY_GET_FILE:
    on_get_file(g, p, call, said->get_file);
    return;
  case NODE__CALL__BODY_PROXY_HELLO:
    on_proxy_hello(g, p, call, said->proxy_hello);
    return;
  case NODE__CALL__BODY_ROUTE_ACK:
    on_route_ack(g, p, call, said->route_ack);
    return;
  case NODE__CALL__BODY_PROXY_STATS:
    on_proxy_stats(g, p, call, said->proxy_stats);
    return;
  case NODE__CALL__BODY_SIGN_CERTIFICATE:
    api_certificate_sign(g->api, p->node, call, said->sign_certificate);
    return;
  case NODE__CALL__BODY_SCHEDULER_HELLO:
    gw_peer_open(p, call);
    return;
  case NODE__CALL__BODY_GET_SECRETS:
    secrets_answer(g->api, p->node, call, said->get_secrets);
    return;
  case NODE__CALL__BODY_READ_LOGS:
  case NODE__CALL__BODY_START_EXEC:
  case NODE__CALL__BODY_EXEC_INPUT:
  case NODE__CALL__BODY_DIAGNOSE:
  case NODE__CALL__BODY_PLAN:
  case NODE__CALL__BODY_WATCH_FIGURES:
  case NODE__CALL__BODY__NOT_SET:
  case _NODE__CALL__BODY__CASE_IS_INT_SIZE:
    break;
  }
  refuse(g, call, ERR_UNSUPPORTED, "this gateway does not know that call");
}

void gw_peer_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct gateway *g = arg;
  struct gw_peer *p = bus_conn_data(conn);
  struct err err;
  Node__Call *said = (Node__Call *)(void *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!p || !said) {
    bus_conn_refused(conn, p ? err.msg : "is not known");
    refuse(g, call, ERR_INVALID, p ? err.msg : "this peer is not known");
  } else if (said->body_case != NODE__CALL__BODY__NOT_SET && !may_say(p->role, said->body_case)) {
    bus_conn_refused(conn, "said what is not its role's to say");
    refuse(g, call, ERR_DENIED, "not a call for this role");
  } else {
    dispatch(g, p, call, said);
  }
  if (said)
    node__call__free_unpacked(said, NULL);
}
