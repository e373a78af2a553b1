#include "orca-keeper/keeper_link.h"

#include <stdlib.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-keeper/keeper.h"
#include "proto/keeper.pb-c.h"

#define VERDICTS_PER_CALL 256u
#define CALL_TIMEOUT_NS (5 * NS_PER_SEC)
#define AGAIN_NS (500 * NS_PER_MS)

struct keeper_link {
  struct loop *loop;
  struct keeper *keeper;
  struct bus_conn *conn;
  struct bus_call *hello, *telling;
  struct loop_hook hook;
  struct loop_timer again;
  bool news;
};

static void try_again(struct keeper_link *r) {
  struct err err;
  if (loop_timer_in(r->loop, &r->again, AGAIN_NS, &err) < 0)
    log_error("timer", "error", err.msg);
}

/* ---- targets in ---- */

static void take_targets(struct keeper_link *r, const Keeper__Targets *targets) {
  struct err err;
  bool full = PB_GET(targets, full, 0);
  if (*PB_STR(targets->log_level))
    log_follow_level(targets->log_level);
  if (full)
    keeper_full_begin(r->keeper);
  for (size_t i = 0; i < targets->n_removed; i++)
    keeper_remove_target(r->keeper, targets->removed[i]);
  for (size_t i = 0; i < targets->n_set; i++)
    if (keeper_set_target(r->keeper, targets->set[i], &err) < 0)
      log_warn("a target was refused", "error", err.msg);
  if (full)
    keeper_full_end(r->keeper);
  log_debug("targets", "set", log_u64(targets->n_set), "removed", log_u64(targets->n_removed), "all", log_u64(keeper_count(r->keeper)));
}

static void on_item(void *arg, const uint8_t *body, size_t len) {
  struct keeper_link *r = arg;
  struct err err;
  Keeper__Item *item = (Keeper__Item *)pb_unpack(&keeper__item__descriptor, body, len, &err);
  if (!item) {
    log_warn("an item of the agent is not understood", "error", err.msg);
    return;
  }
  switch (item->body_case) {
  case KEEPER__ITEM__BODY_TARGETS:
    take_targets(r, item->targets);
    break;
  case KEEPER__ITEM__BODY__NOT_SET:
  case _KEEPER__ITEM__BODY__CASE_IS_INT_SIZE:
    log_warn("an item of the agent says nothing this version knows");
    break;
  }
  keeper__item__free_unpacked(item, NULL);
}

static void hello_failed(void *arg, const struct err *why) {
  struct keeper_link *r = arg;
  r->hello = NULL;
  if (bus_conn_is_up(r->conn)) {
    log_warn("the agent does not tell its targets", "error", why->msg);
    try_again(r);
  }
}

static void hello_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct keeper_link *r = arg;
  r->hello = NULL;
  try_again(r);
}

static void say_hello(struct keeper_link *r) {
  static const struct bus_call_ops ops = {.done = hello_done, .failed = hello_failed, .item = on_item};
  Keeper__Call call = KEEPER__CALL__INIT;
  Keeper__Hello hello = KEEPER__HELLO__INIT;
  call.body_case = KEEPER__CALL__BODY_HELLO;
  call.hello = &hello;
  r->hello = bus_call(r->conn, &call.base, 0, &ops, r);
  if (!r->hello)
    try_again(r);
}

/* ---- verdicts out ---- */

static void told(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct keeper_link *r = arg;
  r->telling = NULL;
  keeper_sent_is_known(r->keeper);
  r->news = true; /* there may be more than went into one call */
}

static void not_told(void *arg, const struct err *why) {
  struct keeper_link *r = arg;
  r->telling = NULL;
  keeper_sent_is_lost(r->keeper);
  if (bus_conn_is_up(r->conn)) {
    log_warn("the agent did not take the verdicts", "error", why->msg);
    try_again(r);
  }
}

