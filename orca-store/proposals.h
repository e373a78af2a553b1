/* What was proposed and has not been answered: those not yet in the log, those in it, and what they weigh until they are in the map.
 *
 * Ownership: a proposal's data is the queue's while it lies in one, then whose who took it off: proposals_drop() or a refusal frees it.
 * Threads: one owner. `done` may propose anew. */
#ifndef ORCA_STORE_PROPOSALS_H
#define ORCA_STORE_PROPOSALS_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-store/store.h"

struct proposal {
  uint8_t *data; /* a command of the log; freed with free() */
  size_t len, weight;
  uint64_t index, term; /* its place in the log; 0 before it has one */
  store_done_fn *done;
  void *arg;
};

/* In an array: taken from the front, put at the back. All zeros: empty. */
struct proposal_queue {
  struct proposal *list;
  size_t head, count, size;
};

struct proposals {
  struct proposal_queue fresh, waiting; /* not yet in the log; in it, by index */
  size_t bytes, weight;                 /* of those that add something */
};

/* -1 when memory ends: the queue is as it was. */
int proposal_push(struct proposal_queue *q, const struct proposal *p);
struct proposal *proposal_at(const struct proposal_queue *q, size_t i); /* from the front; NULL behind the back. Good until the next push or pop */
struct proposal proposal_pop(struct proposal_queue *q);                 /* not of an empty one */

/* It is no longer on its way to the map. */
void proposals_drop(struct proposals *ps, struct proposal *p);
void proposals_refuse(struct proposals *ps, struct proposal *p, const struct err *err);
void proposals_refuse_all(struct proposals *ps, struct proposal_queue *q, const struct err *err);
/* Those that wait for an entry behind `index`: it is not in the log after all. */
void proposals_refuse_behind(struct proposals *ps, uint64_t index, const struct err *err);
/* When both queues are empty. */
void proposals_fini(struct proposals *ps);

#endif
