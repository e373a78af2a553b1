/* POST /deploy: check all, plan, write it in one transaction, and follow it to its end when asked to. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/deploy_jobs.h"
#include "orca-apiserver/deploy_plan.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/plan_steps.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/secrets.h"
#include "orca-apiserver/status_view.h"
#include "orca-apiserver/tokens.h"
#include "orca-apiserver/upkeep.h"

#define DEFAULT_TIMEOUT_MS 300000u
#define GRACE_MS 60000
#define ROUTED (2 * NS_PER_SEC)
#define WARNINGS_MAX 32u
#define PLAN_MAX ((size_t)32 << 20)

struct deploy {
  struct spec_set set;
  bool prune, wait;
  struct buf plan; /* the answer's fields, as JSON */
};

static void deploy_free(void *ctx) {
  struct deploy *d = ctx;
  spec_set_free(&d->set);
  buf_free(&d->plan);
  free(d);
}

static bool sees(void *arg, const char *project) {
  struct api_request *r = arg;
  return api_auth_sees(&r->api->cache, &r->who, project);
}

static bool may_change_cluster(const struct api_request *r) {
  return r->who.role == API_ROLE_ADMIN && !api_auth_is_limited(&r->api->cache, &r->who);
}

static int make_plan(struct api_request *r, const struct deploy *d, bool diffs, struct api_plan *plan, struct spec_faults *faults, struct err *err) {
  struct api_plan_options options = {.prune = d->prune, .diffs = diffs, .actor = r->who.name, .now_ms = api_now_ms(r->api), .sees = sees, .arg = r};
  if (api_plan_make(&r->api->cache, &d->set, &options, plan, faults, err) < 0)
    return -1;
  if (!plan->cluster_changes || !may_change_cluster(r)) /* what tokens there are is not for him to hear */
    return 0;
  if (api_tokens_declare(&r->api->cache, d->set.cluster, r->who.name, options.now_ms, NULL, err) == 0)
    return 0;
  api_plan_free(plan);
  return -1;
}

static void names(struct api_json *json, const char *key, const struct api_plan *plan, bool (*which)(enum api_change change)) {
  api_json_array(json, key);
  for (size_t i = 0; i < plan->count; i++) {
    char id[130];
    if (!which(plan->items[i].change))
      continue;
    snprintf(id, sizeof id, "%s/%s", plan->items[i].project, plan->items[i].name);
    api_json_str(json, NULL, id);
  }
  api_json_array_end(json);
}

static bool is_none(enum api_change c) {
  return c == API_CHANGE_NONE;
}
static bool is_removal(enum api_change c) {
  return c == API_CHANGE_REMOVE;
}
static bool is_deployed(enum api_change c) {
  return c != API_CHANGE_NONE && c != API_CHANGE_REMOVE;
}

static void plan_json(const struct api_plan *plan, bool dry_run, struct api_json *json) {
  names(json, "deployed", plan, is_deployed);
  names(json, "unchanged", plan, is_none);
  names(json, "removed", plan, is_removal);
  api_json_array(json, "errors");
  api_json_array_end(json);
  api_json_bool(json, "dry_run", dry_run);
  api_json_bool(json, "cluster_changed", plan->cluster_changes);
  api_json_array(json, "changes");
  for (size_t i = 0; i < plan->count; i++) {
    const struct api_plan_item *item = &plan->items[i];
    if (item->change == API_CHANGE_NONE)
      continue;
    char id[130];
    snprintf(id, sizeof id, "%s/%s", item->project, item->name);
    api_json_object(json, NULL);
    api_json_str(json, "service", id);
    api_json_bool(json, "job", item->is_job);
    api_json_str(json, "action", api_change_text(item->change));
    if (item->job) {
      api_json_u64(json, "revision", item->job->revision);
      api_json_bool(json, "runs", item->revision && !*PB_STR(item->revision->spec->job->schedule));
    }
    if (item->service) {
      api_json_u64(json, "revision", item->service->revision);
      api_json_u64(json, "replicas", item->service->replicas);
      api_json_bool(json, "stop_first", item->stop_first);
    }
    if (item->diff)
      api_json_str(json, "diff", item->diff);
    api_json_object_end(json);
  }
  api_json_array_end(json);
}

