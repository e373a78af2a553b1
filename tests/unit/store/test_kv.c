/* The key-value state machine against a model in memory: random histories from a fixed list of seeds, with reads of the past, compaction, restarts,
 * aborted batches. */
#include "tests/unit/store/kv_rig.h"

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

static struct model model;

static const char *key_name(unsigned i) {
  static char names[KEYS][16];
  snprintf(names[i], sizeof names[i], "/k/%02u", i);
  return names[i];
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
  uint64_t at = revision ? revision : model.revision;
  if (at < model.compact) {
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
    const struct cell *c = &model.at[at][k];
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
  assert_int_equal(reply->revision, model.revision);
  store__range_reply__free_unpacked(reply, NULL);
}

static bool replay(void *arg, uint64_t revision, const struct kv_event *events, size_t count) {
  (void)arg;
  struct cell *state = model.at[0]; /* row 0 is nobody's: the watcher's own state */
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
  assert_memory_equal(state, model.at[revision], sizeof model.at[0]);
  return true;
}

/* A watch from any revision gives the state at each later one. */
static void check_history(struct rig *r) {
  struct err err;
  uint64_t from = model.compact > 1 ? model.compact : 1, next;
  from += rnd(r, model.revision - from + 1);
  memcpy(model.at[0], model.at[from], sizeof model.at[0]);
  for (uint64_t at = from + 1; at <= model.revision; at = next)
    if (kv_history(r->kv, at, model.revision, 1 + rnd(r, 20), replay, NULL, &next, &err) < 0)
      fail_msg("%s", err.msg);
  if (model.compact > 1) {
    assert_int_equal(kv_history(r->kv, model.compact - 1, model.revision, 1, replay, NULL, &next, &err), -1);
    assert_int_equal(err.code, ERR_COMPACTED);
  }
}

/* ---------------------------------------------------------------- commands */

static struct cell *next_state(void) {
  memcpy(model.at[model.revision + 1], model.at[model.revision], sizeof model.at[0]);
  return model.at[model.revision + 1];
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
  struct cell *now = model.at[model.revision];
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
  struct cell *next = next_state();
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
    bad_lease |= lease && !model.leases[lease];
    ops[i].op_case = STORE__OP__OP_PUT;
    ops[i].put = &puts[i];
    next[k] = (struct cell){.create = next[k].value ? next[k].create : model.revision + 1,
                            .mod = model.revision + 1,
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
      model.revision++;
    assert_int_equal(result.reply->txn->revision, model.revision);
    if (rnd(r, 4) == 0) { /* sent again: the first answer, and nothing happens */
      struct kv_result again = apply(r, &call);
      assert_true(again.repeated);
      assert_true(pb_equal(&again.reply->base, &result.reply->base));
      free_result(&again);
    }
  }
  assert_int_equal(result.revision, model.revision);
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
    assert_int_equal(result.err.code, model.leases[id] ? ERR_CONFLICT : ERR_NONE);
    assert_int_equal(result.lease_granted, model.leases[id] ? 0 : id);
    model.leases[id] = true;
    free_result(&result);
    return;
  }
  PB_SET(&revoke, id, id);
  call.body_case = STORE__CALL__BODY_LEASE_REVOKE;
  call.lease_revoke = &revoke;
  struct kv_result result = apply(r, &call);
  assert_int_equal(result.err.code, model.leases[id] ? ERR_NONE : ERR_NOT_FOUND);
  struct cell *next = next_state();
  bool changed = false;
  for (unsigned k = 0; k < KEYS; k++)
    if (next[k].lease == id) {
      next[k] = (struct cell){0};
      changed = true;
    }
  model.revision += changed;
  model.leases[id] = false;
  free_result(&result);
}

static void do_compact(struct rig *r) {
  Store__Call call = STORE__CALL__INIT;
  Store__Compact compact = STORE__COMPACT__INIT;
  uint64_t revision = 1 + rnd(r, model.revision + 3);
  PB_SET(&compact, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &compact;
  struct kv_result result = apply(r, &call);
  if (revision > model.revision) {
    assert_int_equal(result.err.code, ERR_INVALID);
  } else if (revision <= model.compact) {
    assert_int_equal(result.err.code, ERR_COMPACTED);
  } else {
    assert_int_equal(result.err.code, ERR_NONE);
    model.compact = revision;
  }
  free_result(&result);
}

static void history_of(uint64_t seed) {
  struct rig r;
  rig_init(&r, &(struct kv_options){.map_size = (size_t)64 << 20}, seed);
  model = (struct model){.revision = 1};
  for (unsigned i = 0; i < 400; i++) {
    uint64_t what = rnd(&r, 100);
    if (what < 75)
      do_txn(&r);
    else if (what < 90)
      do_lease(&r);
    else if (what < 92)
      do_compact(&r);
    else if (what < 95) {
      rig_reopen(&r);
      assert_int_equal(kv_state(r.kv)->applied_index, r.index);
    }
    unsigned from = (unsigned)rnd(&r, KEYS), to = from + 1 + (unsigned)rnd(&r, KEYS - from);
    check_range(&r, 0, from, to);
    check_range(&r, 1 + rnd(&r, model.revision), from, to);
    if (i % 20 == 0)
      check_history(&r);
  }
  uint64_t records;
  struct err err;
  if (kv_verify(r.kv, no_fault, NULL, &records, &err) < 0)
    fail_msg("%s", err.msg);
  rig_fini(&r);
}

static void test_random_histories(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++)
    history_of(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random_histories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
