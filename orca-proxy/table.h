/* The route table as the workers read it: immutable, built whole, one block of plain arrays and hashes.
 *
 * Lookup: the host exactly, then the longest path. Patterns: "/api/x" is that path only; "/api/" and a star is "/api" and
 * all below it; "/api" and a star is every path that begins so. An exact path goes before a prefix of the same length.
 * When two services claim the same host and pattern, the one whose PROJECT/NAME is first in byte order has it.
 * Cost: one probe of a hash a path segment, whatever the number of routes.
 * Ownership: the builder's caller frees it when no worker uses it any more. Threads: any may read. */
#ifndef ORCA_PROXY_TABLE_H
#define ORCA_PROXY_TABLE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "orca-proxy/cidr.h"
#include "orca-proxy/head.h"
#include "proto/node.pb-c.h"

union table_addr {
  struct sockaddr sa;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
};

struct table_endpoint {
  uint32_t slot;        /* small number that stays with the endpoint while it lives and drains */
  uint64_t incarnation; /* tells two endpoints apart that had the same slot one after the other */
  union table_addr addr;
  const char *instance; /* "shop/api.3" */
};

struct table_service {
  uint32_t id;      /* small number that stays with PROJECT/NAME for the process's life */
  const char *name; /* "shop/api" */
  bool strip_prefix;
  uint64_t timeout_ms, max_body;
  uint32_t first, count; /* endpoints */
};

struct table {
  uint64_t version; /* the apiserver's */
  uint64_t seq;     /* the process's own count of tables */
  const struct table_service *services;
  size_t service_count;
  const struct table_endpoint *endpoints;
  size_t endpoint_count;
  const struct table_service *api; /* where FRONT_API's clients are handed over, whatever host they name; NULL: nowhere */
  const struct cidr *trusted;
  unsigned trusted_count;
  struct table_index *index;
};

/* How the builder gets the numbers that outlive a table. */
struct table_ids {
  uint32_t (*service)(void *arg, const char *name);
  uint32_t (*slot)(void *arg, const char *instance, const char *address, uint32_t port, uint64_t *incarnation);
  void *arg;
};

#define TABLE_TIMEOUT_MS UINT64_C(60000)
#define TABLE_MAX_BODY (UINT64_C(100) << 20)

/* routes: sorted by PROJECT/NAME. One without a project is the API itself: it has no domains, and is reached by its own front only. What can't be
 * used (an address that is none, a domain that is none) is left out and counted in *skipped. NULL when memory ends. */
struct table *table_build(const Node__Route *const *routes, size_t count, char *const *trusted, size_t trusted_count, const struct table_ids *ids,
                          unsigned *skipped);
void table_free(struct table *t);

struct table_match {
  const struct table_service *service; /* NULL: no route */
  size_t prefix_len;                   /* what strip_prefix takes off */
  bool host_known;
};
struct table_match table_lookup(const struct table *t, const char *host, size_t host_len, struct span path);

/* By id, for a retry that comes after a switch of tables. NULL when it has gone. */
const struct table_service *table_service(const struct table *t, uint32_t id);

#endif