/* What will wait: said at once. */
static void warnings_json(const struct api_cache *cache, const struct spec_set *set, struct api_json *json) {
  char said[WARNINGS_MAX][200];
  size_t count = 0;
  api_json_array(json, "warnings");
  for (size_t i = 0; i < set->service_count; i++) {
    Model__SecretVersion **list = NULL;
    size_t n = 0;
    if (secrets_versions(cache, set->services[i], &list, &n) < 0)
      continue;
    for (size_t k = 0; k < n && count < WARNINGS_MAX; k++) {
      const char *project = PB_STR(set->services[i]->project), *name = PB_STR(list[k]->name);
      bool known = list[k]->version != 0;
      snprintf(said[count], sizeof said[count], "secret %.40s/%.40s is missing: orcactl secrets set %.40s --project %.40s", project, name, name,
               project);
      for (size_t other = 0; other < count && !known; other++)
        known = strcmp(said[other], said[count]) == 0;
      if (!known)
        api_json_str(json, NULL, said[count++]);
    }
    secrets_versions_free(list, n);
  }
  api_json_array_end(json);
}

/* ---- the transaction ---- */

static void put_job(struct api_write *w, const struct api_plan_item *item, struct storec_txn *txn) {
  api_plan_put_job(&w->api->cache, item, txn);
  if (item->change == API_CHANGE_REMOVE)
    api_service_event(w->api, txn, w->request, "job.removed", item->project, item->name, "no longer in the infra directory");
  else if (!item->revision)
    api_service_event(w->api, txn, w->request, "job.resumed", item->project, item->name, "runs by its schedule again");
  else
    api_service_event(w->api, txn, w->request, "job.deployed", item->project, item->name, "revision %" PRIu64 ": %s", item->job->revision,
                      PB_STR(item->revision->spec->image));
}

static void put_item(struct api_write *w, const struct api_plan_item *item, struct storec_txn *txn) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, item->project, item->name);
  if (item->change == API_CHANGE_NONE)
    return;
  if (item->is_job) {
    put_job(w, item, txn);
    return;
  }
  storec_if_mod_revision(txn, key, item->service_mod);
  if (item->change == API_CHANGE_CREATE && !item->takes_over) { /* nor has a job come of that name */
    char job_key[KEY_MAX];
    key_service(job_key, KEY_JOBS, item->project, item->name);
    storec_if_mod_revision(txn, job_key, 0);
  }
  if (item->change == API_CHANGE_REMOVE) {
    api_upkeep_purge(&w->api->cache, item->project, item->name, txn);
    api_service_event(w->api, txn, w->request, "service.removed", item->project, item->name, "no longer in the infra directory");
    return;
  }
  storec_put_message(txn, key, &item->service->base, 0);
  if (item->revision) {
    key_numbered(key, KEY_REVISIONS, item->project, item->name, item->revision->number);
    storec_put_message(txn, key, &item->revision->base, 0);
    const Model__Service *old = api_cache_service(&w->api->cache, item->project, item->name, NULL);
    if (old)
      api_upkeep_revisions(&w->api->cache, old, txn);
  }
  switch (item->change) {
  case API_CHANGE_SCALE:
    api_service_event(w->api, txn, w->request, "service.scaled", item->project, item->name, "to %u replicas", item->service->replicas);
    break;
  case API_CHANGE_START:
    api_service_event(w->api, txn, w->request, "service.started", item->project, item->name, "started again");
    break;
  case API_CHANGE_RETRY:
    api_service_event(w->api, txn, w->request, "service.deployed", item->project, item->name, "revision %" PRIu64 " is tried again",
                      item->service->revision);
    break;
  default:
    assert(item->revision);
    api_service_event(w->api, txn, w->request, "service.deployed", item->project, item->name, "revision %" PRIu64 ": %s", item->service->revision,
                      PB_STR(item->revision->spec->image));
  }
}

static bool is_sent(const struct spec_set *set, const char *sha256) {
  for (size_t i = 0; i < set->file_count; i++)
    if (strcmp(set->files[i].sha256, sha256) == 0)
      return true;
  return false;
}

