#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-store/kv_int.h"

/* A command in the log: format 1, three zero bytes, the proposer's time (little-endian), the packed Store__Call. */
#define COMMAND_HEAD 12
#define COMMAND_FORMAT 1
#define BOUND_CHUNK_BYTES ((size_t)16 << 20)

int kv_command(struct buf *to, uint64_t time_ms, const uint8_t *call, size_t len) {
  uint8_t head[COMMAND_HEAD] = {COMMAND_FORMAT};
  uint64_t t = htole64(time_ms);
  memcpy(head + 4, &t, 8);
  buf_add(to, head, sizeof head);
  return buf_add(to, call, len);
}

/* ---------------------------------------------------------------- single changes */

/* The revision of the change being made: the first change of a command opens it. */
static void open_revision(struct kv *kv, bool *opened) {
  if (!*opened) {
    kv->next.revision++;
    kv->sub = 0;
    *opened = true;
  }
}

static int write_history(struct kv *kv, const struct kv_event *e, struct err *err) {
  uint8_t key[12];
  kv_history_key(key, kv->next.revision, kv->sub);
  buf_reset(&kv->event);
  if (kv_event_encode(&kv->event, kv->next.revision, kv->sub, e) < 0)
    return err_set(err, ERR_MEMORY, "out of memory");
  kv->sub++;
  kv->next.history_bytes += kv->event.len;
  return kv_put(kv, KV_HISTORY, key, sizeof key, kv->event.data, kv->event.len, MDB_APPEND, err);
}

static size_t bound_key(uint8_t out[8 + KV_MAX_KEY], uint64_t lease, const struct kv_slice *key) {
  kv_be64(out, lease);
  memcpy(out + 8, key->data, key->len);
  return 8 + key->len;
}

static int put_key(struct kv *kv, const struct kv_slice *key, const struct kv_slice *value, uint64_t lease, struct err *err) {
  struct kv_event e = {.key = *key};
  int found = kv_get_record(kv, kv->batch, key, &e.prev, err);
  if (found < 0)
    return -1;
  e.has_prev = found;
  e.now = (struct kv_record){.create_revision = found ? e.prev.create_revision : kv->next.revision,
                             .mod_revision = kv->next.revision,
                             .version = found ? e.prev.version + 1 : 1,
                             .lease = lease,
                             .value = *value};
  /* prev points into the map: all that needs it comes before the first write to the table of keys. */
  uint64_t old_lease = found ? e.prev.lease : 0;
  if (write_history(kv, &e, err) < 0)
    return -1;
  buf_reset(&kv->record);
  if (kv_record_encode(&kv->record, key, &e.now) < 0)
    return err_set(err, ERR_MEMORY, "out of memory");
  if (kv_put(kv, KV_KEYS, key->data, key->len, kv->record.data, kv->record.len, 0, err) < 0)
    return -1;
  if (!found)
    kv->next.keys++;
  if (old_lease != lease) {
    uint8_t bound[8 + KV_MAX_KEY];
    if (old_lease && kv_del(kv, KV_BOUND, bound, bound_key(bound, old_lease, key), err) < 0)
      return -1;
    if (lease && kv_put(kv, KV_BOUND, bound, bound_key(bound, lease, key), "", 0, 0, err) < 0)
      return -1;
  }
  return 0;
}

/* key must not point into the map. */
static int delete_key(struct kv *kv, const struct kv_slice *key, struct err *err) {
  struct kv_event e = {.deleted = true, .has_prev = true, .key = *key};
  int found = kv_get_record(kv, kv->batch, key, &e.prev, err);
  if (found <= 0)
    return found < 0 ? -1 : err_set(err, ERR_CORRUPT, "a key that must be there is not");
  uint64_t lease = e.prev.lease;
  if (write_history(kv, &e, err) < 0 || kv_del(kv, KV_KEYS, key->data, key->len, err) < 0)
    return -1;
  kv->next.keys--;
  uint8_t bound[8 + KV_MAX_KEY];
  if (lease && kv_del(kv, KV_BOUND, bound, bound_key(bound, lease, key), err) < 0)
    return -1;
  return 0;
}

