/* The key-value state machine, rule by rule: limits, what a transaction compares and refuses, leases, a full map, damage, copies, garbage. */
#include "tests/unit/store/kv_rig.h"

static void setup(struct rig *r, uint64_t seed) {
  rig_init(r, &(struct kv_options){.map_size = (size_t)64 << 20}, seed);
}

/* A call that puts one key. It points into itself, and to what it is given. */
struct one_put {
  Store__Call call;
  Store__TxnRequest txn;
  Store__Op op, *ops;
  Store__Put put;
};

static void one_put(struct one_put *o, const char *key, const void *value, size_t len) {
  *o = (struct one_put){STORE__CALL__INIT, STORE__TXN_REQUEST__INIT, STORE__OP__INIT, &o->op, STORE__PUT__INIT};
  o->put.has_key = o->put.has_value = 1;
  o->put.key = bytes(key);
  o->put.value = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)value};
  o->op.op_case = STORE__OP__OP_PUT;
  o->op.put = &o->put;
  o->txn.n_success = 1;
  o->txn.success = &o->ops;
  o->call.body_case = STORE__CALL__BODY_TXN;
  o->call.txn = &o->txn;
}

static struct kv_result put(struct rig *r, const char *key, const void *value, size_t len) {
  struct one_put o;
  one_put(&o, key, value, len);
  return apply(r, &o.call);
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
  rig_fini(&r);
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
  rig_fini(&r);
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
  rig_fini(&r);
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
  rig_fini(&r);
}

/* Full: refused with that reason, and nothing of the batch is there; deleting makes room again. */
static void test_full_map(void **state) {
  (void)state;
  struct rig r;
  rig_init(&r, &(struct kv_options){.map_size = (size_t)8 << 20, .slack = (size_t)1 << 20}, 1);
  struct err err;
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
  struct one_put more;
  one_put(&more, "/more", value, sizeof value);
  struct buf entry = entry_of(&more.call, 1);
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
  buf_free(&entry);
  rig_fini(&r);
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
  rig_open(&r);
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
  rig_fini(&r);
}

static void test_copy(void **state) {
  (void)state;
  struct rig r;
  setup(&r, 1);
  struct err err;
  for (unsigned i = 0; i < 20; i++) {
    char key[16];
    snprintf(key, sizeof key, "/k/%02u", i);
    struct kv_result result = put(&r, key, "x", 1);
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
  rig_fini(&r);
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
  rig_fini(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_limits),  cmocka_unit_test(test_full_map), cmocka_unit_test(test_flipped_bits),      cmocka_unit_test(test_copy),
      cmocka_unit_test(test_garbage), cmocka_unit_test(test_compares), cmocka_unit_test(test_transactions_read), cmocka_unit_test(test_lease_rules),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
