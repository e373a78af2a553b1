#include "orca-apiserver/secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"

#define ANSWER_MAX ((size_t)7 << 20)
#define SEAL_OVERHEAD 64

const char *secrets_current_key(const struct api_cache *cache, uint64_t *mod) {
  const struct api_object *object = api_cache_object(cache, API_SECRETS, KEY_SECRETS_CURRENT);
  if (mod)
    *mod = object ? object->mod : 0;
  return object ? PB_STR(((const Model__Secret *)(const void *)object->msg)->key_id) : "";
}

const Model__Secret *secrets_get(const struct api_cache *cache, const char *project, const char *name, uint64_t *mod) {
  char key[KEY_MAX];
  key_secret(key, project, name);
  const struct api_object *object = api_cache_object(cache, API_SECRETS, key);
  if (mod)
    *mod = object ? object->mod : 0;
  return object ? (const Model__Secret *)(const void *)object->msg : NULL;
}

const Model__Secret *secrets_find(const struct api_cache *cache, const char *project, const char *name) {
  const Model__Secret *own = *project ? secrets_get(cache, project, name, NULL) : NULL;
  return own ? own : secrets_get(cache, "", name, NULL);
}

/* ---- sealing ---- */

/* Each part ends with a NUL, which none of them can have. */
static size_t aad_of(const char *key_id, const Model__Secret *secret, char out[KEY_MAX]) {
  const char *parts[3] = {key_id, PB_STR(secret->project), PB_STR(secret->name)};
  size_t at = 0;
  for (size_t i = 0; i < 3; i++) {
    size_t len = strlen(parts[i]) + 1;
    if (len > KEY_MAX - at)
      return 0;
    memcpy(out + at, parts[i], len);
    at += len;
  }
  return at;
}

size_t secrets_cost(const char *project, const char *name, size_t value_len) {
  /* The key of the compare and of the put; both names, the key's id, who and when, and the seal in the value; what protobuf adds. */
  return value_len + 3 * (strlen(project) + strlen(name)) + 320;
}

Model__Secret *secrets_new(const char *project, const char *name, const char *by) {
  Model__Secret *secret = malloc(sizeof *secret);
  if (!secret)
    return NULL;
  model__secret__init(secret);
  secret->project = *project ? strdup(project) : NULL;
  secret->name = strdup(name);
  secret->updated_by = strdup(by);
  if (secret->name && secret->updated_by && (secret->project || !*project))
    return secret;
  model__secret__free_unpacked(secret, NULL);
  return NULL;
}

int secrets_seal(const struct keyring_key *key, Model__Secret *secret, const void *value, size_t len, struct err *err) {
  char aad[KEY_MAX], *id = strdup(key->id);
  size_t aad_len = aad_of(key->id, secret, aad), sealed_len;
  struct buf sealed = BUF_INIT(SECRETS_VALUE_MAX + SEAL_OVERHEAD);
  if (!id || !aad_len || crypto_seal(key->key, aad, aad_len, value, len, &sealed, err) < 0) {
    if (!id || !aad_len)
      err_set(err, ERR_MEMORY, "no memory for a secret");
    free(id);
    buf_free(&sealed);
    return -1;
  }
  if (secret->key_id != protobuf_c_empty_string)
    free(secret->key_id);
  free(secret->sealed.data);
  secret->key_id = id;
  secret->sealed.data = buf_take(&sealed, &sealed_len);
  secret->sealed.len = sealed_len;
  secret->has_sealed = 1;
  return 0;
}

int secrets_open(const struct keyring *ring, const Model__Secret *secret, struct buf *value, struct err *err) {
  char aad[KEY_MAX];
  const struct keyring_key *key = keyring_find(ring, PB_STR(secret->key_id));
  size_t aad_len = aad_of(PB_STR(secret->key_id), secret, aad);
  if (!key)
    return err_set(err, ERR_CORRUPT, "secret %s is sealed with key %s, which is not here", PB_STR(secret->name), PB_STR(secret->key_id));
  if (!aad_len || crypto_open(key->key, aad, aad_len, secret->sealed.data, secret->sealed.len, value, err) < 0)
    return err_context(err, "secret %s", PB_STR(secret->name));
  return 0;
}

