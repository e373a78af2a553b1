/* What a node's agent is to be told: all that is assigned to it, then what has changed.
 *
 * Changes are remembered as names only and read from the cache when there is room to send them, so that any number of changes to one instance while
 * an agent is slow is one entry in the next delta, and nothing grows beyond the number of its instances. Everything may be more than one message
 * holds: it goes in parts, and what changes behind the part that is next goes before it.
 * Threads: one owner; no I/O, no clock. */
#ifndef ORCA_APISERVER_DESIRED_H
#define ORCA_APISERVER_DESIRED_H

#include <stdbool.h>

#include "common/spec/ids.h"
#include "orca-apiserver/cache.h"
#include "proto/node.pb-c.h"

#define API_DESIRED_BYTES ((size_t)1 << 20) /* a message ends with the assignment that reaches it */

struct api_desired {
  char node[64];
  struct api_smap dirty; /* PROJECT/NAME.NUMBER of what may have changed */
  bool full;             /* nothing, or not all, sent yet: next comes everything, or the rest of it */
  uint32_t part;         /* of it, comes next */
  char after[KEY_MAX];   /* with part: the last instance of the one before */
  bool cluster;          /* policy or log rotation has changed */
};

void api_desired_init(struct api_desired *d, const char *node); /* begins with everything */
void api_desired_fini(struct api_desired *d);
/* An instance is, was or will be this node's, and something of it has changed. -1: out of memory (then everything is sent again). */
void api_desired_mark(struct api_desired *d, const char *instance);
bool api_desired_pending(const struct api_desired *d);
/* The next message; NULL when memory ends. It borrows from the cache: send it, then free it, before anything else. */
Node__DesiredState *api_desired_build(const struct api_desired *d, const struct api_cache *cache);
void api_desired_free(Node__DesiredState *state);
/* It was sent: what was in it is clean now. */
void api_desired_sent(struct api_desired *d, const Node__DesiredState *state);

#endif
