/* The replicated state machine: a revisioned key-value space on LMDB, with etcd's semantics.
 *
 * It is fed with log entries in order, in batches (one LMDB transaction each), and is a function of them: the same entries make the same
 * state, the same revisions and the same answers everywhere. It reads no clock: what needs time is in the command.
 * The map is opened without sync and is disposable: durable is the log. So `applied_index` lives in the
 * transaction of the data it speaks of, each record carries a CRC32C, and whoever gets ERR_CORRUPT throws the folder away
 * (kv_discard) and builds it again from a snapshot and the log.
 * Full disk and full map are ERR_NO_SPACE: the batch did not happen, reads go on, the same batch may be tried again.
 *
 * Revisions: each applied transaction that changed something gets the next one. History reaches back to compact_revision: a range at that revision
 * or later can still be read, and a watch may start there.
 * Threads: one owner; kv_copy() alone may run on another thread beside it. */
#ifndef ORCA_STORE_KV_H
#define ORCA_STORE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/store.pb-c.h"

#define KV_FORMAT 1u                      /* of the records; a higher one is refused by name */
#define KV_MAX_KEY ((size_t)480)          /* bytes: LMDB's 511 less what our tables put in front */
#define KV_MAX_VALUE ((size_t)1536 << 10) /* bytes */
#define KV_MAX_OPS ((size_t)10000)        /* compares and operations of one branch of a txn, each */
#define KV_MAX_TXN ((size_t)4 << 20)      /* bytes of one txn, packed */
#define KV_MAX_EVENTS ((size_t)10000)     /* changes in one revision: it is told to watchers in one message */
#define KV_MAX_CHANGES ((size_t)64 << 20) /* bytes that one revision may put into history */
#define KV_MAX_REPLY ((size_t)4 << 20)    /* bytes of one range's answer: beyond it `more` is set */
#define KV_MAX_LEASES ((size_t)100000)
#define KV_MAX_TTL_MS (UINT64_C(24) * 3600 * 1000)
#define KV_DEDUPE_COUNT 65536u                  /* txn ids remembered, */
#define KV_DEDUPE_BYTES ((uint64_t)32 << 20)    /* the bytes of their answers, */
#define KV_DEDUPE_MS (UINT64_C(10) * 60 * 1000) /* and how long, by the log's clock */

struct kv;

struct kv_state {
  uint64_t applied_index, applied_term;
  uint64_t revision, compact_revision;
  uint64_t keys, leases;
  uint64_t history_first; /* revisions from here on are still in the history table; history_bytes speaks of them */
  uint64_t history_bytes;
  uint64_t time_ms; /* the log's clock: the largest time of any command applied */
};

struct kv_options {
  size_t map_size; /* bytes reserved; 0: 16 GiB. More is never taken */
  size_t slack;    /* bytes of it kept for deletes and compaction when all else is refused; 0: map_size / 64 */
};

/* Opens or makes DIR/data.mdb. ERR_CORRUPT: discard and rebuild. ERR_UNSUPPORTED: from a newer version. */
struct kv *kv_open(const char *dir, const struct kv_options *options, struct err *err);
void kv_close(struct kv *kv);
int kv_discard(const char *dir, struct err *err);                   /* removes the map's files; no kv may be open on them */
int kv_sync(struct kv *kv, struct err *err);                        /* before a mark of a clean stop */
const struct kv_state *kv_state(const struct kv *kv);               /* as of the last commit */
void kv_sizes(const struct kv *kv, uint64_t *size, uint64_t *used); /* bytes of the file in use by the map, and of those not free for reuse */
/* ERR_NO_SPACE when what adds so many bytes by so many changes (of all that is proposed and not applied yet) should not even be proposed: once it is
 * committed it can only wait for room. */
int kv_room(struct kv *kv, size_t bytes, size_t changes, struct err *err);

/* ---- commands: what a log entry holds (an empty entry is raft's own no-op) ---- */

/* call: a packed Store__Call with txn, lease_grant (id chosen), lease_revoke or compact. time_ms: the proposer's wall clock. */
int kv_command(struct buf *to, uint64_t time_ms, const uint8_t *call, size_t len);
/* Refuses, saying why, what kv_apply would refuse whatever the state. */
int kv_check_txn(const Store__TxnRequest *txn, struct err *err);
int kv_check_range(const Store__RangeRequest *range, struct err *err);
size_t kv_txn_weight(const Store__TxnRequest *txn); /* for kv_room(): its changes, 0 when it puts nothing */

