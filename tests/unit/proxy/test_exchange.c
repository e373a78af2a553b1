/* One worker without its thread: the test is client, instances and kernel, and says what becomes readable and writable, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "orca-proxy/conn.h"

#define INSTANCES 2
#define BODY 20000

struct world {
  struct worker *w;
  struct worker_shared shared;
  struct table *table;
  int listener[INSTANCES]; /* of the instances */
  int client;              /* our end */
  struct client *c;
};

static uint32_t give_service(void *arg, const char *name) {
  (void)arg;
  (void)name;
  return 0;
}

static uint32_t give_slot(void *arg, const char *instance, const char *address, uint32_t port, uint64_t *incarnation) {
  (void)arg;
  (void)address;
  (void)port;
  *incarnation = 1;
  return (uint32_t)(instance[strlen(instance) - 1] - '1');
}

static int listen_somewhere(uint32_t *port) {
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof in;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (const struct sockaddr *)&in, len), 0);
  assert_int_equal(listen(fd, 8), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
  *port = ntohs(in.sin_port);
  return fd;
}

static struct table *make_table(struct world *o) {
  static char project[] = "p", service[] = "a", host[] = "x", address[] = "127.0.0.1";
  static char names[INSTANCES][8] = {"p/a.1", "p/a.2"};
  char *domains[] = {host};
  Model__Endpoint endpoints[INSTANCES], *list[INSTANCES];
  Node__Route route = NODE__ROUTE__INIT;
  const Node__Route *routes[] = {&route};
  struct table_ids ids = {give_service, give_slot, NULL};
  unsigned skipped;
  for (int i = 0; i < INSTANCES; i++) {
    uint32_t port;
    o->listener[i] = listen_somewhere(&port);
    model__endpoint__init(&endpoints[i]);
    endpoints[i].instance = names[i];
    endpoints[i].address = address;
    PB_SET(&endpoints[i], port, port);
    list[i] = &endpoints[i];
  }
  route.project = project;
  route.service = service;
  route.domains = domains;
  route.n_domains = 1;
  route.endpoints = list;
  route.n_endpoints = INSTANCES;
  struct table *t = table_build(routes, 1, NULL, 0, &ids, &skipped);
  assert_non_null(t);
  assert_int_equal(skipped, 0);
  return t;
}

static void switched(void *arg, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count) {
  (void)arg;
  (void)worker;
  (void)seq;
  (void)busy;
  (void)count;
}

static void idle(void *arg, unsigned worker, uint32_t slot) {
  (void)arg;
  (void)worker;
  (void)slot;
}

/* The worker's end of a new client; *ours: the other. */
static struct client *connect_client(struct world *o, int *ours) {
  int pair[2];
  struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201)};
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
  *ours = pair[0];
  client_accept(o->w, pair[1], (const struct sockaddr *)&peer, FRONT_HTTP);
  return o->w->idle.idle_prev;
}

static int set_up(void **state) {
  static struct world o;
  struct err err;
  o = (struct world){0};
  o.shared = (struct worker_shared){.node = "n1", .events = {switched, idle, NULL}, .clients_max = 100000};
  o.w = worker_new(&o.shared, 0, NULL, 0, &err);
  assert_non_null(o.w);
  o.table = make_table(&o);
  o.w->table = o.table;
  o.c = connect_client(&o, &o.client);
  *state = &o;
  return 0;
}

static int tear_down(void **state) {
  struct world *o = *state;
  if (o->c && o->c->exchange)
    exchange_abort(o->w, o->c->exchange);
  else if (o->c)
    client_close(o->w, o->c);
  accesslog_free(o->shared.log);
  worker_free(o->w);
  table_free(o->table);
  for (int i = 0; i < INSTANCES; i++)
    close(o->listener[i]);
  close(o->client);
  return 0;
}

static void say(int fd, const void *data, size_t len) {
  assert_int_equal(write(fd, data, len), (ssize_t)len);
}

static void client_says(struct world *o, const void *data, size_t len) {
  say(o->client, data, len);
  o->c->sock.readable = true;
  client_run(o->w, o->c);
}

/* The instance's end of the connection that the request at hand was given. */
static int instance_accepts(struct world *o) {
  struct pollfd p[INSTANCES];
  for (int i = 0; i < INSTANCES; i++)
    p[i] = (struct pollfd){.fd = o->listener[i], .events = POLLIN};
  assert_int_equal(poll(p, INSTANCES, 2000), 1);
  int fd = accept(p[0].revents ? p[0].fd : p[1].fd, NULL, NULL);
  assert_true(fd >= 0);
  struct timeval wait = {.tv_sec = 1};
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), 0);
  return fd;
}

