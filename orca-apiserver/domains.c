#include "orca-apiserver/domains.h"

#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"

static bool has_domain(const Model__ServiceSpec *spec, const char *domain) {
  for (size_t i = 0; spec && i < spec->n_domains; i++)
    if (strcmp(spec->domains[i], domain) == 0)
      return true;
  return false;
}

/* No path more than it has. */
static bool keeps(const Model__ServiceSpec *now, const Model__ServiceSpec *spec, const char *domain) {
  if (!has_domain(now, domain) || (now->n_routes && !spec->n_routes))
    return false;
  for (size_t i = 0; now->n_routes && i < spec->n_routes; i++) {
    size_t k = 0;
    while (k < now->n_routes && strcmp(now->routes[k], spec->routes[i]) != 0)
      k++;
    if (k == now->n_routes)
      return false;
  }
  return true;
}

static const Model__ServiceSpec *wanted_spec(const struct api_cache *cache, const Model__Service *s) {
  const Model__Revision *r = s ? api_cache_revision(cache, s->project, s->name, s->revision) : NULL;
  return r ? r->spec : NULL;
}

/* What a rollout that fails would come back to. */
static const Model__ServiceSpec *stable_spec(const struct api_cache *cache, const Model__Service *s) {
  const Model__Rollout *rollout = api_cache_rollout(cache, s->project, s->name);
  const Model__Revision *r = rollout ? api_cache_revision(cache, s->project, s->name, PB_GET(rollout, stable_revision, 0)) : NULL;
  return r ? r->spec : NULL;
}

const char *api_domain_of_others(const struct api_cache *cache, const Model__ServiceSpec *spec, bool (*sees)(void *arg, const char *project),
                                 void *arg) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  const Model__ServiceSpec *now = wanted_spec(cache, api_cache_service(cache, spec->project, spec->name, NULL));
  for (size_t i = 0; sees && spec->n_domains && i < count; i++) {
    const Model__Service *other = API_MSG(&all[i], Model__Service);
    if (strcmp(other->project, spec->project) == 0 || sees(arg, other->project))
      continue;
    const Model__ServiceSpec *theirs = wanted_spec(cache, other), *stable = stable_spec(cache, other);
    for (size_t k = 0; k < spec->n_domains; k++)
      if ((has_domain(theirs, spec->domains[k]) || has_domain(stable, spec->domains[k])) && !keeps(now, spec, spec->domains[k]))
        return spec->domains[k];
  }
  return NULL;
}

int api_domains_free(const struct api_cache *cache, const Model__ServiceSpec *spec, bool (*sees)(void *arg, const char *project), void *arg,
                     struct err *err) {
  const char *domain = api_domain_of_others(cache, spec, sees, arg), *path;
  if (domain)
    return err_set(err, ERR_CONFLICT, "domains: " API_DOMAIN_OF_OTHERS, domain);
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  for (size_t i = 0; spec->n_domains && i < count; i++) {
    const Model__Service *other = API_MSG(&all[i], Model__Service);
    const Model__ServiceSpec *theirs = wanted_spec(cache, other);
    bool same = strcmp(other->project, spec->project) == 0 && strcmp(other->name, spec->name) == 0;
    if (same || !theirs || !spec_shares_route(spec, theirs, &domain, &path))
      continue;
    if (sees && !sees(arg, other->project))
      return err_set(err, ERR_CONFLICT, "domains: %s%s leads to another project by now", domain, path);
    return err_set(err, ERR_CONFLICT, "domains: %s%s leads to %s/%s by now", domain, path, other->project, other->name);
  }
  return 0;
}
