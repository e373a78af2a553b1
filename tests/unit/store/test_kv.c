/* The key-value state machine against a model in memory: random histories from a fixed list of seeds, with reads of the past, compaction, restarts,
 * aborted batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "orca-store/kv.h"

#define KEYS 24
#define MAX_REVISIONS 600
#define LEASES 4

struct cell {
  uint64_t create, mod, version, lease;
  int value; /* 0: not there */
};

/* The whole state at every revision: simple, and so surely right. */
struct model {
  struct cell at[MAX_REVISIONS][KEYS];
  uint64_t revision, compact;
  bool leases[LEASES + 1];
};

struct rig {
  char dir[64];
  struct kv *kv;
  uint64_t index, rng;
  struct model *m;
};

static uint64_t rnd(struct rig *r, uint64_t n) {
  r->rng ^= r->rng << 13;
  r->rng ^= r->rng >> 7;
  r->rng ^= r->rng << 17;
  return r->rng % n;
}

static const char *key_name(unsigned i) {
  static char names[KEYS][16];
  snprintf(names[i], sizeof names[i], "/k/%02u", i);
  return names[i];
}

static ProtobufCBinaryData bytes(const char *s) {
  return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static void open_kv(struct rig *r) {
  struct err err;
  struct kv_options o = {.map_size = (size_t)64 << 20};
  r->kv = kv_open(r->dir, &o, &err);
  if (!r->kv)
    fail_msg("%s", err.msg);
}

static void setup(struct rig *r, uint64_t seed) {
  *r = (struct rig){.dir = "/tmp/orca-kv-XXXXXX", .rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .m = calloc(1, sizeof(struct model))};
  assert_non_null(r->m);
  r->m->revision = 1;
  assert_non_null(mkdtemp(r->dir));
  open_kv(r);
}

static void teardown(struct rig *r) {
  struct err err;
  kv_close(r->kv);
  assert_int_equal(kv_discard(r->dir, &err), 0);
  assert_int_equal(rmdir(r->dir), 0);
  free(r->m);
}

/* One command as one batch. */
static struct kv_result apply(struct rig *r, const Store__Call *call) {
  struct buf packed = BUF_INIT(1 << 24), entry = BUF_INIT(1 << 24);
  struct kv_result result;
  struct err err;
  assert_int_equal(pb_pack(&call->base, &packed), 0);
  assert_int_equal(kv_command(&entry, 1000 + r->index, packed.data, packed.len), 0);
  /* Sometimes the batch is aborted first: it must leave no trace. */
  for (int attempt = rnd(r, 8) == 0 ? 0 : 1; attempt < 2; attempt++) {
    assert_int_equal(kv_begin(r->kv, entry.len, 1, &err), 0);
    if (kv_apply(r->kv, r->index + 1, 1, entry.data, entry.len, &result, &err) < 0)
      fail_msg("%s", err.msg);
    if (attempt == 0) {
      kv_abort(r->kv);
      if (result.reply)
        store__reply__free_unpacked(result.reply, NULL);
    } else if (kv_commit(r->kv, &err) < 0) {
      fail_msg("%s", err.msg);
    }
  }
  r->index++;
  buf_free(&packed);
  buf_free(&entry);
  return result;
}

static void free_result(struct kv_result *result) {
  if (result->reply)
    store__reply__free_unpacked(result->reply, NULL);
}

/* ---------------------------------------------------------------- comparing */

static void check_range(struct rig *r, uint64_t revision, unsigned from, unsigned to) {
  struct err err;
  Store__RangeRequest q = STORE__RANGE_REQUEST__INIT;
  q.has_key = q.has_range_end = 1;
  q.key = bytes(key_name(from));
  q.range_end = bytes(to < KEYS ? key_name(to) : "/l");
  if (revision)
    PB_SET(&q, revision, revision);
  Store__RangeReply *reply = kv_range(r->kv, &q, &err);
  uint64_t at = revision ? revision : r->m->revision;
  if (at < r->m->compact) {
    assert_null(reply);
    assert_int_equal(err.code, ERR_COMPACTED);
    return;
  }
  if (!reply) {
    fail_msg("%s", err.msg);
    return;
  }
  size_t n = 0;
  for (unsigned k = from; k < to; k++) {
    const struct cell *c = &r->m->at[at][k];
    if (!c->value)
      continue;
    assert_true(n < reply->n_kvs);
    const Store__KeyValue *kv = reply->kvs[n++];
    char value[16];
    snprintf(value, sizeof value, "v%d", c->value);
    assert_int_equal(kv->key.len, strlen(key_name(k)));
    assert_memory_equal(kv->key.data, key_name(k), kv->key.len);
    assert_int_equal(kv->value.len, strlen(value));
    assert_memory_equal(kv->value.data, value, kv->value.len);
    assert_int_equal(kv->create_revision, c->create);
    assert_int_equal(kv->mod_revision, c->mod);
    assert_int_equal(kv->version, c->version);
    assert_int_equal(PB_GET(kv, lease, 0), c->lease);
  }
  assert_int_equal(n, reply->n_kvs);
  assert_int_equal(n, reply->count);
  assert_int_equal(reply->revision, r->m->revision);
  store__range_reply__free_unpacked(reply, NULL);
}

static bool replay(void *arg, uint64_t revision, const struct kv_event *events, size_t count) {
  struct rig *r = arg;
  struct cell *state = r->m->at[0]; /* row 0 is nobody's: the watcher's own state */
  for (size_t i = 0; i < count; i++) {
    unsigned k = (unsigned)((events[i].key.data[3] - '0') * 10 + events[i].key.data[4] - '0');
    assert_int_equal(events[i].has_prev, state[k].value != 0);
    if (events[i].has_prev)
      assert_int_equal(events[i].prev.mod_revision, state[k].mod);
    if (events[i].deleted) {
      state[k] = (struct cell){0};
      continue;
    }
    char value[16] = "";
    memcpy(value, events[i].now.value.data, events[i].now.value.len);
    state[k] = (struct cell){.create = events[i].now.create_revision,
                             .mod = revision,
                             .version = events[i].now.version,
                             .lease = events[i].now.lease,
                             .value = atoi(value + 1)};
  }
  assert_memory_equal(state, r->m->at[revision], sizeof r->m->at[0]);
  return true;
}

/* A watch from any revision gives the state at each later one. */
static void check_history(struct rig *r) {
  struct err err;
  uint64_t from = r->m->compact > 1 ? r->m->compact : 1, next;
  from += rnd(r, r->m->revision - from + 1);
  memcpy(r->m->at[0], r->m->at[from], sizeof r->m->at[0]);
  for (uint64_t at = from + 1; at <= r->m->revision; at = next)
    if (kv_history(r->kv, at, r->m->revision, 1 + rnd(r, 20), replay, r, &next, &err) < 0)
      fail_msg("%s", err.msg);
  if (r->m->compact > 1) {
    assert_int_equal(kv_history(r->kv, r->m->compact - 1, r->m->revision, 1, replay, r, &next, &err), -1);
    assert_int_equal(err.code, ERR_COMPACTED);
  }
}

static void no_fault(void *arg, const char *what) {
  (void)arg;
  fail_msg("%s", what);
}

/* ---------------------------------------------------------------- commands */

static struct cell *next_state(struct rig *r) {
  memcpy(r->m->at[r->m->revision + 1], r->m->at[r->m->revision], sizeof r->m->at[0]);
  return r->m->at[r->m->revision + 1];
}

static void do_txn(struct rig *r) {
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Compare compare = STORE__COMPARE__INIT, *compares = &compare;
  Store__Op ops[4], *list[4];
  Store__Put puts[4];
  Store__DeleteRange dels[4];
  char values[4][16];
  unsigned used[4], n = 1 + (unsigned)rnd(r, 3);
  struct cell *now = r->m->at[r->m->revision];
  unsigned ck = (unsigned)rnd(r, KEYS);
  bool holds = rnd(r, 3) != 0;
  compare.has_key = 1;
  compare.key = bytes(key_name(ck));
  PB_SET(&compare, result, holds ? STORE__COMPARE_RESULT__EQUAL : STORE__COMPARE_RESULT__NOT_EQUAL);
  compare.target_case = STORE__COMPARE__TARGET_MOD_REVISION;
  compare.mod_revision = now[ck].mod;
  txn.n_compare = 1;
  txn.compare = &compares;
  uint8_t id[16] = {0};
  memcpy(id, &r->index, 8);
  txn.has_id = 1;
  txn.id = (ProtobufCBinaryData){16, id};
  struct cell *next = next_state(r);
  bool changed = false, bad_lease = false;
  unsigned ranges = 0;
  for (unsigned i = 0; i < n; i++) {
    store__op__init(&ops[i]);
    list[i] = &ops[i];
    unsigned k = (unsigned)rnd(r, KEYS);
    for (unsigned j = 0; j < i; j++)
      if (used[j] == k || ranges) {
        k = KEYS;
        break;
      }
    if (k == KEYS) {
      n = i;
      break;
    }
    used[i] = k;
    if (rnd(r, 4) == 0 && i == 0) {
      unsigned to = k + (unsigned)rnd(r, KEYS - k) + 1;
      store__delete_range__init(&dels[i]);
      dels[i].has_key = dels[i].has_range_end = 1;
      dels[i].key = bytes(key_name(k));
      dels[i].range_end = bytes(to < KEYS ? key_name(to) : "/l");
      ops[i].op_case = STORE__OP__OP_DELETE_RANGE;
      ops[i].delete_range = &dels[i];
      ranges = 1;
      for (unsigned j = k; j < to; j++) {
        changed |= next[j].value != 0;
        next[j] = (struct cell){0};
      }
      continue;
    }
    store__put__init(&puts[i]);
    int v = 1 + (int)rnd(r, 1000);
    snprintf(values[i], sizeof values[i], "v%d", v);
    uint64_t lease = rnd(r, 3) ? 0 : 1 + rnd(r, LEASES);
    puts[i].has_key = puts[i].has_value = 1;
    puts[i].key = bytes(key_name(k));
    puts[i].value = bytes(values[i]);
    if (lease)
      PB_SET(&puts[i], lease, lease);
    bad_lease |= lease && !r->m->leases[lease];
    ops[i].op_case = STORE__OP__OP_PUT;
    ops[i].put = &puts[i];
    next[k] = (struct cell){.create = next[k].value ? next[k].create : r->m->revision + 1,
                            .mod = r->m->revision + 1,
                            .version = next[k].version + 1,
                            .lease = lease,
                            .value = v};
    changed = true;
  }
  txn.n_success = n;
  txn.success = list;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  struct kv_result result = apply(r, &call);
  if (holds && bad_lease) {
    assert_int_equal(result.err.code, ERR_NOT_FOUND);
  } else {
    assert_int_equal(result.err.code, ERR_NONE);
    assert_int_equal(result.reply->txn->succeeded, holds);
    if (holds && changed)
      r->m->revision++;
    assert_int_equal(result.reply->txn->revision, r->m->revision);
    if (rnd(r, 4) == 0) { /* sent again: the first answer, and nothing happens */
      struct kv_result again = apply(r, &call);
      assert_true(again.repeated);
      assert_true(pb_equal(&again.reply->base, &result.reply->base));
      free_result(&again);
    }
  }
  assert_int_equal(result.revision, r->m->revision);
  free_result(&result);
}

static void do_lease(struct rig *r) {
  Store__Call call = STORE__CALL__INIT;
  Store__LeaseGrant grant = STORE__LEASE_GRANT__INIT;
  Store__LeaseRevoke revoke = STORE__LEASE_REVOKE__INIT;
  uint64_t id = 1 + rnd(r, LEASES);
  if (rnd(r, 2)) {
    PB_SET(&grant, id, id);
    PB_SET(&grant, ttl_ms, 1000);
    call.body_case = STORE__CALL__BODY_LEASE_GRANT;
    call.lease_grant = &grant;
    struct kv_result result = apply(r, &call);
    assert_int_equal(result.err.code, r->m->leases[id] ? ERR_CONFLICT : ERR_NONE);
    assert_int_equal(result.lease_granted, r->m->leases[id] ? 0 : id);
    r->m->leases[id] = true;
    free_result(&result);
    return;
  }
  PB_SET(&revoke, id, id);
  call.body_case = STORE__CALL__BODY_LEASE_REVOKE;
  call.lease_revoke = &revoke;
  struct kv_result result = apply(r, &call);
  assert_int_equal(result.err.code, r->m->leases[id] ? ERR_NONE : ERR_NOT_FOUND);
  struct cell *next = next_state(r);
  bool changed = false;
  for (unsigned k = 0; k < KEYS; k++)
    if (next[k].lease == id) {
      next[k] = (struct cell){0};
      changed = true;
    }
  r->m->revision += changed;
  r->m->leases[id] = false;
  free_result(&result);
}

static void do_compact(struct rig *r) {
  Store__Call call = STORE__CALL__INIT;
  Store__Compact compact = STORE__COMPACT__INIT;
  uint64_t revision = 1 + rnd(r, r->m->revision + 3);
  PB_SET(&compact, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &compact;
  struct kv_result result = apply(r, &call);
  if (revision > r->m->revision) {
    assert_int_equal(result.err.code, ERR_INVALID);
  } else if (revision <= r->m->compact) {
    assert_int_equal(result.err.code, ERR_COMPACTED);
  } else {
    assert_int_equal(result.err.code, ERR_NONE);
    r->m->compact = revision;
  }
  free_result(&result);
}

static void history_of(uint64_t seed) {
  struct rig r;
  setup(&r, seed);
  for (unsigned i = 0; i < 400; i++) {
    uint64_t what = rnd(&r, 100);
    if (what < 75)
      do_txn(&r);
    else if (what < 90)
      do_lease(&r);
    else if (what < 92)
      do_compact(&r);
    else if (what < 95) {
      kv_close(r.kv);
      open_kv(&r);
      assert_int_equal(kv_state(r.kv)->applied_index, r.index);
    }
    unsigned from = (unsigned)rnd(&r, KEYS), to = from + 1 + (unsigned)rnd(&r, KEYS - from);
    check_range(&r, 0, from, to);
    check_range(&r, 1 + rnd(&r, r.m->revision), from, to);
    if (i % 20 == 0)
      check_history(&r);
  }
  uint64_t records;
  struct err err;
  if (kv_verify(r.kv, no_fault, NULL, &records, &err) < 0)
    fail_msg("%s", err.msg);
  teardown(&r);
}

static void test_random_histories(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++)
    history_of(seed);
}

/* ---------------------------------------------------------------- single rules */

static struct kv_result put(struct rig *r, const char *key, const void *value, size_t len) {
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Op op = STORE__OP__INIT, *ops = &op;
  Store__Put p = STORE__PUT__INIT;
  p.has_key = p.has_value = 1;
  p.key = bytes(key);
  p.value = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)value};
  op.op_case = STORE__OP__OP_PUT;
  op.put = &p;
  txn.n_success = 1;
  txn.success = &ops;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  return apply(r, &call);
}

