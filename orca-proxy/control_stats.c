#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-proxy/control_internal.h"

#define STATS_EVERY (10 * NS_PER_SEC)
#define WATCHED_EVERY_MIN (2 * NS_PER_SEC)
#define WATCHED_FOR_MAX (60 * NS_PER_SEC)

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
  ((struct control *)arg)->stats.report = NULL;
}

static void report_failed(void *arg, const struct err *why) {
  struct control *c = arg;
  c->stats.report = NULL;
  log_debug("the counters did not arrive", "error", why->msg); /* they grow on: the next report has all */
  memset(c->stats.last_requests, 0xff, c->stats.last_size * sizeof *c->stats.last_requests);
}

static bool remember_all(struct control *c, size_t count) {
  if (count <= c->stats.last_size)
    return true;
  uint64_t *last = reallocarray(c->stats.last_requests, count, sizeof *last);
  if (!last)
    return false;
  memset(last + c->stats.last_size, 0, (count - c->stats.last_size) * sizeof *last);
  c->stats.last_requests = last;
  c->stats.last_size = count;
  return true;
}

/* Sends the counters of the services that had requests since the last time. */
static void report(struct control *c) {
  static const struct bus_call_ops ops = {.done = report_done, .failed = report_failed};
  size_t count = service_ids_count(c->ids), changed = 0;
  struct bus_conn *conn = control_link_conn(c);
  if (!conn || c->stats.report || !remember_all(c, count))
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
    if (requests == c->stats.last_requests[id])
      continue;
    c->stats.last_requests[id] = requests;
    snprintf(m->name, sizeof m->name, "%s", service_ids_name(c->ids, (uint32_t)id));
    char *slash = strchr(m->name, '/');
    if (!slash)
      continue;
    *slash = 0;
    m->stats.project = m->name;
    m->stats.service = slash + 1;
    list[changed++] = &m->stats;
  }
  if (changed || connections != c->stats.last_connections || loop_now(c->loop) < c->stats.watched_until) {
    c->stats.last_connections = connections;
    Node__Call call = NODE__CALL__INIT;
    stats.services = list;
    stats.n_services = changed;
    PB_SET(&stats, connections, connections);
    PB_SET(&stats, accepted, accepted);
    call.body_case = NODE__CALL__BODY_PROXY_STATS;
    call.proxy_stats = &stats;
    c->stats.report = bus_call(conn, &call.base, CONTROL_CALL_TIMEOUT, &ops, c);
  }
  free(messages);
  free(list);
}

static void on_stats(void *arg) {
  struct control *c = arg;
  struct err err;
  report(c);
  if (loop_timer_in(c->loop, &c->stats.next, loop_now(c->loop) < c->stats.watched_until ? c->stats.watched_every : STATS_EVERY, &err) < 0)
    log_error("no more counters", "error", err.msg);
}

void control_stats_watch(struct control *c, const Node__WatchFigures *watch) {
  int64_t now = loop_now(c->loop), every = PB_GET(watch, interval_ms, 0) * NS_PER_MS, length = PB_GET(watch, for_ms, 0) * NS_PER_MS;
  bool began = now < c->stats.watched_until;
  c->stats.watched_every = every < WATCHED_EVERY_MIN ? WATCHED_EVERY_MIN : every > STATS_EVERY ? STATS_EVERY : every;
  c->stats.watched_until = now + (length > WATCHED_FOR_MAX ? WATCHED_FOR_MAX : length);
  struct err err;
  if (!began && loop_timer_in(c->loop, &c->stats.next, 0, &err) < 0)
    log_error("no more counters", "error", err.msg);
}

int control_stats_start(struct control *c, struct err *err) {
  c->stats.next = (struct loop_timer){.cb = on_stats, .arg = c};
  return loop_timer_in(c->loop, &c->stats.next, STATS_EVERY, err);
}

void control_stats_close(struct control *c) {
  loop_timer_cancel(c->loop, &c->stats.next);
  free(c->stats.last_requests);
  c->stats.last_requests = NULL;
  c->stats.last_size = 0;
}
