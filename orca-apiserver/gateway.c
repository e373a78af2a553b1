#include "orca-apiserver/gateway.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/certificate.h"
#include "orca-apiserver/desired.h"
#include "orca-apiserver/round.h"
#include "orca-apiserver/routes_derive.h"
#include "orca-apiserver/secrets.h"

#define NODE_TTL_MS 1000u             /* unless cluster.toml says otherwise */
#define START_GRACE (10 * NS_PER_SEC) /* after this process's start: it is itself that was silent */
#define REPORTS_MAX 1024              /* waiting for a transaction */
#define RETRY_AFTER (200 * NS_PER_MS)

enum gw_role { GW_AGENT = 1, GW_PROXY, GW_KEEPER, GW_SCHEDULER };

struct gw_peer {
  struct gateway *g;
  struct bus_conn *conn;
  enum gw_role role;
  char node[64];
  struct bus_call *stream; /* NULL: no hello yet */
  bool full_up;            /* it has no credit now */
  struct api_desired desired;
  uint64_t sent_version; /* proxies */
  struct gw_peer *next, *prev;
};

struct gw_report {       /* one that waits for its transaction */
  struct bus_call *call; /* NULL once the peer is gone: what it said is written all the same */
  struct gw_report *next, *prev;
  struct gw_batch *batch;
};
struct gw_batch { /* what one transaction acknowledges */
  struct gateway *g;
  struct gw_report *reports;
  size_t count;
};

struct gw_lost { /* an agent without a conversation */
  int64_t since, grace;
};

struct gateway {
  struct api *api;
  struct bus_listener *listener;
  struct loop_hook hook;
  struct gw_peer *peers;
  struct api_route_table table;
  struct api_smap dirty_services; /* PROJECT/NAME: look at their routes again */
  struct api_smap draining;       /* PROJECT/NAME.NUMBER of instances to be let go of */
  bool tell, look_at_drains;      /* at the end of this round */
  struct api_round round;
  struct gw_batch *gathering, *on_its_way;
  struct api_smap lines;   /* peer → struct gw_lines *, how much the log has had of its comings and goings */
  struct api_smap lost;    /* node → struct gw_lost */
  int64_t watched_until;   /* figures come faster until then */
  struct loop_timer timer; /* grace periods */
  uint64_t reports, rounds, refused;
};

/* ---- the log ---- */

#define LINES_MAX 10u /* of one peer in a minute: one that comes and goes all the time is one fact */

struct gw_lines {
  int64_t since;
  unsigned count;
};

static bool may_log(struct gateway *g, const struct bus_conn *conn) {
  void **slot = api_smap_slot(&g->lines, bus_peer_name(conn)); /* names are the allow-list's: they are few */
  if (slot && !*slot)
    *slot = calloc(1, sizeof(struct gw_lines));
  if (!slot || !*slot)
    return false;
  struct gw_lines *lines = *slot;
  int64_t now = loop_now(g->api->loop);
  if (!lines->count || now - lines->since > 60 * NS_PER_SEC)
    *lines = (struct gw_lines){.since = now};
  return lines->count++ < LINES_MAX;
}

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

/* ---- telling ---- */

static void tell_agent(struct gw_peer *p) {
  while (p->stream && !p->full_up && api_desired_pending(&p->desired)) {
    Node__DesiredState *state = api_desired_build(&p->desired, &p->g->api->cache);
    if (!state)
      return;
    Node__Item item = NODE__ITEM__INIT;
    item.body_case = NODE__ITEM__BODY_DESIRED;
    item.desired = state;
    int rc = bus_push(p->stream, &item.base);
    if (rc == 0)
      api_desired_sent(&p->desired, state);
    api_desired_free(state);
    if (rc < 0) {
      struct err err;
      err_set(&err, ERR_TOO_LARGE, "the desired state of %s does not fit into one message", p->node);
      log_error("not told", "node", p->node, "error", err.msg);
      bus_fail(p->stream, &err);
      p->stream = NULL;
    }
    p->full_up = rc == 1;
  }
}

