#include "orca-apiserver/routes.h"

#include <stdio.h>
#include <string.h>

/* A route without a permission does not build: the permission's place cannot be left out, and 0 is refused here. */
#define PERMISSION(p)                                                                                                                                \
  ((enum api_permission)((p) + 0 * sizeof(struct {                                                                                                   \
                                 _Static_assert((p) != 0 && (p) < API_PERM_END, "a route needs a permission");                                       \
                                 int is_one;                                                                                                         \
                               })))
#define ROUTE(method, path, permission, handler, query, takes, gives, summary)                                                                       \
  {method, path, PERMISSION(permission), handler, query, takes, gives, summary},

#define ONE "project:string"

/* clang-format off */
const struct api_route api_routes[] = {
  ROUTE("GET", "/api/v1/health", API_PERM_OPEN, api_get_health, "", NULL, "Health", "200 when this apiserver reaches a store quorum, else 503")
  ROUTE("GET", "/metrics", API_PERM_METRICS, api_get_metrics, "", NULL, "text", "Prometheus text for the whole cluster")
  ROUTE("GET", "/api/v1/openapi.json", API_PERM_OPEN, api_get_openapi, "", NULL, "Document", "This document")
  ROUTE("POST", "/api/v1/deploy", API_PERM_DEPLOY, api_post_deploy, "dry_run:boolean wait:boolean prune:boolean", "Deploy", "Plan",
        "Reconcile services with what the infra directory says; with wait, progress as events")
  ROUTE("GET", "/api/v1/status", API_PERM_VIEW, api_get_status, ONE, NULL, "Status", "All services and jobs, and how they are")
  ROUTE("GET", "/api/v1/services/{name}", API_PERM_VIEW, api_get_service, ONE, NULL, "ServiceDetail", "One service: spec, revisions, instances, rollout")
  ROUTE("DELETE", "/api/v1/services/{name}", API_PERM_OPERATE, api_delete_service, ONE " purge:boolean", NULL, "Done", "Stop a service; with purge, forget its spec too")
  ROUTE("GET", "/api/v1/services/{name}/explain", API_PERM_VIEW, api_get_explain, ONE, NULL, "Explanation", "Why each instance is where it is, or why it is pending")
  ROUTE("GET", "/api/v1/services/{name}/history", API_PERM_VIEW, api_get_history, ONE, NULL, "History", "The revisions of a service, newest first")
  ROUTE("GET", "/api/v1/services/{name}/exec", API_PERM_OPERATE, api_get_exec, ONE " instance:string cmd:string env:string tty:boolean stdin:boolean rows:integer cols:integer user:string workdir:string", NULL, "WebSocket", "A command in a container of a service, or of a job that runs, over WebSocket (orca.exec.v1): docs/exec-protocol.md")
  ROUTE("GET", "/api/v1/services/{name}/logs", API_PERM_VIEW, api_get_logs, ONE " tail:integer since:string instance:string follow:boolean timestamps:boolean events:boolean resume:string", NULL, "text", "What its instances, or a job's runs, have written; with follow, as events")
  ROUTE("POST", "/api/v1/services/{name}/scale", API_PERM_OPERATE, api_post_scale, ONE, "Scale", "Done", "Set the number of replicas")
  ROUTE("POST", "/api/v1/services/{name}/stop", API_PERM_OPERATE, api_post_stop, ONE, NULL, "Done", "Keep the spec, run nothing")
  ROUTE("POST", "/api/v1/services/{name}/start", API_PERM_OPERATE, api_post_start, ONE, NULL, "Done", "Run a stopped service again")
  ROUTE("POST", "/api/v1/services/{name}/restart", API_PERM_OPERATE, api_post_restart, ONE, NULL, "Done", "Replace all instances, rolling")
  ROUTE("POST", "/api/v1/services/{name}/redeploy", API_PERM_OPERATE, api_post_redeploy, ONE, NULL, "Done", "Pull the image again and roll")
  ROUTE("POST", "/api/v1/services/{name}/rollback", API_PERM_DEPLOY, api_post_rollback, ONE " to:integer", NULL, "Done", "Go back to an earlier revision")
  ROUTE("DELETE", "/api/v1/projects/{name}", API_PERM_OPERATE, api_delete_project, "purge:boolean", NULL, "Stopped", "Stop all services of a project; with purge, forget them")
  ROUTE("POST", "/api/v1/stop", API_PERM_ADMIN, api_post_stop_all, "", NULL, "Stopped", "Stop everything")
  ROUTE("GET", "/api/v1/jobs", API_PERM_VIEW, api_get_jobs, ONE, NULL, "Jobs", "All jobs: schedule, next tick, last runs")
  ROUTE("GET", "/api/v1/jobs/{name}", API_PERM_VIEW, api_get_job, ONE " run:integer wait:boolean", NULL, "JobDetail", "One job and its runs, with exit codes and the ends of their logs; with run that one alone, with wait too its course as events")
  ROUTE("GET", "/api/v1/jobs/{name}/explain", API_PERM_VIEW, api_get_job_explain, ONE, NULL, "JobExplanation", "When it runs next, what runs and where, why what waits waits, how its last runs ended")
  ROUTE("DELETE", "/api/v1/jobs/{name}", API_PERM_OPERATE, api_delete_job, ONE, NULL, "JobDone", "Remove a job and its runs; what runs of it is stopped")
  ROUTE("POST", "/api/v1/jobs/{name}/run", API_PERM_OPERATE, api_post_job_run, ONE " wait:boolean", NULL, "Run", "Run it now: 202 with the run's number; with wait, its course as events until it has ended")
  ROUTE("POST", "/api/v1/jobs/{name}/stop", API_PERM_OPERATE, api_post_job_stop, ONE, NULL, "JobDone", "Stop what runs of it; no more ticks until it is started or deployed")
  ROUTE("POST", "/api/v1/jobs/{name}/start", API_PERM_OPERATE, api_post_job_start, ONE, NULL, "JobDone", "Let a stopped job run by its schedule again")
  ROUTE("GET", "/api/v1/tasks", API_PERM_VIEW, api_get_tasks, ONE, NULL, "Tasks", "The tasks and how they ended")
  ROUTE("POST", "/api/v1/tasks", API_PERM_OPERATE, api_post_task, ONE " wait:boolean", "Task", "Run", "Run one container to its end")
  ROUTE("GET", "/tasks", API_PERM_VIEW, api_get_tasks, ONE, NULL, "Tasks", "The same as /api/v1/tasks")
  ROUTE("POST", "/tasks", API_PERM_OPERATE, api_post_task, ONE " wait:boolean", "Task", "Run", "The same as /api/v1/tasks")
  ROUTE("GET", "/api/v1/events", API_PERM_VIEW, api_get_events, "since:string project:string service:string kind:string follow:boolean limit:integer", NULL, "Events", "The cluster's history, replayable")
  ROUTE("GET", "/api/v1/tokens", API_PERM_ADMIN, api_get_tokens, "", NULL, "Tokens", "Tokens: names, roles, projects, last use; never their text")
  ROUTE("POST", "/api/v1/tokens", API_PERM_ADMIN, api_post_token, "", "NewToken", "CreatedToken", "Make a token; its text is in this answer only")
  ROUTE("GET", "/api/v1/tokens/{name}", API_PERM_ADMIN, api_get_token, "", NULL, "OneToken", "One token")
  ROUTE("DELETE", "/api/v1/tokens/{name}", API_PERM_ADMIN, api_delete_token, "", NULL, "Removed", "Remove a token: it ends at once")
  ROUTE("GET", "/api/v1/audit", API_PERM_ADMIN, api_get_audit, "since:string limit:integer project:string actor:string follow:boolean", NULL, "Audit",
        "Who did what, from where, on what, and how it ended")
  ROUTE("GET", "/api/v1/top", API_PERM_VIEW, api_get_top, ONE, NULL, "Top", "What services and instances use now: cpu, memory, network, requests")
  ROUTE("GET", "/api/v1/doctor", API_PERM_ADMIN, api_get_doctor, "", NULL, "Doctor", "What is well and what is not, on each node and here")
  ROUTE("GET", "/api/v1/cluster/info", API_PERM_VIEW, api_get_cluster, "", NULL, "Cluster", "Masters, scheduler, store, figures")
  ROUTE("GET", "/api/v1/secrets", API_PERM_ADMIN, api_get_secrets, ONE, NULL, "Secrets", "The names of secrets, and who uses them")
  ROUTE("POST", "/api/v1/secrets", API_PERM_ADMIN, api_post_secrets, ONE, "SecretImport", "SecretChange", "Keep several values, all or none")
  ROUTE("POST", "/api/v1/secrets/rotate-key", API_PERM_ADMIN, api_post_rotate_key, "", NULL, "SecretRotation", "Seal all secrets again, under a new key")
  ROUTE("GET", "/api/v1/secrets/{name}", API_PERM_ADMIN, api_get_secret, ONE, NULL, "Secret", "One secret, without its value")
  ROUTE("PUT", "/api/v1/secrets/{name}", API_PERM_ADMIN, api_put_secret, ONE, "SecretValue", "SecretChange", "Keep a value")
  ROUTE("DELETE", "/api/v1/secrets/{name}", API_PERM_ADMIN, api_delete_secret, ONE, NULL, "SecretChange", "Forget a value")
  ROUTE("GET", "/api/v1/nodes", API_PERM_VIEW, api_get_nodes, "", NULL, "Nodes", "Nodes with capacity, use, labels, versions")
  ROUTE("GET", "/api/v1/cluster/nodes", API_PERM_VIEW, api_get_nodes, "", NULL, "Nodes", "The same as /api/v1/nodes")
};
/* clang-format on */
const size_t api_route_count = sizeof api_routes / sizeof api_routes[0];

