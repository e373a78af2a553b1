/* Files of services (GetFile), read from the store for an agent: nothing of them is in the cache.
 *
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_GATEWAY_FILES_H
#define ORCA_APISERVER_GATEWAY_FILES_H

#include "common/bus/bus.h"
#include "common/err.h"
#include "proto/node.pb-c.h"

struct api;

/* Answers the call once the store has. -1: it cannot be asked, and the call is not answered. */
int gw_file_get(struct api *api, struct bus_call *call, const Node__GetFile *get, struct err *err);

#endif
