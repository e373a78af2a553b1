/* Route tables for orca-proxy without an apiserver.
 *
 *   make-routes file PATH < TABLE                 writes the file that the proxy reads at its start (STATE_DIR/proxy/routes)
 *   make-routes keys DIR NAME…                    makes key pairs and prints the public keys
 *   make-routes serve ENDPOINT KEY_DIR < TABLES   plays the node gateway: pushes each table that stdin holds (a line "." ends one),
 *                                                 prints "hello VERSION ADDRESS", "ack VERSION [INSTANCE…]" and "stats PROJECT/NAME REQUESTS 4XX 5XX
 * IN OUT"
 *
 * A table is lines of words:
 *   version N | delta | trusted CIDR… | removed PROJECT/NAME… |
 *   route PROJECT/NAME [domain=NAME]… [path=PATTERN]… [strip] [timeout=MS] [max_body=BYTES] [to=INSTANCE@ADDRESS@PORT]… */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/bus/bus.h"
#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/loop.h"
#include "proto/node.pb-c.h"

static void die(const char *what) {
  fprintf(stderr, "make-routes: %s\n", what);
  exit(1);
}

static void *must(void *p) {
  if (!p)
    die("out of memory");
  return p;
}

static char *copy(const char *s) {
  return must(strdup(s));
}

#define APPEND(list, count, item) ((list) = must(reallocarray((list), (count) + 1, sizeof *(list))), (list)[(count)++] = (item))

static Model__Endpoint *parse_endpoint(const char *text) {
  Model__Endpoint *e = must(malloc(sizeof *e));
  model__endpoint__init(e);
  char *at = copy(text), *save = NULL;
  const char *instance = strtok_r(at, "@", &save), *address = strtok_r(NULL, "@", &save), *port = strtok_r(NULL, "@", &save);
  if (!instance || !address || !port)
    die("an endpoint is INSTANCE@ADDRESS@PORT");
  e->instance = copy(instance);
  e->address = copy(address);
  PB_SET(e, port, (uint32_t)strtoul(port, NULL, 10));
  free(at);
  return e;
}

static Node__Route *parse_route(char **save) {
  Node__Route *r = must(malloc(sizeof *r));
  node__route__init(r);
  const char *name = strtok_r(NULL, " ", save), *slash = name ? strchr(name, '/') : NULL;
  if (!slash)
    die("a route needs PROJECT/NAME");
  r->project = must(strndup(name, (size_t)(slash - name)));
  r->service = copy(slash + 1);
  r->rules = must(malloc(sizeof *r->rules));
  model__proxy_rules__init(r->rules);
  for (const char *word; (word = strtok_r(NULL, " ", save));) {
    if (strncmp(word, "domain=", 7) == 0)
      APPEND(r->domains, r->n_domains, copy(word + 7));
    else if (strncmp(word, "path=", 5) == 0)
      APPEND(r->paths, r->n_paths, copy(word + 5));
    else if (strcmp(word, "strip") == 0)
      PB_SET(r, strip_prefix, 1);
    else if (strncmp(word, "timeout=", 8) == 0)
      PB_SET(r->rules, timeout_ms, strtoull(word + 8, NULL, 10));
    else if (strncmp(word, "max_body=", 9) == 0)
      PB_SET(r->rules, max_body, strtoull(word + 9, NULL, 10));
    else if (strncmp(word, "to=", 3) == 0)
      APPEND(r->endpoints, r->n_endpoints, parse_endpoint(word + 3));
    else
      die("unknown word in a route");
  }
  return r;
}