static void tell_proxy(struct gw_peer *p) {
  if (!p->stream || p->full_up)
    return;
  Node__RouteTable *table = api_routes_message(&p->g->table, &p->g->api->cache, p->sent_version);
  if (!table)
    return;
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_ROUTES;
  item.routes = table;
  int rc = bus_push(p->stream, &item.base);
  if (rc == 0)
    p->sent_version = table->version;
  api_routes_message_free(table);
  if (rc < 0) {
    struct err err;
    err_set(&err, ERR_TOO_LARGE, "the route table does not fit into one message");
    log_error("not told", "node", p->node, "error", err.msg);
    bus_fail(p->stream, &err);
    p->stream = NULL;
  }
  p->full_up = rc == 1;
}

static void tell(struct gw_peer *p) {
  if (p->role == GW_AGENT)
    tell_agent(p);
  else if (p->role == GW_PROXY)
    tell_proxy(p);
}

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
  for (const struct gw_peer *q = p->g->peers; q; q = q->next)
    if (q != p && q->stream && q->role == p->role && strcmp(q->node, p->node) == 0)
      return q;
  return NULL;
}

static void cut_elder(struct gw_peer *p) {
  const struct gw_peer *old = elder(p);
  if (!old)
    return;
  if (may_log(p->g, p->conn))
    log_warn("said hello twice: the older conversation is cut", "peer", bus_peer_name(p->conn));
  bus_conn_cut(old->conn);
}

static void open_stream(struct gw_peer *p, struct bus_call *call) {
  cut_elder(p);
  if (p->stream) { /* a second hello takes the place of the first */
    struct err err;
    err_set(&err, ERR_CANCELLED, "another hello came");
    bus_fail(p->stream, &err);
  }
  p->stream = call;
  p->full_up = false;
  bus_answer_on(call, &stream_ops, p);
  tell(p);
}

static struct bus_conn *conn_of(const struct gateway *g, enum gw_role role, const char *node) {
  for (const struct gw_peer *p = g->peers; p; p = p->next)
    if (p->role == role && p->stream && (!node || strcmp(p->node, node) == 0))
      return p->conn;
  return NULL;
}

struct bus_conn *gateway_agent(const struct gateway *g, const char *node) {
  return conn_of(g, GW_AGENT, node);
}

struct bus_conn *gateway_scheduler(const struct gateway *g) {
  return conn_of(g, GW_SCHEDULER, NULL);
}

/* ---- timers ---- */

static void due_at(struct gateway *g, int64_t at) {
  struct err err;
  if (at == INT64_MAX || (loop_timer_is_set(&g->timer) && g->timer.at <= at))
    return;
  if (loop_timer_at(g->api->loop, &g->timer, at, &err) < 0)
    log_error("no timer", "error", err.msg);
}

/* When its node is unreachable: [cluster] node_ttl after its conversation ended, and not within `grace`. */
static int64_t lost_until(const struct gateway *g, const struct gw_lost *lost) {
  const Model__ClusterSpec *cluster = api_cache_cluster(&g->api->cache, NULL);
  uint64_t ms = cluster ? PB_GET(cluster, node_ttl_ms, NODE_TTL_MS) : NODE_TTL_MS;
  int64_t ttl = ms < INT64_MAX / NS_PER_MS / 2 ? (int64_t)ms * NS_PER_MS : INT64_MAX / 2;
  return lost->since + (ttl > lost->grace ? ttl : lost->grace);
}

static void agent_lost(struct gateway *g, const char *node, int64_t grace) {
  void **slot = api_smap_slot(&g->lost, node);
  if (slot && !*slot)
    *slot = malloc(sizeof(struct gw_lost));
  if (!slot || !*slot)
    return;
  struct gw_lost *lost = *slot;
  *lost = (struct gw_lost){.since = loop_now(g->api->loop), .grace = grace};
  due_at(g, lost_until(g, lost));
}

static bool agent_is_here(const struct gateway *g, const char *node) {
  for (const struct gw_peer *p = g->peers; p; p = p->next)
    if (p->role == GW_AGENT && strcmp(p->node, node) == 0)
      return true;
  return false;
}

static void look_for_lost(struct gateway *g) {
  int64_t now = loop_now(g->api->loop);
  for (size_t i = 0; i < g->lost.count;) {
    char node[64];
    int64_t until = lost_until(g, g->lost.list[i].value);
    snprintf(node, sizeof node, "%s", g->lost.list[i].key);
    if (!agent_is_here(g, node) && now < until) {
      due_at(g, until);
      i++;
      continue;
    }
    if (!agent_is_here(g, node) && api_cache_node(&g->api->cache, node, NULL) &&
        api_round_node_state(&g->round, node, MODEL__NODE_STATE__NODE_UNREACHABLE, "agent is not connected", api_now_ms(g->api)) < 0)
      log_error("no memory to note a lost node", "node", node);
    free(api_smap_take(&g->lost, node));
  }
}

