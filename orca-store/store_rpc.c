#include "orca-store/store_rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/log.h"
#include "orca-store/snapshot_rpc.h"
#include "orca-store/watch_rpc.h"

/* A call that is answered later. */
struct answer {
  struct store_rpc *rpc;
  struct bus_call *call; /* NULL: the caller has gone */
  enum acl_role role;
  Store__Call *request;
};

struct store_rpc {
  struct bus *bus;
  struct store *store;
  const struct acl *acl;
  struct bus_listener *listener;
  struct watch_rpc *watches;
};

/* ---------------------------------------------------------------- answers */

static void answer_free(struct answer *a) {
  if (a->request)
    store__call__free_unpacked(a->request, NULL);
  free(a);
}

static void answer_cancelled(void *arg) {
  ((struct answer *)arg)->call = NULL;
}

/* Takes request. NULL: refused already. */
static struct answer *answer_later(struct store_rpc *rpc, struct bus_call *call, Store__Call *request) {
  static const struct bus_answer_ops ops = {.cancelled = answer_cancelled};
  struct answer *a = malloc(sizeof *a);
  if (!a) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    bus_fail(call, &err);
    if (request)
      store__call__free_unpacked(request, NULL);
    return NULL;
  }
  *a = (struct answer){.rpc = rpc, .call = call, .role = (enum acl_role)bus_peer_tag(bus_call_conn(call)), .request = request};
  bus_answer_on(call, &ops, a);
  return a;
}

static void answer_fail(struct answer *a, const struct err *err) {
  if (a->call)
    bus_fail(a->call, err);
  answer_free(a);
}

static void answer_reply(struct answer *a, const Store__Reply *reply) {
  if (a->call)
    bus_reply(a->call, &reply->base);
  answer_free(a);
}

static void proposed(void *arg, const struct kv_result *result, const struct err *err) {
  struct answer *a = arg;
  if (err)
    answer_fail(a, err);
  else if (result->err.code != ERR_NONE)
    answer_fail(a, &result->err);
  else
    answer_reply(a, result->reply);
}

/* ---------------------------------------------------------------- ranges */

static void reply_range(struct store_rpc *rpc, struct bus_call *call, const Store__RangeRequest *range) {
  struct err err;
  Store__RangeReply *r = kv_range(store_kv(rpc->store), range, &err);
  if (!r) {
    store_check(rpc->store, &err);
    bus_fail(call, &err);
    return;
  }
  Store__Reply reply = STORE__REPLY__INIT;
  reply.body_case = STORE__REPLY__BODY_RANGE;
  reply.range = r;
  bus_reply(call, &reply.base);
  store__range_reply__free_unpacked(r, NULL);
}

static void range_may_read(void *arg, const struct err *err) {
  struct answer *a = arg;
  if (err) {
    answer_fail(a, err);
    return;
  }
  if (a->call)
    reply_range(a->rpc, a->call, a->request->range);
  answer_free(a);
}

static int check_range(enum acl_role role, const Store__RangeRequest *r, struct err *err) {
  return kv_check_range(r, err) < 0 || acl_check_read(role, &r->key, &r->range_end, err) < 0 ? -1 : 0;
}

/* All of these take `request`; the raw bytes are what goes into the log. */
static void on_range(struct store_rpc *rpc, struct bus_call *call, Store__Call *request) {
  if (PB_GET(request->range, serializable, false)) {
    reply_range(rpc, call, request->range);
    store__call__free_unpacked(request, NULL);
    return;
  }
  struct answer *a = answer_later(rpc, call, request);
  if (a)
    store_read(rpc->store, range_may_read, a);
}

/* ---------------------------------------------------------------- transactions */

static int check_ops(enum acl_role role, Store__Op *const *ops, size_t n, struct err *err) {
  for (size_t i = 0; i < n; i++) {
    int rc = 0;
    if (ops[i]->op_case == STORE__OP__OP_PUT)
      rc = acl_check_write(role, &ops[i]->put->key, NULL, err);
    else if (ops[i]->op_case == STORE__OP__OP_DELETE_RANGE)
      rc = acl_check_write(role, &ops[i]->delete_range->key, &ops[i]->delete_range->range_end, err);
    else if (ops[i]->op_case == STORE__OP__OP_RANGE)
      rc = acl_check_read(role, &ops[i]->range->key, &ops[i]->range->range_end, err);
    if (rc < 0)
      return -1;
  }
  return 0;
}