/* The next key of the range at or behind `at` (which gets it). 1, 0 at the end, -1. */
static int next_key(struct kv *kv, const struct kv_bounds *b, uint8_t at[KV_MAX_KEY + 1], size_t *len, size_t *value_len, struct err *err) {
  MDB_cursor *c;
  int rc = mdb_cursor_open(kv->batch, kv->dbi[KV_KEYS], &c);
  if (rc)
    return kv_mdb_error(rc, err, "reading a range");
  MDB_val k = {*len, at}, v;
  rc = mdb_cursor_get(c, &k, &v, b->single ? MDB_SET_KEY : MDB_SET_RANGE);
  mdb_cursor_close(c);
  if (rc == MDB_NOTFOUND)
    return 0;
  if (rc)
    return kv_mdb_error(rc, err, "reading a range");
  if (!kv_in_bounds(b, k.mv_data, k.mv_size))
    return 0;
  memcpy(at, k.mv_data, k.mv_size);
  *len = k.mv_size;
  *value_len = v.mv_size;
  return 1;
}

/* ---------------------------------------------------------------- transactions */

static bool holds(enum _Store__CompareResult how, int cmp) {
  switch (how) {
  case STORE__COMPARE_RESULT__EQUAL:
    return cmp == 0;
  case STORE__COMPARE_RESULT__NOT_EQUAL:
    return cmp != 0;
  case STORE__COMPARE_RESULT__LESS:
    return cmp < 0;
  case STORE__COMPARE_RESULT__GREATER:
    return cmp > 0;
  case _STORE__COMPARE_RESULT_IS_INT_SIZE:
    break;
  }
  return false;
}

static int compare_u64(uint64_t a, uint64_t b) {
  return (a > b) - (a < b);
}

static bool compare_one(const Store__Compare *c, const struct kv_record *r, bool exists) {
  enum _Store__CompareResult how = PB_GET(c, result, STORE__COMPARE_RESULT__EQUAL);
  switch (c->target_case) {
  case STORE__COMPARE__TARGET_VERSION:
    return holds(how, compare_u64(r->version, c->version));
  case STORE__COMPARE__TARGET_CREATE_REVISION:
    return holds(how, compare_u64(r->create_revision, c->create_revision));
  case STORE__COMPARE__TARGET_MOD_REVISION:
    return holds(how, compare_u64(r->mod_revision, c->mod_revision));
  case STORE__COMPARE__TARGET_VALUE: /* a key that is not there has no value to compare */
    return exists && holds(how, kv_compare_keys(r->value.data, r->value.len, c->value.data, c->value.len));
  case STORE__COMPARE__TARGET_LEASE:
    return holds(how, compare_u64(r->lease, c->lease));
  case STORE__COMPARE__TARGET__NOT_SET:
  case _STORE__COMPARE__TARGET__CASE_IS_INT_SIZE:
    break;
  }
  return false;
}

/* 1: holds, 0: does not, -1. */
static int compare_holds(struct kv *kv, const Store__Compare *c, struct err *err) {
  struct kv_bounds b = kv_bounds(&c->key, &c->range_end);
  struct kv_record r = {0};
  if (b.single) {
    int found = kv_get_record(kv, kv->batch, &b.start, &r, err);
    return found < 0 ? -1 : compare_one(c, &r, found);
  }
  MDB_cursor *cur;
  int rc = mdb_cursor_open(kv->batch, kv->dbi[KV_KEYS], &cur);
  if (rc)
    return kv_mdb_error(rc, err, "reading a range");
  MDB_val k = {b.start.len, (void *)(uintptr_t)b.start.data}, v;
  int result = 1;
  bool any = false;
  for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0 && result == 1; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
    struct kv_slice key = {k.mv_data, k.mv_size};
    if (!kv_in_bounds(&b, key.data, key.len))
      break;
    any = true;
    if (!kv_record_decode(&key, &v, &r))
      result = kv_corrupt(err, KV_KEYS, &k);
    else
      result = compare_one(c, &r, true);
  }
  mdb_cursor_close(cur);
  if (rc != 0 && rc != MDB_NOTFOUND)
    return kv_mdb_error(rc, err, "reading a range");
  return any ? result : compare_one(c, &(struct kv_record){0}, false);
}