static void on_timer(void *arg) {
  struct gateway *g = arg;
  look_for_lost(g);
  g->look_at_drains = true;
}

/* ---- the round ---- */

static struct gw_batch *batch_of(struct gateway *g) {
  if (!g->gathering && (g->gathering = calloc(1, sizeof *g->gathering)))
    g->gathering->g = g;
  return g->gathering;
}

static void report_unlink(struct gw_report *report) {
  if (report->prev)
    report->prev->next = report->next;
  else
    report->batch->reports = report->next;
  if (report->next)
    report->next->prev = report->prev;
  report->batch->count--;
}

static void report_cancelled(void *arg) {
  struct gw_report *report = arg;
  report_unlink(report);
  free(report);
}

static const struct bus_answer_ops report_ops = {.cancelled = report_cancelled};

static void batch_end(struct gw_batch *batch, const struct err *err) {
  if (!batch)
    return;
  while (batch->reports) {
    struct gw_report *report = batch->reports;
    batch->reports = report->next;
    if (err) {
      bus_fail(report->call, err);
    } else {
      Node__Done done = NODE__DONE__INIT;
      Node__Reply reply = NODE__REPLY__INIT;
      reply.body_case = NODE__REPLY__BODY_DONE;
      reply.done = &done;
      bus_reply(report->call, &reply.base);
    }
    free(report);
  }
  free(batch);
}

static void round_seen(void *arg) {
  struct gateway *g = arg;
  api_round_landed(&g->round);
  batch_end(g->on_its_way, NULL);
  g->on_its_way = NULL;
  g->look_at_drains = true;
}

static void round_done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct gateway *g = arg;
  struct err refused;
  g->api->disk_full = err && err->code == ERR_NO_SPACE;
  if (!err && !succeeded) {
    err_set(&refused, ERR_INTERNAL, "the store refused a round without conditions");
    err = &refused;
  }
  if (err) {
    log_warn("reports were not stored", "error", err->msg);
    batch_end(g->on_its_way, err); /* they are told again, and what was judged by them too */
    g->on_its_way = NULL;
    batch_end(g->gathering, err);
    g->gathering = NULL;
    api_round_lost(&g->round);
    size_t count; /* and what is ours we look at again */
    const struct api_smap_entry *all = api_cache_all(&g->api->cache, API_NODE_STATUS, &count);
    for (size_t i = 0; i < count; i++) {
      const Model__NodeStatus *s = API_MSG(&all[i], Model__NodeStatus);
      if (s->state == MODEL__NODE_STATE__NODE_READY && !agent_is_here(g, PB_STR(s->name)))
        agent_lost(g, PB_STR(s->name), 0);
    }
    due_at(g, loop_now(g->api->loop) + RETRY_AFTER);
    return;
  }
  /* The next round is judged by the cache: it must have this one. */
  api_when(g->api, revision, 5 * NS_PER_SEC, round_seen, g);
}

static void send_round(struct gateway *g) {
  struct storec_txn *txn = storec_txn_new();
  struct gw_batch *batch = calloc(1, sizeof *batch);
  Model__Event *events[API_TAKE_EVENTS];
  size_t count;
  if (!txn || !batch || api_round_take(&g->round, events, &count) < 0) {
    storec_txn_free(txn);
    free(batch);
    return; /* the next loop round tries again */
  }
  for (size_t i = 0; i < g->round.flying.count; i++) {
    const struct api_smap_entry *write = &g->round.flying.list[i];
    if (write->value)
      storec_put_message(txn, write->key, write->value, 0);
    else
      storec_delete(txn, write->key);
  }
  for (size_t i = 0; i < count; i++) {
    api_event(g->api, txn, events[i]);
    model__event__free_unpacked(events[i], NULL);
  }
  g->refused += g->round.refused;
  g->round.refused = 0;
  batch->g = g;
  if (g->gathering && api_round_is_empty(&g->round)) { /* else a part of what they said is still to be sent */
    free(batch);
    batch = g->gathering;
    g->gathering = NULL;
  }
  g->on_its_way = batch;
  g->rounds++;
  g->api->commit(g->api->commit_arg, txn, round_done, g);
}

