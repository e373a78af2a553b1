/* The API's form. JSON becomes a tree like TOML's, so that the same reader checks both. */
#include "common/spec/spec_set.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec_keys.h"

#define SERVICES_MAX 10000

struct toml_value *spec_tree_from_json(struct toml_doc *doc, const json_t *json, unsigned depth) {
  struct toml_value *v;
  size_t i;
  json_t *item;
  const char *key;
  if (depth > TOML_DEPTH)
    return toml_new(doc, TOML_BOOL); /* deeper than anything we know: the wrong type, wherever it stands */
  switch (json_typeof(json)) {
  case JSON_OBJECT:
    v = toml_new(doc, TOML_TABLE);
    json_object_foreach((json_t *)(uintptr_t)json, key, item) {
      if (json_is_null(item)) /* the same as absent */
        continue;
      if (!v || !toml_table_add(doc, v, key, strlen(key), spec_tree_from_json(doc, item, depth + 1)))
        return NULL;
    }
    return v;
  case JSON_ARRAY:
    v = toml_new(doc, TOML_ARRAY);
    json_array_foreach(json, i, item) {
      if (!v || toml_array_add(doc, v, spec_tree_from_json(doc, item, depth + 1)) < 0)
        return NULL;
    }
    return v;
  case JSON_STRING:
    return toml_new_string(doc, json_string_value(json), json_string_length(json));
  case JSON_INTEGER:
    if ((v = toml_new(doc, TOML_INTEGER)))
      v->integer = json_integer_value(json);
    return v;
  case JSON_REAL:
    if ((v = toml_new(doc, TOML_FLOAT)))
      v->number = json_real_value(json);
    return v;
  case JSON_TRUE:
  case JSON_FALSE:
  case JSON_NULL:
    break;
  }
  if ((v = toml_new(doc, TOML_BOOL)))
    v->boolean = json_is_true(json);
  return v;
}

json_t *spec_tree_to_json(const struct toml_value *value) {
  json_t *json;
  switch (value->type) {
  case TOML_TABLE:
    json = json_object();
    for (size_t i = 0; json && i < value->table.count; i++) {
      if (json_object_set_new(json, value->table.entries[i].key, spec_tree_to_json(value->table.entries[i].value)) < 0) {
        json_decref(json);
        return NULL;
      }
    }
    return json;
  case TOML_ARRAY:
    json = json_array();
    for (size_t i = 0; json && i < value->array.count; i++) {
      if (json_array_append_new(json, spec_tree_to_json(value->array.items[i])) < 0) {
        json_decref(json);
        return NULL;
      }
    }
    return json;
  case TOML_STRING:
    return json_stringn(value->string.data, value->string.len);
  case TOML_INTEGER:
    return json_integer(value->integer);
  case TOML_FLOAT:
    return json_real(value->number);
  case TOML_BOOL:
    return json_boolean(value->boolean);
  default: { /* dates: no key of ours takes one */
    struct buf text = BUF_INIT(64);
    toml_print_value(value, &text);
    json = json_string(buf_str(&text));
    buf_free(&text);
    return json;
  }
  }
}

/* ---- printing ---- */

static json_t *message_to_json(const struct spec_table *table, const ProtobufCMessage *msg) {
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *tree = doc ? spec_write_table(doc, table, msg) : NULL;
  json_t *json = tree ? spec_tree_to_json(tree) : NULL;
  toml_free(doc);
  return json;
}

json_t *spec_service_to_json(const Model__ServiceSpec *spec) {
  return message_to_json(spec_table_of(spec), &spec->base);
}

json_t *spec_cluster_to_json(const Model__ClusterSpec *cluster) {
  return message_to_json(&spec_cluster_file, &cluster->base);
}

static json_t *base64(const uint8_t *data, size_t len) {
  size_t size = CRYPTO_BASE64_LEN(len);
  char *text = malloc(size + 1);
  if (!text)
    return NULL;
  crypto_base64(data, len, text);
  json_t *json = json_stringn(text, size);
  free(text);
  return json;
}

json_t *spec_set_to_json(const struct spec_set *set) {
  json_t *root = json_object(), *services = json_array(), *jobs = json_array(), *files = json_object();
  int rc = json_object_set_new(root, "services", services);
  rc = json_object_set_new(root, "jobs", jobs) < 0 ? -1 : rc;
  for (size_t i = 0; rc == 0 && i < set->service_count; i++)
    rc = json_array_append_new(set->services[i]->job ? jobs : services, spec_service_to_json(set->services[i]));
  if (rc == 0 && set->cluster)
    rc = json_object_set_new(root, "cluster", spec_cluster_to_json(set->cluster));
  if (rc == 0)
    rc = json_object_set_new(root, "files", files);
  else
    json_decref(files);
  for (size_t i = 0; rc == 0 && i < set->file_count; i++)
    rc = json_object_set_new(files, set->files[i].sha256, base64(set->files[i].content, set->files[i].len));
  if (rc == 0)
    return root;
  json_decref(root);
  return NULL;
}

