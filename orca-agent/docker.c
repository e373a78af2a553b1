#include "orca-agent/docker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "orca-agent/docker_lines.h"

#define API "/v1.41"
#define MAX_ANSWER ((size_t)32 << 20)
#define PING_TIMEOUT (5 * NS_PER_SEC)
#define RETRY_FIRST (50 * NS_PER_MS)
#define RETRY_MAX NS_PER_SEC

struct docker_call {
  struct docker *d;
  struct http_request *request; /* NULL: it could not even be begun; the timer tells */
  struct loop_timer timer;
  docker_data_fn *data;
  docker_done_fn *done;
  void *arg;
  struct err err;
  uint64_t generation;
  struct docker_call *next, *prev;
};

struct docker {
  struct loop *loop;
  struct http_client *http;
  char *socket_path;
  struct docker_call *calls;
  /* the link */
  const struct docker_link_ops *ops;
  void *ops_arg;
  char *filters;
  bool up, told_down;
  struct loop_timer retry;
  int64_t retry_ns;
  struct docker_call *events;
  struct docker_lines lines;
  int64_t last_event_ns;
  char version[64];
  uint64_t generation; /* of the link: what is older ends with it */
};

struct docker *docker_new(struct loop *loop, struct http_client *http, const char *socket_path, struct err *err) {
  struct docker *d = calloc(1, sizeof *d);
  if (d)
    d->socket_path = strdup(socket_path);
  if (!d || !d->socket_path) {
    free(d);
    err_set(err, ERR_MEMORY, "no memory for the Docker client");
    return NULL;
  }
  d->loop = loop;
  d->http = http;
  d->lines = DOCKER_LINES_INIT;
  return d;
}

/* ---- calls ---- */

static void call_free(struct docker_call *call) {
  struct docker *d = call->d;
  loop_timer_cancel(d->loop, &call->timer);
  if (call->prev)
    call->prev->next = call->next;
  else if (d->calls == call)
    d->calls = call->next;
  if (call->next)
    call->next->prev = call->prev;
  free(call);
}

static enum err_code code_of(int status) {
  switch (status) {
  case 304:
    return ERR_NONE;
  case 400:
    return ERR_INVALID;
  case 401:
    return ERR_UNAUTHENTICATED;
  case 403:
    return ERR_DENIED;
  case 404:
    return ERR_NOT_FOUND;
  case 409:
    return ERR_CONFLICT;
  case 503:
    return ERR_UNAVAILABLE;
  default:
    return status >= 200 && status < 300 ? ERR_NONE : ERR_INTERNAL;
  }
}

static void on_done(void *arg, const struct http_answer *answer, const struct err *err) {
  struct docker_call *call = arg;
  call->request = NULL;
  struct docker_reply reply = {.message = "", .status = err ? 0 : answer->status};
  json_t *json = NULL;
  if (err) {
    reply.code = err->code == ERR_NONE ? ERR_INTERNAL : err->code;
    reply.message = err->msg;
  } else {
    reply.code = code_of(answer->status);
    if (answer->len && strncmp(answer->content_type, "application/json", 16) == 0)
      json = json_loadb((const char *)answer->body, answer->len, 0, NULL);
    reply.json = json;
    const char *message = json_string_value(json_object_get(json, "message"));
    if (reply.code != ERR_NONE)
      reply.message = message ? message : "no reason was given";
  }
  call->done(call->arg, &reply);
  json_decref(json);
  call_free(call);
}

static bool on_data(void *arg, const uint8_t *data, size_t len) {
  struct docker_call *call = arg;
  return call->data(call->arg, data, len);
}

static void on_no_start(void *arg) {
  struct docker_call *call = arg;
  struct docker_reply reply = {.code = ERR_UNAVAILABLE, .message = call->err.msg};
  call->done(call->arg, &reply);
  call_free(call);
}

