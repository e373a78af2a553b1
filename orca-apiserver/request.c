#include "orca-apiserver/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/bus/pb.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

#define REPLY_MAX ((size_t)64 << 20)
#define FAULTS_TOLD 1000u /* the rest is a count: an answer is not to be larger than what was asked */

struct api_request *api_request_new(struct api *api, const char *method, const char *path) {
  struct api_request *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  r->api = api;
  r->refs = 1;
  r->body.cap = API_BODY_MAX;
  r->out.cap = REPLY_MAX;
  r->method = strdup(method);
  r->path = strdup(path);
  if (r->method && r->path)
    return r;
  api_request_unref(r);
  return NULL;
}

struct api_request *api_request_ref(struct api_request *r) {
  r->refs++;
  return r;
}

void api_request_unref(struct api_request *r) {
  if (!r || --r->refs)
    return;
  if (r->stream)
    r->stream->free(r->stream_arg);
  for (size_t i = 0; i < r->query_count; i++) {
    free(r->query[i].key);
    free(r->query[i].value);
  }
  json_decref(r->json);
  buf_free(&r->body);
  buf_free(&r->out);
  free(r->last_event_id);
  free(r->method);
  free(r->path);
  free(r);
}

int api_request_add_query(struct api_request *r, const char *key, const char *value) {
  r->query_cut = true; /* unless it is taken */
  if (r->query_count == API_QUERY_MAX)
    return -1;
  struct api_query q = {strdup(key), strdup(value ? value : "")};
  if (!q.key || !q.value) {
    free(q.key);
    free(q.value);
    return -1;
  }
  r->query[r->query_count++] = q;
  r->query_cut = false;
  return 0;
}

const char *api_request_query(const struct api_request *r, const char *key) {
  for (size_t i = 0; i < r->query_count; i++)
    if (strcmp(r->query[i].key, key) == 0)
      return r->query[i].value;
  return NULL;
}

static bool is_true(const char *value) {
  return !*value || strcasecmp(value, "true") == 0 || strcmp(value, "1") == 0 || strcasecmp(value, "yes") == 0;
}

static bool is_false(const char *value) {
  return strcasecmp(value, "false") == 0 || strcmp(value, "0") == 0 || strcasecmp(value, "no") == 0;
}

bool api_request_flag(const struct api_request *r, const char *key) {
  const char *value = api_request_query(r, key);
  return value && is_true(value);
}

/* In "dry_run:boolean wait:boolean": the type; NULL: the route does not take it. */
static const char *type_of(const char *query, const char *key) {
  size_t len = strlen(key);
  for (const char *p = query; *p; p += strcspn(p, " "), p += strspn(p, " "))
    if (strncmp(p, key, len) == 0 && p[len] == ':')
      return p + len + 1;
  return NULL;
}

int api_request_check_query(const struct api_request *r, struct err *err) {
  if (strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0)
    return 0;
  for (size_t i = 0; i < r->query_count; i++) {
    const char *key = r->query[i].key, *type = type_of(r->route->query, key);
    char takes[200] = "";
    for (const char *p = r->route->query; *p; p += strcspn(p, " "), p += strspn(p, " "))
      snprintf(takes + strlen(takes), sizeof takes - strlen(takes), "%s%.*s", *takes ? ", " : ": it takes ", (int)strcspn(p, ":"), p);
    if (!type)
      return err_set(err, ERR_INVALID, "query: %.60s is no parameter of this path%s", key, takes);
    if (strncmp(type, "boolean", 7) == 0 && !is_true(r->query[i].value) && !is_false(r->query[i].value))
      return err_set(err, ERR_INVALID, "query: %s: must be true or false", key);
  }
  return 0;
}

/* ---- answers ---- */

struct api_json api_reply_json(struct api_request *r, int status) {
  buf_reset(&r->out);
  r->out.cap = REPLY_MAX;
  r->status = status;
  r->content_type = "application/json";
  struct api_json json = {.out = &r->out};
  api_json_object(&json, NULL);
  return json;
}

static void answered(struct api_request *r) {
  r->answered = true;
  api_audit_answered(r);
  if (r->wake)
    r->wake(r);
}

void api_reply_end(struct api_request *r) {
  buf_add(&r->out, "}\n", 2);
  if (buf_failed(&r->out)) {
    buf_free(&r->out);
    r->out.cap = REPLY_MAX;
    r->status = 503;
    buf_add_str(&r->out, "{\"error\":\"no memory for the answer\",\"code\":\"out_of_memory\"}\n");
  }
  answered(r);
}

void api_reply_text(struct api_request *r, int status, const char *content_type) {
  r->status = status;
  r->content_type = content_type;
  answered(r);
}

void api_reply_stream(struct api_request *r, const struct api_stream_ops *ops, void *arg) {
  r->status = 200;
  r->content_type = "text/event-stream";
  r->stream = ops;
  r->stream_arg = arg;
  answered(r);
}

