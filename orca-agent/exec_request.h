/* What Docker is told about one exec, and what a StartExec must look like for that.
 * Threads: pure functions. */
#ifndef ORCA_AGENT_EXEC_REQUEST_H
#define ORCA_AGENT_EXEC_REQUEST_H

#include <jansson.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/node.pb-c.h"

#define EXEC_ARGS_MAX 256u
#define EXEC_TEXT_MAX ((size_t)128 << 10) /* arguments and environment together */

int exec_request_check(const Node__StartExec *m, struct err *err);
json_t *exec_request_json(const Node__StartExec *m); /* body of POST /containers/ID/exec; NULL when memory ended */
/* POST /exec/ID/start, as it goes over Docker's socket. */
void exec_request_start(const char *exec_id, bool tty, struct buf *out);

#endif