struct kv_result {
  struct err err;                                              /* code ERR_NONE: applied. Otherwise the command was refused and nothing changed */
  Store__Reply *reply;                                         /* the caller frees; NULL when refused */
  uint64_t revision;                                           /* of the store after it */
  bool repeated;                                               /* a txn id that was seen before: the first answer */
  uint64_t lease_granted, lease_granted_ttl_ms, lease_revoked; /* for the clock's keeper; 0: none */
  bool compacted;
};

/* ---- batches ---- */

int kv_begin(struct kv *kv, size_t bytes, size_t entries, struct err *err); /* bytes of the entries to come: their room is made sure of */
/* -1: the map failed: kv_abort(), nothing of the batch happened. */
int kv_apply(struct kv *kv, uint64_t index, uint64_t term, const uint8_t *entry, size_t len, struct kv_result *ret, struct err *err);
int kv_commit(struct kv *kv, struct err *err); /* aborts by itself when it fails */
void kv_abort(struct kv *kv);
bool kv_trim_pending(const struct kv *kv); /* compacted history is still there: an empty batch removes some of it */

/* ---- reads, as of the last commit ---- */

/* ERR_COMPACTED, or ERR_INVALID for a revision that is yet to come. */
Store__RangeReply *kv_range(struct kv *kv, const Store__RangeRequest *range, struct err *err);

struct kv_slice {
  const uint8_t *data;
  size_t len;
};
struct kv_record {
  uint64_t create_revision, mod_revision, version, lease;
  struct kv_slice value;
};
struct kv_event {
  bool deleted;
  bool has_prev;
  struct kv_slice key;
  struct kv_record now; /* of a deleted key: mod_revision only */
  struct kv_record prev;
};
/* Tells the revisions from `from` to `to`, each whole, in order. Slices are borrowed until fn returns; fn returns false to stop. `from` before
 * compact_revision is ERR_COMPACTED. *ret_next: the first revision not told. Gives up its turn after about `most` events. */
typedef bool kv_history_fn(void *arg, uint64_t revision, const struct kv_event *events, size_t count);
int kv_history(struct kv *kv, uint64_t from, uint64_t to, size_t most, kv_history_fn *fn, void *arg, uint64_t *ret_next, struct err *err);

typedef void kv_lease_fn(void *arg, uint64_t id, uint64_t ttl_ms);
int kv_leases(struct kv *kv, kv_lease_fn *fn, void *arg, struct err *err);
/* The keys bound to a lease, into an array of the caller's to free (each .data too). */
int kv_lease_keys(struct kv *kv, uint64_t id, ProtobufCBinaryData **ret_keys, size_t *ret_count, struct err *err);
bool kv_lease_exists(struct kv *kv, uint64_t id, uint64_t *ret_ttl_ms);

/* ---- the folder as a whole ---- */

/* A consistent, compacted copy into a new file; not synced. Any thread. */
int kv_copy(struct kv *kv, const char *file, struct err *err);
/* What such a copy holds. */
int kv_copy_state(const char *file, struct kv_state *ret, struct err *err);
/* Opens a map for reading only, beside its owner or without one. kv_verify() and reads alone may be used on it. */
struct kv *kv_open_read(const char *dir, struct err *err);
/* Reads every record of every table. fault is called for each thing that is wrong; -1 when the map can't be read on. */
typedef void kv_fault_fn(void *arg, const char *what);
int kv_verify(struct kv *kv, kv_fault_fn *fault, void *arg, uint64_t *ret_records, struct err *err);

/* ---- ranges ---- [key, end); no end: the one key; an end of one zero byte: everything from key on (as in etcd) */
struct kv_bounds {
  struct kv_slice start, end;
  bool single, unbounded;
};
struct kv_bounds kv_bounds(const ProtobufCBinaryData *key, const ProtobufCBinaryData *end);
bool kv_in_bounds(const struct kv_bounds *b, const void *key, size_t len);
int kv_compare_keys(const void *a, size_t alen, const void *b, size_t blen);

#endif
