/* Secrets as the apiserver knows them: sealed in the cache, opened only for an agent that runs a consumer.
 *
 * Additional data of a record's seal: its key's id, its project and its name: moved to another name, it does not open.
 * Threads: the loop's; pure functions of cache and keyring. */
#ifndef ORCA_APISERVER_SECRETS_H
#define ORCA_APISERVER_SECRETS_H

#include "common/bus/bus.h"
#include "orca-apiserver/cache.h"
#include "orca-apiserver/keyring.h"
#include "proto/node.pb-c.h"

#define SECRETS_VALUE_MAX ((size_t)64 << 10)
/* Of all of them, so that one transaction of the store (KV_MAX_OPS, KV_MAX_TXN) seals them anew. */
#define SECRETS_COUNT_MAX 9000u
#define SECRETS_BYTES_MAX ((size_t)3584 << 10)
#define KEY_SECRETS_CURRENT KEY_SECRETS "key" /* Secret.key_id: which key is current */

struct api;

/* "" when none has been sealed yet. */
const char *secrets_current_key(const struct api_cache *cache, uint64_t *mod);
/* Of exactly this scope (project "": global); NULL: none. */
const Model__Secret *secrets_get(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod);
/* What a service of the project gets: its project's, else the global one. */
const Model__Secret *secrets_find(const struct api_cache *cache, const char *project, const char *name);

/* What one takes of that transaction. */
size_t secrets_cost(const char *project, const char *name, size_t value_len);
Model__Secret *secrets_new(const char *project, const char *name, const char *by); /* NULL: no memory */
/* Fills key_id and sealed (freed with the message). */
int secrets_seal(const struct keyring_key *key, Model__Secret *secret, const void *value, size_t len, struct err *err);
int secrets_open(const struct keyring *ring, const Model__Secret *secret, struct buf *value, struct err *err);

/* Those a spec names, as they are now, each once; version 0: missing. The caller frees. -1: no memory. */
int secrets_versions(const struct api_cache *cache, const Model__ServiceSpec *spec, Model__SecretVersion ***ret, size_t *ret_count);
void secrets_versions_free(Model__SecretVersion **list, size_t count);
/* Whether the container was made with other versions than there are now. */
bool secrets_are_newer(const struct api_cache *cache, const char *project, const Model__InstanceStatus *status);
bool secrets_is_waiting(const Model__InstanceStatus *status); /* for one that is missing */
bool secrets_uses(const Model__ServiceSpec *spec, const char *name);
/* The highest version that a container was made with: a secret that comes back must not look like the one that went. */
uint64_t secrets_highest_seen(const struct api_cache *cache, const char *name);

/* The gateway's GetSecrets, of the agent of `node`. Answers the call. */
void secrets_answer(struct api *api, const char *node, struct bus_call *call, const Node__GetSecrets *get);

#endif
