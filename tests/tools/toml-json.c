/* toml-json: TOML on stdin, the same as JSON with tagged values on stdout, in the form that the public toml-test suite compares.
 * Invalid input: exit 1, each fault on stderr as line:column: message. */
#include <stdio.h>
#include <string.h>

#include "common/toml/toml.h"

#define INPUT_MAX (64u << 20)

static void print_fault(void *arg, unsigned line, unsigned column, const char *message) {
  (void)arg;
  fprintf(stderr, "%u:%u: %s\n", line, column, message);
}

static void print_string(const char *s, size_t len, struct buf *to) {
  buf_add_byte(to, '"');
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c == '"' || c == '\\')
      buf_printf(to, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
      buf_printf(to, "\\u%04x", c);
    else
      buf_add_byte(to, c);
  }
  buf_add_byte(to, '"');
}

static const char *tag(enum toml_type type) {
  switch (type) {
  case TOML_STRING:
    return "string";
  case TOML_INTEGER:
    return "integer";
  case TOML_FLOAT:
    return "float";
  case TOML_BOOL:
    return "bool";
  case TOML_DATETIME:
    return "datetime";
  case TOML_DATETIME_LOCAL:
    return "datetime-local";
  case TOML_DATE_LOCAL:
    return "date-local";
  case TOML_TIME_LOCAL:
    return "time-local";
  case TOML_ARRAY:
  case TOML_TABLE:
    break;
  }
  return "";
}

static void print_value(const struct toml_value *v, struct buf *to) {
  if (v->type == TOML_ARRAY) {
    buf_add_byte(to, '[');
    for (size_t i = 0; i < v->array.count; i++) {
      if (i)
        buf_add_byte(to, ',');
      print_value(v->array.items[i], to);
    }
    buf_add_byte(to, ']');
  } else if (v->type == TOML_TABLE) {
    buf_add_byte(to, '{');
    for (size_t i = 0; i < v->table.count; i++) {
      if (i)
        buf_add_byte(to, ',');
      print_string(v->table.entries[i].key, v->table.entries[i].key_len, to);
      buf_add_byte(to, ':');
      print_value(v->table.entries[i].value, to);
    }
    buf_add_byte(to, '}');
  } else {
    buf_printf(to, "{\"type\":\"%s\",\"value\":", tag(v->type));
    if (v->type == TOML_STRING) {
      print_string(v->string.data, v->string.len, to);
    } else {
      buf_add_byte(to, '"');
      toml_print_value(v, to);
      buf_add_byte(to, '"');
    }
    buf_add_byte(to, '}');
  }
}

int main(void) {
  struct buf text = BUF_INIT(INPUT_MAX), json = BUF_INIT((size_t)INPUT_MAX * 16);
  char chunk[65536];
  size_t n;
  while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
    buf_add(&text, chunk, n);
  int rc = 1;
  struct toml_doc *doc = NULL;
  if (ferror(stdin) || buf_failed(&text)) {
    fprintf(stderr, "0:0: the input could not be read, or is larger than %u MiB\n", INPUT_MAX >> 20);
  } else if (!(doc = toml_parse(buf_str(&text), text.len, print_fault, NULL))) {
    fprintf(stderr, "0:0: out of memory\n");
  } else if (toml_fault_count(doc) == 0) {
    print_value(toml_root(doc), &json);
    buf_add_byte(&json, '\n');
    if (!buf_failed(&json) && fwrite(json.data, 1, json.len, stdout) == json.len && fflush(stdout) == 0)
      rc = 0;
    else
      fprintf(stderr, "0:0: the output could not be written\n");
  }
  toml_free(doc);
  buf_free(&text);
  buf_free(&json);
  return rc;
}
