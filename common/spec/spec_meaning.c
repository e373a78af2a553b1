/* What a spec means: defaults, and what makes two of them the same revision. */
#include "common/spec/spec.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec_table.h"

/* The default of a row, read by the same reader as what people write. Defaults in words begin with ( and are no values. */
static void fill_key(const struct spec_table *table, const struct spec_key *key, ProtobufCMessage *msg) {
  struct spec_faults faults = {0};
  struct spec_reader r = {.faults = &faults, .path = BUF_INIT(256)};
  char text[64];
  const char *from = key->otherwise;
  struct toml_value value = {.type = TOML_STRING}, array = {.type = TOML_ARRAY}, *items[1] = {&value};
  bool list = *from == '[';
  if (list)
    from++;
  if (*from == '"') {
    size_t len = strcspn(from + 1, "\"");
    if (len >= sizeof text)
      return;
    memcpy(text, from + 1, len);
    text[len] = 0;
    value.string.data = text;
    value.string.len = len;
  } else if (key->kind == SPEC_BOOL) {
    value.type = TOML_BOOL;
    value.boolean = *from == 't';
  } else {
    value.type = TOML_INTEGER;
    value.integer = strtoll(from, NULL, 10);
  }
  array.array.items = items;
  array.array.count = 1;
  spec_read_key(&r, key, list ? &array : &value, table, msg);
  spec_faults_free(&faults);
  buf_free(&r.path);
}

static void fill(const struct spec_table *table, ProtobufCMessage *msg) {
  for (size_t i = 0; i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    if (key->flags & (SPEC_LATER | SPEC_SHORT | spec_without(table)))
      continue;
    if (key->within) {
      ProtobufCMessage *inner = *spec_within(msg, key->within);
      struct spec_key plain = *key;
      plain.within = NULL;
      plain.flags &= ~(unsigned)(SPEC_OF_JOB | SPEC_OF_SERVICE);
      const struct spec_table one = {.desc = inner ? inner->descriptor : NULL, .keys = &plain, .count = 1};
      if (inner)
        fill(&one, inner);
      continue;
    }
    if (!key->field) {
      if (key->kind == SPEC_TABLE && key->table->desc == table->desc && table->desc)
        fill(key->table, msg);
      continue;
    }
    const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(table->desc, key->field);
    bool present = spec_field_present(msg, fd);
    if (key->kind == SPEC_TABLE) {
      ProtobufCMessage **sub = spec_field(msg, fd);
      if (!present && key->flags & SPEC_ALWAYS)
        *sub = spec_message_new(fd->descriptor);
      if (*sub)
        fill(key->table, *sub);
    } else if (key->kind == SPEC_TABLES && key->table->desc) {
      size_t count = *(size_t *)((char *)msg + fd->quantifier_offset);
      ProtobufCMessage **list = *(ProtobufCMessage ***)spec_field(msg, fd);
      for (size_t n = 0; n < count; n++)
        fill(key->table, list[n]);
    } else if (!present && key->otherwise && *key->otherwise != '(') {
      fill_key(table, key, msg);
    }
  }
}

const struct spec_table *spec_table_of(const struct Model__ServiceSpec *spec) {
  return spec->job ? &spec_job_table : &spec_service_table;
}

Model__RestartPolicy spec_restart(const Model__ServiceSpec *spec) {
  return spec->job ? MODEL__RESTART_POLICY__RESTART_NEVER : PB_GET(spec, restart, MODEL__RESTART_POLICY__RESTART_ALWAYS);
}

static Model__PullPolicy pull_by_tag(const char *image) {
  const char *slash = strrchr(image, '/'), *name = slash ? slash + 1 : image, *tag = strchr(name, ':');
  if (strchr(name, '@'))
    return MODEL__PULL_POLICY__PULL_IF_ABSENT;
  return !tag || strcmp(tag, ":latest") == 0 ? MODEL__PULL_POLICY__PULL_ALWAYS : MODEL__PULL_POLICY__PULL_IF_ABSENT;
}

void spec_fill_probe(Model__Probe *probe, uint32_t port) {
  const struct spec_key *key = spec_find_key(&spec_service_table, "readiness");
  fill(key->table, &probe->base);
  if (!probe->has_port && !probe->n_exec && port)
    PB_SET(probe, port, port);
}

void spec_fill_defaults(Model__ServiceSpec *spec) {
  fill(spec_table_of(spec), &spec->base);
  Model__Probe *const probes[] = {spec->readiness, spec->startup, spec->liveness};
  for (int i = 0; i < 3; i++)
    if (probes[i] && !probes[i]->n_exec && !probes[i]->has_port && spec->has_port)
      PB_SET(probes[i], port, spec->port);
  if (!spec->has_pull && spec->image)
    PB_SET(spec, pull, pull_by_tag(spec->image));
  if (!spec->network && spec->project)
    spec->network = strdup(spec->project);
  if (spec->resources && spec->resources->has_memory && !spec->resources->has_memory_request)
    PB_SET(spec->resources, memory_request, spec->resources->memory);
}

void spec_fill_cluster_defaults(Model__ClusterSpec *cluster) {
  fill(&spec_cluster_file, &cluster->base);
}

/* ---- revisions ---- */

static int by_key(const void *a, const void *b) {
  const Model__Pair *const *x = a, *const *y = b;
  return strcmp(PB_STR((*x)->key), PB_STR((*y)->key));
}

static void sort(Model__Pair **pairs, size_t count) {
  if (count > 1)
    qsort(pairs, count, sizeof *pairs, by_key);
}

/* A copy in which what means the same looks the same: defaults filled in, maps in order; and without replicas. */
static Model__ServiceSpec *canonical(const Model__ServiceSpec *spec) {
  Model__ServiceSpec *copy = (Model__ServiceSpec *)pb_clone(&spec->base);
  if (!copy)
    return NULL;
  spec_fill_defaults(copy);
  copy->has_replicas = 0;
  copy->replicas = 0;
  sort(copy->labels, copy->n_labels);
  sort(copy->env, copy->n_env);
  if (copy->placement)
    sort(copy->placement->labels, copy->placement->n_labels);
  for (size_t i = 0; i < copy->n_volumes; i++)
    sort(copy->volumes[i]->options, copy->volumes[i]->n_options);
  return copy;
}

void spec_hash(const Model__ServiceSpec *spec, char out[65]) {
  struct buf packed = BUF_INIT(SIZE_MAX / 2);
  Model__ServiceSpec *copy = canonical(spec);
  uint8_t hash[32] = {0};
  if (copy && pb_pack(&copy->base, &packed) == 0)
    crypto_sha256(packed.data, packed.len, hash);
  crypto_hex(hash, sizeof hash, out);
  buf_free(&packed);
  if (copy)
    model__service_spec__free_unpacked(copy, NULL);
}

bool spec_same_revision(const Model__ServiceSpec *a, const Model__ServiceSpec *b) {
  Model__ServiceSpec *x = canonical(a), *y = canonical(b);
  bool same = x && y && pb_equal(&x->base, &y->base);
  if (x)
    model__service_spec__free_unpacked(x, NULL);
  if (y)
    model__service_spec__free_unpacked(y, NULL);
  return same;
}

bool spec_binds_node_resource(const Model__ServiceSpec *spec) {
  bool own_port = PB_GET(spec, port, 0) && strcmp(PB_STR(spec->network), "host") == 0; /* then it is the node's */
  return own_port || PB_GET(spec, host_port, 0) || spec->n_extra_ports || spec->n_volumes;
}
