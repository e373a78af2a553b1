/* What the leader does by itself: it ends leases by its own clock, and has old history compacted. */
#include "orca-store/store_int.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

/* History is kept for ten minutes and at least so many revisions, but not beyond so many bytes. */
#define HISTORY_SAMPLE_NS (60 * NS_PER_SEC)
#define HISTORY_REVISIONS UINT64_C(10000)
#define HISTORY_BYTES ((uint64_t)256 << 20)

static void propose_call(struct store *s, const Store__Call *call, store_done_fn *done, void *arg) {
  struct buf packed = BUF_INIT(4096);
  struct err err;
  if (pb_pack(&call->base, &packed) < 0) {
    err_set(&err, ERR_MEMORY, "out of memory");
    done(arg, NULL, &err);
  } else {
    store_propose(s, packed.data, packed.len, 0, done, arg);
  }
  buf_free(&packed);
}

/* ---------------------------------------------------------------- leases */

static void add_lease(void *arg, uint64_t id, uint64_t ttl_ms) {
  struct store *s = arg;
  struct err err;
  if (lease_clock_add(s->leader.leases, id, (int64_t)ttl_ms * NS_PER_MS, loop_now(s->loop)) < 0) {
    err_set(&err, ERR_MEMORY, "out of memory");
    store_fatal(s, &err);
  }
}

void store_leader_applied(struct store *s, const struct kv_result *r) {
  if (r->lease_granted && store_is_leader(s)) {
    add_lease(s, r->lease_granted, r->lease_granted_ttl_ms);
    store_set_timer(s, &s->leader.lease_timer, lease_clock_deadline(s->leader.leases));
  }
  if (r->lease_revoked)
    lease_clock_remove(s->leader.leases, r->lease_revoked);
  if (r->compacted)
    s->leader.compacting = false;
}

struct expiry {
  struct store *s;
  uint64_t id;
};

static void expired(void *arg, const struct kv_result *result, const struct err *err) {
  struct expiry *e = arg;
  struct store *s = e->s;
  (void)result; /* revoked, or it was already */
  if (err) {
    lease_clock_retry(s->leader.leases, e->id, loop_now(s->loop) + NS_PER_SEC);
    if (!s->stopping)
      store_set_timer(s, &s->leader.lease_timer, lease_clock_deadline(s->leader.leases));
  }
  free(e);
}

static void on_lease(void *arg) {
  struct store *s = arg;
  for (uint64_t id; (id = lease_clock_expired(s->leader.leases, loop_now(s->loop))) != 0;) {
    struct expiry *e = malloc(sizeof *e);
    if (!e) {
      lease_clock_retry(s->leader.leases, id, loop_now(s->loop) + NS_PER_SEC);
      break;
    }
    *e = (struct expiry){s, id};
    Store__Call call = STORE__CALL__INIT;
    Store__LeaseRevoke revoke = STORE__LEASE_REVOKE__INIT;
    PB_SET(&revoke, id, id);
    call.body_case = STORE__CALL__BODY_LEASE_REVOKE;
    call.lease_revoke = &revoke;
    propose_call(s, &call, expired, e);
  }
  store_set_timer(s, &s->leader.lease_timer, lease_clock_deadline(s->leader.leases));
}

bool store_keep_alive(struct store *s, uint64_t id, uint64_t *ret_ttl_ms) {
  int64_t ttl;
  if (!lease_clock_keep_alive(s->leader.leases, id, loop_now(s->loop)) || lease_clock_left(s->leader.leases, id, loop_now(s->loop), &ttl) < 0)
    return false;
  *ret_ttl_ms = (uint64_t)(ttl / NS_PER_MS);
  return true;
}

int64_t store_lease_left_ms(struct store *s, uint64_t id) {
  int64_t left = lease_clock_left(s->leader.leases, id, loop_now(s->loop), NULL);
  return left < 0 ? -1 : left / NS_PER_MS;
}

/* ---------------------------------------------------------------- history */

static void compacted(void *arg, const struct kv_result *result, const struct err *err) {
  struct store *s = arg;
  (void)result;
  (void)err; /* it is tried again with the next sample */
  s->leader.compacting = false;
}

static void compact(struct store *s, uint64_t revision) {
  if (s->leader.compacting || revision <= kv_state(s->kv)->compact_revision || !store_is_leader(s))
    return;
  s->leader.compacting = true;
  Store__Call call = STORE__CALL__INIT;
  Store__Compact c = STORE__COMPACT__INIT;
  PB_SET(&c, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &c;
  propose_call(s, &call, compacted, s);
}

/* The timer runs only while there is history that will have to go: an idle store has none. */
void store_leader_plan_history(struct store *s) {
  const struct kv_state *st = kv_state(s->kv);
  uint64_t kept = st->revision - st->compact_revision;
  if (!store_is_leader(s))
    return;
  if (st->history_bytes > HISTORY_BYTES && !kv_trim_pending(s->kv))
    compact(s, st->revision - kept / 2);
  if (kept > HISTORY_REVISIONS && !loop_timer_is_set(&s->leader.history_timer))
    store_set_timer(s, &s->leader.history_timer, loop_now(s->loop) + HISTORY_SAMPLE_NS);
}

static void on_history(void *arg) {
  struct store *s = arg;
  const struct kv_state *st = kv_state(s->kv);
  if (s->leader.n_samples == STORE_HISTORY_SAMPLES) {
    uint64_t old = s->leader.samples[0], most = st->revision - HISTORY_REVISIONS;
    memmove(s->leader.samples, s->leader.samples + 1, (STORE_HISTORY_SAMPLES - 1) * sizeof s->leader.samples[0]);
    s->leader.n_samples--;
    if (st->revision > HISTORY_REVISIONS)
      compact(s, old < most ? old : most);
  }
  s->leader.samples[s->leader.n_samples++] = st->revision;
  store_leader_plan_history(s);
}

/* ---------------------------------------------------------------- beginning and end */

void store_leader_changed(struct store *s) {
  lease_clock_reset(s->leader.leases);
  if (!store_is_leader(s)) {
    loop_timer_cancel(s->loop, &s->leader.lease_timer);
    loop_timer_cancel(s->loop, &s->leader.history_timer);
    return;
  }
  struct err err;
  /* Nobody knows how much of each lease's time had passed: all get it in full. */
  if (kv_leases(s->kv, add_lease, s, &err) < 0)
    store_fatal(s, &err);
  store_set_timer(s, &s->leader.lease_timer, lease_clock_deadline(s->leader.leases));
  store_leader_plan_history(s);
}

int store_leader_init(struct store *s, struct err *err) {
  s->leader.lease_timer = (struct loop_timer){.cb = on_lease, .arg = s};
  s->leader.history_timer = (struct loop_timer){.cb = on_history, .arg = s};
  s->leader.leases = lease_clock_new();
  return s->leader.leases ? 0 : err_set(err, ERR_MEMORY, "out of memory");
}

void store_leader_fini(struct store *s) {
  loop_timer_cancel(s->loop, &s->leader.lease_timer);
  loop_timer_cancel(s->loop, &s->leader.history_timer);
  lease_clock_free(s->leader.leases);
}
