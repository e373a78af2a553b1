/* Where the proxy listens: every address of the node, or only loopback when the node's address is one.
 * Threads: any. */
#ifndef ORCA_PROXY_LISTEN_H
#define ORCA_PROXY_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define LISTEN_ADDRESSES_MAX 2

/* Opens a set of sockets for each of `sets` workers: ret[set * LISTEN_ADDRESSES_MAX + i], *count of them in each set. Sockets of the same address
 * share it (SO_REUSEPORT), but not with another process: a port that is taken is ERR_CONFLICT. patient: waits up to a second for it, as the proxy
 * before this one may be ending. */
int listen_open(const char *node_address, uint16_t port, unsigned sets, bool patient, int *ret, unsigned *count, struct err *err);

#endif
