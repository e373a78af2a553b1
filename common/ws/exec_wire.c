#include "common/ws/exec_wire.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_MAX 4096u

static bool parse_one(const char *key, const json_t *value, struct exec_control *c) {
  if (strcmp(key, "resize") == 0) {
    const json_t *rows = json_array_get(value, 0), *cols = json_array_get(value, 1);
    json_int_t r = json_integer_value(rows), k = json_integer_value(cols);
    if (json_array_size(value) != 2 || !json_is_integer(rows) || !json_is_integer(cols) || r < 1 || k < 1 || r > EXEC_SIDE_MAX || k > EXEC_SIDE_MAX)
      return false;
    *c = (struct exec_control){.kind = EXEC_RESIZE, .rows = (uint32_t)r, .cols = (uint32_t)k};
    return true;
  }
  if (strcmp(key, "eof") == 0 || strcmp(key, "started") == 0) {
    *c = (struct exec_control){.kind = *key == 'e' ? EXEC_EOF : EXEC_STARTED};
    return json_is_true(value);
  }
  if (strcmp(key, "exit") == 0) {
    json_int_t code = json_integer_value(value);
    *c = (struct exec_control){.kind = EXEC_EXIT, .exit_code = (int32_t)code};
    return json_is_integer(value) && code >= INT32_MIN && code <= INT32_MAX;
  }
  if (strcmp(key, "error") == 0 && json_is_string(value)) {
    *c = (struct exec_control){.kind = EXEC_ERROR};
    snprintf(c->text, sizeof c->text, "%s", json_string_value(value));
    return true;
  }
  return false;
}

bool exec_control_parse(const uint8_t *data, size_t len, struct exec_control *ret) {
  /* jansson's parser recurses, a little per level: what is this short does it no harm. */
  json_t *json = len <= CONTROL_MAX ? json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
  const json_t *code = json_object_get(json, "code");
  bool is_error = json_object_get(json, "error") != NULL, ok = json_object_size(json) == 1 + (size_t)(is_error && code);
  const char *key;
  json_t *value;
  struct exec_control c = {0};
  json_object_foreach(json, key, value) ok = ok && ((is_error && value == code) || parse_one(key, value, &c));
  if (ok && is_error && json_is_string(code))
    snprintf(c.code, sizeof c.code, "%s", json_string_value(code));
  json_decref(json);
  if (ok)
    *ret = c;
  return ok;
}

static void write_string(const char *text, struct buf *out) {
  json_t *json = json_string(text);
  char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
  buf_add_str(out, quoted ? quoted : "\"no memory, or not UTF-8\"");
  free(quoted);
  json_decref(json);
}

void exec_control_write(const struct exec_control *c, struct buf *out) {
  buf_add_byte(out, EXEC_CONTROL);
  switch (c->kind) {
  case EXEC_RESIZE:
    buf_printf(out, "{\"resize\":[%u,%u]}", c->rows, c->cols);
    break;
  case EXEC_EOF:
    buf_add_str(out, "{\"eof\":true}");
    break;
  case EXEC_STARTED:
    buf_add_str(out, "{\"started\":true}");
    break;
  case EXEC_EXIT:
    buf_printf(out, "{\"exit\":%d}", c->exit_code);
    break;
  case EXEC_ERROR:
    buf_add_str(out, "{\"error\":");
    write_string(c->text, out);
    buf_add_str(out, ",\"code\":");
    write_string(c->code, out);
    buf_add_byte(out, '}');
    break;
  }
}
