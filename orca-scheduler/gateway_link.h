/* The conversations with the masters' gateways (:6881): says hello to each, and answers what an apiserver asks (Plan).
 *
 * A plan is made in slices between the loop's rounds; PLANS_MAX at a time, more are refused as busy. A scheduler that does not lead answers as well:
 * it knows the same.
 * Threads: the loop's. */
#ifndef ORCA_SCHEDULER_GATEWAY_LINK_H
#define ORCA_SCHEDULER_GATEWAY_LINK_H

#include "common/bus/bus.h"
#include "common/spec/node_config.h"
#include "orca-scheduler/sched_store.h"

struct gateway_link;

/* store is borrowed and must outlive it. */
struct gateway_link *gateway_link_open(struct loop *loop, struct bus *bus, const struct node_config *config, const struct sched_store *store,
                                       struct err *err);
void gateway_link_close(struct gateway_link *link); /* takes NULL */

#endif
