/* GET /doctor: what each node's agent finds of its machine, and what this process finds of itself, the store and those who should be here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/doctor/probe.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/doctor_listen.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/routes_derive.h"
#include "orca-apiserver/status_view.h"

#define AGENT_TIMEOUT (8 * NS_PER_SEC)
#define STORE_TIMEOUT (2 * NS_PER_SEC)

struct examined { /* one node */
  struct examination *all;
  char name[64];
  int64_t asked_at;         /* loop time */
  Node__Diagnosis *found;   /* owned */
  char error[256];          /* when there is none */
  int64_t ahead_ms, rtt_ms; /* its clock; when found->has_now_ms */
};

struct examination {
  struct api_request *request; /* counted */
  struct doctor_report own;
  struct examined *nodes;
  size_t count, waiting;
};

/* ---- this master ---- */

static void look_at_self(struct api *api, struct doctor_report *r) {
  static const char *const keys[] = {"apiserver.key", "apiserver/master.key", "apiserver/ca.key"};
  char path[4200];
  int64_t now_s = api_now_ms(api) / 1000;
  doctor_look_at_files(r, "the apiserver");
  doctor_look_at_keys(r, api->config->key_dir, keys, sizeof keys / sizeof *keys);
  snprintf(path, sizeof path, "%.4000s/ca.pem", api->config->key_dir);
  doctor_look_at_pem(r, "the cluster's CA", path, now_s);
}

static void look_at_proxy(struct api *api, const struct api_route_table *table, const char *node, struct doctor_report *r) {
  const struct api_proxy *p = api_smap_get(&table->proxies, node);
  char what[120];
  if (!p || !p->connected)
    doctor_add(r, DOCTOR_WRONG, "proxy", "`systemctl status orca-proxy` there", "the proxy of %s is not connected", node);
  else if (*p->fault)
    doctor_add(r, DOCTOR_WRONG, "proxy", "free what it needs, or change [proxy] of cluster.toml", "the proxy of %s can't %.200s", node, p->fault);
  else if (p->acked < table->version)
    doctor_add(r, DOCTOR_WARNING, "proxy", "wait a moment, then look at its log", "the proxy of %s has not taken the newest routes", node);
  if (!p || !p->certificate_ends_ms)
    return;
  snprintf(what, sizeof what, "the API's certificate on %s", node);
  doctor_check_certificate(r, what, p->certificate_ends_ms / 1000, api_now_ms(api) / 1000, "");
}

static void look_at_daemons(struct api *api, struct doctor_report *r) {
  const struct api_object *leader = api_cache_object(&api->cache, API_LEADER, KEY_SCHEDULER_LEADER);
  if (!leader)
    doctor_add(r, DOCTOR_WRONG, "scheduler", "`systemctl status orca-scheduler` on the masters", "no scheduler leads: nothing new is placed");
  else if (!api->gateway || !gateway_scheduler(api->gateway))
    doctor_add(r, DOCTOR_WARNING, "scheduler", "look at its log; `orcactl plan` is without steps until it comes",
               "the scheduler leads, but is not connected to this apiserver");
  else
    doctor_add(r, DOCTOR_WELL, "scheduler", "", "a scheduler leads and is connected");
  size_t count;
  const struct api_smap_entry *nodes = api_cache_all(&api->cache, API_NODES, &count);
  const struct api_route_table *table = api->gateway ? gateway_routes(api->gateway) : NULL;
  for (size_t i = 0; table && i < count; i++)
    look_at_proxy(api, table, PB_STR(API_MSG(&nodes[i], Model__Node)->name), r);
}

/* ---- the answer ---- */

static void finding_json(struct api_json *json, const char *check, unsigned level, const char *text, const char *advice) {
  static const char *const words[] = {"well", "warning", "wrong"};
  api_json_object(json, NULL);
  api_json_str(json, "check", check);
  api_json_str(json, "level", words[level < 3 ? level : 2]);
  api_json_str(json, "text", text);
  api_json_str(json, "advice", advice);
  api_json_object_end(json);
}

