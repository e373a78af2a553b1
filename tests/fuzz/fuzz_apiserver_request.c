/* Anything as a request: the path, the query and the body of each route, with an admin's token, over a small state; whatever is taken is applied, so
 * that what one request leaves behind meets the next. First byte: route; second: query; the rest: the body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "common/bus/pb.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"
#include "tests/fuzz/fuzz.h"

static struct node_config config;
static char node_name[] = "n1", address[] = "127.0.0.1", id[] = "fuzz", role[] = "admin";

static void commit(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg) {
  struct api *api = arg;
  const Store__TxnRequest *t = storec_txn_request(txn);
  uint64_t revision = ++api->cache.revision;
  for (size_t i = 0; i < t->n_success; i++) {
    const Store__Op *op = t->success[i];
    const ProtobufCBinaryData *k = op->op_case == STORE__OP__OP_PUT ? &op->put->key : &op->delete_range->key;
    char *key = strndup((const char *)k->data, k->len);
    struct err err;
    if (op->op_case == STORE__OP__OP_PUT) {
      if (api_cache_put(&api->cache, key, op->put->value.data, op->put->value.len, revision, &err) < 0)
        abort(); /* it must never write what it cannot read */
    } else {
      api_cache_del(&api->cache, key);
    }
    free(key);
  }
  storec_txn_free(txn);
  done(done_arg, true, revision, NULL);
}

static void put_token(struct api *api) {
  uint8_t hash[32];
  struct err err;
  crypto_sha256("t", 1, hash);
  Model__Token t = MODEL__TOKEN__INIT;
  t.id = t.name = t.role = role;
  t.has_hash = 1;
  t.hash = (ProtobufCBinaryData){.len = 32, .data = hash};
  if (api_cache_put_message(&api->cache, "/tokens/admin", &t.base, 1, &err) < 0)
    abort();
}

static void one(struct api *api, const char *method, const char *path, const char *query, const uint8_t *body, size_t len) {
  struct api_request *r = api_request_new(api, method, path);
  if (query)
    api_request_add_query(r, query, "true");
  buf_add(&r->body, body, len);
  if (api_admit(api, r, "Bearer t"))
    api_dispatch(api, r);
  if (!r->answered)
    abort();
  if (r->stream) {
    struct buf out = BUF_INIT(1 << 20);
    r->stream->fill(r->stream_arg, &out);
    buf_free(&out);
  } else if (strcmp(r->content_type, "application/json") == 0) {
    json_t *json = json_loadb((const char *)r->out.data, r->out.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (!json)
      abort(); /* what goes out is JSON, whatever came in */
    json_decref(json);
  }
  api_request_unref(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const queries[] = {NULL, "dry_run", "wait", "prune", "purge", "project", "follow", "since", "to"};
  if (size < 2 || size > 65536)
    return 0;
  struct loop *loop = loop_new(NULL, NULL);
  struct api api;
  if (!loop)
    return 0;
  config = (struct node_config){.name = node_name, .address = address, .cluster_id = id};
  api_init(&api, loop, &config);
  api.commit = commit;
  api.commit_arg = &api;
  api.synced = api.in_touch = true;
  put_token(&api);
  const char *query = queries[data[1] % (sizeof queries / sizeof queries[0])];
  one(&api, "POST", "/api/v1/deploy", query, data + 2, size - 2);
  for (int turn = 0; turn < 2; turn++) {
    const struct api_route *route = &api_routes[(data[0] + turn) % api_route_count];
    char path[128], name[32] = "api";
    size_t n = 0;
    for (const char *p = route->path; *p; p++) {
      if (*p == '{') {
        memcpy(path + n, name, 3);
        n += 3;
        p = strchr(p, '}');
      } else {
        path[n++] = *p;
      }
    }
    path[n] = 0;
    one(&api, route->method, path, query, data + 2, size - 2);
  }
  one(&api, "GET", "/api/v1/status", NULL, NULL, 0);
  one(&api, "GET", "/api/v1/services/api", NULL, NULL, 0);
  api_fini(&api);
  loop_free(loop);
  return 0;
}