static int check_txn(enum acl_role role, const Store__TxnRequest *t, struct err *err) {
  if (kv_check_txn(t, err) < 0)
    return -1;
  for (size_t i = 0; i < t->n_compare; i++)
    if (acl_check_read(role, &t->compare[i]->key, &t->compare[i]->range_end, err) < 0)
      return -1;
  return check_ops(role, t->success, t->n_success, err) < 0 || check_ops(role, t->failure, t->n_failure, err) < 0 ? -1 : 0;
}

static void propose(struct store_rpc *rpc, struct bus_call *call, const uint8_t *body, size_t len, size_t weight) {
  struct answer *a = answer_later(rpc, call, NULL);
  if (a)
    store_propose(rpc->store, body, len, weight, proposed, a);
}

/* ---------------------------------------------------------------- leases */

static void grant(struct store_rpc *rpc, struct bus_call *call, Store__LeaseGrant *g) {
  struct err err;
  struct buf packed = BUF_INIT(4096);
  if (!PB_GET(g, id, 0)) {
    uint64_t id;
    if (crypto_random(&id, sizeof id, &err) < 0) {
      bus_fail(call, &err);
      return;
    }
    PB_SET(g, id, (id >> 1) | 1); /* positive as a signed number too: people's tools */
  }
  Store__Call request = STORE__CALL__INIT;
  request.body_case = STORE__CALL__BODY_LEASE_GRANT;
  request.lease_grant = g;
  if (pb_pack(&request.base, &packed) < 0) {
    err_set(&err, ERR_MEMORY, "out of memory");
    bus_fail(call, &err);
  } else {
    propose(rpc, call, packed.data, packed.len, 1);
  }
  buf_free(&packed);
}

static void keep_alive_may_read(void *arg, const struct err *err) {
  struct answer *a = arg;
  if (err) {
    answer_fail(a, err);
    return;
  }
  Store__Reply reply = STORE__REPLY__INIT;
  Store__Lease lease = STORE__LEASE__INIT;
  uint64_t id = PB_GET(a->request->lease_keep_alive, id, 0), ttl = 0;
  bool alive = id && store_keep_alive(a->rpc->store, id, &ttl);
  PB_SET(&lease, id, id);
  PB_SET(&lease, ttl_ms, alive ? ttl : 0);
  PB_SET(&lease, left_ms, alive ? ttl : 0);
  reply.body_case = STORE__REPLY__BODY_LEASE;
  reply.lease = &lease;
  answer_reply(a, &reply);
}

/* A revocation deletes the keys that are bound to the lease: only who may write them may do that. */
static int check_revoke(struct store_rpc *rpc, enum acl_role role, uint64_t id, struct err *err) {
  ProtobufCBinaryData *keys;
  size_t n;
  if (acl_may_operate(role))
    return 0;
  if (kv_lease_keys(store_kv(rpc->store), id, &keys, &n, err) < 0)
    return -1;
  int rc = 0;
  for (size_t i = 0; i < n; i++) {
    if (rc == 0)
      rc = acl_check_write(role, &keys[i], NULL, err);
    free(keys[i].data);
  }
  free(keys);
  return rc;
}

struct lease_list {
  struct store_rpc *rpc;
  Store__Leases *leases;
  size_t size;
  bool failed;
};

static void list_lease(void *arg, uint64_t id, uint64_t ttl_ms) {
  struct lease_list *list = arg;
  Store__Leases *all = list->leases;
  if (list->failed)
    return;
  if (all->n_leases == list->size) {
    size_t size = list->size ? 2 * list->size : 8;
    Store__Lease **grown = realloc(all->leases, size * sizeof(Store__Lease *));
    if (!grown) {
      list->failed = true;
      return;
    }
    all->leases = grown;
    list->size = size;
  }
  Store__Lease *l = malloc(sizeof *l);
  if (!l) {
    list->failed = true;
    return;
  }
  store__lease__init(l);
  all->leases[all->n_leases++] = l;
  PB_SET(l, id, id);
  PB_SET(l, ttl_ms, ttl_ms);
  int64_t left = store_lease_left_ms(list->rpc->store, id);
  if (left >= 0)
    PB_SET(l, left_ms, (uint64_t)left);
}

#define MAX_LEASE_LIST ((size_t)4 << 20) /* bytes of keys that are listed; leases beyond are listed without */

