/* Transactions seen lately: one that comes again gets its first answer. Ids are looked up in memory, answers lie in a table. */
#include "orca-store/kv_int.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

/* ---------------------------------------------------------------- ids: open addressing; they are random, so their first bytes are the hash */

static size_t seen_slot(const struct kv *kv, const uint8_t id[16]) {
  uint64_t h;
  memcpy(&h, id, 8);
  return (size_t)((h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (kv->seen_size - 1);
}

uint64_t kv_seen_find(const struct kv *kv, const uint8_t id[16]) {
  if (!kv->seen_size)
    return 0;
  for (size_t i = seen_slot(kv, id); kv->seen[i].seq; i = (i + 1) & (kv->seen_size - 1))
    if (memcmp(kv->seen[i].id, id, 16) == 0)
      return kv->seen[i].seq;
  return 0;
}

static void seen_put(struct kv *kv, const uint8_t id[16], uint64_t seq) {
  size_t i = seen_slot(kv, id);
  while (kv->seen[i].seq)
    i = (i + 1) & (kv->seen_size - 1);
  memcpy(kv->seen[i].id, id, 16);
  kv->seen[i].seq = seq + 1;
  kv->seen_count++;
}

static int seen_add(struct kv *kv, const uint8_t id[16], uint64_t seq) {
  if (2 * (kv->seen_count + 1) > kv->seen_size) {
    struct kv_seen *old = kv->seen;
    size_t old_size = kv->seen_size, size = old_size ? 2 * old_size : 256;
    struct kv_seen *grown = calloc(size, sizeof *grown);
    if (!grown)
      return -1;
    kv->seen = grown;
    kv->seen_size = size;
    kv->seen_count = 0;
    for (size_t i = 0; i < old_size; i++)
      if (old[i].seq)
        seen_put(kv, old[i].id, old[i].seq - 1);
    free(old);
  }
  seen_put(kv, id, seq);
  return 0;
}

static void seen_remove(struct kv *kv, const uint8_t id[16], uint64_t seq) {
  if (!kv->seen_size)
    return;
  size_t mask = kv->seen_size - 1, i = seen_slot(kv, id);
  while (kv->seen[i].seq && (kv->seen[i].seq != seq + 1 || memcmp(kv->seen[i].id, id, 16) != 0))
    i = (i + 1) & mask;
  if (!kv->seen[i].seq)
    return;
  kv->seen_count--;
  /* Close the gap, so that no search stops early: move back whatever may stand at or before it. */
  for (size_t j = (i + 1) & mask; kv->seen[j].seq; j = (j + 1) & mask) {
    size_t home = seen_slot(kv, kv->seen[j].id);
    if (((j - home) & mask) >= ((j - i) & mask)) {
      kv->seen[i] = kv->seen[j];
      i = j;
    }
  }
  kv->seen[i].seq = 0;
}

int kv_seen_load(struct kv *kv, struct err *err) {
  free(kv->seen);
  kv->seen = NULL;
  kv->seen_size = kv->seen_count = 0;
  MDB_txn *txn = kv_read(kv, err);
  if (!txn)
    return -1;
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_TXNS], &c);
  if (rc) {
    kv_read_end(kv);
    return kv_mdb_error(rc, err, "reading the ids of transactions");
  }
  MDB_val k, v;
  int result = 0;
  while (result == 0 && (rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
    struct kv_saved saved;
    uint64_t seq;
    if (!kv_saved_decode(&k, &v, &seq, &saved))
      result = kv_corrupt(err, KV_TXNS, &k);
    else if (seen_add(kv, saved.id, seq) < 0)
      result = err_set(err, ERR_MEMORY, "out of memory");
  }
  if (result == 0 && rc != MDB_NOTFOUND)
    result = kv_mdb_error(rc, err, "reading the ids of transactions");
  mdb_cursor_close(c);
  kv_read_end(kv);
  return result;
}

/* ---------------------------------------------------------------- answers */

static int forget_oldest(struct kv *kv, struct err *err) {
  uint8_t key[8];
  kv_be64(key, kv->next_txn_first);
  MDB_val k = {8, key}, v;
  int rc = mdb_get(kv->batch, kv->dbi[KV_TXNS], &k, &v);
  struct kv_saved saved;
  uint64_t seq;
  if (rc)
    return kv_mdb_error(rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc, err, "reading the ids of transactions");
  if (!kv_saved_decode(&k, &v, &seq, &saved))
    return kv_corrupt(err, KV_TXNS, &k);
  kv->next_txn_bytes -= kv->next_txn_bytes < v.mv_size ? kv->next_txn_bytes : v.mv_size;
  seen_remove(kv, saved.id, seq);
  kv->next_txn_first++;
  return kv_del(kv, KV_TXNS, key, 8, err);
}

static int forget_old(struct kv *kv, struct err *err) {
  while (kv->next_txn_first < kv->next_txn_next) {
    bool many = kv->next_txn_next - kv->next_txn_first > KV_DEDUPE_COUNT || kv->next_txn_bytes > KV_DEDUPE_BYTES;
    if (!many) {
      uint8_t key[8];
      kv_be64(key, kv->next_txn_first);
      MDB_val k = {8, key}, v;
      struct kv_saved saved;
      uint64_t seq;
      int rc = mdb_get(kv->batch, kv->dbi[KV_TXNS], &k, &v);
      if (rc)
        return kv_mdb_error(rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc, err, "reading the ids of transactions");
      if (!kv_saved_decode(&k, &v, &seq, &saved))
        return kv_corrupt(err, KV_TXNS, &k);
      if (saved.time_ms + KV_DEDUPE_MS >= kv->next.time_ms)
        return 0;
    }
    if (forget_oldest(kv, err) < 0)
      return -1;
  }
  return 0;
}

int kv_seen_remember(struct kv *kv, const uint8_t id[16], const Store__Reply *reply, struct err *err) {
  struct buf packed = BUF_INIT(SIZE_MAX / 4), record = BUF_INIT(SIZE_MAX / 4);
  struct kv_saved saved = {.time_ms = kv->next.time_ms};
  memcpy(saved.id, id, 16);
  int rc = -1;
  if (pb_pack(&reply->base, &packed) < 0) {
    err_set(err, ERR_MEMORY, "out of memory");
    goto out;
  }
  saved.reply = (struct kv_slice){packed.data, packed.len};
  uint64_t seq = kv->next_txn_next;
  uint8_t key[8];
  kv_be64(key, seq);
  if (kv_saved_encode(&record, seq, &saved) < 0 || seen_add(kv, id, seq) < 0) {
    err_set(err, ERR_MEMORY, "out of memory");
    goto out;
  }
  if (kv_reserve(kv, record.len, err) < 0 || kv_put(kv, KV_TXNS, key, 8, record.data, record.len, MDB_APPEND, err) < 0)
    goto out;
  kv->next_txn_next++;
  kv->next_txn_bytes += record.len;
  rc = forget_old(kv, err);
out:
  buf_free(&packed);
  buf_free(&record);
  return rc;
}

int kv_seen_answer(struct kv *kv, uint64_t seq, struct kv_result *ret, struct err *err) {
  uint8_t key[8];
  kv_be64(key, seq);
  MDB_val k = {8, key}, v;
  struct kv_saved saved;
  int rc = mdb_get(kv->batch, kv->dbi[KV_TXNS], &k, &v);
  if (rc)
    return kv_mdb_error(rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc, err, "reading the ids of transactions");
  uint64_t same;
  if (!kv_saved_decode(&k, &v, &same, &saved))
    return kv_corrupt(err, KV_TXNS, &k);
  ret->reply = (Store__Reply *)pb_unpack(&store__reply__descriptor, saved.reply.data, saved.reply.len, err);
  ret->repeated = true;
  return ret->reply ? 0 : -1;
}