/* ---- who names which ---- */

struct versions {
  const struct api_cache *cache;
  const char *project;
  Model__SecretVersion **list;
  size_t count, size;
};

static int add_version(void *arg, const char *name, bool file) {
  (void)file;
  struct versions *v = arg;
  for (size_t i = 0; i < v->count; i++)
    if (strcmp(v->list[i]->name, name) == 0)
      return 0;
  if (v->count == v->size) {
    size_t size = v->size ? v->size * 2 : 4;
    Model__SecretVersion **list = reallocarray(v->list, size, sizeof *list);
    if (!list)
      return -1;
    v->list = list;
    v->size = size;
  }
  Model__SecretVersion *one = malloc(sizeof *one);
  if (!one)
    return -1;
  model__secret_version__init(one);
  one->name = strdup(name);
  v->list[v->count++] = one;
  const Model__Secret *secret = secrets_find(v->cache, v->project, name);
  PB_SET(one, version, secret ? secret->version : 0);
  PB_SET(one, global, secret && !*PB_STR(secret->project));
  return one->name ? 0 : -1;
}

int secrets_versions(const struct api_cache *cache, const Model__ServiceSpec *spec, Model__SecretVersion ***ret, size_t *ret_count) {
  struct versions v = {.cache = cache, .project = PB_STR(spec->project)};
  int rc = spec_secret_names(spec, add_version, &v);
  if (rc < 0) {
    secrets_versions_free(v.list, v.count);
    v.list = NULL;
    v.count = 0;
  }
  *ret = v.list;
  *ret_count = v.count;
  return rc;
}

void secrets_versions_free(Model__SecretVersion **list, size_t count) {
  for (size_t i = 0; i < count; i++)
    model__secret_version__free_unpacked(list[i], NULL);
  free(list);
}

bool secrets_are_newer(const struct api_cache *cache, const char *project, const Model__InstanceStatus *status) {
  for (size_t i = 0; i < status->n_secrets; i++) {
    const Model__SecretVersion *had = status->secrets[i];
    const Model__Secret *now = secrets_find(cache, project, PB_STR(had->name));
    bool is_global = now && !*PB_STR(now->project), was_global = PB_GET(had, global, 0);
    if (had->version && now && (now->version != had->version || is_global != was_global))
      return true;
  }
  return false;
}

bool secrets_is_waiting(const Model__InstanceStatus *status) {
  for (size_t i = 0; i < status->n_secrets; i++)
    if (!status->secrets[i]->version)
      return true;
  return false;
}

static int is_name(void *arg, const char *name, bool file) {
  (void)file;
  return strcmp(arg, name) == 0 ? -1 : 0;
}

bool secrets_uses(const Model__ServiceSpec *spec, const char *name) {
  return spec_secret_names(spec, is_name, (void *)(uintptr_t)name) < 0;
}

uint64_t secrets_highest_seen(const struct api_cache *cache, const char *name) {
  size_t count;
  uint64_t highest = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_INSTANCE_STATUS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__InstanceStatus *status = API_MSG(&all[i], Model__InstanceStatus);
    for (size_t k = 0; k < status->n_secrets; k++)
      if (strcmp(PB_STR(status->secrets[k]->name), name) == 0 && status->secrets[k]->version > highest)
        highest = status->secrets[k]->version;
  }
  return highest;
}

/* ---- the gateway's answer ---- */

struct answer {
  const struct api *api;
  const char *project;
  Node__Secrets reply;
  size_t size, bytes;
  struct err *err;
};