static void test_limits(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  char key[KV_MAX_KEY + 2];
  memset(key, 'k', sizeof key);
  key[KV_MAX_KEY + 1] = 0;
  struct kv_result result = put(&r, key, "v", 1);
  assert_int_equal(result.err.code, ERR_TOO_LARGE);
  key[KV_MAX_KEY] = 0;
  result = put(&r, key, "v", 1);
  assert_int_equal(result.err.code, ERR_NONE);
  free_result(&result);
  char *value = calloc(1, KV_MAX_VALUE + 1);
  assert_non_null(value);
  result = put(&r, "/big", value, KV_MAX_VALUE + 1);
  assert_int_equal(result.err.code, ERR_TOO_LARGE);
  result = put(&r, "/big", value, KV_MAX_VALUE);
  assert_int_equal(result.err.code, ERR_NONE);
  free_result(&result);
  result = put(&r, "", "v", 1);
  assert_int_equal(result.err.code, ERR_INVALID);
  free(value);
  teardown(&r);
}

/* ---- what a transaction compares and refuses ---- */

static Store__Op *new_put(const char *key, const char *value) {
  Store__Op *op = malloc(sizeof *op);
  Store__Put *p = malloc(sizeof *p);
  assert_true(op && p);
  store__op__init(op);
  store__put__init(p);
  p->has_key = p->has_value = 1;
  p->key = bytes(key);
  p->value = bytes(value);
  op->op_case = STORE__OP__OP_PUT;
  op->put = p;
  return op;
}

