/* Jobs and their runs, as the API shows them and follows them.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_JOBS_H
#define ORCA_APISERVER_JOBS_H

#include "orca-apiserver/api.h"

/* The job a request names: 404, or 409 with the projects that have one. The request is answered when it is NULL; _err: err says so instead. */
const Model__Job *api_find_job(struct api_request *request, uint64_t *mod);
const Model__Job *api_find_job_err(struct api_request *request, uint64_t *mod, struct err *err);

/* What a request names: a service, else a job. */
struct api_subject {
  const Model__Service *service; /* one of the two */
  const Model__Job *job;
  const char *project, *name;
};
int api_find_subject(struct api_request *request, struct api_subject *ret, struct err *err);

const char *api_run_state_text(Model__RunState state);
bool api_run_is_over(const Model__JobRun *run);
/* NULL when the scheduler has not come to it, or has forgotten it. */
const Model__JobRun *api_run_of_request(const struct api_cache *cache, const char *project, const char *name, uint64_t request);
const Model__JobRun *api_run_by_number(const struct api_cache *cache, const char *project, const char *name, uint64_t number);
/* The newest that was not skipped (and has ended). NULL: none yet, or none any more. */
const Model__JobRun *api_last_run(const struct api_cache *cache, const char *project, const char *name, bool over);

/* One job; with its newest runs when `runs` is more than 0, and their logs' last lines when `detail`. */
void api_job_json(const struct api_cache *cache, const Model__Job *job, size_t runs, bool detail, struct api_json *json);

/* Answers a request with one run: 202 with its number as soon as the scheduler has given it one (or without, after a while); with ?wait, as events:
 * "run" at each change, "done" at its end. By request, or by number when request is 0. */
void api_answer_run(struct api_request *request, const char *project, const char *name, uint64_t asked, uint64_t number);

#endif