void api_reply_upgrade(struct api_request *r, const char *accept, const char *protocol, const struct api_upgrade_ops *ops, void *arg) {
  r->status = 101;
  snprintf(r->accept, sizeof r->accept, "%s", accept);
  r->upgrade_protocol = protocol;
  r->upgrade = ops;
  r->upgrade_arg = arg;
  answered(r);
}

void api_stream_wake(struct api_request *r) {
  if (r->wake)
    r->wake(r);
}

static void fail_head(struct api_request *r, struct api_json *json, enum err_code code, const char *text) {
  *json = api_reply_json(r, err_code_http(code));
  if ((r->status == 503 || r->status == 429) && !r->retry_after)
    r->retry_after = 1;
  char line[sizeof r->audit.result];
  snprintf(line, sizeof line, "%s: %s", err_code_text(code), text);
  if (pb_utf8_valid(text, strlen(text))) {
    api_json_str(json, "error", text);
  } else { /* what a client sent, or cut short: only its ASCII is told back */
    char ascii[512];
    api_text_copy(ascii, sizeof ascii, text);
    for (char *p = ascii; *p; p++)
      if ((unsigned char)*p >= 0x80)
        *p = '?';
    api_json_str(json, "error", ascii);
    snprintf(line, sizeof line, "%s: %.100s", err_code_text(code), ascii);
  }
  api_text_copy(r->audit.result, sizeof r->audit.result, line);
  api_json_str(json, "code", err_code_text(code));
}

void api_fail(struct api_request *r, const struct err *err) {
  struct api_json json;
  fail_head(r, &json, err->code, err->msg);
  api_reply_end(r);
}

void api_fail_with(struct api_request *r, enum err_code code, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  struct err err;
  err_set(&err, code, "%s", text);
  api_fail(r, &err);
}

void api_fail_faults(struct api_request *r, enum err_code code, const struct spec_faults *faults) {
  struct api_json json;
  char text[512];
  if (faults->count == 1)
    snprintf(text, sizeof text, "%s: %s", faults->list[0].path, faults->list[0].message);
  else
    snprintf(text, sizeof text, "%zu faults", faults->count);
  fail_head(r, &json, code, text);
  api_json_array(&json, "details");
  for (size_t i = 0; i < faults->count && i < FAULTS_TOLD; i++) {
    api_json_object(&json, NULL);
    api_json_str(&json, "path", faults->list[i].path);
    api_json_str(&json, "message", faults->list[i].message);
    api_json_object_end(&json);
  }
  api_json_array_end(&json);
  api_reply_end(r);
}

/* ---- the body ---- */

/* jansson's parser recurses, and "{}," becomes two hundred bytes: what is deeper, or has more in it, than anything of ours is refused before. */
static int check_shape(const uint8_t *data, size_t len, struct err *err) {
  unsigned depth = 0, parts = 0;
  bool in_string = false;
  for (size_t i = 0; i < len; i++) {
    uint8_t c = data[i];
    if (in_string) {
      if (c == '\\')
        i++;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if ((c == '[' || c == '{') && ++depth > API_BODY_DEPTH) {
      return err_set(err, ERR_INVALID, "body: nests deeper than %d", API_BODY_DEPTH);
    } else if ((c == ']' || c == '}') && depth) {
      depth--;
    }
    if (!in_string && (c == '[' || c == '{' || c == ',') && ++parts > API_BODY_PARTS)
      return err_set(err, ERR_TOO_LARGE, "body: more than %u values", API_BODY_PARTS);
  }
  return 0;
}

/* In our own words: jansson's quote what stands there, which may be of a secret, and they are told in the audit log, too. */
static const char *words_for(const json_error_t *fault) {
  switch (json_error_code(fault)) {
  case json_error_duplicate_key:
    return "a duplicate key";
  case json_error_invalid_utf8:
    return "not UTF-8";
  case json_error_null_character:
  case json_error_null_byte_in_key:
    return "a NUL character";
  case json_error_numeric_overflow:
    return "a number that is too large";
  case json_error_premature_end_of_input:
    return "it ends too early";
  case json_error_end_of_input_expected:
    return "something stands behind its end";
  default:
    return "not JSON";
  }
}

int api_request_parse(struct api_request *r, struct err *err) {
  if (!r->body.len)
    return err_set(err, ERR_INVALID, "body: a JSON object is needed");
  if (check_shape(r->body.data, r->body.len, err) < 0)
    return -1;
  json_error_t fault;
  r->json = json_loadb((const char *)r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &fault);
  if (!r->json)
    return err_set(err, ERR_INVALID, "body: line %d, column %d: %s", fault.line, fault.column, words_for(&fault));
  if (!json_is_object(r->json))
    return err_set(err, ERR_INVALID, "body: a JSON object is needed");
  buf_free(&r->body); /* the tree is enough */
  return 0;
}
