#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/storec/storec_int.h"

struct storec_txn {
  Store__TxnRequest *request;
  size_t size_compare, size_success;
  bool failed; /* to grow: told when it is sent */
};

struct storec_txn *storec_txn_new(void) {
  struct storec_txn *txn = calloc(1, sizeof *txn);
  if (!txn || !(txn->request = malloc(sizeof *txn->request))) {
    free(txn);
    return NULL;
  }
  store__txn_request__init(txn->request);
  return txn;
}

void storec_txn_free(struct storec_txn *txn) {
  if (!txn)
    return;
  store__txn_request__free_unpacked(txn->request, NULL);
  free(txn);
}

size_t storec_txn_ops(const struct storec_txn *txn) {
  return txn->request->n_success;
}

void storec_if_mod_revision(struct storec_txn *txn, const char *key, uint64_t mod_revision) {
  Store__TxnRequest *r = txn->request;
  if (txn->failed)
    return;
  if (r->n_compare == txn->size_compare) {
    size_t size = txn->size_compare ? 2 * txn->size_compare : 4;
    Store__Compare **grown = realloc(r->compare, size * sizeof(Store__Compare *));
    if (!grown) {
      txn->failed = true;
      return;
    }
    r->compare = grown;
    txn->size_compare = size;
  }
  Store__Compare *c = malloc(sizeof *c);
  if (!c) {
    txn->failed = true;
    return;
  }
  store__compare__init(c);
  r->compare[r->n_compare++] = c;
  c->has_key = 1;
  if (!storec_bytes(&c->key, key, strlen(key)))
    txn->failed = true;
  PB_SET(c, result, STORE__COMPARE_RESULT__EQUAL);
  c->target_case = STORE__COMPARE__TARGET_MOD_REVISION;
  c->mod_revision = mod_revision;
}

static bool same_key(const Store__Op *op, const char *key, size_t len) {
  const ProtobufCBinaryData *k = NULL;
  if (op->op_case == STORE__OP__OP_PUT)
    k = &op->put->key;
  else if (op->op_case == STORE__OP__OP_DELETE_RANGE && !op->delete_range->has_range_end)
    k = &op->delete_range->key;
  return k && k->len == len && memcmp(k->data, key, len) == 0;
}

/* A new operation at the end; an earlier one on the same key gives way. */
static Store__Op *add_op(struct storec_txn *txn, const char *key) {
  Store__TxnRequest *r = txn->request;
  size_t len = strlen(key);
  for (size_t i = 0; i < r->n_success; i++)
    if (same_key(r->success[i], key, len)) {
      store__op__free_unpacked(r->success[i], NULL);
      memmove(r->success + i, r->success + i + 1, (r->n_success - i - 1) * sizeof(Store__Op *));
      r->n_success--;
      break;
    }
  if (r->n_success == txn->size_success) {
    size_t size = txn->size_success ? 2 * txn->size_success : 8;
    Store__Op **grown = realloc(r->success, size * sizeof(Store__Op *));
    if (!grown)
      return NULL;
    r->success = grown;
    txn->size_success = size;
  }
  Store__Op *op = malloc(sizeof *op);
  if (!op)
    return NULL;
  store__op__init(op);
  r->success[r->n_success++] = op;
  return op;
}

/* Takes value->data. */
static void put_bytes(struct storec_txn *txn, const char *key, ProtobufCBinaryData *value, uint64_t lease) {
  Store__Op *op = txn->failed ? NULL : add_op(txn, key);
  Store__Put *put = op ? malloc(sizeof *put) : NULL;
  if (!put) {
    free(value->data);
    txn->failed = true;
    return;
  }
  store__put__init(put);
  op->op_case = STORE__OP__OP_PUT;
  op->put = put;
  put->has_key = put->has_value = 1;
  put->value = *value;
  if (!storec_bytes(&put->key, key, strlen(key)))
    txn->failed = true;
  if (lease)
    PB_SET(put, lease, lease);
}

void storec_put(struct storec_txn *txn, const char *key, const void *value, size_t len, uint64_t lease) {
  ProtobufCBinaryData copy;
  if (!storec_bytes(&copy, value, len)) {
    txn->failed = true;
    return;
  }
  put_bytes(txn, key, &copy, lease);
}

