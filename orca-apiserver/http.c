#include "orca-apiserver/http.h"

#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/heads.h"
#include "orca-apiserver/listeners.h"
#include "orca-apiserver/routes.h"

#define CONNECTIONS_MAX 1024u
#define HEAD_MAX ((size_t)32 << 10)
#define IDLE_SECS 30u
#define BODY_LIMIT (300 * NS_PER_SEC)  /* for all of a body, however it trickles */
#define BODIES_MAX ((size_t)256 << 20) /* of all that are being read */
#define BODIES_PER_TOKEN ((size_t)64 << 20)
#define DRAIN_MAX (8 * (unsigned long long)API_BODY_MAX)
#define STREAMS_MAX 256
#define STREAMS_PER_TOKEN 64 /* or one token's clients leave none to the others */
#define STREAM_PING (15 * NS_PER_SEC)
#define STREAM_CHUNK ((size_t)16 << 10)

struct exchange { /* one request on one connection */
  struct api_http *http;
  struct MHD_Connection *connection;
  struct api_request *request;
  bool dispatched, suspended, too_large, too_many, queued, upgraded;
  int64_t began;
  struct exchange *next, *prev;
};

struct api_socket {
  struct api_http *http;
  struct MHD_UpgradeResponseHandle *handle;
  const struct api_upgrade_ops *ops;
  void *arg;
  struct api_socket *next, *prev;
};

struct api_http {
  struct api *api;
  struct MHD_Daemon *mhd;
  int epoll_fd;
  struct loop_io io;
  struct loop_timer timer, ping;
  struct loop_hook hook;
  struct exchange *exchanges;
  struct api_heads heads;
  struct api_socket *sockets;
  uint16_t port;
  bool closing;
};

/* ---- answers ---- */

static void add_headers(struct MHD_Response *response, const struct api_request *r) {
  MHD_add_response_header(response, "Content-Type", r->content_type);
  MHD_add_response_header(response, "Cache-Control", "no-store");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  /* libmicrohttpd keeps what it read as long as the connection */
  if (r->last || (r->route && strncmp(r->route->path, "/api/v1/secrets", 15) == 0))
    MHD_add_response_header(response, "Connection", "close");
  if (r->status == 401)
    MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"orca\"");
  if (r->status == 426)
    MHD_add_response_header(response, "Upgrade", "websocket");
  if (r->allow[0])
    MHD_add_response_header(response, "Allow", r->allow);
  if (r->retry_after) {
    char secs[16];
    snprintf(secs, sizeof secs, "%u", r->retry_after);
    MHD_add_response_header(response, "Retry-After", secs);
  }
}

static void suspend(struct exchange *x) {
  x->suspended = true;
  MHD_suspend_connection(x->connection);
}

static ssize_t next_piece(void *cls, uint64_t pos, char *to, size_t max) {
  (void)pos;
  struct exchange *x = cls;
  struct api_request *r = x->request;
  if (!r->out.len && !r->stream_over && !x->http->closing) {
    buf_reset(&r->out);
    if (!api_auth_is_known(&x->http->api->cache, &r->who, api_now_ms(x->http->api)) || r->stream->fill(r->stream_arg, &r->out) == API_PIECE_LAST)
      r->stream_over = true;
  }
  if (r->out.len) {
    size_t n = r->out.len < max ? r->out.len : max;
    memcpy(to, r->out.data, n);
    buf_consume(&r->out, n);
    return (ssize_t)n;
  }
  if (r->stream_over || x->http->closing)
    return MHD_CONTENT_READER_END_OF_STREAM;
  suspend(x);
  return 0;
}

static void stream_link(struct api *api, struct api_request *r) {
  r->next_stream = api->streams;
  if (r->next_stream)
    r->next_stream->prev_stream = r;
  api->streams = r;
  api->stream_count++;
}