/* ---- reading ---- */

/* NULL when it is not base64, or holds more than `max` bytes. */
static uint8_t *base64_bytes(const char *text, size_t len, size_t max, size_t *ret_len) {
  if (len / 4 * 3 > max + 2)
    return NULL;
  uint8_t *data = malloc(len / 4 * 3 + 1);
  if (data && crypto_from_base64(text, len, data, len / 4 * 3, ret_len) < 0) {
    free(data);
    return NULL;
  }
  return data;
}

static void read_files(struct spec_reader *r, const struct toml_value *files, struct spec_set *set) {
  if (files->type != TOML_TABLE) {
    spec_fault(r, files, "expected an object of SHA-256: base64");
    return;
  }
  size_t all = 0;
  for (size_t i = 0; i < files->table.count; i++) {
    const struct toml_entry *e = &files->table.entries[i];
    const struct toml_value *v = e->value;
    size_t mark = spec_path_push(r, ".%.64s", e->key), len = 0;
    uint8_t hash[32], *content = v->type == TOML_STRING ? base64_bytes(v->string.data, v->string.len, SPEC_FILE_MAX, &len) : NULL;
    char hex[65] = "";
    if (content) {
      crypto_sha256(content, len, hash);
      crypto_hex(hash, sizeof hash, hex);
    }
    if (!content)
      spec_fault(r, v, "must be base64 of at most %d bytes", SPEC_FILE_MAX);
    else if (len > SPEC_FILE_MAX || (all += len) > SPEC_FILES_MAX)
      spec_fault(r, v, "larger than %d bytes, or %d bytes of files in all", SPEC_FILE_MAX, SPEC_FILES_MAX);
    else if (strcmp(hex, e->key) != 0)
      spec_fault(r, v, "the content's SHA-256 is another one");
    else {
      if (spec_set_add_file(set, hex, content, len) < 0)
        r->memory = true;
      content = NULL;
    }
    free(content);
    spec_path_pop(r, mark);
  }
}

static void read_root(struct spec_reader *r, const struct toml_value *root, struct spec_set *set) {
  static const struct spec_key services = {.name = "services", .kind = SPEC_TABLES, .table = &spec_service_table};
  static const struct spec_key jobs = {.name = "jobs", .kind = SPEC_TABLES, .table = &spec_job_table};
  for (size_t i = 0; i < root->table.count; i++) {
    const struct toml_entry *e = &root->table.entries[i];
    size_t mark = spec_path_push(r, "%.64s", e->key);
    bool of_jobs = strcmp(e->key, "jobs") == 0;
    if (of_jobs || strcmp(e->key, "services") == 0) {
      if (e->value->type != TOML_ARRAY)
        spec_fault(r, e->value, "expected an array");
      else if (e->value->array.count > SERVICES_MAX)
        spec_fault(r, e->value, "more than %d %s", SERVICES_MAX, e->key);
      else
        spec_read_services(r, of_jobs ? &jobs : &services, e->value, set);
    } else if (strcmp(e->key, "cluster") == 0) {
      if (e->value->type != TOML_TABLE)
        spec_fault(r, e->value, "expected an object");
      else if (!(set->cluster = (Model__ClusterSpec *)spec_message_new(&model__cluster_spec__descriptor)))
        r->memory = true;
      else
        spec_read_table(r, &spec_cluster_file, e->value, set->cluster);
    } else if (strcmp(e->key, "files") == 0) {
      read_files(r, e->value, set);
    } else {
      spec_fault(r, e->value, "unknown key: known are services, jobs, cluster, files");
    }
    spec_path_pop(r, mark);
  }
}

int spec_set_from_json(const json_t *json, struct spec_set *ret, struct spec_faults *faults) {
  struct spec_set set = {0};
  struct spec_reader r = {.faults = faults, .file = "", .path = BUF_INIT(1024), .resolved = true};
  size_t first = faults->count;
  if (!json_is_object(json)) {
    spec_fault_add(faults, "", 0, 0, "", "expected an object with `services` or `jobs`");
    return -1;
  }
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *root = doc ? spec_tree_from_json(doc, json, 0) : NULL;
  if (root)
    read_root(&r, root, &set);
  if (!root || r.memory)
    spec_fault_add(faults, "", 0, 0, "", "out of memory");
  toml_free(doc);
  buf_free(&r.path);
  if (faults->count > first) {
    spec_set_free(&set);
    return -1;
  }
  *ret = set;
  return 0;
}
