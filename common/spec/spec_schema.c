/* JSON Schema (2020-12) and the reference of docs/, both read off the table. */
#include "common/spec/spec.h"

#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec_table.h"

/* ---- JSON Schema ---- */

static json_t *table_schema(const struct spec_table *table);

static json_t *string_type(void) {
  return json_pack("{s:s}", "type", "string");
}

static json_t *key_schema(const struct spec_key *key) {
  json_t *s = json_object();
  switch (key->kind) {
  case SPEC_STRING:
    json_object_set_new(s, "type", json_string("string"));
    break;
  case SPEC_INTEGER:
    json_object_set_new(s, "type", json_string("integer"));
    break;
  case SPEC_CPU:
    json_object_set_new(s, "type", json_string("number"));
    break;
  case SPEC_BOOL:
    json_object_set_new(s, "type", json_string("boolean"));
    break;
  case SPEC_DURATION:
    json_object_set_new(s, "type", json_string("string"));
    json_object_set_new(s, "pattern", json_string("^([0-9]+(ms|s|m|h|d))+$"));
    break;
  case SPEC_SIZE:
    json_object_set_new(s, "type", json_pack("[s,s]", "string", "integer"));
    break;
  case SPEC_CHOICE: {
    json_t *list = json_array();
    for (const struct spec_choice *c = key->choices; c->text; c++)
      if (!c->later)
        json_array_append_new(list, json_string(c->text));
    json_object_set_new(s, "enum", list);
    break;
  }
  case SPEC_STRINGS:
    json_object_set_new(s, "type", json_string("array"));
    json_object_set_new(s, "items", string_type());
    break;
  case SPEC_MAP:
    json_object_set_new(s, "type", json_string("object"));
    json_object_set_new(s, "additionalProperties", string_type());
    break;
  case SPEC_TABLE:
    json_decref(s);
    s = table_schema(key->table);
    break;
  case SPEC_TABLES:
    json_object_set_new(s, "type", json_string("array"));
    if (key->read) /* each also as a string */
      json_object_set_new(s, "items", json_pack("{s:[o,o]}", "anyOf", string_type(), table_schema(key->table)));
    else
      json_object_set_new(s, "items", table_schema(key->table));
    break;
  }
  if (key->max && (key->kind == SPEC_INTEGER || key->kind == SPEC_CPU)) {
    double unit = key->kind == SPEC_CPU ? 1000 : 1;
    json_object_set_new(s, "minimum", key->kind == SPEC_CPU ? json_real((double)key->min / unit) : json_integer(key->min));
    json_object_set_new(s, "maximum", key->kind == SPEC_CPU ? json_real((double)key->max / unit) : json_integer(key->max));
  }
  if (key->otherwise && *key->otherwise != '(') {
    json_t *v = json_loads(key->otherwise, JSON_DECODE_ANY, NULL);
    if (v)
      json_object_set_new(s, "default", v);
  }
  if (key->help)
    json_object_set_new(s, "description", json_string(key->help));
  return s;
}

static json_t *table_schema(const struct spec_table *table) {
  json_t *s = json_object(), *properties = json_object(), *required = json_array();
  for (size_t i = 0; i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    if (key->flags & (SPEC_LATER | spec_without(table)))
      continue;
    json_object_set_new(properties, key->name, key_schema(key));
    if (key->flags & SPEC_REQUIRED)
      json_array_append_new(required, json_string(key->name));
  }
  json_object_set_new(s, "type", json_string("object"));
  json_object_set_new(s, "description", json_string(table->help));
  json_object_set_new(s, "properties", properties);
  if (json_array_size(required))
    json_object_set(s, "required", required);
  json_decref(required);
  json_object_set_new(s, "additionalProperties", json_false());
  return s;
}

json_t *spec_json_schema_service(void) {
  return table_schema(&spec_service_table);
}

json_t *spec_json_schema_job(void) {
  return table_schema(&spec_job_table);
}

json_t *spec_json_schema_cluster(void) {
  return table_schema(&spec_cluster_file);
}

/* ---- the reference ---- */