/* Reports that changed nothing need no transaction. */
static void end_round(struct gateway *g) {
  if (g->on_its_way)
    return;
  if (!api_round_is_empty(&g->round)) {
    send_round(g);
    return;
  }
  g->refused += g->round.refused;
  g->round.refused = 0;
  batch_end(g->gathering, NULL);
  g->gathering = NULL;
}

static void look_at_routes(struct gateway *g) {
  bool changed = false;
  for (size_t i = 0; i < g->dirty_services.count; i++) {
    char project[64], name[64];
    const char *id = g->dirty_services.list[i].key, *slash = strchr(id, '/');
    if (!slash || slash - id >= 64 || strlen(slash + 1) >= 64)
      continue;
    snprintf(project, sizeof project, "%.*s", (int)(slash - id), id);
    snprintf(name, sizeof name, "%s", slash + 1);
    changed |= api_routes_update(&g->table, &g->api->cache, project, name);
  }
  api_smap_clear(&g->dirty_services, NULL);
  g->look_at_drains |= changed;
  g->tell |= changed;
}

static void look_at_drains(struct gateway *g) {
  int64_t now = loop_now(g->api->loop);
  for (size_t i = 0; i < g->draining.count; i++) {
    char project[64], service[64];
    uint64_t number;
    int64_t again;
    if (!instance_id_parse(g->draining.list[i].key, project, service, &number))
      continue;
    const Model__Instance *instance = api_cache_instance(&g->api->cache, project, service, number);
    if (!instance)
      continue;
    if (!api_routes_drained(&g->table, &g->api->cache, instance, now, &again))
      due_at(g, again);
    else if (api_round_drained(&g->round, instance) < 0)
      log_error("no memory to note a drained instance", "instance", g->draining.list[i].key);
  }
}

static bool end_of_loop_round(void *arg) {
  struct gateway *g = arg;
  if (g->dirty_services.count)
    look_at_routes(g);
  if (g->look_at_drains && !g->on_its_way) {
    g->look_at_drains = false;
    look_at_drains(g);
  }
  if (g->tell) {
    g->tell = false;
    for (struct gw_peer *p = g->peers; p; p = p->next)
      tell(p);
  }
  if (g->gathering || !api_round_is_empty(&g->round))
    end_round(g);
  return false;
}

/* ---- calls ---- */

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

static void take_figures(struct gw_peer *p, const Node__StatusReport *report) {
  struct api *api = p->g->api;
  for (size_t i = 0; i < report->n_usage; i++) {
    char project[64], service[64];
    uint64_t number;
    const char *id = PB_STR(report->usage[i]->instance);
    const Model__Instance *instance =
        instance_id_parse(id, project, service, &number) ? api_cache_instance(&api->cache, project, service, number) : NULL;
    if (instance && strcmp(PB_STR(instance->node), p->node) == 0)
      api_figures_usage(&api->figures, project, service, number, report->usage[i], api_now_ms(api));
  }
  if (report->has_cpu_ns || report->has_memory_used)
    api_figures_node(&api->figures, p->node, report->cpu_ns, report->memory_used, api_now_ms(api));
}

static void on_status(struct gw_peer *p, struct bus_call *call, const Node__StatusReport *report) {
  struct gateway *g = p->g;
  if (!p->stream && elder(p)) {
    refuse(g, call, ERR_CONFLICT, "another conversation is this node's agent: say hello first");
    return;
  }
  struct gw_batch *batch = batch_of(g);
  bool full = batch && (batch->count >= REPORTS_MAX || api_round_is_full(&g->round));
  struct gw_report *r = batch && !full ? calloc(1, sizeof *r) : NULL;
  g->reports++;
  take_figures(p, report);
  if (!r || api_round_report(&g->round, p->node, report, api_now_ms(g->api)) < 0) {
    free(r);
    refuse(g, call, full ? ERR_BUSY : ERR_MEMORY, "reports cannot be taken now");
    return;
  }
  *r = (struct gw_report){.call = call, .batch = batch, .next = batch->reports};
  if (r->next)
    r->next->prev = r;
  batch->reports = r;
  batch->count++;
  bus_answer_on(call, &report_ops, r);
}

