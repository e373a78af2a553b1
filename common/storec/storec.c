#include "common/storec/storec.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/storec/storec_int.h"

#define RETRY_NS (20 * NS_PER_MS)

struct storec_op {
  struct storec *c;
  Store__Call *call;
  int64_t deadline;
  storec_reply_fn *done;
  void *arg;
  struct bus_call *sent; /* NULL: waits for the conversation, or for `again` */
  struct loop_timer end, again;
  struct storec_op *next, *prev;
};

/* ---------------------------------------------------------------- bytes */

bool storec_bytes(ProtobufCBinaryData *to, const void *data, size_t len) {
  to->data = malloc(len ? len : 1);
  to->len = len;
  if (to->data && len)
    memcpy(to->data, data, len);
  return to->data != NULL;
}

bool storec_prefix_range(const char *prefix, ProtobufCBinaryData *key, ProtobufCBinaryData *end) {
  size_t n = strlen(prefix);
  if (n == 0)
    return storec_bytes(key, "", 1) && storec_bytes(end, "", 1);
  if (!storec_bytes(key, prefix, n) || !storec_bytes(end, prefix, n))
    return false;
  while (end->len && end->data[end->len - 1] == 0xff)
    end->len--;
  if (end->len) {
    end->data[end->len - 1]++;
  } else {
    end->data[0] = 0; /* everything from the key on */
    end->len = 1;
  }
  return true;
}

Store__Call *storec_new_call(void) {
  Store__Call *call = malloc(sizeof *call);
  if (call)
    store__call__init(call);
  return call;
}

/* ---------------------------------------------------------------- calls */

static void op_free(struct storec_op *op) {
  struct storec *c = op->c;
  loop_timer_cancel(c->loop, &op->end);
  loop_timer_cancel(c->loop, &op->again);
  if (op->prev)
    op->prev->next = op->next;
  else
    c->first = op->next;
  if (op->next)
    op->next->prev = op->prev;
  store__call__free_unpacked(op->call, NULL);
  free(op);
}

static void op_finish(struct storec_op *op, const Store__Reply *reply, const struct err *err) {
  storec_reply_fn *done = op->done;
  void *arg = op->arg;
  if (op->sent)
    bus_call_cancel(op->sent);
  op_free(op);
  done(arg, reply, err);
}

static void op_retry_later(struct storec_op *op) {
  struct err err;
  if (loop_timer_in(op->c->loop, &op->again, RETRY_NS, &err) < 0)
    op_finish(op, NULL, &err);
}

static void op_done(void *arg, const uint8_t *body, size_t len) {
  struct storec_op *op = arg;
  op->sent = NULL;
  struct err err;
  Store__Reply *reply = (Store__Reply *)pb_unpack(&store__reply__descriptor, body, len, &err);
  op_finish(op, reply, reply ? NULL : &err);
  if (reply)
    store__reply__free_unpacked(reply, NULL);
}

static void op_failed(void *arg, const struct err *why) {
  struct storec_op *op = arg;
  op->sent = NULL;
  struct storec *c = op->c;
  switch (why->code) {
  case ERR_NO_LEADER:
    /* This store cannot say who leads, or an election is under way: ask another, if there is one. */
    if (c->stores > 1 && bus_conn_is_up(c->conn))
      bus_conn_cut(c->conn);
    op_retry_later(op);
    return;
  case ERR_BUSY: /* it has more to write than it can hold */
    op_retry_later(op);
    return;
  case ERR_UNAVAILABLE:
    if (bus_conn_is_up(c->conn))
      op_retry_later(op);
    return; /* `up` sends it again */
  default:
    op_finish(op, NULL, why);
  }
}

static void op_send(struct storec_op *op) {
  static const struct bus_call_ops ops = {.done = op_done, .failed = op_failed};
  struct storec *c = op->c;
  if (op->sent || !bus_conn_is_up(c->conn))
    return;
  int64_t left = op->deadline - loop_now(c->loop);
  if (left <= 0)
    return; /* its timer is due in this round */
  op->sent = bus_call(c->conn, &op->call->base, left, &ops, op);
  if (!op->sent)
    op_retry_later(op);
}

static void op_again(void *arg) {
  op_send(arg);
}

static void op_end(void *arg) {
  struct storec_op *op = arg;
  struct err err;
  if (op->sent || bus_conn_is_up(op->c->conn))
    err_set(&err, ERR_TIMEOUT, "the store did not answer in time");
  else
    err_set(&err, ERR_UNAVAILABLE, "the store cannot be reached");
  op_finish(op, NULL, &err);
}

struct storec_op *storec_op_new(struct storec *c, Store__Call *call, int64_t timeout_ns, storec_reply_fn *done, void *arg) {
  struct storec_op *op = calloc(1, sizeof *op);
  struct err err;
  if (!op) {
    store__call__free_unpacked(call, NULL);
    return NULL;
  }
  *op = (struct storec_op){.c = c, .call = call, .deadline = loop_now(c->loop) + timeout_ns, .done = done, .arg = arg};
  op->end = (struct loop_timer){.cb = op_end, .arg = op};
  op->again = (struct loop_timer){.cb = op_again, .arg = op};
  op->next = c->first;
  if (op->next)
    op->next->prev = op;
  c->first = op;
  if (loop_timer_at(c->loop, &op->end, op->deadline, &err) < 0) {
    op_free(op);
    return NULL;
  }
  op_send(op);
  return op;
}

void storec_op_cancel(struct storec_op *op) {
  if (!op)
    return;
  if (op->sent)
    bus_call_cancel(op->sent);
  op_free(op);
}