/* Those that are named and were not sent are there, and still are when this commits. */
static void expect_files(const struct api_cache *cache, const Model__ServiceSpec *spec, const struct spec_set *set, struct storec_txn *txn) {
  for (size_t m = 0; m < spec->n_mounts; m++)
    for (size_t f = 0; f < spec->mounts[m]->n_files; f++) {
      const char *sha256 = PB_STR(spec->mounts[m]->files[f]->sha256);
      char key[KEY_MAX];
      key_named(key, KEY_FILES, sha256);
      const struct api_object *there = api_cache_object(cache, API_FILES, key);
      if (there && !is_sent(set, sha256))
        storec_if_mod_revision(txn, key, there->mod);
    }
}

/* New contents; and that those which are there already still are when this commits. */
static size_t put_files(struct api_write *w, const struct spec_set *set, struct storec_txn *txn) {
  size_t written = 0;
  for (size_t i = 0; i < set->file_count; i++) {
    char key[KEY_MAX];
    key_named(key, KEY_FILES, set->files[i].sha256);
    const struct api_object *there = api_cache_object(&w->api->cache, API_FILES, key);
    storec_if_mod_revision(txn, key, there ? there->mod : 0);
    if (there)
      continue;
    Model__File file = MODEL__FILE__INIT;
    file.has_content = 1;
    file.content = (ProtobufCBinaryData){.len = set->files[i].len, .data = set->files[i].content};
    storec_put_message(txn, key, &file.base, 0);
    written++;
  }
  return written;
}

#define STAGE_BYTES ((size_t)2 << 20) /* of files in one transaction, which holds 4 MiB and 1,000 operations in all */
#define STAGE_FILES 300u

/* Files go ahead of what names them when they are too many for one transaction. They are named by what they are: there, they harm nobody. */
static bool stage_files(struct api_write *w, const struct spec_set *set, struct storec_txn *txn) {
  size_t bytes = 0, missing = 0;
  struct spec_set part = {.files = set->files};
  for (size_t i = 0; i < set->file_count; i++) {
    char key[KEY_MAX];
    key_named(key, KEY_FILES, set->files[i].sha256);
    if (api_cache_object(&w->api->cache, API_FILES, key))
      continue;
    if (++missing > STAGE_FILES || (bytes += set->files[i].len) > STAGE_BYTES) {
      part.file_count = i;
      put_files(w, &part, txn);
      return true;
    }
  }
  return false;
}

static int put_cluster(struct api_write *w, const struct api_plan *plan, const Model__ClusterSpec *cluster, struct storec_txn *txn, struct err *err) {
  Model__ClusterSpec stored = api_cluster_without_tokens(cluster);
  storec_if_mod_revision(txn, KEY_CLUSTER, plan->cluster_mod);
  storec_put_message(txn, KEY_CLUSTER, &stored.base, 0);
  api_service_event(w->api, txn, w->request, "cluster.changed", "", "", "cluster.toml has changed");
  size_t count;
  const struct api_smap_entry *nodes = api_cache_all(&w->api->cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++) {
    Model__Node *changed = api_upkeep_node(API_MSG(&nodes[i], Model__Node), cluster);
    if (!changed)
      continue;
    storec_if_mod_revision(txn, nodes[i].key, ((const struct api_object *)nodes[i].value)->mod);
    storec_put_message(txn, nodes[i].key, &changed->base, 0);
    model__node__free_unpacked(changed, NULL);
  }
  return api_tokens_declare(&w->api->cache, cluster, w->request->who.name, api_now_ms(w->api), txn, err);
}

static bool is_removed(void *arg, const char *project, const char *name) {
  const struct api_plan *plan = arg;
  for (size_t i = 0; i < plan->count; i++)
    if (plan->items[i].change == API_CHANGE_REMOVE && strcmp(plan->items[i].project, project) == 0 && strcmp(plan->items[i].name, name) == 0)
      return true;
  return false;
}

