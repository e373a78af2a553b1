/* A deploy's plan (the dry run's answer) for people.
 * Threads: none. */
#ifndef ORCA_ORCACTL_PLAN_VIEW_H
#define ORCA_ORCACTL_PLAN_VIEW_H

#include "orcactl/ctl.h"

void plan_print(struct ctl *ctl, const json_t *plan);

#endif
