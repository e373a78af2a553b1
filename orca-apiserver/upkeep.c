#include "orca-apiserver/upkeep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

static bool in_use(const struct api_cache *cache, const Model__Service *s, uint64_t number) {
  const Model__Rollout *rollout = api_cache_rollout(cache, s->project, s->name);
  if (number == s->revision || (rollout && (number == rollout->revision || number == rollout->stable_revision)))
    return true;
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, s->project, s->name, &count);
  for (size_t i = 0; i < count; i++)
    if (API_MSG(&list[i], Model__Instance)->revision == number)
      return true;
  return false;
}

void api_upkeep_revisions(const struct api_cache *cache, const Model__Service *s, struct storec_txn *txn) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_REVISIONS, s->project, s->name, &count);
  for (size_t i = 0; i + API_KEEP_REVISIONS <= count; i++) {
    uint64_t number = API_MSG(&list[i], Model__Revision)->number;
    if (in_use(cache, s, number))
      continue;
    char key[KEY_MAX];
    storec_delete(txn, list[i].key);
    key_numbered(key, KEY_REVISION_STATUS, s->project, s->name, number);
    storec_delete(txn, key);
  }
}

void api_upkeep_purge(const struct api_cache *cache, const char *project, const char *name, struct storec_txn *txn) {
  char key[KEY_MAX];
  const enum api_kind kinds[] = {API_REVISIONS, API_REVISION_STATUS};
  key_service(key, KEY_SERVICES, project, name);
  storec_delete(txn, key);
  for (size_t k = 0; k < 2; k++) {
    size_t count;
    const struct api_smap_entry *list = api_cache_of_service(cache, kinds[k], project, name, &count);
    for (size_t i = 0; i < count; i++)
      storec_delete(txn, list[i].key);
  }
}

static int mark_files(const Model__ServiceSpec *spec, struct api_smap *used) {
  for (size_t m = 0; spec && m < spec->n_mounts; m++)
    for (size_t f = 0; f < spec->mounts[m]->n_files; f++)
      if (!api_smap_slot(used, PB_STR(spec->mounts[m]->files[f]->sha256)))
        return -1;
  return 0;
}

void api_upkeep_files(const struct api_cache *cache, bool (*purged)(void *arg, const char *project, const char *name), void *arg,
                      const struct spec_set *keep, struct storec_txn *txn) {
  struct api_smap used = {0}, mine = {0};
  size_t count;
  const struct api_smap_entry *list = api_cache_all(cache, API_REVISIONS, &count);
  int rc = 0;
  for (size_t i = 0; keep && i < keep->file_count && rc == 0; i++)
    rc = api_smap_slot(&used, keep->files[i].sha256) ? 0 : -1;
  for (size_t i = 0; keep && i < keep->service_count && rc == 0; i++)
    rc = mark_files(keep->services[i], &used); /* what is there already need not be sent again */
  for (size_t i = 0; i < count && rc == 0; i++) {
    const Model__Revision *r = API_MSG(&list[i], Model__Revision);
    rc = mark_files(r->spec, purged(arg, PB_STR(r->project), PB_STR(r->name)) ? &mine : &used);
  }
  for (size_t i = 0; i < mine.count && rc == 0; i++) {
    char key[KEY_MAX];
    size_t at = api_smap_lower(&used, mine.list[i].key);
    if (at < used.count && strcmp(used.list[at].key, mine.list[i].key) == 0)
      continue;
    key_named(key, KEY_FILES, mine.list[i].key);
    storec_delete(txn, key);
  }
  api_smap_clear(&used, NULL);
  api_smap_clear(&mine, NULL);
}

/* ---- nodes ---- */

static void free_pairs(Model__Node *node) {
  for (size_t i = 0; i < node->n_labels; i++)
    model__pair__free_unpacked(node->labels[i], NULL);
  free(node->labels);
  for (size_t i = 0; i < node->n_gpus; i++)
    model__gpu__free_unpacked(node->gpus[i], NULL);
  free(node->gpus);
  node->labels = NULL;
  node->gpus = NULL;
  node->n_labels = node->n_gpus = 0;
}

static int take_decl(Model__Node *node, const Model__NodeDecl *decl) {
  node->labels = calloc(decl->n_labels + 1, sizeof(Model__Pair *));
  node->gpus = calloc(decl->n_gpus + 1, sizeof(Model__Gpu *));
  if (!node->labels || !node->gpus)
    return -1;
  for (size_t i = 0; i < decl->n_labels; i++, node->n_labels++)
    if (!(node->labels[i] = (Model__Pair *)(void *)pb_clone(&decl->labels[i]->base)))
      return -1;
  for (size_t i = 0; i < decl->n_gpus; i++, node->n_gpus++)
    if (!(node->gpus[i] = (Model__Gpu *)(void *)pb_clone(&decl->gpus[i]->base)))
      return -1;
  return 0;
}

Model__Node *api_upkeep_node(const Model__Node *node, const Model__ClusterSpec *cluster) {
  Model__Node *changed = (Model__Node *)(void *)pb_clone(&node->base);
  if (!changed)
    return NULL;
  free_pairs(changed);
  int rc = 0;
  for (size_t i = 0; cluster && i < cluster->n_nodes && rc == 0; i++) {
    const Model__NodeDecl *d = cluster->nodes[i];
    bool meant = d->name ? strcmp(d->name, PB_STR(node->name)) == 0 : d->address && strcmp(d->address, PB_STR(node->address)) == 0;
    if (!meant)
      continue;
    rc = take_decl(changed, d);
    break;
  }
  if (rc == 0 && !pb_equal(&changed->base, &node->base))
    return changed;
  model__node__free_unpacked(changed, NULL);
  return NULL;
}
