/* Jobs in the scheduler's state, and the step of one: between the records of the store and job_core.h.
 * Ownership: a struct sched_job belongs to its sched_service. Threads: none. */
#ifndef ORCA_SCHEDULER_SCHED_JOBS_H
#define ORCA_SCHEDULER_SCHED_JOBS_H

#include "common/cron/cron.h"
#include "orca-scheduler/sched_run.h"
#include "orca-scheduler/sched_state.h"

struct zone;

struct sched_job {
  Model__Job *record; /* NULL: there is none (any more) */
  Model__JobState *state;
  Model__JobRun **runs; /* sorted by number */
  size_t run_count, run_size;
  const Model__Revision *rules_of; /* whose schedule has been read */
  struct cron cron;
  struct zone *zone;
  char error[160];               /* why it has no ticks; "" */
  int64_t wake_ms, wake_wall_ms; /* INT64_MAX */
};

/* Takes message (of /jobs, /job-state or /job-runs). */
int sched_jobs_put(struct sched_service *service, ProtobufCMessage *message);
void sched_jobs_delete(struct sched_service *service, const ProtobufCMessageDescriptor *what, uint64_t number);
void sched_jobs_free(struct sched_job *job);                                                 /* takes NULL */
void sched_jobs_revision_gone(struct sched_service *service, const Model__Revision *record); /* its address may come again */
bool sched_jobs_is_empty(const struct sched_service *service);

/* Whether the clocks have come to where it is to be asked again. */
bool sched_jobs_due(const struct sched_service *service, int64_t now, int64_t wall);
/* The next moment of `now` at which it is, a minute away at most when it waits for a tick: the clock on the wall may be set meanwhile. */
int64_t sched_jobs_next(const struct sched_service *service, int64_t now, int64_t wall);
int sched_jobs_step(struct run *run, struct sched_service *service);

#endif
