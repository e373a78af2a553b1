/* Which of a service's endpoints gets a request, which failing one is left out for a while, and when a failed request may be tried again.
 *
 * Least outstanding requests first; among equals they take turns. Three connections in a row that could not be made, or that ended without an
 * answer, eject an endpoint for 1 s; each ejection in a row doubles that, to 60 s; one answer clears all. When every candidate is ejected, the
 * one whose time ends first is tried: an ejection never makes a service unreachable.
 * Threads: each worker has its own state. Times are monotonic milliseconds. */
#ifndef ORCA_PROXY_BALANCE_H
#define ORCA_PROXY_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BALANCE_FAILURES 3
#define BALANCE_EJECT_MS INT64_C(1000)
#define BALANCE_EJECT_MAX_MS INT64_C(60000)
#define BALANCE_ATTEMPTS 3 /* of one request */

struct balance_endpoint {
  uint32_t outstanding;
  uint8_t failures;  /* in a row */
  uint8_t ejections; /* in a row */
  int64_t ejected_until;
};

/* The index of the endpoint to use, -1 when all are in `tried`. get(arg, i) gives the state of the i-th, NULL: not that one. turn: any number that
 * changes. */
int balance_pick(struct balance_endpoint *(*get)(void *arg, size_t i), void *arg, size_t count, uint32_t turn, const int32_t *tried,
                 unsigned tried_count, int64_t now);
void balance_failed(struct balance_endpoint *e, int64_t now); /* true failures only: refused, timed out, closed without an answer */
void balance_answered(struct balance_endpoint *e);

enum balance_failure {
  FAILED_TO_CONNECT, /* nothing was sent */
  FAILED_UNANSWERED, /* sent, at least in part, and the connection ended without one byte of an answer */
  FAILED_ANSWER,     /* some of the answer came, or a time limit passed: the instance may have worked on it */
};
/* idempotent: RFC 9110 section 9.2.2. replayable: all that was sent is still at hand. */
bool balance_may_retry(enum balance_failure failure, unsigned attempts, bool idempotent, bool replayable, bool sent);

#endif