static const char *type_text(const struct spec_key *key) {
  switch (key->kind) {
  case SPEC_STRING:
    return "string";
  case SPEC_INTEGER:
    return "integer";
  case SPEC_CPU:
    return "number";
  case SPEC_BOOL:
    return "true or false";
  case SPEC_DURATION:
    return "duration";
  case SPEC_SIZE:
    return "size";
  case SPEC_CHOICE:
    return "one of";
  case SPEC_STRINGS:
    return "strings";
  case SPEC_MAP:
    return "table of strings";
  case SPEC_TABLE:
    return "table";
  case SPEC_TABLES:
    return "tables";
  }
  return "";
}

static void print_range(const struct spec_key *key, struct buf *to) {
  char low[32], high[32];
  if (key->kind == SPEC_CHOICE) {
    for (const struct spec_choice *c = key->choices; c->text; c++)
      if (!c->alias)
        buf_printf(to, "%s `\"%s\"`%s", c == key->choices ? "" : ",", c->text, c->later ? " (not yet)" : "");
    return;
  }
  if (!key->max)
    return;
  if (key->kind == SPEC_DURATION) {
    spec_print_duration((uint64_t)key->min, low);
    spec_print_duration((uint64_t)key->max, high);
    buf_printf(to, ", %s to %s", low, high);
  } else if (key->kind == SPEC_SIZE) {
    spec_print_size((uint64_t)key->min, low);
    spec_print_size((uint64_t)key->max, high);
    buf_printf(to, ", %s to %s", low, high);
  } else if (key->kind == SPEC_CPU) {
    buf_printf(to, ", %g to %g", (double)key->min / 1000, (double)key->max / 1000);
  } else {
    buf_printf(to, ", %lld to %lld", (long long)key->min, (long long)key->max);
  }
}

/* A bar would end the cell. */
static void print_cell(const char *text, struct buf *to) {
  for (; *text; text++)
    buf_printf(to, *text == '|' ? "\\%c" : "%c", *text);
}

/* A job's tables are those of a service, and stand there. */
static void print_keys(const struct spec_table *table, struct buf *to) {
  bool is_job = table == &spec_job_table;
  buf_printf(to, "\n### `%s`\n\n%s\n\n| key | type | default | |\n|---|---|---|---|\n", table->heading, table->help);
  for (size_t i = 0; i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    if (key->flags & spec_without(table) || (is_job && key->flags & SPEC_LATER))
      continue;
    buf_printf(to, "| `%s` | %s", key->name, type_text(key));
    print_range(key, to);
    const char *d = key->otherwise;
    if (key->flags & SPEC_REQUIRED)
      buf_add_str(to, " | **required** | ");
    else if (!d)
      buf_add_str(to, " | | ");
    else if (*d == '(')
      buf_printf(to, " | %.*s | ", (int)strlen(d) - 2, d + 1);
    else
      buf_printf(to, " | `%s` | ", d);
    print_cell(key->help ? key->help : "", to);
    buf_printf(to, "%s |\n", key->flags & SPEC_LATER ? " *Not supported yet.*" : "");
  }
  for (size_t i = 0; i < table->count && !is_job; i++)
    if (table->keys[i].table && !(table->keys[i].flags & (SPEC_SHORT | spec_without(table))))
      print_keys(table->keys[i].table, to);
}

static void print_file(const struct spec_table *file, struct buf *to) {
  buf_printf(to, "\n## %s\n\n%s\n", file->heading, file->help);
  for (size_t i = 0; i < file->count; i++)
    print_keys(file->keys[i].table, to);
}

int spec_reference_markdown(struct buf *to) {
  buf_add_str(to,
              "# Reference: service.toml, cluster.toml, node.toml\n\n"
              "Made by `make docs` from the table that the programs read by: change it there, not here. [examples/every-key](../examples/every-key) "
              "has each supported key once, in files that the tests read.\n\n"
              "TOML 1.0, UTF-8. Every fault of a file is reported with its line and column; unknown keys are faults. "
              "Durations are written `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h30m\"`; sizes `\"512Mi\"`, `\"1.5Gi\"`, `\"512M\"` or as bytes. "
              "Keys marked *not supported yet* are known and refused.\n");
  print_file(&spec_service_file, to);
  print_file(&spec_cluster_file, to);
  print_file(&spec_node_file, to);
  return buf_failed(to) ? -1 : 0;
}