static void on_agent_hello(struct gw_peer *p, struct bus_call *call, const Node__AgentHello *hello) {
  if (may_log(p->g, p->conn))
    log_info("agent said hello", "node", p->node, "version", hello->status ? PB_STR(hello->status->version) : NULL);
  api_desired_fini(&p->desired);
  api_desired_init(&p->desired, p->node);
  open_stream(p, call);
}

static void on_proxy_hello(struct gw_peer *p, struct bus_call *call, const Node__ProxyHello *hello) {
  if (may_log(p->g, p->conn))
    log_info("proxy said hello", "node", p->node, "version", log_u64(hello->version), "http", PB_STR(hello->http_address));
  p->sent_version = 0; /* whatever it serves from disk: it gets all there is */
  api_routes_proxy_up(&p->g->table, p->node);
  open_stream(p, call);
}

struct gw_file {
  struct bus_call *call; /* NULL once the agent is gone */
};

static void file_cancelled(void *arg) {
  ((struct gw_file *)arg)->call = NULL;
}

static const struct bus_answer_ops file_ops = {.cancelled = file_cancelled};

static void file_answer(struct gw_file *f, const Store__RangeReply *range) {
  struct err err;
  if (!range->n_kvs) {
    err_set(&err, ERR_NOT_FOUND, "no such file");
    bus_fail(f->call, &err);
    return;
  }
  const ProtobufCBinaryData *value = &range->kvs[0]->value;
  Model__File *file = (Model__File *)(void *)pb_unpack(&model__file__descriptor, value->data, value->len, &err);
  if (!file) {
    bus_fail(f->call, &err);
    return;
  }
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_FILE;
  reply.file = file;
  bus_reply(f->call, &reply.base);
  model__file__free_unpacked(file, NULL);
}

static void file_done(void *arg, const Store__Reply *reply, const struct err *err) {
  struct gw_file *f = arg;
  struct err other;
  if (f->call && reply && reply->body_case == STORE__REPLY__BODY_RANGE) {
    file_answer(f, reply->range);
  } else if (f->call) {
    err_set(&other, ERR_INTERNAL, "the store answered something else");
    bus_fail(f->call, err ? err : &other);
  }
  free(f);
}

static void on_get_file(struct gw_peer *p, struct bus_call *call, const Node__GetFile *get) {
  struct gateway *g = p->g;
  const char *sha = PB_STR(get->sha256);
  if (strlen(sha) != 64 || strspn(sha, "0123456789abcdef") != 64) {
    refuse(g, call, ERR_INVALID, "sha256: 64 hex digits");
    return;
  }
  struct gw_file *f = g->api->store ? calloc(1, sizeof *f) : NULL;
  if (!f) {
    refuse(g, call, ERR_UNAVAILABLE, "files cannot be read now");
    return;
  }
  f->call = call;
  bus_answer_on(call, &file_ops, f);
  char key[KEY_MAX];
  key_named(key, KEY_FILES, sha);
  Store__RangeRequest range = STORE__RANGE_REQUEST__INIT;
  range.has_key = 1;
  range.key = (ProtobufCBinaryData){.len = strlen(key), .data = (uint8_t *)key};
  Store__Call ask = STORE__CALL__INIT;
  ask.body_case = STORE__CALL__BODY_RANGE;
  ask.range = &range;
  storec_call(g->api->store, &ask, API_COMMIT_TIMEOUT, file_done, f);
}

static void note_fault(struct gw_peer *p, const char *fault) {
  if (!api_routes_proxy_fault(&p->g->table, p->node, fault) || !*fault)
    return;
  char kind[] = "proxy.not_listening", message[256], severity[] = "warn", actor[80];
  api_text_copy(message, sizeof message, fault);
  snprintf(actor, sizeof actor, "proxy@%s", p->node);
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, api_now_ms(p->g->api));
  event.kind = kind;
  event.node = p->node;
  event.message = message;
  event.severity = severity;
  event.actor = actor;
  if (api_round_event(&p->g->round, &event) < 0)
    log_error("no memory for an event", "kind", kind);
}

