/* ${env.X}, ${secrets.X} and $${ in strings. */
#include "common/spec/spec_keys.h"
#include "common/spec/spec_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX (256u << 10)

int spec_unescape(const char *value, struct buf *to, struct err *err) {
  for (const char *p = value; *p; p++) {
    if (p[0] == '$' && p[1] == '$' && p[2] == '{') {
      buf_add_str(to, "${");
      p += 2;
    } else if (p[0] == '$' && p[1] == '{') {
      return err_set(err, ERR_UNPROCESSABLE, "an unresolved ${ is left");
    } else {
      buf_add_byte(to, (uint8_t)*p);
    }
  }
  return buf_failed(to) ? err_set(err, ERR_MEMORY, "out of memory") : 0;
}

struct resolver {
  struct toml_doc *doc;
  struct spec_reader *reader;
  const char *(*lookup)(const char *name);
};

/* What a variable holds is text, not references: its ${ becomes $${, also where it only arises with what follows. */
static void add_literal(struct buf *to, const char *text, char next) {
  for (const char *p = text; *p; p++) {
    char after = p[1] ? p[1] : next;
    if (*p == '$' && after == '{')
      buf_add_byte(to, '$');
    buf_add_byte(to, (uint8_t)*p);
  }
}

static void resolve_string(struct resolver *s, struct toml_value *v) {
  struct buf out = BUF_INIT(VALUE_MAX);
  bool ok = true;
  for (const char *p = v->string.data; *p;) {
    bool escaped = p > v->string.data && p[-1] == '$';
    const char *end = !escaped && strncmp(p, "${env.", 6) == 0 ? strchr(p, '}') : NULL;
    char name[256];
    if (!end || (size_t)(end - p) - 6 >= sizeof name) {
      buf_add_byte(&out, (uint8_t)*p++);
      continue;
    }
    memcpy(name, p + 6, (size_t)(end - p) - 6);
    name[end - p - 6] = 0;
    const char *found = s->lookup(name);
    if (found) {
      add_literal(&out, found, end[1]);
    } else {
      spec_fault(s->reader, v, "the environment has no variable %s", name);
      ok = false;
    }
    p = end + 1;
  }
  if (buf_failed(&out)) {
    spec_fault(s->reader, v, "longer than %u bytes once its variables are filled in", VALUE_MAX);
  } else if (ok) {
    struct toml_value *copy = toml_new_string(s->doc, buf_str(&out), out.len);
    if (copy)
      v->string = copy->string;
    else
      s->reader->memory = true;
  }
  buf_free(&out);
}

static void resolve(struct resolver *s, struct toml_value *v) {
  size_t mark = s->reader->path.len;
  if (v->type == TOML_STRING) {
    resolve_string(s, v);
  } else if (v->type == TOML_ARRAY) {
    for (size_t i = 0; i < v->array.count; i++) {
      spec_path_push(s->reader, "[%zu]", i);
      resolve(s, v->array.items[i]);
      spec_path_pop(s->reader, mark);
    }
  } else if (v->type == TOML_TABLE) {
    for (size_t i = 0; i < v->table.count; i++) {
      spec_path_push(s->reader, "%s%s", mark ? "." : "", v->table.entries[i].key);
      resolve(s, v->table.entries[i].value);
      spec_path_pop(s->reader, mark);
    }
  }
}

/* A message through its tree: references filled in, then read again, so that what they stand for is checked like what is written. */
static ProtobufCMessage *resolved(struct spec_reader *r, const struct spec_table *table, const ProtobufCMessage *msg,
                                  const char *(*lookup)(const char *)) {
  struct resolver s = {.doc = toml_doc_new(), .reader = r, .lookup = lookup};
  struct toml_value *tree = s.doc ? spec_write_table(s.doc, table, msg) : NULL;
  ProtobufCMessage *copy = tree ? spec_message_new(table->desc) : NULL;
  if (copy) {
    size_t before = r->faults->count;
    resolve(&s, tree);
    if (r->faults->count == before)
      spec_read_table(r, table, tree, copy);
  } else {
    r->memory = true;
  }
  toml_free(s.doc);
  return copy;
}

int spec_resolve_env(struct spec_set *set, const char *(*lookup)(const char *name), struct spec_faults *faults) {
  size_t first = faults->count;
  for (size_t i = 0; i <= set->service_count; i++) {
    bool cluster = i == set->service_count;
    if (cluster && !set->cluster)
      break;
    struct spec_reader r = {.faults = faults,
                            .file = cluster                                  ? "cluster.toml"
                                    : set->place_count == set->service_count ? set->places[i].file
                                                                             : "",
                            .path = BUF_INIT(1024)};
    if (!cluster)
      spec_path_push(&r, "%s/%s", set->services[i]->project, set->services[i]->name);
    size_t before = faults->count;
    ProtobufCMessage **at = cluster ? (ProtobufCMessage **)&set->cluster : (ProtobufCMessage **)&set->services[i];
    ProtobufCMessage *copy = resolved(&r, cluster ? &spec_cluster_file : spec_table_of(set->services[i]), *at, lookup);
    if (!copy || r.memory) {
      spec_fault_add(faults, r.file, 0, 0, "", "out of memory");
    } else if (faults->count == before) {
      if (cluster)
        spec_hash_tokens(&r, (Model__ClusterSpec *)copy);
      ProtobufCMessage *old = *at;
      *at = copy;
      copy = old;
    }
    if (copy)
      protobuf_c_message_free_unpacked(copy, NULL);
    buf_free(&r.path);
  }
  return faults->count == first ? 0 : -1;
}
