/* The HTTP client against a server on a thread that plays what it is told: whole and broken answers, kept connections, ends of all kinds. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/http/http.h"

#define CLOSE "\x01" /* in a script: ends the connection; the next piece is of the next one */

struct server {
  int fd;
  char path[64];
  pthread_t thread;
  const char *const *script; /* pieces: each is sent when a request has come whole; NULL-terminated */
  unsigned connections, requests;
  pthread_mutex_t lock; /* of last: a socket orders what both threads do, but no sanitizer knows */
  char last[4096];      /* the last request */
};

static bool read_request(int fd, struct server *s) {
  char text[sizeof s->last];
  size_t len = 0, want = sizeof text - 1;
  while (len < want && len < sizeof text - 1) {
    ssize_t n = recv(fd, text + len, sizeof text - 1 - len, 0);
    if (n <= 0)
      return false;
    len += (size_t)n;
    text[len] = 0;
    char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length: ");
    if (end)
      want = (size_t)(end - text) + 4 + (length && length < end ? strtoul(length + 18, NULL, 10) : 0);
  }
  pthread_mutex_lock(&s->lock);
  memcpy(s->last, text, len + 1);
  pthread_mutex_unlock(&s->lock);
  return true;
}

static void assert_said(struct server *s, const char *want) {
  pthread_mutex_lock(&s->lock);
  assert_string_equal(s->last, want);
  pthread_mutex_unlock(&s->lock);
}

