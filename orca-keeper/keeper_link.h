/* The conversation with the node's agent (../proto/keeper.proto): targets in, verdicts out.
 *
 * After every (re)connection all targets come anew and all verdicts are told anew. One message of verdicts at a time; what is not acknowledged is
 * sent again. While the agent is away the probes go on. Threads: the loop's. */
#ifndef ORCA_KEEPER_KEEPER_LINK_H
#define ORCA_KEEPER_KEEPER_LINK_H

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/loop.h"

struct keeper_link;
struct keeper_link *keeper_link_new(struct loop *loop, struct bus *bus, const struct bus_address *agent, struct err *err);
void keeper_link_free(struct keeper_link *r);

#endif
