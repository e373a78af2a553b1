#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "orca-store/kv_int.h"

struct kv_slice kv_slice_of(const ProtobufCBinaryData *b) {
  return (struct kv_slice){b->data, b->len};
}

int kv_compare_keys(const void *a, size_t alen, const void *b, size_t blen) {
  size_t n = alen < blen ? alen : blen;
  int c = n ? memcmp(a, b, n) : 0;
  return c ? c : (alen > blen) - (alen < blen);
}

struct kv_bounds kv_bounds(const ProtobufCBinaryData *key, const ProtobufCBinaryData *end) {
  struct kv_bounds b = {.start = kv_slice_of(key), .end = kv_slice_of(end)};
  b.single = end->len == 0;
  b.unbounded = end->len == 1 && end->data[0] == 0;
  return b;
}

bool kv_in_bounds(const struct kv_bounds *b, const void *key, size_t len) {
  int c = kv_compare_keys(key, len, b->start.data, b->start.len);
  if (b->single)
    return c == 0;
  return c >= 0 && (b->unbounded || kv_compare_keys(key, len, b->end.data, b->end.len) < 0);
}

MDB_txn *kv_read(struct kv *kv, struct err *err) {
  int rc = mdb_txn_renew(kv->reader);
  if (rc) {
    kv_mdb_error(rc, err, "reading");
    return NULL;
  }
  return kv->reader;
}

void kv_read_end(struct kv *kv) {
  mdb_txn_reset(kv->reader);
}

int kv_get_record(struct kv *kv, MDB_txn *txn, const struct kv_slice *key, struct kv_record *ret, struct err *err) {
  MDB_val k = {key->len, (void *)(uintptr_t)key->data}, v;
  if (key->len == 0 || key->len > KV_MAX_KEY)
    return 0;
  int rc = mdb_get(txn, kv->dbi[KV_KEYS], &k, &v);
  if (rc == MDB_NOTFOUND)
    return 0;
  if (rc)
    return kv_mdb_error(rc, err, "reading a key");
  if (!kv_record_decode(key, &v, ret))
    return kv_corrupt(err, KV_KEYS, &k);
  return 1;
}

/* ---------------------------------------------------------------- ranges */

struct reading {
  Store__RangeReply *reply;
  const Store__RangeRequest *request;
  size_t room, size; /* places in kvs */
  size_t *budget;
  uint64_t limit;
  bool full; /* limit or budget reached: only counting from here on */
};

static bool copy_bytes(ProtobufCBinaryData *to, const struct kv_slice *from) {
  to->len = from->len;
  to->data = NULL;
  if (from->len) {
    to->data = malloc(from->len);
    if (!to->data)
      return false;
    memcpy(to->data, from->data, from->len);
  }
  return true;
}

static int add_kv(struct reading *r, const struct kv_slice *key, const struct kv_record *rec, struct err *err) {
  r->reply->count++;
  if (r->request->count_only)
    return 0;
  size_t cost = 64 + key->len + (r->request->keys_only ? 0 : rec->value.len);
  /* One record always fits, so that a reader who goes on from the last key gets on. */
  if (!r->full && ((r->limit && r->reply->n_kvs >= r->limit) || (cost > *r->budget && r->reply->n_kvs > 0)))
    r->full = true;
  if (r->full) {
    PB_SET(r->reply, more, true);
    return 0;
  }
  *r->budget -= cost < *r->budget ? cost : *r->budget;
  if (r->reply->n_kvs == r->size) {
    size_t size = r->size ? 2 * r->size : 8;
    Store__KeyValue **kvs = realloc(r->reply->kvs, size * sizeof *kvs);
    if (!kvs)
      return err_set(err, ERR_MEMORY, "out of memory");
    r->reply->kvs = kvs;
    r->size = size;
  }
  Store__KeyValue *kv = malloc(sizeof *kv);
  if (!kv)
    return err_set(err, ERR_MEMORY, "out of memory");
  store__key_value__init(kv);
  r->reply->kvs[r->reply->n_kvs++] = kv;
  kv->has_key = 1;
  if (!copy_bytes(&kv->key, key))
    return err_set(err, ERR_MEMORY, "out of memory");
  if (!r->request->keys_only) {
    kv->has_value = 1;
    if (!copy_bytes(&kv->value, &rec->value))
      return err_set(err, ERR_MEMORY, "out of memory");
  }
  PB_SET(kv, create_revision, rec->create_revision);
  PB_SET(kv, mod_revision, rec->mod_revision);
  PB_SET(kv, version, rec->version);
  if (rec->lease)
    PB_SET(kv, lease, rec->lease);
  return 0;
}

