/* What the files of the state machine share: its tables, its records, its open batch. Not for anyone else. */
#ifndef ORCA_STORE_KV_INT_H
#define ORCA_STORE_KV_INT_H

#include <lmdb.h>

#include "orca-store/kv.h"

/* The tables. Numbers in keys are big-endian, so that byte order is number order; all else is little-endian. */
#define KV_TABLES(X)                                                                                                                                 \
  X(KV_META, "meta")        /* "state" → struct kv_state, format */                                                                                \
  X(KV_KEYS, "keys")        /* key → what it holds now */                                                                                          \
  X(KV_HISTORY, "history")  /* revision, number in it → one change */                                                                              \
  X(KV_TXNS, "txns")        /* sequence → txn id and its answer */                                                                                 \
  X(KV_LEASES, "leases")    /* id → ttl */                                                                                                         \
  X(KV_BOUND, "lease-keys") /* id, key → nothing */

enum kv_table {
#define X(id, name) id,
  KV_TABLES(X)
#undef X
      KV_TABLE_COUNT
};

struct kv_seen {
  uint8_t id[16];
  uint64_t seq; /* + 1; 0: the place is empty */
};

struct kv {
  MDB_env *env;
  MDB_dbi dbi[KV_TABLE_COUNT];
  char *dir;
  size_t map_size, slack, page_size;
  bool write_map;
  uint64_t reserved; /* bytes of the file whose blocks are ours: a full disk must be an error here, not a SIGBUS in the map */
  uint64_t batch_need;

  struct kv_state state;        /* committed */
  struct kv_state next;         /* of the open batch */
  uint64_t txn_first, txn_next; /* sequence numbers in KV_TXNS */
  uint64_t txn_bytes;
  uint64_t next_txn_first, next_txn_next, next_txn_bytes;

  MDB_txn *batch;
  MDB_txn *reader;          /* reset between uses */
  uint32_t sub;             /* next number within the revision being written */
  struct buf record, event; /* scratch */

  struct kv_seen *seen; /* txn id → sequence, rebuilt at open */
  size_t seen_size, seen_count;
};

int kv_reserve(struct kv *kv, uint64_t bytes, struct err *err); /* so much more will be written in this batch */
int kv_trim(struct kv *kv, size_t most, struct err *err);
/* Into the open batch. flags: LMDB's. What is deleted must be there: else ERR_CORRUPT. */
int kv_put(struct kv *kv, enum kv_table table, const void *key, size_t key_len, const void *data, size_t len, unsigned flags, struct err *err);
int kv_del(struct kv *kv, enum kv_table table, const void *key, size_t key_len, struct err *err);
int kv_mdb_error(int rc, struct err *err, const char *doing);
struct kv_slice kv_slice_of(const ProtobufCBinaryData *b);

/* Records. decode: false when the checksum or the shape is wrong. */
int kv_record_encode(struct buf *to, const struct kv_slice *key, const struct kv_record *r);
bool kv_record_decode(const struct kv_slice *key, const MDB_val *v, struct kv_record *ret);
void kv_history_key(uint8_t out[12], uint64_t revision, uint32_t sub);
int kv_event_encode(struct buf *to, uint64_t revision, uint32_t sub, const struct kv_event *e);
bool kv_event_decode(const MDB_val *k, const MDB_val *v, uint64_t *revision, uint32_t *sub, struct kv_event *ret);
struct kv_saved {
  uint8_t id[16];
  uint64_t time_ms;
  struct kv_slice reply; /* a packed Store__Reply */
};
int kv_saved_encode(struct buf *to, uint64_t seq, const struct kv_saved *s);
bool kv_saved_decode(const MDB_val *k, const MDB_val *v, uint64_t *seq, struct kv_saved *ret);
int kv_lease_encode(struct buf *to, uint64_t id, uint64_t ttl_ms);
bool kv_lease_decode(const MDB_val *k, const MDB_val *v, uint64_t *id, uint64_t *ttl_ms);
void kv_be64(uint8_t out[8], uint64_t v);
uint64_t kv_get_be64(const uint8_t *p);
int kv_corrupt(struct err *err, enum kv_table table, const MDB_val *key);

/* Reads within a transaction of either kind. */
int kv_get_record(struct kv *kv, MDB_txn *txn, const struct kv_slice *key, struct kv_record *ret, struct err *err); /* 1 found, 0 not, -1 */
Store__RangeReply *kv_range_in(struct kv *kv, MDB_txn *txn, const struct kv_state *state, const Store__RangeRequest *range, size_t *budget,
                               struct err *err);
MDB_txn *kv_read(struct kv *kv, struct err *err); /* the reader, renewed; kv_read_end() soon after */
void kv_read_end(struct kv *kv);
const char *kv_table_name(enum kv_table table);

/* The transactions seen lately, by id. */
uint64_t kv_seen_find(const struct kv *kv, const uint8_t id[16]); /* sequence + 1, or 0 */
int kv_seen_load(struct kv *kv, struct err *err);                 /* from the table: at open, and after a batch that was aborted */
int kv_seen_remember(struct kv *kv, const uint8_t id[16], const Store__Reply *reply, struct err *err); /* and forgets what is too old or too much */
int kv_seen_answer(struct kv *kv, uint64_t seq, struct kv_result *ret, struct err *err);

#endif
