/* Changing services that are there: scale, stop, start, restart, redeploy, rollback, delete. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/deploy_jobs.h"
#include "orca-apiserver/deploy_plan.h"
#include "orca-apiserver/domains.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/upkeep.h"

#define REPLICAS_MAX 10000

enum verb { VERB_SCALE, VERB_STOP, VERB_START, VERB_RESTART, VERB_REDEPLOY, VERB_ROLLBACK, VERB_DELETE };

struct change {
  enum verb verb;
  uint32_t replicas;
  uint64_t to; /* rollback: 0 = the one before */
  bool purge, changed;
  char project[64], name[64];
  uint64_t revision;
  uint32_t now_replicas;
};

static Model__Service *edit(const Model__Service *s, int64_t now_ms, struct err *err) {
  Model__Service *copy = (Model__Service *)(void *)pb_clone(&s->base);
  if (!copy)
    err_set(err, ERR_MEMORY, "no memory for a change");
  else
    PB_SET(copy, updated_ms, now_ms);
  return copy;
}

static bool sees(void *arg, const char *project) {
  struct api_request *r = arg;
  return api_auth_sees(&r->api->cache, &r->who, project);
}

/* What will run again must still be allowed: the policy may have changed since it was deployed. */
static int still_allowed(const struct api_cache *cache, const Model__Service *s, uint64_t number, struct err *err) {
  const Model__Revision *r = api_cache_revision(cache, s->project, s->name, number);
  if (!r || !r->spec)
    return err_set(err, ERR_NOT_FOUND,
                   number > s->last_revision ? "%s/%s has no revision %" PRIu64 ": `orcactl history` lists what there is"
                                             : "%s/%s has no revision %" PRIu64 " any more: the newest are kept, `orcactl history` lists them",
                   s->project, s->name, number);
  return spec_check_all(r->spec, api_cache_cluster(cache, NULL), err);
}

static int put_service(struct storec_txn *txn, const Model__Service *s, uint64_t mod) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, s->project, s->name);
  storec_if_mod_revision(txn, key, mod);
  storec_put_message(txn, key, &s->base, 0);
  return 0;
}

/* A restart is of what runs: after a rollback that is not the revision that failed. */
static uint64_t running_revision(const struct api_cache *cache, const Model__Service *s) {
  const Model__Rollout *r = api_cache_rollout(cache, s->project, s->name);
  Model__RolloutState state = r ? PB_GET(r, state, MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE) : MODEL__ROLLOUT_STATE__ROLLOUT_COMPLETE;
  bool back = state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
  return back && PB_GET(r, revision, 0) == s->revision && PB_GET(r, stable_revision, 0) ? PB_GET(r, stable_revision, 0) : s->revision;
}

