/* What is refused whatever the state, and what a transaction weighs. */
#include "orca-store/kv_int.h"

#include <stdlib.h>

#include "common/bus/pb.h"

int kv_check_range(const Store__RangeRequest *r, struct err *err) {
  if (!r->has_key || r->key.len == 0)
    return err_set(err, ERR_INVALID, "range: the key is missing");
  if (r->key.len > KV_MAX_KEY || r->range_end.len > KV_MAX_KEY)
    return err_set(err, ERR_TOO_LARGE, "range: a key has at most %zu bytes", KV_MAX_KEY);
  return 0;
}

static int check_key(const char *what, const ProtobufCBinaryData *key, const ProtobufCBinaryData *end, struct err *err) {
  if (key->len == 0)
    return err_set(err, ERR_INVALID, "%s: the key is missing", what);
  if (key->len > KV_MAX_KEY || (end && end->len > KV_MAX_KEY))
    return err_set(err, ERR_TOO_LARGE, "%s: a key has at most %zu bytes, this one %zu", what, KV_MAX_KEY,
                   key->len > KV_MAX_KEY ? key->len : end->len);
  return 0;
}

static int compare_puts(const void *a, const void *b) {
  const Store__Put *x = *(Store__Put *const *)a, *y = *(Store__Put *const *)b;
  return kv_compare_keys(x->key.data, x->key.len, y->key.data, y->key.len);
}

static int given_twice(const ProtobufCBinaryData *key, struct err *err) {
  char text[65];
  size_t n = key->len < 64 ? key->len : 64;
  for (size_t i = 0; i < n; i++)
    text[i] = key->data[i] >= 0x20 && key->data[i] < 0x7f ? (char)key->data[i] : '?';
  text[n] = 0;
  return err_set(err, ERR_INVALID, "txn: the key %s is changed twice", text);
}

static int check_twice(Store__Op *const *ops, size_t n, struct err *err) {
  if (n < 2)
    return 0;
  Store__Put **puts = malloc(n * sizeof *puts);
  if (!puts)
    return err_set(err, ERR_MEMORY, "out of memory");
  size_t m = 0;
  int rc = 0;
  for (size_t i = 0; i < n; i++)
    if (ops[i]->op_case == STORE__OP__OP_PUT)
      puts[m++] = ops[i]->put;
  if (m > 1)
    qsort(puts, m, sizeof(Store__Put *), compare_puts);
  for (size_t i = 1; i < m && rc == 0; i++)
    if (compare_puts(&puts[i - 1], &puts[i]) == 0)
      rc = given_twice(&puts[i]->key, err);
  for (size_t i = 0; i < n && rc == 0; i++) {
    if (ops[i]->op_case != STORE__OP__OP_DELETE_RANGE)
      continue;
    struct kv_bounds b = kv_bounds(&ops[i]->delete_range->key, &ops[i]->delete_range->range_end);
    for (size_t j = 0; j < m && rc == 0; j++)
      if (kv_in_bounds(&b, puts[j]->key.data, puts[j]->key.len))
        rc = given_twice(&puts[j]->key, err);
  }
  free(puts);
  return rc;
}

static int check_ops(Store__Op *const *ops, size_t n, struct err *err) {
  if (n > KV_MAX_OPS)
    return err_set(err, ERR_TOO_LARGE, "txn: at most %zu operations, this one has %zu", KV_MAX_OPS, n);
  for (size_t i = 0; i < n; i++) {
    const Store__Op *op = ops[i];
    switch (op->op_case) {
    case STORE__OP__OP_RANGE:
      if (kv_check_range(op->range, err) < 0)
        return -1;
      break;
    case STORE__OP__OP_PUT:
      if (check_key("put", &op->put->key, NULL, err) < 0)
        return -1;
      if (op->put->value.len > KV_MAX_VALUE)
        return err_set(err, ERR_TOO_LARGE, "put: a value has at most %zu bytes, this one %zu", KV_MAX_VALUE, op->put->value.len);
      break;
    case STORE__OP__OP_DELETE_RANGE:
      if (check_key("delete", &op->delete_range->key, &op->delete_range->range_end, err) < 0)
        return -1;
      break;
    case STORE__OP__OP__NOT_SET:
    case _STORE__OP__OP__CASE_IS_INT_SIZE:
      return err_set(err, ERR_INVALID, "txn: an operation is empty or of a newer kind");
    }
  }
  return check_twice(ops, n, err);
}

int kv_check_txn(const Store__TxnRequest *txn, struct err *err) {
  if (txn->has_id && txn->id.len != 16)
    return err_set(err, ERR_INVALID, "txn: the id has %zu bytes instead of 16", txn->id.len);
  if (txn->n_compare > KV_MAX_OPS)
    return err_set(err, ERR_TOO_LARGE, "txn: at most %zu compares, this one has %zu", KV_MAX_OPS, txn->n_compare);
  for (size_t i = 0; i < txn->n_compare; i++) {
    if (check_key("compare", &txn->compare[i]->key, &txn->compare[i]->range_end, err) < 0)
      return -1;
    if (txn->compare[i]->target_case == STORE__COMPARE__TARGET__NOT_SET)
      return err_set(err, ERR_INVALID, "txn: a compare has no target");
    if ((unsigned)PB_GET(txn->compare[i], result, STORE__COMPARE_RESULT__EQUAL) > STORE__COMPARE_RESULT__GREATER)
      return err_set(err, ERR_INVALID, "txn: a compare is of a newer kind");
  }
  if (check_ops(txn->success, txn->n_success, err) < 0 || check_ops(txn->failure, txn->n_failure, err) < 0)
    return -1;
  return 0;
}

static bool ops_add(Store__Op *const *ops, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (ops[i]->op_case == STORE__OP__OP_PUT)
      return true;
  return false;
}

size_t kv_txn_weight(const Store__TxnRequest *txn) {
  if (!ops_add(txn->success, txn->n_success) && !ops_add(txn->failure, txn->n_failure))
    return 0;
  return txn->n_success > txn->n_failure ? txn->n_success : txn->n_failure;
}
