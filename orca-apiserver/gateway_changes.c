#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway_internal.h"
#include "orca-apiserver/secrets.h"

/* ---- the cache has changed ---- */

static void mark_instance(struct gateway *g, const Model__Instance *instance, const char *id) {
  if (instance)
    gw_peers_mark(&g->peers, PB_STR(instance->node), id);
}

static void mark_service(struct gateway *g, const char *project, const char *name) {
  char id[INSTANCE_ID_MAX];
  snprintf(id, sizeof id, "%s/%s", project, name);
  if (!api_smap_slot(&g->changes.dirty_services, id))
    log_error("no memory to note a changed service", "service", id);
}

static void instance_changed(struct gateway *g, const Model__Instance *old, const Model__Instance *now) {
  const Model__Instance *any = now ? now : old;
  assert(any);
  char id[INSTANCE_ID_MAX];
  instance_id(id, PB_STR(any->project), PB_STR(any->service), any->number);
  mark_instance(g, old, id);
  mark_instance(g, now, id);
  mark_service(g, PB_STR(any->project), PB_STR(any->service));
  if (now && now->desired == MODEL__DESIRED__DESIRED_DRAIN) {
    if (!api_smap_slot(&g->changes.draining, id))
      log_error("no memory to note a draining instance", "instance", id);
    g->changes.look_at_drains = true;
  } else {
    api_smap_take(&g->changes.draining, id);
  }
  if (!now) {
    api_figures_gone(&g->api->figures, PB_STR(any->project), PB_STR(any->service), any->number);
    api_routes_forget(&g->table, id);
  }
}

/* An assignment is its instance, its revision and the image that one was resolved to. */
static void revision_changed(struct gateway *g, const char *key, const char *prefix) {
  char project[64], name[64], id[INSTANCE_ID_MAX];
  unsigned long long number;
  if (sscanf(key + strlen(prefix), "%63[^/]/%63[^/]/%llu", project, name, &number) != 3)
    return;
  mark_service(g, project, name);
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(&g->api->cache, API_INSTANCES, project, name, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&list[i], Model__Instance);
    if (instance->revision != number)
      continue;
    instance_id(id, project, name, instance->number);
    mark_instance(g, instance, id);
  }
}

/* Its consumers are told of the new version; they go on as they are. Sealed anew it is the same. */
static void secret_changed(struct gateway *g, const Model__Secret *old, const Model__Secret *now) {
  const Model__Secret *any = now ? now : old;
  if (!*PB_STR(any->name) || (old && now && old->version == now->version))
    return;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&g->api->cache, API_INSTANCES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *instance = API_MSG(&all[i], Model__Instance);
    if (*PB_STR(any->project) && strcmp(any->project, PB_STR(instance->project)) != 0)
      continue;
    const Model__Revision *revision = api_cache_revision(&g->api->cache, PB_STR(instance->project), PB_STR(instance->service), instance->revision);
    if (!revision || !revision->spec || !secrets_uses(revision->spec, any->name))
      continue;
    char id[INSTANCE_ID_MAX];
    instance_id(id, PB_STR(instance->project), PB_STR(instance->service), instance->number);
    mark_instance(g, instance, id);
  }
}

