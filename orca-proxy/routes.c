#include "orca-proxy/routes.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"

static const char magic[] = "orca routes 1\n";
#define MAGIC_LEN (sizeof magic - 1)

struct routes {
  uint64_t version;
  Node__Route **list;
  size_t count;
  char **trusted, **api_listen;
  size_t trusted_count, api_listen_count;
  char *log_level;
  uint32_t http_port;
  bool begun; /* has had a full table */
};

struct routes *routes_new(void) {
  return calloc(1, sizeof(struct routes));
}

static void free_list(Node__Route **list, size_t count) {
  for (size_t i = 0; i < count; i++)
    node__route__free_unpacked(list[i], NULL);
  free(list);
}

static void free_texts(char **list, size_t count) {
  for (size_t i = 0; list && i < count; i++)
    free(list[i]);
  free(list);
}

void routes_free(struct routes *r) {
  if (!r)
    return;
  free_list(r->list, r->count);
  free_texts(r->trusted, r->trusted_count);
  free_texts(r->api_listen, r->api_listen_count);
  free(r->log_level);
  free(r);
}

static int compare(const char *project_a, const char *service_a, const Node__Route *b) {
  int c = strcmp(project_a, PB_STR(b->project));
  return c ? c : strcmp(service_a, PB_STR(b->service));
}

static int by_name(const void *a, const void *b) {
  const Node__Route *const *x = a, *const *y = b;
  return compare(PB_STR((*x)->project), PB_STR((*x)->service), *y);
}

static bool is_named_in(const Node__Route *r, const Node__RouteTable *t) {
  for (size_t i = 0; i < t->n_routes; i++)
    if (compare(PB_STR(r->project), PB_STR(r->service), t->routes[i]) == 0)
      return true;
  for (size_t i = 0; i < t->n_removed; i++) {
    const char *slash = strchr(t->removed[i], '/');
    size_t len = slash ? (size_t)(slash - t->removed[i]) : 0;
    if (slash && strlen(PB_STR(r->project)) == len && memcmp(r->project, t->removed[i], len) == 0 && strcmp(PB_STR(r->service), slash + 1) == 0)
      return true;
  }
  return false;
}

static char **copy_texts(char *const *list, size_t count) {
  char **copy = calloc(count + 1, sizeof *copy);
  for (size_t i = 0; copy && i < count; i++)
    if (!(copy[i] = strdup(list[i]))) {
      free_texts(copy, i);
      return NULL;
    }
  return copy;
}

int routes_apply(struct routes *r, const Node__RouteTable *t, struct err *err) {
  bool full = PB_GET(t, full, false), settings = full || PB_GET(t, settings_changed, false);
  if (!full && !r->begun)
    return err_set(err, ERR_CONFLICT, "a change of routes came before any table");
  for (size_t i = 0; i < t->n_routes; i++)
    if (!t->routes[i]->project || !*t->routes[i]->project || !t->routes[i]->service || !*t->routes[i]->service)
      return err_set(err, ERR_INVALID, "a route without a name");
  size_t kept = 0, size = t->n_routes + (full ? 0 : r->count);
  Node__Route **list = calloc(size + 1, sizeof *list);
  char **trusted = settings ? copy_texts(t->trusted_proxies, t->n_trusted_proxies) : NULL;
  char **api_listen = settings ? copy_texts(t->api_listen, t->n_api_listen) : NULL;
  char *log_level = settings ? strdup(PB_STR(t->log_level)) : NULL;
  if (!list || (settings && (!trusted || !api_listen || !log_level)))
    goto fail;
  for (size_t i = 0; i < t->n_routes; i++)
    if (!(list[kept++] = (Node__Route *)pb_clone(&t->routes[i]->base)))
      goto fail;
  for (size_t i = 0; !full && i < r->count; i++)
    if (!is_named_in(r->list[i], t)) {
      list[kept++] = r->list[i];
      r->list[i] = NULL;
    }
  free_list(r->list, r->count);
  qsort(list, kept, sizeof *list, by_name);
  /* The same name twice in one table: the last word counts for nothing special, but there must be one. */
  size_t out = 0;
  for (size_t i = 0; i < kept; i++) {
    if (out && by_name(&list[out - 1], &list[i]) == 0)
      node__route__free_unpacked(list[i], NULL);
    else
      list[out++] = list[i];
  }
  r->list = list;
  r->count = out;
  if (settings) {
    free(r->log_level);
    r->log_level = log_level;
    r->http_port = PB_GET(t, http_port, 0);
    free_texts(r->trusted, r->trusted_count);
    r->trusted = trusted;
    r->trusted_count = t->n_trusted_proxies;
    free_texts(r->api_listen, r->api_listen_count);
    r->api_listen = api_listen;
    r->api_listen_count = t->n_api_listen;
  }
  r->version = PB_GET(t, version, r->version);
  r->begun = true;
  return 0;
fail:
  if (list)
    free_list(list, kept);
  free_texts(trusted, t->n_trusted_proxies);
  free_texts(api_listen, t->n_api_listen);
  free(log_level);
  return err_set(err, ERR_MEMORY, "no memory for the routes");
}

