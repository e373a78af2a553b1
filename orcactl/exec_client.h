/* One exec session as orcactl holds it: the API's WebSocket on libcurl's connection, and stdin, stdout, stderr and signals beside it.
 *
 * Both ways are bounded: what stdout does not take stops the reading of the connection, what the connection does not take stops the reading of stdin.
 * Threads: none. */
#ifndef ORCA_ORCACTL_EXEC_CLIENT_H
#define ORCA_ORCACTL_EXEC_CLIENT_H

#include <stdbool.h>

#include "common/buf.h"
#include "orcactl/ctl.h"

struct exec_options {
  bool stdin_open, tty; /* raw: stdin's terminal is the session's */
  bool raw;
};
/* path: of the request, with its query. Returns the exit code; complains itself. */
int exec_client_run(struct ctl *ctl, const char *path, const struct exec_options *options);

#endif