static Store__Op *new_range(const char *key, const char *end, uint64_t revision) {
  Store__Op *op = malloc(sizeof *op);
  Store__RangeRequest *range = malloc(sizeof *range);
  assert_true(op && range);
  store__op__init(op);
  store__range_request__init(range);
  PB_SET(range, key, bytes(key));
  if (end)
    PB_SET(range, range_end, bytes(end));
  if (revision)
    PB_SET(range, revision, revision);
  op->op_case = STORE__OP__OP_RANGE;
  op->range = range;
  return op;
}

/* Frees the operations; the compare may be NULL. */
static struct kv_result transact(struct rig *r, Store__Compare *compare, Store__Op **success, size_t n) {
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  txn.n_compare = compare ? 1 : 0;
  txn.compare = &compare;
  txn.n_success = n;
  txn.success = success;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  struct kv_result result = apply(r, &call);
  for (size_t i = 0; i < n; i++) {
    free(success[i]->op_case == STORE__OP__OP_RANGE ? (void *)success[i]->range : (void *)success[i]->put);
    free(success[i]);
  }
  return result;
}

static bool compares(struct rig *r, const char *key, const char *end, Store__CompareResult how, Store__Compare__TargetCase target, uint64_t number,
                     const char *value) {
  Store__Compare c = STORE__COMPARE__INIT;
  PB_SET(&c, key, bytes(key));
  if (end)
    PB_SET(&c, range_end, bytes(end));
  PB_SET(&c, result, how);
  c.target_case = target;
  if (target == STORE__COMPARE__TARGET_VALUE)
    c.value = bytes(value);
  else
    c.version = number; /* of a union: as good for each number */
  struct kv_result result = transact(r, &c, NULL, 0);
  assert_int_equal(result.err.code, ERR_NONE);
  bool held = result.reply->txn->succeeded;
  free_result(&result);
  return held;
}