static void stream_unlink(struct api *api, struct api_request *r) {
  if (r->prev_stream)
    r->prev_stream->next_stream = r->next_stream;
  else if (api->streams == r)
    api->streams = r->next_stream;
  else
    return;
  if (r->next_stream)
    r->next_stream->prev_stream = r->prev_stream;
  r->next_stream = r->prev_stream = NULL;
  api->stream_count--;
}

static void start_ping(struct api_http *h) {
  struct err err;
  if (!loop_timer_is_set(&h->ping) && loop_timer_in(h->api->loop, &h->ping, STREAM_PING, &err) < 0)
    log_warn("no timer for streams", "error", err.msg);
}

static bool has_too_many(const struct api *api, const struct api_principal *who) {
  size_t same = 0;
  for (const struct api_request *r = api->streams; r; r = r->next_stream)
    same += strcmp(r->who.token_id, who->token_id) == 0;
  return api->stream_count >= STREAMS_MAX || same >= STREAMS_PER_TOKEN;
}

/* ---- connections that are no longer HTTP ---- */

static void run_soon(struct api_http *h) {
  /* Without a thread of its own MHD has nothing to wake itself with: it is run in the loop's next round. */
  struct err err;
  if (loop_timer_in(h->api->loop, &h->timer, 0, &err) < 0)
    log_error("no timer for HTTP", "error", err.msg);
}

void api_socket_close(struct api_socket *s) {
  struct api_http *h = s->http;
  if (s->prev)
    s->prev->next = s->next;
  else
    h->sockets = s->next;
  if (s->next)
    s->next->prev = s->prev;
  MHD_upgrade_action(s->handle, MHD_UPGRADE_ACTION_CLOSE);
  free(s);
  run_soon(h);
}

static void drop_upgrade(struct api_request *r) {
  const struct api_upgrade_ops *ops = r->upgrade;
  r->upgrade = NULL;
  if (ops)
    ops->drop(r->upgrade_arg);
}

static void on_upgrade(void *cls, struct MHD_Connection *c, void *con_cls, const char *early, size_t early_len, MHD_socket fd,
                       struct MHD_UpgradeResponseHandle *handle) {
  (void)c;
  (void)con_cls;
  struct exchange *x = cls;
  struct api_request *r = x->request;
  x->upgraded = true;
  struct api_socket *s = calloc(1, sizeof *s);
  if (!s) {
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
    drop_upgrade(r);
    run_soon(x->http);
    return;
  }
  *s = (struct api_socket){.http = x->http, .handle = handle, .ops = r->upgrade, .arg = r->upgrade_arg, .next = x->http->sockets};
  if (s->next)
    s->next->prev = s;
  x->http->sockets = s;
  r->upgrade = NULL;
  s->ops->open(s->arg, s, fd, early, early_len);
}

static struct MHD_Response *upgrade_response(struct exchange *x) {
  struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgrade, x);
  if (!response)
    return NULL;
  MHD_add_response_header(response, "Upgrade", "websocket");
  MHD_add_response_header(response, "Sec-WebSocket-Accept", x->request->accept);
  MHD_add_response_header(response, "Sec-WebSocket-Protocol", x->request->upgrade_protocol);
  return response;
}

static enum MHD_Result queue_answer(struct exchange *x) {
  struct api_request *r = x->request;
  struct api *api = x->http->api;
  if (r->stream && has_too_many(api, &r->who)) {
    r->stream->free(r->stream_arg);
    r->stream = NULL;
    api_fail_with(r, ERR_BUSY, "too many streams are open");
  }
  struct MHD_Response *response;
  if (r->upgrade) {
    response = upgrade_response(x);
  } else if (r->stream) {
    response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_CHUNK, next_piece, x, NULL);
  } else {
    size_t len;
    uint8_t *data = buf_take(&r->out, &len);
    response = MHD_create_response_from_buffer(data ? len : 0, data, data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response)
      free(data);
  }
  if (!response)
    return MHD_NO;
  if (!r->upgrade)
    add_headers(response, r);
  enum MHD_Result rc = MHD_queue_response(x->connection, (unsigned)r->status, response);
  MHD_destroy_response(response);
  x->queued = true;
  if (r->status >= 100 && r->status < 600)
    api->requests[r->status / 100]++;
  if (r->stream) {
    stream_link(api, r);
    start_ping(x->http);
  }
  return rc;
}