/* 0: s is changed as the verb says, and the event is in txn; 1: it is so already. */
static int apply(struct api_write *w, const Model__Service *old, Model__Service *s, struct storec_txn *txn, struct err *err) {
  struct api *api = w->api;
  struct change *c = w->ctx;
  const char *p = s->project, *n = s->name;
  switch (c->verb) {
  case VERB_SCALE:
    if (old->replicas == c->replicas)
      return 1;
    if (c->replicas > old->replicas && still_allowed(&api->cache, old, old->revision, err) < 0)
      return -1;
    PB_SET(s, replicas, c->replicas);
    api_service_event(api, txn, w->request, "service.scaled", p, n, "from %u to %u replicas", old->replicas, c->replicas);
    return 0;
  case VERB_STOP:
  case VERB_DELETE:
    if (old->stopped)
      return 1;
    PB_SET(s, stopped, 1);
    api_service_event(api, txn, w->request, "service.stopped", p, n, "stopped; its spec stays");
    return 0;
  case VERB_START:
    if (!old->stopped)
      return 1;
    if (still_allowed(&api->cache, old, old->revision, err) < 0)
      return -1;
    PB_SET(s, stopped, 0);
    api_service_event(api, txn, w->request, "service.started", p, n, "started again");
    return 0;
  case VERB_RESTART: {
    uint64_t runs = running_revision(&api->cache, old);
    if (still_allowed(&api->cache, old, runs, err) < 0)
      return -1;
    if (runs != old->revision && api_domains_free(&api->cache, api_cache_revision(&api->cache, p, n, runs)->spec, sees, w->request, err) < 0)
      return -1;
    if (runs != old->revision)
      api_change_wanted(api, txn);
    PB_SET(s, revision, runs);
    PB_SET(s, generation, old->generation + 1);
    PB_SET(s, stopped, 0);
    if (runs == old->revision)
      api_service_event(api, txn, w->request, "service.restarted", p, n, "all its instances are replaced");
    else
      api_service_event(api, txn, w->request, "service.restarted", p, n,
                        "all its instances are replaced, by those of revision %" PRIu64 ", which runs: %" PRIu64 " had failed", runs, old->revision);
    return 0;
  }
  case VERB_REDEPLOY: {
    if (still_allowed(&api->cache, old, old->revision, err) < 0)
      return -1;
    const Model__Revision *current = api_cache_revision(&api->cache, p, n, old->revision);
    Model__Revision *r = api_plan_revision(s, current->spec, w->request->who.name, api_now_ms(api));
    if (!r)
      return err_set(err, ERR_MEMORY, "no memory for a revision");
    PB_SET(r, force_pull, 1);
    PB_SET(s, stopped, 0);
    char key[KEY_MAX];
    key_numbered(key, KEY_REVISIONS, p, n, r->number);
    storec_put_message(txn, key, &r->base, 0);
    model__revision__free_unpacked(r, NULL);
    api_upkeep_revisions(&api->cache, old, txn);
    api_service_event(api, txn, w->request, "service.redeployed", p, n, "revision %" PRIu64 " pulls %s again", s->revision,
                      PB_STR(current->spec->image));
    return 0;
  }
  case VERB_ROLLBACK: {
    uint64_t to = c->to ? c->to : api_plan_rollback_target(&api->cache, old);
    if (!to)
      return err_set(err, ERR_UNPROCESSABLE, "%s/%s has no earlier revision", p, n);
    if (to == old->revision)
      return err_set(err, ERR_UNPROCESSABLE, "%s/%s is at revision %" PRIu64 " already", p, n, to);
    if (still_allowed(&api->cache, old, to, err) < 0)
      return -1;
    if (api_domains_free(&api->cache, api_cache_revision(&api->cache, p, n, to)->spec, sees, w->request, err) < 0)
      return -1;
    api_change_wanted(api, txn);
    PB_SET(s, revision, to);
    api_service_event(api, txn, w->request, "service.rollback", p, n, "from revision %" PRIu64 " to %" PRIu64, old->revision, to);
    return 0;
  }
  }
  return 0;
}

static void note(struct change *c, const Model__Service *s) {
  api_text_copy(c->project, sizeof c->project, PB_STR(s->project));
  api_text_copy(c->name, sizeof c->name, PB_STR(s->name));
  c->revision = s->revision;
  c->now_replicas = s->stopped ? 0 : s->replicas;
}

static bool is_this(void *arg, const char *project, const char *name) {
  const struct change *c = arg;
  return strcmp(c->project, project) == 0 && strcmp(c->name, name) == 0;
}

static int build(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct change *c = w->ctx;
  uint64_t mod;
  const Model__Service *old = api_find_service_err(w->request, &mod, err);
  if (!old)
    return -1;
  note(c, old);
  if (c->verb == VERB_DELETE && c->purge) {
    char key[KEY_MAX];
    key_service(key, KEY_SERVICES, old->project, old->name);
    storec_if_mod_revision(txn, key, mod);
    api_change_wanted(w->api, txn);
    api_upkeep_purge(&w->api->cache, old->project, old->name, txn);
    api_upkeep_files(&w->api->cache, is_this, c, NULL, txn);
    api_service_event(w->api, txn, w->request, "service.removed", old->project, old->name, "removed, its spec with it");
    c->now_replicas = 0;
    c->changed = true;
    return 0;
  }
  Model__Service *s = edit(old, api_now_ms(w->api), err);
  if (!s)
    return -1;
  int rc = apply(w, old, s, txn, err);
  if (rc == 0) {
    rc = put_service(txn, s, mod);
    note(c, s);
    c->changed = true;
  }
  model__service__free_unpacked(s, NULL);
  return rc;
}

static void answer(struct api_write *w) {
  const struct change *c = w->ctx;
  char id[130];
  snprintf(id, sizeof id, "%s/%s", c->project, c->name);
  struct api_json json = api_reply_json(w->request, 200);
  api_json_str(&json, "service", id);
  api_json_bool(&json, "changed", c->changed);
  api_json_u64(&json, "revision", c->revision);
  api_json_u64(&json, "replicas", c->now_replicas);
  api_reply_end(w->request);
}

static void start(struct api_request *r, const struct change *change) {
  struct change *c = malloc(sizeof *c);
  if (!c) {
    api_fail_with(r, ERR_MEMORY, "no memory for a change");
    return;
  }
  *c = *change;
  api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build, .answer = answer, .free_ctx = free, .ctx = c});
}

