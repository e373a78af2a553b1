/* A deploy as it goes: a line per service. On a terminal the lines stay and change; elsewhere each change is a line.
 * Threads: none. */
#ifndef ORCA_ORCACTL_PROGRESS_H
#define ORCA_ORCACTL_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

#define PROGRESS_MAX 1024

struct progress_line {
  char service[136], state[32], phase[320];
  long long ready, replicas;
};
struct progress {
  bool live, color;
  unsigned width, height; /* of the terminal; with more services than lines it is not live */
  struct progress_line *lines;
  size_t count, drawn;
};
void progress_free(struct progress *p);
/* One event of the stream ("progress", "done"); what is to be printed is appended to out. */
void progress_event(struct progress *p, const char *event, const json_t *data, struct buf *out);

#endif
