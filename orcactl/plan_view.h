/* A deploy's plan (the dry run's answer) for people.
 * Threads: none. */
#ifndef ORCA_ORCACTL_PLAN_VIEW_H
#define ORCA_ORCACTL_PLAN_VIEW_H

#include "orcactl/ctl.h"

/* What will wait, and for what: to stderr. */
void plan_warn(const json_t *plan);
void plan_print(struct ctl *ctl, const json_t *plan);

#endif