void api_post_scale(struct api_request *r) {
  const char *key;
  json_t *value;
  struct spec_faults faults = {0};
  json_object_foreach(r->json, key, value) {
    if (strcmp(key, "replicas") != 0)
      spec_fault_add(&faults, "", 0, 0, pb_utf8_valid(key, strlen(key)) ? key : "?", "unknown key: did you mean `replicas`?");
  }
  json_t *replicas = json_object_get(r->json, "replicas");
  if (!json_is_integer(replicas))
    spec_fault_add(&faults, "", 0, 0, "replicas", replicas ? "must be a whole number" : "is missing");
  else if (json_integer_value(replicas) < 0 || json_integer_value(replicas) > REPLICAS_MAX)
    spec_fault_add(&faults, "", 0, 0, "replicas", "must be between 0 and %d", REPLICAS_MAX);
  if (faults.count)
    api_fail_faults(r, ERR_INVALID, &faults);
  else
    start(r, &(struct change){.verb = VERB_SCALE, .replicas = (uint32_t)json_integer_value(replicas)});
  spec_faults_free(&faults);
}

void api_post_stop(struct api_request *r) {
  start(r, &(struct change){.verb = VERB_STOP});
}
void api_post_start(struct api_request *r) {
  start(r, &(struct change){.verb = VERB_START});
}
void api_post_restart(struct api_request *r) {
  start(r, &(struct change){.verb = VERB_RESTART});
}
void api_post_redeploy(struct api_request *r) {
  start(r, &(struct change){.verb = VERB_REDEPLOY});
}

void api_post_rollback(struct api_request *r) {
  const char *to = api_request_query(r, "to");
  uint64_t number = 0;
  if (to) {
    char *end;
    number = strtoull(to, &end, 10);
    if (*to < '0' || *to > '9' || *end || !number) {
      api_fail_with(r, ERR_INVALID, "to: the number of a revision");
      return;
    }
  }
  start(r, &(struct change){.verb = VERB_ROLLBACK, .to = number});
}

void api_delete_service(struct api_request *r) {
  start(r, &(struct change){.verb = VERB_DELETE, .purge = api_request_flag(r, "purge")});
}

/* ---- many at once: a project, or everything ---- */

struct many {
  bool all; /* that the token sees; else those of the project */
  char project[64];
  bool purge;
  struct api_smap done; /* PROJECT/NAME, of the parts that are committed */
  struct api_smap part; /* of the one that is being built */
  unsigned tries;       /* when it was: one more now, and it was not committed */
};

#define PART_OPS 5000u /* a transaction holds 10,000 */

static bool is_meant(struct api_write *w, const Model__Service *s) {
  const struct many *m = w->ctx;
  return (m->all || strcmp(m->project, PB_STR(s->project)) == 0) && api_auth_sees(&w->api->cache, &w->request->who, PB_STR(s->project));
}

static bool is_purged(void *arg, const char *project, const char *name) {
  char id[130];
  snprintf(id, sizeof id, "%s/%s", project, name);
  const struct many *m = arg;
  size_t at = api_smap_lower(&m->part, id);
  return at < m->part.count && strcmp(m->part.list[at].key, id) == 0;
}

static int stop_one(struct api_write *w, const Model__Service *s, uint64_t mod, struct storec_txn *txn, struct err *err) {
  struct many *m = w->ctx;
  if (s->stopped && !m->purge)
    return 0;
  char id[130], key[KEY_MAX];
  snprintf(id, sizeof id, "%s/%s", s->project, s->name);
  if (!api_smap_slot(&m->part, id))
    return err_set(err, ERR_MEMORY, "no memory for a change");
  if (m->purge) {
    key_service(key, KEY_SERVICES, s->project, s->name);
    storec_if_mod_revision(txn, key, mod);
    api_upkeep_purge(&w->api->cache, s->project, s->name, txn);
    api_service_event(w->api, txn, w->request, "service.removed", s->project, s->name, "removed, its spec with it");
    return 0;
  }
  Model__Service *copy = edit(s, api_now_ms(w->api), err);
  if (!copy)
    return -1;
  PB_SET(copy, stopped, 1);
  put_service(txn, copy, mod);
  model__service__free_unpacked(copy, NULL);
  api_service_event(w->api, txn, w->request, "service.stopped", s->project, s->name, "stopped; its spec stays");
  return 0;
}