static struct upstream *upstream_of(const struct world *o) {
  assert_non_null(o->c->exchange);
  assert_non_null(o->c->exchange->up);
  return o->c->exchange->up;
}

static void upstream_writable(struct world *o) {
  struct upstream *u = upstream_of(o);
  u->sock.writable = true;
  upstream_event(o->w, u);
}

/* What an instance has got until it is quiet for a second, or has that much of a body. */
static size_t body_got(int fd, size_t enough) {
  static char text[65536];
  size_t len = 0;
  ssize_t n;
  while (len < sizeof text - 1 && (n = read(fd, text + len, sizeof text - 1 - len)) > 0) {
    len += (size_t)n;
    text[len] = 0;
    const char *body = strstr(text, "\r\n\r\n");
    if (body && len - (size_t)(body + 4 - text) >= enough)
      return len - (size_t)(body + 4 - text);
  }
  text[len] = 0;
  const char *body = strstr(text, "\r\n\r\n");
  return body ? len - (size_t)(body + 4 - text) : 0;
}

/* The first instance takes the head, and closes while the rest of the body waits for room in its connection: the second gets all of it. */
static void test_what_waits_of_a_body_goes_to_the_next_instance(void **state) {
  struct world *o = *state;
  static char body[BODY];
  char head[128];
  memset(body, 'b', sizeof body);
  int n = snprintf(head, sizeof head, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", BODY);
  client_says(o, head, (size_t)n);
  int first = instance_accepts(o);
  upstream_writable(o);
  assert_int_equal(o->c->exchange->state, EXCHANGE_WAITING);
  upstream_of(o)->sock.writable = false; /* as after EAGAIN */
  client_says(o, body, sizeof body);
  assert_true(flow_blocked(&o->c->exchange->body) && o->c->exchange->body.in_done);
  close(first);
  struct upstream *before = upstream_of(o);
  before->sock.readable = true;
  upstream_event(o->w, before);
  assert_ptr_not_equal(upstream_of(o), before);
  int second = instance_accepts(o);
  upstream_writable(o);
  assert_int_equal(body_got(second, BODY), BODY);
  close(second);
}

static void test_a_line_names_method_host_and_target_whatever_else_there_was(void **state) {
  struct world *o = *state;
  struct err err;
  char request[4096], line[1024] = "";
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  o->shared.log = accesslog_new(ACCESSLOG_JSON, pipes[1], &err);
  assert_non_null(o->shared.log);
  size_t len = (size_t)snprintf(request, sizeof request, "GET /admin?x HTTP/1.1\r\nHost: x\r\n");
  for (int i = 0; i < HEAD_FIELDS_MAX - 1; i++)
    len += (size_t)snprintf(request + len, sizeof request - len, "A%d: b\r\n", i);
  len += (size_t)snprintf(request + len, sizeof request - len, "\r\n");
  client_says(o, request, len);
  int fd = instance_accepts(o);
  upstream_writable(o);
  exchange_abort(o->w, o->c->exchange);
  o->c = NULL;
  close(fd);
  accesslog_free(o->shared.log);
  o->shared.log = NULL;
  assert_true(read(pipes[0], line, sizeof line - 1) > 0);
  assert_non_null(strstr(line, "\"method\":\"GET\",\"host\":\"x\",\"target\":\"/admin?x\""));
  close(pipes[0]);
  close(pipes[1]);
}

/* As many as there are blocks, each with one byte of a head, and one more that asks: it is served. */
static void test_those_who_only_begin_keep_nobody_out(void **state) {
  struct world *o = *state;
  enum { SLOW = 4096 };
  static int slow[SLOW];
  struct client *last = NULL;
  struct rlimit files;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_max < 2 * SLOW + 100)
    skip();
  static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  for (int i = 0; i < SLOW; i++) {
    last = connect_client(o, &slow[i]);
    say(slow[i], "G", 1);
    last->sock.readable = true;
    client_run(o->w, last);
    assert_int_equal(last->state, CLIENT_HEAD);
  }
  client_says(o, request, sizeof request - 1);
  assert_int_equal(o->c->state, CLIENT_BUSY);
  close(instance_accepts(o));
  char byte;
  assert_int_equal(read(slow[0], &byte, 1), 0); /* the oldest made room, without a word */
  assert_false(last->sock.closed);
  while (o->w->heads.idle_next != &o->w->heads)
    client_close(o->w, o->w->heads.idle_next);
  for (int i = 0; i < SLOW; i++)
    close(slow[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_what_waits_of_a_body_goes_to_the_next_instance, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_those_who_only_begin_keep_nobody_out, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_line_names_method_host_and_target_whatever_else_there_was, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
