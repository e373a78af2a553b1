#include "common/http/http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/buf.h"

#define DEFAULT_MAX_BODY ((size_t)16 << 20)
#define STREAM_BACKLOG ((size_t)1 << 20) /* of a streamed answer, before libcurl is told to pause */

/* libcurl comes with the first request: it brings two dozen libraries, more than the rest of a daemon's start-up and memory together, and
 * who probes by TCP alone never needs them. */
/* clang-format off */
#define FUNCTIONS(X) \
  X(global_init) X(slist_append) X(slist_free_all) \
  X(easy_init) X(easy_cleanup) X(easy_setopt) X(easy_getinfo) X(easy_pause) X(easy_strerror) \
  X(multi_init) X(multi_cleanup) X(multi_setopt) X(multi_add_handle) X(multi_remove_handle) X(multi_assign) X(multi_info_read) X(multi_socket_action)
#define POINTER(name) __typeof__(&(curl_##name)) name; /* in brackets: some are macros, too */
static struct {
  FUNCTIONS(POINTER)
} curl; /* written once, by load() */
/* clang-format on */
static char load_error[200];

static void load(void) {
  void *library = dlopen("libcurl.so.4", RTLD_LAZY | RTLD_LOCAL);
#define FIND(name) library = library && (curl.name = (__typeof__(curl.name))dlsym(library, "curl_" #name)) ? library : NULL;
  FUNCTIONS(FIND)
  if (library && curl.global_init(CURL_GLOBAL_NOTHING) == CURLE_OK)
    return;
  const char *why = dlerror();
  snprintf(load_error, sizeof load_error, "libcurl: %s", why ? why : "it does not start");
}

/* libcurl must not be called from its own callbacks, and its users will want to start a request from theirs. So libcurl's callbacks only
 * note what happened (`pending`), and deliver() tells the users once libcurl has returned. */
struct http_request {
  struct http_client *client;
  CURL *easy;
  struct curl_slist *headers;
  void *sent_body;
  struct buf body;
  size_t max_body;
  bool (*data)(void *arg, const uint8_t *data, size_t len);
  void (*done)(void *arg, const struct http_answer *answer, const struct err *err);
  void *arg;
  bool finished, too_large, paused, cancelled, pending;
  CURLcode result;
  struct http_request *next, *prev; /* all of the client's */
  struct http_request *pending_next;
};

struct http_client {
  struct loop *loop;
  CURLM *multi; /* NULL until the first request */
  struct loop_timer timer;
  struct http_request *requests;
  struct http_request *pending, **pending_tail;
  struct http_request *delivering; /* whose user is being called */
};

struct sock {
  struct loop_io io;
  struct http_client *client;
};

static void deliver(struct http_client *client);

static void act(struct http_client *client, curl_socket_t fd, int mask) {
  int running;
  curl.multi_socket_action(client->multi, fd, mask, &running);
  deliver(client);
}

static void on_timer(void *arg) {
  act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void on_socket(void *arg, uint32_t events) {
  struct sock *sock = arg;
  int mask = 0;
  if (events & EPOLLIN)
    mask |= CURL_CSELECT_IN;
  if (events & EPOLLOUT)
    mask |= CURL_CSELECT_OUT;
  if (events & (EPOLLERR | EPOLLHUP))
    mask |= CURL_CSELECT_ERR | CURL_CSELECT_IN;
  act(sock->client, sock->io.fd, mask);
}

/* CURLMOPT_TIMERFUNCTION */
static int set_timer(CURLM *multi, long timeout_ms, void *arg) {
  (void)multi;
  struct http_client *client = arg;
  if (timeout_ms < 0) {
    loop_timer_cancel(client->loop, &client->timer);
    return 0;
  }
  return loop_timer_in(client->loop, &client->timer, timeout_ms * NS_PER_MS, NULL);
}

/* CURLMOPT_SOCKETFUNCTION */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp) {
  (void)easy;
  struct http_client *client = arg;
  struct sock *sock = sockp;
  if (what == CURL_POLL_REMOVE) {
    if (sock) {
      loop_io_remove(client->loop, &sock->io);
      curl.multi_assign(client->multi, fd, NULL);
      free(sock);
    }
    return 0;
  }
  uint32_t events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
  if (sock)
    return loop_io_change(client->loop, &sock->io, events, NULL);
  sock = calloc(1, sizeof *sock);
  if (!sock)
    return -1;
  sock->client = client;
  sock->io = (struct loop_io){.cb = on_socket, .arg = sock};
  if (loop_io_add(client->loop, &sock->io, fd, events, NULL) < 0) {
    free(sock);
    return -1;
  }
  curl.multi_assign(client->multi, fd, sock);
  return 0;
}