static void test_compares(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  const Store__CompareResult equal = STORE__COMPARE_RESULT__EQUAL, less = STORE__COMPARE_RESULT__LESS, greater = STORE__COMPARE_RESULT__GREATER,
                             differs = STORE__COMPARE_RESULT__NOT_EQUAL;
  for (int i = 0; i < 3; i++) {
    struct kv_result result = put(&r, i == 2 ? "/a/y" : "/a/x", "value", 5);
    assert_int_equal(result.err.code, ERR_NONE);
    free_result(&result);
  }
  assert_true(compares(&r, "/a/x", NULL, equal, STORE__COMPARE__TARGET_VERSION, 2, NULL));
  assert_true(compares(&r, "/a/x", NULL, greater, STORE__COMPARE__TARGET_VERSION, 1, NULL));
  assert_true(compares(&r, "/a/x", NULL, less, STORE__COMPARE__TARGET_VERSION, 3, NULL));
  assert_false(compares(&r, "/a/x", NULL, differs, STORE__COMPARE__TARGET_VERSION, 2, NULL));
  assert_true(compares(&r, "/a/x", NULL, equal, STORE__COMPARE__TARGET_CREATE_REVISION, 2, NULL));
  assert_true(compares(&r, "/a/x", NULL, equal, STORE__COMPARE__TARGET_MOD_REVISION, 3, NULL));
  assert_true(compares(&r, "/a/x", NULL, equal, STORE__COMPARE__TARGET_LEASE, 0, NULL));
  assert_true(compares(&r, "/a/x", NULL, equal, STORE__COMPARE__TARGET_VALUE, 0, "value"));
  assert_true(compares(&r, "/a/x", NULL, less, STORE__COMPARE__TARGET_VALUE, 0, "values"));
  assert_false(compares(&r, "/none", NULL, differs, STORE__COMPARE__TARGET_VALUE, 0, "value")); /* no value is compared to none */
  assert_true(compares(&r, "/none", NULL, equal, STORE__COMPARE__TARGET_VERSION, 0, NULL));
  /* Of a range: each key of it; and of an empty one as of a key that is not there. */
  assert_true(compares(&r, "/a/", "/a0", equal, STORE__COMPARE__TARGET_VALUE, 0, "value"));
  assert_false(compares(&r, "/a/", "/a0", equal, STORE__COMPARE__TARGET_VERSION, 2, NULL));
  assert_true(compares(&r, "/b/", "/b0", equal, STORE__COMPARE__TARGET_VERSION, 0, NULL));
  assert_false(compares(&r, "/a/", "/a0", equal, STORE__COMPARE__TARGET_VERSION, 0, NULL));
  teardown(&r);
}