/* What a key was before its first change after the revision asked for. */
struct undo {
  struct kv_slice key;
  bool existed;
  struct kv_record record;
  size_t order;
};

static int by_key_then_order(const void *a, const void *b) {
  const struct undo *x = a, *y = b;
  int c = kv_compare_keys(x->key.data, x->key.len, y->key.data, y->key.len);
  return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int gather_undo(struct kv *kv, MDB_txn *txn, const struct kv_bounds *bounds, uint64_t revision, struct undo **ret, size_t *ret_n,
                       struct err *err) {
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_HISTORY], &c);
  if (rc)
    return kv_mdb_error(rc, err, "reading history");
  uint8_t from[12];
  kv_history_key(from, revision + 1, 0);
  MDB_val k = {sizeof from, from}, v;
  struct undo *list = NULL;
  size_t n = 0, size = 0;
  int result = 0;
  for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
    struct kv_event e;
    uint64_t at;
    uint32_t sub;
    if (!kv_event_decode(&k, &v, &at, &sub, &e)) {
      result = kv_corrupt(err, KV_HISTORY, &k);
      break;
    }
    if (!kv_in_bounds(bounds, e.key.data, e.key.len))
      continue;
    if (n == size) {
      size = size ? 2 * size : 64;
      struct undo *grown = realloc(list, size * sizeof *grown);
      if (!grown) {
        result = err_set(err, ERR_MEMORY, "out of memory");
        break;
      }
      list = grown;
    }
    list[n] = (struct undo){.key = e.key, .existed = e.has_prev, .record = e.prev, .order = n};
    n++;
  }
  if (result == 0 && rc != MDB_NOTFOUND)
    result = kv_mdb_error(rc, err, "reading history");
  mdb_cursor_close(c);
  if (result < 0) {
    free(list);
    return -1;
  }
  if (n)
    qsort(list, n, sizeof *list, by_key_then_order);
  size_t kept = 0;
  for (size_t i = 0; i < n; i++)
    if (i == 0 || kv_compare_keys(list[i].key.data, list[i].key.len, list[kept - 1].key.data, list[kept - 1].key.len) != 0)
      list[kept++] = list[i];
  *ret = list;
  *ret_n = kept;
  return 0;
}

/* Merges what is there now with what is to be undone; both in key order. */
static int walk(struct kv *kv, MDB_txn *txn, const struct kv_bounds *bounds, const struct undo *undo, size_t n_undo, struct reading *r,
                struct err *err) {
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_KEYS], &c);
  if (rc)
    return kv_mdb_error(rc, err, "reading a range");
  MDB_val k = {bounds->start.len, (void *)(uintptr_t)bounds->start.data}, v;
  int result = 0;
  size_t u = 0;
  rc = mdb_cursor_get(c, &k, &v, bounds->single ? MDB_SET_KEY : MDB_SET_RANGE);
  for (;;) {
    if (rc != 0 && rc != MDB_NOTFOUND) {
      result = kv_mdb_error(rc, err, "reading a range");
      break;
    }
    bool have = rc == 0 && (bounds->single || bounds->unbounded || kv_compare_keys(k.mv_data, k.mv_size, bounds->end.data, bounds->end.len) < 0);
    if (!have && u == n_undo)
      break;
    int cmp = !have ? 1 : u == n_undo ? -1 : kv_compare_keys(k.mv_data, k.mv_size, undo[u].key.data, undo[u].key.len);
    if (cmp >= 0) {
      if (undo[u].existed && (result = add_kv(r, &undo[u].key, &undo[u].record, err)) < 0)
        break;
      u++;
    } else {
      struct kv_slice key = {k.mv_data, k.mv_size};
      struct kv_record rec = {0};
      bool counting = r->full || r->request->count_only;
      if (!counting && !kv_record_decode(&key, &v, &rec)) {
        result = kv_corrupt(err, KV_KEYS, &k);
        break;
      }
      if ((result = add_kv(r, &key, &rec, err)) < 0)
        break;
    }
    if (have && cmp <= 0)
      rc = bounds->single ? MDB_NOTFOUND : mdb_cursor_get(c, &k, &v, MDB_NEXT);
  }
  mdb_cursor_close(c);
  return result;
}

