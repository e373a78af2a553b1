/* What an agent says of its node: reports of any content, one after the other, while the scheduler has given it two instances and another node one.
 * Nothing of the other node's changes by them, what would be stored can be read back and is within its bounds, and what is shown of it is JSON.
 * Each report: two bytes of length, then the message. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/explain_view.h"
#include "orca-apiserver/round.h"
#include "orca-apiserver/status_view.h"
#include "tests/fuzz/fuzz.h"

#define NOW INT64_C(1700000000000)
#define RECORD_MAX ((size_t)512 << 10)

static struct node_config config;
static char nodes[2][4] = {"n1", "n2"}, address[] = "10.1.0.2", id[] = "fuzz", project[] = "shop", name[] = "api", image[] = "x:1";

static void put(struct api *api, const char *key, const ProtobufCMessage *msg) {
  struct err err;
  if (api_cache_put_message(&api->cache, key, msg, ++api->cache.revision, &err) < 0)
    abort(); /* it must never write what it cannot read */
}

static void put_service(struct api *api) {
  char key[KEY_MAX];
  Model__Service s = MODEL__SERVICE__INIT;
  s.project = project;
  s.name = name;
  PB_SET(&s, revision, 1);
  PB_SET(&s, replicas, 3);
  key_service(key, KEY_SERVICES, project, name);
  put(api, key, &s.base);
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  spec.project = project;
  spec.name = name;
  spec.image = image;
  Model__Revision r = MODEL__REVISION__INIT;
  r.project = project;
  r.name = name;
  r.spec = &spec;
  PB_SET(&r, number, 1);
  key_numbered(key, KEY_REVISIONS, project, name, 1);
  put(api, key, &r.base);
}

static void put_instance(struct api *api, uint64_t number, char *node) {
  char key[KEY_MAX];
  Model__Instance i = MODEL__INSTANCE__INIT;
  i.project = project;
  i.service = name;
  i.node = node;
  PB_SET(&i, number, number);
  PB_SET(&i, revision, 1);
  PB_SET(&i, epoch, 1);
  PB_SET(&i, desired, MODEL__DESIRED__DESIRED_RUN);
  key_numbered(key, KEY_INSTANCES, project, name, number);
  put(api, key, &i.base);
  Model__InstanceStatus s = MODEL__INSTANCE_STATUS__INIT;
  s.project = project;
  s.service = name;
  s.node = node;
  s.address = address;
  PB_SET(&s, number, number);
  PB_SET(&s, epoch, 1);
  PB_SET(&s, phase, MODEL__PHASE__PHASE_RUNNING);
  key_numbered(key, KEY_INSTANCE_STATUS, project, name, number);
  put(api, key, &s.base);
}

/* What the round leaves goes into the cache, as the store would have it. */
static void store(struct api *api, struct api_round *round) {
  Model__Event *events[API_TAKE_EVENTS];
  size_t count;
  while (!api_round_is_empty(round)) {
    if (api_round_take(round, events, &count) < 0)
      abort();
    for (size_t i = 0; i < round->flying.count; i++) {
      const struct api_smap_entry *write = &round->flying.list[i];
      if (!write->value)
        api_cache_del(&api->cache, write->key);
      else if (protobuf_c_message_get_packed_size(write->value) > RECORD_MAX)
        abort();
      else
        put(api, write->key, write->value);
    }
    api_round_landed(round);
    for (size_t i = 0; i < count; i++) {
      char key[KEY_MAX];
      if (strcmp(PB_STR(events[i]->node), nodes[0]) != 0 || protobuf_c_message_get_packed_size(&events[i]->base) > 4096)
        abort();
      key_event(key, KEY_HISTORY_APISERVER, events[i]->ms, (uint32_t)i);
      put(api, key, &events[i]->base);
      model__event__free_unpacked(events[i], NULL);
    }
  }
}

static void take(struct api *api, struct api_round *round, const uint8_t *data, size_t len) {
  struct err err;
  Node__StatusReport *m = (Node__StatusReport *)(void *)pb_unpack(&node__status_report__descriptor, data, len, &err);
  if (!m)
    return;
  for (size_t i = 0; i < m->n_usage; i++)
    api_figures_usage(&api->figures, project, name, 1 + i % 2, m->usage[i], NOW + (int64_t)api->cache.revision);
  api_figures_node(&api->figures, nodes[0], m->cpu_ns, m->memory_used, NOW + (int64_t)api->cache.revision);
  if (api_round_report(round, nodes[0], m, NOW) < 0)
    abort();
  node__status_report__free_unpacked(m, NULL);
  store(api, round);
}

static void show(const struct api *api) {
  const Model__Service *service = api_cache_service(&api->cache, project, name, NULL);
  struct buf out = BUF_INIT((size_t)16 << 20);
  struct api_json json = {.out = &out};
  api_json_object(&json, NULL);
  api_view_detail_json(&api->cache, &api->figures, service, &json);
  api_json_object(&json, "explained");
  api_explain_json(&api->cache, &api->figures, NULL, service, &json);
  api_json_object_end(&json);
  api_json_object_end(&json);
  json_t *parsed = json_loadb(buf_str(&out), out.len, 0, NULL);
  if (!parsed)
    abort();
  json_decref(parsed);
  buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct loop *loop = size && size <= 1 << 16 ? loop_new(NULL, NULL) : NULL;
  struct api api;
  struct api_round round;
  if (!loop)
    return 0;
  config = (struct node_config){.name = nodes[0], .address = address, .cluster_id = id};
  api_init(&api, loop, &config);
  api_round_init(&round, &api.cache);
  put_service(&api);
  for (uint64_t n = 1; n <= 3; n++)
    put_instance(&api, n, nodes[n == 3]);
  const Model__InstanceStatus *others = api_cache_instance_status(&api.cache, api_cache_instance(&api.cache, project, name, 3));
  ProtobufCMessage *before = pb_clone(&others->base);
  while (size >= 2) {
    size_t len = (size_t)data[0] << 8 | data[1];
    data += 2;
    size -= 2;
    len = len < size ? len : size;
    uint8_t *exact = malloc(len ? len : 1); /* so that reading one byte too far is seen */
    if (!exact)
      break;
    memcpy(exact, data, len);
    take(&api, &round, exact, len);
    free(exact);
    data += len;
    size -= len;
  }
  others = api_cache_instance_status(&api.cache, api_cache_instance(&api.cache, project, name, 3));
  if (!others || !pb_equal(before, &others->base) || api_cache_node_status(&api.cache, nodes[1]))
    abort();
  protobuf_c_message_free_unpacked(before, NULL);
  show(&api);
  api_round_fini(&round);
  api_fini(&api);
  loop_free(loop);
  return 0;
}
