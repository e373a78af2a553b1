/* Linearizable reads that wait for their index (§6.4): all that arrive before a round is begun share it, and are told when what its index
 * names has been applied.
 *
 * Threads: one owner. `done` is called once for each, and may ask to read anew. */
#ifndef ORCA_STORE_READS_H
#define ORCA_STORE_READS_H

#include <stdint.h>

#include "common/err.h"
#include "orca-store/raft.h"
#include "orca-store/store.h"

struct reader;
struct read_round;

struct reads {
  struct reader *fresh, **fresh_last; /* in no round yet */
  struct read_round *rounds, **rounds_last;
  uint64_t last_id;
};

void reads_init(struct reads *r);
/* -1 when memory ends: `done` is not called. */
int reads_add(struct reads *r, store_read_fn *done, void *arg);
/* The fresh ones become a round. Its id, for RAFT_EV_READ; 0 when memory has ended: they have been refused. */
uint64_t reads_begin_round(struct reads *r);
/* What the core says of a round. One that it refuses is over. */
void reads_heard(struct reads *r, const struct raft_read *read);
/* The confirmed rounds whose index is applied. */
void reads_answer(struct reads *r, uint64_t applied);
void reads_refuse_all(struct reads *r, const struct err *err);

#endif
