#include "orcactl/api.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/daemon/daemon.h"
#include "common/http/http.h"
#include "common/spec/spec.h"
#include "orcactl/api_curl.h"
#include "orcactl/loopback.h"
#include "orcactl/sse.h"

#define ANSWER_MAX ((size_t)64 << 20)

struct transfer {
  struct ctl *ctl;
  struct buf body;
  bool stream, while_read, is_events, stopped;
  struct sse sse;
  bool (*on_event)(void *arg, const char *event, const char *data);
  void *arg;
};

static size_t on_data(char *data, size_t one, size_t len, void *arg) {
  (void)one;
  struct transfer *t = arg;
  if (t->stream && !t->is_events && t->body.len == 0) {
    const char *type = NULL;
    long status = 0;
    curl_easy_getinfo(t->ctl->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->ctl->curl, CURLINFO_CONTENT_TYPE, &type);
    t->is_events = status / 100 == 2 && type && strncasecmp(type, "text/event-stream", 17) == 0;
  }
  if (!t->is_events)
    return buf_add(&t->body, data, len) == 0 ? len : 0;
  bool go_on = sse_feed(&t->sse, data, len, t->on_event, t->arg);
  fflush(stdout); /* whoever reads a pipe sees what has come, line by line or many at once */
  if (go_on)
    return len;
  t->stopped = true;
  return 0;
}

static int load_context(struct ctl *ctl, struct err *err) {
  if (ctl->has_context)
    return 0;
  if (context_load(ctl->context_name, &ctl->context, err) < 0)
    return -1;
  if (strncmp(ctl->context.url, "http://", 7) != 0 && strncmp(ctl->context.url, "https://", 8) != 0)
    return err_set(err, ERR_INVALID, "context %s: url must begin with http:// or https://", ctl->context.name);
  if (strncmp(ctl->context.url, "https://", 8) == 0 && !*ctl->context.ca)
    return err_set(err, ERR_INVALID, "context %s has no CA to trust: make it anew with `orcactl login`", ctl->context.name);
  ctl->has_context = true;
  return 0;
}

int api_refused(struct ctl *ctl, long status, struct buf *body, struct err *err) {
  json_t *json = json_loadb(buf_str(body), body->len, 0, NULL);
  const char *text = api_str(json, "error");
  enum err_code code = *api_str(json, "code") ? err_code_from_text(api_str(json, "code")) : ERR_INTERNAL;
  if (status == 401)
    code = ERR_UNAUTHENTICATED;
  else if (status == 403)
    code = ERR_DENIED;
  else if (status == 503 && !json)
    code = ERR_UNAVAILABLE;
  if (*text)
    err_set(err, code, "%s", text);
  else
    err_set(err, code, "%s answered with status %ld", ctl->context.url, status);
  json_decref(ctl->details);
  ctl->details = json_incref(json_object_get(json, "details"));
  json_decref(json);
  return -1;
}

static struct curl_slist *add(struct curl_slist *list, const char *line, bool *failed) {
  struct curl_slist *longer = curl_slist_append(list, line);
  *failed = *failed || !longer;
  return longer ? longer : list;
}

static bool is_plain(const struct ctl *ctl) {
  return strncmp(ctl->context.url, "http://", 7) == 0;
}

/* libcurl's, when it is connected and has sent nothing yet. */
static int on_connected(void *arg, char *server, char *own, int server_port, int own_port) {
  struct ctl *ctl = arg;
  return loopback_check(server, server_port, own, own_port, &ctl->stranger) < 0 ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

int api_prepare(struct ctl *ctl, char why[CURL_ERROR_SIZE], struct err *err) {
  if (load_context(ctl, err) < 0)
    return -1;
  if (!ctl->curl && (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(ctl->curl = curl_easy_init())))
    return err_set(err, ERR_MEMORY, "no memory for a request");
  CURL *curl = ctl->curl;
  curl_easy_reset(curl);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  /* The cluster's own CA and no other root: what the machine trusts besides could speak for any name. */
  struct curl_blob ca = {.data = ctl->context.ca, .len = strlen(ctl->context.ca), .flags = CURL_BLOB_COPY};
  curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
  curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
  if (ca.len)
    curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &ca);
  curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
  curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
  ctl->stranger = (struct err){0};
  if (is_plain(ctl)) {
    curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(curl, CURLOPT_PREREQDATA, ctl);
  }
  return 0;
}

