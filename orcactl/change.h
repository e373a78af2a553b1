/* Verbs that change one service, or several one after the other, by one request each.
 * Threads: none. */
#ifndef ORCA_ORCACTL_CHANGE_H
#define ORCA_ORCACTL_CHANGE_H

#include "orcactl/ctl.h"

/* METHOD /services/NAME/TAIL?QUERY for every argument (the first `names`), then says what happened: "shop/api: SAID", or "… already". */
int change_services(struct ctl *ctl, int names, const char *method, const char *tail, const char *query, const json_t *body, const char *said);

#endif