static bool lease_known(struct kv *kv, uint64_t id, struct err *err, int *rc) {
  uint8_t key[8];
  kv_be64(key, id);
  MDB_val k = {8, key}, v;
  uint64_t same, ttl;
  *rc = 0;
  int found = mdb_get(kv->batch, kv->dbi[KV_LEASES], &k, &v);
  if (found == MDB_NOTFOUND)
    return false;
  if (found)
    *rc = kv_mdb_error(found, err, "reading a lease");
  else if (!kv_lease_decode(&k, &v, &same, &ttl))
    *rc = kv_corrupt(err, KV_LEASES, &k);
  return *rc == 0;
}

/* Everything that can refuse a branch comes before its first change: LMDB has no transactions within one that writes through its map.
 * 0: go on; 1: refused (result->err); -1. */
static int check_branch(struct kv *kv, Store__Op *const *ops, size_t n, struct kv_result *result, struct err *err) {
  size_t events = 0, bytes = 0;
  for (size_t i = 0; i < n; i++) {
    if (ops[i]->op_case == STORE__OP__OP_PUT) {
      const Store__Put *p = ops[i]->put;
      uint64_t lease = PB_GET(p, lease, 0);
      int rc;
      if (lease && !lease_known(kv, lease, err, &rc)) {
        if (rc < 0)
          return -1;
        err_set(&result->err, ERR_NOT_FOUND, "lease %llx has ended or never was", (unsigned long long)lease);
        return 1;
      }
      struct kv_record old;
      struct kv_slice key = kv_slice_of(&p->key);
      int found = kv_get_record(kv, kv->batch, &key, &old, err);
      if (found < 0)
        return -1;
      events++;
      bytes += p->key.len + p->value.len + (found ? old.value.len : 0);
    } else if (ops[i]->op_case == STORE__OP__OP_DELETE_RANGE) {
      struct kv_bounds b = kv_bounds(&ops[i]->delete_range->key, &ops[i]->delete_range->range_end);
      uint8_t at[KV_MAX_KEY + 1];
      size_t len = b.start.len, value_len = 0;
      memcpy(at, b.start.data, len);
      int more;
      while ((more = next_key(kv, &b, at, &len, &value_len, err)) == 1) {
        events++;
        bytes += len + value_len;
        if (events > KV_MAX_EVENTS || b.single)
          break;
        if (len < KV_MAX_KEY) { /* the next key there can be */
          at[len++] = 0;
        } else {
          size_t last = len;
          while (last && at[last - 1] == 0xff)
            last--;
          if (!last)
            break;
          at[last - 1]++;
          len = last;
        }
      }
      if (more < 0)
        return -1;
    } else {
      const Store__RangeRequest *r = ops[i]->range;
      uint64_t revision = PB_GET(r, revision, 0);
      if (revision > kv->next.revision) {
        err_set(&result->err, ERR_INVALID, "revision %llu is yet to come: the store is at %llu", (unsigned long long)revision,
                (unsigned long long)kv->next.revision);
        return 1;
      }
      if (revision && revision < kv->next.compact_revision) {
        err_set(&result->err, ERR_COMPACTED, "revision %llu was compacted: history begins at %llu", (unsigned long long)revision,
                (unsigned long long)kv->next.compact_revision);
        return 1;
      }
    }
    if (events > KV_MAX_EVENTS || bytes > KV_MAX_CHANGES) {
      err_set(&result->err, ERR_TOO_LARGE, "txn: it changes more than %zu keys or %zu MiB at once", KV_MAX_EVENTS, KV_MAX_CHANGES >> 20);
      return 1;
    }
  }
  return kv_reserve(kv, 2 * bytes + events * 8 * kv->page_size, err) < 0 ? -1 : 0;
}