/* A refusal that is told from the loop, as all answers are. */
struct refusal {
  struct loop_timer timer;
  struct storec *c;
  struct err err;
  storec_reply_fn *done;
  void *arg;
};

static void tell_refusal(void *arg) {
  struct refusal *r = arg;
  r->done(r->arg, NULL, &r->err);
  free(r);
}

static void refuse(struct storec *c, const struct err *err, storec_reply_fn *done, void *arg) {
  struct refusal *r = calloc(1, sizeof *r);
  struct err ignored;
  if (r) {
    *r = (struct refusal){.timer = {.cb = tell_refusal, .arg = r}, .c = c, .err = *err, .done = done, .arg = arg};
    if (loop_timer_in(c->loop, &r->timer, 0, &ignored) == 0)
      return;
    free(r);
  }
  done(arg, NULL, err);
}

void storec_call(struct storec *c, const Store__Call *call, int64_t timeout_ns, storec_reply_fn *done, void *arg) {
  struct err err;
  Store__Call *copy = (Store__Call *)pb_clone(&call->base);
  if (copy && copy->body_case == STORE__CALL__BODY_TXN && !copy->txn->has_id) {
    /* An id makes it safe to send again. */
    uint8_t id[16];
    if (crypto_random(id, sizeof id, &err) < 0 || !storec_bytes(&copy->txn->id, id, sizeof id)) {
      store__call__free_unpacked(copy, NULL);
      copy = NULL;
    } else {
      copy->txn->has_id = 1;
    }
  }
  if (copy && storec_op_new(c, copy, timeout_ns, done, arg))
    return;
  err_set(&err, ERR_MEMORY, "out of memory");
  refuse(c, &err, done, arg);
}

/* ---------------------------------------------------------------- the conversation */

void storec_user_add(struct storec *c, struct storec_user *u) {
  u->prev = NULL;
  u->next = c->users;
  if (u->next)
    u->next->prev = u;
  c->users = u;
}

void storec_user_remove(struct storec *c, struct storec_user *u) {
  if (c->users_next == u)
    c->users_next = u->next;
  if (u->prev)
    u->prev->next = u->next;
  else if (c->users == u)
    c->users = u->next;
  if (u->next)
    u->next->prev = u->prev;
  u->next = u->prev = NULL;
}

static void conn_up(void *arg, struct bus_conn *conn) {
  struct storec *c = arg;
  (void)conn;
  for (struct storec_op *op = c->first; op; op = op->next)
    if (!loop_timer_is_set(&op->again))
      op_send(op);
  for (struct storec_user *u = c->users; u; u = c->users_next) {
    c->users_next = u->next;
    u->up(u->arg);
  }
}

static void conn_down(void *arg, struct bus_conn *conn, const struct err *why) {
  struct storec *c = arg;
  (void)conn;
  for (struct storec_user *u = c->users; u; u = c->users_next) {
    c->users_next = u->next;
    u->down(u->arg, why);
  }
}

struct storec *storec_new(struct bus *bus, struct loop *loop, const struct bus_address *stores, size_t count, struct err *err) {
  static const struct bus_conn_ops ops = {.up = conn_up, .down = conn_down};
  struct storec *c = calloc(1, sizeof *c);
  if (!c) {
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  c->bus = bus;
  c->loop = loop;
  c->stores = count;
  c->conn = bus_connect(bus, stores, count, &ops, c, err);
  if (!c->conn) {
    free(c);
    return NULL;
  }
  return c;
}

void storec_free(struct storec *c) {
  if (!c)
    return;
  struct err err;
  err_set(&err, ERR_CANCELLED, "the client was closed");
  while (c->first)
    op_finish(c->first, NULL, &err);
  bus_conn_free(c->conn);
  free(c);
}

bool storec_is_up(const struct storec *c) {
  return bus_conn_is_up(c->conn);
}

/* ---------------------------------------------------------------- streams */

struct storec_stream {
  struct storec *c;
  struct bus_call *call;
  storec_item_fn *item;
  storec_end_fn *done;
  void *arg;
};

static void stream_item(void *arg, const uint8_t *body, size_t len) {
  struct storec_stream *s = arg;
  struct err err;
  Store__Item *item = (Store__Item *)pb_unpack(&store__item__descriptor, body, len, &err);
  if (item) {
    s->item(s->arg, item);
    store__item__free_unpacked(item, NULL);
    return;
  }
  bus_call_cancel(s->call);
  s->call = NULL;
  s->done(s->arg, &err);
}

static void stream_done(void *arg, const uint8_t *body, size_t len) {
  struct storec_stream *s = arg;
  (void)body;
  (void)len;
  s->call = NULL;
  s->done(s->arg, NULL);
}

static void stream_failed(void *arg, const struct err *why) {
  struct storec_stream *s = arg;
  s->call = NULL;
  s->done(s->arg, why);
}

struct storec_stream *storec_stream_new(struct storec *c, const Store__Call *call, storec_item_fn *item, storec_end_fn *done, void *arg,
                                        struct err *err) {
  static const struct bus_call_ops ops = {.done = stream_done, .failed = stream_failed, .item = stream_item};
  struct storec_stream *s = calloc(1, sizeof *s);
  if (s) {
    *s = (struct storec_stream){.c = c, .item = item, .done = done, .arg = arg};
    s->call = bus_call(c->conn, &call->base, 0, &ops, s);
  }
  if (!s || !s->call) {
    free(s);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  return s;
}

void storec_stream_free(struct storec_stream *s) {
  if (!s)
    return;
  if (s->call)
    bus_call_cancel(s->call);
  free(s);
}
