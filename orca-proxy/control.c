#include "orca-proxy/control.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/daemon/fdstore.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-proxy/certificate.h"
#include "orca-proxy/drain.h"
#include "orca-proxy/handover.h"
#include "orca-proxy/listen.h"
#include "orca-proxy/routes.h"
#include "orca-proxy/service_ids.h"
#include "orca-proxy/state.h"
#include "orca-proxy/worker.h"

#define SAVE_DELAY (200 * NS_PER_MS)
#define STATS_EVERY (10 * NS_PER_SEC)
#define WATCHED_EVERY_MIN (2 * NS_PER_SEC)
#define WATCHED_FOR_MAX (60 * NS_PER_SEC)
#define CALL_TIMEOUT (5 * NS_PER_SEC)
#define RETRY_DELAY (1 * NS_PER_SEC)
#define LOOK_AGAIN (30 * NS_PER_SEC)      /* for addresses of the API that are not this machine's */
#define HANDOVER_WAIT_MS 3000             /* for a process that takes the listening sockets */
#define API_TIMEOUT_MS UINT64_C(120000)   /* until the API begins to answer */
#define API_MAX_BODY (UINT64_C(12) << 20) /* as the API's own */
#define ROUTES_FILE "routes"
#define LISTEN_AGAIN (1 * NS_PER_SEC) /* for a port that is taken */
#define DRAINING_MAX 4096             /* names in one acknowledgement */

struct old_table {
  struct old_table *next;
  struct table *table;
};

struct control {
  struct daemon *daemon;
  struct loop *loop;
  struct state *state;
  struct routes *routes;
  struct drain *drain;
  struct service_ids *ids;
  struct worker_shared shared;
  struct worker *workers[WORKER_MAX];
  unsigned worker_count, worker_most;
  struct table *table;
  struct old_table *old; /* some worker may still read these */
  uint64_t seq;
  struct loop_timer save, stats, retry, listen;
  struct listen_sockets sockets;
  struct certificate *certificate;
  uint16_t port;   /* where it listens for HTTP */
  char fault[256]; /* why not where it should: told with acknowledgements; "": it does */
  bool ending;

  struct bus *bus;
  struct bus_conn *conn;
  struct bus_call *stream, *ack, *report;
  bool ack_due;
  uint64_t acked;
  uint64_t *last_requests; /* of each service id, when last reported */
  size_t last_size;
  uint64_t last_connections;
  int64_t watched_every, watched_until; /* somebody looks at the figures: they are told more often, also when nothing changed */
};

/* ---- tables ---- */

static uint32_t give_service(void *arg, const char *name) {
  struct control *c = arg;
  return service_ids_get(c->ids, name);
}

static uint32_t give_slot(void *arg, const char *instance, const char *address, uint32_t port, uint64_t *incarnation) {
  struct control *c = arg;
  return drain_slot(c->drain, instance, address, port, incarnation);
}

/* The way from its own front to the API on loopback. */
struct api_route {
  Node__Route route;
  Model__Endpoint endpoint, *endpoints[1];
  Model__ProxyRules rules;
  char address[64], instance[96], service[16];
};

static const Node__Route *api_route_make(struct api_route *r, const struct control *c) {
  const struct node_config *config = &c->daemon->config;
  node__route__init(&r->route);
  model__endpoint__init(&r->endpoint);
  model__proxy_rules__init(&r->rules);
  snprintf(r->service, sizeof r->service, "orca-apiserver");
  snprintf(r->address, sizeof r->address, "%s", strncmp(config->address, "127.", 4) == 0 ? config->address : "127.0.0.1");
  snprintf(r->instance, sizeof r->instance, "orca-apiserver at %s:%u", r->address, config->port_api);
  r->endpoint.address = r->address;
  r->endpoint.instance = r->instance;
  PB_SET(&r->endpoint, port, config->port_api);
  r->endpoints[0] = &r->endpoint;
  PB_SET(&r->rules, timeout_ms, API_TIMEOUT_MS);
  PB_SET(&r->rules, max_body, API_MAX_BODY);
  r->route.service = r->service;
  r->route.rules = &r->rules;
  r->route.endpoints = r->endpoints;
  r->route.n_endpoints = 1;
  return &r->route;
}

