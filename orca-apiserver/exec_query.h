/* What GET …/exec is asked for, from its query, and the instance that is meant.
 * Threads: pure functions. */
#ifndef ORCA_APISERVER_EXEC_QUERY_H
#define ORCA_APISERVER_EXEC_QUERY_H

#include "orca-apiserver/request.h"
#include "proto/node.pb-c.h"

/* A StartExec without its instance and session; the caller frees it (node__start_exec__free_unpacked). NULL and *err. */
Node__StartExec *exec_query_parse(const struct api_request *request, struct err *err);

/* The instance that ?instance= names (its number, or PROJECT/NAME.NUMBER); without: the lowest ready one, else the lowest that runs. It is on a node.
 */
const Model__Instance *exec_query_instance(const struct api_cache *cache, const char *project, const char *service, const char *wanted,
                                           struct err *err);

#endif