static void on_route_ack(struct gw_peer *p, struct bus_call *call, const Node__RouteAck *ack) {
  api_routes_proxy_ack(&p->g->table, p->node, ack->version, ack->draining, ack->n_draining);
  p->g->look_at_drains = true;
  note_fault(p, PB_STR(ack->fault));
  struct api_proxy *proxy = api_smap_get(&p->g->table.proxies, p->node);
  if (proxy)
    proxy->certificate_ends_ms = PB_GET(ack, certificate_ends_ms, 0);
  done(call);
}

static void on_proxy_stats(struct gw_peer *p, struct bus_call *call, const Node__ProxyStats *stats) {
  api_figures_proxy(&p->g->api->figures, p->node, stats, api_now_ms(p->g->api));
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

static void dispatch(struct gw_peer *p, struct bus_call *call, const Node__Call *said) {
  switch (said->body_case) {
  case NODE__CALL__BODY_AGENT_HELLO:
    on_agent_hello(p, call, said->agent_hello);
    return;
  case NODE__CALL__BODY_STATUS:
    on_status(p, call, said->status);
    return;
  case NODE__CALL__BODY_GET_FILE:
    on_get_file(p, call, said->get_file);
    return;
  case NODE__CALL__BODY_PROXY_HELLO:
    on_proxy_hello(p, call, said->proxy_hello);
    return;
  case NODE__CALL__BODY_ROUTE_ACK:
    on_route_ack(p, call, said->route_ack);
    return;
  case NODE__CALL__BODY_PROXY_STATS:
    on_proxy_stats(p, call, said->proxy_stats);
    return;
  case NODE__CALL__BODY_SIGN_CERTIFICATE:
    api_certificate_sign(p->g->api, p->node, call, said->sign_certificate);
    return;
  case NODE__CALL__BODY_SCHEDULER_HELLO:
    open_stream(p, call);
    return;
  case NODE__CALL__BODY_GET_SECRETS:
    secrets_answer(p->g->api, p->node, call, said->get_secrets);
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
  refuse(p->g, call, ERR_UNSUPPORTED, "this gateway does not know that call");
}

static void peer_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
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
    dispatch(p, call, said);
  }
  if (said)
    node__call__free_unpacked(said, NULL);
}

static void peer_up(void *arg, struct bus_conn *conn) {
  struct gateway *g = arg;
  struct gw_peer *p = calloc(1, sizeof *p);
  if (!p || !node_of_key(g, bus_peer_key(conn), p->node)) {
    free(p);
    bus_conn_cut(conn);
    return;
  }
  p->g = g;
  p->conn = conn;
  p->role = (enum gw_role)bus_peer_tag(conn);
  api_desired_init(&p->desired, p->node);
  p->next = g->peers;
  if (p->next)
    p->next->prev = p;
  g->peers = p;
  bus_conn_set_data(conn, p);
}

static void peer_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct gateway *g = arg;
  struct gw_peer *p = bus_conn_data(conn);
  if (!p)
    return;
  if (may_log(g, conn))
    log_info("peer is gone", "peer", bus_peer_name(conn), "why", why ? why->msg : NULL);
  if (p->prev)
    p->prev->next = p->next;
  else
    g->peers = p->next;
  if (p->next)
    p->next->prev = p->prev;
  bool again = false; /* it came back before its old conversation was given up */
  for (const struct gw_peer *q = g->peers; q; q = q->next)
    again |= q->role == p->role && strcmp(q->node, p->node) == 0;
  int64_t now = loop_now(g->api->loop);
  if (p->role == GW_AGENT && !again) {
    agent_lost(g, p->node, 0);
  } else if (p->role == GW_PROXY && !again) {
    api_routes_proxy_down(&g->table, p->node, now);
    due_at(g, now + API_PROXY_GRACE);
  }
  api_desired_fini(&p->desired);
  bus_conn_set_data(conn, NULL);
  free(p);
}

static const struct bus_conn_ops conn_ops = {.up = peer_up, .down = peer_down, .call = peer_call};

/* ---- the cache has changed ---- */

static void mark_instance(struct gateway *g, const Model__Instance *instance, const char *id) {
  for (struct gw_peer *p = g->peers; instance && p; p = p->next)
    if (p->role == GW_AGENT && strcmp(p->node, PB_STR(instance->node)) == 0)
      api_desired_mark(&p->desired, id);
}