void storec_put_message(struct storec_txn *txn, const char *key, const ProtobufCMessage *value, uint64_t lease) {
  size_t len = protobuf_c_message_get_packed_size(value);
  ProtobufCBinaryData packed = {len, malloc(len ? len : 1)};
  if (!packed.data) {
    txn->failed = true;
    return;
  }
  protobuf_c_message_pack(value, packed.data);
  put_bytes(txn, key, &packed, lease);
}

static Store__DeleteRange *add_delete(struct storec_txn *txn, const char *key) {
  Store__Op *op = txn->failed ? NULL : add_op(txn, key);
  Store__DeleteRange *d = op ? malloc(sizeof *d) : NULL;
  if (!d) {
    txn->failed = true;
    return NULL;
  }
  store__delete_range__init(d);
  op->op_case = STORE__OP__OP_DELETE_RANGE;
  op->delete_range = d;
  d->has_key = 1;
  return d;
}

void storec_delete(struct storec_txn *txn, const char *key) {
  Store__DeleteRange *d = add_delete(txn, key);
  if (d && !storec_bytes(&d->key, key, strlen(key)))
    txn->failed = true;
}

void storec_delete_prefix(struct storec_txn *txn, const char *prefix) {
  Store__DeleteRange *d = add_delete(txn, prefix);
  if (!d)
    return;
  d->has_range_end = 1;
  if (!storec_prefix_range(prefix, &d->key, &d->range_end))
    txn->failed = true;
}

struct commit {
  storec_txn_fn *done;
  void *arg;
};

static void committed(void *arg, const Store__Reply *reply, const struct err *err) {
  struct commit *commit = arg;
  struct err wrong;
  if (!err && reply->body_case != STORE__REPLY__BODY_TXN) {
    err_set(&wrong, ERR_INTERNAL, "the store answered a txn with something else");
    err = &wrong;
  }
  if (err)
    commit->done(commit->arg, false, 0, err);
  else
    commit->done(commit->arg, PB_GET(reply->txn, succeeded, 0), PB_GET(reply->txn, revision, 0), NULL);
  free(commit);
}

struct commit_refusal {
  struct loop_timer timer;
  struct err err;
  storec_txn_fn *done;
  void *arg;
};

static void tell_refusal(void *arg) {
  struct commit_refusal *r = arg;
  r->done(r->arg, false, 0, &r->err);
  free(r);
}

/* From the loop, as all answers are, unless memory has ended altogether. */
static void refuse(struct storec *c, const struct err *err, storec_txn_fn *done, void *arg) {
  struct commit_refusal *r = calloc(1, sizeof *r);
  struct err ignored;
  if (r) {
    *r = (struct commit_refusal){.timer = {.cb = tell_refusal, .arg = r}, .err = *err, .done = done, .arg = arg};
    if (loop_timer_in(c->loop, &r->timer, 0, &ignored) == 0)
      return;
    free(r);
  }
  done(arg, false, 0, err);
}

void storec_commit(struct storec *c, struct storec_txn *txn, int64_t timeout_ns, storec_txn_fn *done, void *arg) {
  struct err err;
  uint8_t id[16];
  struct commit *commit = malloc(sizeof *commit);
  Store__Call *call = storec_new_call();
  if (!commit || !call || txn->failed) {
    err_set(&err, ERR_MEMORY, "out of memory");
    goto refused;
  }
  if (crypto_random(id, sizeof id, &err) < 0)
    goto refused;
  if (!storec_bytes(&txn->request->id, id, sizeof id)) {
    err_set(&err, ERR_MEMORY, "out of memory");
    goto refused;
  }
  txn->request->has_id = 1;
  call->body_case = STORE__CALL__BODY_TXN;
  call->txn = txn->request;
  free(txn);
  *commit = (struct commit){done, arg};
  if (storec_op_new(c, call, timeout_ns, committed, commit))
    return;
  free(commit);
  err_set(&err, ERR_MEMORY, "out of memory");
  refuse(c, &err, done, arg);
  return;
refused:
  free(commit);
  free(call);
  storec_txn_free(txn);
  refuse(c, &err, done, arg);
}

const Store__TxnRequest *storec_txn_request(const struct storec_txn *txn) {
  return txn->request;
}