static int build(struct api_write *w, struct storec_txn *txn, struct err *err) {
  struct deploy *d = w->ctx;
  struct api_plan plan;
  if (make_plan(w->request, d, false, &plan, &w->faults, err) < 0)
    return -1;
  if (plan.cluster_changes && !may_change_cluster(w->request)) {
    api_plan_free(&plan);
    return err_set(err, ERR_DENIED, "cluster.toml has changed: that takes an admin's token for all projects");
  }
  size_t changes = plan.cluster_changes, removals = 0;
  for (size_t i = 0; i < plan.count; i++) {
    changes += plan.items[i].change != API_CHANGE_NONE;
    removals += plan.items[i].change == API_CHANGE_REMOVE;
  }
  buf_reset(&d->plan);
  struct api_json json = {.out = &d->plan};
  plan_json(&plan, false, &json);
  warnings_json(&w->api->cache, &d->set, &json);
  if (changes && stage_files(w, &d->set, txn)) {
    api_plan_free(&plan);
    return 2;
  }
  if (changes) {
    api_change_wanted(w->api, txn);
    for (size_t i = 0; i < plan.count; i++)
      put_item(w, &plan.items[i], txn);
    if (plan.cluster_changes && put_cluster(w, &plan, d->set.cluster, txn, err) < 0) {
      api_plan_free(&plan);
      return -1;
    }
    put_files(w, &d->set, txn);
    for (size_t i = 0; i < d->set.service_count; i++)
      expect_files(&w->api->cache, d->set.services[i], &d->set, txn);
    if (removals)
      api_upkeep_files(&w->api->cache, is_removed, &plan, &d->set, txn);
  }
  api_plan_free(&plan);
  if (buf_failed(&d->plan))
    return err_set(err, ERR_MEMORY, "no memory for a plan");
  return changes ? 0 : 1;
}

/* ---- following it ---- */

struct followed {
  char project[64], name[64];
  const char *status; /* as last told: static text */
  char phase[128], error[160];
  uint32_t ready, replicas;
  bool held; /* it waits for people: a secret, or for one that does */
};
struct follow {
  struct api *api;
  struct buf plan;
  bool plan_sent;
  struct followed *list;
  size_t count;
  int64_t until;     /* of the loop's clock, as the next */
  int64_t routed_by; /* proxies are waited for so long; 0: not yet */
};

static void follow_free(void *arg) {
  struct follow *f = arg;
  buf_free(&f->plan);
  free(f->list);
  free(f);
}

static void event(struct buf *out, const char *name) {
  buf_printf(out, "event: %s\ndata: ", name);
}

static void progress(struct followed *one, const struct api_view *v, struct buf *out) {
  const char *phase = v->rollout ? PB_STR(v->rollout->phase) : "";
  char short_phase[sizeof one->phase], error[sizeof one->error];
  api_text_copy(short_phase, sizeof short_phase, phase);
  api_text_copy(error, sizeof error, v->last_error);
  if (one->status == v->status && one->ready == v->target_ready && one->replicas == v->replicas && strcmp(one->phase, short_phase) == 0 &&
      strcmp(one->error, error) == 0)
    return;
  one->status = v->status;
  one->ready = v->target_ready;
  one->replicas = v->replicas;
  memcpy(one->phase, short_phase, sizeof one->phase);
  memcpy(one->error, error, sizeof one->error);
  char id[130];
  snprintf(id, sizeof id, "%s/%s", one->project, one->name);
  event(out, "progress");
  struct api_json json = {.out = out};
  api_json_object(&json, NULL);
  api_json_str(&json, "service", id);
  api_json_str(&json, "state", v->status);
  api_json_str(&json, "phase", short_phase);
  api_json_u64(&json, "ready", v->target_ready);
  api_json_u64(&json, "replicas", v->replicas);
  api_json_str(&json, "last_error", v->last_error);
  api_json_object_end(&json);
  buf_add_str(out, "\n\n");
}

static bool look(struct follow *f, struct followed *one, struct api_view *v, bool *ok) {
  const Model__Service *s = api_cache_service(&f->api->cache, one->project, one->name, NULL);
  if (!s) { /* removed meanwhile */
    *ok = false;
    return true;
  }
  api_view(&f->api->cache, &f->api->figures, s, v);
  return api_view_settled(v, ok);
}

static bool depends_on_held(const struct follow *f, const struct followed *one, const Model__ServiceSpec *spec) {
  for (size_t k = 0; spec && k < spec->n_depends_on; k++)
    for (size_t i = 0; i < f->count; i++) {
      char id[130];
      snprintf(id, sizeof id, "%s/%s", f->list[i].project, f->list[i].name);
      const char *on = spec->depends_on[k];
      if (f->list[i].held &&
          (strchr(on, '/') ? strcmp(on, id) == 0 : strcmp(f->list[i].project, one->project) == 0 && strcmp(on, f->list[i].name) == 0))
        return true;
    }
  return false;
}

