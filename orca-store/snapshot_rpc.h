/* A copy of the map, streamed to a client in chunks as its credit allows. Threads: the loop's. */
#ifndef ORCA_STORE_SNAPSHOT_RPC_H
#define ORCA_STORE_SNAPSHOT_RPC_H

#include "common/bus/bus.h"
#include "orca-store/store.h"

/* Has the copy made, and sends it. Answers the call, also with what went wrong. */
void snapshot_rpc_send(struct store *store, struct bus_call *call);

#endif