static void mark_service(struct gateway *g, const char *project, const char *name) {
  char id[INSTANCE_ID_MAX];
  snprintf(id, sizeof id, "%s/%s", project, name);
  if (!api_smap_slot(&g->dirty_services, id))
    log_error("no memory to note a changed service", "service", id);
}

static void instance_changed(struct gateway *g, const Model__Instance *old, const Model__Instance *now) {
  const Model__Instance *any = now ? now : old;
  assert(any);
  char id[INSTANCE_ID_MAX];
  instance_id(id, PB_STR(any->project), PB_STR(any->service), any->number);
  mark_instance(g, old, id);
  mark_instance(g, now, id);
  mark_service(g, PB_STR(any->project), PB_STR(any->service));
  if (now && now->desired == MODEL__DESIRED__DESIRED_DRAIN) {
    if (!api_smap_slot(&g->draining, id))
      log_error("no memory to note a draining instance", "instance", id);
    g->look_at_drains = true;
  } else {
    api_smap_take(&g->draining, id);
  }
  if (!now) {
    api_figures_gone(&g->api->figures, PB_STR(any->project), PB_STR(any->service), any->number);
    api_routes_forget(&g->table, id);
  }
}

/* An assignment is its instance, its revision and the image that one was resolved to. */
static void revision_changed(struct gateway *g, const char *key, const char *prefix) {
  char project[64], name[64], id[INSTANCE_ID_MAX];
  unsigned long long number;
  if (sscanf(key + strlen(prefix), "%63[^/]/%63[^/]/%llu", project, name, &number) != 3)
    return;
  mark_service(g, project, name);
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(&g->api->cache, API_INSTANCES, project, name, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
    if (instance->revision != number)
      continue;
    instance_id(id, project, name, instance->number);
    mark_instance(g, instance, id);
  }
}

/* Its consumers are told of the new version; they go on as they are. Sealed anew it is the same. */
static void secret_changed(struct gateway *g, const Model__Secret *old, const Model__Secret *now) {
  const Model__Secret *any = now ? now : old;
  if (!*PB_STR(any->name) || (old && now && old->version == now->version))
    return;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&g->api->cache, API_INSTANCES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&all[i], Model__Instance);
    if (*PB_STR(any->project) && strcmp(any->project, PB_STR(instance->project)) != 0)
      continue;
    const Model__Revision *revision =
        api_cache_revision(&g->api->cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
    if (!revision || !revision->spec || !secrets_uses(revision->spec, any->name))
      continue;
    char id[INSTANCE_ID_MAX];
    instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
    mark_instance(g, instance, id);
  }
}

void gateway_changed(struct gateway *g, enum api_kind kind, const char *key, const ProtobufCMessage *old, const ProtobufCMessage *now) {
  const ProtobufCMessage *any = now ? now : old;
  switch (kind) {
  case API_INSTANCES:
    instance_changed(g, (const Model__Instance *)(const void *)old, (const Model__Instance *)(const void *)now);
    break;
  case API_INSTANCE_STATUS: {
    const Model__InstanceStatus *s = (const Model__InstanceStatus *)(const void *)any;
    mark_service(g, PB_STR(s->project), PB_STR(s->service));
    g->look_at_drains = true;
    break;
  }
  case API_SERVICES: {
    const Model__Service *s = (const Model__Service *)(const void *)any;
    mark_service(g, PB_STR(s->project), PB_STR(s->name));
    break;
  }
  case API_ROLLOUTS: {
    const Model__Rollout *r = (const Model__Rollout *)(const void *)any;
    mark_service(g, PB_STR(r->project), PB_STR(r->service));
    break;
  }
  case API_REVISIONS:
  case API_REVISION_STATUS:
    revision_changed(g, key, api_kind_prefix(kind));
    break;
  case API_CLUSTER:
    api_routes_settings_changed(&g->table);
    due_at(g, loop_now(g->api->loop)); /* node_ttl may be another */
    for (struct gw_peer *p = g->peers; p; p = p->next)
      p->desired.cluster = p->role == GW_AGENT;
    break;
  case API_NODES:
    if (g->listener)
      bus_listener_recheck(g->listener);
    break;
  case API_SECRETS:
    secret_changed(g, (const Model__Secret *)(const void *)old, (const Model__Secret *)(const void *)now);
    break;
  case API_NODE_STATUS:
  case API_TOKENS:
  case API_AUDIT:
  case API_LEADER:
  case API_HISTORY_APISERVER:
  case API_HISTORY_SCHEDULER:
  case API_FILES:
  case API_JOBS: /* their instances are what agents hear of */
  case API_JOB_STATE:
  case API_JOB_RUNS:
  case API_KIND_COUNT:
    return;
  }
  g->tell = true;
}