static int publish(struct control *c, struct err *err) {
  log_follow_level(routes_log_level(c->routes));
  unsigned skipped;
  char *const *trusted;
  size_t trusted_count = routes_trusted(c->routes, &trusted);
  struct table_ids ids = {give_service, give_slot, c};
  struct old_table *old = c->table ? malloc(sizeof *old) : NULL;
  struct api_route api;
  size_t count = routes_count(c->routes);
  const Node__Route **list = calloc(count + 1, sizeof *list);
  if (list && count)
    memcpy(list, routes_list(c->routes), count * sizeof *list);
  if (list)
    list[count++] = api_route_make(&api, c);
  struct table *t = list && (!c->table || old) ? table_build(list, count, trusted, trusted_count, &ids, &skipped) : NULL;
  free(list);
  if (!t) {
    free(old);
    return err_set(err, ERR_MEMORY, "no memory for the route table");
  }
  if (skipped)
    log_warn("parts of the route table can't be used", "version", log_u64(routes_version(c->routes)), "parts", log_u64(skipped));
  t->version = routes_version(c->routes);
  t->seq = ++c->seq;
  if (old) {
    *old = (struct old_table){.next = c->old, .table = c->table};
    c->old = old;
  }
  c->table = t;
  drain_publish(c->drain, t->seq, t->version);
  atomic_store_explicit(&c->shared.table, t, memory_order_release);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_wake(c->workers[i]);
  return 0;
}

static void free_old_tables(struct control *c) {
  uint64_t seq = drain_seq(c->drain);
  for (struct old_table **at = &c->old; *at;) {
    struct old_table *o = *at;
    if (o->table->seq >= seq) {
      at = &o->next;
      continue;
    }
    *at = o->next;
    table_free(o->table);
    free(o);
  }
}

static void save(void *arg) {
  struct control *c = arg;
  struct err err;
  struct buf file = BUF_INIT(ROUTES_FILE_MAX + 64);
  if (routes_to_file(c->routes, &file, &err) < 0 || state_write(c->state, ROUTES_FILE, &file, 0600, &err) < 0)
    log_error("the route table could not be saved", "error", err.msg);
  buf_free(&file);
}

static void save_soon(struct control *c) {
  struct err err;
  if (!loop_timer_is_set(&c->save) && loop_timer_in(c->loop, &c->save, SAVE_DELAY, &err) < 0)
    log_error("the route table will not be saved", "error", err.msg);
}

static int load(struct control *c, struct err *err) {
  struct buf file = BUF_INIT(ROUTES_FILE_MAX + 65536);
  int rc = state_read(c->state, ROUTES_FILE, &file, err);
  if (rc == 0) {
    Node__RouteTable *t = routes_from_file(file.data, file.len, err);
    rc = t ? routes_apply(c->routes, t, err) : -1;
    if (t)
      node__route_table__free_unpacked(t, NULL);
  }
  buf_free(&file);
  return rc;
}

/* ---- acknowledgement ---- */

static void send_ack(struct control *c);

static void ack_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct control *c = arg;
  c->ack = NULL;
  if (c->ack_due)
    send_ack(c);
}

static void retry_later(struct control *c) {
  struct err err;
  if (!loop_timer_is_set(&c->retry) && loop_timer_in(c->loop, &c->retry, RETRY_DELAY, &err) < 0)
    log_error("no retry", "error", err.msg);
}

static void ack_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->ack = NULL;
  c->ack_due = true;
  log_debug("the acknowledgement did not arrive", "error", why->msg);
  if (bus_conn_is_up(c->conn))
    retry_later(c);
}

