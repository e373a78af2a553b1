/* The shell around the Raft core and the key-value state machine: it owns the log, the map, the snapshots and the clock, carries out
 * what the core says, and answers whoever proposed or wants to read.
 *
 *   proposals and reads of one loop round → one step of the core → one write to the log → one sync (on a thread; what arrives meanwhile joins
 *   the next) → the core says what is committed → one transaction of the map → answers, watches
 *
 * DIR: log/ (log.h), snapshots/ (snapshot.h), kv/ (kv.h), mark (mark.h).
 * Threads: everything is the loop's thread, but for one that syncs and one at a time that copies and hashes snapshots.
 * Errors: `fatal` is the last word: a failed sync, damage; the process must end without another answer. */
#ifndef ORCA_STORE_STORE_H
#define ORCA_STORE_STORE_H

#include "common/err.h"
#include "common/loop.h"
#include "orca-store/kv.h"
#include "orca-store/raft.h"

struct store;

struct store_ops {
  void (*serving)(void *arg);                      /* once: the first entry of a term of its own is applied: reads and writes are answered */
  void (*changed)(void *arg, bool compacted);      /* revisions up to kv_state()->revision are there to be told */
  void (*fatal)(void *arg, const struct err *why); /* must not return to the loop */
  void (*note)(void *arg, const char *what, const char *text); /* for the log: what was found and mended */
};

struct store_options {
  struct loop *loop;
  const char *dir;        /* STATE_DIR/store */
  const char *cluster_id; /* text */
  const char *node;
  const char *address; /* of this member, as others reach it */
  const struct store_ops *ops;
  void *arg;
  size_t map_size;           /* 0: the default */
  uint64_t snapshot_entries; /* applied entries between snapshots; 0: 100,000 */
  uint64_t snapshot_bytes;   /* or bytes of log; 0: 64 MiB */
};

/* ERR_CONFLICT: someone else has the folder (says who). ERR_CORRUPT: names what is damaged. ERR_UNSUPPORTED: a newer format, by name. */
struct store *store_open(const struct store_options *options, struct err *err);
/* A clean stop: syncs log and map, and leaves the mark that says so. What waits for an answer is refused with ERR_UNAVAILABLE. */
int store_close(struct store *s, struct err *err);

/* call: a packed Store__Call that is a command of the log. done: once, from the loop; result NULL with err, else result->err may hold a refusal. An
 * err of ERR_UNAVAILABLE leaves open whether it happened. */
typedef void store_done_fn(void *arg, const struct kv_result *result, const struct err *err);
/* weight: kv_txn_weight(); 0 for what adds nothing and is taken even when space is short. */
void store_propose(struct store *s, const uint8_t *call, size_t len, size_t weight, store_done_fn *done, void *arg);
/* done(err NULL): what is read from store_kv() in this callback is linearizable. */
typedef void store_read_fn(void *arg, const struct err *err);
void store_read(struct store *s, store_read_fn *done, void *arg);
struct kv *store_kv(struct store *s);
/* The map could not be read: counts as `fatal` when it is damage. */
void store_check(struct store *s, const struct err *err);

/* Leases, by the leader's clock; call it from within a store_read(). false: it has ended. */
bool store_keep_alive(struct store *s, uint64_t id, uint64_t *ret_ttl_ms);
int64_t store_lease_left_ms(struct store *s, uint64_t id);

/* A copy of the map into a file of its own (already unlinked), on a thread. done gets the descriptor, to close, or -1 with err. ERR_BUSY: one is
 * being made. */
typedef void store_copy_fn(void *arg, int fd, const struct err *err);
int store_copy(struct store *s, store_copy_fn *done, void *arg, struct err *err);

bool store_is_leader(const struct store *s);
void store_status(struct store *s, Store__StatusReply *ret); /* strings are borrowed */

#endif
