#include "orca-apiserver/routes_derive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/json_out.h"

#define BORROW(type, p) ((type *)(uintptr_t)(const void *)(p))

struct held {
  uint64_t changed;
  Node__Route *route; /* NULL: removed at `changed` */
};

static void held_free(void *value) {
  struct held *h = value;
  if (h && h->route)
    node__route__free_unpacked(h->route, NULL);
  free(h);
}

static void proxy_free(void *value) {
  struct api_proxy *p = value;
  if (p)
    api_smap_clear(&p->draining, NULL);
  free(p);
}

void api_routes_init(struct api_route_table *t, uint64_t first_version, int64_t now) {
  *t = (struct api_route_table){
      .first = first_version, .version = first_version, .settings_version = first_version, .forgotten = first_version - 1, .began = now};
}

void api_routes_fini(struct api_route_table *t) {
  api_smap_clear(&t->routes, held_free);
  api_smap_clear(&t->left, free);
  api_smap_clear(&t->proxies, proxy_free);
}

/* ---- deriving ---- */

static bool is_ready(const struct api_cache *cache, const Model__Instance *instance, const Model__InstanceStatus **ret) {
  const Model__InstanceStatus *status = api_cache_instance_status(cache, instance);
  *ret = status;
  return instance->desired == MODEL__DESIRED__DESIRED_RUN && status && status->ready && *PB_STR(status->address);
}

/* Which revision's names and paths hold: while one is rolled out, those of the last good one until the first new instance is ready, so that what
 * the new revision says is never served by nobody. */
static const Model__ServiceSpec *ruling_spec(const struct api_cache *cache, const Model__Service *service) {
  const Model__Rollout *rollout = api_cache_rollout(cache, service->project, service->name);
  uint64_t number = service->revision;
  uint64_t stable = rollout ? rollout->stable_revision : 0;
  if (stable && stable != number) {
    bool turned_back = rollout->revision == number && rollout->generation == service->generation &&
                       (rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || rollout->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK);
    bool any_new = false;
    size_t count;
    const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, service->project, service->name, &count);
    for (size_t i = 0; i < count && !any_new; i++) {
      const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
      const Model__InstanceStatus *status;
      any_new = instance->revision == number && is_ready(cache, instance, &status);
    }
    if (turned_back || !any_new)
      number = stable;
  }
  const Model__Revision *revision = api_cache_revision(cache, service->project, service->name, number);
  if (!revision)
    revision = api_cache_revision(cache, service->project, service->name, service->revision);
  return revision ? revision->spec : NULL;
}

static char **copy_texts(char **from, size_t count) {
  char **to = calloc(count + 1, sizeof(char *));
  for (size_t i = 0; to && i < count; i++)
    if (!(to[i] = strdup(from[i]))) {
      while (i-- > 0)
        free(to[i]);
      free(to);
      return NULL;
    }
  return to;
}

static Model__Endpoint *endpoint(const Model__Instance *instance, const Model__InstanceStatus *status, uint32_t port) {
  Model__Endpoint *e = malloc(sizeof *e);
  char id[INSTANCE_ID_MAX];
  if (!e)
    return NULL;
  model__endpoint__init(e);
  instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  e->instance = strdup(id);
  e->address = strdup(status->address);
  e->node = strdup(PB_STR(instance->node));
  PB_SET(e, port, port);
  if (e->instance && e->address && e->node)
    return e;
  model__endpoint__free_unpacked(e, NULL);
  return NULL;
}

static int add_endpoints(const struct api_cache *cache, const Model__Service *service, Node__Route *route) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, service->project, service->name, &count);
  route->endpoints = calloc(count + 1, sizeof(Model__Endpoint *));
  if (!route->endpoints)
    return -1;
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
    const Model__InstanceStatus *status;
    const Model__Revision *revision = api_cache_revision(cache, service->project, service->name, instance->revision);
    if (!revision || !revision->spec || !revision->spec->port || !is_ready(cache, instance, &status))
      continue;
    Model__Endpoint *e = endpoint(instance, status, revision->spec->port);
    if (!e)
      return -1;
    route->endpoints[route->n_endpoints++] = e;
  }
  return 0;
}

/* NULL in *ret: no route. -1: out of memory. */
static int derive(const struct api_cache *cache, const char *project, const char *name, Node__Route **ret) {
  *ret = NULL;
  const Model__Service *service = api_cache_service(cache, project, name, NULL);
  const Model__ServiceSpec *spec = service ? ruling_spec(cache, service) : NULL;
  if (!spec || !spec->n_domains || !spec->port)
    return 0;
  char *default_paths[] = {BORROW(char, "/*")};
  Node__Route *r = malloc(sizeof *r);
  if (!r)
    return -1;
  node__route__init(r);
  r->project = strdup(project);
  r->service = strdup(name);
  if ((r->domains = copy_texts(spec->domains, spec->n_domains)))
    r->n_domains = spec->n_domains;
  size_t paths = spec->n_routes ? spec->n_routes : 1;
  if ((r->paths = copy_texts(spec->n_routes ? spec->routes : default_paths, paths)))
    r->n_paths = paths;
  PB_SET(r, strip_prefix, spec->strip_prefix);
  r->rules = spec->proxy ? (Model__ProxyRules *)(void *)pb_clone(&spec->proxy->base) : NULL;
  if (!r->project || !r->service || !r->domains || !r->paths || (spec->proxy && !r->rules) || add_endpoints(cache, service, r) < 0) {
    node__route__free_unpacked(r, NULL);
    return -1;
  }
  *ret = r;
  return 0;
}

