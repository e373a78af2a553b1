/* The conversation with the masters' node gateway (node.proto): desired state in, reports out, files on demand.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_GATEWAY_RPC_H
#define ORCA_AGENT_GATEWAY_RPC_H

#include "orca-agent/agent.h"

struct gateway *gateway_open(struct agent *a, struct err *err);
void gateway_close(struct gateway *g);
/* There may be something to report: sends it when a conversation is up and none is under way. */
void gateway_flush(struct gateway *g);

/* content is NULL when it failed. Never calls back before it returns. */
typedef void gateway_file_fn(void *arg, const uint8_t *content, size_t len, const struct err *err);
int gateway_get_file(struct gateway *g, const char *sha256, gateway_file_fn *done, void *arg, struct err *err);

/* values is taken by the callee (secret_values_free); NULL when it failed. Never calls back before it returns. */
typedef void gateway_secrets_fn(void *arg, Node__Secrets *values, const struct err *err);
int gateway_get_secrets(struct gateway *g, const char *instance, uint64_t revision, gateway_secrets_fn *done, void *arg, struct err *err);

#endif