/* curl_easy_perform(), given up as soon as nobody reads stdout: a stream may have nothing to say for hours. */
static CURLcode perform_while_read(struct transfer *t) {
  CURLM *multi = curl_multi_init();
  CURLcode rc = CURLE_OUT_OF_MEMORY;
  int running = 1, left;
  if (multi && curl_multi_add_handle(multi, t->ctl->curl) == CURLM_OK) {
    while (!t->stopped && curl_multi_perform(multi, &running) == CURLM_OK && running) {
      struct curl_waitfd out = {.fd = STDOUT_FILENO}; /* poll() tells of its end without being asked */
      if (curl_multi_poll(multi, &out, 1, 60000, NULL) != CURLM_OK)
        break;
      t->stopped = ctl_unread();
    }
    const CURLMsg *end = curl_multi_info_read(multi, &left);
    if (end)
      rc = end->data.result;
    curl_multi_remove_handle(multi, t->ctl->curl);
  }
  curl_multi_cleanup(multi);
  return rc;
}

static int transfer(struct transfer *t, const char *method, const char *path, const json_t *body, const char *last_id, struct err *err) {
  struct ctl *ctl = t->ctl;
  char why[CURL_ERROR_SIZE] = "";
  if (api_prepare(ctl, why, err) < 0)
    return -1;
  CURL *curl = ctl->curl;
  char url[65536], header[512];
  if (snprintf(url, sizeof url, "%s%s", ctl->context.url, path) >= (int)sizeof url)
    return err_set(err, ERR_INVALID, "name too long");
  char *text = body ? json_dumps(body, JSON_COMPACT) : strdup("");
  bool failed = !text;
  struct curl_slist *headers = NULL;
  snprintf(header, sizeof header, "Authorization: Bearer %s", ctl->context.token);
  headers = add(headers, header, &failed);
  crypto_wipe(header, sizeof header);
  headers = add(headers, t->stream ? "Accept: text/event-stream, application/json" : "Accept: application/json", &failed);
  headers = add(headers, "Content-Type: application/json", &failed);
  headers = add(headers, "Expect:", &failed);
  if (last_id && *last_id) {
    snprintf(header, sizeof header, "Last-Event-ID: %s", last_id);
    headers = add(headers, header, &failed);
  }
  curl_easy_setopt(curl, CURLOPT_URL, url);
  curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
  if (strcmp(method, "GET") != 0 && text) {
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(text));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text);
  }
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "orcactl/" ORCA_VERSION);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, t->stream ? 0L : 60000L);
  CURLcode rc = failed ? CURLE_OUT_OF_MEMORY : t->while_read ? perform_while_read(t) : curl_easy_perform(curl);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_slist_free_all(headers);
  free(text);
  if (t->stopped)
    return buf_failed(&t->sse.line) || buf_failed(&t->sse.data) ? err_set(err, ERR_TOO_LARGE, "an event is too large") : 0;
  if (ctl->stranger.code != ERR_NONE) {
    *err = ctl->stranger;
    return -1;
  }
  if (rc == CURLE_OUT_OF_MEMORY)
    return err_set(err, ERR_MEMORY, "no memory for a request");
  if (buf_failed(&t->body))
    return err_set(err, ERR_TOO_LARGE, "the answer is too large");
  if (rc != CURLE_OK) {
    ctl->unreachable = true;
    return err_set(err, ERR_UNAVAILABLE, "%s: %s", ctl->context.url, *why ? why : curl_easy_strerror(rc));
  }
  ctl->unreachable = false;
  return status / 100 == 2 ? 0 : api_refused(ctl, status, &t->body, err);
}