static void send_ack(struct control *c) {
  static const struct bus_call_ops ops = {.done = ack_done, .failed = ack_failed};
  c->ack_due = true;
  if (!c->conn || !bus_conn_is_up(c->conn) || c->ack || !c->stream)
    return;
  const char *draining[DRAINING_MAX];
  size_t n = drain_list(c->drain, draining, DRAINING_MAX);
  Node__RouteAck ack = NODE__ROUTE_ACK__INIT;
  Node__Call call = NODE__CALL__INIT;
  PB_SET(&ack, version, drain_version(c->drain));
  ack.n_draining = n < DRAINING_MAX ? n : DRAINING_MAX;
  ack.draining = (char **)(uintptr_t)draining;
  if (*c->fault)
    ack.fault = c->fault;
  if (certificate_ends_s(c->certificate))
    PB_SET(&ack, certificate_ends_ms, certificate_ends_s(c->certificate) * 1000);
  call.body_case = NODE__CALL__BODY_ROUTE_ACK;
  call.route_ack = &ack;
  /* More than fit in one message can't be told apart from gone: the apiserver hears of the version when the list is short enough. */
  if (n > DRAINING_MAX)
    PB_SET(&ack, version, c->acked);
  c->acked = ack.version;
  c->ack_due = n > DRAINING_MAX;
  c->ack = bus_call(c->conn, &call.base, CALL_TIMEOUT, &ops, c);
}

/* ---- what workers hand over ---- */

struct handover {
  struct control *control;
  unsigned worker;
  bool switched;
  uint64_t seq;
  size_t count;
  uint32_t slots[];
};

static void take_over(void *arg) {
  struct handover *h = arg;
  struct control *c = h->control;
  uint64_t version = drain_version(c->drain), seq = drain_seq(c->drain);
  size_t draining = drain_list(c->drain, NULL, 0);
  if (h->switched)
    drain_switched(c->drain, h->worker, h->seq, h->slots, h->count);
  else
    drain_idle(c->drain, h->worker, h->slots[0]);
  free(h);
  if (drain_seq(c->drain) != seq)
    free_old_tables(c);
  if (drain_version(c->drain) != version || drain_list(c->drain, NULL, 0) != draining)
    send_ack(c);
}

static void hand_over(struct control *c, unsigned worker, bool switched, uint64_t seq, const uint32_t *slots, size_t count) {
  struct handover *h = malloc(sizeof *h + count * sizeof h->slots[0]);
  if (h) {
    *h = (struct handover){.control = c, .worker = worker, .switched = switched, .seq = seq, .count = count};
    if (count)
      memcpy(h->slots, slots, count * sizeof slots[0]);
  }
  if (!h || loop_post(c->loop, take_over, h) < 0) {
    /* The table is acknowledged with the next one; until then an instance drains for longer than it needs to. */
    log_error("no memory to report a switch of tables");
    free(h);
  }
}

static void on_switched(void *arg, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count) {
  hand_over(arg, worker, true, seq, busy, count);
}

static void on_idle(void *arg, unsigned worker, uint32_t slot) {
  hand_over(arg, worker, false, 0, &slot, 1);
}

/* ---- where it listens ---- */

static uint16_t wanted_port(const struct control *c) {
  uint16_t port = routes_http_port(c->routes);
  return port ? port : c->daemon->config.port_http;
}

static int give_sockets(struct control *c, struct err *err) {
  struct worker_listener list[LISTEN_MAX];
  int rc = 0;
  for (unsigned i = 0; i < c->worker_count; i++) {
    int n = listen_share(&c->sockets, i, c->worker_count, list, err);
    if (n < 0 || worker_listen(c->workers[i], list, (unsigned)n, err) < 0)
      rc = -1;
  }
  return rc;
}

/* systemd keeps copies: the next process has them, however this one ends. */
static void store_sockets(const struct control *c) {
  char name[LISTEN_NAME_MAX];
  for (unsigned i = 0; i < c->sockets.count; i++) {
    listen_name(&c->sockets.list[i].addr, name);
    fdstore_put(name, c->sockets.list[i].fd);
  }
}

static int listen_for_http(struct control *c, uint16_t port, bool patient, struct err *err) {
  struct listen_address now[2], before[2];
  unsigned count = listen_http(c->daemon->config.address, port, now);
  for (unsigned i = 0; i < count; i++)
    if (listen_ensure(&c->sockets, FRONT_HTTP, &now[i], c->worker_most, patient, err) < 0) {
      listen_close_others(&c->sockets, FRONT_HTTP, before, c->port ? listen_http(c->daemon->config.address, c->port, before) : 0, fdstore_remove);
      return -1;
    }
  return 0;
}

