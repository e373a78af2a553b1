/* The infra directory as a deploy's body.
 * Threads: none. */
#ifndef ORCA_ORCACTL_INFRA_H
#define ORCA_ORCACTL_INFRA_H

#include "common/spec/spec.h"
#include "orcactl/ctl.h"

/* Reads it, prints every fault as file:line:column, keeps only the services named in ctl->argv (all when there are none) and resolves
 * ${env.X}. An exit code; CTL_OK: *ret and *body are the caller's to free. */
int infra_load(struct ctl *ctl, struct spec_set *ret, json_t **body);
/* Drops the services that no name of the list means, cluster.toml, and the files nobody mounts any more. -1: a name means nothing. */
int infra_keep(struct spec_set *set, const char *const *names, int count, struct err *err);
/* In the server's faults "services[2].port" becomes "services/shop/service.toml:12:3: shop/api: port", "jobs[0]…" alike; without the place when it is
 * not known (dir NULL). err (may be NULL) says the fault when there is one alone. */
void infra_name_faults(const char *dir, const struct spec_set *set, json_t *details, struct err *err);
/* The same after a deploy was refused, and the exit code. */
int infra_refused(struct ctl *ctl, const struct spec_set *set, struct err *err);

#endif
