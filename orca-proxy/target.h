/* The request target (RFC 9112 section 3.2, RFC 3986 section 6.2.2): which host and which path a request means, in one spelling.
 *
 * What is routed is what is forwarded: percent-encodings of unreserved characters are decoded, the others written in upper
 * case, dot segments removed. Refused: %00, broken encodings, `..` above the root, raw backslashes and fragments, user
 * information, an absolute target that names another host than Host does. An encoded slash stays encoded and never separates.
 * Threads: pure functions. */
#ifndef ORCA_PROXY_TARGET_H
#define ORCA_PROXY_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orca-proxy/head.h"

#define TARGET_HOST_MAX 256

struct target {
  char host[TARGET_HOST_MAX]; /* for routing: lower case, without port and final dot; "" when the request has none */
  size_t host_len;
  struct span authority; /* what to forward as Host: as it was written */
  struct span path;      /* begins with '/', or is "*" */
  struct span query;     /* with its '?', or empty */
};

/* Reads h->target and h->host. room: at least h->target.len bytes for a path that has to be rewritten; spans point there or into the head.
 * false: *why says what is wrong (400). */
bool target_parse(struct target *t, const struct head *h, uint8_t *room, const char **why);

/* Host as written → host for routing; false when it can't be a host. Also for the domains of a route. */
bool target_host(struct span written, char out[TARGET_HOST_MAX], size_t *ret_len);

/* The path without the prefix of a stripped route: always begins with exactly one '/'. prefix_len: without the final "/" or "*". */
struct span target_strip(struct span path, size_t prefix_len);

#endif
