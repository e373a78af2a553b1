/* What the apiserver knows of the store: typed, ordered, read without copying.
 *
 * A pure mirror: the shell feeds it keys and values in the order of the store's revisions (storec_mirror), and everything the API answers is read
 * from here. Pointers it hands out are good until the loop's next callback; who keeps something longer copies it. A value that does not unpack is
 * refused and counted, and the key keeps what it had: a newer daemon's mistake must not take the cache down. Threads: the loop's. */
#ifndef ORCA_APISERVER_CACHE_H
#define ORCA_APISERVER_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/spec/ids.h"
#include "orca-apiserver/smap.h"
#include "proto/model.pb-c.h"

/* kind, prefix, message (of what is kept unpacked), how it is kept */
#define API_KINDS(X)                                                                                                                                 \
  X(API_CLUSTER, KEY_CLUSTER, model__cluster_spec__descriptor, API_KEEP_MESSAGE)                                                                     \
  X(API_WANTED, KEY_WANTED, model__wanted__descriptor, API_KEEP_MESSAGE)                                                                             \
  X(API_SERVICES, KEY_SERVICES, model__service__descriptor, API_KEEP_MESSAGE)                                                                        \
  X(API_REVISIONS, KEY_REVISIONS, model__revision__descriptor, API_KEEP_MESSAGE)                                                                     \
  X(API_REVISION_STATUS, KEY_REVISION_STATUS, model__revision_status__descriptor, API_KEEP_MESSAGE)                                                  \
  X(API_INSTANCES, KEY_INSTANCES, model__instance__descriptor, API_KEEP_MESSAGE)                                                                     \
  X(API_INSTANCE_STATUS, KEY_INSTANCE_STATUS, model__instance_status__descriptor, API_KEEP_MESSAGE)                                                  \
  X(API_ROLLOUTS, KEY_ROLLOUTS, model__rollout__descriptor, API_KEEP_MESSAGE)                                                                        \
  X(API_JOBS, KEY_JOBS, model__job__descriptor, API_KEEP_MESSAGE)                                                                                    \
  X(API_JOB_STATE, KEY_JOB_STATE, model__job_state__descriptor, API_KEEP_MESSAGE)                                                                    \
  X(API_JOB_RUNS, KEY_JOB_RUNS, model__job_run__descriptor, API_KEEP_MESSAGE)                                                                        \
  X(API_NODES, KEY_NODES, model__node__descriptor, API_KEEP_MESSAGE)                                                                                 \
  X(API_NODE_STATUS, KEY_NODE_STATUS, model__node_status__descriptor, API_KEEP_MESSAGE)                                                              \
  X(API_TOKENS, KEY_TOKENS, model__token__descriptor, API_KEEP_MESSAGE)                                                                              \
  X(API_SECRETS, KEY_SECRETS, model__secret__descriptor, API_KEEP_MESSAGE)                                                                           \
  X(API_AUDIT, KEY_AUDIT, model__audit_entry__descriptor, API_KEEP_BYTES)                                                                            \
  X(API_LEADER, KEY_SCHEDULER_LEADER, model__leader__descriptor, API_KEEP_MESSAGE)                                                                   \
  X(API_HISTORY_APISERVER, KEY_HISTORY_APISERVER, model__event__descriptor, API_KEEP_BYTES)                                                          \
  X(API_HISTORY_SCHEDULER, KEY_HISTORY_SCHEDULER, model__event__descriptor, API_KEEP_BYTES)                                                          \
  X(API_FILES, KEY_FILES, model__file__descriptor, API_KEEP_KEY)

enum api_kind {
#define X(kind, prefix, desc, keep) kind,
  API_KINDS(X)
#undef X
      API_KIND_COUNT
};

struct api_object {
  uint64_t mod;          /* mod_revision */
  ProtobufCMessage *msg; /* NULL for history and files */
  size_t len;            /* of bytes: history is kept packed, it is large and seldom read */
  uint8_t bytes[];
};

struct api_cache_ops {
  /* old or now is NULL when there is none; both NULL for kinds that keep no message. The cache holds `now` already. */
  void (*changed)(void *arg, enum api_kind kind, const char *key, const ProtobufCMessage *old, const ProtobufCMessage *now);
};
struct api_cache {
  struct api_smap tables[API_KIND_COUNT]; /* key → struct api_object */
  uint64_t revision;                      /* everything up to it is in */
  uint64_t refused;                       /* values that did not unpack */
  const struct api_cache_ops *ops;        /* may be NULL */
  void *arg;
};

void api_cache_fini(struct api_cache *cache);
const char *api_kind_prefix(enum api_kind kind);
int api_cache_put(struct api_cache *cache, const char *key, const uint8_t *value, size_t len, uint64_t mod, struct err *err);
void api_cache_del(struct api_cache *cache, const char *key);
int api_cache_put_message(struct api_cache *cache, const char *key, const ProtobufCMessage *msg, uint64_t mod, struct err *err);

/* ---- reading: NULL when there is none; mod (may be NULL) gets 0 then ---- */

const struct api_object *api_cache_object(const struct api_cache *cache, enum api_kind kind, const char *key);
const Model__ClusterSpec *api_cache_cluster(const struct api_cache *cache, uint64_t *mod);
const Model__Service *api_cache_service(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod);
const Model__Job *api_cache_job(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod);
const Model__JobState *api_cache_job_state(const struct api_cache *cache, const char *project, const char *name);
const Model__Revision *api_cache_revision(const struct api_cache *cache, const char *project, const char *name, uint64_t number);
const Model__RevisionStatus *api_cache_revision_status(const struct api_cache *cache, const char *project, const char *name, uint64_t number);
const Model__Rollout *api_cache_rollout(const struct api_cache *cache, const char *project, const char *name);
const Model__Instance *api_cache_instance(const struct api_cache *cache, const char *project, const char *name, uint64_t number);
/* Only when it is of the instance's own node and epoch. */
const Model__InstanceStatus *api_cache_instance_status(const struct api_cache *cache, const Model__Instance *instance);
const Model__InstanceStatus *api_status_of_instance(const Model__InstanceStatus *status, const Model__Instance *instance);
const Model__Node *api_cache_node(const struct api_cache *cache, const char *name, uint64_t *mod);
const Model__NodeStatus *api_cache_node_status(const struct api_cache *cache, const char *name);

/* All of a service's, in the order of their numbers: struct api_object as values. */
const struct api_smap_entry *api_cache_of_service(const struct api_cache *cache, enum api_kind kind, const char *project, const char *name,
                                                  size_t *count);
/* The same for walking several kinds at once; what follows the prefix is the number's ten digits. */
struct api_smap_walk api_cache_walk(const struct api_cache *cache, enum api_kind kind, const char *project, const char *name);
const struct api_smap_entry *api_cache_all(const struct api_cache *cache, enum api_kind kind, size_t *count);
#define API_MSG(entry, type) ((const type *)(const void *)((const struct api_object *)(entry)->value)->msg)

#endif
