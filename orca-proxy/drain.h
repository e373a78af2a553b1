/* Endpoints between "in the route table" and "let go of": who still has requests there, and which version is acknowledged.
 *
 * A slot is an endpoint's small number. It lives from the first table it is in until, out of the table, every worker has switched
 * to a table without it and has no request left there; then the number may be given to another, with another incarnation.
 *
 *   in the table ──publish without it──▶ removed ──all workers switched, none busy──▶ free
 *        ▲───────────────publish with it────┘
 *
 * A version is acknowledged when all workers have switched to it. Threads: one; no I/O. */
#ifndef ORCA_PROXY_DRAIN_H
#define ORCA_PROXY_DRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRAIN_WORKERS_MAX 64
#define DRAIN_NO_SLOT UINT32_MAX

struct drain;
struct drain *drain_new(unsigned workers);
void drain_free(struct drain *d);

/* While the next table is built: the slot of an endpoint, an old one when it is known. DRAIN_NO_SLOT when memory ends. */
uint32_t drain_slot(struct drain *d, const char *instance, const char *address, uint32_t port, uint64_t *incarnation);
/* That table has been published: what was not asked for since the last publish is removed. */
void drain_publish(struct drain *d, uint64_t seq, uint64_t version);

/* A worker now uses table `seq`, and has requests at these removed slots. */
void drain_switched(struct drain *d, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count);
/* A worker's last request at a removed slot has ended. */
void drain_idle(struct drain *d, unsigned worker, uint32_t slot);

uint64_t drain_version(const struct drain *d); /* acknowledged; 0: none */
uint64_t drain_seq(const struct drain *d);     /* every worker has left the tables before this one */
/* Instances that are removed and not let go of: fills at most max borrowed names, returns how many there are. */
size_t drain_list(const struct drain *d, const char **ret, size_t max);

#endif