/* Whether nothing else goes on than waiting for secrets, which may take days. */
static bool all_held(struct follow *f) {
  size_t left = 0;
  for (size_t i = 0; i < f->count; i++)
    f->list[i].held = false;
  for (bool more = true; more;) {
    more = false;
    left = 0;
    for (size_t i = 0; i < f->count; i++) {
      struct followed *one = &f->list[i];
      struct api_view v = {0};
      bool ok, settled = look(f, one, &v, &ok);
      if (settled || one->held)
        continue;
      one->held = v.waits_for_secret || (strcmp(v.status, "pending") == 0 && depends_on_held(f, one, v.spec));
      more |= one->held;
      left += !one->held;
    }
  }
  return !left;
}

static void done(struct follow *f, bool timed_out, struct buf *out) {
  bool all = true;
  for (size_t i = 0; i < f->count; i++) {
    struct api_view v;
    bool ok;
    all = look(f, &f->list[i], &v, &ok) && ok && all;
  }
  event(out, "done");
  struct api_json json = {.out = out};
  api_json_object(&json, NULL);
  api_json_bool(&json, "ok", all);
  api_json_array(&json, "services");
  for (size_t i = 0; i < f->count; i++) {
    struct api_view v = {.status = "removed", .last_error = "it was removed meanwhile"};
    bool ok, settled = look(f, &f->list[i], &v, &ok);
    char id[130];
    snprintf(id, sizeof id, "%s/%s", f->list[i].project, f->list[i].name);
    api_json_object(&json, NULL);
    api_json_str(&json, "service", id);
    api_json_str(&json, "state", settled || !timed_out ? v.status : "timeout");
    api_json_str(&json, "reason", v.last_error);
    api_json_object_end(&json);
  }
  api_json_array_end(&json);
  api_json_object_end(&json);
  buf_add_str(out, "\n\n");
}

/* Who deploys and then asks the proxies gets what was deployed. One that hangs is not waited for. */
static bool is_routed(struct follow *f) {
  struct api *api = f->api;
  bool routed = true;
  for (size_t i = 0; api->gateway && i < f->count && routed; i++)
    routed = gateway_is_routed(api->gateway, f->list[i].project, f->list[i].name);
  if (!routed && !f->routed_by) {
    f->routed_by = loop_now(api->loop) + ROUTED;
    api_when(api, UINT64_MAX, ROUTED, api_wake_streams, api);
  }
  return routed || loop_now(api->loop) >= f->routed_by;
}

static enum api_piece fill(void *arg, struct buf *out) {
  struct follow *f = arg;
  if (!f->plan_sent) {
    f->plan_sent = true;
    event(out, "plan");
    buf_add_byte(out, '{');
    buf_add(out, f->plan.data, f->plan.len);
    buf_add_str(out, "}\n\n");
    buf_free(&f->plan);
  }
  bool settled = true;
  for (size_t i = 0; i < f->count; i++) {
    struct api_view v = {0};
    bool ok;
    if (!api_cache_service(&f->api->cache, f->list[i].project, f->list[i].name, NULL))
      continue;
    settled = look(f, &f->list[i], &v, &ok) && settled;
    progress(&f->list[i], &v, out);
  }
  bool timed_out = !settled && loop_now(f->api->loop) > f->until;
  if (!settled && !timed_out && !all_held(f))
    return out->len ? API_PIECE_SOME : API_PIECE_NONE;
  if (settled && !is_routed(f))
    return out->len ? API_PIECE_SOME : API_PIECE_NONE;
  done(f, timed_out, out);
  return API_PIECE_LAST;
}

static const struct api_stream_ops follow_ops = {.fill = fill, .free = follow_free};

