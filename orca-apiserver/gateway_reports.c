#include "orca-apiserver/gateway_reports.h"

#include <stdlib.h>

#include "common/log.h"
#include "orca-apiserver/api.h"

#define REPORTS_MAX 1024 /* waiting for a transaction */

struct gw_report { /* one that waits for its transaction */
  struct bus_call *call;
  struct gw_report *next, *prev;
  struct gw_batch *batch;
};
struct gw_batch { /* what one transaction acknowledges */
  struct gw_report *reports;
  size_t count;
};

void gw_reports_init(struct gw_reports *r, struct api *api, struct api_round *round, const struct gw_reports_ops *ops, void *arg) {
  *r = (struct gw_reports){.api = api, .round = round, .ops = ops, .arg = arg};
}

/* ---- batches ---- */

static struct gw_batch *batch_of(struct gw_reports *r) {
  if (!r->gathering)
    r->gathering = calloc(1, sizeof *r->gathering);
  return r->gathering;
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

/* The peer is gone: what it said is written all the same. */
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

int gw_reports_take(struct gw_reports *r, const char *node, struct bus_call *call, const Node__StatusReport *report, struct err *err) {
  struct gw_batch *batch = batch_of(r);
  bool full = batch && (batch->count >= REPORTS_MAX || api_round_is_full(r->round));
  struct gw_report *waits = batch && !full ? calloc(1, sizeof *waits) : NULL;
  r->reports++;
  if (!waits || api_round_report(r->round, node, report, api_now_ms(r->api)) < 0) {
    free(waits);
    return err_set(err, full ? ERR_BUSY : ERR_MEMORY, "reports cannot be taken now");
  }
  *waits = (struct gw_report){.call = call, .batch = batch, .next = batch->reports};
  if (waits->next)
    waits->next->prev = waits;
  batch->reports = waits;
  batch->count++;
  bus_answer_on(call, &report_ops, waits);
  return 0;
}

/* ---- transactions ---- */

static void round_seen(void *arg) {
  struct gw_reports *r = arg;
  api_round_landed(r->round);
  batch_end(r->on_its_way, NULL);
  r->on_its_way = NULL;
  r->ops->stored(r->arg);
}

static void round_done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct gw_reports *r = arg;
  struct err refused;
  r->api->disk_full = err && err->code == ERR_NO_SPACE;
  if (!err && !succeeded) {
    err_set(&refused, ERR_INTERNAL, "the store refused a round without conditions");
    err = &refused;
  }
  if (err) {
    log_warn("reports were not stored", "error", err->msg);
    batch_end(r->on_its_way, err); /* they are told again, and what was judged by them too */
    r->on_its_way = NULL;
    batch_end(r->gathering, err);
    r->gathering = NULL;
    api_round_lost(r->round);
    r->ops->failed(r->arg);
    return;
  }
  /* The next round is judged by the cache: it must have this one. */
  api_when(r->api, revision, 5 * NS_PER_SEC, round_seen, r);
}

static void send_round(struct gw_reports *r) {
  struct storec_txn *txn = storec_txn_new();
  struct gw_batch *batch = calloc(1, sizeof *batch);
  Model__Event *events[API_TAKE_EVENTS];
  size_t count;
  if (!txn || !batch || api_round_take(r->round, events, &count) < 0) {
    storec_txn_free(txn);
    free(batch);
    return; /* the next loop round tries again */
  }
  for (size_t i = 0; i < r->round->flying.count; i++) {
    const struct api_smap_entry *write = &r->round->flying.list[i];
    if (write->value)
      storec_put_message(txn, write->key, write->value, 0);
    else
      storec_delete(txn, write->key);
  }
  for (size_t i = 0; i < count; i++) {
    api_event(r->api, txn, events[i]);
    model__event__free_unpacked(events[i], NULL);
  }
  r->refused += r->round->refused;
  r->round->refused = 0;
  if (r->gathering && api_round_is_empty(r->round)) { /* else a part of what they said is still to be sent */
    free(batch);
    batch = r->gathering;
    r->gathering = NULL;
  }
  r->on_its_way = batch;
  r->rounds++;
  r->api->commit(r->api->commit_arg, txn, round_done, r);
}

bool gw_reports_on_its_way(const struct gw_reports *r) {
  return r->on_its_way;
}

void gw_reports_end_round(struct gw_reports *r) {
  if (r->on_its_way)
    return;
  if (!api_round_is_empty(r->round)) {
    send_round(r);
    return;
  }
  if (!r->gathering)
    return;
  /* Reports that changed nothing need no transaction. */
  r->refused += r->round->refused;
  r->round->refused = 0;
  batch_end(r->gathering, NULL);
  r->gathering = NULL;
}

void gw_reports_fini(struct gw_reports *r, const struct err *why) {
  batch_end(r->gathering, why);
  batch_end(r->on_its_way, why);
}
