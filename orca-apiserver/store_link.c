#include "common/daemon/masters.h"
#include "orca-apiserver/store_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/daemon/daemon.h"
#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/listeners.h"
#include "orca-apiserver/secrets.h"
#include "orca-apiserver/upkeep.h"

#define AGAIN (NS_PER_SEC)
#define FIRST_TOKEN_ID "first"

struct store_link {
  struct api *api;
  struct storec_mirror *mirror;
  struct loop_timer again;
  bool settling; /* a transaction of settle() is on its way */
};

/* ---- files of key_dir ---- */

/* One line of exactly `len` characters out of `letters`. -1 with ERR_NOT_FOUND when there is no such file. */
static int read_line(const char *dir, const char *name, size_t len, const char *letters, char *out, struct err *err) {
  char path[4096], text[128];
  if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "key_dir is too long");
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  ssize_t n = read(fd, text, sizeof text - 1);
  int failed = errno;
  close(fd);
  if (n < 0)
    return err_errno(err, failed, "%s", path);
  text[n] = 0;
  text[strcspn(text, "\r\n")] = 0;
  if (strlen(text) != len || (letters && strspn(text, letters) != len))
    return err_set(err, ERR_INVALID, "%s: not one line of %zu characters as expected", path, len);
  memcpy(out, text, len + 1);
  return 0;
}

static int add_key(Model__Node *node, const char *dir, const char *role, struct err *err) {
  char file[32], text[BUS_KEY_LEN + 1];
  snprintf(file, sizeof file, "%s.pub", role);
  if (read_line(dir, file, BUS_KEY_LEN, NULL, text, err) < 0)
    return -1;
  Model__NodeKey *key = malloc(sizeof *key);
  if (!key)
    return err_set(err, ERR_MEMORY, "no memory for a key");
  model__node_key__init(key);
  node->keys[node->n_keys++] = key;
  key->role = strdup(role);
  key->key = strdup(text);
  return key->role && key->key ? 0 : err_set(err, ERR_MEMORY, "no memory for a key");
}

static void drop_keys(Model__Node *node) {
  for (size_t i = 0; i < node->n_keys; i++)
    model__node_key__free_unpacked(node->keys[i], NULL);
  free(node->keys);
  node->keys = NULL;
  node->n_keys = 0;
}

static int set_text(char **field, const char *text) {
  char *copy = strdup(text);
  if (!copy)
    return -1;
  if (*field != protobuf_c_empty_string)
    free(*field);
  *field = copy;
  return 0;
}

/* This node as node.toml and key_dir say it is; labels and drain as they are in the store. */
static Model__Node *own_node(struct api *api, const Model__Node *old, struct err *err) {
  const struct node_config *config = api->config;
  Model__Node *node = old ? (Model__Node *)(void *)pb_clone(&old->base) : malloc(sizeof *node);
  if (node && !old) {
    model__node__init(node);
    PB_SET(node, created_ms, api_now_ms(api));
  }
  if (!node) {
    err_set(err, ERR_MEMORY, "no memory for a node");
    return NULL;
  }
  drop_keys(node);
  node->keys = calloc(4, sizeof(Model__NodeKey *));
  int rc = node->keys && set_text(&node->name, config->name) == 0 && set_text(&node->address, config->address) == 0 &&
                   set_text(&node->role, config->role == NODE_MASTER ? "master" : "worker") == 0
               ? 0
               : err_set(err, ERR_MEMORY, "no memory for a node");
  const char *const roles[] = {"agent", "proxy", "keeper", "scheduler"};
  for (size_t i = 0; i < (config->role == NODE_MASTER ? 4 : 3) && rc == 0; i++)
    rc = add_key(node, config->key_dir, roles[i], err);
  if (rc == 0) {
    Model__Node *labelled = api_upkeep_node(node, api_cache_cluster(&api->cache, NULL));
    if (labelled) {
      model__node__free_unpacked(node, NULL);
      node = labelled;
    }
    return node;
  }
  model__node__free_unpacked(node, NULL);
  return NULL;
}

/* ---- what must be there before nodes may come ---- */

