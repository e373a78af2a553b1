/* What the cluster calls things: where the names come from that a verb's NAME can be, for completion and "did you mean".
 * Threads: none. */
#ifndef ORCA_ORCACTL_NAMES_H
#define ORCA_ORCACTL_NAMES_H

#include "common/err.h"
#include "orcactl/ctl.h"

struct names_source {
  const char *path;     /* of the API */
  const char *lists[3]; /* in its answer; each has objects with a name and perhaps a project, or strings. NULL ends them */
  const char *verb;     /* of orcactl: shows them */
};
const struct names_source *names_source(const struct ctl_command *c); /* NULL: its NAME is nothing of the cluster's */

/* Of the answer to source->path. project: "" where there is none. */
void names_each(const struct names_source *source, const json_t *reply, void (*take)(void *arg, const char *project, const char *name), void *arg);

/* After the complaint that something was not found: what may have been meant, and which verb lists what there is. */
void names_suggest(struct ctl *ctl, const struct err *err);

#endif
