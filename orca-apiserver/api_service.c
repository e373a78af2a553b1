/* Reading services: status, one, its history, why. */
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/explain_view.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/headline.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/listeners.h"
#include "orca-apiserver/routes.h"
#include "orca-apiserver/status_view.h"

static void summary_json(const struct api *api, struct headline *h, struct api_json *json) {
  char text[3 * HEADLINE_TEXT];
  if (!api->in_touch)
    headline_add(h, 100, "the store is away, this is what was last known: %s", api->why_not);
  else if (api->disk_full)
    headline_add(h, 98, "the store's disk is full: changes are refused");
  headline_cluster(h, &api->cache, api->gateway ? gateway_routes(api->gateway) : NULL);
  headline_text(h, text, sizeof text);
  api_json_bool(json, "well", !h->wrong);
  api_json_str(json, "summary", text);
  api_json_array(json, "reasons");
  for (size_t i = 0; i < h->count; i++)
    api_json_str(json, NULL, h->reasons[i].text);
  api_json_array_end(json);
}

static const Model__Instance *without_node(const struct api_cache *cache, const Model__Job *job) {
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_INSTANCES, PB_STR(job->project), PB_STR(job->name), &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *one = API_MSG(&list[i], Model__Instance);
    if (!*PB_STR(one->node) && one->desired == MODEL__DESIRED__DESIRED_RUN && *PB_STR(one->reason))
      return one;
  }
  return NULL;
}

static void jobs_json(struct api_request *r, const char *project, struct headline *h, struct api_json *json) {
  const struct api_cache *cache = &r->api->cache;
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_JOBS, &count);
  api_json_array(json, "jobs");
  for (size_t i = 0; i < count; i++) {
    const Model__Job *job = API_MSG(&all[i], Model__Job);
    if (job->task || (project && strcmp(project, PB_STR(job->project)) != 0) || !api_auth_sees(cache, &r->who, PB_STR(job->project)))
      continue;
    api_json_object(json, NULL);
    api_job_json(cache, job, 1, false, json);
    api_json_object_end(json);
    headline_job(h, job, api_cache_job_state(cache, job->project, job->name), api_last_run(cache, job->project, job->name, true),
                 without_node(cache, job));
  }
  api_json_array_end(json);
}

void api_get_status(struct api_request *r) {
  const struct api_cache *cache = &r->api->cache;
  const char *project = api_request_query(r, "project");
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  bool limited = api_auth_is_limited(cache, &r->who);
  struct headline h = {.project = project};
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, "services");
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    if ((!project || strcmp(project, PB_STR(s->project)) == 0) && (!limited || api_auth_sees(cache, &r->who, PB_STR(s->project)))) {
      struct api_view v;
      api_view(cache, &r->api->figures, s, &v);
      api_view_status_json(&v, &json);
      headline_service(&h, &v);
    }
  }
  api_json_array_end(&json);
  jobs_json(r, project, &h, &json);
  api_json_array(&json, "problems");
  if (r->api->listeners)
    api_listeners_problems(r->api->listeners, &json);
  if (r->api->gateway)
    gateway_problems(r->api->gateway, &json);
  api_json_array_end(&json);
  summary_json(r->api, &h, &json);
  api_reply_end(r);
}

void api_get_service(struct api_request *r) {
  uint64_t mod;
  const Model__Service *s = api_find_service(r, &mod);
  if (!s)
    return;
  struct api_json json = api_reply_json(r, 200);
  api_view_detail_json(&r->api->cache, &r->api->figures, s, &json);
  api_reply_end(r);
}

void api_get_history(struct api_request *r) {
  struct api_subject of;
  struct err err;
  if (api_find_subject(r, &of, &err) == 0 && of.job)
    err_set(&err, ERR_NOT_FOUND, "%s/%s is a job: `orcactl job history %s/%s` shows its runs", of.project, of.name, of.project, of.name);
  const Model__Service *s = of.service;
  if (!s) {
    api_fail(r, &err);
    return;
  }
  struct api_json json = api_reply_json(r, 200);
  api_view_revisions_json(&r->api->cache, s, true, &json);
  api_reply_end(r);
}

void api_get_explain(struct api_request *r) {
  uint64_t mod;
  const Model__Service *s = api_find_service(r, &mod);
  if (!s)
    return;
  struct api_json json = api_reply_json(r, 200);
  api_explain_json(&r->api->cache, &r->api->figures, r->api->gateway ? gateway_routes(r->api->gateway) : NULL, s, &json);
  api_reply_end(r);
}
