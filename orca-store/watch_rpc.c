#include "orca-store/watch_rpc.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/bus/pb.h"
#include "orca-store/watch.h"

#define CATCH_UP_EVENTS 1000 /* of one watcher in one turn */
#define STALLED_NS (60 * NS_PER_SEC)
#define STALL_CHECK_NS (10 * NS_PER_SEC)
#define MAX_WATCHERS 100000u

struct watching {
  struct watch_rpc *rpc;
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

struct watch_rpc {
  struct loop *loop;
  struct store *store;
  struct watch_set *watches;
  uint64_t published; /* live watchers have been told up to here */
  struct watching *lagging, **lagging_last;
  struct loop_hook hook;
  struct loop_timer stall;
};

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
  struct watch_rpc *rpc = arg;
  watch_publish(rpc->watches, revision, events, count);
  return true;
}

static void tell_progress(void *arg, struct watcher *w) {
  struct watch_rpc *rpc = arg;
  if (watch_is_live(w) && watch_next(w) <= rpc->published)
    watch_progress(rpc->watches, w, rpc->published);
}

void watch_rpc_changed(struct watch_rpc *rpc, bool compacted) {
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
static bool catch_up(struct watch_rpc *rpc, struct watching *w) {
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
  struct watch_rpc *rpc = arg;
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
  struct watch_rpc *rpc;
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

int watch_rpc_check(struct watch_rpc *rpc, enum acl_role role, const Store__WatchRequest *q, struct err *err) {
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

void watch_rpc_start(struct watch_rpc *rpc, struct bus_call *call, const Store__WatchRequest *q) {
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

size_t watch_rpc_count(const struct watch_rpc *rpc) {
  return watch_count(rpc->watches);
}

struct watch_rpc *watch_rpc_new(struct loop *loop, struct store *store) {
  struct watch_rpc *rpc = calloc(1, sizeof *rpc);
  if (!rpc || !(rpc->watches = watch_set_new(send_watch))) {
    free(rpc);
    return NULL;
  }
  rpc->loop = loop;
  rpc->store = store;
  rpc->published = kv_state(store_kv(store))->revision;
  rpc->lagging_last = &rpc->lagging;
  rpc->stall = (struct loop_timer){.cb = on_stall, .arg = rpc};
  rpc->hook = (struct loop_hook){.cb = catch_up_some, .arg = rpc};
  loop_hook_add(loop, &rpc->hook);
  return rpc;
}

static void end_watch(void *arg, struct watcher *watcher) {
  struct err err;
  (void)arg;
  err_set(&err, ERR_UNAVAILABLE, "the store is stopping");
  watching_fail(watch_owner(watcher), &err);
}

void watch_rpc_free(struct watch_rpc *rpc) {
  watch_each(rpc->watches, end_watch, rpc);
  catch_up_some(rpc); /* frees those that ended while they were queued */
  loop_hook_remove(rpc->loop, &rpc->hook);
  loop_timer_cancel(rpc->loop, &rpc->stall);
  watch_set_free(rpc->watches);
  free(rpc);
}