static bool has_endpoint(const Node__Route *route, const char *instance) {
  for (size_t i = 0; route && i < route->n_endpoints; i++)
    if (strcmp(route->endpoints[i]->instance, instance) == 0)
      return true;
  return false;
}

static void note_left(struct api_route_table *t, const Node__Route *old, const Node__Route *now) {
  for (size_t i = 0; old && i < old->n_endpoints; i++) {
    const char *id = old->endpoints[i]->instance;
    if (has_endpoint(now, id))
      continue;
    void **slot = api_smap_slot(&t->left, id);
    if (slot && !*slot)
      *slot = malloc(sizeof(uint64_t));
    if (slot && *slot)
      *(uint64_t *)*slot = t->version;
  }
  for (size_t i = 0; now && i < now->n_endpoints; i++)
    free(api_smap_take(&t->left, now->endpoints[i]->instance));
}

/* Removals are remembered for those who are behind, but not for ever. */
static void forget_removals(struct api_route_table *t) {
  if (t->removed_count <= API_TOMBSTONES_MAX)
    return;
  size_t kept = 0;
  for (size_t i = 0; i < t->routes.count; i++) {
    struct held *h = t->routes.list[i].value;
    if (h->route) {
      t->routes.list[kept++] = t->routes.list[i];
      continue;
    }
    if (h->changed > t->forgotten)
      t->forgotten = h->changed;
    free(t->routes.list[i].key);
    held_free(h);
  }
  t->routes.count = kept;
  t->removed_count = 0;
}

bool api_routes_update(struct api_route_table *t, const struct api_cache *cache, const char *project, const char *name) {
  char id[INSTANCE_ID_MAX];
  snprintf(id, sizeof id, "%s/%s", project, name);
  Node__Route *route;
  if (derive(cache, project, name, &route) < 0)
    return false; /* the next change of it tries again */
  struct held *h = api_smap_get(&t->routes, id);
  const Node__Route *old = h ? h->route : NULL;
  if (old || route ? pb_equal(old ? &old->base : NULL, route ? &route->base : NULL) : true) {
    if (route)
      node__route__free_unpacked(route, NULL);
    return false;
  }
  if (!h) {
    void **slot = api_smap_slot(&t->routes, id);
    h = slot ? calloc(1, sizeof *h) : NULL;
    if (!h) {
      if (slot)
        api_smap_take(&t->routes, id);
      node__route__free_unpacked(route, NULL);
      return false;
    }
    *slot = h;
  } else if (!h->route) {
    t->removed_count--;
  }
  t->version++;
  note_left(t, h->route, route);
  if (h->route)
    node__route__free_unpacked(h->route, NULL);
  h->route = route;
  h->changed = t->version;
  if (!route) {
    t->removed_count++;
    forget_removals(t);
  }
  return true;
}

const Node__Route *api_routes_of(const struct api_route_table *t, const char *service) {
  const struct held *h = api_smap_get(&t->routes, service);
  return h ? h->route : NULL;
}

uint64_t api_routes_changed(const struct api_route_table *t, const char *service) {
  const struct held *h = api_smap_get(&t->routes, service);
  return h ? h->changed : 0;
}

void api_routes_settings_changed(struct api_route_table *t) {
  t->settings_version = ++t->version;
}

/* ---- telling ---- */

Node__RouteTable *api_routes_message(const struct api_route_table *t, const struct api_cache *cache, uint64_t since) {
  bool full = since == 0 || since < t->first || since <= t->forgotten;
  if (!full && since >= t->version)
    return NULL;
  Node__RouteTable *m = malloc(sizeof *m);
  if (!m)
    return NULL;
  node__route_table__init(m);
  m->routes = calloc(t->routes.count + 1, sizeof(Node__Route *));
  m->removed = calloc(t->routes.count + 1, sizeof(char *));
  if (!m->routes || !m->removed) {
    api_routes_message_free(m);
    return NULL;
  }
  for (size_t i = 0; i < t->routes.count; i++) {
    const struct held *h = t->routes.list[i].value;
    if (h->route && (full || h->changed > since))
      m->routes[m->n_routes++] = h->route;
    else if (!h->route && !full && h->changed > since)
      m->removed[m->n_removed++] = t->routes.list[i].key;
  }
  PB_SET(m, full, full);
  PB_SET(m, version, t->version);
  const Model__ClusterSpec *cluster = api_cache_cluster(cache, NULL);
  if (full || t->settings_version > since) {
    PB_SET(m, settings_changed, !full);
    m->log_level = cluster ? cluster->log_level : NULL;
    if (cluster && cluster->has_http_port)
      PB_SET(m, http_port, cluster->http_port);
    m->api_listen = calloc(cluster ? cluster->n_api_listen + 1 : 1, sizeof(char *));
    if (!m->api_listen) {
      api_routes_message_free(m);
      return NULL;
    }
    for (size_t i = 0; cluster && PB_GET(cluster, api_tls, false) && i < cluster->n_api_listen; i++)
      if (!spec_listen_is_loopback(cluster->api_listen[i]))
        m->api_listen[m->n_api_listen++] = cluster->api_listen[i];
    m->n_trusted_proxies = cluster ? cluster->n_trusted_proxies : 0;
    m->trusted_proxies = cluster ? BORROW(char *, cluster->trusted_proxies) : NULL;
  }
  return m;
}

