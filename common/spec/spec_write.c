/* From messages to trees, by the table; and a tree's text. */
#include "common/spec/spec_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

static uint64_t number_of(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd) {
  const void *at = spec_field(msg, fd);
  switch (fd->type) {
  case PROTOBUF_C_TYPE_UINT64:
    return *(const uint64_t *)at;
  case PROTOBUF_C_TYPE_BOOL:
    return *(const protobuf_c_boolean *)at != 0;
  case PROTOBUF_C_TYPE_ENUM:
    return (uint64_t) * (const int *)at;
  default:
    return *(const uint32_t *)at;
  }
}

static struct toml_value *text_value(struct toml_doc *doc, const char *text) {
  return toml_new_string(doc, text, strlen(text));
}

static struct toml_value *write_choice(struct toml_doc *doc, const struct spec_key *key, const ProtobufCMessage *msg,
                                       const ProtobufCFieldDescriptor *fd, bool *absent) {
  if (fd->type == PROTOBUF_C_TYPE_STRING)
    return text_value(doc, *(char **)spec_field(msg, fd));
  int v = (int)number_of(msg, fd);
  for (const struct spec_choice *c = key->choices; c->text; c++)
    if (c->value == v && !c->alias && !c->later)
      return text_value(doc, c->text);
  *absent = true; /* a value that only a newer version knows */
  return NULL;
}

static struct toml_value *write_strings(struct toml_doc *doc, char *const *list, size_t count) {
  struct toml_value *array = toml_new(doc, TOML_ARRAY);
  for (size_t i = 0; array && i < count; i++)
    if (toml_array_add(doc, array, text_value(doc, list[i])) < 0)
      return NULL;
  return array;
}

static struct toml_value *write_map(struct toml_doc *doc, Model__Pair *const *pairs, size_t count) {
  struct toml_value *table = toml_new(doc, TOML_TABLE);
  for (size_t i = 0; table && i < count; i++) {
    const char *key = PB_STR(pairs[i]->key);
    if (!toml_get(table, key) && !toml_table_add(doc, table, key, strlen(key), text_value(doc, PB_STR(pairs[i]->value))))
      return NULL;
  }
  return table;
}

static struct toml_value *write_tables(struct toml_doc *doc, const struct spec_key *key, ProtobufCMessage *const *list, size_t count) {
  struct toml_value *array = toml_new(doc, TOML_ARRAY);
  for (size_t i = 0; array && i < count; i++)
    if (toml_array_add(doc, array, spec_write_table(doc, key->table, list[i])) < 0)
      return NULL;
  return array;
}

static struct toml_value *write_key(struct toml_doc *doc, const struct spec_key *key, const ProtobufCMessage *msg, bool *absent) {
  char text[32];
  *absent = false;
  if (key->within) {
    const ProtobufCMessage *inner = *spec_within(msg, key->within);
    struct spec_key plain = *key;
    plain.within = NULL;
    *absent = !inner;
    return inner ? write_key(doc, &plain, inner, absent) : NULL;
  }
  if (key->write)
    return key->write(doc, key, msg, absent);
  if (!key->field) {
    struct toml_value *table = key->kind == SPEC_TABLE && key->table->desc ? spec_write_table(doc, key->table, msg) : NULL;
    *absent = !(key->kind == SPEC_TABLE && key->table->desc) || (table && table->table.count == 0);
    return *absent ? NULL : table;
  }
  const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(msg->descriptor, key->field);
  if (!spec_field_present(msg, fd)) {
    *absent = true;
    return NULL;
  }
  const void *at = spec_field(msg, fd);
  size_t count = fd->label == PROTOBUF_C_LABEL_REPEATED ? *(const size_t *)((const char *)msg + fd->quantifier_offset) : 0;
  struct toml_value *v;
  switch (key->kind) {
  case SPEC_STRING:
    return text_value(doc, *(char *const *)at);
  case SPEC_INTEGER:
    if ((v = toml_new(doc, TOML_INTEGER)))
      v->integer = (int64_t)number_of(msg, fd);
    return v;
  case SPEC_CPU:
    if ((v = toml_new(doc, TOML_FLOAT)))
      v->number = (double)number_of(msg, fd) / 1000;
    return v;
  case SPEC_BOOL:
    if ((v = toml_new(doc, TOML_BOOL)))
      v->boolean = number_of(msg, fd) != 0;
    return v;
  case SPEC_DURATION:
    spec_print_duration(number_of(msg, fd), text);
    return text_value(doc, text);
  case SPEC_SIZE:
    spec_print_size(number_of(msg, fd), text);
    return text_value(doc, text);
  case SPEC_CHOICE:
    return write_choice(doc, key, msg, fd, absent);
  case SPEC_STRINGS:
    return write_strings(doc, *(char **const *)at, count);
  case SPEC_MAP:
    return write_map(doc, *(Model__Pair * *const *)at, count);
  case SPEC_TABLE:
    return spec_write_table(doc, key->table, *(ProtobufCMessage *const *)at);
  case SPEC_TABLES:
    return write_tables(doc, key, *(ProtobufCMessage * *const *)at, count);
  }
  *absent = true;
  return NULL;
}

struct toml_value *spec_write_table(struct toml_doc *doc, const struct spec_table *table, const ProtobufCMessage *msg) {
  struct toml_value *tree = toml_new(doc, TOML_TABLE);
  for (size_t i = 0; tree && i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    if (key->flags & (SPEC_LATER | SPEC_SHORT | spec_without(table)))
      continue;
    bool absent;
    struct toml_value *v = write_key(doc, key, msg, &absent);
    if (!absent && (!v || !toml_table_add(doc, tree, key->name, strlen(key->name), v)))
      return NULL;
  }
  return tree;
}

int spec_service_to_toml(const Model__ServiceSpec *spec, struct buf *to) {
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *array = doc ? toml_new(doc, TOML_ARRAY) : NULL;
  int rc = -1;
  const char *kind = spec->job ? "job" : "service";
  if (array && toml_array_add(doc, array, spec_write_table(doc, spec_table_of(spec), &spec->base)) == 0 &&
      toml_table_add(doc, toml_root(doc), kind, strlen(kind), array))
    rc = toml_print(toml_root(doc), to);
  toml_free(doc);
  return rc;
}

int spec_cluster_to_toml(const Model__ClusterSpec *cluster, struct buf *to) {
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *tree = doc ? spec_write_table(doc, &spec_cluster_file, &cluster->base) : NULL;
  int rc = tree ? toml_print(tree, to) : -1;
  toml_free(doc);
  return rc;
}
