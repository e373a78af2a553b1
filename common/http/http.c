#include "common/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <llhttp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"

#define DEFAULT_MAX_BODY ((size_t)16 << 20)
#define DEFAULT_CONNECT_TIMEOUT (10 * NS_PER_SEC)
#define CONNECT_RETRY (20 * NS_PER_MS) /* a Unix socket whose queue is full */
#define REQUEST_MAX ((size_t)64 << 20)
#define HEAD_MAX ((size_t)64 << 10)
#define READ_SIZE ((size_t)16 << 10)
#define READS_AT_ONCE 8
#define IDLE_MAX 8

union address {
  struct sockaddr sa;
  struct sockaddr_un un;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
};

/* Of a request, or idle. */
struct connection {
  struct http_client *client;
  struct http_request *request; /* NULL: idle */
  struct loop_io io;
  int fd;
  union address to;
  struct connection *next; /* of the idle ones */
};

enum stage { STAGE_CONNECT, STAGE_EXCHANGE, STAGE_OVER };

struct http_request {
  struct http_client *client;
  struct connection *connection; /* NULL: it could not even be begun; the timer tells */
  union address to;
  enum stage stage;
  llhttp_t parser;
  struct buf out; /* head and body; the first `sent` bytes are gone */
  size_t sent;
  struct buf body;
  size_t max_body, head_len;
  char name[16], content_type[128]; /* of the header field that is being read; of the answer */
  struct loop_timer timer;
  int64_t deadline, connect_deadline;
  struct err err;
  bool reused, fresh, head_only, answered, complete, keep, in_callback, cancelled;
  bool (*data)(void *arg, const uint8_t *data, size_t len);
  void (*done)(void *arg, const struct http_answer *answer, const struct err *err);
  void *arg;
  struct http_request *next, *prev; /* all of the client's */
};

struct http_client {
  struct loop *loop;
  struct http_request *requests;
  struct connection *idle;
  uint8_t *buffer; /* READ_SIZE; wiped after use: answers tell the environment of containers */
};

/* ---- connections ---- */

static void connection_close(struct connection *c) {
  loop_io_remove(c->client->loop, &c->io);
  if (c->fd >= 0)
    close(c->fd);
  free(c);
}

static void idle_remove(struct connection *c) {
  for (struct connection **at = &c->client->idle; *at; at = &(*at)->next)
    if (*at == c) {
      *at = c->next;
      return;
    }
}

static bool same_address(const union address *a, const union address *b) {
  if (a->sa.sa_family != b->sa.sa_family)
    return false;
  switch (a->sa.sa_family) {
  case AF_UNIX:
    return strcmp(a->un.sun_path, b->un.sun_path) == 0;
  case AF_INET:
    return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
  case AF_INET6:
    return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
           memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
  default:
    return false;
  }
}

static struct connection *idle_take(struct http_client *client, const union address *to) {
  for (struct connection *c = client->idle; c; c = c->next)
    if (same_address(&c->to, to)) {
      idle_remove(c);
      return c;
    }
  return NULL;
}

static void idle_add(struct connection *c) {
  struct http_client *client = c->client;
  struct err err;
  size_t count = 0;
  for (struct connection *other = client->idle; other; other = other->next)
    count++;
  if (count >= IDLE_MAX || loop_io_change(client->loop, &c->io, EPOLLIN, &err) < 0) {
    connection_close(c);
    return;
  }
  c->request = NULL;
  c->next = client->idle;
  client->idle = c;
}

static void on_io(void *arg, uint32_t events);

static struct connection *connection_new(struct http_client *client, const union address *to, struct err *err) {
  struct connection *c = calloc(1, sizeof *c);
  if (!c) {
    err_set(err, ERR_MEMORY, "no memory for a connection");
    return NULL;
  }
  c->client = client;
  c->io = (struct loop_io){.cb = on_io, .arg = c};
  c->to = *to;
  c->fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) {
    err_errno(err, errno, "no socket");
    connection_close(c);
    return NULL;
  }
  return c;
}

/* ---- the end of a request ---- */

static void request_free(struct http_request *r) {
  struct http_client *client = r->client;
  loop_timer_cancel(client->loop, &r->timer);
  if (r->connection)
    connection_close(r->connection);
  buf_free(&r->out);
  buf_free(&r->body);
  if (r->prev)
    r->prev->next = r->next;
  else if (client->requests == r)
    client->requests = r->next;
  if (r->next)
    r->next->prev = r->prev;
  free(r);
}

