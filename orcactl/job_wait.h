/* Waiting for a run of a job: `run` and `job run`.
 * Threads: none. */
#ifndef ORCA_ORCACTL_JOB_WAIT_H
#define ORCA_ORCACTL_JOB_WAIT_H

#include "orcactl/ctl.h"

/* Starts a run by a POST of body (may be NULL) to path and follows it to its end, over lost connections too; says how it goes on stderr and prints
 * the end of its log. Returns the exit code of the run's command; CTL_FAILED when there is none; else as everywhere. */
int job_wait(struct ctl *ctl, const char *path, const json_t *body);
/* Starts one and says its number. */
int job_start(struct ctl *ctl, const char *path, const json_t *body);

/* What its container has written last, cleaned where a terminal shows it. */
void job_print_log(const struct ctl *ctl, const char *log);

#endif