static void report_json(const struct doctor_report *r, unsigned counts[3], struct api_json *json) {
  for (size_t i = 0; i < r->count; i++) {
    finding_json(json, r->list[i].check, r->list[i].level, r->list[i].text, r->list[i].advice);
    counts[r->list[i].level]++;
  }
}

static void node_json(struct examined *n, unsigned counts[3], struct api_json *json) {
  struct doctor_report skew = {0};
  api_json_object(json, NULL);
  api_json_str(json, "node", n->name);
  api_json_array(json, "findings");
  if (!n->found)
    doctor_add(&skew, DOCTOR_WRONG, "agent", "`systemctl status orca-agent` there, and the way to it", "the agent of %s does not tell: %.200s",
               n->name, n->error);
  else if (n->found->has_now_ms)
    doctor_check_skew(&skew, n->name, n->ahead_ms, n->rtt_ms);
  report_json(&skew, counts, json);
  for (size_t i = 0; n->found && i < n->found->n_findings && i < DOCTOR_MAX; i++) {
    const Node__Finding *f = n->found->findings[i];
    unsigned level = PB_GET(f, level, 0) < 3 ? PB_GET(f, level, 0) : 2;
    finding_json(json, PB_STR(f->check), level, PB_STR(f->text), PB_STR(f->advice));
    counts[level]++;
  }
  api_json_array_end(json);
  api_json_object_end(json);
  doctor_free(&skew);
}

/* Of this machine, unless its agent has told of it. */
static void look_at_clock(struct examination *e) {
  struct doctor_clock clock;
  for (size_t i = 0; i < e->count; i++) {
    const Node__Diagnosis *found = e->nodes[i].found;
    for (size_t n = 0; found && strcmp(e->nodes[i].name, e->request->api->config->name) == 0 && n < found->n_findings; n++)
      if (strcmp(PB_STR(found->findings[n]->check), "clock") == 0)
        return;
  }
  doctor_read_clock(&clock);
  doctor_check_clock(&e->own, &clock);
}

static void finish(struct examination *e) {
  unsigned counts[3] = {0};
  struct api_request *r = e->request;
  look_at_clock(e);
  look_at_daemons(r->api, &e->own);
  struct api_json json = api_reply_json(r, 200);
  api_json_str(&json, "master", r->api->config->name);
  api_json_array(&json, "findings");
  report_json(&e->own, counts, &json);
  api_json_array_end(&json);
  api_json_array(&json, "nodes");
  for (size_t i = 0; i < e->count; i++)
    node_json(&e->nodes[i], counts, &json);
  api_json_array_end(&json);
  api_json_u64(&json, "well", counts[DOCTOR_WELL]);
  api_json_u64(&json, "warnings", counts[DOCTOR_WARNING]);
  api_json_u64(&json, "wrong", counts[DOCTOR_WRONG]);
  api_reply_end(r);
  for (size_t i = 0; i < e->count; i++)
    if (e->nodes[i].found)
      node__diagnosis__free_unpacked(e->nodes[i].found, NULL);
  doctor_free(&e->own);
  free(e->nodes);
  free(e);
  api_request_unref(r);
}

static void one_less(struct examination *e) {
  if (--e->waiting == 0)
    finish(e);
}

/* ---- asking ---- */

static void agent_done(void *arg, const uint8_t *body, size_t len) {
  struct examined *n = arg;
  struct api *api = n->all->request->api;
  struct err err;
  Node__Reply *reply = (Node__Reply *)(void *)pb_unpack(&node__reply__descriptor, body, len, &err);
  if (reply && reply->body_case == NODE__REPLY__BODY_DIAGNOSIS) {
    n->found = reply->diagnosis; /* taken out of the reply */
    reply->diagnosis = NULL;
    reply->body_case = NODE__REPLY__BODY__NOT_SET;
    n->rtt_ms = (loop_now(api->loop) - n->asked_at) / NS_PER_MS;
    n->ahead_ms = PB_GET(n->found, now_ms, 0) - api_now_ms(api);
  } else {
    snprintf(n->error, sizeof n->error, "%.250s", reply ? "it answers something else" : err.msg);
  }
  if (reply)
    node__reply__free_unpacked(reply, NULL);
  one_less(n->all);
}