/* Takes r. err NULL: answered. */
static void finish(struct http_request *r, const struct err *err) {
  struct http_answer answer = {.body = (const uint8_t *)"", .content_type = ""};
  r->stage = STAGE_OVER;
  loop_timer_cancel(r->client->loop, &r->timer);
  if (r->connection && !err && r->keep && !r->fresh && r->sent == r->out.len) {
    idle_add(r->connection);
    r->connection = NULL;
  } else if (r->connection) {
    connection_close(r->connection);
    r->connection = NULL;
  }
  if (!err)
    answer = (struct http_answer){
        .status = r->parser.status_code, .body = (const uint8_t *)buf_str(&r->body), .len = r->body.len, .content_type = r->content_type};
  r->in_callback = true; /* a cancel from it is too late: it is freed here */
  r->done(r->arg, &answer, err);
  request_free(r);
}

static void fail(struct http_request *r, enum err_code code, const char *what) {
  struct err err;
  err_set(&err, code, "%s", what);
  finish(r, &err);
}

/* ---- the answer ---- */

static struct http_request *of(llhttp_t *parser) {
  return parser->data;
}

static bool streams(const struct http_request *r) {
  return r->data && r->parser.status_code >= 200 && r->parser.status_code < 300;
}

static int count_head(struct http_request *r, size_t len) {
  r->head_len += len;
  return r->head_len > HEAD_MAX ? -1 : 0;
}

static int on_status(llhttp_t *parser, const char *at, size_t len) {
  (void)at;
  return count_head(of(parser), len);
}

static void append(char *to, size_t size, const char *from, size_t len) {
  size_t used = strlen(to);
  if (len > size - 1 - used)
    len = size - 1 - used;
  memcpy(to + used, from, len);
  to[used + len] = 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t len) {
  append(of(parser)->name, sizeof of(parser)->name, at, len);
  return count_head(of(parser), len);
}

static int on_value(llhttp_t *parser, const char *at, size_t len) {
  struct http_request *r = of(parser);
  if (strcasecmp(r->name, "content-type") == 0)
    append(r->content_type, sizeof r->content_type, at, len);
  return count_head(r, len);
}

static int on_value_complete(llhttp_t *parser) {
  of(parser)->name[0] = 0;
  return 0;
}

static int on_head(llhttp_t *parser) {
  struct http_request *r = of(parser);
  if (parser->status_code == 101)
    return -1; /* nobody asked for that */
  return r->head_only ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len) {
  struct http_request *r = of(parser);
  if (!streams(r) && (len > r->max_body || r->body.len > r->max_body - len)) {
    err_set(&r->err, ERR_TOO_LARGE, "the answer is larger than %zu bytes", r->max_body);
    return -1;
  }
  if (buf_add(&r->body, at, len) == 0)
    return 0;
  err_set(&r->err, ERR_MEMORY, "no memory for the answer");
  return -1;
}