static void mark_pending(struct http_request *r) {
  if (r->pending)
    return;
  r->pending = true;
  r->pending_next = NULL;
  *r->client->pending_tail = r;
  r->client->pending_tail = &r->pending_next;
}

static bool streams(struct http_request *r) {
  long status = 0;
  curl.easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
  return r->data && status >= 200 && status < 300;
}

/* CURLOPT_WRITEFUNCTION */
static size_t on_body(char *data, size_t size, size_t count, void *arg) {
  struct http_request *r = arg;
  size_t len = size * count;
  if (streams(r)) {
    if (r->body.len > 0 && r->body.len + len > STREAM_BACKLOG) {
      r->paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    if (buf_add(&r->body, data, len) < 0)
      return 0;
    mark_pending(r);
    return len;
  }
  if (len > r->max_body || r->body.len > r->max_body - len || buf_add(&r->body, data, len) < 0) {
    r->too_large = true;
    return 0;
  }
  return len;
}

static void request_free(struct http_request *r) {
  struct http_client *client = r->client;
  if (r->easy) {
    curl.multi_remove_handle(client->multi, r->easy);
    curl.easy_cleanup(r->easy);
  }
  curl.slist_free_all(r->headers);
  free(r->sent_body);
  buf_free(&r->body);
  if (r->prev)
    r->prev->next = r->next;
  else if (client->requests == r)
    client->requests = r->next;
  if (r->next)
    r->next->prev = r->prev;
  free(r);
}

static enum err_code code_of(CURLcode result) {
  switch (result) {
  case CURLE_OPERATION_TIMEDOUT:
    return ERR_TIMEOUT;
  case CURLE_OUT_OF_MEMORY:
    return ERR_MEMORY;
  case CURLE_URL_MALFORMAT:
  case CURLE_UNSUPPORTED_PROTOCOL:
    return ERR_INVALID;
  default:
    return ERR_UNAVAILABLE;
  }
}

static void tell_done(struct http_request *r) {
  struct err err;
  struct http_answer answer = {.body = (const uint8_t *)buf_str(&r->body), .len = r->body.len, .content_type = ""};
  bool failed = true;
  if (r->too_large) {
    err_set(&err, ERR_TOO_LARGE, "the answer is larger than %zu bytes", r->max_body);
  } else if (r->result != CURLE_OK) {
    err_set(&err, code_of(r->result), "%s", curl.easy_strerror(r->result));
  } else {
    long status = 0;
    const char *type = NULL;
    curl.easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    curl.easy_getinfo(r->easy, CURLINFO_CONTENT_TYPE, &type);
    answer.status = (int)status;
    if (type)
      answer.content_type = type;
    failed = false;
  }
  r->done(r->arg, &answer, failed ? &err : NULL);
}

/* false: the user wants no more of it. */
static bool tell_data(struct http_request *r) {
  if (!r->body.len)
    return true;
  struct buf piece = r->body;
  r->body = BUF_INIT(piece.cap);
  bool more = r->data(r->arg, piece.data, piece.len);
  buf_free(&piece);
  return more || r->cancelled;
}

static void deliver_one(struct http_request *r) {
  struct http_client *client = r->client;
  client->delivering = r;
  if (!r->cancelled && streams(r) && !tell_data(r)) {
    struct err err;
    err_set(&err, ERR_CANCELLED, "ended by its reader");
    struct http_answer none = {.body = (const uint8_t *)"", .content_type = ""};
    r->cancelled = true;
    r->done(r->arg, &none, &err);
  }
  if (!r->cancelled && r->finished)
    tell_done(r);
  client->delivering = NULL;
  if (r->cancelled || r->finished) {
    request_free(r);
  } else if (r->paused) {
    r->paused = false;
    curl.easy_pause(r->easy, CURLPAUSE_CONT);
  }
}

static void deliver(struct http_client *client) {
  if (client->delivering)
    return;
  CURLMsg *msg;
  int left;
  while ((msg = curl.multi_info_read(client->multi, &left))) {
    struct http_request *r = NULL;
    if (msg->msg != CURLMSG_DONE || curl.easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &r) != CURLE_OK || !r)
      continue;
    r->finished = true;
    r->result = msg->data.result;
    mark_pending(r);
  }
  while (client->pending) {
    struct http_request *r = client->pending;
    client->pending = r->pending_next;
    if (!client->pending)
      client->pending_tail = &client->pending;
    r->pending = false;
    deliver_one(r);
  }
}

