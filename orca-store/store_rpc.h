/* The store's conversation with its clients (proto/store.proto) over the bus: decode, check the caller's role, hand to the shell, answer.
 * Threads: the loop's. */
#ifndef ORCA_STORE_STORE_RPC_H
#define ORCA_STORE_STORE_RPC_H

#include "common/bus/bus.h"
#include "orca-store/acl.h"
#include "orca-store/store.h"

struct store_rpc;

/* acl is borrowed; after it was changed: store_rpc_recheck(). */
struct store_rpc *store_rpc_new(struct loop *loop, struct bus *bus, struct store *store, const struct acl *acl, const char *endpoint,
                                struct err *err);
void store_rpc_free(struct store_rpc *rpc);
void store_rpc_recheck(struct store_rpc *rpc);
/* From store_ops.changed. */
void store_rpc_changed(struct store_rpc *rpc, bool compacted);

#endif
