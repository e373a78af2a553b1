/* Which transactions are remembered, and for how long: a repeated one gets its first answer and changes nothing. */
#include "common/crypto/crypto.h"
#include "tests/unit/store/kv_rig.h"

#define VALUE ((size_t)1 << 20)

static void setup(struct rig *r) {
  rig_init(r, &(struct kv_options){.map_size = (size_t)512 << 20}, 1);
}

/* The same number gives the same id; ids look random. */
static void id_of(uint64_t number, uint8_t id[16]) {
  uint8_t hash[32];
  crypto_sha256(&number, sizeof number, hash);
  memcpy(id, hash, 16);
}

enum what { NOTHING, PUT, READ };

static struct buf command(uint64_t number, uint64_t time_ms, enum what what) {
  static uint8_t value[VALUE];
  uint8_t id[16];
  Store__Call call = STORE__CALL__INIT;
  Store__TxnRequest txn = STORE__TXN_REQUEST__INIT;
  Store__Op op = STORE__OP__INIT, *ops = &op;
  Store__Put p = STORE__PUT__INIT;
  Store__RangeRequest range = STORE__RANGE_REQUEST__INIT;
  id_of(number, id);
  txn.has_id = 1;
  txn.id = (ProtobufCBinaryData){16, id};
  p.has_key = p.has_value = range.has_key = 1;
  p.key = range.key = (ProtobufCBinaryData){2, (uint8_t *)(uintptr_t) "/k"};
  p.value = (ProtobufCBinaryData){sizeof value, value};
  op.op_case = what == PUT ? STORE__OP__OP_PUT : STORE__OP__OP_RANGE;
  if (what == PUT)
    op.put = &p;
  else
    op.range = &range;
  txn.n_success = what != NOTHING;
  txn.success = &ops;
  call.body_case = STORE__CALL__BODY_TXN;
  call.txn = &txn;
  return entry_of(&call, time_ms);
}

static bool apply_one(struct rig *r, uint64_t index, uint64_t number, uint64_t time_ms, enum what what) {
  struct err err;
  struct kv_result result;
  struct buf entry = command(number, time_ms, what);
  if (kv_apply(r->kv, index, 1, entry.data, entry.len, &result, &err) < 0)
    fail_msg("%s", err.msg);
  assert_int_equal(result.err.code, ERR_NONE);
  assert_non_null(result.reply);
  bool repeated = result.repeated;
  free_result(&result);
  buf_free(&entry);
  return repeated;
}

static void begin(struct rig *r, size_t entries) {
  struct err err;
  if (kv_begin(r->kv, 4 * VALUE, entries, &err) < 0)
    fail_msg("%s", err.msg);
}

static void commit(struct rig *r) {
  struct err err;
  if (kv_commit(r->kv, &err) < 0)
    fail_msg("%s", err.msg);
}

/* As one batch. true: it had been seen. */
static bool txn(struct rig *r, uint64_t number, uint64_t time_ms, enum what what) {
  begin(r, 1);
  bool repeated = apply_one(r, ++r->index, number, time_ms, what);
  commit(r);
  return repeated;
}

static void test_for_ten_minutes_of_the_logs_clock(void **state) {
  (void)state;
  struct rig r;
  setup(&r);
  uint64_t late = 1000 + KV_DEDUPE_MS;
  assert_false(txn(&r, 1, 1000, PUT));
  uint64_t revision = kv_state(r.kv)->revision;
  assert_true(txn(&r, 1, 2000, PUT));
  assert_int_equal(kv_state(r.kv)->revision, revision);
  rig_reopen(&r);
  assert_true(txn(&r, 1, 2000, PUT));
  assert_false(txn(&r, 2, late, NOTHING)); /* its last millisecond */
  assert_true(txn(&r, 1, late, PUT));
  assert_false(txn(&r, 3, late + 1, NOTHING));
  assert_false(txn(&r, 1, late + 1, PUT));
  assert_int_equal(kv_state(r.kv)->revision, revision + 1);
  assert_true(txn(&r, 2, 0, NOTHING)); /* a proposer whose clock is behind turns nothing back */
  rig_fini(&r);
}

static void test_a_batch_that_was_aborted_was_not_seen(void **state) {
  (void)state;
  struct rig r;
  setup(&r);
  assert_false(txn(&r, 1, 1000, PUT));
  begin(&r, 2);
  assert_false(apply_one(&r, r.index + 1, 2, 1000, PUT));
  assert_false(apply_one(&r, r.index + 2, 3, 1001 + KV_DEDUPE_MS, NOTHING)); /* forgets the first */
  kv_abort(r.kv);
  assert_false(txn(&r, 2, 1000, PUT));
  assert_true(txn(&r, 1, 1000, PUT));
  rig_fini(&r);
}

/* Beyond their number the oldest go, one for each that comes. */
static void test_so_many(void **state) {
  (void)state;
  struct rig r;
  setup(&r);
  uint64_t number = 0;
  while (number < KV_DEDUPE_COUNT + 1000) {
    begin(&r, 1024);
    for (unsigned i = 0; i < 1024 && number < KV_DEDUPE_COUNT + 1000; i++)
      assert_false(apply_one(&r, ++r.index, number++, 1000, NOTHING));
    commit(&r);
  }
  begin(&r, 1000);
  for (uint64_t n = number - KV_DEDUPE_COUNT; n < number; n++)
    assert_true(apply_one(&r, ++r.index, n, 1000, NOTHING));
  commit(&r);
  assert_false(txn(&r, 999, 1000, NOTHING));
  assert_false(txn(&r, 1000, 1000, NOTHING)); /* pushed out by the one before */
  assert_true(txn(&r, 1002, 1000, NOTHING));
  rig_fini(&r);
}

static void test_answers_of_so_many_bytes(void **state) {
  (void)state;
  struct rig r;
  setup(&r);
  uint64_t number = 1, fit = KV_DEDUPE_BYTES / VALUE - 1;
  assert_false(txn(&r, 0, 1000, PUT));
  for (; number <= fit; number++)
    assert_false(txn(&r, number, 1000, READ));
  assert_true(txn(&r, 0, 1000, PUT));
  assert_false(txn(&r, number++, 1000, READ)); /* with what is around each, one too many */
  assert_false(txn(&r, number++, 1000, READ));
  assert_false(txn(&r, 0, 1000, PUT));
  rig_reopen(&r);
  assert_true(txn(&r, number - 1, 1000, READ));
  rig_fini(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_for_ten_minutes_of_the_logs_clock),
      cmocka_unit_test(test_a_batch_that_was_aborted_was_not_seen),
      cmocka_unit_test(test_so_many),
      cmocka_unit_test(test_answers_of_so_many_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
