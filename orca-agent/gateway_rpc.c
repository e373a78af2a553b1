#include "common/daemon/masters.h"
#include "orca-agent/gateway_rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/exec_session.h"
#include "orca-agent/diagnose.h"
#include "orca-agent/keeper_rpc.h"
#include "orca-agent/log_stream.h"
#include "orca-agent/usage.h"

#define REPORT_TIMEOUT (10 * NS_PER_SEC)
#define FILE_TIMEOUT (30 * NS_PER_SEC)
#define RETRY (500 * NS_PER_MS)
#define SETTLE (5 * NS_PER_SEC) /* a first report waits this long for Docker to say what runs */

struct gateway {
  struct agent *a;
  struct bus_conn *conn;
  struct bus_call *hello, *reporting;
  struct loop_timer retry;  /* of hello and of reports */
  struct loop_timer settle; /* only wakes the loop, whose rounds end in agent_settle() */
  uint32_t next_part;       /* of a full desired state */
  int64_t up_since;
  bool said_hello_failed;
};

struct file_call {
  gateway_file_fn *done;
  void *arg;
};

/* ---- desired state ---- */

/* What is missing in the middle of a full state would be taken for not wanted. */
static bool is_in_order(struct gateway *g, const Node__DesiredState *d) {
  uint32_t part = PB_GET(d, part, 0);
  if (!PB_GET(d, full, false))
    return true;
  if (part && part != g->next_part)
    return false;
  g->next_part = PB_GET(d, more, false) ? part + 1 : 0;
  return true;
}

static void on_desired(struct gateway *g, Node__DesiredState *d) {
  struct agent_event ev = {.kind = AGENT_EV_DESIRED, .desired = d};
  if (!is_in_order(g, d)) {
    log_warn("refused from the master", "error", "a part of a desired state is missing");
    bus_conn_cut(g->conn);
    return;
  }
  log_debug("desired state", "full", PB_GET(d, full, 0) ? "yes" : "no", "assigned", log_u64(d->n_assigned));
  agent_event(g->a, &ev);
  if (d->cluster) {
    log_follow_level(PB_STR(d->cluster->log_level));
    keeper_flush(g->a->keeper); /* passes it on */
  }
}

static void on_item(void *arg, const uint8_t *body, size_t len) {
  struct gateway *g = arg;
  struct err err;
  Node__Item *item = (Node__Item *)pb_unpack(&node__item__descriptor, body, len, &err);
  if (!item) {
    log_warn("refused from the master", "error", err.msg);
    bus_conn_cut(g->conn);
    return;
  }
  switch (item->body_case) {
  case NODE__ITEM__BODY_DESIRED:
    on_desired(g, item->desired);
    break;
  case NODE__ITEM__BODY_ROUTES:
  case NODE__ITEM__BODY_LOG:
  case NODE__ITEM__BODY_EXEC:
  case NODE__ITEM__BODY__NOT_SET:
  case _NODE__ITEM__BODY__CASE_IS_INT_SIZE:
    log_warn("refused from the master", "error", "an item that is not for agents");
    break;
  }
  node__item__free_unpacked(item, NULL);
}

static void retry_later(struct gateway *g) {
  if (loop_timer_in(g->a->loop, &g->retry, RETRY, NULL) < 0)
    log_error("no memory for a timer");
}

static void hello_ended(struct gateway *g, const char *why) {
  g->hello = NULL;
  if (!bus_conn_is_up(g->conn))
    return;
  if (!g->said_hello_failed)
    log_warn("the master ended the conversation", "error", why);
  g->said_hello_failed = true;
  retry_later(g);
}

static void on_hello_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  hello_ended(arg, "closed");
}

static void on_hello_failed(void *arg, const struct err *why) {
  hello_ended(arg, why->msg);
}

static void say_hello(struct gateway *g) {
  static const struct bus_call_ops ops = {.done = on_hello_done, .failed = on_hello_failed, .item = on_item};
  Node__AgentHello hello = NODE__AGENT_HELLO__INIT;
  hello.status = &g->a->node;
  Node__Call call = NODE__CALL__INIT;
  g->next_part = 0;
  call.body_case = NODE__CALL__BODY_AGENT_HELLO;
  call.agent_hello = &hello;
  g->hello = bus_call(g->conn, &call.base, 0, &ops, g);
  if (!g->hello)
    retry_later(g);
}

/* ---- reports ---- */

static void on_report_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct gateway *g = arg;
  g->reporting = NULL;
  report_acked(&g->a->report);
  agent_settle(g->a);
}

static void on_report_failed(void *arg, const struct err *why) {
  struct gateway *g = arg;
  g->reporting = NULL;
  report_failed(&g->a->report);
  /* What was flagged as sent is not: say it whole. */
  g->a->report.full = true;
  if (!bus_conn_is_up(g->conn))
    return;
  log_warn("a report was refused", "error", why->msg);
  retry_later(g);
}