static void tell(struct keeper_link *r) {
  static const struct bus_call_ops ops = {.done = told, .failed = not_told};
  struct keeper_news news[VERDICTS_PER_CALL];
  Keeper__Verdict verdicts[VERDICTS_PER_CALL], *list[VERDICTS_PER_CALL];
  size_t n = keeper_take_news(r->keeper, news, VERDICTS_PER_CALL);
  if (n == 0)
    return;
  for (size_t i = 0; i < n; i++) {
    const struct keeper_verdict *v = news[i].verdict;
    list[i] = &verdicts[i];
    keeper__verdict__init(&verdicts[i]);
    verdicts[i].instance = (char *)(uintptr_t)news[i].instance;
    verdicts[i].container_id = (char *)(uintptr_t)news[i].container_id;
    PB_SET(&verdicts[i], started_ms, news[i].started_ms);
    PB_SET(&verdicts[i], started, v->started);
    PB_SET(&verdicts[i], ready, v->ready);
    PB_SET(&verdicts[i], live, v->live);
    verdicts[i].reason = (char *)(uintptr_t)v->reason;
  }
  Keeper__Call call = KEEPER__CALL__INIT;
  Keeper__Verdicts message = KEEPER__VERDICTS__INIT;
  message.n_verdicts = n;
  message.verdicts = list;
  call.body_case = KEEPER__CALL__BODY_VERDICTS;
  call.verdicts = &message;
  r->telling = bus_call(r->conn, &call.base, CALL_TIMEOUT_NS, &ops, r);
  if (!r->telling) {
    keeper_sent_is_lost(r->keeper);
    try_again(r);
  }
}

static void on_news(void *arg) {
  struct keeper_link *r = arg;
  r->news = true;
}

/* All that was decided in one round goes in one message. */
static bool at_end_of_round(void *arg) {
  struct keeper_link *r = arg;
  if (!r->news || r->telling || !bus_conn_is_up(r->conn))
    return false;
  r->news = false;
  tell(r);
  return false;
}

static void on_again(void *arg) {
  struct keeper_link *r = arg;
  r->news = true;
  if (!r->hello && bus_conn_is_up(r->conn))
    say_hello(r);
}

/* ---- */

static void on_up(void *arg, struct bus_conn *conn) {
  (void)conn;
  struct keeper_link *r = arg;
  log_info("in touch with the agent");
  if (!r->hello)
    say_hello(r);
}

static void on_down(void *arg, struct bus_conn *conn, const struct err *why) {
  (void)arg;
  (void)conn;
  log_warn("the agent is away", "error", why ? why->msg : NULL);
}

struct keeper_link *keeper_link_new(struct loop *loop, struct bus *bus, const struct bus_address *agent, struct err *err) {
  static const struct bus_conn_ops ops = {.up = on_up, .down = on_down};
  struct keeper_link *r = calloc(1, sizeof *r);
  if (!r) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  r->loop = loop;
  r->again = (struct loop_timer){.cb = on_again, .arg = r};
  r->hook = (struct loop_hook){.cb = at_end_of_round, .arg = r};
  loop_hook_add(loop, &r->hook);
  const struct keeper_config config = {on_news, r};
  r->keeper = keeper_new(loop, &config, err);
  r->conn = r->keeper ? bus_connect(bus, agent, 1, &ops, r, err) : NULL;
  if (!r->conn) {
    keeper_link_free(r);
    return NULL;
  }
  keeper_set_agent(r->keeper, r->conn);
  return r;
}

void keeper_link_free(struct keeper_link *r) {
  if (!r)
    return;
  loop_hook_remove(r->loop, &r->hook);
  loop_timer_cancel(r->loop, &r->again);
  keeper_free(r->keeper);
  if (r->hello)
    bus_call_cancel(r->hello);
  if (r->telling)
    bus_call_cancel(r->telling);
  bus_conn_free(r->conn);
  free(r);
}
