/* One exec session: a client's WebSocket on the one side, the agent's stream on the other, and credit between them.
 *
 * A client that reads slowly holds the agent's stream, which stops reading Docker's; a client's input goes on one piece at a time, and its socket
 * is not read before the agent has taken the one before. What a client has sent is no life sign while it is not read: then TCP's own keepalive
 * counts. Threads: the loop's. */
#ifndef ORCA_APISERVER_EXEC_RELAY_H
#define ORCA_APISERVER_EXEC_RELAY_H

#include "orca-apiserver/request.h"
#include "proto/node.pb-c.h"

struct exec_relay;

/* Keeps the request; takes start, also when it fails. NULL: too many are open, or no memory. */
struct exec_relay *exec_relay_new(struct api_request *request, const char *project, const char *service, const char *instance, const char *node,
                                  Node__StartExec *start, struct err *err);
extern const struct api_upgrade_ops exec_relay_ops; /* arg: the relay */

#endif
