#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-proxy/control_internal.h"

#define SAVE_DELAY (200 * NS_PER_MS)
#define SAVE_AGAIN (5 * NS_PER_SEC) /* a full disk may have room again */
#define ROUTES_FILE "routes"
#define API_TIMEOUT_MS UINT64_C(120000)   /* until the API begins to answer */
#define API_MAX_BODY (UINT64_C(12) << 20) /* as the API's own */

/* ---- from routes to workers ---- */

struct old_table {
  struct old_table *next;
  struct table *table;
};

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
  struct old_table *old = c->tables.newest ? malloc(sizeof *old) : NULL;
  struct api_route api;
  size_t count = routes_count(c->routes);
  const Node__Route **list = calloc(count + 1, sizeof *list);
  if (list && count)
    memcpy(list, routes_list(c->routes), count * sizeof *list);
  if (list)
    list[count++] = api_route_make(&api, c);
  struct table *t = list && (!c->tables.newest || old) ? table_build(list, count, trusted, trusted_count, &ids, &skipped) : NULL;
  free(list);
  if (!t) {
    free(old);
    return err_set(err, ERR_MEMORY, "no memory for the route table");
  }
  if (skipped)
    log_warn("parts of the route table can't be used", "version", log_u64(routes_version(c->routes)), "parts", log_u64(skipped));
  t->version = routes_version(c->routes);
  t->seq = ++c->tables.seq;
  if (old) {
    *old = (struct old_table){.next = c->tables.old, .table = c->tables.newest};
    c->tables.old = old;
  }
  c->tables.newest = t;
  drain_publish(c->drain, t->seq, t->version);
  atomic_store_explicit(&c->shared.table, t, memory_order_release);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_wake(c->workers[i]);
  return 0;
}

static void free_old_tables(struct control *c) {
  uint64_t seq = drain_seq(c->drain);
  for (struct old_table **at = &c->tables.old; *at;) {
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

/* ---- on disk ---- */

void control_tables_save(struct control *c) {
  struct err err;
  struct buf file = BUF_INIT(ROUTES_FILE_MAX + 64);
  if (routes_to_file(c->routes, &file, &err) < 0 || state_write(c->state, ROUTES_FILE, &file, 0600, &err) < 0) {
    log_error("the route table could not be saved", "error", err.msg);
    if (!c->ending && loop_timer_in(c->loop, &c->tables.save, SAVE_AGAIN, &err) < 0)
      log_error("the route table will not be saved", "error", err.msg);
  }
  buf_free(&file);
}

static void on_save(void *arg) {
  control_tables_save(arg);
}

static void save_soon(struct control *c) {
  struct err err;
  if (!loop_timer_is_set(&c->tables.save) && loop_timer_in(c->loop, &c->tables.save, SAVE_DELAY, &err) < 0)
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

/* ---- life ---- */

int control_tables_open(struct control *c, struct err *err) {
  struct err why;
  c->tables.save = (struct loop_timer){.cb = on_save, .arg = c};
  if (load(c, &why) < 0 && why.code != ERR_NOT_FOUND)
    log_error("the saved route table can't be used", "error", why.msg);
  return publish(c, err);
}

int control_tables_apply(struct control *c, const Node__RouteTable *routes, struct err *err) {
  if (routes_apply(c->routes, routes, err) < 0 || publish(c, err) < 0)
    return -1;
  log_debug("route table", "version", log_u64(routes_version(c->routes)), "routes", log_u64(routes_count(c->routes)));
  save_soon(c);
  return 0;
}

void control_tables_save_due(struct control *c) {
  if (!loop_timer_is_set(&c->tables.save))
    return;
  loop_timer_cancel(c->loop, &c->tables.save);
  control_tables_save(c);
}

void control_tables_close(struct control *c) {
  while (c->tables.old) {
    struct old_table *o = c->tables.old;
    c->tables.old = o->next;
    table_free(o->table);
    free(o);
  }
  table_free(c->tables.newest);
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
    control_link_ack(c);
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

void control_tables_switched(void *arg, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count) {
  hand_over(arg, worker, true, seq, busy, count);
}

void control_tables_idle(void *arg, unsigned worker, uint32_t slot) {
  hand_over(arg, worker, false, 0, &slot, 1);
}