/* [proxy] http_port may have changed. Returns whether there are other sockets now. */
static bool follow_http(struct control *c, struct err *fault) {
  struct listen_address keep[2];
  uint16_t port = wanted_port(c), before = c->port;
  if (port == c->port || listen_for_http(c, port, false, fault) < 0)
    return false;
  c->port = port;
  listen_close_others(&c->sockets, FRONT_HTTP, keep, listen_http(c->daemon->config.address, port, keep), fdstore_remove);
  log_info("listening", "port", log_u64(port), "before", log_u64(before));
  save(c); /* not soon: a proxy that is started anew would be elsewhere */
  return true;
}

/* [api] listen, or the certificate for it, may have changed. */
static bool follow_api(struct control *c, bool patient, struct err *fault) {
  struct listen_address keep[LISTEN_API_MAX], a;
  char hosts[LISTEN_API_MAX][64];
  const char *own[LISTEN_API_MAX];
  char *const *list;
  struct err err;
  /* Only a master has an apiserver to hand over to. */
  size_t count = c->daemon->config.role == NODE_MASTER ? routes_api_listen(c->routes, &list) : 0;
  unsigned n = 0, kept = 0;
  bool changed = false;
  for (size_t i = 0; i < count && n < LISTEN_API_MAX; i++)
    if (listen_api(list[i], &a) && spec_listen_host(list[i], hosts[n], sizeof hosts[n])) {
      keep[n] = a;
      own[n] = hosts[n];
      n++;
    }
  if (certificate_want(c->certificate, own, n, &err) < 0)
    *fault = err;
  else if (*certificate_fault(c->certificate))
    err_set(fault, ERR_UNAVAILABLE, "listen for the API: %s", certificate_fault(c->certificate));
  for (unsigned i = 0; i < n; i++) {
    bool had = listen_has(&c->sockets, FRONT_API, &keep[i]);
    if (!had && (!certificate_covers(c->certificate, own[i]) || listen_ensure(&c->sockets, FRONT_API, &keep[i], 1, patient, fault) < 0))
      continue;
    if (!had)
      log_info("listening for the API", "address", own[i], "port", log_u64(ntohs(keep[i].addr.in.sin_port)));
    changed |= !had;
    keep[kept++] = keep[i];
  }
  if (n < count && loop_timer_in(c->loop, &c->listen, LOOK_AGAIN, &err) < 0) /* an address may come to this machine */
    log_error("no timer", "error", err.msg);
  return listen_close_others(&c->sockets, FRONT_API, keep, kept, fdstore_remove) || changed;
}

static void set_fault(struct control *c, const char *fault) {
  if (strcmp(c->fault, fault) == 0)
    return;
  snprintf(c->fault, sizeof c->fault, "%.250s", fault);
  if (*fault)
    log_error("not listening everywhere", "port", log_u64(c->port), "error", fault);
  send_ack(c);
}