static int on_complete(llhttp_t *parser) {
  struct http_request *r = of(parser);
  if (parser->status_code < 200) { /* 100, 103: the answer follows */
    r->head_len = 0;
    r->content_type[0] = 0;
    return 0;
  }
  r->complete = true;
  r->keep = llhttp_should_keep_alive(parser);
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {.on_status = on_status,
                                           .on_header_field = on_field,
                                           .on_header_value = on_value,
                                           .on_header_value_complete = on_value_complete,
                                           .on_headers_complete = on_head,
                                           .on_body = on_body,
                                           .on_message_complete = on_complete};

/* The users' part of what came. false: the request is over and gone. */
static bool hand_on(struct http_request *r) {
  if (streams(r) && r->body.len) {
    r->in_callback = true;
    bool more = r->data(r->arg, r->body.data, r->body.len);
    r->in_callback = false;
    if (r->cancelled) {
      request_free(r);
      return false;
    }
    if (!more) {
      fail(r, ERR_CANCELLED, "ended by its reader");
      return false;
    }
    buf_reset(&r->body);
  }
  if (!r->complete)
    return true;
  finish(r, NULL);
  return false;
}

/* false: the request is over and gone. */
static bool take(struct http_request *r, const char *data, size_t len) {
  r->answered = true;
  enum llhttp_errno rc = llhttp_execute(&r->parser, data, len);
  if (r->complete) {
    r->keep = r->keep && llhttp_get_error_pos(&r->parser) == data + len; /* what follows the answer belongs to nothing */
  } else if (rc != HPE_OK) {
    struct err err = r->err;
    if (err.code == ERR_NONE)
      err_set(&err, ERR_UNAVAILABLE, "the answer is not HTTP (%s)", llhttp_errno_name(rc));
    finish(r, &err);
    return false;
  }
  return hand_on(r);
}

/* ---- the exchange ---- */

static int connect_anew(struct http_request *r, struct err *err);

/* The connection has ended. One that was kept may have ended just before: then nobody has seen the request, and it is sent again on a new one. */
static void ended(struct http_request *r, int error) {
  if (r->reused && !r->answered) {
    struct err err;
    connection_close(r->connection);
    r->connection = NULL;
    r->reused = false;
    r->sent = 0;
    if (connect_anew(r, &err) < 0)
      finish(r, &err);
  } else if (error) {
    fail(r, ERR_UNAVAILABLE, strerror(error));
  } else if (r->answered && (llhttp_finish(&r->parser), r->complete)) { /* an answer as long as its connection */
    r->keep = false;
    hand_on(r);
  } else {
    fail(r, ERR_UNAVAILABLE, r->answered ? "the connection ended inside of the answer" : "the connection ended without an answer");
  }
}

/* false: the request is over and gone, or begins anew. */
static bool send_more(struct http_request *r) {
  struct connection *c = r->connection;
  struct err err;
  while (r->sent < r->out.len) {
    ssize_t n = send(c->fd, r->out.data + r->sent, r->out.len - r->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      break;
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET) && !r->reused)
      break; /* what it has answered before is still to be read; then recv() tells */
    if (n < 0) {
      ended(r, errno);
      return false;
    }
    r->sent += (size_t)n;
  }
  uint32_t events = r->sent < r->out.len ? (uint32_t)EPOLLIN | (uint32_t)EPOLLOUT : (uint32_t)EPOLLIN;
  int rc = c->io.active ? loop_io_change(r->client->loop, &c->io, events, &err) : loop_io_add(r->client->loop, &c->io, c->fd, events, &err);
  if (rc == 0)
    return true;
  finish(r, &err);
  return false;
}