static void wake(struct api_request *r) {
  struct exchange *x = r->transport;
  if (!x || !x->suspended)
    return;
  x->suspended = false;
  MHD_resume_connection(x->connection);
  run_soon(x->http);
}

/* Streams that have nothing to say say so now and then: that is how a client that is gone is found out. */
static void ping(void *arg) {
  struct api_http *h = arg;
  for (struct api_request *r = h->api->streams; r; r = r->next_stream) {
    if (!r->out.len && strcmp(r->content_type, "text/event-stream") == 0)
      buf_add_str(&r->out, ": still here\n\n");
    wake(r);
  }
  if (h->api->streams)
    start_ping(h);
}

/* ---- requests ---- */

static enum MHD_Result add_query(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
  (void)kind;
  return api_request_add_query(cls, key, value) == 0 ? MHD_YES : MHD_NO;
}

/* A client may send lines of its own before the one that its proxy adds: the last counts. */
static enum MHD_Result last_forwarded(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
  (void)kind;
  const char **last = cls;
  if (strcasecmp(key, "X-Forwarded-For") == 0)
    *last = value ? value : "";
  return MHD_YES;
}

static void set_from(struct api_request *r, struct MHD_Connection *c) {
  const char *forwarded = NULL;
  MHD_get_connection_values(c, MHD_HEADER_KIND, last_forwarded, &forwarded);
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  api_from_make(info ? info->client_addr : NULL, forwarded, MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Forwarded") != NULL, &r->from);
  r->who.local = r->from.local && api_host_is_local(MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST));
}

static const char *header(struct api_request *r, const char *name) {
  return MHD_lookup_connection_value(((struct exchange *)r->transport)->connection, MHD_HEADER_KIND, name);
}

static struct api_head *head_of(struct MHD_Connection *c) {
  return MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what) {
  struct api_http *h = cls;
  if (what == MHD_CONNECTION_NOTIFY_STARTED)
    *context = api_head_new(&h->heads, MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
  else
    api_head_gone(&h->heads, *context);
}

static struct exchange *exchange_new(struct api_http *h, struct MHD_Connection *c, const char *method, const char *url) {
  struct exchange *x = calloc(1, sizeof *x);
  if (!x)
    return NULL;
  x->request = api_request_new(h->api, method, url);
  if (!x->request) {
    free(x);
    return NULL;
  }
  x->http = h;
  x->connection = c;
  x->began = loop_now(h->api->loop);
  api_head_waits(&h->heads, head_of(c), false);
  x->request->transport = x;
  x->request->wake = wake;
  x->request->header = header;
  set_from(x->request, c);
  x->next = h->exchanges;
  if (x->next)
    x->next->prev = x;
  h->exchanges = x;
  return x;
}

static void completed(void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why) {
  (void)why;
  struct api_http *h = cls;
  struct exchange *x = *con_cls;
  if (!x)
    return;
  if (!x->upgraded)
    api_head_waits(&h->heads, head_of(c), true);
  *con_cls = NULL;
  if (x->request->stream)
    stream_unlink(h->api, x->request);
  drop_upgrade(x->request);
  x->request->transport = NULL;
  x->request->wake = NULL;
  x->request->header = NULL;
  api_request_unref(x->request);
  if (x->prev)
    x->prev->next = x->next;
  else
    h->exchanges = x->next;
  if (x->next)
    x->next->prev = x->prev;
  free(x);
}

/* The head is complete: whoever may not go on is told before a body is read. */
static enum MHD_Result head_complete(struct exchange *x) {
  struct api_request *r = x->request;
  struct MHD_Connection *c = x->connection;
  MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, add_query, r);
  const char *last = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Last-Event-ID");
  if (last && strlen(last) < 64)
    r->last_event_id = strdup(last);
  if (!api_admit(x->http->api, r, MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION)))
    return queue_answer(x);
  const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  unsigned long long announced = length ? strtoull(length, NULL, 10) : 0;
  if (length && MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING)) {
    r->last = true; /* where it ends, and the next one begins, is anybody's guess */
    api_fail_with(r, ERR_INVALID, "head: Content-Length and Transfer-Encoding");
    return queue_answer(x);
  }
  if (announced > DRAIN_MAX) {
    api_fail_with(r, ERR_TOO_LARGE, "body: larger than %zu MiB", API_BODY_MAX >> 20);
    return queue_answer(x);
  }
  x->too_large = announced > API_BODY_MAX;
  return MHD_YES;
}