static void leases_may_read(void *arg, const struct err *err) {
  struct answer *a = arg;
  if (err) {
    answer_fail(a, err);
    return;
  }
  Store__Leases leases = STORE__LEASES__INIT;
  Store__Reply reply = STORE__REPLY__INIT;
  struct lease_list list = {.rpc = a->rpc, .leases = &leases};
  struct err failed;
  struct kv *kv = store_kv(a->rpc->store);
  int rc = kv_leases(kv, list_lease, &list, &failed);
  if (rc == 0 && list.failed)
    rc = err_set(&failed, ERR_MEMORY, "out of memory");
  size_t bytes = 0;
  for (size_t i = 0; rc == 0 && bytes < MAX_LEASE_LIST && i < leases.n_leases; i++) {
    Store__Lease *l = leases.leases[i];
    rc = kv_lease_keys(kv, l->id, &l->keys, &l->n_keys, &failed);
    for (size_t k = 0; rc == 0 && k < l->n_keys; k++)
      bytes += l->keys[k].len + 4;
  }
  reply.body_case = STORE__REPLY__BODY_LEASES;
  reply.leases = &leases;
  if (rc < 0) {
    store_check(a->rpc->store, &failed);
    answer_fail(a, &failed);
  } else {
    answer_reply(a, &reply);
  }
  for (size_t i = 0; i < leases.n_leases; i++)
    store__lease__free_unpacked(leases.leases[i], NULL);
  free(leases.leases);
}

/* ---------------------------------------------------------------- dispatch */

static int need_operator(enum acl_role role, const char *what, struct err *err) {
  return acl_may_operate(role) ? 0 : err_set(err, ERR_DENIED, "%s may not %s", acl_role_name(role), what);
}

static void reply_status(struct store_rpc *rpc, struct bus_call *call) {
  Store__Reply reply = STORE__REPLY__INIT;
  Store__StatusReply status = STORE__STATUS_REPLY__INIT;
  store_status(rpc->store, &status);
  PB_SET(&status, watchers, (uint32_t)watch_rpc_count(rpc->watches));
  const struct bus_counters *c = bus_counters(rpc->bus);
  PB_SET(&status, refused, c->refused_malformed + c->refused_too_large + c->refused_unauthorized);
  reply.body_case = STORE__REPLY__BODY_STATUS;
  reply.status = &status;
  bus_reply(call, &reply.base);
}

static int check_log_level(enum acl_role role, const Store__LogLevel *q, struct err *err) {
  enum log_level level;
  if (role != ACL_APISERVER && !acl_may_operate(role))
    return err_set(err, ERR_DENIED, "%s may not set the log's level", acl_role_name(role));
  return log_level_from_text(PB_STR(q->level), &level) < 0 ? err_set(err, ERR_INVALID, "level: trace, debug, info, warn or error") : 0;
}

static void set_log_level(struct bus_call *call, const Store__LogLevel *q) {
  Store__Done done = STORE__DONE__INIT;
  Store__Reply reply = STORE__REPLY__INIT;
  log_follow_level(q->level);
  reply.body_case = STORE__REPLY__BODY_DONE;
  reply.done = &done;
  bus_reply(call, &reply.base);
}

/* Many calls may wait at once: only a transaction has a reason to be long, and it is bounded on its own. */
#define MAX_CALL ((size_t)256 << 10)

/* What each kind of call needs before anything is done for it. */
static int check_call(struct store_rpc *rpc, enum acl_role role, const Store__Call *q, size_t len, struct err *err) {
  if (len > MAX_CALL && q->body_case != STORE__CALL__BODY_TXN)
    return err_set(err, ERR_TOO_LARGE, "a call that is no txn has at most %zu bytes", MAX_CALL);
  switch (q->body_case) {
  case STORE__CALL__BODY_RANGE:
    return check_range(role, q->range, err);
  case STORE__CALL__BODY_TXN:
    return check_txn(role, q->txn, err);
  case STORE__CALL__BODY_WATCH:
    return watch_rpc_check(rpc->watches, role, q->watch, err);
  case STORE__CALL__BODY_LEASE_REVOKE:
    return check_revoke(rpc, role, PB_GET(q->lease_revoke, id, 0), err);
  case STORE__CALL__BODY_COMPACT:
    return need_operator(role, "compact", err);
  case STORE__CALL__BODY_SNAPSHOT:
    return need_operator(role, "copy the store", err);
  case STORE__CALL__BODY_LEASE_LIST:
    return need_operator(role, "list leases", err);
  case STORE__CALL__BODY_LOG_LEVEL:
    return check_log_level(role, q->log_level, err);
  case STORE__CALL__BODY_LEASE_GRANT:
  case STORE__CALL__BODY_LEASE_KEEP_ALIVE:
  case STORE__CALL__BODY_STATUS:
    return 0;
  case STORE__CALL__BODY__NOT_SET:
  case _STORE__CALL__BODY__CASE_IS_INT_SIZE:
    break;
  }
  return err_set(err, ERR_UNSUPPORTED, "this orca-store does not know that call");
}

