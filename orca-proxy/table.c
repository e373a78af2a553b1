#include "orca-proxy/table.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-proxy/target.h"

#define SEGMENTS_MAX 64 /* deeper paths match by their first 64 segments */

enum kind { EXACT, PREFIX };

struct path_entry {
  uint64_t hash;
  uint32_t host;
  uint32_t service; /* + 1; 0: free */
  const char *path; /* without the star and the slash before it */
  uint32_t len;
  enum kind kind;
};

struct raw_entry { /* "/api*" */
  uint32_t host, service;
  const char *path;
  uint32_t len;
};

struct host_entry {
  uint64_t hash;
  const char *name; /* NULL: free */
  uint32_t len, id;
  uint32_t root;      /* service + 1 of "/" and a star */
  bool deeper;        /* has anything but the root */
  uint32_t raw, raws; /* its raw prefixes, longest first */
};

struct table_index {
  struct host_entry *hosts;
  struct path_entry *paths;
  struct raw_entry *raws;
  size_t host_mask, path_mask, raw_count;
  struct table_service *services;
  struct table_endpoint *endpoints;
  struct cidr *trusted;
  uint32_t *by_id; /* index + 1 of the service with that id */
  size_t ids;
  char *strings;
  size_t strings_len, strings_size;
};

static uint64_t hash_step(uint64_t h, uint8_t c) {
  return (h ^ c) * UINT64_C(0x100000001b3);
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len) {
  const uint8_t *p = data;
  for (size_t i = 0; i < len; i++)
    h = hash_step(h, p[i]);
  return h;
}

#define HASH_SEED UINT64_C(0xcbf29ce484222325)