static void follow_addresses(struct control *c) {
  struct err api = {0}, http = {0}, err;
  loop_timer_cancel(c->loop, &c->listen);
  bool changed = follow_api(c, false, &api);
  changed |= follow_http(c, &http);
  if (changed && give_sockets(c, &err) < 0)
    http = err;
  if (changed)
    store_sockets(c);
  const struct err *fault = http.code != ERR_NONE ? &http : &api;
  set_fault(c, fault->code != ERR_NONE ? fault->msg : "");
  if (fault->code != ERR_NONE && loop_timer_in(c->loop, &c->listen, LISTEN_AGAIN, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void on_listen_again(void *arg) {
  follow_addresses(arg);
}

static void on_certificate(void *arg) {
  struct control *c = arg;
  struct tls_server *server = certificate_server(c->certificate);
  if (c->ending)
    return;
  for (unsigned i = 0; server && i < c->worker_count; i++)
    worker_tls(c->workers[i], tls_server_ref(server));
  follow_addresses(c);
  send_ack(c); /* it says when the certificate ends */
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
  ok = ok && routes_apply(c->routes, item->routes, &err) == 0 && publish(c, &err) == 0;
  if (item)
    node__item__free_unpacked(item, NULL);
  if (ok) {
    log_debug("route table", "version", log_u64(routes_version(c->routes)), "routes", log_u64(routes_count(c->routes)));
    save_soon(c);
    if (settings)
      follow_addresses(c);
    return;
  }
  /* What is served stays; asking anew brings everything. */
  log_error("the route table was refused", "error", err.msg);
  bus_call_cancel(c->stream);
  c->stream = NULL;
  retry_later(c);
}

static void stream_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct control *c = arg;
  c->stream = NULL;
  retry_later(c);
}

static void stream_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->stream = NULL;
  if (!bus_conn_is_up(c->conn)) /* `up` opens it again */
    return;
  log_warn("the stream of routes has ended", "error", why->msg);
  retry_later(c);
}

static void open_stream(struct control *c) {
  static const struct bus_call_ops ops = {.done = stream_done, .failed = stream_failed, .item = on_item};
  if (c->stream || !bus_conn_is_up(c->conn))
    return;
  char address[128];
  snprintf(address, sizeof address, "%s:%u", c->daemon->config.address, c->port);
  Node__ProxyHello hello = NODE__PROXY_HELLO__INIT;
  Node__Call call = NODE__CALL__INIT;
  PB_SET(&hello, version, routes_version(c->routes));
  hello.http_address = address;
  call.body_case = NODE__CALL__BODY_PROXY_HELLO;
  call.proxy_hello = &hello;
  c->stream = bus_call(c->conn, &call.base, 0, &ops, c);
  send_ack(c);
}

static void on_retry(void *arg) {
  struct control *c = arg;
  open_stream(c);
  if (c->ack_due)
    send_ack(c);
}

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

/* ---- counters ---- */

static uint64_t sum_up(const struct control *c, uint32_t id, Node__ServiceStats *s, uint64_t latency[WORKER_LATENCY_BUCKETS]) {
  memset(latency, 0, WORKER_LATENCY_BUCKETS * sizeof latency[0]);
  uint64_t requests = 0, e4 = 0, e5 = 0, in = 0, out = 0;
  for (unsigned i = 0; i < c->worker_count; i++) {
    const struct service_counters *k = worker_counters(c->workers[i], id);
    if (!k)
      continue;
    requests += atomic_load_explicit(&k->requests, memory_order_relaxed);
    e4 += atomic_load_explicit(&k->errors_4xx, memory_order_relaxed);
    e5 += atomic_load_explicit(&k->errors_5xx, memory_order_relaxed);
    in += atomic_load_explicit(&k->bytes_in, memory_order_relaxed);
    out += atomic_load_explicit(&k->bytes_out, memory_order_relaxed);
    for (unsigned b = 0; b < WORKER_LATENCY_BUCKETS; b++)
      latency[b] += atomic_load_explicit(&k->latency[b], memory_order_relaxed);
  }
  PB_SET(s, requests, requests);
  PB_SET(s, errors_4xx, e4);
  PB_SET(s, errors_5xx, e5);
  PB_SET(s, bytes_in, in);
  PB_SET(s, bytes_out, out);
  s->latency = latency;
  s->n_latency = WORKER_LATENCY_BUCKETS;
  return requests;
}

struct stats_message {
  Node__ServiceStats stats;
  uint64_t latency[WORKER_LATENCY_BUCKETS];
  char name[192];
};

static void report_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  ((struct control *)arg)->report = NULL;
}

static void report_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->report = NULL;
  log_debug("the counters did not arrive", "error", why->msg); /* they grow on: the next report has all */
  memset(c->last_requests, 0xff, c->last_size * sizeof *c->last_requests);
}

static bool remember_all(struct control *c, size_t count) {
  if (count <= c->last_size)
    return true;
  uint64_t *last = reallocarray(c->last_requests, count, sizeof *last);
  if (!last)
    return false;
  memset(last + c->last_size, 0, (count - c->last_size) * sizeof *last);
  c->last_requests = last;
  c->last_size = count;
  return true;
}