static int delete_range(struct kv *kv, const Store__DeleteRange *d, bool *opened, uint64_t *deleted, struct err *err) {
  struct kv_bounds b = kv_bounds(&d->key, &d->range_end);
  uint8_t at[KV_MAX_KEY + 1];
  size_t len = b.start.len, value_len;
  memcpy(at, b.start.data, len);
  int more;
  while ((more = next_key(kv, &b, at, &len, &value_len, err)) == 1) {
    open_revision(kv, opened);
    struct kv_slice key = {at, len};
    if (delete_key(kv, &key, err) < 0)
      return -1;
    (*deleted)++;
  }
  return more;
}

static Store__OpReply *new_op_reply(void) {
  Store__OpReply *r = malloc(sizeof *r);
  if (r)
    store__op_reply__init(r);
  return r;
}

static int run_op(struct kv *kv, const Store__Op *op, bool *opened, size_t *budget, Store__OpReply *reply, struct err *err) {
  struct kv_slice key, value;
  switch (op->op_case) {
  case STORE__OP__OP_RANGE:
    reply->range = kv_range_in(kv, kv->batch, &kv->next, op->range, budget, err);
    if (!reply->range)
      return -1;
    reply->reply_case = STORE__OP_REPLY__REPLY_RANGE;
    return 0;
  case STORE__OP__OP_PUT:
    open_revision(kv, opened);
    key = kv_slice_of(&op->put->key);
    value = kv_slice_of(&op->put->value);
    reply->reply_case = STORE__OP_REPLY__REPLY_PUT;
    reply->put = true;
    return put_key(kv, &key, &value, PB_GET(op->put, lease, 0), err);
  case STORE__OP__OP_DELETE_RANGE:
    reply->reply_case = STORE__OP_REPLY__REPLY_DELETED;
    return delete_range(kv, op->delete_range, opened, &reply->deleted, err);
  case STORE__OP__OP__NOT_SET:
  case _STORE__OP__OP__CASE_IS_INT_SIZE:
    break;
  }
  return err_set(err, ERR_INTERNAL, "an operation that was checked is not one");
}

static Store__Reply *new_reply(void) {
  Store__Reply *r = malloc(sizeof *r);
  if (r)
    store__reply__init(r);
  return r;
}

static int apply_txn(struct kv *kv, const Store__TxnRequest *txn, struct kv_result *ret, struct err *err) {
  if (kv_check_txn(txn, &ret->err) < 0)
    return 0;
  if (txn->has_id) {
    uint64_t seq = kv_seen_find(kv, txn->id.data);
    if (seq)
      return kv_seen_answer(kv, seq - 1, ret, err);
  }
  int succeeded = 1;
  for (size_t i = 0; i < txn->n_compare && succeeded == 1; i++)
    succeeded = compare_holds(kv, txn->compare[i], err);
  if (succeeded < 0)
    return -1;
  Store__Op *const *ops = succeeded ? txn->success : txn->failure;
  size_t n = succeeded ? txn->n_success : txn->n_failure;
  int refused = check_branch(kv, ops, n, ret, err);
  if (refused)
    return refused < 0 ? -1 : 0;
  Store__Reply *reply = new_reply();
  Store__TxnReply *t = malloc(sizeof *t);
  if (!reply || !t) {
    free(reply);
    free(t);
    return err_set(err, ERR_MEMORY, "out of memory");
  }
  store__txn_reply__init(t);
  reply->body_case = STORE__REPLY__BODY_TXN;
  reply->txn = t;
  ret->reply = reply;
  if (n && !(t->replies = calloc(n, sizeof *t->replies)))
    return err_set(err, ERR_MEMORY, "out of memory");
  bool opened = false;
  size_t budget = KV_MAX_REPLY;
  for (size_t i = 0; i < n; i++) {
    if (!(t->replies[i] = new_op_reply()))
      return err_set(err, ERR_MEMORY, "out of memory");
    t->n_replies++;
    if (run_op(kv, ops[i], &opened, &budget, t->replies[i], err) < 0)
      return -1;
  }
  PB_SET(t, succeeded, succeeded);
  PB_SET(t, revision, kv->next.revision);
  return txn->has_id ? kv_seen_remember(kv, txn->id.data, reply, err) : 0;
}

/* ---------------------------------------------------------------- leases and compaction */

