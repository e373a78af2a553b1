/* Server-sent events (WHATWG HTML, "Interpreting an event stream"), fed in pieces.
 * Threads: none. */
#ifndef ORCA_ORCACTL_SSE_H
#define ORCA_ORCACTL_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

#define SSE_LINE_MAX ((size_t)16 << 20)

struct sse {
  struct buf line, data;
  char event[32], id[64]; /* id: the last one seen */
  bool after_cr;
};
void sse_init(struct sse *s);
void sse_free(struct sse *s);
/* Calls on_event for each event that has data; returns false when it does, or when a line is over SSE_LINE_MAX. */
bool sse_feed(struct sse *s, const char *data, size_t len, bool (*on_event)(void *arg, const char *event, const char *data), void *arg);

#endif