static uint64_t path_seed(uint32_t host) {
  return HASH_SEED ^ ((uint64_t)(host + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t path_finish(uint64_t h, enum kind kind) {
  h ^= (uint64_t)kind << 62;
  return h ^ h >> 29;
}

static size_t slots_for(size_t entries) {
  size_t n = 8;
  while (n < entries * 2)
    n *= 2;
  return n;
}

static struct host_entry *find_host(const struct table_index *x, const char *name, size_t len) {
  uint64_t h = hash_bytes(HASH_SEED, name, len);
  h ^= h >> 29;
  for (size_t i = h & x->host_mask;; i = (i + 1) & x->host_mask) {
    struct host_entry *e = &x->hosts[i];
    if (!e->name || (e->hash == h && e->len == len && memcmp(e->name, name, len) == 0)) {
      if (!e->name)
        e->hash = h;
      return e;
    }
  }
}

static struct path_entry *find_path(const struct table_index *x, uint64_t h, uint32_t host, enum kind kind, const void *path, size_t len) {
  h = path_finish(h, kind);
  for (size_t i = h & x->path_mask;; i = (i + 1) & x->path_mask) {
    struct path_entry *e = &x->paths[i];
    if (!e->service)
      return e;
    if (e->hash == h && e->host == host && e->kind == kind && e->len == len && memcmp(e->path, path, len) == 0)
      return e;
  }
}

/* ---- building ---- */

static const char *keep_string(struct table_index *x, const char *s, size_t len) {
  char *at = x->strings + x->strings_len;
  memcpy(at, s, len);
  at[len] = 0;
  x->strings_len += len + 1;
  return at;
}

static size_t count_strings(const Node__Route *const *routes, size_t count) {
  size_t n = 1;
  for (size_t i = 0; i < count; i++) {
    n += strlen(PB_STR(routes[i]->project)) + strlen(PB_STR(routes[i]->service)) + 2;
    for (size_t k = 0; k < routes[i]->n_domains; k++)
      n += strlen(routes[i]->domains[k]) + 1;
    /* paths are kept once for each host */
    for (size_t k = 0; k < routes[i]->n_paths; k++)
      n += (strlen(routes[i]->paths[k]) + 1) * (routes[i]->n_domains + 1);
    for (size_t k = 0; k < routes[i]->n_endpoints; k++)
      n += strlen(PB_STR(routes[i]->endpoints[k]->instance)) + 1;
  }
  return n;
}

static void add_path(struct table_index *x, struct host_entry *host, const char *pattern, uint32_t service, unsigned *skipped) {
  size_t len = strlen(pattern);
  if (len == 0 || pattern[0] != '/') {
    (*skipped)++;
    return;
  }
  enum kind kind = EXACT;
  if (pattern[len - 1] == '*') {
    len--;
    if (pattern[len - 1] != '/') {
      x->raws[x->raw_count++] = (struct raw_entry){host->id, service, keep_string(x, pattern, len), (uint32_t)len};
      host->deeper = true;
      return;
    }
    len--;
    kind = PREFIX;
  }
  if (kind == PREFIX && len == 0) {
    if (!host->root)
      host->root = service + 1;
    return;
  }
  host->deeper = true;
  uint64_t h = hash_bytes(path_seed(host->id), pattern, len);
  struct path_entry *e = find_path(x, h, host->id, kind, pattern, len);
  if (!e->service)
    *e = (struct path_entry){path_finish(h, kind), host->id, service + 1, keep_string(x, pattern, len), (uint32_t)len, kind};
}

static bool parse_addr(const Model__Endpoint *e, union table_addr *addr) {
  uint32_t port = PB_GET(e, port, 0);
  memset(addr, 0, sizeof *addr);
  if (port == 0 || port > 65535)
    return false;
  if (inet_pton(AF_INET, PB_STR(e->address), &addr->in.sin_addr) == 1) {
    addr->in.sin_family = AF_INET;
    addr->in.sin_port = htons((uint16_t)port);
    return true;
  }
  if (inet_pton(AF_INET6, PB_STR(e->address), &addr->in6.sin6_addr) == 1) {
    addr->in6.sin6_family = AF_INET6;
    addr->in6.sin6_port = htons((uint16_t)port);
    return true;
  }
  return false;
}

static int by_host_then_length(const void *a, const void *b) {
  const struct raw_entry *x = a, *y = b;
  if (x->host != y->host)
    return x->host < y->host ? -1 : 1;
  if (x->len != y->len)
    return x->len > y->len ? -1 : 1;
  return x->service < y->service ? -1 : x->service > y->service;
}

static void add_route(struct table *t, struct table_index *x, const Node__Route *r, uint32_t *host_count, const struct table_ids *ids,
                      unsigned *skipped) {
  static char every[] = "/*";
  static char *const default_paths[] = {every};
  uint32_t index = (uint32_t)t->service_count++;
  struct table_service *s = &x->services[index];
  char *name = x->strings + x->strings_len;
  keep_string(x, PB_STR(r->project), strlen(PB_STR(r->project)));
  x->strings[x->strings_len - 1] = '/';
  keep_string(x, PB_STR(r->service), strlen(PB_STR(r->service)));
  const Model__ProxyRules *rules = r->rules;
  *s = (struct table_service){
      .id = ids->service(ids->arg, name),
      .name = name,
      .strip_prefix = PB_GET(r, strip_prefix, false),
      .timeout_ms = rules ? PB_GET(rules, timeout_ms, TABLE_TIMEOUT_MS) : TABLE_TIMEOUT_MS,
      .max_body = rules ? PB_GET(rules, max_body, TABLE_MAX_BODY) : TABLE_MAX_BODY,
      .first = (uint32_t)t->endpoint_count,
  };
  for (size_t i = 0; i < r->n_endpoints; i++) {
    const Model__Endpoint *e = r->endpoints[i];
    struct table_endpoint *te = &x->endpoints[t->endpoint_count];
    if (!parse_addr(e, &te->addr)) {
      (*skipped)++;
      continue;
    }
    te->instance = keep_string(x, PB_STR(e->instance), strlen(PB_STR(e->instance)));
    te->slot = ids->slot(ids->arg, te->instance, PB_STR(e->address), e->port, &te->incarnation);
    if (te->slot == UINT32_MAX) { /* no memory for one more */
      (*skipped)++;
      continue;
    }
    t->endpoint_count++;
    s->count++;
  }
  char *const *paths = r->n_paths ? r->paths : default_paths;
  size_t n_paths = r->n_paths ? r->n_paths : 1;
  if (!r->project)
    t->api = s;
  for (size_t i = 0; i < r->n_domains; i++) {
    char host[TARGET_HOST_MAX];
    size_t len;
    if (!target_host((struct span){(const uint8_t *)r->domains[i], strlen(r->domains[i])}, host, &len)) {
      (*skipped)++;
      continue;
    }
    struct host_entry *h = find_host(x, host, len);
    if (!h->name) {
      h->name = keep_string(x, host, len);
      h->len = (uint32_t)len;
      h->id = (*host_count)++;
    }
    for (size_t k = 0; k < n_paths; k++)
      add_path(x, h, paths[k], index, skipped);
  }
}

static int index_ids(struct table *t, struct table_index *x) {
  for (size_t i = 0; i < t->service_count; i++) {
    if (x->services[i].id == UINT32_MAX) /* no memory for one more */
      return -1;
    if (x->services[i].id >= x->ids)
      x->ids = x->services[i].id + 1;
  }
  x->by_id = calloc(x->ids ? x->ids : 1, sizeof *x->by_id);
  if (!x->by_id)
    return -1;
  for (size_t i = 0; i < t->service_count; i++)
    x->by_id[x->services[i].id] = (uint32_t)i + 1;
  return 0;
}

struct table *table_build(const Node__Route *const *routes, size_t count, char *const *trusted, size_t trusted_count, const struct table_ids *ids,
                          unsigned *skipped) {
  size_t domains = 0, paths = 0, endpoints = 0;
  for (size_t i = 0; i < count; i++) {
    domains += routes[i]->n_domains;
    paths += routes[i]->n_domains * routes[i]->n_paths;
    endpoints += routes[i]->n_endpoints;
  }
  *skipped = 0;
  struct table *t = calloc(1, sizeof *t);
  struct table_index *x = calloc(1, sizeof *x);
  if (!t || !x)
    goto fail;
  t->index = x;
  x->host_mask = slots_for(domains) - 1;
  x->path_mask = slots_for(paths) - 1;
  x->strings_size = count_strings(routes, count);
  x->hosts = calloc(x->host_mask + 1, sizeof *x->hosts);
  x->paths = calloc(x->path_mask + 1, sizeof *x->paths);
  x->raws = calloc(paths + 1, sizeof *x->raws);
  x->services = calloc(count + 1, sizeof *x->services);
  x->endpoints = calloc(endpoints + 1, sizeof *x->endpoints);
  x->trusted = calloc(trusted_count + 1, sizeof *x->trusted);
  x->strings = malloc(x->strings_size);
  if (!x->hosts || !x->paths || !x->raws || !x->services || !x->endpoints || !x->trusted || !x->strings)
    goto fail;
  uint32_t host_count = 0;
  for (size_t i = 0; i < count; i++)
    add_route(t, x, routes[i], &host_count, ids, skipped);
  qsort(x->raws, x->raw_count, sizeof *x->raws, by_host_then_length);
  for (size_t i = 0; i <= x->host_mask; i++) {
    struct host_entry *h = &x->hosts[i];
    for (size_t k = 0; h->name && k < x->raw_count; k++)
      if (x->raws[k].host == h->id && h->raws++ == 0)
        h->raw = (uint32_t)k;
  }
  for (size_t i = 0; i < trusted_count; i++) {
    if (cidr_parse(trusted[i], &x->trusted[t->trusted_count]))
      t->trusted_count++;
    else
      (*skipped)++;
  }
  if (index_ids(t, x) < 0)
    goto fail;
  t->services = x->services;
  t->endpoints = x->endpoints;
  t->trusted = x->trusted;
  return t;
fail:
  if (!t || !t->index)
    free(x);
  table_free(t);
  return NULL;
}

void table_free(struct table *t) {
  if (!t)
    return;
  struct table_index *x = t->index;
  if (x) {
    free(x->hosts);
    free(x->paths);
    free(x->raws);
    free(x->services);
    free(x->endpoints);
    free(x->trusted);
    free(x->by_id);
    free(x->strings);
    free(x);
  }
  free(t);
}

/* ---- reading ---- */

static void look_deeper(const struct table_index *x, const struct host_entry *host, struct span path, uint32_t *service, size_t *prefix_len) {
  struct {
    uint64_t hash;
    size_t len;
  } seg[SEGMENTS_MAX];
  unsigned n = 0;
  uint64_t h = path_seed(host->id);
  for (size_t i = 0; i < path.len; i++) {
    if (path.at[i] == '/' && i > 0 && n < SEGMENTS_MAX) {
      seg[n].hash = h;
      seg[n++].len = i;
    }
    h = hash_step(h, path.at[i]);
  }
  const struct path_entry *e = find_path(x, h, host->id, EXACT, path.at, path.len);
  if (!e->service) {
    e = find_path(x, h, host->id, PREFIX, path.at, path.len);
    while (!e->service && n--)
      e = find_path(x, seg[n].hash, host->id, PREFIX, path.at, seg[n].len);
  }
  if (e->service) {
    *service = e->service;
    *prefix_len = e->len;
  }
  if (e->service && e->kind == EXACT)
    return;
  for (uint32_t i = 0; i < host->raws; i++) {
    const struct raw_entry *r = &x->raws[host->raw + i];
    if (*service && r->len <= *prefix_len)
      return;
    if (r->len <= path.len && memcmp(r->path, path.at, r->len) == 0) {
      *service = r->service + 1;
      *prefix_len = r->len;
      return;
    }
  }
}

struct table_match table_lookup(const struct table *t, const char *host, size_t host_len, struct span path) {
  struct table_match m = {0};
  const struct table_index *x = t->index;
  uint64_t h = hash_bytes(HASH_SEED, host, host_len);
  h ^= h >> 29;
  const struct host_entry *e = &x->hosts[h & x->host_mask];
  for (size_t i = h & x->host_mask; e->name && !(e->hash == h && e->len == host_len && memcmp(e->name, host, host_len) == 0);)
    e = &x->hosts[i = (i + 1) & x->host_mask];
  if (!e->name)
    return m;
  m.host_known = true;
  uint32_t service = e->root;
  if (e->deeper)
    look_deeper(x, e, path, &service, &m.prefix_len);
  if (service)
    m.service = &t->services[service - 1];
  return m;
}

const struct table_service *table_service(const struct table *t, uint32_t id) {
  return id < t->index->ids && t->index->by_id[id] ? &t->services[t->index->by_id[id] - 1] : NULL;
}
