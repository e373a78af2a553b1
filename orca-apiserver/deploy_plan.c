#include "orca-apiserver/deploy_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/deploy_jobs.h"
#include "orca-apiserver/tokens.h"
#include "orca-apiserver/domains.h"

#define DIFF_MAX ((size_t)1 << 20)

const char *api_change_text(enum api_change change) {
  switch (change) {
  case API_CHANGE_NONE:
    return "none";
  case API_CHANGE_CREATE:
    return "create";
  case API_CHANGE_UPDATE:
    return "update";
  case API_CHANGE_RETRY:
    return "retry";
  case API_CHANGE_SCALE:
    return "scale";
  case API_CHANGE_START:
    return "start";
  case API_CHANGE_REMOVE:
    return "remove";
  }
  return "none";
}

void api_plan_free(struct api_plan *plan) {
  for (size_t i = 0; i < plan->count; i++) {
    struct api_plan_item *item = &plan->items[i];
    if (item->service)
      model__service__free_unpacked(item->service, NULL);
    if (item->job)
      model__job__free_unpacked(item->job, NULL);
    if (item->revision)
      model__revision__free_unpacked(item->revision, NULL);
    free(item->diff);
  }
  free(plan->items);
  *plan = (struct api_plan){0};
}

static struct api_plan_item *add_item(struct api_plan *plan, const char *project, const char *name) {
  if (plan->count == plan->size) {
    size_t size = plan->size ? plan->size * 2 : 16;
    struct api_plan_item *items = reallocarray(plan->items, size, sizeof *items);
    if (!items)
      return NULL;
    plan->items = items;
    plan->size = size;
  }
  struct api_plan_item *item = &plan->items[plan->count++];
  *item = (struct api_plan_item){0};
  snprintf(item->project, sizeof item->project, "%s", project);
  snprintf(item->name, sizeof item->name, "%s", name);
  return item;
}

Model__Revision *api_plan_revision(Model__Service *service, const Model__ServiceSpec *spec, const char *actor, int64_t now_ms) {
  Model__Revision *r = malloc(sizeof *r);
  if (!r)
    return NULL;
  model__revision__init(r);
  char hash[65];
  spec_hash(spec, hash);
  r->project = strdup(service->project);
  r->name = strdup(service->name);
  r->spec_hash = strdup(hash);
  r->created_by = strdup(actor);
  r->spec = (Model__ServiceSpec *)(void *)pb_clone(&spec->base);
  if (!r->project || !r->name || !r->spec_hash || !r->created_by || !r->spec) {
    model__revision__free_unpacked(r, NULL);
    return NULL;
  }
  uint64_t number = service->last_revision + 1;
  PB_SET(r, number, number);
  PB_SET(r, created_ms, now_ms);
  PB_SET(service, last_revision, number);
  PB_SET(service, revision, number);
  return r;
}

/* Numbers go on from what a purged service of that name has left behind and the scheduler not yet cleared away: an old instance must
 * never pass for one of the new revision. */
uint64_t api_plan_last_revision(const struct api_cache *cache, const char *project, const char *name) {
  const Model__Rollout *rollout = api_cache_rollout(cache, project, name);
  uint64_t last = rollout ? (rollout->revision > rollout->stable_revision ? rollout->revision : rollout->stable_revision) : 0;
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, project, name, &count);
  for (size_t i = 0; i < count; i++)
    if (API_MSG(&list[i], Model__Instance)->revision > last)
      last = API_MSG(&list[i], Model__Instance)->revision;
  list = api_cache_of_service(cache, API_REVISIONS, project, name, &count);
  for (size_t i = 0; i < count; i++) /* of a job that becomes a service */
    if (API_MSG(&list[i], Model__Revision)->number > last)
      last = API_MSG(&list[i], Model__Revision)->number;
  return last;
}

static Model__Service *new_service(const struct api_cache *cache, const char *project, const char *name, int64_t now_ms) {
  Model__Service *s = malloc(sizeof *s);
  if (!s)
    return NULL;
  model__service__init(s);
  s->project = strdup(project);
  s->name = strdup(name);
  if (!s->project || !s->name) {
    model__service__free_unpacked(s, NULL);
    return NULL;
  }
  PB_SET(s, created_ms, now_ms);
  PB_SET(s, generation, 1);
  PB_SET(s, last_revision, api_plan_last_revision(cache, project, name));
  return s;
}

static uint32_t replicas_of(const Model__ServiceSpec *spec) {
  return PB_GET(spec, replicas, 1);
}

