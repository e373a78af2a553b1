/* Jobs in a deploy: what becomes of one that the set names, and its place in the transaction. Beside deploy_plan.h, and by the same rules.
 * Threads: pure functions; the plan owns its messages. */
#ifndef ORCA_APISERVER_DEPLOY_JOBS_H
#define ORCA_APISERVER_DEPLOY_JOBS_H

#include "common/spec/spec.h"
#include "common/storec/storec.h"
#include "orca-apiserver/deploy_plan.h"

/* Fills item for this spec (of a job). A new revision of one without a schedule asks for a run of it. -1: out of memory. */
int api_plan_job(const struct api_cache *cache, const Model__ServiceSpec *spec, const struct api_plan_options *options, struct api_plan_item *item);
/* The job with a new revision of this spec, which bumps its numbers; old: NULL for a new one. NULL when memory ends. */
Model__Job *api_job_new_revision(const struct api_cache *cache, const Model__Job *old, const Model__ServiceSpec *spec, const char *actor,
                                 int64_t now_ms, Model__Revision **ret_revision);
/* The writes of an item; its comparisons too: also that no service of that name has come meanwhile. */
void api_plan_put_job(const struct api_cache *cache, const struct api_plan_item *item, struct storec_txn *txn);
/* Puts the job as it is, stopped. */
int api_job_suspend(const Model__Job *job, uint64_t mod, int64_t now_ms, struct storec_txn *txn, struct err *err);
/* Deletes a job and its revisions; runs and state are the scheduler's to delete. */
void api_job_purge(const struct api_cache *cache, const char *project, const char *name, uint64_t mod, struct storec_txn *txn);

#endif