/* Sends the counters of the services that had requests since the last time. */
static void report(struct control *c) {
  static const struct bus_call_ops ops = {.done = report_done, .failed = report_failed};
  size_t count = service_ids_count(c->ids), changed = 0;
  if (!c->conn || !bus_conn_is_up(c->conn) || c->report || !remember_all(c, count))
    return;
  Node__ProxyStats stats = NODE__PROXY_STATS__INIT;
  uint64_t connections = 0, accepted = 0;
  for (unsigned i = 0; i < c->worker_count; i++) {
    connections += worker_connections(c->workers[i]);
    accepted += worker_accepted(c->workers[i]);
  }
  struct stats_message *messages = calloc(count + 1, sizeof *messages);
  Node__ServiceStats **list = calloc(count + 1, sizeof *list);
  for (size_t id = 0; messages && list && id < count; id++) {
    struct stats_message *m = &messages[changed];
    node__service_stats__init(&m->stats);
    uint64_t requests = sum_up(c, (uint32_t)id, &m->stats, m->latency);
    if (requests == c->last_requests[id])
      continue;
    c->last_requests[id] = requests;
    snprintf(m->name, sizeof m->name, "%s", service_ids_name(c->ids, (uint32_t)id));
    char *slash = strchr(m->name, '/');
    if (!slash)
      continue;
    *slash = 0;
    m->stats.project = m->name;
    m->stats.service = slash + 1;
    list[changed++] = &m->stats;
  }
  if (changed || connections != c->last_connections || loop_now(c->loop) < c->watched_until) {
    c->last_connections = connections;
    Node__Call call = NODE__CALL__INIT;
    stats.services = list;
    stats.n_services = changed;
    PB_SET(&stats, connections, connections);
    PB_SET(&stats, accepted, accepted);
    call.body_case = NODE__CALL__BODY_PROXY_STATS;
    call.proxy_stats = &stats;
    c->report = bus_call(c->conn, &call.base, CALL_TIMEOUT, &ops, c);
  }
  free(messages);
  free(list);
}

static void on_stats(void *arg) {
  struct control *c = arg;
  struct err err;
  report(c);
  if (loop_timer_in(c->loop, &c->stats, loop_now(c->loop) < c->watched_until ? c->watched_every : STATS_EVERY, &err) < 0)
    log_error("no more counters", "error", err.msg);
}

static void watch_figures(struct control *c, const Node__WatchFigures *watch) {
  int64_t now = loop_now(c->loop), every = PB_GET(watch, interval_ms, 0) * NS_PER_MS, length = PB_GET(watch, for_ms, 0) * NS_PER_MS;
  bool began = now < c->watched_until;
  c->watched_every = every < WATCHED_EVERY_MIN ? WATCHED_EVERY_MIN : every > STATS_EVERY ? STATS_EVERY : every;
  c->watched_until = now + (length > WATCHED_FOR_MAX ? WATCHED_FOR_MAX : length);
  struct err err;
  if (!began && loop_timer_in(c->loop, &c->stats, 0, &err) < 0)
    log_error("no more counters", "error", err.msg);
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
    watch_figures(c, said->watch_figures);
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

/* ---- life ---- */

/* Each client may need a connection to an instance, and both sometimes a pipe. */
static unsigned clients_for(unsigned workers) {
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) < 0)
    return 256;
  r.rlim_cur = r.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &r) < 0)
    log_warn("the limit of open files stays low");
  rlim_t files = r.rlim_cur > 1048576 ? 1048576 : r.rlim_cur;
  rlim_t n = (files > 256 ? files - 192 : 64) / 3 / workers;
  return n > 65536 ? 65536 : (unsigned)n;
}

static void take_sockets(struct control *c) {
  int fds[LISTEN_MAX];
  unsigned n = fdstore_take(fds, LISTEN_MAX);
  for (unsigned i = 0; i < n; i++)
    listen_adopt(&c->sockets, fds[i]);
  if (n)
    log_info("took the sockets that systemd kept", "sockets", log_u64(c->sockets.count));
  else
    handover_ask(c->daemon->config.run_dir, &c->sockets);
}

static int open_sockets(struct control *c, struct err *err) {
  struct err api = {0};
  uint16_t port = wanted_port(c);
  take_sockets(c);
  int rc = listen_for_http(c, port, true, err);
  if (rc < 0 && port != c->daemon->config.port_http) { /* the port of the last table is another's now: better node.toml's than none */
    snprintf(c->fault, sizeof c->fault, "%.250s", err->msg);
    log_error("not on the port that cluster.toml names", "port", log_u64(port), "error", err->msg);
    port = c->daemon->config.port_http;
    rc = listen_for_http(c, port, true, err);
    if (rc == 0 && loop_timer_in(c->loop, &c->listen, LISTEN_AGAIN, err) < 0)
      return -1;
  }
  if (rc < 0)
    return -1;
  c->port = port;
  (void)follow_api(c, true, &api);
  if (api.code != ERR_NONE && !*c->fault) {
    snprintf(c->fault, sizeof c->fault, "%.250s", api.msg);
    if (loop_timer_in(c->loop, &c->listen, LISTEN_AGAIN, err) < 0)
      return -1;
  }
  listen_close_unclaimed(&c->sockets, fdstore_remove);
  return 0;
}

