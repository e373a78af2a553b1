/* The store's client: what apiserver, scheduler and orca-storectl need of store.proto.
 *
 * It follows the leader, retries what is safe until the deadline (each transaction carries an id, so a repeated one
 * gets its first answer) and keeps mirrors across reconnections without a missed or doubled revision. Values are bytes
 * here: this library does not know the model.
 * Threads: the loop's. */
#ifndef ORCA_COMMON_STOREC_STOREC_H
#define ORCA_COMMON_STOREC_STOREC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "proto/store.pb-c.h"

struct storec;
struct storec *storec_new(struct bus *bus, struct loop *loop, const struct bus_address *stores, size_t count, struct err *err);
void storec_free(struct storec *c); /* what is open ends with ERR_CANCELLED; mirrors, leases and streams must have been freed */
bool storec_is_up(const struct storec *c);

/* ---- transactions, built piece by piece; all data is copied ---- */

struct storec_txn;
struct storec_txn *storec_txn_new(void);      /* NULL when memory ends; a txn that failed to grow fails when it is sent */
void storec_txn_free(struct storec_txn *txn); /* of one that was never sent */
void storec_if_mod_revision(struct storec_txn *txn, const char *key, uint64_t mod_revision); /* 0: must not exist */
/* One key is changed once in a txn: a later put or delete of the same key takes the place of an earlier one. */
void storec_put(struct storec_txn *txn, const char *key, const void *value, size_t len, uint64_t lease);
void storec_put_message(struct storec_txn *txn, const char *key, const ProtobufCMessage *value, uint64_t lease);
void storec_delete(struct storec_txn *txn, const char *key);
void storec_delete_prefix(struct storec_txn *txn, const char *prefix);
size_t storec_txn_ops(const struct storec_txn *txn);
const Store__TxnRequest *storec_txn_request(const struct storec_txn *txn); /* what it says so far, borrowed: for simulators and tests */
/* Takes txn. done: err NULL when it was decided (succeeded says how, revision is the store's after it). */
typedef void storec_txn_fn(void *arg, bool succeeded, uint64_t revision, const struct err *err);
void storec_commit(struct storec *c, struct storec_txn *txn, int64_t timeout_ns, storec_txn_fn *done, void *arg);

/* Any call of store.proto, for storectl. reply is borrowed; NULL with err. */
typedef void storec_reply_fn(void *arg, const Store__Reply *reply, const struct err *err);
void storec_call(struct storec *c, const Store__Call *call, int64_t timeout_ns, storec_reply_fn *done, void *arg);

/* A call that is answered by a stream (watch, snapshot), for storectl. Not retried. item may be called any number of times, then done once (err NULL:
 * its good end); storec_stream_free() before that ends it without another word. After done the handle is still the caller's to free. */
struct storec_stream;
typedef void storec_item_fn(void *arg, const Store__Item *item);
typedef void storec_end_fn(void *arg, const struct err *err);
struct storec_stream *storec_stream_new(struct storec *c, const Store__Call *call, storec_item_fn *item, storec_end_fn *done, void *arg,
                                        struct err *err);
void storec_stream_free(struct storec_stream *s);

/* ---- a mirror: the state of some prefixes, then every change, in order (one watch over all of them) ----
 *
 * First `put` for every key there is, then `synced` once, then changes; `end_of_revision` after the last change of each revision.
 * After a reconnection it goes on from the next revision. When that history is compacted it reads the prefixes again and
 * tells the difference as puts and deletes. `synced` is told again after each reconnection, once it has caught up. */
struct storec_mirror_ops {
  void (*put)(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t mod_revision);
  void (*del)(void *arg, const char *key, uint64_t mod_revision);
  void (*end_of_revision)(void *arg, uint64_t revision);
  void (*synced)(void *arg, uint64_t revision);
  void (*lost)(void *arg, const struct err *why); /* not in touch now; what is known may be stale. May be NULL */
};
struct storec_mirror;
struct storec_mirror *storec_mirror_new(struct storec *c, const char *const *prefixes, size_t count, const struct storec_mirror_ops *ops, void *arg,
                                        struct err *err);
void storec_mirror_free(struct storec_mirror *m);

/* ---- leases ---- a lease kept alive for as long as the handle lives; `lost` when it has ended (then it is granted anew: `granted` again). */
struct storec_lease_ops {
  void (*granted)(void *arg, uint64_t id);
  void (*lost)(void *arg);
};
struct storec_lease;
struct storec_lease *storec_lease_new(struct storec *c, int64_t ttl_ns, const struct storec_lease_ops *ops, void *arg, struct err *err);
void storec_lease_free(struct storec_lease *l); /* revokes it */

#endif