static void parse_line(Node__RouteTable *t, char *line) {
  char *save = NULL;
  line[strcspn(line, "\n")] = 0;
  const char *verb = strtok_r(line, " ", &save);
  if (!verb || *verb == '#')
    return;
  if (strcmp(verb, "version") == 0) {
    const char *n = strtok_r(NULL, " ", &save);
    PB_SET(t, version, n ? strtoull(n, NULL, 10) : 0);
  } else if (strcmp(verb, "delta") == 0) {
    PB_SET(t, full, 0);
  } else if (strcmp(verb, "trusted") == 0) {
    PB_SET(t, settings_changed, 1);
    for (const char *word; (word = strtok_r(NULL, " ", &save));)
      APPEND(t->trusted_proxies, t->n_trusted_proxies, copy(word));
  } else if (strcmp(verb, "removed") == 0) {
    for (const char *word; (word = strtok_r(NULL, " ", &save));)
      APPEND(t->removed, t->n_removed, copy(word));
  } else if (strcmp(verb, "route") == 0) {
    APPEND(t->routes, t->n_routes, parse_route(&save));
  } else {
    die("unknown line");
  }
}

static Node__RouteTable *new_table(void) {
  Node__RouteTable *t = must(malloc(sizeof *t));
  node__route_table__init(t);
  PB_SET(t, full, 1);
  PB_SET(t, version, 1);
  return t;
}

/* ---- a file ---- */

static void put_u32(struct buf *b, uint32_t v) {
  for (int i = 0; i < 4; i++)
    buf_add_byte(b, (uint8_t)(v >> (8 * i)));
}

static int make_file(const char *path) {
  Node__RouteTable *t = new_table();
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) > 0)
    parse_line(t, line);
  struct buf body = BUF_INIT((size_t)64 << 20), file = BUF_INIT((size_t)65 << 20);
  pb_pack(&t->base, &body);
  buf_add_str(&file, "orca routes 1\n");
  put_u32(&file, crypto_crc32c(0, body.data, body.len));
  put_u32(&file, (uint32_t)body.len);
  buf_add(&file, body.data, body.len);
  FILE *f = fopen(path, "w");
  if (!f || buf_failed(&file) || fwrite(file.data, 1, file.len, f) != file.len || fclose(f) != 0)
    die("the file can't be written");
  free(line);
  buf_free(&body);
  buf_free(&file);
  node__route_table__free_unpacked(t, NULL);
  return 0;
}

static int make_keys(const char *dir, char **names, int count) {
  for (int i = 0; i < count; i++) {
    struct err err;
    struct bus_key_pair pair;
    if (bus_key_new(&pair, &err) < 0 || bus_key_save(dir, names[i], &pair, &err) < 0)
      die(err.msg);
    printf("%s %s\n", names[i], pair.public_key);
  }
  return 0;
}

/* ---- a gateway ---- */

struct gateway {
  struct loop *loop;
  struct loop_io in;
  struct bus_call *streams[16];
  size_t stream_count;
  Node__RouteTable *next;
  struct buf line;
  Node__RouteTable *full; /* the last full table, for those who come later */
};

static void push(struct bus_call *stream, Node__RouteTable *t) {
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_ROUTES;
  item.routes = t;
  if (bus_push(stream, &item.base) != 0)
    printf("push refused\n");
}

static void on_gone(void *arg) {
  struct gateway *g = arg;
  g->stream_count = 0;
  printf("gone\n");
}