void api_routes_message_free(Node__RouteTable *m) {
  if (!m)
    return;
  free(m->routes);
  free(m->removed);
  free(m->api_listen);
  free(m);
}

/* ---- proxies ---- */

static struct api_proxy *proxy_of(struct api_route_table *t, const char *node) {
  void **slot = api_smap_slot(&t->proxies, node);
  if (slot && !*slot)
    *slot = calloc(1, sizeof(struct api_proxy));
  struct api_proxy *p = slot ? *slot : NULL;
  if (p && !p->name[0])
    snprintf(p->name, sizeof p->name, "%s", node);
  return p;
}

void api_routes_proxy_up(struct api_route_table *t, const char *node) {
  struct api_proxy *p = proxy_of(t, node);
  if (!p)
    return;
  p->connected = true;
  p->acked_any = false; /* what it acknowledges from now on counts: it may have been started anew */
  p->acked = 0;
}

void api_routes_proxy_ack(struct api_route_table *t, const char *node, uint64_t version, char *const *draining, size_t count) {
  struct api_proxy *p = proxy_of(t, node);
  if (!p)
    return;
  p->acked_any = true;
  p->acked = version;
  api_smap_clear(&p->draining, NULL);
  for (size_t i = 0; i < count; i++)
    api_smap_slot(&p->draining, draining[i]);
}

bool api_routes_proxy_fault(struct api_route_table *t, const char *node, const char *fault) {
  struct api_proxy *p = proxy_of(t, node);
  char text[sizeof p->fault];
  api_text_copy(text, sizeof text, fault);
  if (!p || strcmp(p->fault, text) == 0)
    return false;
  memcpy(p->fault, text, sizeof text);
  return true;
}

void api_routes_proxy_down(struct api_route_table *t, const char *node, int64_t now) {
  struct api_proxy *p = api_smap_get(&t->proxies, node);
  if (!p)
    return;
  p->connected = false;
  p->lost_at = now;
}

bool api_routes_is_draining(const struct api_proxy *p, const char *id) {
  size_t at = api_smap_lower(&p->draining, id);
  return at < p->draining.count && strcmp(p->draining.list[at].key, id) == 0;
}

static bool was_ever_routed(const struct api_cache *cache, const Model__Instance *instance) {
  const Model__Revision *revision = api_cache_revision(cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
  return !revision || !revision->spec || revision->spec->n_domains;
}

bool api_routes_drained(const struct api_route_table *t, const struct api_cache *cache, const Model__Instance *instance, int64_t now,
                        int64_t *again) {
  char id[INSTANCE_ID_MAX], service[INSTANCE_ID_MAX];
  *again = INT64_MAX;
  instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  snprintf(service, sizeof service, "%s/%s", PB_STR(instance->project), PB_STR(instance->service));
  const struct held *h = api_smap_get(&t->routes, service);
  if (has_endpoint(h ? h->route : NULL, id))
    return false;
  const uint64_t *left = api_smap_get(&t->left, id);
  if (!left && !h && !was_ever_routed(cache, instance))
    return true;
  uint64_t needed = left ? *left : t->first;
  bool all = true;
  for (size_t i = 0; i < t->proxies.count; i++) {
    const struct api_proxy *p = t->proxies.list[i].value;
    if (!p)
      continue;
    if (!p->connected && now - p->lost_at >= API_PROXY_GRACE)
      continue;
    if (p->acked_any && p->acked >= needed && !api_routes_is_draining(p, id))
      continue;
    all = false;
    if (!p->connected && p->lost_at + API_PROXY_GRACE < *again)
      *again = p->lost_at + API_PROXY_GRACE;
  }
  if (!t->proxies.count && now - t->began < API_PROXY_GRACE) {
    all = false;
    *again = t->began + API_PROXY_GRACE;
  }
  return all;
}

void api_routes_forget(struct api_route_table *t, const char *instance) {
  free(api_smap_take(&t->left, instance));
}