struct docker_call *docker_call(struct docker *d, const struct docker_options *o) {
  struct docker_call *call = calloc(1, sizeof *call);
  char *body = o->body ? json_dumps(o->body, JSON_COMPACT) : NULL;
  bool no_memory = !call || (o->body && !body);
  json_decref(o->body);
  struct buf url = BUF_INIT(16384);
  if (!no_memory)
    buf_printf(&url, "http://docker%s%s", API, o->path);
  if (no_memory || buf_failed(&url)) {
    free(body);
    free(call);
    buf_free(&url);
    return NULL;
  }
  *call = (struct docker_call){.d = d, .data = o->data, .done = o->done, .arg = o->arg, .generation = d->generation, .next = d->calls};
  if (call->next)
    call->next->prev = call;
  d->calls = call;
  call->timer = (struct loop_timer){.cb = on_no_start, .arg = call};
  const char *headers[8] = {NULL};
  size_t n = 0;
  if (body)
    headers[n++] = "Content-Type: application/json";
  for (const char *const *h = o->headers; h && *h && n < 7; h++)
    headers[n++] = *h;
  struct http_options options = {
      .method = o->method,
      .url = buf_str(&url),
      .unix_socket = d->socket_path,
      .headers = headers,
      .body = body,
      .body_len = body ? strlen(body) : 0,
      .timeout_ns = o->timeout_ns,
      .connect_timeout_ns = 5 * NS_PER_SEC,
      .max_body = MAX_ANSWER,
      .data = o->data ? on_data : NULL,
      .done = on_done,
      .arg = call,
  };
  call->request = http_start(d->http, &options, &call->err);
  if (!call->request && loop_timer_in(d->loop, &call->timer, 0, NULL) < 0) {
    call_free(call);
    call = NULL;
  }
  free(body);
  buf_free(&url);
  return call;
}

void docker_cancel(struct docker_call *call) {
  if (!call)
    return;
  if (call->request)
    http_cancel(call->request);
  call_free(call);
}

static struct docker_call *older_than(struct docker *d, uint64_t generation) {
  struct docker_call *call = d->calls;
  while (call && call->generation >= generation)
    call = call->next;
  return call;
}

static void end_all(struct docker *d, enum err_code code, const char *why) {
  /* Callbacks may begin calls (those stay) and cancel others. */
  uint64_t generation = ++d->generation;
  for (struct docker_call *call; (call = older_than(d, generation));) {
    call->generation = generation;
    if (call->request)
      http_cancel(call->request);
    call->request = NULL;
    struct docker_reply reply = {.code = code, .message = why};
    call->done(call->arg, &reply);
    call_free(call);
  }
}

void docker_free(struct docker *d) {
  if (!d)
    return;
  for (struct docker_call *call = d->calls, *next; call; call = next) {
    next = call->next;
    if (call->arg == d) /* the link's own */
      docker_cancel(call);
  }
  end_all(d, ERR_CANCELLED, "closed from this side");
  while (d->calls)
    docker_cancel(d->calls);
  loop_timer_cancel(d->loop, &d->retry);
  docker_lines_fini(&d->lines);
  free(d->socket_path);
  free(d->filters);
  free(d);
}

/* ---- the link ---- */

static void ping(void *arg);

static void lost(struct docker *d, const char *why) {
  bool was_up = d->up;
  d->up = false;
  /* `why` may live in a call that ends here. */
  char text[256];
  snprintf(text, sizeof text, "%s", why);
  end_all(d, ERR_UNAVAILABLE, text);
  docker_lines_fini(&d->lines);
  if (was_up)
    d->retry_ns = 0;
  d->retry_ns = d->retry_ns ? d->retry_ns * 2 : RETRY_FIRST;
  if (d->retry_ns > RETRY_MAX)
    d->retry_ns = RETRY_MAX;
  if (loop_timer_in(d->loop, &d->retry, d->retry_ns, NULL) < 0)
    d->retry_ns = RETRY_MAX;
  if (was_up || !d->told_down) {
    d->told_down = true;
    d->ops->down(d->ops_arg, text);
  }
}

/* Once the clock was put back, all events would be older than the last one until it has come to where it was. */
static void check_clock(struct docker *d) {
  if (d->last_event_ns > loop_wall(d->loop) + NS_PER_SEC)
    d->last_event_ns = 0;
}