/* The same of jobs. */
static int build_jobs(struct api_write *w, struct storec_txn *txn, size_t *meant, struct err *err) {
  struct many *m = w->ctx;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&w->api->cache, API_JOBS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Job *job = API_MSG(&all[i], Model__Job);
    uint64_t mod = ((const struct api_object *)all[i].value)->mod;
    char id[130];
    if ((!m->all && strcmp(m->project, PB_STR(job->project)) != 0) || !api_auth_sees(&w->api->cache, &w->request->who, PB_STR(job->project)))
      continue;
    ++*meant;
    if (job->suspended && !m->purge)
      continue;
    if (storec_txn_ops(txn) >= PART_OPS)
      return 2;
    snprintf(id, sizeof id, "%s/%s", job->project, job->name);
    if (!api_smap_slot(&m->part, id))
      return err_set(err, ERR_MEMORY, "no memory for a change");
    if (m->purge) {
      api_job_purge(&w->api->cache, job->project, job->name, mod, txn);
      api_service_event(w->api, txn, w->request, "job.removed", job->project, job->name, "removed, its runs with it");
    } else if (api_job_suspend(job, mod, api_now_ms(w->api), txn, err) < 0) {
      return -1;
    } else {
      api_service_event(w->api, txn, w->request, "job.suspended", job->project, job->name, "what runs of it ends; no more ticks");
    }
  }
  return 0;
}

/* A purge may be more than one transaction: services go one after the other, those that are gone are remembered for the answer. */
static int begin_part(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct many *m = w->ctx;
  bool committed = m->tries == w->tries;
  m->tries = w->tries;
  for (size_t i = 0; committed && i < m->part.count; i++)
    if (!api_smap_slot(&m->done, m->part.list[i].key))
      return err_set(err, ERR_MEMORY, "no memory for a change");
  api_smap_clear(&m->part, NULL);
  if (m->purge)
    api_change_wanted(w->api, txn);
  return 0;
}

/* As api_write.build. */
static int build_services(struct api_write *w, struct storec_txn *txn, size_t *meant, struct err *err) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(&w->api->cache, API_SERVICES, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    if (!is_meant(w, s))
      continue;
    ++*meant;
    if (storec_txn_ops(txn) >= PART_OPS)
      return 2;
    if (stop_one(w, s, ((const struct api_object *)all[i].value)->mod, txn, err) < 0)
      return -1;
  }
  return 0;
}

static int build_many(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct many *m = w->ctx;
  size_t meant = 0;
  if (begin_part(w, txn, err) < 0)
    return -1;
  int rc = build_services(w, txn, &meant, err);
  if (rc == 0)
    rc = build_jobs(w, txn, &meant, err);
  if (rc < 0)
    return -1;
  if (!m->all && !meant && !m->done.count)
    return err_set(err, ERR_NOT_FOUND, "project not found: %s", m->project);
  if (m->purge)
    api_upkeep_files(&w->api->cache, is_purged, m, NULL, txn);
  return rc == 2 ? 2 : m->part.count || m->done.count ? 0 : 1;
}

static void answer_many(struct api_write *w) {
  const struct many *m = w->ctx;
  struct api_json json = api_reply_json(w->request, 200);
  api_json_array(&json, m->purge ? "removed" : "stopped");
  for (size_t i = 0; i < m->done.count; i++)
    api_json_str(&json, NULL, m->done.list[i].key);
  for (size_t i = 0; i < m->part.count; i++)
    api_json_str(&json, NULL, m->part.list[i].key);
  api_json_array_end(&json);
  api_reply_end(w->request);
}

static void free_many(void *ctx) {
  struct many *m = ctx;
  api_smap_clear(&m->done, NULL);
  api_smap_clear(&m->part, NULL);
  free(m);
}

/* Of all, or of the project that the request names. */
static void start_many(struct api_request *r, bool all, bool purge) {
  struct many *m = calloc(1, sizeof *m);
  if (!m) {
    api_fail_with(r, ERR_MEMORY, "no memory for a change");
    return;
  }
  m->all = all;
  api_text_copy(m->project, sizeof m->project, all ? "" : r->param);
  m->purge = purge;
  api_audit_target(r, m->project, "%s", all ? "everything" : m->project);
  api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build_many, .answer = answer_many, .free_ctx = free_many, .ctx = m});
}

void api_delete_project(struct api_request *r) {
  if (spec_name_valid(r->param)) /* what is cut, or made text, is another project's name, or none */
    start_many(r, false, api_request_flag(r, "purge"));
  else
    api_fail_with(r, ERR_NOT_FOUND, "project not found: %.64s", r->param);
}
void api_post_stop_all(struct api_request *r) {
  start_many(r, true, false);
}