static int apply_grant(struct kv *kv, const Store__LeaseGrant *g, struct kv_result *ret, struct err *err) {
  uint64_t id = PB_GET(g, id, 0), ttl = PB_GET(g, ttl_ms, 0);
  int rc;
  if (!id || !ttl || ttl > KV_MAX_TTL_MS) {
    err_set(&ret->err, ERR_INVALID, "lease: a time to live is from 1 ms to %llu ms", (unsigned long long)KV_MAX_TTL_MS);
    return 0;
  }
  if (lease_known(kv, id, err, &rc)) {
    err_set(&ret->err, ERR_CONFLICT, "lease %llx exists already", (unsigned long long)id);
    return 0;
  }
  if (rc < 0)
    return -1;
  if (kv->next.leases >= KV_MAX_LEASES) {
    err_set(&ret->err, ERR_NO_SPACE, "there are %zu leases, no more are granted", KV_MAX_LEASES);
    return 0;
  }
  uint8_t key[8];
  kv_be64(key, id);
  buf_reset(&kv->record);
  if (kv_lease_encode(&kv->record, id, ttl) < 0)
    return err_set(err, ERR_MEMORY, "out of memory");
  if (kv_put(kv, KV_LEASES, key, 8, kv->record.data, kv->record.len, 0, err) < 0)
    return -1;
  kv->next.leases++;
  ret->lease_granted = id;
  ret->lease_granted_ttl_ms = ttl;
  Store__Lease *l = malloc(sizeof *l);
  ret->reply = new_reply();
  if (!l || !ret->reply) {
    free(l);
    return err_set(err, ERR_MEMORY, "out of memory");
  }
  store__lease__init(l);
  PB_SET(l, id, id);
  PB_SET(l, ttl_ms, ttl);
  PB_SET(l, left_ms, ttl);
  ret->reply->body_case = STORE__REPLY__BODY_LEASE;
  ret->reply->lease = l;
  return 0;
}

static int reply_done(struct kv_result *ret, struct err *err) {
  Store__Done *d = malloc(sizeof *d);
  ret->reply = new_reply();
  if (!d || !ret->reply) {
    free(d);
    return err_set(err, ERR_MEMORY, "out of memory");
  }
  store__done__init(d);
  ret->reply->body_case = STORE__REPLY__BODY_DONE;
  ret->reply->done = d;
  return 0;
}

static int apply_revoke(struct kv *kv, const Store__LeaseRevoke *r, struct kv_result *ret, struct err *err) {
  uint64_t id = PB_GET(r, id, 0);
  int rc;
  if (!id || !lease_known(kv, id, err, &rc)) {
    if (id && rc < 0)
      return -1;
    err_set(&ret->err, ERR_NOT_FOUND, "lease %llx has ended or never was", (unsigned long long)id);
    return 0;
  }
  /* All its keys go in one revision, unless that would be too much to tell a watcher at once. */
  bool opened = false;
  size_t bytes = 0;
  for (;;) {
    uint8_t bound[8 + KV_MAX_KEY];
    kv_be64(bound, id);
    MDB_val k = {8, bound}, v;
    MDB_cursor *c;
    int mrc = mdb_cursor_open(kv->batch, kv->dbi[KV_BOUND], &c);
    if (mrc)
      return kv_mdb_error(mrc, err, "reading leases");
    mrc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    mdb_cursor_close(c);
    if (mrc && mrc != MDB_NOTFOUND)
      return kv_mdb_error(mrc, err, "reading leases");
    if (mrc == MDB_NOTFOUND || k.mv_size <= 8 || kv_get_be64(k.mv_data) != id)
      break;
    uint8_t copy[KV_MAX_KEY];
    struct kv_slice key = {copy, k.mv_size - 8};
    memcpy(copy, (const uint8_t *)k.mv_data + 8, key.len);
    struct kv_record rec;
    int found = kv_get_record(kv, kv->batch, &key, &rec, err);
    if (found <= 0)
      return found < 0 ? -1 : err_set(err, ERR_CORRUPT, "lease %llx is bound to a key that is not there", (unsigned long long)id);
    size_t cost = key.len + rec.value.len;
    if (opened && (kv->sub >= KV_MAX_EVENTS || bytes + cost > BOUND_CHUNK_BYTES)) {
      opened = false;
      bytes = 0;
    }
    bytes += cost;
    if (kv_reserve(kv, cost + 8 * kv->page_size, err) < 0)
      return -1;
    open_revision(kv, &opened);
    if (delete_key(kv, &key, err) < 0)
      return -1;
  }
  uint8_t key[8];
  kv_be64(key, id);
  if (kv_del(kv, KV_LEASES, key, 8, err) < 0)
    return -1;
  kv->next.leases--;
  ret->lease_revoked = id;
  return reply_done(ret, err);
}