static int settle_node(struct api *api, struct storec_txn *txn, struct err *err) {
  uint64_t mod;
  const Model__Node *old = api_cache_node(&api->cache, api->config->name, &mod);
  Model__Node *node = own_node(api, old, err);
  if (!node)
    return -1;
  if (!pb_equal(&node->base, old ? &old->base : NULL)) {
    char key[KEY_MAX];
    key_named(key, KEY_NODES, node->name);
    storec_if_mod_revision(txn, key, mod);
    storec_put_message(txn, key, &node->base, 0);
  }
  model__node__free_unpacked(node, NULL);
  return 0;
}

static int hex_digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

static int settle_token(struct api *api, struct storec_txn *txn, struct err *err) {
  if (api->cache.tables[API_TOKENS].count)
    return 0;
  char hex[65], name[] = "admin", role[] = "admin", id[] = FIRST_TOKEN_ID, key[KEY_MAX];
  uint8_t hash[32];
  if (read_line(api->config->key_dir, "apiserver/first-token", 64, "0123456789abcdef", hex, err) < 0) {
    if (err->code != ERR_NOT_FOUND)
      return -1;
    log_warn("the store has no token, and there is no apiserver/first-token in key_dir: nobody can log in");
    return 0;
  }
  for (size_t i = 0; i < 32; i++)
    hash[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
  Model__Token token = MODEL__TOKEN__INIT;
  token.id = id;
  token.name = name;
  token.role = role;
  token.has_hash = 1;
  token.hash = (ProtobufCBinaryData){.len = sizeof hash, .data = hash};
  PB_SET(&token, created_ms, api_now_ms(api));
  key_named(key, KEY_TOKENS, id);
  storec_if_mod_revision(txn, key, 0);
  storec_put_message(txn, key, &token.base, 0);
  log_info("first token taken", "name", name, "role", role);
  return 0;
}

static void settle(struct store_link *link);

static void settle_again(void *arg) {
  settle(arg);
}

static void settle_later(struct store_link *link, const struct err *why) {
  log_warn("not settled yet", "why", why->msg);
  struct err err;
  if (loop_timer_in(link->api->loop, &link->again, AGAIN, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void settle_done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct store_link *link = arg;
  (void)succeeded; /* when another apiserver was faster, the next look finds it done */
  link->settling = false;
  if (err)
    settle_later(link, err);
  else
    api_when(link->api, revision, AGAIN, settle_again, link);
}

static void open_gateway(struct store_link *link) {
  struct api *api = link->api;
  struct err err;
  char endpoint[MASTERS_ENDPOINT_MAX];
  if (masters_endpoint(api->config->address, api->config->port_gateway, endpoint, &err) == 0)
    api->gateway = gateway_open(api, endpoint, &err);
  if (!api->gateway) {
    err_context(&err, "node gateway");
    settle_later(link, &err);
    return;
  }
  log_info("node gateway is open", "endpoint", gateway_endpoint(api->gateway), "revision", log_u64(api->cache.revision));
}

static void settle(struct store_link *link) {
  struct api *api = link->api;
  struct err err;
  if (link->settling || !api->in_touch)
    return; /* `synced` comes again */
  struct storec_txn *txn = storec_txn_new();
  if (!txn) {
    err_set(&err, ERR_MEMORY, "no memory for a transaction");
    settle_later(link, &err);
  } else if (settle_node(api, txn, &err) < 0 || settle_token(api, txn, &err) < 0) {
    storec_txn_free(txn);
    settle_later(link, &err);
  } else if (storec_txn_ops(txn)) {
    link->settling = true;
    api->commit(api->commit_arg, txn, settle_done, link);
  } else {
    storec_txn_free(txn);
    if (!api->gateway)
      open_gateway(link);
  }
}

/* ---- the mirror ---- */

static void on_put(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t mod) {
  struct store_link *link = arg;
  struct err err;
  if (api_cache_put(&link->api->cache, key, value, len, mod, &err) < 0)
    log_error("a stored value was refused", "key", key, "error", err.msg);
}

static void on_del(void *arg, const char *key, uint64_t mod) {
  (void)mod;
  api_cache_del(&((struct store_link *)arg)->api->cache, key);
}

static void on_revision(void *arg, uint64_t revision) {
  struct api *api = ((struct store_link *)arg)->api;
  if (revision > api->cache.revision)
    api->cache.revision = revision;
  api_reached(api);
}

static void level_told(void *arg, const Store__Reply *reply, const struct err *err) {
  (void)arg;
  (void)reply;
  if (err)
    log_warn("the store was not told its log level", "error", err->msg); /* it is told again after the next reconnection */
}

/* The store doesn't know the model: this is how it hears of [cluster] log_level. */
static void tell_store_level(struct api *api) {
  const Model__ClusterSpec *cluster = api_cache_cluster(&api->cache, NULL);
  char level[16];
  snprintf(level, sizeof level, "%s", cluster && *PB_STR(cluster->log_level) ? cluster->log_level : "info");
  Store__LogLevel body = STORE__LOG_LEVEL__INIT;
  Store__Call call = STORE__CALL__INIT;
  body.level = level;
  call.body_case = STORE__CALL__BODY_LOG_LEVEL;
  call.log_level = &body;
  storec_call(api->store, &call, API_COMMIT_TIMEOUT, level_told, NULL);
}

/* What cluster.toml says of this process. */
static void follow_cluster(struct api *api) {
  const Model__ClusterSpec *cluster = api_cache_cluster(&api->cache, NULL);
  log_follow_level(cluster ? PB_STR(cluster->log_level) : "");
  tell_store_level(api);
  if (api->listeners)
    api_listeners_want(api->listeners, cluster ? cluster->api_listen : NULL, cluster ? cluster->n_api_listen : 0);
}

static void on_synced(void *arg, uint64_t revision) {
  struct store_link *link = arg;
  struct api *api = link->api;
  log_info("in touch with the store", "revision", log_u64(revision));
  api->synced = api->in_touch = true;
  follow_cluster(api);
  on_revision(link, revision);
  settle(link);
}

static void on_lost(void *arg, const struct err *why) {
  struct api *api = ((struct store_link *)arg)->api;
  snprintf(api->why_not, sizeof api->why_not, "the store is out of reach: %.200s", why->msg);
  if (api->in_touch)
    log_warn("out of touch with the store", "why", why->msg);
  api->in_touch = false;
}

static void on_changed(void *arg, enum api_kind kind, const char *key, const ProtobufCMessage *old, const ProtobufCMessage *now) {
  struct api *api = arg;
  struct err err;
  if (kind == API_CLUSTER && api->in_touch) /* else with `synced` */
    follow_cluster(api);
  if (kind == API_SECRETS && now && strcmp(key, KEY_SECRETS_CURRENT) == 0 &&
      keyring_settle(&api->keyring, PB_STR(((const Model__Secret *)(const void *)now)->key_id), &err) < 0)
    log_error("the new master.key is in use, and still named master.key.next", "error", err.msg);
  if (api->gateway)
    gateway_changed(api->gateway, kind, key, old, now);
}

static void commit(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg) {
  storec_commit(arg, txn, API_COMMIT_TIMEOUT, done, done_arg);
}

static const struct storec_mirror_ops mirror_ops = {
    .put = on_put, .del = on_del, .end_of_revision = on_revision, .synced = on_synced, .lost = on_lost};
static const struct api_cache_ops cache_ops = {.changed = on_changed};

struct store_link *store_link_open(struct api *api, const struct bus_address *stores, size_t count, struct err *err) {
  struct store_link *link = calloc(1, sizeof *link);
  if (!link) {
    err_set(err, ERR_MEMORY, "no memory for the store's client");
    return NULL;
  }
  link->api = api;
  link->again = (struct loop_timer){.cb = settle_again, .arg = link};
  api->cache.ops = &cache_ops;
  api->cache.arg = api;
  api->store = storec_new(api->bus, api->loop, stores, count, err);
  if (api->store) {
    const char *prefixes[API_KIND_COUNT];
    for (int i = 0; i < API_KIND_COUNT; i++)
      prefixes[i] = api_kind_prefix((enum api_kind)i);
    api->commit = commit;
    api->commit_arg = api->store;
    link->mirror = storec_mirror_new(api->store, prefixes, API_KIND_COUNT, &mirror_ops, link, err);
  }
  if (link->mirror)
    return link;
  store_link_close(link);
  return NULL;
}

void store_link_close(struct store_link *link) {
  if (!link)
    return;
  struct api *api = link->api;
  api->in_touch = false;
  if (link->mirror)
    storec_mirror_free(link->mirror);
  if (api->store)
    storec_free(api->store); /* what is on its way fails now, while those who wait for it are there */
  api->store = NULL;
  loop_timer_cancel(api->loop, &link->again);
  api_end_waits(api);
  loop_timer_cancel(api->loop, &link->again);
  gateway_close(api->gateway);
  api->gateway = NULL;
  free(link);
}
