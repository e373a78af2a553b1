#include <stdlib.h>

#include "common/bus/pb.h"
#include "common/storec/storec_int.h"

#define GRANT_TIMEOUT (5 * NS_PER_SEC)
#define AGAIN_NS (100 * NS_PER_MS)
#define REVOKE_TIMEOUT (2 * NS_PER_SEC)

/* Held until `good_until`, counted from when the last request that was answered had been sent: the store's count began later, so ours ends first. */
struct storec_lease {
  struct storec *c;
  int64_t ttl;
  struct storec_lease_ops ops;
  void *arg;
  uint64_t id; /* 0: not held */
  int64_t sent_at, good_until;
  struct storec_op *op;
  struct loop_timer next, end;
  unsigned calling;
  bool dead;
};

static void grant(struct storec_lease *l);
static void keep_alive(struct storec_lease *l);

static void destroy(struct storec_lease *l) {
  loop_timer_cancel(l->c->loop, &l->next);
  loop_timer_cancel(l->c->loop, &l->end);
  storec_op_cancel(l->op);
  free(l);
}

static void set_timer(struct storec_lease *l, struct loop_timer *t, int64_t at) {
  struct err err;
  /* No memory for a timer: the other one, or the next answer, comes by here again. */
  if (loop_timer_at(l->c->loop, t, at, &err) < 0 && t == &l->next)
    loop_timer_at(l->c->loop, &l->end, at, &err);
}

static void ended(struct storec_lease *l) {
  loop_timer_cancel(l->c->loop, &l->end);
  storec_op_cancel(l->op);
  l->op = NULL;
  bool held = l->id != 0;
  l->id = 0;
  set_timer(l, &l->next, loop_now(l->c->loop));
  if (held && l->ops.lost) {
    l->calling++;
    l->ops.lost(l->arg);
    if (--l->calling == 0 && l->dead)
      destroy(l);
  }
}

static void on_end(void *arg) {
  ended(arg);
}

static void on_next(void *arg) {
  struct storec_lease *l = arg;
  if (l->op)
    return;
  if (l->id)
    keep_alive(l);
  else
    grant(l);
}

static void renewed(struct storec_lease *l) {
  l->good_until = l->sent_at + l->ttl;
  set_timer(l, &l->end, l->good_until);
  set_timer(l, &l->next, l->sent_at + l->ttl / 3);
}

static void granted(void *arg, const Store__Reply *reply, const struct err *err) {
  struct storec_lease *l = arg;
  l->op = NULL;
  if (err || reply->body_case != STORE__REPLY__BODY_LEASE || !PB_GET(reply->lease, id, 0)) {
    set_timer(l, &l->next, loop_now(l->c->loop) + AGAIN_NS);
    return;
  }
  uint64_t id = reply->lease->id;
  if (l->sent_at + l->ttl <= loop_now(l->c->loop)) {
    /* The answer took longer than the lease lives. */
    set_timer(l, &l->next, loop_now(l->c->loop) + AGAIN_NS);
    return;
  }
  l->id = id;
  renewed(l);
  l->calling++;
  l->ops.granted(l->arg, id);
  if (--l->calling == 0 && l->dead)
    destroy(l);
}

static void kept(void *arg, const Store__Reply *reply, const struct err *err) {
  struct storec_lease *l = arg;
  l->op = NULL;
  if (err && err->code != ERR_NOT_FOUND) {
    set_timer(l, &l->next, loop_now(l->c->loop) + AGAIN_NS);
    return; /* `end` has the last word */
  }
  if (err || reply->body_case != STORE__REPLY__BODY_LEASE || !PB_GET(reply->lease, ttl_ms, 0))
    ended(l);
  else
    renewed(l);
}

static void send_call(struct storec_lease *l, Store__Call *call, int64_t timeout, storec_reply_fn *done) {
  l->sent_at = loop_now(l->c->loop);
  l->op = storec_op_new(l->c, call, timeout, done, l);
  if (!l->op)
    set_timer(l, &l->next, l->sent_at + AGAIN_NS);
}

static void grant(struct storec_lease *l) {
  Store__Call *call = storec_new_call();
  Store__LeaseGrant *g = call ? malloc(sizeof *g) : NULL;
  if (!g) {
    free(call);
    set_timer(l, &l->next, loop_now(l->c->loop) + AGAIN_NS);
    return;
  }
  store__lease_grant__init(g);
  PB_SET(g, ttl_ms, (uint64_t)(l->ttl / NS_PER_MS));
  call->body_case = STORE__CALL__BODY_LEASE_GRANT;
  call->lease_grant = g;
  send_call(l, call, GRANT_TIMEOUT, granted);
}

static void keep_alive(struct storec_lease *l) {
  Store__Call *call = storec_new_call();
  Store__LeaseKeepAlive *k = call ? malloc(sizeof *k) : NULL;
  if (!k) {
    free(call);
    set_timer(l, &l->next, loop_now(l->c->loop) + AGAIN_NS);
    return;
  }
  store__lease_keep_alive__init(k);
  PB_SET(k, id, l->id);
  call->body_case = STORE__CALL__BODY_LEASE_KEEP_ALIVE;
  call->lease_keep_alive = k;
  send_call(l, call, l->ttl / 3 + AGAIN_NS, kept);
}

struct storec_lease *storec_lease_new(struct storec *c, int64_t ttl_ns, const struct storec_lease_ops *ops, void *arg, struct err *err) {
  struct storec_lease *l = calloc(1, sizeof *l);
  if (!l) {
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  *l = (struct storec_lease){.c = c, .ttl = ttl_ns, .ops = *ops, .arg = arg};
  l->next = (struct loop_timer){.cb = on_next, .arg = l};
  l->end = (struct loop_timer){.cb = on_end, .arg = l};
  if (loop_timer_in(c->loop, &l->next, 0, err) < 0) {
    free(l);
    return NULL;
  }
  return l;
}

static void revoked(void *arg, const Store__Reply *reply, const struct err *err) {
  (void)arg; /* not revoked: it ends by itself */
  (void)reply;
  (void)err;
}

void storec_lease_free(struct storec_lease *l) {
  if (!l || l->dead)
    return;
  if (l->id) {
    Store__Call *call = storec_new_call();
    Store__LeaseRevoke *r = call ? malloc(sizeof *r) : NULL;
    if (r) {
      store__lease_revoke__init(r);
      PB_SET(r, id, l->id);
      call->body_case = STORE__CALL__BODY_LEASE_REVOKE;
      call->lease_revoke = r;
      storec_op_new(l->c, call, REVOKE_TIMEOUT, revoked, NULL);
    } else {
      free(call);
    }
  }
  l->dead = true;
  if (!l->calling)
    destroy(l);
}