static void agent_failed(void *arg, const struct err *why) {
  struct examined *n = arg;
  snprintf(n->error, sizeof n->error, "%.250s", why->msg);
  one_less(n->all);
}

static void ask_agent(struct examination *e, struct examined *n) {
  static const struct bus_call_ops ops = {.done = agent_done, .failed = agent_failed};
  struct api *api = e->request->api;
  struct bus_conn *agent = api->gateway ? gateway_agent(api->gateway, n->name) : NULL;
  Node__Diagnose ask = NODE__DIAGNOSE__INIT;
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_DIAGNOSE;
  call.diagnose = &ask;
  n->all = e;
  n->asked_at = loop_now(api->loop);
  if (agent && bus_call(agent, &call.base, AGENT_TIMEOUT, &ops, n)) {
    e->waiting++;
    return;
  }
  snprintf(n->error, sizeof n->error, "%s", agent ? "no memory to ask it" : "it is not connected");
}

static void store_done(void *arg, const Store__Reply *reply, const struct err *err) {
  struct examination *e = arg;
  const Store__StatusReply *s = reply && reply->body_case == STORE__REPLY__BODY_STATUS ? reply->status : NULL;
  struct doctor_store store = {.error = err ? err->msg : "it answers something else"};
  if (s)
    store = (struct doctor_store){.reachable = true,
                                  .fault = PB_STR(s->fault),
                                  .db_size = s->db_size,
                                  .db_used = s->db_used,
                                  .log_size = s->log_size,
                                  .keys = s->keys,
                                  .revision = s->revision,
                                  .compact_revision = s->compact_revision};
  doctor_check_store(&e->own, &store);
  one_less(e);
}

static void ask_store(struct examination *e) {
  struct api *api = e->request->api;
  if (!api->store || !api->in_touch) {
    const struct doctor_store store = {.error = api->why_not};
    doctor_check_store(&e->own, &store);
    return;
  }
  Store__StatusRequest status = STORE__STATUS_REQUEST__INIT;
  Store__Call call = STORE__CALL__INIT;
  call.body_case = STORE__CALL__BODY_STATUS;
  call.status = &status;
  e->waiting++;
  storec_call(api->store, &call, STORE_TIMEOUT, store_done, e);
}

void api_get_doctor(struct api_request *r) {
  size_t count;
  if (api_auth_is_limited(&r->api->cache, &r->who)) { /* what it says of ports names services of all projects */
    api_fail_with(r, ERR_DENIED, "the doctor looks at the whole cluster: that takes an admin's token for all projects");
    return;
  }
  const struct api_smap_entry *nodes = api_cache_all(&r->api->cache, API_NODES, &count);
  struct examination *e = calloc(1, sizeof *e);
  struct examined *list = calloc(count + 1, sizeof *list);
  if (!e || !list) {
    free(e);
    free(list);
    api_fail_with(r, ERR_MEMORY, "no memory to look");
    return;
  }
  *e = (struct examination){.request = api_request_ref(r), .nodes = list, .count = count, .waiting = 1};
  for (size_t i = 0; i < count; i++)
    api_text_copy(list[i].name, sizeof list[i].name, PB_STR(API_MSG(&nodes[i], Model__Node)->name));
  look_at_self(r->api, &e->own);
  doctor_listen_check(&e->own, &r->api->cache, doctor_listen_is_here);
  for (size_t i = 0; i < count; i++)
    ask_agent(e, &list[i]);
  ask_store(e);
  one_less(e); /* its own */
}