/* No more bodies at once than there is memory for: a token could send them over all its connections, and never end one. */
static bool has_room(const struct exchange *x, size_t more) {
  size_t all = more, same = more;
  for (const struct exchange *y = x->http->exchanges; y; y = y->next) {
    all += y->request->body.len;
    same += strcmp(y->request->who.token_id, x->request->who.token_id) == 0 ? y->request->body.len : 0;
  }
  return all <= BODIES_MAX && same <= BODIES_PER_TOKEN;
}

/* What is not kept is read and dropped: most clients read no answer before they have sent all. */
static void take_body(struct exchange *x, const char *data, size_t len) {
  struct api_request *r = x->request;
  if (x->too_large || x->too_many || !r->route->takes)
    return;
  x->too_many = !has_room(x, len);
  x->too_large = !x->too_many && (r->body.len + len > API_BODY_MAX || buf_add(&r->body, data, len) < 0);
  if (x->too_large || x->too_many)
    buf_free(&r->body);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **con_cls) {
  (void)version;
  struct api_http *h = cls;
  struct exchange *x = *con_cls;
  if (!x) {
    x = exchange_new(h, c, method, url);
    if (!x)
      return MHD_NO;
    *con_cls = x;
    return head_complete(x);
  }
  struct api_request *r = x->request;
  if (x->queued)
    return MHD_YES;
  if (*upload_len) {
    if (loop_now(h->api->loop) - x->began > BODY_LIMIT)
      return MHD_NO;
    take_body(x, upload, *upload_len);
    *upload_len = 0;
    return MHD_YES;
  }
  if (x->too_large)
    api_fail_with(r, ERR_TOO_LARGE, "body: larger than %zu MiB", API_BODY_MAX >> 20);
  else if (x->too_many)
    api_fail_with(r, ERR_BUSY, "too many bodies come at once: try again in a moment");
  else if (!r->answered && !x->dispatched) {
    x->dispatched = true;
    api_dispatch(h->api, r);
  }
  if (r->answered)
    return queue_answer(x);
  if (h->closing)
    return MHD_NO;
  suspend(x);
  return MHD_YES;
}

/* ---- the loop ---- */

static void run(struct api_http *h) {
  MHD_run(h->mhd);
}

static void on_epoll(void *arg, uint32_t events) {
  (void)events;
  run(arg);
}

static void on_timer(void *arg) {
  run(arg);
}

static bool before_wait(void *arg) {
  struct api_http *h = arg;
  MHD_UNSIGNED_LONG_LONG ms;
  if (MHD_get_timeout(h->mhd, &ms) != MHD_YES) {
    loop_timer_cancel(h->api->loop, &h->timer);
    return false;
  }
  if (ms == 0) {
    run(h);
    return true;
  }
  struct err err;
  int64_t at = loop_now(h->api->loop) + (int64_t)ms * NS_PER_MS;
  /* An early timer only asks again: moving it for every request would cost more. */
  if ((!loop_timer_is_set(&h->timer) || h->timer.at > at) && loop_timer_at(h->api->loop, &h->timer, at, &err) < 0)
    log_warn("no timer for HTTP", "error", err.msg);
  return false;
}

