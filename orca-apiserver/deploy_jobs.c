#include "orca-apiserver/deploy_jobs.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/jobs.h"

#define KEEP_REVISIONS 20u

static uint64_t last_used_revision(const struct api_cache *cache, const char *project, const char *name) {
  uint64_t last = 0;
  size_t count;
  const struct api_smap_entry *runs = api_cache_of_service(cache, API_JOB_RUNS, project, name, &count);
  for (size_t i = 0; i < count; i++) {
    uint64_t number = API_MSG(&runs[i], Model__JobRun)->revision;
    last = number > last ? number : last;
  }
  uint64_t other = api_plan_last_revision(cache, project, name);
  return last > other ? last : other;
}

static Model__Job *new_job(const struct api_cache *cache, const char *project, const char *name, int64_t now_ms) {
  Model__Job *job = malloc(sizeof *job);
  if (!job)
    return NULL;
  model__job__init(job);
  job->project = strdup(project);
  job->name = strdup(name);
  if (!job->project || !job->name) {
    model__job__free_unpacked(job, NULL);
    return NULL;
  }
  PB_SET(job, created_ms, now_ms);
  PB_SET(job, last_revision, last_used_revision(cache, project, name));
  return job;
}

Model__Job *api_job_new_revision(const struct api_cache *cache, const Model__Job *old, const Model__ServiceSpec *spec, const char *actor,
                                 int64_t now_ms, Model__Revision **ret_revision) {
  Model__Job *job = old ? (Model__Job *)(void *)pb_clone(&old->base) : new_job(cache, spec->project, spec->name, now_ms);
  if (!job)
    return NULL;
  /* Numbers as a service's: what makes a revision is the same for both. */
  Model__Service numbers = MODEL__SERVICE__INIT;
  numbers.project = job->project;
  numbers.name = job->name;
  PB_SET(&numbers, last_revision, job->last_revision);
  Model__Revision *revision = api_plan_revision(&numbers, spec, actor, now_ms);
  if (!revision) {
    model__job__free_unpacked(job, NULL);
    return NULL;
  }
  PB_SET(job, revision, numbers.revision);
  PB_SET(job, last_revision, numbers.last_revision);
  PB_SET(job, updated_ms, now_ms);
  if (!*PB_STR(spec->job->schedule))
    PB_SET(job, requested, job->requested + 1);
  *ret_revision = revision;
  return job;
}

int api_plan_job(const struct api_cache *cache, const Model__ServiceSpec *spec, const struct api_plan_options *o, struct api_plan_item *item) {
  const Model__Job *old = api_cache_job(cache, spec->project, spec->name, &item->service_mod);
  const Model__Revision *current = old ? api_cache_revision(cache, spec->project, spec->name, old->revision) : NULL;
  item->is_job = true;
  if (!current || !current->spec || !spec_same_revision(spec, current->spec)) {
    item->change = old ? API_CHANGE_UPDATE : API_CHANGE_CREATE;
    item->job = api_job_new_revision(cache, old, spec, o->actor, o->now_ms, &item->revision);
  } else if (old->suspended) {
    item->change = API_CHANGE_START;
    item->job = (Model__Job *)(void *)pb_clone(&old->base);
  } else {
    return 0;
  }
  if (!item->job)
    return -1;
  PB_SET(item->job, suspended, 0);
  PB_SET(item->job, updated_ms, o->now_ms);
  return 0;
}

static bool is_waited_with(const struct api_cache *cache, const Model__Job *job, uint64_t revision) {
  size_t count;
  const struct api_smap_entry *runs = api_cache_of_service(cache, API_JOB_RUNS, job->project, job->name, &count);
  for (size_t i = 0; i < count; i++)
    if (API_MSG(&runs[i], Model__JobRun)->revision == revision && !api_run_is_over(API_MSG(&runs[i], Model__JobRun)))
      return true;
  return false;
}

/* The oldest revisions that no instance names, and no run that goes on. */
static void tidy_revisions(const struct api_cache *cache, const Model__Job *job, struct storec_txn *txn) {
  size_t count, instances;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_REVISIONS, job->project, job->name, &count);
  const struct api_smap_entry *of = api_cache_of_service(cache, API_INSTANCES, job->project, job->name, &instances);
  for (size_t i = 0; i + KEEP_REVISIONS <= count; i++) {
    uint64_t number = API_MSG(&list[i], Model__Revision)->number;
    bool used = number == job->revision || is_waited_with(cache, job, number);
    for (size_t k = 0; k < instances && !used; k++)
      used = API_MSG(&of[k], Model__Instance)->revision == number;
    if (used)
      continue;
    char key[KEY_MAX];
    storec_delete(txn, list[i].key);
    key_numbered(key, KEY_REVISION_STATUS, job->project, job->name, number);
    storec_delete(txn, key);
  }
}

void api_plan_put_job(const struct api_cache *cache, const struct api_plan_item *item, struct storec_txn *txn) {
  char key[KEY_MAX];
  if (item->change == API_CHANGE_REMOVE) {
    api_job_purge(cache, item->project, item->name, item->service_mod, txn);
    return;
  }
  key_service(key, KEY_SERVICES, item->project, item->name);
  if (!item->takes_over)
    storec_if_mod_revision(txn, key, 0);
  key_service(key, KEY_JOBS, item->project, item->name);
  storec_if_mod_revision(txn, key, item->service_mod);
  storec_put_message(txn, key, &item->job->base, 0);
  if (!item->revision)
    return;
  key_numbered(key, KEY_REVISIONS, item->project, item->name, item->revision->number);
  storec_put_message(txn, key, &item->revision->base, 0);
  tidy_revisions(cache, item->job, txn);
}

int api_job_suspend(const Model__Job *job, uint64_t mod, int64_t now_ms, struct storec_txn *txn, struct err *err) {
  Model__Job *copy = (Model__Job *)(void *)pb_clone(&job->base);
  char key[KEY_MAX];
  if (!copy)
    return err_set(err, ERR_MEMORY, "no memory for a change");
  PB_SET(copy, suspended, 1);
  PB_SET(copy, updated_ms, now_ms);
  key_service(key, KEY_JOBS, job->project, job->name);
  storec_if_mod_revision(txn, key, mod);
  storec_put_message(txn, key, &copy->base, 0);
  model__job__free_unpacked(copy, NULL);
  return 0;
}

void api_job_purge(const struct api_cache *cache, const char *project, const char *name, uint64_t mod, struct storec_txn *txn) {
  char key[KEY_MAX];
  const enum api_kind kinds[] = {API_REVISIONS, API_REVISION_STATUS};
  key_service(key, KEY_JOBS, project, name);
  storec_if_mod_revision(txn, key, mod);
  storec_delete(txn, key);
  for (size_t k = 0; k < 2; k++) {
    size_t count;
    const struct api_smap_entry *list = api_cache_of_service(cache, kinds[k], project, name, &count);
    for (size_t i = 0; i < count; i++)
      storec_delete(txn, list[i].key);
  }
}
