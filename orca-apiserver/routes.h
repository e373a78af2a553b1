/* The one table of the REST API: what is not in it does not exist. Dispatch, permissions and the OpenAPI document are made from it.
 * Threads: constant data, pure functions. */
#ifndef ORCA_APISERVER_ROUTES_H
#define ORCA_APISERVER_ROUTES_H

#include <stddef.h>

#include "orca-apiserver/request.h"

struct api_route {
  const char *method; /* GET also answers HEAD */
  const char *path;   /* at most one {name}, which matches one segment */
  enum api_permission permission;
  void (*handler)(struct api_request *request);
  const char *query; /* "dry_run:boolean wait:boolean", for the document */
  const char *takes; /* schema of the request's body, NULL: none */
  const char *gives; /* schema of the reply; "text" and "events" are not JSON */
  const char *summary;
};

extern const struct api_route api_routes[];
extern const size_t api_route_count;

enum api_match { API_MATCH, API_MATCH_NO_METHOD, API_MATCH_NONE };
/* param gets the {name}. allow, for NO_METHOD: "GET, DELETE". */
enum api_match api_route_find(const char *method, const char *path, const struct api_route **ret, char param[API_PARAM_MAX], char allow[48]);

/* handlers, by file: one route, one handler */
void api_get_health(struct api_request *request); /* api_cluster.c */
void api_get_cluster(struct api_request *request);
void api_get_nodes(struct api_request *request);
void api_get_openapi(struct api_request *request); /* openapi.c */
void api_get_metrics(struct api_request *request); /* metrics.c */
void api_post_deploy(struct api_request *request); /* api_deploy.c */
void api_get_status(struct api_request *request);  /* api_service.c */
void api_get_service(struct api_request *request);
void api_get_history(struct api_request *request);
void api_get_explain(struct api_request *request);
void api_post_scale(struct api_request *request); /* api_change.c */
void api_post_stop(struct api_request *request);
void api_post_start(struct api_request *request);
void api_post_restart(struct api_request *request);
void api_post_redeploy(struct api_request *request);
void api_post_rollback(struct api_request *request);
void api_delete_service(struct api_request *request);
void api_delete_project(struct api_request *request);
void api_post_stop_all(struct api_request *request);
void api_get_secrets(struct api_request *request); /* api_secrets.c */
void api_post_secrets(struct api_request *request);
void api_get_secret(struct api_request *request);
void api_put_secret(struct api_request *request);
void api_delete_secret(struct api_request *request);
void api_post_rotate_key(struct api_request *request);
void api_get_jobs(struct api_request *request); /* api_jobs.c */
void api_get_job(struct api_request *request);
void api_get_job_explain(struct api_request *request);
void api_get_tasks(struct api_request *request);
void api_post_job_run(struct api_request *request); /* api_job_change.c */
void api_post_job_stop(struct api_request *request);
void api_post_job_start(struct api_request *request);
void api_delete_job(struct api_request *request);
void api_post_task(struct api_request *request);
void api_get_events(struct api_request *request); /* api_events.c */
void api_get_top(struct api_request *request);    /* api_top.c */
void api_get_doctor(struct api_request *request); /* api_doctor.c */
void api_get_logs(struct api_request *request);   /* log_relay.c */
void api_get_tokens(struct api_request *request); /* api_tokens.c */
void api_get_token(struct api_request *request);
void api_post_token(struct api_request *request);
void api_delete_token(struct api_request *request);
void api_get_audit(struct api_request *request); /* api_audit.c */

void api_get_exec(struct api_request *request); /* api_exec.c */

#endif
