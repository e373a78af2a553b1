/* Watches over the bus: each gets what it asked for as its credit allows; one that lags is led through history, one that takes nothing is cut.
 * What it lags behind is in the map's history, so a slow client costs no memory.
 *
 * Ownership: a call that watch_rpc_start() was given is answered from here until it ends. Threads: the loop's. */
#ifndef ORCA_STORE_WATCH_RPC_H
#define ORCA_STORE_WATCH_RPC_H

#include <stdbool.h>
#include <stddef.h>

#include "common/bus/bus.h"
#include "orca-store/acl.h"
#include "orca-store/store.h"

struct watch_rpc;

/* loop and store are borrowed, and outlive it. NULL when memory ends. */
struct watch_rpc *watch_rpc_new(struct loop *loop, struct store *store);
void watch_rpc_free(struct watch_rpc *rpc); /* ends every watch with ERR_UNAVAILABLE */
size_t watch_rpc_count(const struct watch_rpc *rpc);

/* ERR_INVALID, ERR_DENIED, ERR_COMPACTED, ERR_BUSY (there are too many). */
int watch_rpc_check(struct watch_rpc *rpc, enum acl_role role, const Store__WatchRequest *q, struct err *err);
/* A request that was checked. */
void watch_rpc_start(struct watch_rpc *rpc, struct bus_call *call, const Store__WatchRequest *q);
/* Revisions up to kv_state()->revision are there to be told. */
void watch_rpc_changed(struct watch_rpc *rpc, bool compacted);

#endif
