#include "orca-apiserver/gateway_files.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"

struct gw_file {
  struct bus_call *call; /* NULL once the agent is gone */
};

static void file_cancelled(void *arg) {
  ((struct gw_file *)arg)->call = NULL;
}

static const struct bus_answer_ops file_ops = {.cancelled = file_cancelled};

static void file_answer(struct gw_file *f, const Store__RangeReply *range) {
  struct err err;
  if (!range->n_kvs) {
    err_set(&err, ERR_NOT_FOUND, "no such file");
    bus_fail(f->call, &err);
    return;
  }
  const ProtobufCBinaryData *value = &range->kvs[0]->value;
  Model__File *file = (Model__File *)(void *)pb_unpack(&model__file__descriptor, value->data, value->len, &err);
  if (!file) {
    bus_fail(f->call, &err);
    return;
  }
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_FILE;
  reply.file = file;
  bus_reply(f->call, &reply.base);
  model__file__free_unpacked(file, NULL);
}

static void file_done(void *arg, const Store__Reply *reply, const struct err *err) {
  struct gw_file *f = arg;
  struct err other;
  if (f->call && reply && reply->body_case == STORE__REPLY__BODY_RANGE) {
    file_answer(f, reply->range);
  } else if (f->call) {
    err_set(&other, ERR_INTERNAL, "the store answered something else");
    bus_fail(f->call, err ? err : &other);
  }
  free(f);
}

static bool mounts_it(const Model__ServiceSpec *spec, const char *sha256) {
  for (size_t m = 0; spec && m < spec->n_mounts; m++)
    for (size_t f = 0; f < spec->mounts[m]->n_files; f++)
      if (strcmp(PB_STR(spec->mounts[m]->files[f]->sha256), sha256) == 0)
        return true;
  return false;
}

bool gw_file_is_of(const struct api_cache *cache, const char *node, const char *sha256) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_INSTANCES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *one = API_MSG(&all[i], Model__Instance);
    if (strcmp(PB_STR(one->node), node) != 0)
      continue;
    const Model__Revision *revision = api_cache_revision(cache, PB_STR(one->project), PB_STR(one->service), one->revision);
    if (revision && mounts_it(revision->spec, sha256))
      return true;
  }
  return false;
}

int gw_file_get(struct api *api, const char *node, struct bus_call *call, const Node__GetFile *get, struct err *err) {
  const char *sha = PB_STR(get->sha256);
  if (strlen(sha) != 64 || strspn(sha, "0123456789abcdef") != 64)
    return err_set(err, ERR_INVALID, "sha256: 64 hex digits");
  if (!gw_file_is_of(&api->cache, node, sha))
    return err_set(err, ERR_DENIED, "nothing that this node runs has that file");
  struct gw_file *f = api->store ? calloc(1, sizeof *f) : NULL;
  if (!f)
    return err_set(err, ERR_UNAVAILABLE, "files cannot be read now");
  f->call = call;
  bus_answer_on(call, &file_ops, f);
  char key[KEY_MAX];
  key_named(key, KEY_FILES, sha);
  Store__RangeRequest range = STORE__RANGE_REQUEST__INIT;
  range.has_key = 1;
  range.key = (ProtobufCBinaryData){.len = strlen(key), .data = (uint8_t *)key};
  Store__Call ask = STORE__CALL__INIT;
  ask.body_case = STORE__CALL__BODY_RANGE;
  ask.range = &range;
  storec_call(api->store, &ask, API_COMMIT_TIMEOUT, file_done, f);
  return 0;
}
