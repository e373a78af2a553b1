/* Reports of agents, from their calls into the store: those of one loop round go in one transaction and are acknowledged when it is committed;
 * while one is on its way, the next gathers.
 *
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_REPORTS_H
#define ORCA_APISERVER_GATEWAY_REPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "orca-apiserver/round.h"

struct api;
struct gw_batch;

struct gw_reports_ops {
  void (*stored)(void *arg); /* a transaction is in the cache now */
  void (*failed)(void *arg); /* one was not stored: reporters tell theirs again, what else was in the round is lost */
};

struct gw_reports {
  struct api *api;         /* borrowed */
  struct api_round *round; /* borrowed; others may say something in it too */
  const struct gw_reports_ops *ops;
  void *arg;
  struct gw_batch *gathering, *on_its_way;
  uint64_t reports, rounds, refused;
};

/* ops: kept. */
void gw_reports_init(struct gw_reports *r, struct api *api, struct api_round *round, const struct gw_reports_ops *ops, void *arg);
void gw_reports_fini(struct gw_reports *r, const struct err *why); /* who waits is told why */

/* Answers the call when the report is stored. -1: it is not taken, and the call is not answered. */
int gw_reports_take(struct gw_reports *r, const char *node, struct bus_call *call, const Node__StatusReport *report, struct err *err);
bool gw_reports_on_its_way(const struct gw_reports *r); /* a transaction: what the cache says is not all that is known */
void gw_reports_end_round(struct gw_reports *r);        /* sends what the loop round has brought */

#endif
