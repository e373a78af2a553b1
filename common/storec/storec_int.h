/* What the files of the store's client share. Not for anyone else. */
#ifndef ORCA_COMMON_STOREC_STOREC_INT_H
#define ORCA_COMMON_STOREC_STOREC_INT_H

#include "common/storec/storec.h"

/* Something that lives on one conversation: told when it comes up and when it is lost. */
struct storec_user {
  void (*up)(void *arg);
  void (*down)(void *arg, const struct err *why);
  void *arg;
  struct storec_user *next, *prev;
};

struct storec {
  struct bus *bus;
  struct loop *loop;
  struct bus_conn *conn;
  size_t stores;
  struct storec_op *first; /* calls that have not been answered */
  struct storec_user *users, *users_next;
};

void storec_user_add(struct storec *c, struct storec_user *u);
void storec_user_remove(struct storec *c, struct storec_user *u);

/* A call in its own words: retried over reconnections until its deadline. Takes call. The handle is good until done was called. NULL: memory ended,
 * done was not and will not be called. */
struct storec_op *storec_op_new(struct storec *c, Store__Call *call, int64_t timeout_ns, storec_reply_fn *done, void *arg);
void storec_op_cancel(struct storec_op *op); /* no word after this */

/* [prefix, the first key behind it) in the wire's terms; bytes are malloced. false when memory ends. */
bool storec_prefix_range(const char *prefix, ProtobufCBinaryData *key, ProtobufCBinaryData *end);
bool storec_bytes(ProtobufCBinaryData *to, const void *data, size_t len);
Store__Call *storec_new_call(void);

#endif