int api_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret, struct err *err) {
  struct transfer t = {.ctl = ctl, .body = BUF_INIT(ANSWER_MAX)};
  int rc = transfer(&t, method, path, body, NULL, err);
  if (rc == 0 && ret) {
    *ret = json_loadb(buf_str(&t.body), t.body.len, 0, NULL);
    if (!json_is_object(*ret)) {
      json_decref(*ret);
      *ret = NULL;
      rc = err_set(err, ERR_INTERNAL, "%s did not answer with JSON: is it an orca-apiserver?", ctl->context.url);
    }
  }
  buf_free(&t.body);
  return rc;
}

static int stream(struct transfer *t, const char *method, const char *path, const json_t *body, char last_id[64], struct err *err) {
  sse_init(&t->sse);
  int rc = transfer(t, method, path, body, last_id, err);
  if (rc == 0 && !t->is_events && t->body.len)
    t->on_event(t->arg, "message", buf_str(&t->body));
  if (t->sse.id[0])
    memcpy(last_id, t->sse.id, sizeof t->sse.id);
  sse_free(&t->sse);
  buf_free(&t->body);
  return rc;
}

int api_stream(struct ctl *ctl, const char *method, const char *path, const json_t *body, char last_id[64],
               bool (*on_event)(void *arg, const char *event, const char *data), void *arg, struct err *err) {
  struct transfer t = {.ctl = ctl, .body = BUF_INIT(ANSWER_MAX), .stream = true, .on_event = on_event, .arg = arg};
  return stream(&t, method, path, body, last_id, err);
}

int api_follow(struct ctl *ctl, const char *path, char last_id[64], bool (*on_event)(void *arg, const char *event, const char *data), void *arg,
               struct err *err) {
  struct transfer t = {.ctl = ctl, .body = BUF_INIT(ANSWER_MAX), .stream = true, .while_read = true, .on_event = on_event, .arg = arg};
  return stream(&t, "GET", path, NULL, last_id, err);
}

void api_end(struct ctl *ctl) {
  if (ctl->curl)
    curl_easy_cleanup(ctl->curl);
  ctl->curl = NULL;
  json_decref(ctl->details);
  ctl->details = NULL;
  context_free(&ctl->context);
}

/* kind: "service", whose things are in the folder "services". */
static int named_path(const char *kind, const char *name, const char *tail, const char *query, char out[512], struct err *err) {
  const char *slash = strchr(name, '/'), *own = slash ? slash + 1 : name;
  char project[64] = "";
  if (slash && (size_t)(slash - name) < sizeof project)
    memcpy(project, name, (size_t)(slash - name));
  if (!spec_name_valid(own) || (slash && !spec_name_valid(project)))
    return err_set(err, ERR_INVALID, "%s is not the name of a %s: NAME or PROJECT/NAME, of lower case letters, digits and -", name, kind);
  snprintf(out, 512, "/api/v1/%ss/%s%s%s%s%s%s%s", kind, own, tail, slash || *query ? "?" : "", slash ? "project=" : "", project,
           slash && *query ? "&" : "", query);
  return 0;
}

int api_service_path(const char *name, const char *tail, const char *query, char out[512], struct err *err) {
  return named_path("service", name, tail, query, out, err);
}

int api_job_path(const char *name, const char *tail, const char *query, char out[512], struct err *err) {
  return named_path("job", name, tail, query, out, err);
}

int api_add_query(struct buf *path, const char *key, const char *value) {
  char escaped[400];
  if (!value)
    return 0;
  if (http_escape(value, escaped, sizeof escaped) < 0)
    return -1;
  return buf_printf(path, "&%s=%s", key, escaped);
}

const char *api_str(const json_t *object, const char *key) {
  const char *s = json_string_value(json_object_get(object, key));
  return s ? s : "";
}

long long api_int(const json_t *object, const char *key) {
  return json_integer_value(json_object_get(object, key));
}

double api_num(const json_t *object, const char *key) {
  return json_number_value(json_object_get(object, key));
}