static bool had_failed(const struct api_cache *cache, const Model__Service *service) {
  const Model__Rollout *r = api_cache_rollout(cache, service->project, service->name);
  return r && r->revision == service->revision && r->generation == service->generation &&
         (r->state == MODEL__ROLLOUT_STATE__ROLLOUT_FAILED || r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK);
}

static void fill_diff(struct api_plan_item *item, const Model__ServiceSpec *from, const Model__ServiceSpec *to) {
  struct buf text = BUF_INIT(DIFF_MAX);
  if (spec_diff(from, to, &text) == 0 && text.len)
    item->diff = strdup(buf_str(&text));
  buf_free(&text);
}

static int plan_service(const struct api_cache *cache, const Model__ServiceSpec *spec, const struct api_plan_options *o, struct api_plan *plan) {
  uint64_t mod;
  const Model__Service *old = api_cache_service(cache, spec->project, spec->name, &mod);
  const Model__Revision *current = old ? api_cache_revision(cache, spec->project, spec->name, old->revision) : NULL;
  struct api_plan_item *item = add_item(plan, spec->project, spec->name);
  if (!item)
    return -1;
  item->service_mod = mod;
  item->stop_first = spec_binds_node_resource(spec);
  Model__Service *s = old ? (Model__Service *)(void *)pb_clone(&old->base) : new_service(cache, spec->project, spec->name, o->now_ms);
  if (!s)
    return -1;
  item->service = s;

  uint32_t wanted = replicas_of(spec);
  bool rescaled = !old || old->spec_replicas != wanted, started = old && old->stopped;
  bool same = current && current->spec && spec_same_revision(spec, current->spec);
  if (!same) {
    item->change = old ? API_CHANGE_UPDATE : API_CHANGE_CREATE;
    item->revision = api_plan_revision(s, spec, o->actor, o->now_ms);
    if (!item->revision)
      return -1;
  } else if (had_failed(cache, old)) {
    item->change = API_CHANGE_RETRY;
    PB_SET(s, generation, old->generation + 1);
  } else if (started) {
    item->change = API_CHANGE_START;
  } else if (rescaled) {
    item->change = API_CHANGE_SCALE;
  }
  if (item->change == API_CHANGE_NONE) {
    model__service__free_unpacked(s, NULL);
    item->service = NULL;
    return 0;
  }
  if (rescaled) {
    PB_SET(s, spec_replicas, wanted);
    PB_SET(s, replicas, wanted);
  }
  PB_SET(s, stopped, 0);
  PB_SET(s, updated_ms, o->now_ms);
  if (o->diffs)
    fill_diff(item, current ? current->spec : NULL, spec);
  return 0;
}

/* What is created under the name of what is removed takes its place. */
static void mark_successor(struct api_plan *plan, const struct api_plan_item *removed) {
  for (size_t i = 0; i < plan->count; i++) {
    struct api_plan_item *item = &plan->items[i];
    item->takes_over |= item->change == API_CHANGE_CREATE && strcmp(item->project, removed->project) == 0 && strcmp(item->name, removed->name) == 0;
  }
}

static int plan_job(const struct api_cache *cache, const Model__ServiceSpec *spec, const struct api_plan_options *o, struct api_plan *plan) {
  struct api_plan_item *item = add_item(plan, spec->project, spec->name);
  if (!item || api_plan_job(cache, spec, o, item) < 0)
    return -1;
  if (o->diffs && item->revision) {
    const Model__Job *old = api_cache_job(cache, spec->project, spec->name, NULL);
    const Model__Revision *current = old ? api_cache_revision(cache, spec->project, spec->name, old->revision) : NULL;
    fill_diff(item, current ? current->spec : NULL, spec);
  }
  return 0;
}

static bool in_set(const struct spec_set *set, const char *project, const char *name, bool is_job) {
  for (size_t i = 0; i < set->service_count; i++)
    if (!set->services[i]->job != is_job && strcmp(set->services[i]->name, name) == 0 && strcmp(set->services[i]->project, project) == 0)
      return true;
  return false;
}

static bool names_project(const struct spec_set *set, const char *project) {
  for (size_t i = 0; i < set->service_count; i++)
    if (strcmp(set->services[i]->project, project) == 0)
      return true;
  return false;
}

static bool pruned(const struct spec_set *set, const struct api_plan_options *o, const char *project, const char *name, bool is_job) {
  return o->prune && !in_set(set, project, name, is_job) && (set->cluster || names_project(set, project)) && (!o->sees || o->sees(o->arg, project));
}

/* Tasks are not of the infra directory. */
static bool job_pruned(const struct spec_set *set, const struct api_plan_options *o, const Model__Job *job) {
  return !job->task && pruned(set, o, job->project, job->name, true);
}

/* ---- what the one who deploys may not see ---- */