static void later(struct store_rpc *rpc, struct bus_call *call, Store__Call *request, store_read_fn *fn) {
  struct answer *a = answer_later(rpc, call, request);
  if (a)
    store_read(rpc->store, fn, a);
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct store_rpc *rpc = arg;
  struct err err;
  Store__Call *q = (Store__Call *)pb_unpack(&store__call__descriptor, body, len, &err);
  if (!q || check_call(rpc, (enum acl_role)bus_peer_tag(conn), q, len, &err) < 0) {
    if (q) {
      store_check(rpc->store, &err);
      store__call__free_unpacked(q, NULL);
    }
    if (!q || err.code == ERR_DENIED)
      bus_conn_refused(conn, err.msg);
    bus_fail(call, &err);
    return;
  }
  switch (q->body_case) {
  case STORE__CALL__BODY_RANGE:
    on_range(rpc, call, q);
    return;
  case STORE__CALL__BODY_LEASE_KEEP_ALIVE:
    later(rpc, call, q, keep_alive_may_read);
    return;
  case STORE__CALL__BODY_LEASE_LIST:
    later(rpc, call, q, leases_may_read);
    return;
  case STORE__CALL__BODY_TXN:
    propose(rpc, call, body, len, kv_txn_weight(q->txn));
    break;
  case STORE__CALL__BODY_LEASE_GRANT:
    grant(rpc, call, q->lease_grant);
    break;
  case STORE__CALL__BODY_LEASE_REVOKE:
  case STORE__CALL__BODY_COMPACT:
    propose(rpc, call, body, len, 0);
    break;
  case STORE__CALL__BODY_WATCH:
    watch_rpc_start(rpc->watches, call, q->watch);
    break;
  case STORE__CALL__BODY_STATUS:
    reply_status(rpc, call);
    break;
  case STORE__CALL__BODY_SNAPSHOT:
    snapshot_rpc_send(rpc->store, call);
    break;
  case STORE__CALL__BODY_LOG_LEVEL:
    set_log_level(call, q->log_level);
    break;
  case STORE__CALL__BODY__NOT_SET:
  case _STORE__CALL__BODY__CASE_IS_INT_SIZE:
    break; /* refused by check_call */
  }
  store__call__free_unpacked(q, NULL);
}

static bool allow(void *arg, const char *public_key, char who[64], uint64_t *tag) {
  struct store_rpc *rpc = arg;
  enum acl_role role;
  if (!acl_find(rpc->acl, public_key, &role))
    return false;
  snprintf(who, 64, "%s", acl_role_name(role));
  *tag = role;
  return true;
}

struct store_rpc *store_rpc_new(struct loop *loop, struct bus *bus, struct store *store, const struct acl *acl, const char *endpoint,
                                struct err *err) {
  static const struct bus_conn_ops ops = {.call = on_call};
  struct store_rpc *rpc = calloc(1, sizeof *rpc);
  if (!rpc || !(rpc->watches = watch_rpc_new(loop, store))) {
    free(rpc);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  rpc->bus = bus;
  rpc->store = store;
  rpc->acl = acl;
  rpc->listener = bus_listen(bus, endpoint, allow, &ops, rpc, err);
  if (!rpc->listener) {
    watch_rpc_free(rpc->watches);
    free(rpc);
    return NULL;
  }
  return rpc;
}

void store_rpc_free(struct store_rpc *rpc) {
  if (!rpc)
    return;
  watch_rpc_free(rpc->watches);
  bus_listener_free(rpc->listener);
  free(rpc);
}

void store_rpc_recheck(struct store_rpc *rpc) {
  bus_listener_recheck(rpc->listener);
}

void store_rpc_changed(struct store_rpc *rpc, bool compacted) {
  if (rpc)
    watch_rpc_changed(rpc->watches, compacted);
}