static void test_transactions_read(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  struct kv_result result = transact(&r, NULL, (Store__Op *[]){new_put("/a", "1"), new_range("/a", NULL, 0), new_put("/b", "2")}, 3);
  assert_int_equal(result.err.code, ERR_NONE);
  const Store__TxnReply *reply = result.reply->txn;
  assert_int_equal(reply->n_replies, 3);
  assert_int_equal(reply->replies[1]->range->n_kvs, 1);
  assert_int_equal(reply->replies[1]->range->kvs[0]->value.data[0], '1');
  free_result(&result);
  /* Nothing happens where one of it cannot. */
  static const struct {
    uint64_t revision;
    enum err_code code;
  } cases[] = {{99, ERR_INVALID}, {1, ERR_NONE}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    result = transact(&r, NULL, (Store__Op *[]){new_put("/c", "3"), new_range("/a", "/z", cases[i].revision)}, 2);
    assert_int_equal(result.err.code, cases[i].code);
    free_result(&result);
  }
  result = transact(&r, NULL, (Store__Op *[]){new_put("/d", "1"), new_put("/e", "1"), new_put("/d", "2")}, 3);
  assert_int_equal(result.err.code, ERR_INVALID);
  assert_non_null(strstr(result.err.msg, "/d is changed twice"));
  Store__Op *none = malloc(sizeof *none);
  assert_non_null(none);
  store__op__init(none);
  result = transact(&r, NULL, &none, 1);
  assert_int_equal(result.err.code, ERR_INVALID);
  Store__Compare nothing = STORE__COMPARE__INIT;
  PB_SET(&nothing, key, bytes("/a"));
  result = transact(&r, &nothing, NULL, 0);
  assert_int_equal(result.err.code, ERR_INVALID);
  teardown(&r);
}