__attribute__((format(printf, 2, 0))) static void on_log(void *cls, const char *fmt, va_list ap) {
  char text[256];
  vsnprintf(text, sizeof text, fmt, ap);
  text[strcspn(text, "\r\n")] = 0;
  log_debug("http", "what", text);
  run_soon(cls); /* it has given a connection up, perhaps, which it closes only when it runs again */
}

static int hex(char c) {
  return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* libmicrohttpd's own would cut "a%00b" to "a": what is no text stays as it was written, and is the name of nothing. */
static size_t unescape(void *cls, struct MHD_Connection *c, char *text) {
  (void)cls;
  (void)c;
  char *to = text;
  for (const char *from = text; *from;) {
    int high = *from == '%' ? hex(from[1]) : -1, low = high >= 0 ? hex(from[2]) : -1;
    if (low < 0 || (high == 0 && low == 0)) {
      *to++ = *from++;
      continue;
    }
    *to++ = (char)(high << 4 | low);
    from += 3;
  }
  *to = 0;
  return (size_t)(to - text);
}

struct api_http *api_http_open(struct api *api, const char *address, uint16_t port, struct err *err) {
  struct api_http *h = calloc(1, sizeof *h);
  if (!h) {
    err_set(err, ERR_MEMORY, "no memory for HTTP");
    return NULL;
  }
  h->api = api;
  api_heads_init(&h->heads, api->loop);
  char text[80];
  snprintf(text, sizeof text, "%s:%u", address, port);
  int fd = api_listen_on(text, &h->port, err);
  if (fd < 0) {
    free(h);
    return NULL;
  }
  h->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, h,
                            MHD_OPTION_EXTERNAL_LOGGER, on_log, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEAD_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECS, MHD_OPTION_NOTIFY_COMPLETED,
                            completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                            MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
  if (!h->mhd) {
    err_set(err, ERR_INTERNAL, "libmicrohttpd does not start on %s:%u", address, h->port);
    close(fd);
    free(h);
    return NULL;
  }
  h->epoll_fd = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
  h->io = (struct loop_io){.cb = on_epoll, .arg = h};
  h->timer = (struct loop_timer){.cb = on_timer, .arg = h};
  h->ping = (struct loop_timer){.cb = ping, .arg = h};
  h->hook = (struct loop_hook){.cb = before_wait, .arg = h};
  if (loop_io_add(api->loop, &h->io, h->epoll_fd, EPOLLIN, err) < 0) {
    MHD_stop_daemon(h->mhd);
    free(h);
    return NULL;
  }
  loop_hook_add(api->loop, &h->hook);
  return h;
}

void api_http_accepted(void *arg, int fd, const struct sockaddr *from, socklen_t len) {
  struct api_http *h = arg;
  if (MHD_add_connection(h->mhd, fd, from, len) != MHD_YES)
    log_debug("a connection was turned away"); /* by the limit; libmicrohttpd has closed it */
}

uint16_t api_http_port(const struct api_http *h) {
  return h->port;
}

void api_http_close(struct api_http *h) {
  if (!h)
    return;
  h->closing = true;
  loop_hook_remove(h->api->loop, &h->hook);
  loop_io_remove(h->api->loop, &h->io);
  loop_timer_cancel(h->api->loop, &h->ping);
  while (h->sockets)
    h->sockets->ops->shutdown(h->sockets->arg);
  loop_timer_cancel(h->api->loop, &h->timer);
  for (struct exchange *x = h->exchanges; x; x = x->next) /* MHD ends the process when it is stopped with some suspended */
    if (x->suspended) {
      x->suspended = false;
      MHD_resume_connection(x->connection);
    }
  MHD_stop_daemon(h->mhd);
  api_heads_fini(&h->heads);
  free(h);
}