static int apply_compact(struct kv *kv, const Store__Compact *c, struct kv_result *ret, struct err *err) {
  uint64_t revision = PB_GET(c, revision, 0);
  if (revision > kv->next.revision) {
    err_set(&ret->err, ERR_INVALID, "revision %llu is yet to come: the store is at %llu", (unsigned long long)revision,
            (unsigned long long)kv->next.revision);
    return 0;
  }
  if (revision <= kv->next.compact_revision) {
    err_set(&ret->err, ERR_COMPACTED, "history begins at revision %llu already", (unsigned long long)kv->next.compact_revision);
    return 0;
  }
  kv->next.compact_revision = revision;
  ret->compacted = true;
  return reply_done(ret, err);
}

static int apply_call(struct kv *kv, const Store__Call *call, struct kv_result *ret, struct err *err) {
  switch (call->body_case) {
  case STORE__CALL__BODY_TXN:
    return apply_txn(kv, call->txn, ret, err);
  case STORE__CALL__BODY_LEASE_GRANT:
    return apply_grant(kv, call->lease_grant, ret, err);
  case STORE__CALL__BODY_LEASE_REVOKE:
    return apply_revoke(kv, call->lease_revoke, ret, err);
  case STORE__CALL__BODY_COMPACT:
    return apply_compact(kv, call->compact, ret, err);
  case STORE__CALL__BODY_RANGE:
  case STORE__CALL__BODY_WATCH:
  case STORE__CALL__BODY_LEASE_KEEP_ALIVE:
  case STORE__CALL__BODY_LEASE_LIST:
  case STORE__CALL__BODY_STATUS:
  case STORE__CALL__BODY_SNAPSHOT:
  case STORE__CALL__BODY_LOG_LEVEL:
  case STORE__CALL__BODY__NOT_SET:
  case _STORE__CALL__BODY__CASE_IS_INT_SIZE:
    break;
  }
  err_set(&ret->err, ERR_UNSUPPORTED, "not a command of the log");
  return 0;
}

int kv_apply(struct kv *kv, uint64_t index, uint64_t term, const uint8_t *entry, size_t len, struct kv_result *ret, struct err *err) {
  *ret = (struct kv_result){0};
  if (index != kv->next.applied_index + 1)
    return err_set(err, ERR_INTERNAL, "entry %llu does not follow on %llu", (unsigned long long)index, (unsigned long long)kv->next.applied_index);
  if (len) {
    if (len < COMMAND_HEAD || entry[0] != COMMAND_FORMAT)
      return err_set(err, ERR_UNSUPPORTED, "entry %llu is of format %u, this orca-store knows up to %u", (unsigned long long)index,
                     len ? entry[0] : 0, COMMAND_FORMAT);
    uint64_t t;
    memcpy(&t, entry + 4, 8);
    t = le64toh(t);
    if (t > kv->next.time_ms)
      kv->next.time_ms = t;
    Store__Call *call = (Store__Call *)pb_unpack(&store__call__descriptor, entry + COMMAND_HEAD, len - COMMAND_HEAD, &ret->err);
    if (call) {
      int rc = apply_call(kv, call, ret, err);
      store__call__free_unpacked(call, NULL);
      if (rc < 0) {
        if (ret->reply)
          store__reply__free_unpacked(ret->reply, NULL);
        ret->reply = NULL;
        return -1;
      }
    }
  }
  kv->next.applied_index = index;
  kv->next.applied_term = term;
  ret->revision = kv->next.revision;
  return 0;
}
