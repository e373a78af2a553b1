/* Specs: no text crashes the readers; a service that is accepted prints as TOML and JSON that read back as the same message, and its revision is
 * the same with defaults filled in. The first byte chooses the kind of document. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/node_config.h"
#include "common/spec/spec.h"
#include "tests/fuzz/fuzz.h"

static const char *lookup(const char *name) {
  if (*name == 'T') /* one that is good as a token */
    return "a1b2c3d4e5f60718293a4b5c6d7e8f90";
  return strlen(name) % 2 ? "x${y}$" : NULL;
}

static void same(const struct spec_set *a, const struct spec_set *b) {
  if (a->service_count != b->service_count)
    abort();
  for (size_t i = 0; i < a->service_count; i++)
    if (!pb_equal(&a->services[i]->base, &b->services[i]->base))
      abort();
}

static void use(struct spec_set *set) {
  struct spec_faults faults = {0};
  json_t *json = spec_set_to_json(set);
  struct spec_set again = {0};
  if (!json)
    abort();
  if (spec_set_from_json(json, &again, &faults) == 0)
    same(set, &again);
  else
    for (size_t i = 0; i < faults.count; i++)
      if (!strstr(faults.list[i].message, "is not filled in")) /* the one thing that files may hold and the API does not take */
        abort();
  spec_faults_free(&faults);
  spec_set_free(&again);
  json_decref(json);
  for (size_t i = 0; i < set->service_count && i < 4; i++) {
    struct buf text = BUF_INIT(16u << 20);
    if (spec_service_to_toml(set->services[i], &text) < 0 || spec_parse_services("f", buf_str(&text), text.len, "p", &again, &faults) < 0)
      abort();
    if (again.service_count != 1 || !pb_equal(&again.services[0]->base, &set->services[i]->base))
      abort();
    spec_fill_defaults(again.services[0]);
    if (!spec_same_revision(again.services[0], set->services[i]))
      abort();
    struct buf diff = BUF_INIT(32u << 20);
    spec_diff(set->services[i], again.services[0], &diff);
    buf_free(&diff);
    buf_free(&text);
    spec_set_free(&again);
  }
  spec_check_set(set, NULL, 0, set->cluster, &faults);
  spec_faults_free(&faults);
  if (spec_resolve_env(set, lookup, &faults) == 0)
    for (size_t i = 0; i < set->service_count; i++)
      if (spec_check_stored(set->services[i], NULL) < 0)
        abort();
  spec_faults_free(&faults);
}

/* A token's text goes no further than to its hash: not into what is sent, nor into a complaint. */
static void check_tokens(Model__ClusterSpec *cluster) {
  struct spec_set set = {.cluster = cluster}, again = {0};
  struct spec_faults faults = {0};
  size_t count = cluster->n_tokens;
  char **texts = calloc(count + 1, sizeof *texts);
  if (!texts)
    abort();
  for (size_t i = 0; i < count; i++)
    texts[i] = strdup(PB_STR(cluster->tokens[i]->value));
  if (spec_resolve_env(&set, lookup, &faults) == 0) {
    for (size_t i = 0; i < count; i++)
      if (set.cluster->tokens[i]->value || !set.cluster->tokens[i]->has_hash || set.cluster->tokens[i]->hash.len != 32)
        abort();
    json_t *json = spec_set_to_json(&set);
    if (!json || spec_set_from_json(json, &again, &faults) < 0 || !again.cluster || !pb_equal(&again.cluster->base, &set.cluster->base))
      abort();
    json_decref(json);
  }
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < faults.count; k++)
      if (fuzz_tells(faults.list[k].message, texts[i], strlen(texts[i])))
        abort();
  for (size_t i = 0; i < count; i++)
    free(texts[i]);
  free(texts);
  spec_faults_free(&faults);
  spec_set_free(&again);
  spec_set_free(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  const char *text = (const char *)data + 1;
  size_t len = size - 1;
  struct spec_faults faults = {0};
  struct spec_set set = {0};
  struct err err;
  switch (data[0] % 4) {
  case 0:
    if (spec_parse_services("f", text, len, "shop", &set, &faults) == 0)
      use(&set);
    break;
  case 1: {
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (json && spec_set_from_json(json, &set, &faults) == 0)
      use(&set);
    json_decref(json);
    break;
  }
  case 2: {
    Model__ClusterSpec *cluster = NULL;
    if (spec_parse_cluster("f", text, len, &cluster, &faults) == 0) {
      struct buf out = BUF_INIT(16u << 20);
      if (spec_cluster_to_toml(cluster, &out) < 0)
        abort();
      Model__ClusterSpec *again = NULL;
      if (spec_parse_cluster("f", buf_str(&out), out.len, &again, &faults) < 0 || !pb_equal(&cluster->base, &again->base))
        abort();
      model__cluster_spec__free_unpacked(again, NULL);
      check_tokens(cluster);
      buf_free(&out);
    }
    break;
  }
  default: {
    struct node_config config = {0};
    if (node_config_parse("f", text, len, &config, &faults, &err) == 0)
      node_config_free(&config);
  }
  }
  spec_set_free(&set);
  spec_faults_free(&faults);
  return 0;
}