static bool is_hidden(const struct api_plan_options *o, const char *project) {
  return o->sees && !o->sees(o->arg, project);
}

static bool has_text(char *const *list, size_t count, const char *text) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(list[i], text) == 0)
      return true;
  return false;
}

/* A reference that somebody who may see there has deployed already stays good. */
static bool stood_before(const struct api_cache *cache, const Model__ServiceSpec *spec, const char *ref) {
  const Model__Service *s = spec->job ? NULL : api_cache_service(cache, spec->project, spec->name, NULL);
  const Model__Job *j = spec->job ? api_cache_job(cache, spec->project, spec->name, NULL) : NULL;
  const Model__Revision *r = s || j ? api_cache_revision(cache, spec->project, spec->name, s ? s->revision : j->revision) : NULL;
  return r && r->spec &&
         (has_text(r->spec->depends_on, r->spec->n_depends_on, ref) ||
          (r->spec->placement && has_text(r->spec->placement->avoid, r->spec->placement->n_avoid, ref)));
}

static bool is_referred_to(const struct api_cache *cache, const struct spec_set *set, const Model__ServiceSpec *other) {
  char ref[130];
  snprintf(ref, sizeof ref, "%s/%s", other->project, other->name);
  for (size_t i = 0; i < set->service_count; i++)
    if (stood_before(cache, set->services[i], ref))
      return true;
  return false;
}

/* Its ports and names are taken, but nobody is told by whom, and it can't be named. */
static Model__ServiceSpec *as_seen(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o,
                                   Model__ServiceSpec *spec, Model__ServiceSpec *copy) {
  static char project[] = "another project", name[] = "a service";
  if (!is_hidden(o, spec->project) || is_referred_to(cache, set, spec))
    return spec;
  *copy = *spec;
  copy->project = project;
  copy->name = name;
  copy->n_depends_on = 0;
  return copy;
}

/* depends_on is looked up with the rest; `avoid` may name what is not there, and would tell by its verdicts that it is. */
static void check_avoid(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o, struct spec_faults *faults) {
  for (size_t i = 0; i < set->service_count; i++) {
    const Model__ServiceSpec *s = set->services[i];
    for (size_t k = 0; s->placement && k < s->placement->n_avoid; k++) {
      char project[64], path[96];
      const char *ref = s->placement->avoid[k], *slash = strchr(ref, '/');
      if (!slash || (size_t)(slash - ref) >= sizeof project)
        continue;
      snprintf(project, sizeof project, "%.*s", (int)(slash - ref), ref);
      if (!is_hidden(o, project) || stood_before(cache, s, ref))
        continue;
      snprintf(path, sizeof path, "services[%zu].placement.avoid[%zu]", i, k);
      spec_fault_add(faults, "", 0, 0, path, "there is no service %s", ref);
    }
  }
}

static void check_domains(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o, struct spec_faults *faults) {
  for (size_t i = 0; i < set->service_count; i++) {
    const char *domain = api_domain_of_others(cache, set->services[i], o->sees, o->arg);
    char path[64];
    snprintf(path, sizeof path, "services[%zu].domains", i);
    if (domain)
      spec_fault_add(faults, "", 0, 0, path, API_DOMAIN_OF_OTHERS, domain);
  }
}

/* Faults between services and with the policy, beside those that are deployed and stay. */
static int check(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o, struct spec_faults *faults) {
  size_t count, job_count, others = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count), *jobs = api_cache_all(cache, API_JOBS, &job_count);
  Model__ServiceSpec **list = calloc(count + job_count + 1, sizeof(Model__ServiceSpec *));
  Model__ServiceSpec *copies = calloc(count + job_count + 1, sizeof *copies);
  if (!list || !copies) {
    free(list);
    free(copies);
    return -1;
  }
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    const Model__Revision *r = api_cache_revision(cache, s->project, s->name, s->revision);
    if (r && r->spec && !in_set(set, s->project, s->name, false) && !pruned(set, o, s->project, s->name, false)) {
      list[others] = as_seen(cache, set, o, r->spec, &copies[others]);
      others++;
    }
  }
  for (size_t i = 0; i < job_count; i++) {
    const Model__Job *j = API_MSG(&jobs[i], Model__Job);
    const Model__Revision *r = api_cache_revision(cache, j->project, j->name, j->revision);
    if (r && r->spec && !in_set(set, j->project, j->name, true) && !job_pruned(set, o, j)) {
      list[others] = as_seen(cache, set, o, r->spec, &copies[others]);
      others++;
    }
  }
  spec_check_set(set, list, others, set->cluster ? set->cluster : api_cache_cluster(cache, NULL), faults);
  check_avoid(cache, set, o, faults);
  check_domains(cache, set, o, faults);
  free(copies);
  free(list);
  return 0;
}