static bool on_event_line(void *arg, const char *text, size_t len) {
  struct docker *d = arg;
  json_t *json = json_loadb(text, len, 0, NULL);
  if (!json_is_object(json)) {
    json_decref(json);
    return false;
  }
  json_int_t at = json_integer_value(json_object_get(json, "timeNano"));
  check_clock(d);
  /* What was replayed because of `since`. */
  bool fresh = at == 0 || at > d->last_event_ns;
  if (at > d->last_event_ns)
    d->last_event_ns = at;
  if (fresh)
    d->ops->event(d->ops_arg, json);
  json_decref(json);
  return true;
}

static bool on_event_data(void *arg, const uint8_t *data, size_t len) {
  struct docker *d = arg;
  return docker_lines_feed(&d->lines, data, len, on_event_line, d);
}

/* The call is freed by its caller once this returns. */
static void on_events_end(void *arg, const struct docker_reply *reply) {
  struct docker *d = arg;
  struct docker_call *self = d->events;
  d->events = NULL;
  /* Out of the list, so that lost() leaves it alone. */
  if (self->prev)
    self->prev->next = self->next;
  else if (d->calls == self)
    d->calls = self->next;
  if (self->next)
    self->next->prev = self->prev;
  self->next = self->prev = NULL;
  char why[256];
  snprintf(why, sizeof why, "the connection was lost (%s)", reply->code == ERR_NONE ? "its events ended" : reply->message);
  lost(d, why);
}

static void on_version(void *arg, const struct docker_reply *reply) {
  struct docker *d = arg;
  const char *version = json_string_value(json_object_get(reply->json, "Version"));
  if (reply->code != ERR_NONE || !version) {
    char text[256];
    snprintf(text, sizeof text, "%s", reply->code == ERR_NONE ? "what answers is not Docker" : reply->message);
    d->retry_ns = d->retry_ns ? d->retry_ns : RETRY_FIRST;
    /* This call frees itself; the others go with the link. */
    if (loop_timer_in(d->loop, &d->retry, d->retry_ns, NULL) < 0)
      return;
    d->retry_ns = d->retry_ns * 2 < RETRY_MAX ? d->retry_ns * 2 : RETRY_MAX;
    if (!d->told_down) {
      d->told_down = true;
      d->ops->down(d->ops_arg, text);
    }
    return;
  }
  snprintf(d->version, sizeof d->version, "%s", version);
  /* Events first, the list after: what happens between the two comes twice rather than never. */
  check_clock(d);
  if (!d->last_event_ns)
    d->last_event_ns = loop_wall(d->loop);
  char path[1024], escaped[768];
  if (http_escape(d->filters, escaped, sizeof escaped) < 0)
    return;
  snprintf(path, sizeof path, "/events?since=%" PRId64 ".%09" PRId64 "&filters=%s", d->last_event_ns / NS_PER_SEC, d->last_event_ns % NS_PER_SEC,
           escaped);
  d->lines = DOCKER_LINES_INIT;
  d->events = docker_call(d, &(struct docker_options){.method = "GET", .path = path, .data = on_event_data, .done = on_events_end, .arg = d});
  if (!d->events) {
    if (loop_timer_in(d->loop, &d->retry, RETRY_MAX, NULL) < 0)
      d->retry_ns = RETRY_MAX;
    return;
  }
  d->up = true;
  d->told_down = false;
  d->retry_ns = 0;
  d->ops->up(d->ops_arg, d->version);
}

static void ping(void *arg) {
  struct docker *d = arg;
  if (!docker_call(d, &(struct docker_options){.method = "GET", .path = "/version", .timeout_ns = PING_TIMEOUT, .done = on_version, .arg = d}) &&
      loop_timer_in(d->loop, &d->retry, RETRY_MAX, NULL) < 0)
    d->retry_ns = RETRY_MAX;
}

int docker_link_start(struct docker *d, const char *filters, const struct docker_link_ops *ops, void *arg, struct err *err) {
  d->filters = strdup(filters);
  if (!d->filters)
    return err_set(err, ERR_MEMORY, "no memory for the Docker client");
  d->ops = ops;
  d->ops_arg = arg;
  d->retry = (struct loop_timer){.cb = ping, .arg = d};
  return loop_timer_in(d->loop, &d->retry, 0, err);
}
