#include "orca-store/store_rpc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/log.h"
#include "orca-store/watch.h"

#define CATCH_UP_EVENTS 1000 /* of one watcher in one turn */
#define STALLED_NS (60 * NS_PER_SEC)
#define STALL_CHECK_NS (10 * NS_PER_SEC)
#define MAX_WATCHERS 100000u
#define SNAPSHOT_CHUNK ((size_t)256 << 10)

/* A call that is answered later. */
struct answer {
  struct store_rpc *rpc;
  struct bus_call *call; /* NULL: the caller has gone */
  enum acl_role role;
  Store__Call *request;
};

struct watching {
  struct store_rpc *rpc;
  struct bus_call *call;
  struct watcher *watcher;
  bool greet; /* a progress item is due once it has caught up */
  bool ended;
  bool too_large; /* the revision it is to be told next */
  bool waits;     /* for credit */
  int64_t waits_since;
  bool queued; /* in the list of those that lag and may go on */
  struct watching *next;
};

struct sending { /* a snapshot on its way */
  struct store_rpc *rpc;
  struct bus_call *call;
  int fd;
  uint64_t offset;
  uint8_t *chunk;
};

struct store_rpc {
  struct loop *loop;
  struct bus *bus;
  struct store *store;
  const struct acl *acl;
  struct bus_listener *listener;
  struct watch_set *watches;
  uint64_t published; /* live watchers have been told up to here */
  struct watching *lagging, **lagging_last;
  struct loop_hook hook;
  struct loop_timer stall;
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

/* ---------------------------------------------------------------- watches */

static void watching_free(struct watching *w) {
  watch_remove(w->rpc->watches, w->watcher);
  w->watcher = NULL;
  w->ended = true;
  if (w->queued)
    return; /* the list lets go of it */
  free(w);
}

static void watching_fail(struct watching *w, const struct err *err) {
  struct bus_call *call = w->call;
  w->call = NULL;
  watching_free(w);
  bus_fail(call, err);
}

static void watching_cancelled(void *arg) {
  struct watching *w = arg;
  w->call = NULL;
  watching_free(w);
}

static void lag(struct watching *w) {
  if (w->queued || w->ended)
    return;
  w->queued = true;
  w->next = NULL;
  *w->rpc->lagging_last = w;
  w->rpc->lagging_last = &w->next;
}

static void watching_ready(void *arg) {
  struct watching *w = arg;
  w->waits = false;
  if (!watch_is_live(w->watcher))
    lag(w);
}

static void wait_for_credit(struct watching *w) {
  struct err err;
  if (w->waits)
    return;
  w->waits = true;
  w->waits_since = loop_now(w->rpc->loop);
  if (!loop_timer_is_set(&w->rpc->stall) && loop_timer_in(w->rpc->loop, &w->rpc->stall, STALL_CHECK_NS, &err) < 0)
    w->waits_since = INT64_MAX / 2; /* never found stalled, then: compaction or the next check gets it */
}

static bool send_watch(void *owner, const Store__WatchItem *watch_item) {
  struct watching *w = owner;
  Store__Item item = STORE__ITEM__INIT;
  item.body_case = STORE__ITEM__BODY_WATCH;
  item.watch = (Store__WatchItem *)(uintptr_t)watch_item;
  switch (bus_push(w->call, &item.base)) {
  case 0:
    return true;
  case 1:
    wait_for_credit(w);
    return false;
  default:
    w->too_large = true; /* it is in use by whoever sends: it is failed from the list */
    lag(w);
    return false;
  }
}

static bool publish_one(void *arg, uint64_t revision, const struct kv_event *events, size_t count) {
  struct store_rpc *rpc = arg;
  watch_publish(rpc->watches, revision, events, count);
  return true;
}

static void tell_progress(void *arg, struct watcher *w) {
  struct store_rpc *rpc = arg;
  if (watch_is_live(w) && watch_next(w) <= rpc->published)
    watch_progress(rpc->watches, w, rpc->published);
}

void store_rpc_changed(struct store_rpc *rpc, bool compacted) {
  if (!rpc)
    return;
  struct err err;
  uint64_t revision = kv_state(store_kv(rpc->store))->revision;
  if (watch_count(rpc->watches) == 0)
    rpc->published = revision;
  if (rpc->published < revision) {
    uint64_t next;
    if (kv_history(store_kv(rpc->store), rpc->published + 1, revision, SIZE_MAX, publish_one, rpc, &next, &err) < 0)
      store_check(rpc->store, &err);
    rpc->published = next - 1;
  }
  if (compacted) /* the quiet ones would else ask for forgotten history after their next reconnection */
    watch_each(rpc->watches, tell_progress, rpc);
}

static bool replay_one(void *arg, uint64_t revision, const struct kv_event *events, size_t count) {
  struct watching *w = arg;
  bool sent = watch_replay(w->rpc->watches, w->watcher, revision, events, count);
  return sent;
}

/* false: nothing more to do for it now. w is gone when it ended. */
static bool catch_up(struct store_rpc *rpc, struct watching *w) {
  struct err err;
  uint64_t next;
  if (kv_history(store_kv(rpc->store), watch_next(w->watcher), rpc->published, CATCH_UP_EVENTS, replay_one, w, &next, &err) < 0) {
    store_check(rpc->store, &err);
    if (err.code == ERR_COMPACTED)
      err_set(&err, ERR_COMPACTED, "revision %" PRIu64 " was compacted before it was told: history begins at %" PRIu64, watch_next(w->watcher),
              kv_state(store_kv(rpc->store))->compact_revision);
    watching_fail(w, &err);
    return false;
  }
  if (w->waits || w->too_large)
    return false;
  watch_caught_up(w->watcher, next, next > rpc->published);
  if (!watch_is_live(w->watcher))
    return true;
  if (w->greet && watch_progress(rpc->watches, w->watcher, rpc->published))
    w->greet = false;
  if (w->greet)
    watch_caught_up(w->watcher, next, false); /* no room for the greeting: comes back with `ready` */
  return false;
}

static bool catch_up_some(void *arg) {
  struct store_rpc *rpc = arg;
  struct watching *list = rpc->lagging;
  rpc->lagging = NULL;
  rpc->lagging_last = &rpc->lagging;
  for (struct watching *w = list, *next; w; w = next) {
    next = w->next;
    w->queued = false;
    struct err err;
    if (w->ended) {
      free(w);
    } else if (w->too_large) {
      err_set(&err, ERR_TOO_LARGE, "revision %" PRIu64 " is too large for one message", watch_next(w->watcher));
      watching_fail(w, &err);
    } else if (!w->waits && !watch_is_live(w->watcher) && catch_up(rpc, w)) {
      lag(w);
    }
  }
  return list != NULL; /* what was sent may have swallowed the bus's wake-up: it looks again before the loop sleeps */
}

struct stalled {
  struct store_rpc *rpc;
  bool some;
};

static void check_stalled(void *arg, struct watcher *watcher) {
  struct stalled *st = arg;
  struct watching *w = watch_owner(watcher);
  if (!w->waits)
    return;
  if (loop_now(st->rpc->loop) - w->waits_since < STALLED_NS) {
    st->some = true;
    return;
  }
  struct err err;
  err_set(&err, ERR_BUSY, "the watch took nothing for %d s and was cut: resume from revision %" PRIu64, (int)(STALLED_NS / NS_PER_SEC),
          watch_next(watcher));
  watching_fail(w, &err);
}

static void on_stall(void *arg) {
  struct stalled st = {.rpc = arg};
  struct err err;
  watch_each(st.rpc->watches, check_stalled, &st);
  if (st.some)
    loop_timer_in(st.rpc->loop, &st.rpc->stall, STALL_CHECK_NS, &err); /* failing: the next one to wait sets it */
}

static int check_watch(struct store_rpc *rpc, enum acl_role role, const Store__WatchRequest *q, struct err *err) {
  uint64_t start = PB_GET(q, start_revision, 0), compact = kv_state(store_kv(rpc->store))->compact_revision;
  if (q->n_ranges == 0 || q->n_ranges > WATCH_MAX_RANGES)
    return err_set(err, ERR_INVALID, "watch: from 1 to %u ranges", WATCH_MAX_RANGES);
  for (size_t i = 0; i < q->n_ranges; i++) {
    const Store__KeyRange *r = q->ranges[i];
    if (r->key.len == 0 || r->key.len > KV_MAX_KEY || r->range_end.len > KV_MAX_KEY)
      return err_set(err, ERR_INVALID, "watch: a key has from 1 to %zu bytes", KV_MAX_KEY);
    if (acl_check_read(role, &r->key, &r->range_end, err) < 0)
      return -1;
  }
  if (start && start < compact)
    return err_set(err, ERR_COMPACTED, "revision %" PRIu64 " was compacted: history begins at %" PRIu64, start, compact);
  if (watch_count(rpc->watches) >= MAX_WATCHERS)
    return err_set(err, ERR_BUSY, "there are %u watches, no more are taken", MAX_WATCHERS);
  return 0;
}

static void on_watch(struct store_rpc *rpc, struct bus_call *call, const Store__WatchRequest *q) {
  static const struct bus_answer_ops ops = {.cancelled = watching_cancelled, .ready = watching_ready};
  uint64_t start = PB_GET(q, start_revision, 0), now = kv_state(store_kv(rpc->store))->revision;
  struct err err;
  struct watching *w = calloc(1, sizeof *w);
  if (watch_count(rpc->watches) == 0)
    rpc->published = now;
  bool live = start == 0 || start > rpc->published;
  if (w) {
    *w = (struct watching){.rpc = rpc, .call = call, .greet = true};
    w->watcher = watch_add(rpc->watches, q->ranges, q->n_ranges, PB_GET(q, prev_kv, false), start ? start : rpc->published + 1, live, w);
  }
  if (!w || !w->watcher) {
    free(w);
    err_set(&err, ERR_MEMORY, "out of memory");
    bus_fail(call, &err);
    return;
  }
  bus_answer_on(call, &ops, w);
  if (!live)
    lag(w);
  else if (start > rpc->published + 1 || watch_progress(rpc->watches, w->watcher, rpc->published))
    w->greet = false; /* of the future: nothing to say yet; or it has just been said */
}

/* ---------------------------------------------------------------- snapshots */

static void sending_free(struct sending *s) {
  if (s->fd >= 0)
    close(s->fd);
  free(s->chunk);
  free(s);
}

static void sending_cancelled(void *arg) {
  struct sending *s = arg;
  s->call = NULL;
  if (s->fd >= 0)
    sending_free(s); /* else the copy is still being made, and is the last to come by */
}

static void send_on(void *arg) {
  struct sending *s = arg;
  for (;;) {
    ssize_t n = pread(s->fd, s->chunk, SNAPSHOT_CHUNK, (off_t)s->offset);
    if (n < 0 && errno == EINTR)
      continue;
    struct err err;
    if (n < 0) {
      struct bus_call *call = s->call;
      err_errno(&err, errno, "the snapshot");
      sending_free(s);
      bus_fail(call, &err);
      return;
    }
    Store__Item item = STORE__ITEM__INIT;
    Store__Chunk chunk = STORE__CHUNK__INIT;
    item.body_case = STORE__ITEM__BODY_CHUNK;
    item.chunk = &chunk;
    PB_SET(&chunk, offset, s->offset);
    chunk.has_data = 1;
    chunk.data = (ProtobufCBinaryData){(size_t)n, s->chunk};
    PB_SET(&chunk, last, n == 0);
    if (bus_push(s->call, &item.base) != 0)
      return; /* no credit: `ready` comes back here */
    s->offset += (uint64_t)n;
    if (n == 0) {
      struct bus_call *call = s->call;
      sending_free(s);
      bus_reply(call, NULL);
      return;
    }
  }
}

static void copy_made(void *arg, int fd, const struct err *err) {
  struct sending *s = arg;
  s->fd = fd;
  if (!s->call) {
    sending_free(s);
  } else if (err) {
    struct bus_call *call = s->call;
    sending_free(s);
    bus_fail(call, err);
  } else {
    send_on(s);
  }
}

static void sending_ready(void *arg) {
  struct sending *s = arg;
  if (s->fd >= 0)
    send_on(s);
}

static void on_snapshot(struct store_rpc *rpc, struct bus_call *call) {
  static const struct bus_answer_ops ops = {.cancelled = sending_cancelled, .ready = sending_ready};
  struct err err;
  struct sending *s = calloc(1, sizeof *s);
  if (!s || !(s->chunk = malloc(SNAPSHOT_CHUNK))) {
    free(s);
    err_set(&err, ERR_MEMORY, "out of memory");
    bus_fail(call, &err);
    return;
  }
  s->rpc = rpc;
  s->call = call;
  s->fd = -1;
  if (store_copy(rpc->store, copy_made, s, &err) < 0) {
    sending_free(s);
    bus_fail(call, &err);
    return;
  }
  bus_answer_on(call, &ops, s);
}

/* ---------------------------------------------------------------- dispatch */

static int need_operator(enum acl_role role, const char *what, struct err *err) {
  return acl_may_operate(role) ? 0 : err_set(err, ERR_DENIED, "%s may not %s", acl_role_name(role), what);
}

static void reply_status(struct store_rpc *rpc, struct bus_call *call) {
  Store__Reply reply = STORE__REPLY__INIT;
  Store__StatusReply status = STORE__STATUS_REPLY__INIT;
  store_status(rpc->store, &status);
  PB_SET(&status, watchers, (uint32_t)watch_count(rpc->watches));
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
    return check_watch(rpc, role, q->watch, err);
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
    on_watch(rpc, call, q->watch);
    break;
  case STORE__CALL__BODY_STATUS:
    reply_status(rpc, call);
    break;
  case STORE__CALL__BODY_SNAPSHOT:
    on_snapshot(rpc, call);
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
  if (!rpc || !(rpc->watches = watch_set_new(send_watch))) {
    free(rpc);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  rpc->loop = loop;
  rpc->bus = bus;
  rpc->store = store;
  rpc->acl = acl;
  rpc->published = kv_state(store_kv(store))->revision;
  rpc->lagging_last = &rpc->lagging;
  rpc->stall = (struct loop_timer){.cb = on_stall, .arg = rpc};
  rpc->hook = (struct loop_hook){.cb = catch_up_some, .arg = rpc};
  rpc->listener = bus_listen(bus, endpoint, allow, &ops, rpc, err);
  if (!rpc->listener) {
    watch_set_free(rpc->watches);
    free(rpc);
    return NULL;
  }
  loop_hook_add(loop, &rpc->hook);
  return rpc;
}

static void end_watch(void *arg, struct watcher *watcher) {
  struct err err;
  (void)arg;
  err_set(&err, ERR_UNAVAILABLE, "the store is stopping");
  watching_fail(watch_owner(watcher), &err);
}

void store_rpc_free(struct store_rpc *rpc) {
  if (!rpc)
    return;
  watch_each(rpc->watches, end_watch, rpc);
  catch_up_some(rpc); /* frees those that ended while they were queued */
  loop_hook_remove(rpc->loop, &rpc->hook);
  loop_timer_cancel(rpc->loop, &rpc->stall);
  bus_listener_free(rpc->listener);
  watch_set_free(rpc->watches);
  free(rpc);
}

void store_rpc_recheck(struct store_rpc *rpc) {
  bus_listener_recheck(rpc->listener);
}