static bool path_matches(const char *pattern, const char *path, char param[API_PARAM_MAX]) {
  param[0] = 0;
  while (*pattern && *path) {
    if (*pattern != '{') {
      if (*pattern++ != *path++)
        return false;
      continue;
    }
    size_t len = strcspn(path, "/");
    if (!len || len >= API_PARAM_MAX)
      return false;
    memcpy(param, path, len);
    param[len] = 0;
    path += len;
    pattern = strchr(pattern, '}') + 1;
  }
  return !*pattern && !*path;
}

enum api_match api_route_find(const char *method, const char *path, const struct api_route **ret, char param[API_PARAM_MAX], char allow[48]) {
  const char *want = strcmp(method, "HEAD") == 0 ? "GET" : method;
  char found[API_PARAM_MAX];
  bool known = false;
  allow[0] = 0;
  for (size_t i = 0; i < api_route_count; i++) {
    if (!path_matches(api_routes[i].path, path, found))
      continue;
    if (strcmp(api_routes[i].method, want) == 0) {
      memcpy(param, found, sizeof found);
      *ret = &api_routes[i];
      return API_MATCH;
    }
    size_t used = strlen(allow);
    snprintf(allow + used, 48 - used, "%s%s", known ? ", " : "", api_routes[i].method);
    known = true;
  }
  return known ? API_MATCH_NO_METHOD : API_MATCH_NONE;
}
