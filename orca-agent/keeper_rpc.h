/* The conversation with this node's keeper (keeper.proto), on ipc://RUN_DIR/agent.sock: targets out, verdicts in, exec on demand.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_KEEPER_RPC_H
#define ORCA_AGENT_KEEPER_RPC_H

#include "orca-agent/agent.h"

struct keeper_link *keeper_open(struct agent *a, struct err *err);
void keeper_close(struct keeper_link *k);
/* The core's state changed: tells keepers what is to be probed now. */
void keeper_flush(struct keeper_link *k);

/* exec.c: runs argv in a container, and answers the call itself. */
void exec_run(struct agent *a, struct bus_call *call, const char *container, char *const *argv, size_t argc, uint32_t timeout_ms);

#endif