static int open_one(void *arg, const char *name, bool file) {
  (void)file;
  struct answer *a = arg;
  for (size_t i = 0; i < a->reply.n_secrets; i++)
    if (strcmp(a->reply.secrets[i]->name, name) == 0)
      return 0;
  const Model__Secret *secret = secrets_find(&a->api->cache, a->project, name);
  if (!secret)
    return err_set(a->err, ERR_NOT_FOUND, "secret %s is missing", name);
  if (a->reply.n_secrets == a->size) {
    size_t size = a->size ? a->size * 2 : 4;
    Node__SecretValue **list = reallocarray(a->reply.secrets, size, sizeof *list);
    if (!list)
      return err_set(a->err, ERR_MEMORY, "no memory for secrets");
    a->reply.secrets = list;
    a->size = size;
  }
  Node__SecretValue *value = malloc(sizeof *value);
  if (!value)
    return err_set(a->err, ERR_MEMORY, "no memory for secrets");
  node__secret_value__init(value);
  a->reply.secrets[a->reply.n_secrets++] = value;
  value->name = strdup(name);
  PB_SET(value, version, secret->version);
  PB_SET(value, global, !*PB_STR(secret->project));
  struct buf plain = BUF_INIT(SECRETS_VALUE_MAX);
  if (secrets_open(&a->api->keyring, secret, &plain, a->err) < 0) {
    buf_free(&plain);
    return -1;
  }
  value->has_value = 1;
  value->value.data = buf_take(&plain, &value->value.len);
  a->bytes += value->value.len + SEAL_OVERHEAD + SPEC_SECRET_NAME_MAX;
  if (!value->name)
    return err_set(a->err, ERR_MEMORY, "no memory for secrets");
  return a->bytes <= ANSWER_MAX ? 0 : err_set(a->err, ERR_TOO_LARGE, "its secrets are larger than %zu MiB", ANSWER_MAX >> 20);
}

static void wipe(Node__Secrets *reply) {
  for (size_t i = 0; i < reply->n_secrets; i++) {
    Node__SecretValue *value = reply->secrets[i];
    if (value->value.data)
      crypto_wipe(value->value.data, value->value.len);
    node__secret_value__free_unpacked(value, NULL);
  }
  free(reply->secrets);
}

/* The spec whose secrets that agent may have: of an instance that is bound to its node, in the revision it is bound with. */
static const Model__ServiceSpec *consumer(const struct api_cache *cache, const char *node, const Node__GetSecrets *get) {
  char project[64], service[64];
  uint64_t number;
  if (!instance_id_parse(PB_STR(get->instance), project, service, &number))
    return NULL;
  const Model__Instance *instance = api_cache_instance(cache, project, service, number);
  if (!instance || strcmp(PB_STR(instance->node), node) != 0 || instance->revision != PB_GET(get, revision, 0) ||
      instance->desired == MODEL__DESIRED__DESIRED_STOP)
    return NULL;
  const Model__Revision *revision = api_cache_revision(cache, project, service, instance->revision);
  return revision ? revision->spec : NULL;
}

void secrets_answer(struct api *api, const char *node, struct bus_call *call, const Node__GetSecrets *get) {
  struct err err;
  struct answer a = {.api = api, .reply = NODE__SECRETS__INIT, .err = &err};
  const Model__ServiceSpec *spec = consumer(&api->cache, node, get);
  if (!spec) {
    err_set(&err, ERR_DENIED, "this node does not run %.100s in that revision", PB_STR(get->instance));
    log_warn("secrets were asked for and not given", "node", node, "instance", PB_STR(get->instance));
    bus_fail(call, &err);
    return;
  }
  a.project = PB_STR(spec->project);
  if (spec_secret_names(spec, open_one, &a) < 0) {
    if (err.code != ERR_NOT_FOUND)
      log_error("secrets were not given", "node", node, "instance", PB_STR(get->instance), "error", err.msg);
    bus_fail(call, &err);
  } else {
    Node__Reply reply = NODE__REPLY__INIT;
    reply.body_case = NODE__REPLY__BODY_SECRETS;
    reply.secrets = &a.reply;
    bus_reply(call, &reply.base);
  }
  wipe(&a.reply);
}