static void receive(struct http_request *r) {
  struct http_client *client = r->client;
  struct connection *c = r->connection;
  for (int i = 0; i < READS_AT_ONCE; i++) {
    ssize_t n = recv(c->fd, client->buffer, READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      return;
    if (n <= 0) {
      ended(r, n < 0 ? errno : 0);
      return;
    }
    bool goes_on = take(r, (const char *)client->buffer, (size_t)n);
    explicit_bzero(client->buffer, (size_t)n);
    if (!goes_on || (size_t)n < READ_SIZE)
      return;
  }
}

static int set_timer(struct http_request *r, struct err *err) {
  int64_t at = r->stage == STAGE_CONNECT && r->connect_deadline < r->deadline ? r->connect_deadline : r->deadline;
  if (at != INT64_MAX)
    return loop_timer_at(r->client->loop, &r->timer, at, err);
  loop_timer_cancel(r->client->loop, &r->timer);
  return 0;
}

static void connected(struct http_request *r) {
  struct err err;
  r->stage = STAGE_EXCHANGE;
  if (set_timer(r, &err) == 0)
    send_more(r);
  else
    finish(r, &err);
}

static void on_io(void *arg, uint32_t events) {
  struct connection *c = arg;
  struct http_request *r = c->request;
  if (!r) { /* idle: its end, or bytes nobody asked for */
    idle_remove(c);
    connection_close(c);
    return;
  }
  if (r->stage == STAGE_CONNECT) {
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
      error = errno;
    if (error)
      fail(r, ERR_UNAVAILABLE, strerror(error));
    else
      connected(r);
    return;
  }
  if ((events & EPOLLOUT) && !send_more(r))
    return;
  if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
    receive(r);
}

/* Never ends the request itself: what goes wrong at once is returned. */
static int begin(struct http_request *r, struct err *err) {
  struct loop *loop = r->client->loop;
  struct connection *c = r->connection;
  sa_family_t family = c->to.sa.sa_family;
  socklen_t len = family == AF_UNIX ? sizeof c->to.un : family == AF_INET6 ? sizeof c->to.in6 : sizeof c->to.in;
  if (connect(c->fd, &c->to.sa, len) == 0)
    r->stage = STAGE_EXCHANGE; /* the first write is the loop's: it may end the request */
  else if (errno == EAGAIN && family == AF_UNIX)
    return loop_timer_in(loop, &r->timer, CONNECT_RETRY, err);
  else if (errno != EINPROGRESS)
    return err_set(err, ERR_UNAVAILABLE, "%s", strerror(errno));
  return set_timer(r, err) < 0 ? -1 : loop_io_add(loop, &c->io, c->fd, EPOLLOUT, err);
}

static int connect_anew(struct http_request *r, struct err *err) {
  r->stage = STAGE_CONNECT;
  r->connection = connection_new(r->client, &r->to, err);
  if (!r->connection)
    return -1;
  r->connection->request = r;
  return begin(r, err);
}

static void on_timer(void *arg) {
  struct http_request *r = arg;
  int64_t now = loop_now(r->client->loop);
  struct err err = r->err;
  if (err.code == ERR_NONE && (now >= r->deadline || (r->stage == STAGE_CONNECT && now >= r->connect_deadline)))
    fail(r, ERR_TIMEOUT, "no answer in time");
  else if (err.code != ERR_NONE || (r->stage == STAGE_CONNECT ? begin(r, &err) : set_timer(r, &err)) < 0)
    finish(r, &err);
}

/* ---- the request ---- */

static bool is_line(const char *text, size_t len, char least) {
  for (size_t i = 0; i < len; i++)
    if (text[i] < least || text[i] == 0x7f)
      return false;
  return true;
}

/* "127.0.0.1:80", "[::1]" */
static int parse_address(const char *host, size_t len, union address *to) {
  char text[64];
  const char *port_text = NULL;
  bool v6 = len && host[0] == '[';
  if (!len || len >= sizeof text)
    return -1;
  memcpy(text, host + v6, len - v6);
  text[len - v6] = 0;
  char *end = v6 ? strchr(text, ']') : strchrnul(text, ':');
  if (!end)
    return -1;
  if (v6)
    *end++ = 0;
  if (*end == ':') {
    *end = 0;
    port_text = end + 1;
  } else if (*end) {
    return -1;
  }
  char *rest = NULL;
  unsigned long port = port_text ? strtoul(port_text, &rest, 10) : 80;
  if (port_text && (*port_text < '0' || *port_text > '9' || *rest))
    return -1;
  if (!port || port > 65535)
    return -1;
  if (v6) {
    to->in6.sin6_family = AF_INET6;
    to->in6.sin6_port = htons((uint16_t)port);
    return inet_pton(AF_INET6, text, &to->in6.sin6_addr) == 1 ? 0 : -1;
  }
  to->in.sin_family = AF_INET;
  to->in.sin_port = htons((uint16_t)port);
  return inet_pton(AF_INET, text, &to->in.sin_addr) == 1 ? 0 : -1;
}

static int parse_target(struct http_request *r, const struct http_options *o, const char **host, size_t *host_len, struct err *err) {
  if (strncmp(o->url, "http://", 7) != 0 || !is_line(o->url, strlen(o->url), ' ' + 1))
    return err_set(err, ERR_INVALID, "not a URL to ask: %.100s", o->url);
  *host = o->url + 7;
  *host_len = strcspn(*host, "/?#");
  if (!o->unix_socket)
    return parse_address(*host, *host_len, &r->to) < 0 ? err_set(err, ERR_INVALID, "not an address: %.*s", (int)*host_len, *host) : 0;
  if (strlen(o->unix_socket) >= sizeof r->to.un.sun_path)
    return err_set(err, ERR_INVALID, "the name of the socket is too long: %.100s", o->unix_socket);
  r->to.un.sun_family = AF_UNIX;
  memcpy(r->to.un.sun_path, o->unix_socket, strlen(o->unix_socket));
  return 0;
}

static int write_request(struct http_request *r, const struct http_options *o, const char *host, size_t host_len, struct err *err) {
  const char *method = o->method ? o->method : "GET", *path = host + host_len;
  buf_printf(&r->out, "%s %s%s HTTP/1.1\r\nHost: %.*s\r\n", method, *path == '/' ? "" : "/", path, (int)host_len, host);
  for (const char *const *h = o->headers; h && *h; h++) {
    if (!is_line(*h, strlen(*h), ' '))
      return err_set(err, ERR_INVALID, "a header field has a line end");
    buf_add_str(&r->out, *h);
    buf_add(&r->out, "\r\n", 2);
  }
  if (o->body || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0)
    buf_printf(&r->out, "Content-Length: %zu\r\n", o->body_len);
  buf_add(&r->out, "\r\n", 2);
  if (o->body_len)
    buf_add(&r->out, o->body, o->body_len);
  r->head_only = strcmp(method, "HEAD") == 0;
  return buf_failed(&r->out) ? err_set(err, ERR_MEMORY, "no memory for a request") : 0;
}

static int begin_or_tell(struct http_request *r, struct err *ret) {
  struct err err;
  r->connection = r->fresh ? NULL : idle_take(r->client, &r->to);
  r->reused = r->connection != NULL;
  int rc;
  if (r->reused) {
    r->connection->request = r;
    r->stage = STAGE_EXCHANGE;
    rc = set_timer(r, &err) < 0 ? -1 : loop_io_change(r->client->loop, &r->connection->io, EPOLLIN | EPOLLOUT, &err);
  } else {
    rc = connect_anew(r, &err);
  }
  if (rc == 0)
    return 0;
  r->err = err; /* its owner is told from the loop, never from within http_start() */
  return loop_timer_in(r->client->loop, &r->timer, 0, ret);
}

struct http_request *http_start(struct http_client *client, const struct http_options *options, struct err *err) {
  struct http_request *r = calloc(1, sizeof *r);
  if (!r) {
    err_set(err, ERR_MEMORY, "no memory for a request");
    return NULL;
  }
  int64_t now = loop_now(client->loop), connect_ns = options->connect_timeout_ns ? options->connect_timeout_ns : DEFAULT_CONNECT_TIMEOUT;
  r->client = client;
  r->max_body = options->max_body ? options->max_body : DEFAULT_MAX_BODY;
  r->out = BUF_INIT(REQUEST_MAX);
  r->body = BUF_INIT(r->max_body + READ_SIZE);
  r->deadline = options->timeout_ns ? now + options->timeout_ns : INT64_MAX;
  r->connect_deadline = now + connect_ns;
  r->timer = (struct loop_timer){.cb = on_timer, .arg = r};
  r->fresh = options->fresh_connection;
  r->data = options->data;
  r->done = options->done;
  r->arg = options->arg;
  llhttp_init(&r->parser, HTTP_RESPONSE, &settings);
  r->parser.data = r;
  r->next = client->requests;
  if (r->next)
    r->next->prev = r;
  client->requests = r;
  const char *host = "";
  size_t host_len = 0;
  if (parse_target(r, options, &host, &host_len, err) < 0 || write_request(r, options, host, host_len, err) < 0 || begin_or_tell(r, err) < 0) {
    request_free(r);
    return NULL;
  }
  return r;
}

void http_cancel(struct http_request *r) {
  if (!r)
    return;
  r->cancelled = true;
  if (!r->in_callback) /* whoever calls its user frees it */
    request_free(r);
}

struct http_client *http_client_new(struct loop *loop, struct err *err) {
  struct http_client *client = calloc(1, sizeof *client);
  if (client)
    client->buffer = malloc(READ_SIZE);
  if (!client || !client->buffer) {
    free(client);
    err_set(err, ERR_MEMORY, "no memory for an HTTP client");
    return NULL;
  }
  client->loop = loop;
  return client;
}

void http_client_free(struct http_client *client) {
  if (!client)
    return;
  while (client->requests)
    request_free(client->requests);
  while (client->idle) {
    struct connection *c = client->idle;
    client->idle = c->next;
    connection_close(c);
  }
  free(client->buffer);
  free(client);
}

int http_escape(const char *text, char *out, size_t size) {
  static const char digits[] = "0123456789ABCDEF";
  size_t n = 0;
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (n + (plain ? 1 : 3) >= size)
      return -1;
    if (plain) {
      out[n++] = (char)c;
    } else {
      out[n++] = '%';
      out[n++] = digits[c >> 4];
      out[n++] = digits[c & 15];
    }
  }
  if (n >= size)
    return -1;
  out[n] = 0;
  return 0;
}
