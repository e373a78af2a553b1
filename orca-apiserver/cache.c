#include "orca-apiserver/cache.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/bus/pb.h"

enum keep { API_KEEP_MESSAGE, API_KEEP_BYTES, API_KEEP_KEY };

static const struct {
  const char *prefix;
  const ProtobufCMessageDescriptor *desc;
  enum keep keep;
} kinds[] = {
#define X(kind, prefix, desc, keep) [kind] = {prefix, &desc, keep},
    API_KINDS(X)
#undef X
};

const char *api_kind_prefix(enum api_kind kind) {
  return kinds[kind].prefix;
}

static int kind_of(const char *key) {
  for (int i = 0; i < API_KIND_COUNT; i++) {
    size_t len = strlen(kinds[i].prefix);
    bool whole = kinds[i].prefix[len - 1] != '/'; /* /cluster, /leader/scheduler: the one key */
    if (whole ? strcmp(key, kinds[i].prefix) == 0 : strncmp(key, kinds[i].prefix, len) == 0)
      return i;
  }
  return -1;
}

static void object_free(void *value) {
  struct api_object *object = value;
  if (!object)
    return;
  if (object->msg)
    protobuf_c_message_free_unpacked(object->msg, NULL);
  free(object);
}

void api_cache_fini(struct api_cache *cache) {
  for (int i = 0; i < API_KIND_COUNT; i++)
    api_smap_clear(&cache->tables[i], object_free);
}

static struct api_object *object_new(int kind, const uint8_t *value, size_t len, uint64_t mod, struct err *err) {
  size_t kept = kinds[kind].keep == API_KEEP_BYTES ? len : 0;
  struct api_object *object = calloc(1, sizeof *object + kept);
  if (!object) {
    err_set(err, ERR_MEMORY, "no memory for a cached object");
    return NULL;
  }
  object->mod = mod;
  object->len = kept;
  if (kept)
    memcpy(object->bytes, value, kept);
  if (kinds[kind].keep == API_KEEP_MESSAGE && !(object->msg = pb_unpack(kinds[kind].desc, value, len, err))) {
    free(object);
    return NULL;
  }
  return object;
}

int api_cache_put(struct api_cache *cache, const char *key, const uint8_t *value, size_t len, uint64_t mod, struct err *err) {
  int kind = kind_of(key);
  if (kind < 0)
    return 0; /* a newer daemon's: not for us */
  struct api_object *object = object_new(kind, value, len, mod, err);
  if (!object) {
    cache->refused++;
    return err_context(err, "%s", key);
  }
  void **slot = api_smap_slot(&cache->tables[kind], key);
  if (!slot) {
    object_free(object);
    return err_set(err, ERR_MEMORY, "no memory for %s", key);
  }
  struct api_object *old = *slot;
  *slot = object;
  if (cache->ops && cache->ops->changed)
    cache->ops->changed(cache->arg, (enum api_kind)kind, key, old ? old->msg : NULL, object->msg);
  object_free(old);
  return 0;
}

int api_cache_put_message(struct api_cache *cache, const char *key, const ProtobufCMessage *msg, uint64_t mod, struct err *err) {
  struct buf packed = BUF_INIT(SIZE_MAX / 2);
  int rc =
      pb_pack(msg, &packed) < 0 ? err_set(err, ERR_MEMORY, "no memory for %s", key) : api_cache_put(cache, key, packed.data, packed.len, mod, err);
  buf_free(&packed);
  return rc;
}

void api_cache_del(struct api_cache *cache, const char *key) {
  int kind = kind_of(key);
  struct api_object *old = kind < 0 ? NULL : api_smap_take(&cache->tables[kind], key);
  if (!old)
    return;
  if (cache->ops && cache->ops->changed)
    cache->ops->changed(cache->arg, (enum api_kind)kind, key, old->msg, NULL);
  object_free(old);
}

const struct api_object *api_cache_object(const struct api_cache *cache, enum api_kind kind, const char *key) {
  return api_smap_get(&cache->tables[kind], key);
}