static void *serve(void *arg) {
  struct server *s = arg;
  int fd = -1;
  for (const char *const *piece = s->script; *piece; piece++) {
    if (strcmp(*piece, CLOSE) == 0) {
      if (fd >= 0)
        close(fd);
      fd = -1;
      continue;
    }
    if (fd < 0) {
      fd = accept(s->fd, NULL, NULL);
      s->connections++;
    }
    const char *text = *piece;
    if (*text != '+') { /* +: more of the same answer, a moment later */
      if (!read_request(fd, s))
        break;
      s->requests++;
    } else {
      usleep(5000);
      text++;
    }
    if (*text && send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
      break;
  }
  if (fd >= 0)
    close(fd);
  return NULL;
}

static void start(struct server *s, const char *const *script) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  memset(s, 0, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  snprintf(s->path, sizeof s->path, "/tmp/orca-test-http.%d", (int)getpid());
  unlink(s->path);
  memcpy(a.sun_path, s->path, sizeof s->path);
  s->script = script;
  s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
  assert_int_equal(listen(s->fd, 8), 0);
  assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void end(struct server *s) {
  pthread_join(s->thread, NULL);
  close(s->fd);
  unlink(s->path);
}

struct got {
  bool over;
  int status;
  enum err_code code;
  char body[1 << 16], type[64], message[512];
  size_t len, stop_after;
  unsigned pieces;
};

static void done(void *arg, const struct http_answer *answer, const struct err *err) {
  struct got *g = arg;
  assert_false(g->over);
  g->over = true;
  g->status = answer->status;
  g->code = err ? err->code : ERR_NONE;
  snprintf(g->message, sizeof g->message, "%s", err ? err->msg : "");
  snprintf(g->type, sizeof g->type, "%s", answer->content_type);
  if (answer->len && answer->len < sizeof g->body) {
    memcpy(g->body, answer->body, answer->len);
    g->len = answer->len;
  }
}

static bool data(void *arg, const uint8_t *piece, size_t len) {
  struct got *g = arg;
  assert_true(g->len + len < sizeof g->body);
  memcpy(g->body + g->len, piece, len);
  g->len += len;
  g->pieces++;
  return !g->stop_after || g->len < g->stop_after;
}

struct world {
  struct loop *loop;
  struct http_client *client;
};

static int set_up(void **state) {
  static struct world w;
  w.loop = loop_new(NULL, NULL);
  w.client = http_client_new(w.loop, NULL);
  *state = &w;
  return w.loop && w.client ? 0 : -1;
}

static int tear_down(void **state) {
  struct world *w = *state;
  http_client_free(w->client);
  loop_free(w->loop);
  return 0;
}

static void ask_with(struct world *w, struct server *s, struct http_options o, struct got *g) {
  struct err err;
  memset(g, 0, offsetof(struct got, stop_after));
  if (!o.url)
    o.url = "http://docker/v1.41/version?a=b";
  if (s)
    o.unix_socket = s->path;
  if (!o.timeout_ns)
    o.timeout_ns = 5 * NS_PER_SEC;
  o.done = done;
  o.arg = g;
  assert_non_null(http_start(w->client, &o, &err));
  assert_false(g->over);
  while (!g->over)
    assert_int_equal(loop_once(w->loop, 10 * NS_PER_SEC, &err), 0);
}

static struct got *ask(struct world *w, const char *const *script, struct http_options o) {
  static struct got g;
  struct server s;
  start(&s, script);
  memset(&g, 0, sizeof g);
  ask_with(w, &s, o, &g);
  end(&s);
  return &g;
}

#define SCRIPT(...) ((const char *const[]){__VA_ARGS__, NULL})
#define OK(length) "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " length "\r\n\r\n"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void whole(void **state) {
  struct got *g = ask(*state, SCRIPT(OK("5") "hello"), (struct http_options){0});
  assert_int_equal(g->status, 200);
  assert_string_equal(g->type, "application/json");
  assert_string_equal(g->body, "hello");
  g = ask(*state, SCRIPT("HTTP/1.1 404 Not Found\r\nContent-", "+Type: application/", "+json\r\nContent-Length: 2\r\n\r\n{", "+}"),
          (struct http_options){0});
  assert_int_equal(g->status, 404);
  assert_string_equal(g->type, "application/json");
  assert_string_equal(g->body, "{}");
  g = ask(*state, SCRIPT(CHUNKED "3\r\nabc\r\n", "+2;x=y\r\nde\r\n0\r\n", "+\r\n"), (struct http_options){0});
  assert_string_equal(g->body, "abcde");
  g = ask(*state, SCRIPT("HTTP/1.1 200 OK\r\n\r\nuntil ", "+the end", CLOSE), (struct http_options){0});
  assert_string_equal(g->body, "until the end");
  g = ask(*state, SCRIPT("HTTP/1.1 100 Continue\r\nContent-Type: no\r\n\r\n", "+" OK("2") "ok"), (struct http_options){0});
  assert_string_equal(g->body, "ok");
  assert_string_equal(g->type, "application/json");
  g = ask(*state, SCRIPT("HTTP/1.1 204 No Content\r\n\r\n"), (struct http_options){0});
  assert_int_equal(g->status, 204);
  g = ask(*state, SCRIPT("HTTP/1.1 304 Not Modified\r\n\r\n"), (struct http_options){.method = "POST"});
  assert_int_equal(g->status, 304);
  g = ask(*state, SCRIPT(OK("1000")), (struct http_options){.method = "HEAD"});
  assert_int_equal(g->status, 200);
  assert_int_equal(g->len, 0);
}

static void requests(void **state) {
  struct world *w = *state;
  struct server s;
  static struct got g;
  start(&s, SCRIPT(OK("0"), OK("0"), OK("0")));
  ask_with(w, &s, (struct http_options){0}, &g);
  assert_said(&s, "GET /v1.41/version?a=b HTTP/1.1\r\nHost: docker\r\n\r\n");
  ask_with(w, &s, (struct http_options){.method = "POST", .url = "http://docker"}, &g);
  assert_said(&s, "POST / HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n");
  ask_with(w, &s, (struct http_options){.method = "DELETE", .headers = SCRIPT("A: b", "C: d"), .body = "xyz", .body_len = 3}, &g);
  assert_said(&s, "DELETE /v1.41/version?a=b HTTP/1.1\r\nHost: docker\r\nA: b\r\nC: d\r\nContent-Length: 3\r\n\r\nxyz");
  end(&s);
  assert_int_equal(s.connections, 1); /* kept */
}

static void refused(void **state) {
  struct world *w = *state;
  static const char *const urls[] = {
      "https://127.0.0.1/", "http://",        "http://name/",         "http://127.0.0.1:0/",        "http://127.0.0.1:65536/", "http://127.0.0.1:8x/",
      "http://[::1/",       "http://[::1]x/", "http://127.0.0.1/a b", "http://127.0.0.1/a\r\nX: y", "ftp://127.0.0.1/",        ""};
  struct err err;
  for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
    assert_null(http_start(w->client, &(struct http_options){.url = urls[i], .done = done}, &err));
    assert_int_equal(err.code, ERR_INVALID);
  }
  assert_null(http_start(w->client, &(struct http_options){.url = "http://127.0.0.1/", .headers = SCRIPT("A: b\r\nC: d"), .done = done}, &err));
  assert_int_equal(err.code, ERR_INVALID);
}

