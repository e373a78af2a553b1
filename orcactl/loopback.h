/* Who answers on a port of this machine: in the clear and above 1024, any user can, while the apiserver is away, and would be sent a token.
 *
 * What the kernel tells of sockets (/proc/self/net/tcp, tcp6) says whose the listening one is, and the accepted end of a connection.
 * Threads: any. */
#ifndef ORCA_ORCACTL_LOOPBACK_H
#define ORCA_ORCACTL_LOOPBACK_H

#include "common/err.h"

/* Of a connection from own:own_port to server:server_port (numeric addresses). 0: the other end is root's, the apiserver's or one's own, or is not a
 * socket of this machine (forwarded by the kernel, say). ERR_DENIED: somebody else's. */
int loopback_check(const char *server, int server_port, const char *own, int own_port, struct err *err);

#endif
