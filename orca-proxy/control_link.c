#include <stdio.h>

#include "common/bus/pb.h"
#include "common/daemon/masters.h"
#include "common/log.h"
#include "orca-proxy/control_internal.h"

#define RETRY_DELAY (1 * NS_PER_SEC)
#define DRAINING_MAX 4096 /* names in one acknowledgement */

struct bus_conn *control_link_conn(const struct control *c) {
  return c->link.conn && bus_conn_is_up(c->link.conn) ? c->link.conn : NULL;
}

static void retry_later(struct control *c) {
  struct err err;
  if (!loop_timer_is_set(&c->link.retry) && loop_timer_in(c->loop, &c->link.retry, RETRY_DELAY, &err) < 0)
    log_error("no retry", "error", err.msg);
}

/* ---- acknowledgement ---- */

static void ack_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct control *c = arg;
  c->link.ack = NULL;
  if (c->link.ack_due)
    control_link_ack(c);
}

static void ack_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->link.ack = NULL;
  c->link.ack_due = true;
  log_debug("the acknowledgement did not arrive", "error", why->msg);
  if (bus_conn_is_up(c->link.conn))
    retry_later(c);
}

void control_link_ack(struct control *c) {
  static const struct bus_call_ops ops = {.done = ack_done, .failed = ack_failed};
  c->link.ack_due = true;
  if (!control_link_conn(c) || c->link.ack || !c->link.stream)
    return;
  const char *draining[DRAINING_MAX];
  size_t n = drain_list(c->drain, draining, DRAINING_MAX);
  Node__RouteAck ack = NODE__ROUTE_ACK__INIT;
  Node__Call call = NODE__CALL__INIT;
  PB_SET(&ack, version, drain_version(c->drain));
  ack.n_draining = n < DRAINING_MAX ? n : DRAINING_MAX;
  ack.draining = (char **)(uintptr_t)draining;
  if (*control_listen_fault(c))
    ack.fault = (char *)(uintptr_t)control_listen_fault(c);
  if (certificate_ends_s(c->certificate))
    PB_SET(&ack, certificate_ends_ms, certificate_ends_s(c->certificate) * 1000);
  call.body_case = NODE__CALL__BODY_ROUTE_ACK;
  call.route_ack = &ack;
  /* More than fit in one message can't be told apart from gone: the apiserver hears of the version when the list is short enough. */
  if (n > DRAINING_MAX)
    PB_SET(&ack, version, c->link.acked);
  c->link.acked = ack.version;
  c->link.ack_due = n > DRAINING_MAX;
  c->link.ack = bus_call(c->link.conn, &call.base, CONTROL_CALL_TIMEOUT, &ops, c);
}

/* ---- routes from the apiserver ---- */

static void open_stream(struct control *c);

static void on_item(void *arg, const uint8_t *body, size_t len) {
  struct control *c = arg;
  struct err err;
  Node__Item *item = (Node__Item *)pb_unpack(&node__item__descriptor, body, len, &err);
  bool ok = item != NULL;
  if (ok && item->body_case != NODE__ITEM__BODY_ROUTES) {
    ok = false;
    err_set(&err, ERR_INVALID, "an item that is no route table");
  }
  bool settings = ok && (PB_GET(item->routes, full, false) || PB_GET(item->routes, settings_changed, false));
  ok = ok && control_tables_apply(c, item->routes, &err) == 0;
  if (item)
    node__item__free_unpacked(item, NULL);
  if (ok) {
    if (settings)
      control_listen_follow(c);
    return;
  }
  /* What is served stays; asking anew brings everything. */
  log_error("the route table was refused", "error", err.msg);
  bus_call_cancel(c->link.stream);
  c->link.stream = NULL;
  retry_later(c);
}

static void stream_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct control *c = arg;
  c->link.stream = NULL;
  retry_later(c);
}

static void stream_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->link.stream = NULL;
  if (!bus_conn_is_up(c->link.conn)) /* `up` opens it again */
    return;
  log_warn("the stream of routes has ended", "error", why->msg);
  retry_later(c);
}

static void open_stream(struct control *c) {
  static const struct bus_call_ops ops = {.done = stream_done, .failed = stream_failed, .item = on_item};
  if (c->link.stream || !bus_conn_is_up(c->link.conn))
    return;
  char address[128];
  snprintf(address, sizeof address, "%s:%u", c->daemon->config.address, control_listen_port(c));
  Node__ProxyHello hello = NODE__PROXY_HELLO__INIT;
  Node__Call call = NODE__CALL__INIT;
  PB_SET(&hello, version, routes_version(c->routes));
  hello.http_address = address;
  call.body_case = NODE__CALL__BODY_PROXY_HELLO;
  call.proxy_hello = &hello;
  c->link.stream = bus_call(c->link.conn, &call.base, 0, &ops, c);
  control_link_ack(c);
}

static void on_retry(void *arg) {
  struct control *c = arg;
  open_stream(c);
  if (c->link.ack_due)
    control_link_ack(c);
}

/* ---- what an apiserver asks ---- */

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct control *c = arg;
  struct err err;
  Node__Call *said = (Node__Call *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!said) {
    bus_conn_refused(conn, err.msg);
    bus_fail(call, &err);
    return;
  }
  if (said->body_case == NODE__CALL__BODY_WATCH_FIGURES) {
    control_stats_watch(c, said->watch_figures);
    Node__Done done = NODE__DONE__INIT;
    Node__Reply reply = NODE__REPLY__INIT;
    reply.body_case = NODE__REPLY__BODY_DONE;
    reply.done = &done;
    bus_reply(call, &reply.base);
  } else {
    err_set(&err, ERR_UNSUPPORTED, "not a call for a proxy");
    bus_fail(call, &err);
  }
  node__call__free_unpacked(said, NULL);
}

/* ---- the conversation ---- */

static void on_up(void *arg, struct bus_conn *conn) {
  struct control *c = arg;
  log_info("connected to an apiserver", "peer", bus_peer_name(conn));
  open_stream(c);
  certificate_connected(c->certificate, conn);
}

static void on_down(void *arg, struct bus_conn *conn, const struct err *why) {
  (void)arg;
  log_warn("no apiserver: the routes stay as they are", "peer", bus_peer_name(conn), "error", why->msg);
}

int control_connect(struct control *c, struct err *err) {
  const struct node_config *config = &c->daemon->config;
  if (config->master_count == 0)
    return 0;
  static const struct bus_conn_ops ops = {.up = on_up, .down = on_down, .call = on_call};
  struct masters masters;
  if (masters_gateways(config, &masters, err) < 0)
    return -1;
  bool connects = (c->link.bus = daemon_bus(c->daemon, err)) && (c->link.conn = bus_connect(c->link.bus, masters.list, masters.count, &ops, c, err));
  masters_free(&masters);
  return connects ? control_stats_start(c, err) : -1;
}

void control_link_init(struct control *c) {
  c->link.retry = (struct loop_timer){.cb = on_retry, .arg = c};
}

void control_link_close(struct control *c) {
  loop_timer_cancel(c->loop, &c->link.retry);
  bus_free(c->link.bus);
  if (c->certificate && c->link.conn)
    certificate_connected(c->certificate, NULL);
  c->link.bus = NULL;
  c->link.conn = NULL;
}
