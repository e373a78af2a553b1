#include "common/toml/toml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *toml_type_name(enum toml_type type) {
  switch (type) {
  case TOML_STRING:
    return "string";
  case TOML_INTEGER:
    return "integer";
  case TOML_FLOAT:
    return "float";
  case TOML_BOOL:
    return "boolean";
  case TOML_DATETIME:
    return "date-time";
  case TOML_DATETIME_LOCAL:
    return "local date-time";
  case TOML_DATE_LOCAL:
    return "local date";
  case TOML_TIME_LOCAL:
    return "local time";
  case TOML_ARRAY:
    return "array";
  case TOML_TABLE:
    return "table";
  }
  return "value";
}

void toml_print_float(double number, struct buf *to) {
  if (isnan(number)) {
    buf_add_str(to, "nan");
    return;
  }
  if (isinf(number)) {
    buf_add_str(to, number < 0 ? "-inf" : "inf");
    return;
  }
  char text[40];
  for (int precision = 1; precision <= 17; precision++) {
    snprintf(text, sizeof text, "%.*g", precision, number);
    if (strtod(text, NULL) == number)
      break;
  }
  buf_add_str(to, text);
  if (!strpbrk(text, ".e"))
    buf_add_str(to, ".0");
}

void toml_print_time(const struct toml_value *value, struct buf *to) {
  const struct toml_time *t = &value->time;
  if (value->type != TOML_TIME_LOCAL)
    buf_printf(to, "%04u-%02u-%02u", t->year, t->month, t->day);
  if (value->type == TOML_DATE_LOCAL)
    return;
  buf_printf(to, "%s%02u:%02u:%02u", value->type == TOML_TIME_LOCAL ? "" : "T", t->hour, t->minute, t->second);
  if (t->digits) { /* milli-, micro- or nanoseconds */
    char nanos[10];
    snprintf(nanos, sizeof nanos, "%09u", t->nanos % 1000000000u);
    buf_printf(to, ".%.*s", (t->digits + 2) / 3 * 3, nanos);
  }
  if (value->type != TOML_DATETIME)
    return;
  if (t->offset == 0)
    buf_add_str(to, "Z");
  else
    buf_printf(to, "%c%02d:%02d", t->offset < 0 ? '-' : '+', abs(t->offset) / 60, abs(t->offset) % 60);
}

static void print_string(const char *s, size_t len, struct buf *to) {
  static const char special[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
  buf_add_byte(to, '"');
  for (size_t i = 0; i < len; i++) {
    uint8_t c = (uint8_t)s[i];
    const char *named = c ? strchr(special, c) : NULL;
    if (named)
      buf_printf(to, "\\%c", letters[named - special]);
    else if (c < 0x20 || c == 0x7f)
      buf_printf(to, "\\u%04X", c);
    else
      buf_add_byte(to, c);
  }
  buf_add_byte(to, '"');
}

int toml_print_key(const char *key, size_t len, struct buf *to) {
  bool bare = len > 0;
  for (size_t i = 0; bare && i < len; i++)
    bare = (key[i] >= '0' && key[i] <= '9') || (key[i] >= 'a' && key[i] <= 'z') || (key[i] >= 'A' && key[i] <= 'Z') || key[i] == '_' || key[i] == '-';
  if (bare)
    buf_add(to, key, len);
  else
    print_string(key, len, to);
  return buf_failed(to) ? -1 : 0;
}

int toml_print_value(const struct toml_value *value, struct buf *to) {
  switch (value->type) {
  case TOML_STRING:
    print_string(value->string.data, value->string.len, to);
    break;
  case TOML_INTEGER:
    buf_printf(to, "%lld", (long long)value->integer);
    break;
  case TOML_FLOAT:
    toml_print_float(value->number, to);
    break;
  case TOML_BOOL:
    buf_add_str(to, value->boolean ? "true" : "false");
    break;
  case TOML_DATETIME:
  case TOML_DATETIME_LOCAL:
  case TOML_DATE_LOCAL:
  case TOML_TIME_LOCAL:
    toml_print_time(value, to);
    break;
  case TOML_ARRAY:
    buf_add_byte(to, '[');
    for (size_t i = 0; i < value->array.count; i++) {
      if (i)
        buf_add_str(to, ", ");
      toml_print_value(value->array.items[i], to);
    }
    buf_add_byte(to, ']');
    break;
  case TOML_TABLE:
    buf_add_str(to, value->table.count ? "{ " : "{");
    for (size_t i = 0; i < value->table.count; i++) {
      if (i)
        buf_add_str(to, ", ");
      toml_print_key(value->table.entries[i].key, value->table.entries[i].key_len, to);
      buf_add_str(to, " = ");
      toml_print_value(value->table.entries[i].value, to);
    }
    buf_add_str(to, value->table.count ? " }" : "}");
    break;
  }
  return buf_failed(to) ? -1 : 0;
}

/* ---- a document ---- */

/* Longer names than this stay within braces: the parser takes 64 parts. */
#define HEADER_PARTS 32

static bool is_tables(const struct toml_value *v) {
  if (v->type != TOML_ARRAY || v->array.count == 0)
    return false;
  for (size_t i = 0; i < v->array.count; i++)
    if (v->array.items[i]->type != TOML_TABLE)
      return false;
  return true;
}

struct path { /* from the root, as a chain on the stack */
  const struct path *up;
  const struct toml_entry *entry;
};

static void print_path(const struct path *path, struct buf *to) {
  if (path->up) {
    print_path(path->up, to);
    buf_add_byte(to, '.');
  }
  toml_print_key(path->entry->key, path->entry->key_len, to);
}

static void print_table(const struct toml_value *table, const struct path *path, unsigned parts, struct buf *to) {
  bool headers = parts < HEADER_PARTS;
  for (size_t i = 0; i < table->table.count; i++) {
    const struct toml_entry *e = &table->table.entries[i];
    if (headers && (e->value->type == TOML_TABLE || is_tables(e->value)))
      continue;
    toml_print_key(e->key, e->key_len, to);
    buf_add_str(to, " = ");
    toml_print_value(e->value, to);
    buf_add_byte(to, '\n');
  }
  for (size_t i = 0; headers && i < table->table.count; i++) {
    const struct toml_entry *e = &table->table.entries[i];
    bool several = is_tables(e->value);
    if (e->value->type != TOML_TABLE && !several)
      continue;
    struct path here = {path, e};
    for (size_t n = 0; n < (several ? e->value->array.count : 1); n++) {
      if (to->len)
        buf_add_byte(to, '\n');
      buf_add_str(to, several ? "[[" : "[");
      print_path(&here, to);
      buf_add_str(to, several ? "]]\n" : "]\n");
      print_table(several ? e->value->array.items[n] : e->value, &here, parts + 1, to);
    }
  }
}

int toml_print(const struct toml_value *root, struct buf *to) {
  print_table(root, NULL, 0, to);
  return buf_failed(to) ? -1 : 0;
}
