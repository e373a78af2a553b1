/* What has happened, entry by entry, each with its time: since when, of what, and followed as more comes. `events` and `audit` show such lists.
 * Threads: none. */
#ifndef ORCA_ORCACTL_ENTRIES_H
#define ORCA_ORCACTL_ENTRIES_H

#include <jansson.h>

#include "orcactl/ctl.h"

struct entries {
  const char *path;                                          /* of the API; borrowed, as all of this */
  const char *list;                                          /* the entries' key in its answer */
  const char *event;                                         /* an entry's name in its stream */
  const char *const *filters;                                /* options that the API takes by the same names; the last is NULL */
  void (*print)(const struct ctl *ctl, const json_t *entry); /* to stdout, for people */
};

/* The whole verb, with its --since, --tail, --follow and filters. Returns the exit code. */
int entries_show(struct ctl *ctl, const struct entries *of);
/* The entry's time on this machine's clock: "2026-11-21 12:00:00"; "-" without one. */
void entries_when(const json_t *entry, char out[32]);

#endif
