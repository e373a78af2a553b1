/* What a change leaves behind and nobody needs any more: old revisions, their files; and what cluster.toml says of nodes.
 * Threads: pure functions of the cache; they add to a transaction. */
#ifndef ORCA_APISERVER_UPKEEP_H
#define ORCA_APISERVER_UPKEEP_H

#include "common/spec/spec.h"
#include "common/storec/storec.h"
#include "orca-apiserver/cache.h"

#define API_KEEP_REVISIONS 50 /* of a service; beside the wanted, the stable one, and those that instances run */

/* Deletes the oldest revisions of a service that is about to get one more. */
void api_upkeep_revisions(const struct api_cache *cache, const Model__Service *service, struct storec_txn *txn);
/* Deletes all that is of a service, but what the scheduler writes. */
void api_upkeep_purge(const struct api_cache *cache, const char *project, const char *name, struct storec_txn *txn);
/* Deletes the files that only services of which purged() is true name, and that are not in keep (may be NULL): what the same deploy brings, and
 * what its services name. */
void api_upkeep_files(const struct api_cache *cache, bool (*purged)(void *arg, const char *project, const char *name), void *arg,
                      const struct spec_set *keep, struct storec_txn *txn);
/* The node with labels and hardware as cluster.toml declares them; NULL when it is so already (or memory ends). */
Model__Node *api_upkeep_node(const Model__Node *node, const Model__ClusterSpec *cluster);

#endif