void gateway_flush(struct gateway *g) {
  static const struct bus_call_ops ops = {.done = on_report_done, .failed = on_report_failed};
  struct agent *a = g->a;
  if (g->reporting || !g->hello || !bus_conn_is_up(g->conn) || loop_timer_is_set(&g->retry) ||
      (!report_pending(&a->report, &a->core) && !usage_pending(a->usage)))
    return;
  /* Before Docker has said what runs here, a report would call running things waiting; before a master has said what is wanted and what was
   * reported of it, it would set restart counts back. */
  if (a->report.full && !(a->core.have_desired && agent_core_settled(&a->core)) && loop_now(a->loop) - g->up_since < SETTLE)
    return;
  Node__StatusReport *m = report_build(&a->report, &a->core, &a->node);
  if (!m) {
    retry_later(g);
    return;
  }
  usage_add(a->usage, m);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_STATUS;
  call.status = m;
  g->reporting = bus_call(g->conn, &call.base, REPORT_TIMEOUT, &ops, g);
  node__status_report__free_unpacked(m, NULL);
  if (!g->reporting) {
    report_failed(&a->report);
    retry_later(g);
    return;
  }
  a->report.full = a->report.node_dirty = false;
}

static void on_settle(void *arg) {
  agent_settle(((struct gateway *)arg)->a);
}

static void on_retry(void *arg) {
  struct gateway *g = arg;
  if (!bus_conn_is_up(g->conn))
    return;
  if (!g->hello)
    say_hello(g);
  agent_settle(g->a);
}

/* ---- files ---- */

static void on_file_done(void *arg, const uint8_t *body, size_t len) {
  struct file_call *f = arg;
  struct err err;
  Node__Reply *reply = (Node__Reply *)pb_unpack(&node__reply__descriptor, body, len, &err);
  if (reply && reply->body_case == NODE__REPLY__BODY_FILE && reply->file->has_content) {
    static const uint8_t empty[1];
    f->done(f->arg, reply->file->content.len ? reply->file->content.data : empty, reply->file->content.len, NULL);
  } else {
    if (reply)
      err_set(&err, ERR_INVALID, "the master's answer holds no file");
    f->done(f->arg, NULL, 0, &err);
  }
  if (reply)
    node__reply__free_unpacked(reply, NULL);
  free(f);
}

static void on_file_failed(void *arg, const struct err *why) {
  struct file_call *f = arg;
  f->done(f->arg, NULL, 0, why);
  free(f);
}

int gateway_get_file(struct gateway *g, const char *sha256, gateway_file_fn *done, void *arg, struct err *err) {
  static const struct bus_call_ops ops = {.done = on_file_done, .failed = on_file_failed};
  struct file_call *f = malloc(sizeof *f);
  char *name = strdup(sha256);
  if (!f || !name) {
    free(f);
    free(name);
    return err_set(err, ERR_MEMORY, "no memory");
  }
  *f = (struct file_call){done, arg};
  Node__GetFile get = NODE__GET_FILE__INIT;
  get.sha256 = name;
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_GET_FILE;
  call.get_file = &get;
  struct bus_call *sent = bus_call(g->conn, &call.base, FILE_TIMEOUT, &ops, f);
  free(name);
  if (sent)
    return 0;
  free(f);
  return err_set(err, ERR_MEMORY, "no memory");
}

/* ---- secrets ---- */

struct secrets_call {
  gateway_secrets_fn *done;
  void *arg;
};

static void on_secrets_done(void *arg, const uint8_t *body, size_t len) {
  struct secrets_call *s = arg;
  struct err err;
  Node__Secrets *values = NULL;
  Node__Reply *reply = (Node__Reply *)pb_unpack(&node__reply__descriptor, body, len, &err);
  if (reply && reply->body_case == NODE__REPLY__BODY_SECRETS) {
    values = reply->secrets;
    reply->body_case = NODE__REPLY__BODY__NOT_SET; /* taken out of it */
    reply->secrets = NULL;
  } else if (reply) {
    err_set(&err, ERR_INVALID, "the master's answer holds no secrets");
  }
  s->done(s->arg, values, values ? NULL : &err);
  if (reply)
    node__reply__free_unpacked(reply, NULL);
  free(s);
}

static void on_secrets_failed(void *arg, const struct err *why) {
  struct secrets_call *s = arg;
  s->done(s->arg, NULL, why);
  free(s);
}