struct http_client *http_client_new(struct loop *loop, struct err *err) {
  struct http_client *client = calloc(1, sizeof *client);
  if (!client) {
    err_set(err, ERR_MEMORY, "no memory for an HTTP client");
    return NULL;
  }
  client->loop = loop;
  client->pending_tail = &client->pending;
  client->timer = (struct loop_timer){.cb = on_timer, .arg = client};
  return client;
}

static int start_client(struct http_client *client, struct err *err) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, load);
  if (load_error[0])
    return err_set(err, ERR_UNAVAILABLE, "%s", load_error);
  client->multi = curl.multi_init();
  if (!client->multi)
    return err_set(err, ERR_MEMORY, "no memory for an HTTP client");
  curl.multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
  curl.multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
  curl.multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
  curl.multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
  return 0;
}

void http_client_free(struct http_client *client) {
  if (!client)
    return;
  while (client->requests)
    request_free(client->requests);
  if (client->multi)
    curl.multi_cleanup(client->multi);
  loop_timer_cancel(client->loop, &client->timer);
  free(client);
}

static int set_options(struct http_request *r, const struct http_options *o) {
  CURL *easy = r->easy;
  long timeout_ms = (long)((o->timeout_ns + NS_PER_MS - 1) / NS_PER_MS);
  int64_t connect_ns = o->connect_timeout_ns ? o->connect_timeout_ns : o->timeout_ns ? o->timeout_ns : 10 * NS_PER_SEC;
  int rc = curl.easy_setopt(easy, CURLOPT_URL, o->url);
  rc |= curl.easy_setopt(easy, CURLOPT_PRIVATE, r);
  rc |= curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  rc |= curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  rc |= curl.easy_setopt(easy, CURLOPT_PROXY, "");
  rc |= curl.easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  rc |= curl.easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  rc |= curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  rc |= curl.easy_setopt(easy, CURLOPT_WRITEDATA, r);
  rc |= curl.easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
  rc |= curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ns / NS_PER_MS));
  if (o->unix_socket)
    rc |= curl.easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
  if (o->fresh_connection) {
    rc |= curl.easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    rc |= curl.easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
  }
  const char *method = o->method ? o->method : "GET";
  if (strcmp(method, "HEAD") == 0)
    rc |= curl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
  else if (strcmp(method, "GET") != 0 || o->body)
    rc |= curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
  if (o->body || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) {
    rc |= curl.easy_setopt(easy, CURLOPT_POST, 1L);
    rc |= curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_len);
    rc |= curl.easy_setopt(easy, CURLOPT_POSTFIELDS, r->sent_body ? r->sent_body : "");
  }
  struct curl_slist *list = curl.slist_append(NULL, "Expect:");
  for (const char *const *h = o->headers; list && h && *h; h++) {
    struct curl_slist *more = curl.slist_append(list, *h);
    if (!more)
      curl.slist_free_all(list);
    list = more;
  }
  r->headers = list;
  rc |= !list;
  rc |= curl.easy_setopt(easy, CURLOPT_HTTPHEADER, list);
  return rc ? -1 : 0;
}

struct http_request *http_start(struct http_client *client, const struct http_options *options, struct err *err) {
  if (!client->multi && start_client(client, err) < 0)
    return NULL;
  struct http_request *r = calloc(1, sizeof *r);
  if (!r) {
    err_set(err, ERR_MEMORY, "no memory for a request");
    return NULL;
  }
  r->client = client;
  r->max_body = options->max_body ? options->max_body : DEFAULT_MAX_BODY;
  r->body = BUF_INIT(options->data ? STREAM_BACKLOG + r->max_body : r->max_body);
  r->data = options->data;
  r->done = options->done;
  r->arg = options->arg;
  r->next = client->requests;
  if (r->next)
    r->next->prev = r;
  client->requests = r;
  r->easy = curl.easy_init();
  if (options->body && options->body_len) {
    r->sent_body = malloc(options->body_len);
    if (r->sent_body)
      memcpy(r->sent_body, options->body, options->body_len);
  }
  if (!r->easy || (options->body_len && !r->sent_body) || set_options(r, options) < 0 || curl.multi_add_handle(client->multi, r->easy) != CURLM_OK) {
    request_free(r);
    err_set(err, ERR_MEMORY, "a request could not be started");
    return NULL;
  }
  return r;
}

void http_cancel(struct http_request *r) {
  if (!r)
    return;
  r->cancelled = true;
  /* One that waits for deliver(), or whose user is being called right now, is freed there. */
  if (!r->pending && r->client->delivering != r)
    request_free(r);
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