static void kept_and_ended(void **state) {
  struct world *w = *state;
  struct server s;
  static struct got g;
  start(&s, SCRIPT(OK("1") "a", CLOSE, OK("1") "b", CLOSE, OK("1") "c extra", CLOSE, OK("1") "d"));
  ask_with(w, &s, (struct http_options){0}, &g);
  assert_string_equal(g.body, "a");
  usleep(20000); /* the kept one ends before the loop has seen it: the request goes again on a new one */
  ask_with(w, &s, (struct http_options){.method = "POST", .body = "1", .body_len = 1}, &g);
  assert_string_equal(g.body, "b");
  usleep(20000);
  for (int i = 0; i < 3; i++)
    loop_once(w->loop, 0, NULL);
  ask_with(w, &s, (struct http_options){0}, &g);
  assert_string_equal(g.body, "c");
  ask_with(w, &s, (struct http_options){.fresh_connection = true}, &g); /* and what came behind an answer is nobody's */
  assert_string_equal(g.body, "d");
  end(&s);
  assert_int_equal(s.connections, 4);
}

static void broken(void **state) {
  static const struct {
    const char *answer;
    enum err_code code;
  } all[] = {
      {"", ERR_UNAVAILABLE},
      {"HTTP/1.1 200", ERR_UNAVAILABLE},
      {OK("10") "short", ERR_UNAVAILABLE},
      {CHUNKED "5\r\nab", ERR_UNAVAILABLE},
      {CHUNKED "zz\r\n", ERR_UNAVAILABLE},
      {"SSH-2.0-OpenSSH_9.2\r\n", ERR_UNAVAILABLE},
      {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", ERR_UNAVAILABLE},
      {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", ERR_UNAVAILABLE},
      {OK("2000") "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", ERR_TOO_LARGE},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    struct got *g = ask(*state, SCRIPT(all[i].answer, CLOSE), (struct http_options){.max_body = 50});
    assert_int_equal(g->code, all[i].code);
    assert_int_equal(g->status, 0);
    assert_true(g->message[0]);
  }
  static char head[100000] = "HTTP/1.1 200 OK\r\n";
  for (size_t len = strlen(head); len < sizeof head - 64; len += strlen(head + len))
    snprintf(head + len, sizeof head - len, "X-%zu: yyyyyyyyyyyyyyyyyyyyyyy\r\n", len);
  assert_int_equal(ask(*state, SCRIPT(head, CLOSE), (struct http_options){0})->code, ERR_UNAVAILABLE);
}

static void streamed(void **state) {
  struct world *w = *state;
  struct got *g = ask(w, SCRIPT(CHUNKED "2\r\nab\r\n", "+2\r\ncd\r\n", "+0\r\n\r\n"), (struct http_options){.data = data});
  assert_int_equal(g->code, ERR_NONE);
  assert_string_equal(g->body, "abcd");
  assert_true(g->pieces >= 2);
  g = ask(w, SCRIPT("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy"), (struct http_options){.data = data});
  assert_int_equal(g->status, 500);
  assert_int_equal(g->pieces, 0);
  assert_string_equal(g->body, "why");
  struct server s;
  static struct got stops;
  start(&s, SCRIPT(CHUNKED "2\r\nab\r\n", "+2\r\ncd\r\n"));
  stops.stop_after = 1;
  ask_with(w, &s, (struct http_options){.data = data}, &stops);
  assert_int_equal(stops.code, ERR_CANCELLED);
  assert_string_equal(stops.body, "ab");
  end(&s);
}

struct cancels {
  struct http_request *request;
  bool called;
};

static bool cancel_it(void *arg, const uint8_t *piece, size_t len) {
  (void)piece;
  (void)len;
  struct cancels *c = arg;
  c->called = true;
  http_cancel(c->request);
  return true;
}

static void never(void *arg, const struct http_answer *answer, const struct err *err) {
  (void)arg;
  (void)answer;
  (void)err;
  fail_msg("a cancelled request was told of");
}

static void cancelled(void **state) {
  struct world *w = *state;
  struct err err;
  struct server s;
  struct cancels c = {0};
  start(&s, SCRIPT(CHUNKED "2\r\nab\r\n", "+2\r\ncd\r\n"));
  struct http_options o = {.url = "http://docker/", .unix_socket = s.path, .data = cancel_it, .done = never, .arg = &c};
  c.request = http_start(w->client, &o, &err);
  while (!c.called)
    assert_int_equal(loop_once(w->loop, NS_PER_SEC, &err), 0);
  end(&s);
  o.unix_socket = "/nowhere/at/all";
  http_cancel(http_start(w->client, &o, &err)); /* before it was told that it fails */
  assert_non_null(http_start(w->client, &o, &err));
  http_client_free(w->client); /* with one that waits */
  w->client = http_client_new(w->loop, &err);
}

static void out_of_reach(void **state) {
  struct world *w = *state;
  static struct got g;
  struct server s;
  snprintf(s.path, sizeof s.path, "/nowhere/at/all");
  ask_with(w, &s, (struct http_options){0}, &g);
  assert_int_equal(g.code, ERR_UNAVAILABLE);
  ask_with(w, NULL, (struct http_options){.url = "http://127.0.0.1:1/"}, &g);
  assert_int_equal(g.code, ERR_UNAVAILABLE);
  ask_with(w, NULL, (struct http_options){.url = "http://[::1]:1/"}, &g);
  assert_int_equal(g.code, ERR_UNAVAILABLE);
}

static void too_late(void **state) {
  struct got *g = ask(*state, SCRIPT("", "+", "+", "+", "+", "+"), (struct http_options){.timeout_ns = 10 * NS_PER_MS});
  assert_int_equal(g->code, ERR_TIMEOUT);
}

static void large(void **state) {
  struct world *w = *state;
  static struct got g;
  struct server s;
  static char body[3000], answer[60200];
  memset(body, 'b', sizeof body);
  size_t head = (size_t)snprintf(answer, sizeof answer, OK("60000"));
  memset(answer + head, 'a', 60000);
  start(&s, SCRIPT(answer));
  ask_with(w, &s, (struct http_options){.method = "POST", .body = body, .body_len = sizeof body}, &g);
  end(&s);
  assert_int_equal(g.len, 60000);
  assert_int_equal(g.body[59999], 'a');
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(whole),          cmocka_unit_test(requests),     cmocka_unit_test(refused),
                                     cmocka_unit_test(kept_and_ended), cmocka_unit_test(broken),       cmocka_unit_test(streamed),
                                     cmocka_unit_test(cancelled),      cmocka_unit_test(out_of_reach), cmocka_unit_test(too_late),
                                     cmocka_unit_test(large)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