void gateway_changed(struct gateway *g, enum api_kind kind, const char *key, const ProtobufCMessage *old, const ProtobufCMessage *now) {
  const ProtobufCMessage *any = now ? now : old;
  switch (kind) {
  case API_INSTANCES:
    instance_changed(g, (const Model__Instance *)(const void *)old, (const Model__Instance *)(const void *)now);
    break;
  case API_INSTANCE_STATUS: {
    const Model__InstanceStatus *s = (const Model__InstanceStatus *)(const void *)any;
    mark_service(g, PB_STR(s->project), PB_STR(s->service));
    g->changes.look_at_drains = true;
    break;
  }
  case API_SERVICES: {
    const Model__Service *s = (const Model__Service *)(const void *)any;
    mark_service(g, PB_STR(s->project), PB_STR(s->name));
    break;
  }
  case API_ROLLOUTS: {
    const Model__Rollout *r = (const Model__Rollout *)(const void *)any;
    mark_service(g, PB_STR(r->project), PB_STR(r->service));
    break;
  }
  case API_REVISIONS:
  case API_REVISION_STATUS:
    revision_changed(g, key, api_kind_prefix(kind));
    break;
  case API_CLUSTER:
    api_routes_settings_changed(&g->table);
    gw_due_at(g, loop_now(g->api->loop)); /* node_ttl may be another */
    gw_peers_mark_cluster(&g->peers);
    break;
  case API_NODES:
    if (g->listener)
      bus_listener_recheck(g->listener);
    break;
  case API_SECRETS:
    secret_changed(g, (const Model__Secret *)(const void *)old, (const Model__Secret *)(const void *)now);
    break;
  case API_NODE_STATUS:
  case API_TOKENS:
  case API_AUDIT:
  case API_LEADER:
  case API_WANTED:
  case API_HISTORY_APISERVER:
  case API_HISTORY_SCHEDULER:
  case API_FILES:
  case API_JOBS: /* their instances are what agents hear of */
  case API_JOB_STATE:
  case API_JOB_RUNS:
  case API_KIND_COUNT:
    return;
  }
  g->changes.tell = true;
}

/* ---- at the end of a round ---- */

static void look_at_routes(struct gateway *g) {
  bool changed = false;
  for (size_t i = 0; i < g->changes.dirty_services.count; i++) {
    char project[64], name[64];
    const char *id = g->changes.dirty_services.list[i].key, *slash = strchr(id, '/');
    if (!slash || slash - id >= 64 || strlen(slash + 1) >= 64)
      continue;
    snprintf(project, sizeof project, "%.*s", (int)(slash - id), id);
    snprintf(name, sizeof name, "%s", slash + 1);
    changed |= api_routes_update(&g->table, &g->api->cache, project, name);
  }
  api_smap_clear(&g->changes.dirty_services, NULL);
  g->changes.look_at_drains |= changed;
  g->changes.tell |= changed;
}

static void look_at_drains(struct gateway *g) {
  int64_t now = loop_now(g->api->loop);
  for (size_t i = 0; i < g->changes.draining.count; i++) {
    char project[64], service[64];
    uint64_t number;
    int64_t again;
    if (!instance_id_parse(g->changes.draining.list[i].key, project, service, &number))
      continue;
    const Model__Instance *instance = api_cache_instance(&g->api->cache, project, service, number);
    if (!instance)
      continue;
    if (!api_routes_drained(&g->table, &g->api->cache, instance, now, &again))
      gw_due_at(g, again);
    else if (api_round_drained(&g->round, instance) < 0)
      log_error("no memory to note a drained instance", "instance", g->changes.draining.list[i].key);
  }
}

void gw_changes_drains(struct gateway *g) {
  g->changes.look_at_drains = true;
}

void gw_changes_end_round(struct gateway *g) {
  struct gw_changes *changes = &g->changes;
  if (changes->dirty_services.count)
    look_at_routes(g);
  if (changes->look_at_drains && !gw_reports_on_its_way(&g->reports)) {
    changes->look_at_drains = false;
    look_at_drains(g);
  }
  if (changes->tell) {
    changes->tell = false;
    gw_peers_tell(&g->peers);
  }
}

/* ---- begin and end ---- */

void gw_changes_all(struct gateway *g) {
  const struct api_cache *cache = &g->api->cache;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  for (size_t i = 0; i < count; i++)
    mark_service(g, PB_STR(API_MSG(&all[i], Model__Service)->project), PB_STR(API_MSG(&all[i], Model__Service)->name));
  all = api_cache_all(cache, API_INSTANCES, &count);
  for (size_t i = 0; i < count; i++)
    instance_changed(g, NULL, API_MSG(&all[i], Model__Instance));
  look_at_routes(g);
}

void gw_changes_fini(struct gw_changes *changes) {
  api_smap_clear(&changes->dirty_services, NULL);
  api_smap_clear(&changes->draining, NULL);
}