uint64_t routes_version(const struct routes *r) {
  return r->version;
}

size_t routes_count(const struct routes *r) {
  return r->count;
}

const Node__Route *const *routes_list(const struct routes *r) {
  return (const Node__Route *const *)r->list;
}

size_t routes_trusted(const struct routes *r, char *const **ret) {
  *ret = r->trusted;
  return r->trusted_count;
}

size_t routes_api_listen(const struct routes *r, char *const **ret) {
  *ret = r->api_listen;
  return r->api_listen_count;
}

const char *routes_log_level(const struct routes *r) {
  return r->log_level ? r->log_level : "";
}

uint16_t routes_http_port(const struct routes *r) {
  return r->http_port > UINT16_MAX ? 0 : (uint16_t)r->http_port;
}

static void put_u32(uint8_t *at, uint32_t v) {
  for (int i = 0; i < 4; i++)
    at[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get_u32(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

int routes_to_file(const struct routes *r, struct buf *file, struct err *err) {
  Node__RouteTable t = NODE__ROUTE_TABLE__INIT;
  PB_SET(&t, full, 1);
  PB_SET(&t, version, r->version);
  t.routes = r->list;
  t.n_routes = r->count;
  t.trusted_proxies = r->trusted;
  t.n_trusted_proxies = r->trusted_count;
  t.api_listen = r->api_listen;
  t.n_api_listen = r->api_listen_count;
  t.log_level = r->log_level;
  if (r->http_port)
    PB_SET(&t, http_port, r->http_port);
  struct buf body = BUF_INIT(ROUTES_FILE_MAX);
  uint8_t head[8];
  if (pb_pack(&t.base, &body) < 0) {
    buf_free(&body);
    return err_set(err, ERR_TOO_LARGE, "the route table is too large for its file");
  }
  put_u32(head, crypto_crc32c(0, body.data, body.len));
  put_u32(head + 4, (uint32_t)body.len);
  buf_add(file, magic, MAGIC_LEN);
  buf_add(file, head, sizeof head);
  buf_add(file, body.data, body.len);
  buf_free(&body);
  return buf_failed(file) ? err_set(err, ERR_TOO_LARGE, "the route table is too large for its file") : 0;
}

Node__RouteTable *routes_from_file(const uint8_t *data, size_t len, struct err *err) {
  if (len < MAGIC_LEN + 8 || memcmp(data, magic, MAGIC_LEN) != 0) {
    err_set(err, ERR_CORRUPT, "not a file of routes of this version");
    return NULL;
  }
  const uint8_t *head = data + MAGIC_LEN, *body = head + 8;
  size_t body_len = len - MAGIC_LEN - 8;
  if (get_u32(head + 4) != body_len || crypto_crc32c(0, body, body_len) != get_u32(head)) {
    err_set(err, ERR_CORRUPT, "its checksum is wrong");
    return NULL;
  }
  Node__RouteTable *t = (Node__RouteTable *)pb_unpack(&node__route_table__descriptor, body, body_len, err);
  if (t && !PB_GET(t, full, false)) {
    err_set(err, ERR_CORRUPT, "it holds no full table");
    node__route_table__free_unpacked(t, NULL);
    return NULL;
  }
  return t;
}