/* ---- open and close ---- */

/* What the cache holds already, as if it had just come. */
static void look_at_all(struct gateway *g) {
  const struct api_cache *cache = &g->api->cache;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  for (size_t i = 0; i < count; i++)
    mark_service(g, PB_STR(API_MSG(&all[i], Model__Service)->project), PB_STR(API_MSG(&all[i], Model__Service)->name));
  all = api_cache_all(cache, API_INSTANCES, &count);
  for (size_t i = 0; i < count; i++)
    instance_changed(g, NULL, API_MSG(&all[i], Model__Instance));
  all = api_cache_all(cache, API_NODE_STATUS, &count);
  for (size_t i = 0; i < count; i++)
    if (API_MSG(&all[i], Model__NodeStatus)->state == MODEL__NODE_STATE__NODE_READY)
      agent_lost(g, PB_STR(API_MSG(&all[i], Model__NodeStatus)->name), START_GRACE); /* unless it comes until then */
  look_at_routes(g);
}

struct gateway *gateway_open(struct api *api, const char *endpoint, struct err *err) {
  struct gateway *g = calloc(1, sizeof *g);
  if (!g) {
    err_set(err, ERR_MEMORY, "no memory for the gateway");
    return NULL;
  }
  g->api = api;
  api_round_init(&g->round, &api->cache);
  /* Versions begin at the wall clock, so that they grow over restarts of this process. */
  api_routes_init(&g->table, (uint64_t)api_now_ms(api), loop_now(api->loop));
  g->timer = (struct loop_timer){.cb = on_timer, .arg = g};
  g->hook = (struct loop_hook){.cb = end_of_loop_round, .arg = g};
  look_at_all(g);
  due_at(g, loop_now(api->loop) + API_PROXY_GRACE);
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
  batch_end(g->gathering, &err);
  batch_end(g->on_its_way, &err);
  api_round_fini(&g->round);
  api_routes_fini(&g->table);
  api_smap_clear(&g->dirty_services, NULL);
  api_smap_clear(&g->draining, NULL);
  api_smap_clear(&g->lost, free);
  api_smap_clear(&g->lines, free);
  free(g);
}

static void wish_done(void *arg, const uint8_t *body, size_t len) {
  (void)arg;
  (void)body;
  (void)len;
}

static void wish_failed(void *arg, const struct err *why) { /* an older daemon: its figures come as they always do */
  (void)arg;
  (void)why;
}

void gateway_watch_figures(struct gateway *g) {
  static const struct bus_call_ops ops = {.done = wish_done, .failed = wish_failed};
  int64_t now = loop_now(g->api->loop);
  if (now < g->watched_until - GATEWAY_WATCH_FOR / 2)
    return;
  g->watched_until = now + GATEWAY_WATCH_FOR;
  Node__WatchFigures watch = NODE__WATCH_FIGURES__INIT;
  PB_SET(&watch, interval_ms, GATEWAY_WATCH_EVERY / NS_PER_MS);
  PB_SET(&watch, for_ms, GATEWAY_WATCH_FOR / NS_PER_MS);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_WATCH_FIGURES;
  call.watch_figures = &watch;
  for (const struct gw_peer *p = g->peers; p; p = p->next)
    if (p->stream && (p->role == GW_AGENT || p->role == GW_PROXY))
      bus_call(p->conn, &call.base, 5 * NS_PER_SEC, &ops, NULL);
}

const struct api_route_table *gateway_routes(const struct gateway *g) {
  return &g->table;
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
  *ret = (struct gateway_counters){.reports = g->reports, .rounds = g->rounds, .refused = g->refused, .table_version = g->table.version};
  for (const struct gw_peer *p = g->peers; p; p = p->next) {
    ret->agents += p->role == GW_AGENT;
    ret->proxies += p->role == GW_PROXY;
  }
  ret->routes = g->table.routes.count - g->table.removed_count;
}
