/* Files of services (GetFile), read from the store for an agent: nothing of them is in the cache.
 *
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_FILES_H
#define ORCA_APISERVER_GATEWAY_FILES_H

#include <stdbool.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "orca-apiserver/cache.h"
#include "proto/node.pb-c.h"

struct api;

/* Whether something that is bound to the node mounts it: to know a hash is not enough to read what another node has. */
bool gw_file_is_of(const struct api_cache *cache, const char *node, const char *sha256);
/* Answers the call once the store has. -1: it cannot be asked, and the call is not answered. */
int gw_file_get(struct api *api, const char *node, struct bus_call *call, const Node__GetFile *get, struct err *err);

#endif
