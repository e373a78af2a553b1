/* How jobs and their runs are shown, by several commands.
 * Threads: none. */
#ifndef ORCA_ORCACTL_JOB_VIEW_H
#define ORCA_ORCACTL_JOB_VIEW_H

#include <jansson.h>

#include "orcactl/ctl.h"
#include "orcactl/table.h"

enum table_color job_color(const char *state);
void job_columns(struct table *t);
void job_row(struct table *t, const json_t *job);
/* The table of a job's runs. */
void job_run_columns(struct table *t);
void job_run_row(struct table *t, const json_t *run);

/* `explain` and `inspect` of a job. */
void job_explain(struct ctl *ctl, const json_t *reply);
void job_inspect(struct ctl *ctl, const json_t *reply);

/* GET of what NAME is: of a service at its path + tail, else, when there is no such service, of a job. *job says which. */
int job_or_service(struct ctl *ctl, const char *name, const char *tail, json_t **ret, bool *job, struct err *err);

#endif