static int start_workers(struct control *c, unsigned count, struct err *err) {
  struct worker_listener list[LISTEN_MAX];
  struct tls_server *server = certificate_server(c->certificate);
  for (unsigned i = 0; i < count; i++) {
    int n = listen_share(&c->sockets, i, count, list, err);
    if (n < 0 || !(c->workers[i] = worker_new(&c->shared, i, list, (unsigned)n, err)))
      return -1;
    c->worker_count++;
    if (server)
      worker_tls(c->workers[i], tls_server_ref(server));
  }
  for (unsigned i = 0; i < count; i++)
    if (worker_start(c->workers[i], err) < 0)
      return -1;
  store_sockets(c);
  return 0;
}

struct control *control_start(struct daemon *d, const struct control_options *o, struct err *err) {
  struct control *c = calloc(1, sizeof *c);
  if (!c) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  unsigned workers = o->workers < WORKER_MAX ? o->workers : WORKER_MAX;
  c->daemon = d;
  c->loop = d->loop;
  c->save = (struct loop_timer){.cb = save, .arg = c};
  c->stats = (struct loop_timer){.cb = on_stats, .arg = c};
  c->retry = (struct loop_timer){.cb = on_retry, .arg = c};
  c->listen = (struct loop_timer){.cb = on_listen_again, .arg = c};
  c->shared.node = d->config.name;
  c->shared.events = (struct worker_events){on_switched, on_idle, c};
  c->shared.clients_max = clients_for(workers);
  c->routes = routes_new();
  c->drain = drain_new(workers);
  c->ids = service_ids_new();
  if (!c->routes || !c->drain || !c->ids) {
    err_set(err, ERR_MEMORY, "no memory");
    goto fail;
  }
  if (!(c->state = state_open(d->config.state_dir, err)))
    goto fail;
  struct err why;
  if (load(c, &why) < 0 && why.code != ERR_NOT_FOUND)
    log_error("the saved route table can't be used", "error", why.msg);
  if (publish(c, err) < 0)
    goto fail;
  if (o->log != ACCESSLOG_OFF && !(c->shared.log = accesslog_new(o->log, STDOUT_FILENO, err)))
    goto fail;
  c->worker_most = workers;
  if (!(c->certificate = certificate_new(c->loop, c->state, on_certificate, c, err)) || open_sockets(c, err) < 0 ||
      start_workers(c, workers, err) < 0)
    goto fail;
  return c;
fail:
  control_stop(c);
  return NULL;
}