Store__RangeReply *kv_range_in(struct kv *kv, MDB_txn *txn, const struct kv_state *state, const Store__RangeRequest *q, size_t *budget,
                               struct err *err) {
  uint64_t revision = PB_GET(q, revision, 0);
  if (kv_check_range(q, err) < 0)
    return NULL;
  if (revision > state->revision) {
    err_set(err, ERR_INVALID, "revision %llu is yet to come: the store is at %llu", (unsigned long long)revision,
            (unsigned long long)state->revision);
    return NULL;
  }
  if (revision && revision < state->compact_revision) {
    err_set(err, ERR_COMPACTED, "revision %llu was compacted: history begins at %llu", (unsigned long long)revision,
            (unsigned long long)state->compact_revision);
    return NULL;
  }
  struct kv_bounds bounds = kv_bounds(&q->key, &q->range_end);
  struct undo *undo = NULL;
  size_t n_undo = 0;
  if (revision && revision < state->revision && gather_undo(kv, txn, &bounds, revision, &undo, &n_undo, err) < 0)
    return NULL;
  Store__RangeReply *reply = malloc(sizeof *reply);
  if (!reply) {
    free(undo);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  store__range_reply__init(reply);
  PB_SET(reply, revision, state->revision);
  PB_SET(reply, count, 0);
  struct reading r = {.reply = reply, .request = q, .budget = budget, .limit = PB_GET(q, limit, 0)};
  int rc = walk(kv, txn, &bounds, undo, n_undo, &r, err);
  free(undo);
  if (rc < 0) {
    store__range_reply__free_unpacked(reply, NULL);
    return NULL;
  }
  return reply;
}

Store__RangeReply *kv_range(struct kv *kv, const Store__RangeRequest *range, struct err *err) {
  MDB_txn *txn = kv_read(kv, err);
  if (!txn)
    return NULL;
  size_t budget = KV_MAX_REPLY;
  Store__RangeReply *reply = kv_range_in(kv, txn, &kv->state, range, &budget, err);
  kv_read_end(kv);
  return reply;
}

/* ---------------------------------------------------------------- history */

int kv_history(struct kv *kv, uint64_t from, uint64_t to, size_t most, kv_history_fn *fn, void *arg, uint64_t *ret_next, struct err *err) {
  *ret_next = from;
  if (from < kv->state.compact_revision)
    return err_set(err, ERR_COMPACTED, "revision %llu was compacted: history begins at %llu", (unsigned long long)from,
                   (unsigned long long)kv->state.compact_revision);
  if (to > kv->state.revision)
    to = kv->state.revision;
  if (from > to)
    return 0;
  MDB_txn *txn = kv_read(kv, err);
  if (!txn)
    return -1;
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_HISTORY], &c), result = 0;
  if (rc) {
    kv_read_end(kv);
    return kv_mdb_error(rc, err, "reading history");
  }
  uint8_t start[12];
  kv_history_key(start, from, 0);
  MDB_val k = {sizeof start, start}, v;
  struct kv_event *events = NULL;
  size_t n = 0, size = 0, told = 0;
  uint64_t current = 0;
  bool stopped = false;
  rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
  for (;;) {
    if (rc != 0 && rc != MDB_NOTFOUND) {
      result = kv_mdb_error(rc, err, "reading history");
      break;
    }
    struct kv_event e;
    uint64_t revision = UINT64_MAX;
    uint32_t sub;
    if (rc == 0 && !kv_event_decode(&k, &v, &revision, &sub, &e)) {
      result = kv_corrupt(err, KV_HISTORY, &k);
      break;
    }
    if (n && revision != current) {
      if (!fn(arg, current, events, n)) {
        *ret_next = current;
        stopped = true;
        break;
      }
      told += n;
      n = 0;
      *ret_next = current + 1;
      if (told >= most) {
        stopped = true;
        break;
      }
    }
    if (rc == MDB_NOTFOUND || revision > to)
      break;
    current = revision;
    if (n == size) {
      size = size ? 2 * size : 16;
      struct kv_event *grown = realloc(events, size * sizeof *grown);
      if (!grown) {
        result = err_set(err, ERR_MEMORY, "out of memory");
        break;
      }
      events = grown;
    }
    events[n++] = e;
    rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
  }
  if (result == 0 && !stopped)
    *ret_next = to + 1;
  mdb_cursor_close(c);
  kv_read_end(kv);
  free(events);
  return result;
}