int gateway_get_secrets(struct gateway *g, const char *instance, uint64_t revision, gateway_secrets_fn *done, void *arg, struct err *err) {
  static const struct bus_call_ops ops = {.done = on_secrets_done, .failed = on_secrets_failed};
  struct secrets_call *s = malloc(sizeof *s);
  char id[INSTANCE_ID_MAX];
  if (!s)
    return err_set(err, ERR_MEMORY, "no memory");
  *s = (struct secrets_call){done, arg};
  snprintf(id, sizeof id, "%s", instance);
  Node__GetSecrets get = NODE__GET_SECRETS__INIT;
  get.instance = id;
  PB_SET(&get, revision, revision);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_GET_SECRETS;
  call.get_secrets = &get;
  if (bus_call(g->conn, &call.base, FILE_TIMEOUT, &ops, s))
    return 0;
  free(s);
  return err_set(err, ERR_MEMORY, "no memory");
}

/* ---- the connection ---- */

static void on_up(void *arg, struct bus_conn *conn) {
  struct gateway *g = arg;
  log_info("connected to a master", "peer", bus_peer_name(conn));
  g->up_since = loop_now(g->a->loop);
  g->said_hello_failed = false;
  loop_timer_cancel(g->a->loop, &g->retry);
  if (loop_timer_in(g->a->loop, &g->settle, SETTLE, NULL) < 0)
    log_error("no memory for a timer");
  report_restart(&g->a->report);
  if (!g->hello)
    say_hello(g);
  agent_settle(g->a);
}

static void on_down(void *arg, struct bus_conn *conn, const struct err *why) {
  (void)conn;
  (void)arg;
  log_warn("no master", "error", why->msg);
}

/* ---- what a master asks ---- */

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct gateway *g = arg;
  struct err err;
  Node__Call *said = (Node__Call *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!said) {
    bus_conn_refused(conn, err.msg);
    bus_fail(call, &err);
    return;
  }
  switch (said->body_case) {
  case NODE__CALL__BODY_START_EXEC:
    exec_sessions_start(g->a->execs, call, said->start_exec);
    break;
  case NODE__CALL__BODY_EXEC_INPUT:
    exec_sessions_input(g->a->execs, call, said->exec_input);
    break;
  case NODE__CALL__BODY_READ_LOGS:
    log_streams_read(g->a->logs, call, said->read_logs);
    break;
  case NODE__CALL__BODY_WATCH_FIGURES: {
    usage_watch(g->a->usage, PB_GET(said->watch_figures, interval_ms, 0), PB_GET(said->watch_figures, for_ms, 0));
    Node__Done done = NODE__DONE__INIT;
    Node__Reply reply = NODE__REPLY__INIT;
    reply.body_case = NODE__REPLY__BODY_DONE;
    reply.done = &done;
    bus_reply(call, &reply.base);
    break;
  }
  case NODE__CALL__BODY_DIAGNOSE:
    diagnose(g->a, call);
    break;
  case NODE__CALL__BODY_AGENT_HELLO: /* what daemons say to the gateway */
  case NODE__CALL__BODY_STATUS:
  case NODE__CALL__BODY_GET_FILE:
  case NODE__CALL__BODY_PROXY_HELLO:
  case NODE__CALL__BODY_ROUTE_ACK:
  case NODE__CALL__BODY_PROXY_STATS:
  case NODE__CALL__BODY_GET_SECRETS:
  case NODE__CALL__BODY_SIGN_CERTIFICATE:
  case NODE__CALL__BODY_SCHEDULER_HELLO:
  case NODE__CALL__BODY_PLAN:
  case NODE__CALL__BODY__NOT_SET:
  case _NODE__CALL__BODY__CASE_IS_INT_SIZE:
    err_set(&err, ERR_UNSUPPORTED, "not a call for an agent");
    bus_fail(call, &err);
    break;
  }
  node__call__free_unpacked(said, NULL);
}

struct gateway *gateway_open(struct agent *a, struct err *err) {
  static const struct bus_conn_ops ops = {.up = on_up, .down = on_down, .call = on_call};
  const struct node_config *config = &a->daemon->config;
  struct gateway *g = calloc(1, sizeof *g);
  if (!g) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  g->a = a;
  g->retry = (struct loop_timer){.cb = on_retry, .arg = g};
  g->settle = (struct loop_timer){.cb = on_settle, .arg = g};
  struct masters masters;
  if (masters_gateways(config, &masters, err) == 0) {
    g->conn = bus_connect(a->bus, masters.list, masters.count, &ops, g, err);
    masters_free(&masters);
  }
  if (!g->conn) {
    free(g);
    return NULL;
  }
  return g;
}

void gateway_close(struct gateway *g) {
  if (!g)
    return;
  loop_timer_cancel(g->a->loop, &g->settle);
  bus_conn_free(g->conn);
  loop_timer_cancel(g->a->loop, &g->retry);
  free(g);
}