int control_connect(struct control *c, struct err *err) {
  const struct node_config *config = &c->daemon->config;
  if (config->master_count == 0)
    return 0;
  static const struct bus_conn_ops ops = {.up = on_up, .down = on_down, .call = on_call};
  struct bus_address *list = calloc(config->master_count, sizeof *list);
  char(*endpoints)[160] = calloc(config->master_count, sizeof *endpoints);
  int rc = -1;
  if (!list || !endpoints) {
    err_set(err, ERR_MEMORY, "no memory");
    goto out;
  }
  for (size_t i = 0; i < config->master_count; i++) {
    const char *a = config->masters[i].address;
    snprintf(endpoints[i], sizeof endpoints[i], strchr(a, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", a, config->port_gateway);
    list[i] = (struct bus_address){.endpoint = endpoints[i], .server_key = config->masters[i].key};
  }
  if (!(c->bus = daemon_bus(c->daemon, err)) || !(c->conn = bus_connect(c->bus, list, config->master_count, &ops, c, err)))
    goto out;
  rc = loop_timer_in(c->loop, &c->stats, STATS_EVERY, err);
out:
  free(list);
  free(endpoints);
  return rc;
}

void control_describe(const struct control *c, char *out, size_t size) {
  snprintf(out, size, "serving %zu routes on port %u with %u workers", routes_count(c->routes), c->port, c->worker_count);
}

/* What workers handed over after the loop had ended. */
static void run_out(struct control *c) {
  struct err err;
  if (loop_once(c->loop, 0, &err) < 0)
    log_error("stopping", "error", err.msg);
}

/* Wakes the workers to what was just set, and waits for them. */
static void join_workers(struct control *c) {
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_wake(c->workers[i]);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_join(c->workers[i]);
}

static void save_now(struct control *c) {
  if (!loop_timer_is_set(&c->save))
    return;
  loop_timer_cancel(c->loop, &c->save);
  save(c);
}

/* Brings what is in flight to its end, while another process serves already, or will soon. */
static void drain(struct control *c, int ask) {
  struct err err;
  atomic_store_explicit(&c->shared.pausing, false, memory_order_release);
  atomic_store_explicit(&c->shared.draining, true, memory_order_release);
  if (c->shared.log && accesslog_resume(c->shared.log, &err) < 0)
    log_error("the last lines of the access log are lost", "error", err.msg);
  for (unsigned i = 0; i < c->worker_count; i++)
    if (worker_start(c->workers[i], &err) < 0)
      log_error("connections are lost", "error", err.msg);
  if (ask >= 0)
    handover_give(c->daemon->config.run_dir, ask, &c->sockets, HANDOVER_WAIT_MS);
  listen_close_all(&c->sockets);
  join_workers(c);
  if (c->shared.log)
    accesslog_pause(c->shared.log);
}

static uint64_t connections_of(const struct control *c) {
  uint64_t n = 0;
  for (unsigned i = 0; i < c->worker_count; i++)
    n += worker_connections(c->workers[i]);
  return n;
}

void control_hand_over(struct control *c) {
  struct err err;
  c->ending = true;
  int ask = fdstore_has() ? -1 : handover_open(c->daemon->config.run_dir, &err);
  if (ask < 0 && !fdstore_has())
    log_warn("the listening sockets can't be handed over", "error", err.msg);
  bus_free(c->bus); /* the next process says hello in this one's name */
  c->bus = NULL;
  c->conn = NULL;
  save_now(c);
  state_release(c->state);
  atomic_store_explicit(&c->shared.pausing, true, memory_order_release);
  join_workers(c);
  if (c->shared.log)
    accesslog_pause(c->shared.log);
  uint64_t connections = connections_of(c);
  if (ask < 0 && connections == 0)
    return;
  /* No thread runs: what is copied is whole. Whoever waits for this process can start the next one at once. */
  pid_t pid = fork();
  if (pid > 0) {
    log_info("handed over", "connections", log_u64(connections), "process", log_i64(pid));
    _exit(0);
  }
  if (pid < 0)
    log_error("what is in flight is ended before this process is", "error", strerror(errno));
  sigset_t all;
  sigfillset(&all);
  signal(SIGTERM, SIG_DFL); /* asked once more it ends at once */
  signal(SIGINT, SIG_DFL);
  sigprocmask(SIG_UNBLOCK, &all, NULL);
  drain(c, ask);
  log_info("nothing is in flight any more", "cut", log_u64(connections_of(c)));
  _exit(0);
}

void control_stop(struct control *c) {
  if (!c)
    return;
  c->ending = true;
  atomic_store_explicit(&c->shared.stopping, true, memory_order_release);
  atomic_store_explicit(&c->shared.pausing, false, memory_order_release);
  join_workers(c);
  if (c->loop)
    run_out(c);
  save_now(c);
  if (c->loop) {
    loop_timer_cancel(c->loop, &c->stats);
    loop_timer_cancel(c->loop, &c->retry);
    loop_timer_cancel(c->loop, &c->listen);
  }
  bus_free(c->bus);
  certificate_free(c->certificate);
  listen_close_all(&c->sockets);
  accesslog_free(c->shared.log);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_free(c->workers[i]);
  while (c->old) {
    struct old_table *o = c->old;
    c->old = o->next;
    table_free(o->table);
    free(o);
  }
  table_free(c->table);
  state_close(c->state);
  service_ids_free(c->ids);
  drain_free(c->drain);
  routes_free(c->routes);
  free(c->last_requests);
  free(c);
}
