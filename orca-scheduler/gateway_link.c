#include "common/daemon/masters.h"
#include "orca-scheduler/gateway_link.h"

#include <stdlib.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-scheduler/plan.h"

#define MASTERS_MAX 16u
#define PLANS_MAX 4u
#define SLICE 200u /* rounds of the core, some tens of µs each */
#define RETRY NS_PER_SEC

struct master {
  struct gateway_link *link;
  struct bus_conn *conn;
  struct bus_call *hello;
  struct loop_timer retry;
};

struct planning {
  struct gateway_link *link;
  struct bus_call *call;
  struct sched_plan *plan;
  struct planning *next;
};

struct gateway_link {
  struct loop *loop;
  const struct sched_store *store;
  struct master masters[MASTERS_MAX];
  size_t count;
  struct planning *plans;
  struct loop_hook hook;
};

/* ---- plans ---- */

static void planning_free(struct planning *p) {
  struct planning **at = &p->link->plans;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  sched_plan_free(p->plan);
  free(p);
}

static void plan_cancelled(void *arg) {
  planning_free(arg);
}

static void plan_answer(struct planning *p) {
  Node__Planned planned = *sched_plan_result(p->plan); /* the list is the plan's */
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_PLAN;
  reply.plan = &planned;
  if (protobuf_c_message_get_packed_size(&reply.base) <= BUS_MAX_MESSAGE) {
    bus_reply(p->call, &reply.base);
    return;
  }
  struct err err;
  err_set(&err, ERR_TOO_LARGE, "the plan's steps do not fit into one message");
  bus_fail(p->call, &err);
}

/* Once a round, the oldest a slice further: what the store tells and what is decided comes in between. */
static bool on_round(void *arg) {
  struct gateway_link *link = arg;
  struct planning *p = link->plans;
  if (!p)
    return false;
  struct err err;
  int rc = sched_plan_advance(p->plan, SLICE, &err);
  if (rc > 0)
    return true;
  if (rc == 0)
    plan_answer(p);
  else
    bus_fail(p->call, &err);
  planning_free(p);
  return link->plans != NULL;
}

static void on_plan(struct gateway_link *link, struct bus_call *call, const Node__Plan *ask) {
  static const struct bus_answer_ops ops = {.cancelled = plan_cancelled};
  struct err err;
  size_t under_way = 0;
  struct planning **end = &link->plans;
  for (; *end; end = &(*end)->next)
    under_way++;
  const struct sched_core *core = sched_store_core(link->store);
  struct planning *p = NULL;
  if (!core)
    err_set(&err, ERR_UNAVAILABLE, "this scheduler is not in touch with the store");
  else if (under_way >= PLANS_MAX)
    err_set(&err, ERR_BUSY, "%u plans are being made already", PLANS_MAX);
  else if (!(p = calloc(1, sizeof *p)))
    err_set(&err, ERR_MEMORY, "no memory for a plan");
  else
    p->plan = sched_plan_new(core, ask, sched_store_now_ms(link->store), &err);
  if (!p || !p->plan) {
    free(p);
    bus_fail(call, &err);
    return;
  }
  p->link = link;
  p->call = call;
  *end = p;
  bus_answer_on(call, &ops, p);
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct master *m = arg;
  struct err err;
  Node__Call *said = (Node__Call *)(void *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!said) {
    bus_conn_refused(conn, err.msg);
    bus_fail(call, &err);
    return;
  }
  if (said->body_case == NODE__CALL__BODY_PLAN) {
    on_plan(m->link, call, said->plan);
  } else {
    err_set(&err, ERR_UNSUPPORTED, "not a call for a scheduler");
    bus_fail(call, &err);
  }
  node__call__free_unpacked(said, NULL);
}

/* ---- the conversations ---- */

static void retry_later(struct master *m) {
  m->hello = NULL;
  if (bus_conn_is_up(m->conn) && loop_timer_in(m->link->loop, &m->retry, RETRY, NULL) < 0)
    log_error("no memory for a timer");
}

static void hello_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  retry_later(arg);
}

static void hello_failed(void *arg, const struct err *why) {
  struct master *m = arg;
  if (bus_conn_is_up(m->conn))
    log_warn("the gateway ended the conversation", "peer", bus_peer_name(m->conn), "error", why->msg);
  retry_later(m);
}

static void say_hello(struct master *m) {
  static const struct bus_call_ops ops = {.done = hello_done, .failed = hello_failed};
  Node__SchedulerHello hello = NODE__SCHEDULER_HELLO__INIT;
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_SCHEDULER_HELLO;
  call.scheduler_hello = &hello;
  m->hello = bus_call(m->conn, &call.base, 0, &ops, m);
  if (!m->hello)
    retry_later(m);
}

static void on_up(void *arg, struct bus_conn *conn) {
  struct master *m = arg;
  log_debug("connected to a gateway", "peer", bus_peer_name(conn));
  loop_timer_cancel(m->link->loop, &m->retry);
  if (!m->hello)
    say_hello(m);
}

static void on_retry(void *arg) {
  struct master *m = arg;
  if (bus_conn_is_up(m->conn) && !m->hello)
    say_hello(m);
}

struct gateway_link *gateway_link_open(struct loop *loop, struct bus *bus, const struct node_config *config, const struct sched_store *store,
                                       struct err *err) {
  static const struct bus_conn_ops ops = {.up = on_up, .call = on_call};
  struct gateway_link *link = calloc(1, sizeof *link);
  if (!link) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  link->loop = loop;
  link->store = store;
  link->hook = (struct loop_hook){.cb = on_round, .arg = link};
  loop_hook_add(loop, &link->hook);
  struct masters masters;
  int rc = masters_gateways(config, &masters, err);
  for (size_t i = 0; rc == 0 && i < masters.count && i < MASTERS_MAX; i++) {
    struct master *m = &link->masters[i];
    m->link = link;
    m->retry = (struct loop_timer){.cb = on_retry, .arg = m};
    if ((m->conn = bus_connect(bus, &masters.list[i], 1, &ops, m, err)))
      link->count++;
    else
      rc = -1;
  }
  if (rc == 0) {
    masters_free(&masters);
    return link;
  }
  masters_free(&masters);
  gateway_link_close(link);
  return NULL;
}

void gateway_link_close(struct gateway_link *link) {
  if (!link)
    return;
  loop_hook_remove(link->loop, &link->hook);
  for (size_t i = 0; i < link->count; i++) {
    bus_conn_free(link->masters[i].conn); /* cancels the plans it asked for */
    loop_timer_cancel(link->loop, &link->masters[i].retry);
  }
  while (link->plans)
    planning_free(link->plans);
  free(link);
}