/* ---------------------------------------------------------------- leases */

int kv_leases(struct kv *kv, kv_lease_fn *fn, void *arg, struct err *err) {
  MDB_txn *txn = kv_read(kv, err);
  if (!txn)
    return -1;
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_LEASES], &c), result = 0;
  if (rc) {
    kv_read_end(kv);
    return kv_mdb_error(rc, err, "reading leases");
  }
  MDB_val k, v;
  while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
    uint64_t id, ttl;
    if (!kv_lease_decode(&k, &v, &id, &ttl)) {
      result = kv_corrupt(err, KV_LEASES, &k);
      break;
    }
    fn(arg, id, ttl);
  }
  if (result == 0 && rc != MDB_NOTFOUND)
    result = kv_mdb_error(rc, err, "reading leases");
  mdb_cursor_close(c);
  kv_read_end(kv);
  return result;
}

bool kv_lease_exists(struct kv *kv, uint64_t id, uint64_t *ret_ttl_ms) {
  struct err ignored;
  MDB_txn *txn = kv_read(kv, &ignored);
  if (!txn)
    return false;
  uint8_t key[8];
  kv_be64(key, id);
  MDB_val k = {8, key}, v;
  uint64_t same;
  bool found = mdb_get(txn, kv->dbi[KV_LEASES], &k, &v) == 0 && kv_lease_decode(&k, &v, &same, ret_ttl_ms);
  kv_read_end(kv);
  return found;
}

int kv_lease_keys(struct kv *kv, uint64_t id, ProtobufCBinaryData **ret_keys, size_t *ret_count, struct err *err) {
  MDB_txn *txn = kv_read(kv, err);
  if (!txn)
    return -1;
  MDB_cursor *c;
  int rc = mdb_cursor_open(txn, kv->dbi[KV_BOUND], &c), result = 0;
  if (rc) {
    kv_read_end(kv);
    return kv_mdb_error(rc, err, "reading leases");
  }
  uint8_t start[8];
  kv_be64(start, id);
  MDB_val k = {8, start}, v;
  ProtobufCBinaryData *keys = NULL;
  size_t n = 0, size = 0;
  for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
    if (k.mv_size < 8 || kv_get_be64(k.mv_data) != id)
      break;
    if (n == size) {
      size = size ? 2 * size : 8;
      ProtobufCBinaryData *grown = realloc(keys, size * sizeof *grown);
      if (!grown) {
        result = err_set(err, ERR_MEMORY, "out of memory");
        break;
      }
      keys = grown;
    }
    struct kv_slice key = {(const uint8_t *)k.mv_data + 8, k.mv_size - 8};
    if (!copy_bytes(&keys[n], &key)) {
      result = err_set(err, ERR_MEMORY, "out of memory");
      break;
    }
    n++;
  }
  if (result == 0 && rc != 0 && rc != MDB_NOTFOUND)
    result = kv_mdb_error(rc, err, "reading leases");
  mdb_cursor_close(c);
  kv_read_end(kv);
  if (result < 0) {
    for (size_t i = 0; i < n; i++)
      free(keys[i].data);
    free(keys);
    return -1;
  }
  *ret_keys = keys;
  *ret_count = n;
  return 0;
}

/* ---------------------------------------------------------------- verifying */

struct verifying {
  struct kv *kv;
  MDB_txn *txn;
  kv_fault_fn *fault;
  void *arg;
  uint64_t counts[KV_TABLE_COUNT];
  uint64_t last_revision;
  uint32_t last_sub;
};

static void __attribute__((format(printf, 2, 3))) say(struct verifying *w, const char *fmt, ...) {
  char text[256];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  w->fault(w->arg, text);
}