static void test_lease_rules(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  Store__Call call = STORE__CALL__INIT;
  Store__LeaseGrant grant = STORE__LEASE_GRANT__INIT;
  call.body_case = STORE__CALL__BODY_LEASE_GRANT;
  call.lease_grant = &grant;
  PB_SET(&grant, id, 7);
  PB_SET(&grant, ttl_ms, 0);
  assert_int_equal(apply(&r, &call).err.code, ERR_INVALID);
  grant.ttl_ms = KV_MAX_TTL_MS + 1;
  assert_int_equal(apply(&r, &call).err.code, ERR_INVALID);
  grant.ttl_ms = 1000;
  struct kv_result result = apply(&r, &call);
  assert_int_equal(result.err.code, ERR_NONE);
  free_result(&result);
  Store__Op *bound = new_put("/leased", "1");
  PB_SET(bound->put, lease, 7);
  result = transact(&r, NULL, &bound, 1);
  assert_int_equal(result.err.code, ERR_NONE);
  free_result(&result);
  assert_true(compares(&r, "/leased", NULL, STORE__COMPARE_RESULT__EQUAL, STORE__COMPARE__TARGET_LEASE, 7, NULL));
  teardown(&r);
}

/* Full: refused with that reason, and nothing of the batch is there; deleting makes room again. */
static void test_full_map(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  kv_close(r.kv);
  struct err err;
  assert_int_equal(kv_discard(r.dir, &err), 0);
  struct kv_options o = {.map_size = (size_t)8 << 20, .slack = (size_t)1 << 20};
  r.kv = kv_open(r.dir, &o, &err);
  assert_non_null(r.kv);
  char value[64 << 10];
  memset(value, 'v', sizeof value);
  unsigned n = 0;
  for (; n < 1000 && kv_room(r.kv, sizeof value, 1, &err) == 0; n++) {
    char key[16];
    snprintf(key, sizeof key, "/k/%u", n);
    struct kv_result result = put(&r, key, value, sizeof value);
    assert_int_equal(result.err.code, ERR_NONE);
    free_result(&result);
  }
  assert_in_range(n, 5, 100);
  assert_int_equal(err.code, ERR_NO_SPACE);
  assert_int_equal(kv_state(r.kv)->keys, n);
  /* Whoever does not ask for room gets to the end of the map, and the map stays whole. */
  struct buf entry = BUF_INIT(1 << 24), packed = BUF_INIT(1 << 24);
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Op op = STORE__OP__INIT, *ops = &op;
  Store__Put p = STORE__PUT__INIT;
  p.has_key = p.has_value = 1;
  p.key = bytes("/more");
  p.value = (ProtobufCBinaryData){sizeof value, (uint8_t *)value};
  op.op_case = STORE__OP__OP_PUT;
  op.put = &p;
  txn.n_success = 1;
  txn.success = &ops;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  assert_int_equal(pb_pack(&call.base, &packed), 0);
  assert_int_equal(kv_command(&entry, 1, packed.data, packed.len), 0);
  int rc = 0;
  for (unsigned i = 0; rc == 0 && i < 1000; i++) {
    struct kv_result result = {0};
    rc = kv_begin(r.kv, entry.len, 1, &err);
    if (rc == 0 && (rc = kv_apply(r.kv, r.index + 1, 1, entry.data, entry.len, &result, &err)) == 0 && (rc = kv_commit(r.kv, &err)) == 0)
      r.index++;
    free_result(&result);
  }
  assert_int_equal(rc, -1);
  if (err.code != ERR_NO_SPACE)
    fail_msg("%s", err.msg);
  kv_abort(r.kv);
  assert_int_equal(kv_state(r.kv)->applied_index, r.index);
  uint64_t records;
  assert_int_equal(kv_verify(r.kv, no_fault, NULL, &records, &err), 0);
  buf_free(&packed);
  buf_free(&entry);
  teardown(&r);
}