static void print_stats(const Node__ProxyStats *s) {
  for (size_t i = 0; i < s->n_services; i++) {
    const Node__ServiceStats *v = s->services[i];
    printf("stats %s/%s %llu %llu %llu %llu %llu\n", v->project, v->service, (unsigned long long)v->requests, (unsigned long long)v->errors_4xx,
           (unsigned long long)v->errors_5xx, (unsigned long long)v->bytes_in, (unsigned long long)v->bytes_out);
  }
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  (void)conn;
  static const struct bus_answer_ops ops = {.cancelled = on_gone};
  struct gateway *g = arg;
  struct err err;
  Node__Call *c = (Node__Call *)pb_unpack(&node__call__descriptor, body, len, &err);
  if (!c) {
    bus_fail(call, &err);
    return;
  }
  Node__Done done = NODE__DONE__INIT;
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_DONE;
  reply.done = &done;
  if (c->body_case == NODE__CALL__BODY_PROXY_HELLO) {
    printf("hello %llu %s\n", (unsigned long long)c->proxy_hello->version, c->proxy_hello->http_address);
    if (g->stream_count < 16)
      g->streams[g->stream_count++] = call;
    bus_answer_on(call, &ops, g);
    if (g->full)
      push(call, g->full);
  } else if (c->body_case == NODE__CALL__BODY_ROUTE_ACK) {
    printf("ack %llu", (unsigned long long)c->route_ack->version);
    for (size_t i = 0; i < c->route_ack->n_draining; i++)
      printf(" %s", c->route_ack->draining[i]);
    printf("\n");
    bus_reply(call, &reply.base);
  } else if (c->body_case == NODE__CALL__BODY_PROXY_STATS) {
    print_stats(c->proxy_stats);
    bus_reply(call, &reply.base);
  } else {
    err_set(&err, ERR_UNSUPPORTED, "not for a proxy");
    bus_fail(call, &err);
  }
  node__call__free_unpacked(c, NULL);
}

static bool allow_all(void *arg, const char *key, char who[64], uint64_t *tag) {
  (void)arg;
  (void)key;
  (void)tag;
  snprintf(who, 64, "proxy");
  return true;
}

static void end_table(struct gateway *g) {
  for (size_t i = 0; i < g->stream_count; i++)
    push(g->streams[i], g->next);
  if (g->next->full) {
    if (g->full)
      node__route_table__free_unpacked(g->full, NULL);
    g->full = g->next;
  } else {
    node__route_table__free_unpacked(g->next, NULL);
  }
  g->next = new_table();
}

static void on_input(void *arg, uint32_t events) {
  (void)events;
  struct gateway *g = arg;
  char data[4096];
  ssize_t n = read(0, data, sizeof data);
  if (n <= 0) {
    loop_stop(g->loop);
    return;
  }
  for (ssize_t i = 0; i < n; i++) {
    if (data[i] != '\n') {
      buf_add_byte(&g->line, (uint8_t)data[i]);
      continue;
    }
    if (strcmp(buf_str(&g->line), ".") == 0)
      end_table(g);
    else if (g->line.len)
      parse_line(g->next, (char *)g->line.data);
    buf_reset(&g->line);
  }
}

static int serve(const char *endpoint, const char *key_dir) {
  struct err err;
  struct gateway g = {.next = new_table(), .line = BUF_INIT(1 << 20)};
  struct bus_key_pair keys;
  struct bus *bus = NULL;
  static const struct bus_conn_ops ops = {.call = on_call};
  setvbuf(stdout, NULL, _IOLBF, 0);
  setenv("ZSYS_SIGHANDLER", "false", 1);
  if (!(g.loop = loop_new(NULL, &err)) || bus_key_load(key_dir, "apiserver", &keys, &err) < 0 ||
      !(bus = bus_new(g.loop, &(struct bus_config){.keys = &keys}, &err)) || !bus_listen(bus, endpoint, allow_all, &ops, &g, &err))
    die(err.msg);
  g.in = (struct loop_io){.cb = on_input, .arg = &g};
  if (loop_io_add(g.loop, &g.in, 0, EPOLLIN, &err) < 0 || loop_run(g.loop, &err) < 0)
    die(err.msg);
  bus_free(bus);
  loop_free(g.loop);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "file") == 0)
    return make_file(argv[2]);
  if (argc >= 4 && strcmp(argv[1], "keys") == 0)
    return make_keys(argv[2], argv + 3, argc - 3);
  if (argc == 4 && strcmp(argv[1], "serve") == 0)
    return serve(argv[2], argv[3]);
  fputs("usage: make-routes file PATH | keys DIR NAME... | serve ENDPOINT KEY_DIR\n", stderr);
  return 2;
}
