/* The set of routes as the apiserver told it: full tables and changes go in, a sorted list comes out; also its form on disk.
 *
 * Threads: one. No I/O: reading and writing the file is the caller's. */
#ifndef ORCA_PROXY_ROUTES_H
#define ORCA_PROXY_ROUTES_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/node.pb-c.h"

#define ROUTES_FILE_MAX ((size_t)64 << 20)

struct routes;
struct routes *routes_new(void);
void routes_free(struct routes *r);

/* A full table replaces all; a change needs a table before it. On failure nothing has changed. */
int routes_apply(struct routes *r, const Node__RouteTable *table, struct err *err);

uint64_t routes_version(const struct routes *r);
size_t routes_count(const struct routes *r);
const Node__Route *const *routes_list(const struct routes *r); /* by PROJECT/NAME; borrowed until the next change */
size_t routes_trusted(const struct routes *r, char *const **ret);
uint16_t routes_http_port(const struct routes *r);                   /* 0: nothing was said */
size_t routes_api_listen(const struct routes *r, char *const **ret); /* [api] listen, where it is not loopback */
const char *routes_log_level(const struct routes *r);                /* "": nothing was said */

/* "orca routes 1\n", CRC32C and length of the packed full RouteTable (little-endian, 4 bytes each), the table. */
int routes_to_file(const struct routes *r, struct buf *file, struct err *err);
/* What routes_to_file() wrote, as a full table; the caller frees it with node__route_table__free_unpacked(). ERR_CORRUPT when it is damaged. */
Node__RouteTable *routes_from_file(const uint8_t *data, size_t len, struct err *err);

#endif
