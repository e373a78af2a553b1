/* Where the masters of node.toml are reached: as addresses for bus_connect(), storec_new(). Threads: none; one owner. */
#ifndef ORCA_COMMON_DAEMON_MASTERS_H
#define ORCA_COMMON_DAEMON_MASTERS_H

#include <stdint.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/spec/node_config.h"

#define MASTERS_ENDPOINT_MAX 320

struct masters {
  struct bus_address *list; /* their endpoints are in `endpoints`, their keys the configuration's */
  size_t count;
  char (*endpoints)[MASTERS_ENDPOINT_MAX];
};

/* The node gateways of all of them; there may be none. */
int masters_gateways(const struct node_config *config, struct masters *ret, struct err *err);
/* The stores of those whose store_key is known, this node's own first; -1 when there is none. */
int masters_stores(const struct node_config *config, struct masters *ret, struct err *err);
void masters_free(struct masters *m); /* the configuration may go on being used; the addresses may not */

/* "tcp://10.0.0.1:6881", "tcp://[fd00::1]:6881". */
int masters_endpoint(const char *address, uint16_t port, char out[MASTERS_ENDPOINT_MAX], struct err *err);

#endif