static void count_fault(void *arg, const char *what) {
  (void)what;
  ++*(unsigned *)arg;
}

/* Any flipped bit in a record is seen. */
static void test_flipped_bits(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  struct err err;
  const char *needle = "a value that can be found again in the file";
  struct kv_result result = put(&r, "/a", needle, strlen(needle));
  free_result(&result);
  kv_close(r.kv);
  char path[128];
  snprintf(path, sizeof path, "%s/data.mdb", r.dir);
  FILE *f = fopen(path, "r+b");
  assert_non_null(f);
  static char page[1 << 20];
  size_t n = fread(page, 1, sizeof page, f);
  char *found = memmem(page, n, needle, strlen(needle));
  assert_non_null(found);
  unsigned flips = 0;
  for (char *at = found; at; at = memmem(at + 1, n - (size_t)(at + 1 - page), needle, strlen(needle))) {
    fseek(f, at - page + 5, SEEK_SET);
    fputc(at[5] ^ 4, f);
    flips++;
  }
  fclose(f);
  assert_true(flips >= 2);
  open_kv(&r);
  unsigned faults = 0;
  uint64_t records;
  assert_int_equal(kv_verify(r.kv, count_fault, &faults, &records, &err), 0);
  assert_true(faults >= 1);
  Store__RangeRequest q = STORE__RANGE_REQUEST__INIT;
  q.has_key = 1;
  q.key = bytes("/a");
  assert_null(kv_range(r.kv, &q, &err));
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_non_null(strstr(err.msg, "/a"));
  teardown(&r);
}

static void test_copy(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  struct err err;
  for (unsigned i = 0; i < 20; i++) {
    struct kv_result result = put(&r, key_name(i), "x", 1);
    free_result(&result);
  }
  char file[128];
  snprintf(file, sizeof file, "%s/copy", r.dir);
  if (kv_copy(r.kv, file, &err) < 0)
    fail_msg("%s", err.msg);
  struct kv_state st;
  if (kv_copy_state(file, &st, &err) < 0)
    fail_msg("%s", err.msg);
  assert_int_equal(st.applied_index, 20);
  assert_int_equal(st.keys, 20);
  unlink(file);
  teardown(&r);
}

/* Garbage in the log's place is refused, whatever it is. */
static void test_garbage(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 7);
  for (unsigned i = 0; i < 300; i++) {
    uint8_t entry[12 + 40] = {1};
    for (size_t b = 12; b < sizeof entry; b++)
      entry[b] = (uint8_t)rnd(&r, 256);
    size_t len = 12 + rnd(&r, 41);
    struct kv_result result;
    struct err err;
    assert_int_equal(kv_begin(r.kv, len, 1, &err), 0);
    if (kv_apply(r.kv, r.index + 1, 1, entry, len, &result, &err) < 0)
      fail_msg("%s", err.msg);
    assert_int_equal(kv_commit(r.kv, &err), 0);
    free_result(&result);
    r.index++;
  }
  uint8_t newer[16] = {2};
  struct kv_result result;
  struct err err;
  assert_int_equal(kv_begin(r.kv, 16, 1, &err), 0);
  assert_int_equal(kv_apply(r.kv, r.index + 1, 1, newer, sizeof newer, &result, &err), -1);
  assert_int_equal(err.code, ERR_UNSUPPORTED);
  kv_abort(r.kv);
  teardown(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random_histories),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_full_map),
      cmocka_unit_test(test_flipped_bits),
      cmocka_unit_test(test_copy),
      cmocka_unit_test(test_garbage),
      cmocka_unit_test(test_compares),
      cmocka_unit_test(test_transactions_read),
      cmocka_unit_test(test_lease_rules),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