static bool mounts_it(const Model__ServiceSpec *spec, const char *sha256) {
  for (size_t m = 0; spec && m < spec->n_mounts; m++)
    for (size_t f = 0; f < spec->mounts[m]->n_files; f++)
      if (strcmp(PB_STR(spec->mounts[m]->files[f]->sha256), sha256) == 0)
        return true;
  return false;
}

/* There, and in a revision that the one who deploys may see: else a hash would be enough to get at what another project mounts. */
static bool has_file(const struct api_cache *cache, const struct api_plan_options *o, const char *sha256) {
  char key[KEY_MAX];
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_REVISIONS, &count);
  key_named(key, KEY_FILES, sha256);
  if (!api_cache_object(cache, API_FILES, key))
    return false;
  for (size_t i = 0; i < count; i++) {
    const Model__Revision *r = API_MSG(&all[i], Model__Revision);
    if (!is_hidden(o, PB_STR(r->project)) && mounts_it(r->spec, sha256))
      return true;
  }
  return false;
}

/* The contents of mounts come with the deploy, or are there already. */
static void check_files(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o, struct spec_faults *faults) {
  for (size_t i = 0; i < set->service_count; i++)
    for (size_t m = 0; m < set->services[i]->n_mounts; m++)
      for (size_t f = 0; f < set->services[i]->mounts[m]->n_files; f++) {
        const char *sha = PB_STR(set->services[i]->mounts[m]->files[f]->sha256);
        bool known = false;
        for (size_t k = 0; k < set->file_count && !known; k++)
          known = strcmp(set->files[k].sha256, sha) == 0;
        char path[96];
        if (known || has_file(cache, o, sha))
          continue;
        snprintf(path, sizeof path, "services[%zu].mounts[%zu].files[%zu]", i, m, f);
        spec_fault_add(faults, "", 0, 0, path, "its content %.64s was not sent", sha);
      }
}

int api_plan_make(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *o, struct api_plan *plan,
                  struct spec_faults *faults, struct err *err) {
  *plan = (struct api_plan){0};
  if (check(cache, set, o, faults) < 0)
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  check_files(cache, set, o, faults);
  if (faults->count)
    return err_set(err, ERR_UNPROCESSABLE, "%zu faults", faults->count);
  for (size_t i = 0; i < set->service_count; i++)
    if ((set->services[i]->job ? plan_job(cache, set->services[i], o, plan) : plan_service(cache, set->services[i], o, plan)) < 0)
      goto no_memory;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    if (!pruned(set, o, s->project, s->name, false))
      continue;
    struct api_plan_item *item = add_item(plan, s->project, s->name);
    if (!item)
      goto no_memory;
    item->change = API_CHANGE_REMOVE;
    item->service_mod = ((const struct api_object *)all[i].value)->mod;
    mark_successor(plan, item);
  }
  all = api_cache_all(cache, API_JOBS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Job *j = API_MSG(&all[i], Model__Job);
    if (!job_pruned(set, o, j))
      continue;
    struct api_plan_item *item = add_item(plan, j->project, j->name);
    if (!item)
      goto no_memory;
    item->change = API_CHANGE_REMOVE;
    item->is_job = true;
    item->service_mod = ((const struct api_object *)all[i].value)->mod;
    mark_successor(plan, item);
  }
  if (set->cluster) {
    const Model__ClusterSpec *old = api_cache_cluster(cache, &plan->cluster_mod);
    Model__ClusterSpec wanted = api_cluster_without_tokens(set->cluster), is = old ? api_cluster_without_tokens(old) : wanted;
    plan->cluster_changes = !old || !pb_equal(&wanted.base, &is.base) || !api_tokens_are_declared(cache, set->cluster);
  }
  return 0;
no_memory:
  api_plan_free(plan);
  return err_set(err, ERR_MEMORY, "no memory for a plan");
}

uint64_t api_plan_rollback_target(const struct api_cache *cache, const Model__Service *service) {
  const Model__Rollout *rollout = api_cache_rollout(cache, service->project, service->name);
  if (rollout && rollout->stable_revision && rollout->stable_revision != service->revision &&
      api_cache_revision(cache, service->project, service->name, rollout->stable_revision))
    return rollout->stable_revision;
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_REVISIONS, service->project, service->name, &count);
  for (size_t i = count; i-- > 0;)
    if (API_MSG(&list[i], Model__Revision)->number < service->revision)
      return API_MSG(&list[i], Model__Revision)->number;
  return 0;
}