static void follow(struct api_request *r, struct deploy *d) {
  struct follow *f = calloc(1, sizeof *f);
  struct followed *list = calloc(d->set.service_count + 1, sizeof *list);
  if (!f || !list) {
    free(f);
    free(list);
    api_fail_with(r, ERR_MEMORY, "no memory to follow the deploy");
    return;
  }
  *f = (struct follow){.api = r->api, .plan = d->plan, .list = list};
  d->plan = BUF_INIT(PLAN_MAX);
  uint64_t longest = DEFAULT_TIMEOUT_MS;
  for (size_t i = 0; i < d->set.service_count; i++) {
    const Model__ServiceSpec *spec = d->set.services[i];
    if (spec->job) /* it may run for days: `job run` waits for one */
      continue;
    struct followed *one = &f->list[f->count++];
    snprintf(one->project, sizeof one->project, "%s", spec->project);
    snprintf(one->name, sizeof one->name, "%s", spec->name);
    if (spec->deploy && PB_GET(spec->deploy, timeout_ms, 0) > longest)
      longest = spec->deploy->timeout_ms;
  }
  /* The scheduler ends a rollout; this is for the case that there is none. Twice: there, and back. */
  f->until = loop_now(r->api->loop) + ((int64_t)(longest * 2) + GRACE_MS) * NS_PER_MS;
  api_reply_stream(r, &follow_ops, f);
}

/* ---- the request ---- */

static void answer(struct api_write *w) {
  struct deploy *d = w->ctx;
  if (d->wait) {
    follow(w->request, d);
    return;
  }
  api_reply_json(w->request, 200);
  buf_add(&w->request->out, d->plan.data, d->plan.len);
  api_reply_end(w->request);
}

static void answer_plan(struct api_request *r, const struct deploy *d, const struct api_plan *plan) {
  struct api_json json = api_reply_json(r, 200);
  plan_json(plan, true, &json);
  warnings_json(&r->api->cache, &d->set, &json);
  api_plan_steps(r, json, plan);
}

/* "shop/api", "3 services of shop", "cluster.toml and 3 services". */
static void say_target(struct api_request *r, const struct spec_set *set) {
  const char *project = set->service_count ? set->services[0]->project : "";
  for (size_t i = 1; i < set->service_count; i++)
    if (strcmp(set->services[i]->project, project) != 0)
      project = "";
  if (set->service_count == 1)
    api_audit_target(r, project, "%s%s/%s", set->cluster ? "cluster.toml and " : "", project, set->services[0]->name);
  else
    api_audit_target(r, set->cluster ? "" : project, "%s%zu services%s%s", set->cluster ? "cluster.toml and " : "", set->service_count,
                     *project ? " of " : "", project);
}

static bool may_touch(struct api_request *r, const struct spec_set *set) {
  say_target(r, set);
  for (size_t i = 0; i < set->service_count; i++)
    if (!api_auth_sees(&r->api->cache, &r->who, set->services[i]->project)) {
      api_fail_with(r, ERR_DENIED, "token %s is not for project %s", r->who.name, set->services[i]->project);
      return false;
    }
  return true;
}

void api_post_deploy(struct api_request *r) {
  struct deploy *d = calloc(1, sizeof *d);
  if (!d) {
    api_fail_with(r, ERR_MEMORY, "no memory for a deploy");
    return;
  }
  d->plan = BUF_INIT(PLAN_MAX);
  d->prune = api_request_flag(r, "prune");
  d->wait = api_request_flag(r, "wait");
  if (api_request_flag(r, "dry_run"))
    api_audit_nothing(r);
  struct spec_faults faults = {0};
  struct api_plan plan = {0};
  struct err err;
  if (spec_set_from_json(r->json, &d->set, &faults) < 0) {
    if (faults.count)
      api_fail_faults(r, ERR_INVALID, &faults);
    else
      api_fail_with(r, ERR_INVALID, "body: not a deploy");
  } else if (!may_touch(r, &d->set)) {
    /* answered */
  } else if (make_plan(r, d, api_request_flag(r, "dry_run"), &plan, &faults, &err) < 0) {
    if (faults.count)
      api_fail_faults(r, ERR_UNPROCESSABLE, &faults);
    else
      api_fail(r, &err);
  } else if (api_request_flag(r, "dry_run")) {
    answer_plan(r, d, &plan);
  } else {
    api_write_start(&(struct api_write){.api = r->api, .request = r, .build = build, .answer = answer, .free_ctx = deploy_free, .ctx = d});
    d = NULL;
  }
  api_plan_free(&plan);
  spec_faults_free(&faults);
  if (d)
    deploy_free(d);
}