/* What the keys of a service's numbered objects begin with. */
static void key_of_service(char out[KEY_MAX], enum api_kind kind, const char *project, const char *name) {
  key_service(out, kinds[kind].prefix, project, name);
  size_t len = strlen(out);
  if (len < KEY_MAX - 1)
    memcpy(out + len, "/", 2);
}

static const void *message_at(const struct api_cache *cache, enum api_kind kind, const char *key, uint64_t *mod) {
  const struct api_object *object = api_cache_object(cache, kind, key);
  if (mod)
    *mod = object ? object->mod : 0;
  return object ? object->msg : NULL;
}

const Model__ClusterSpec *api_cache_cluster(const struct api_cache *cache, uint64_t *mod) {
  return message_at(cache, API_CLUSTER, KEY_CLUSTER, mod);
}

const Model__Service *api_cache_service(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, project, name);
  return message_at(cache, API_SERVICES, key, mod);
}

const Model__Job *api_cache_job(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod) {
  char key[KEY_MAX];
  key_service(key, KEY_JOBS, project, name);
  return message_at(cache, API_JOBS, key, mod);
}

const Model__JobState *api_cache_job_state(const struct api_cache *cache, const char *project, const char *name) {
  char key[KEY_MAX];
  key_service(key, KEY_JOB_STATE, project, name);
  return message_at(cache, API_JOB_STATE, key, NULL);
}

const Model__Revision *api_cache_revision(const struct api_cache *cache, const char *project, const char *name, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_REVISIONS, project, name, number);
  return message_at(cache, API_REVISIONS, key, NULL);
}

const Model__RevisionStatus *api_cache_revision_status(const struct api_cache *cache, const char *project, const char *name, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_REVISION_STATUS, project, name, number);
  return message_at(cache, API_REVISION_STATUS, key, NULL);
}

const Model__Rollout *api_cache_rollout(const struct api_cache *cache, const char *project, const char *name) {
  char key[KEY_MAX];
  key_service(key, KEY_ROLLOUTS, project, name);
  return message_at(cache, API_ROLLOUTS, key, NULL);
}

const Model__Instance *api_cache_instance(const struct api_cache *cache, const char *project, const char *name, uint64_t number) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCES, project, name, number);
  return message_at(cache, API_INSTANCES, key, NULL);
}

const Model__InstanceStatus *api_status_of_instance(const Model__InstanceStatus *status, const Model__Instance *instance) {
  return status && status->epoch == instance->epoch && strcmp(PB_STR(status->node), PB_STR(instance->node)) == 0 ? status : NULL;
}

const Model__InstanceStatus *api_cache_instance_status(const struct api_cache *cache, const Model__Instance *instance) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  return api_status_of_instance(message_at(cache, API_INSTANCE_STATUS, key, NULL), instance);
}

const Model__Node *api_cache_node(const struct api_cache *cache, const char *name, uint64_t *mod) {
  char key[KEY_MAX];
  key_named(key, KEY_NODES, name);
  return message_at(cache, API_NODES, key, mod);
}

const Model__NodeStatus *api_cache_node_status(const struct api_cache *cache, const char *name) {
  char key[KEY_MAX];
  key_named(key, KEY_NODE_STATUS, name);
  return message_at(cache, API_NODE_STATUS, key, NULL);
}

const struct api_smap_entry *api_cache_of_service(const struct api_cache *cache, enum api_kind kind, const char *project, const char *name,
                                                  size_t *count) {
  char prefix[KEY_MAX];
  key_of_service(prefix, kind, project, name);
  return api_smap_prefix(&cache->tables[kind], prefix, count);
}

struct api_smap_walk api_cache_walk(const struct api_cache *cache, enum api_kind kind, const char *project, const char *name) {
  char prefix[KEY_MAX];
  key_of_service(prefix, kind, project, name);
  return api_smap_walk(&cache->tables[kind], prefix);
}

const struct api_smap_entry *api_cache_all(const struct api_cache *cache, enum api_kind kind, size_t *count) {
  *count = cache->tables[kind].count;
  return cache->tables[kind].list;
}
