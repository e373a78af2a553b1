/* When leases end: the leader's clockwork, in memory. Which leases there are is in the state machine; when one has run out
 * is the leader's to say, by proposing its revocation. A keep-alive is not in the log: a new leader gives every lease
 * its full time again, so that none ends early.
 * Pure: time is passed in (monotonic ns). Threads: one owner. */
#ifndef ORCA_STORE_LEASE_H
#define ORCA_STORE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lease_clock;

struct lease_clock *lease_clock_new(void);
void lease_clock_free(struct lease_clock *c);
void lease_clock_reset(struct lease_clock *c);
/* A granted lease, with its full time from now. -1 when memory ends. */
int lease_clock_add(struct lease_clock *c, uint64_t id, int64_t ttl, int64_t now);
void lease_clock_remove(struct lease_clock *c, uint64_t id);
/* false: there is none such, or it has run out and its end is on its way. */
bool lease_clock_keep_alive(struct lease_clock *c, uint64_t id, int64_t now);
/* What is left; -1 when there is none such. *ret_ttl may be NULL. */
int64_t lease_clock_left(const struct lease_clock *c, uint64_t id, int64_t now, int64_t *ret_ttl);
/* The next lease that has run out at `now`, told once: revoke it, or lease_clock_retry() it. 0: none. */
uint64_t lease_clock_expired(struct lease_clock *c, int64_t now);
/* Its revocation could not be proposed: tell it again at `at`. */
void lease_clock_retry(struct lease_clock *c, uint64_t id, int64_t at);
/* When to ask lease_clock_expired() again; INT64_MAX: never. May be earlier than a lease's end (keep-alives don't move it), never later. */
int64_t lease_clock_deadline(const struct lease_clock *c);
size_t lease_clock_count(const struct lease_clock *c);

#endif