static void verify_record(struct verifying *w, enum kv_table table, const MDB_val *k, const MDB_val *v) {
  struct kv_slice key = {k->mv_data, k->mv_size};
  struct kv_record rec;
  struct kv_event e;
  struct kv_saved saved;
  uint64_t a, b;
  uint32_t sub;
  bool good = true;
  switch (table) {
  case KV_META:
    break; /* checked when it was opened */
  case KV_KEYS:
    good = kv_record_decode(&key, v, &rec);
    if (good && (rec.mod_revision > w->kv->state.revision || rec.create_revision > rec.mod_revision || rec.version == 0))
      say(w, "a key has impossible revisions: created %llu, changed %llu, the store is at %llu", (unsigned long long)rec.create_revision,
          (unsigned long long)rec.mod_revision, (unsigned long long)w->kv->state.revision);
    if (good && rec.lease) {
      uint8_t bound[8 + KV_MAX_KEY];
      kv_be64(bound, rec.lease);
      memcpy(bound + 8, key.data, key.len < KV_MAX_KEY ? key.len : KV_MAX_KEY);
      MDB_val bk = {8 + key.len, bound}, bv;
      if (mdb_get(w->txn, w->kv->dbi[KV_BOUND], &bk, &bv))
        say(w, "a key is bound to lease %llx, which does not know it", (unsigned long long)rec.lease);
    }
    break;
  case KV_HISTORY:
    good = kv_event_decode(k, v, &a, &sub, &e);
    if (good) {
      if (a > w->kv->state.revision)
        say(w, "history has revision %llu, the store is at %llu", (unsigned long long)a, (unsigned long long)w->kv->state.revision);
      bool follows = a == w->last_revision ? sub == w->last_sub + 1 : sub == 0 && (w->last_revision == 0 || a == w->last_revision + 1);
      if (!follows && w->last_revision)
        say(w, "history has a gap before revision %llu", (unsigned long long)a);
      w->last_revision = a;
      w->last_sub = sub;
    }
    break;
  case KV_TXNS:
    good = kv_saved_decode(k, v, &a, &saved);
    break;
  case KV_LEASES:
    good = kv_lease_decode(k, v, &a, &b);
    break;
  case KV_BOUND:
    good = k->mv_size > 8;
    if (good) {
      struct kv_slice bound = {key.data + 8, key.len - 8};
      struct err ignored;
      if (kv_get_record(w->kv, w->txn, &bound, &rec, &ignored) != 1 || rec.lease != kv_get_be64(key.data))
        say(w, "lease %llx is bound to a key that does not know it", (unsigned long long)kv_get_be64(key.data));
    }
    break;
  case KV_TABLE_COUNT:
    break;
  }
  if (!good) {
    struct err err;
    kv_corrupt(&err, table, k);
    say(w, "%s", err.msg);
  }
}

int kv_verify(struct kv *kv, kv_fault_fn *fault, void *arg, uint64_t *ret_records, struct err *err) {
  struct verifying w = {.kv = kv, .fault = fault, .arg = arg, .txn = kv_read(kv, err)};
  if (!w.txn)
    return -1;
  int result = 0;
  uint64_t records = 0;
  for (int t = 0; t < KV_TABLE_COUNT && result == 0; t++) {
    MDB_cursor *c;
    int rc = mdb_cursor_open(w.txn, kv->dbi[t], &c);
    if (rc) {
      result = kv_mdb_error(rc, err, kv_table_name((enum kv_table)t));
      break;
    }
    MDB_val k, v;
    while ((rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) == 0) {
      verify_record(&w, (enum kv_table)t, &k, &v);
      w.counts[t]++;
    }
    if (rc != MDB_NOTFOUND)
      result = kv_mdb_error(rc, err, kv_table_name((enum kv_table)t));
    mdb_cursor_close(c);
    records += w.counts[t];
  }
  kv_read_end(kv);
  if (result < 0)
    return -1;
  if (w.counts[KV_KEYS] != kv->state.keys)
    say(&w, "%llu keys are there, %llu were counted", (unsigned long long)w.counts[KV_KEYS], (unsigned long long)kv->state.keys);
  if (w.counts[KV_LEASES] != kv->state.leases)
    say(&w, "%llu leases are there, %llu were counted", (unsigned long long)w.counts[KV_LEASES], (unsigned long long)kv->state.leases);
  if (w.last_revision && w.last_revision != kv->state.revision)
    say(&w, "history ends at revision %llu, the store is at %llu", (unsigned long long)w.last_revision, (unsigned long long)kv->state.revision);
  *ret_records = records;
  return 0;
}
