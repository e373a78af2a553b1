#include "common/spec/spec_table.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "common/spec/spec_units.h"

#define STRING_MAX 65536

/* ---- faults and their path ---- */

static void add_fault(struct spec_reader *r, unsigned line, unsigned column, const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));
static void add_fault(struct spec_reader *r, unsigned line, unsigned column, const char *fmt, va_list ap) {
  char message[640];
  vsnprintf(message, sizeof message, fmt, ap);
  if (spec_fault_add(r->faults, r->file, line, column, buf_str(&r->path), "%s", message) < 0)
    r->memory = true;
}

void spec_fault(struct spec_reader *r, const struct toml_value *at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_fault(r, at->line, at->column, fmt, ap);
  va_end(ap);
}

static void key_fault(struct spec_reader *r, const struct toml_entry *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void key_fault(struct spec_reader *r, const struct toml_entry *at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_fault(r, at->line, at->column, fmt, ap);
  va_end(ap);
}

size_t spec_path_push(struct spec_reader *r, const char *fmt, ...) {
  size_t mark = r->path.len;
  va_list ap;
  va_start(ap, fmt);
  buf_vprintf(&r->path, fmt, ap);
  va_end(ap);
  return mark;
}

void spec_path_pop(struct spec_reader *r, size_t mark) {
  if (r->path.len > mark) {
    r->path.len = mark;
    r->path.data[mark] = 0;
  }
  r->path.failed = false;
}

static size_t push_key(struct spec_reader *r, const char *key, size_t len) {
  size_t mark = r->path.len;
  if (mark)
    buf_add_byte(&r->path, '.');
  toml_print_key(key, len, &r->path);
  return mark;
}

/* ---- messages through their descriptors ---- */

void *spec_field(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd) {
  return (char *)(uintptr_t)msg + fd->offset;
}

ProtobufCMessage **spec_within(const ProtobufCMessage *msg, const char *field) {
  return spec_field(msg, protobuf_c_message_descriptor_get_field_by_name(msg->descriptor, field));
}

static size_t *count_of(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd) {
  return (size_t *)((char *)(uintptr_t)msg + fd->quantifier_offset);
}

bool spec_field_present(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *fd) {
  if (fd->label == PROTOBUF_C_LABEL_REPEATED)
    return *count_of(msg, fd) > 0;
  if (fd->type == PROTOBUF_C_TYPE_STRING || fd->type == PROTOBUF_C_TYPE_MESSAGE)
    return *(void **)spec_field(msg, fd) != NULL;
  return *(protobuf_c_boolean *)((char *)(uintptr_t)msg + fd->quantifier_offset);
}

ProtobufCMessage *spec_message_new(const ProtobufCMessageDescriptor *desc) {
  ProtobufCMessage *msg = malloc(desc->sizeof_message);
  if (msg)
    protobuf_c_message_init(desc, msg);
  return msg;
}

int spec_repeated_add(ProtobufCMessage *msg, const char *field, void *item) {
  const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(msg->descriptor, field);
  size_t *count = count_of(msg, fd);
  void ***list = spec_field(msg, fd);
  void **larger = item ? realloc(*list, (*count + 1) * sizeof *larger) : NULL;
  if (!larger) {
    if (fd->type == PROTOBUF_C_TYPE_MESSAGE)
      protobuf_c_message_free_unpacked(item, NULL);
    else
      free(item);
    return -1;
  }
  larger[(*count)++] = item;
  *list = larger;
  return 0;
}

int spec_pairs_add(ProtobufCMessage *msg, const char *field, const char *key, const char *value) {
  const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(msg->descriptor, field);
  ProtobufCMessage *pair = spec_message_new(fd->descriptor);
  if (!pair)
    return -1;
  char **k = spec_field(pair, protobuf_c_message_descriptor_get_field_by_name(pair->descriptor, "key"));
  char **v = spec_field(pair, protobuf_c_message_descriptor_get_field_by_name(pair->descriptor, "value"));
  *k = strdup(key);
  *v = strdup(value);
  if (!*k || !*v) {
    protobuf_c_message_free_unpacked(pair, NULL);
    return -1;
  }
  return spec_repeated_add(msg, field, pair);
}

/* Where a scalar goes: the field's place and type, has_x set; or the struct's member. */
static void put_number(const struct spec_table *table, const struct spec_key *key, void *target, uint64_t v) {
  if (!table->desc) { /* structs have only ports and enums: both are told apart by kind */
    if (key->kind == SPEC_CHOICE)
      *(int *)((char *)target + key->offset) = (int)v;
    else
      *(uint16_t *)((char *)target + key->offset) = (uint16_t)v;
    return;
  }
  if (!key->field)
    return;
  ProtobufCMessage *msg = target;
  const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(table->desc, key->field);
  void *at = spec_field(msg, fd);
  switch (fd->type) {
  case PROTOBUF_C_TYPE_UINT64:
    *(uint64_t *)at = v;
    break;
  case PROTOBUF_C_TYPE_BOOL:
    *(protobuf_c_boolean *)at = v != 0;
    break;
  case PROTOBUF_C_TYPE_ENUM:
    *(int *)at = (int)v;
    break;
  default:
    *(uint32_t *)at = (uint32_t)v;
  }
  *(protobuf_c_boolean *)((char *)msg + fd->quantifier_offset) = 1;
}

static void put_string(struct spec_reader *r, const struct spec_table *table, const struct spec_key *key, void *target, const char *text) {
  if (table->desc && !key->field)
    return;
  char **at = table->desc ? spec_field(target, protobuf_c_message_descriptor_get_field_by_name(table->desc, key->field))
                          : (char **)((char *)target + key->offset);
  free(*at);
  *at = strdup(text);
  if (!*at)
    r->memory = true;
}

/* ---- values ---- */

bool spec_has_refs(const char *text) {
  for (const char *p = text; (p = strstr(p, "${")); p += 2)
    if (p == text || p[-1] != '$')
      return true;
  return false;
}

/* Every ${…} is one that means something, and means it here. */
static bool refs_ok(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const char *text) {
  for (const char *p = text; (p = strstr(p, "${")); p += 2) {
    if (p > text && p[-1] == '$')
      continue;
    const char *name = p + 2, *end = strchr(name, '}');
    size_t len = end ? (size_t)(end - name) : 0;
    bool secret = len > 8 && strncmp(name, "secrets.", 8) == 0, env = len > 4 && strncmp(name, "env.", 4) == 0;
    bool word = secret ? spec_secret_name_valid(name + 8, len - 8)
                       : env && strspn(name + 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == len - 4;
    if (!word) {
      spec_fault(r, value, "`%.*s` is neither ${env.NAME} nor ${secrets.NAME}; a literal ${ is written $${", end && len < 60 ? (int)len + 3 : 12, p);
      return false;
    }
    if (env && r->resolved) {
      spec_fault(r, value, "%.*s is not filled in: orcactl does that, from its environment", (int)(len < 100 ? len + 3 : 100), p);
      return false;
    }
    if (secret && !(key->flags & SPEC_SECRETS)) {
      spec_fault(r, value, "%.*s is not for here: a secret is a value of `env`, or named in `secret_files`", (int)(len < 100 ? len + 3 : 100), p);
      return false;
    }
  }
  return true;
}

static void expected(struct spec_reader *r, const struct toml_value *value, const char *what) {
  spec_fault(r, value, "expected %s, found %s %s", what, strchr("aeiou", toml_type_name(value->type)[0]) ? "an" : "a", toml_type_name(value->type));
}

const char *spec_read_string(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value) {
  if (value->type != TOML_STRING) {
    expected(r, value, key->kind == SPEC_MAP ? "a string (in quotes)" : "a string");
    return NULL;
  }
  const char *text = value->string.data;
  if (strlen(text) != value->string.len) {
    spec_fault(r, value, "must not contain U+0000");
    return NULL;
  }
  if (value->string.len > STRING_MAX) {
    spec_fault(r, value, "must not be longer than %d bytes", STRING_MAX);
    return NULL;
  }
  if (!(key->flags & SPEC_NO_REFS) && spec_has_refs(text))
    return refs_ok(r, key, value, text) ? text : NULL; /* what it stands for is checked once it is known */
  const char *wrong = key->check ? key->check(text) : NULL;
  if (wrong) {
    spec_fault(r, value, "%s", wrong);
    return NULL;
  }
  return text;
}

static const char *choice_name(const void *list, size_t i) {
  for (const struct spec_choice *c = list; c->text; c++)
    if (!c->later && i-- == 0)
      return c->text;
  return NULL;
}

static void read_choice(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table,
                        void *target) {
  const char *text = spec_read_string(r, key, value);
  if (!text)
    return;
  for (const struct spec_choice *c = key->choices; c->text; c++) {
    if (strcmp(c->text, text) != 0)
      continue;
    if (c->later) {
      spec_fault(r, value, "not supported yet: %s = \"%s\"", key->name, text);
      return;
    }
    const ProtobufCFieldDescriptor *fd = table->desc && key->field ? protobuf_c_message_descriptor_get_field_by_name(table->desc, key->field) : NULL;
    if (fd && fd->type == PROTOBUF_C_TYPE_STRING)
      put_string(r, table, key, target, text);
    else
      put_number(table, key, target, (uint64_t)c->value);
    return;
  }
  struct buf list = BUF_INIT(400);
  const char *one = "";
  for (const struct spec_choice *c = key->choices; c->text; c++)
    if (!c->alias && !c->later) {
      one = list.len ? "one of " : "";
      buf_printf(&list, "%s\"%s\"", list.len ? ", " : "", c->text);
    }
  const char *near = spec_nearest(text, choice_name, key->choices);
  if (near)
    spec_fault(r, value, "must be %s%s: did you mean \"%s\"?", one, buf_str(&list), near);
  else
    spec_fault(r, value, "must be %s%s", one, buf_str(&list));
  buf_free(&list);
}

static void print_bound(const struct spec_key *key, int64_t bound, char out[32]) {
  if (key->kind == SPEC_DURATION)
    spec_print_duration((uint64_t)bound, out);
  else if (key->kind == SPEC_SIZE)
    spec_print_size((uint64_t)bound, out);
  else if (key->kind == SPEC_CPU)
    snprintf(out, 32, "%g", (double)bound / 1000);
  else
    snprintf(out, 32, "%lld", (long long)bound);
}

static bool in_range(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, int64_t v) {
  if (key->max == 0 || (v >= key->min && v <= key->max))
    return true;
  char low[32], high[32];
  print_bound(key, key->min, low);
  print_bound(key, key->max, high);
  spec_fault(r, value, "must be between %s and %s", low, high);
  return false;
}

static void read_number(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table,
                        void *target) {
  struct err err;
  uint64_t v = 0;
  switch (key->kind) {
  case SPEC_BOOL:
    if (value->type != TOML_BOOL) {
      expected(r, value, "true or false");
      return;
    }
    v = value->boolean;
    break;
  case SPEC_CPU:
    if (value->type == TOML_INTEGER)
      v = value->integer < 0 || value->integer > INT32_MAX ? INT64_MAX : (uint64_t)value->integer * 1000;
    else if (value->type == TOML_FLOAT)
      v = value->number >= 0 && value->number < INT32_MAX ? (uint64_t)llround(value->number * 1000) : INT64_MAX;
    else {
      expected(r, value, "a number of cores");
      return;
    }
    break;
  case SPEC_DURATION:
    if (value->type != TOML_STRING) {
      expected(r, value, "a duration like \"30s\"");
      return;
    }
    if (spec_parse_duration(value->string.data, &v, &err) < 0) {
      spec_fault(r, value, "%s", err.msg);
      return;
    }
    break;
  case SPEC_SIZE:
    if (value->type == TOML_INTEGER && value->integer >= 0)
      v = (uint64_t)value->integer;
    else if (value->type != TOML_STRING) {
      expected(r, value, "a size like \"512Mi\" or a number of bytes");
      return;
    } else if (spec_parse_size(value->string.data, &v, &err) < 0) {
      spec_fault(r, value, "%s", err.msg);
      return;
    }
    break;
  default:
    if (value->type != TOML_INTEGER) {
      expected(r, value, "an integer");
      return;
    }
    v = (uint64_t)value->integer;
  }
  if (key->kind == SPEC_BOOL || in_range(r, key, value, (int64_t)v))
    put_number(table, key, target, v);
}

static void read_strings(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (value->type != TOML_ARRAY) {
    expected(r, value, "an array of strings");
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    size_t mark = spec_path_push(r, "[%zu]", i);
    const char *text = spec_read_string(r, key, value->array.items[i]);
    if (text && key->field && spec_repeated_add(target, key->field, strdup(text)) < 0)
      r->memory = true;
    spec_path_pop(r, mark);
  }
}

static void read_map(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (value->type != TOML_TABLE) {
    expected(r, value, "a table of strings");
    return;
  }
  for (size_t i = 0; i < value->table.count; i++) {
    const struct toml_entry *e = &value->table.entries[i];
    size_t mark = push_key(r, e->key, e->key_len);
    const char *wrong = strlen(e->key) != e->key_len ? "must not contain U+0000" : key->check_name ? key->check_name(e->key) : NULL;
    if (wrong)
      key_fault(r, e, "the name %s", wrong);
    const char *text = spec_read_string(r, key, e->value);
    if (text && !wrong && key->field && spec_pairs_add(target, key->field, e->key, text) < 0)
      r->memory = true;
    spec_path_pop(r, mark);
  }
}

static void read_sub_table(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table,
                           void *target) {
  if (value->type != TOML_TABLE) {
    expected(r, value, "a table");
    return;
  }
  if (!key->table->desc || !table->desc) { /* its keys lie in the same struct, or nowhere */
    spec_read_table(r, key->table, value, target);
    return;
  }
  const ProtobufCFieldDescriptor *fd = key->field ? protobuf_c_message_descriptor_get_field_by_name(table->desc, key->field) : NULL;
  ProtobufCMessage **at = fd ? spec_field(target, fd) : target;
  if (fd && !*at && !(*at = spec_message_new(fd->descriptor))) {
    r->memory = true;
    return;
  }
  spec_read_table(r, key->table, value, fd ? *at : target);
}

static void read_sub_tables(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  if (value->type != TOML_ARRAY) {
    expected(r, value, "an array of tables");
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    const struct toml_value *item = value->array.items[i];
    size_t mark = spec_path_push(r, "[%zu]", i);
    ProtobufCMessage *msg = NULL;
    if (item->type != TOML_TABLE)
      expected(r, item, "a table");
    else if (!(msg = spec_message_new(key->table->desc)))
      r->memory = true;
    else {
      spec_read_table(r, key->table, item, msg);
      if (spec_repeated_add(target, key->field, msg) < 0)
        r->memory = true;
    }
    spec_path_pop(r, mark);
  }
}

static void read_within(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table,
                        ProtobufCMessage *msg) {
  const ProtobufCFieldDescriptor *fd = protobuf_c_message_descriptor_get_field_by_name(table->desc, key->within);
  ProtobufCMessage **at = spec_within(msg, key->within);
  if (!*at && !(*at = spec_message_new(fd->descriptor))) {
    r->memory = true;
    return;
  }
  struct spec_key plain = *key;
  const struct spec_table inner = {.desc = fd->descriptor};
  plain.within = NULL;
  spec_read_key(r, &plain, value, &inner, *at);
}

void spec_read_key(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, const struct spec_table *table, void *target) {
  if (key->within) {
    read_within(r, key, value, table, target);
    return;
  }
  if (key->read) {
    key->read(r, key, value, target);
    return;
  }
  switch (key->kind) {
  case SPEC_STRING: {
    const char *text = spec_read_string(r, key, value);
    if (text)
      put_string(r, table, key, target, text);
    return;
  }
  case SPEC_INTEGER:
  case SPEC_CPU:
  case SPEC_BOOL:
  case SPEC_DURATION:
  case SPEC_SIZE:
    read_number(r, key, value, table, target);
    return;
  case SPEC_CHOICE:
    read_choice(r, key, value, table, target);
    return;
  case SPEC_STRINGS:
    read_strings(r, key, value, target);
    return;
  case SPEC_MAP:
    read_map(r, key, value, target);
    return;
  case SPEC_TABLE:
    read_sub_table(r, key, value, table, target);
    return;
  case SPEC_TABLES:
    read_sub_tables(r, key, value, target);
    return;
  }
}

/* ---- tables ---- */

const struct spec_key *spec_find_key(const struct spec_table *table, const char *name) {
  for (size_t i = 0; i < table->count; i++)
    if (strcmp(table->keys[i].name, name) == 0)
      return &table->keys[i];
  return NULL;
}

static const char *key_name(const void *list, size_t i) {
  const struct spec_table *table = list;
  while (i < table->count && table->keys[i].flags & (SPEC_SHORT | spec_without(table)))
    i++; /* names repeat then, which does no harm */
  return i < table->count ? table->keys[i].name : NULL;
}

static void unknown_key(struct spec_reader *r, const struct spec_table *table, const struct toml_entry *e) {
  bool whole = strlen(e->key) == e->key_len;
  const char *near = whole ? spec_nearest(e->key, key_name, table) : NULL;
  if (near) {
    key_fault(r, e, "unknown key: did you mean `%s`?", near);
    return;
  }
  for (size_t i = 0; whole && i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    if (key->kind == SPEC_TABLE && key->table && spec_find_key(key->table, e->key)) {
      key_fault(r, e, "unknown key: `%s` belongs into `%s`", e->key, key->name);
      return;
    }
  }
  key_fault(r, e, "unknown key");
}

void spec_read_table(struct spec_reader *r, const struct spec_table *table, const struct toml_value *value, void *target) {
  size_t in_table = r->path.len;
  for (size_t i = 0; i < value->table.count; i++) {
    const struct toml_entry *e = &value->table.entries[i];
    const struct spec_key *key = strlen(e->key) == e->key_len ? spec_find_key(table, e->key) : NULL;
    push_key(r, e->key, e->key_len);
    if (!key)
      unknown_key(r, table, e);
    else if (key->flags & spec_without(table))
      key_fault(r, e, "%s",
                key->flags & SPEC_OF_JOB ? "is of a [[job]], which runs to its end; this is a [[service]]"
                                         : "is of a [[service]], which goes on running; this is a [[job]]");
    else if (key->flags & SPEC_LATER)
      key_fault(r, e, "not supported yet: %s%s%s", key->name, key->instead ? ": write " : "", key->instead ? key->instead : "");
    else
      spec_read_key(r, key, e->value, table, target);
    spec_path_pop(r, in_table);
  }
  for (size_t i = 0; i < table->count && !r->partial; i++)
    if (table->keys[i].flags & SPEC_REQUIRED && !(table->keys[i].flags & spec_without(table)) && !toml_get(value, table->keys[i].name))
      spec_fault(r, value, "`%s` is missing", table->keys[i].name);
  if (table->finish)
    table->finish(r, value, target);
}
