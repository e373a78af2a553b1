#include "orca-store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/daemon/daemon.h"
#include "orca-store/disk.h"
#include "orca-store/lease.h"
#include "orca-store/log.h"
#include "orca-store/mark.h"
#include "orca-store/snapshot.h"

#define FOUNDER 1 /* the member that founds a cluster; those who join are given numbers */
#define BATCH_ENTRIES 2048u
#define BATCH_BYTES ((size_t)16 << 20)
#define PENDING_MAX ((size_t)32 << 20) /* bytes that were proposed and are not applied */
#define SPACE_AGAIN_NS (250 * NS_PER_MS)
#define SNAPSHOT_ENTRIES UINT64_C(100000)
#define SNAPSHOT_BYTES ((uint64_t)64 << 20)
#define SNAPSHOTS_KEPT 2u
/* History is kept for ten minutes and at least so many revisions, but not beyond so many bytes. */
#define HISTORY_SAMPLE_NS (60 * NS_PER_SEC)
#define HISTORY_SAMPLES 10u
#define HISTORY_REVISIONS UINT64_C(10000)
#define HISTORY_BYTES ((uint64_t)256 << 20)

struct proposal {
  uint8_t *data;
  size_t len, weight;
  uint64_t index, term;
  store_done_fn *done;
  void *arg;
};

/* A queue in an array: taken from the front, put at the back. */
struct proposals {
  struct proposal *list;
  size_t head, count, size;
};

struct reader {
  store_read_fn *done;
  void *arg;
  struct reader *next;
};
struct read_round { /* readers that share one ReadIndex */
  uint64_t id, index;
  bool confirmed;
  struct reader *first, **last;
  struct read_round *next;
};

struct job { /* what the thread for files does */
  enum { JOB_COPY, JOB_COPY_OUT, JOB_COMMIT } kind;
  char path[SNAPSHOT_PATH_MAX];
  struct snapshot_meta meta;
  int fd;
  bool failed;
  struct err err;
  store_copy_fn *done;
  void *arg;
};

struct store {
  struct loop *loop;
  const struct store_ops *ops;
  void *arg;
  char *dir, *node;
  char log_dir[SNAPSHOT_PATH_MAX], kv_dir[SNAPSHOT_PATH_MAX], snap_dir[SNAPSHOT_PATH_MAX];
  uint8_t cluster_id[DLOG_CLUSTER_ID];
  size_t map_size;
  uint64_t snapshot_entries, snapshot_bytes;

  struct dlog *log;
  struct raft *raft;
  struct raft_actions actions;
  struct kv *kv;
  struct lease_clock *leases;
  bool serving, stopping;
  char fault[256]; /* the last refusal for want of space; "" when none */

  struct loop_hook hook;
  struct loop_timer tick, lease_timer, space_timer, history_timer;
  struct proposals fresh, waiting;      /* not yet in the log; in it, by index */
  size_t pending_bytes, pending_weight; /* of those that add something */
  struct reader *readers, **readers_last;
  struct read_round *rounds, **rounds_last;
  uint64_t next_round;
  uint64_t commit; /* may be applied */
  size_t batch_limit;
  struct buf scratch;

  pthread_t syncer;
  bool syncer_runs;
  pthread_mutex_t lock; /* of what the syncing thread shares: */
  pthread_cond_t wake;
  bool sync_wanted, sync_quit;
  struct raft_stable synced;
  bool sync_failed;
  struct err sync_err;
  bool sync_posted;

  struct job job;
  pthread_t worker;
  bool job_runs;
  uint64_t snapshot_index, snapshot_before; /* newest and the one before it */
  uint64_t snapshot_bytes_at;               /* bytes proposed since */
  int64_t snapshot_not_before;

  struct {
    uint64_t revision;
  } samples[HISTORY_SAMPLES];
  size_t n_samples;
  bool compacting;
};

static void act(struct store *s);
static void apply(struct store *s);
static void plan_history(struct store *s);

static void fatal(struct store *s, const struct err *err) {
  s->stopping = true;
  s->ops->fatal(s->arg, err);
}

static void step(struct store *s, const struct raft_event *ev) {
  if (raft_step(s->raft, ev, loop_now(s->loop), &s->actions) < 0) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    fatal(s, &err);
    return;
  }
  act(s);
}

/* ---------------------------------------------------------------- queues */

static int push(struct proposals *q, const struct proposal *p) {
  if (q->count == q->size) {
    size_t size = q->size ? 2 * q->size : 64;
    struct proposal *grown = malloc(size * sizeof *grown);
    if (!grown)
      return -1;
    for (size_t i = 0; i < q->count; i++)
      grown[i] = q->list[(q->head + i) & (q->size - 1)];
    free(q->list);
    q->list = grown;
    q->head = 0;
    q->size = size;
  }
  q->list[(q->head + q->count++) & (q->size - 1)] = *p;
  return 0;
}

static struct proposal *front(struct proposals *q, size_t i) {
  return i < q->count ? &q->list[(q->head + i) & (q->size - 1)] : NULL;
}

static struct proposal pop(struct proposals *q) {
  struct proposal p = q->list[q->head];
  q->head = (q->head + 1) & (q->size - 1);
  q->count--;
  return p;
}

/* It is no longer on its way to the map. */
static void drop(struct store *s, struct proposal *p) {
  if (p->weight) {
    s->pending_bytes -= p->len;
    s->pending_weight -= p->weight;
  }
  free(p->data);
}

static void refuse(struct store *s, struct proposal *p, const struct err *err) {
  p->done(p->arg, NULL, err);
  drop(s, p);
}

static void note_fault(struct store *s, const struct err *err) {
  if (err->code == ERR_NO_SPACE) {
    if (!s->fault[0])
      s->ops->note(s->arg, "writes are refused", err->msg);
    snprintf(s->fault, sizeof s->fault, "writes are refused: %.200s", err->msg);
  } else if (err->code == ERR_NONE && s->fault[0]) {
    s->fault[0] = 0;
    s->ops->note(s->arg, "writes are taken again", "there is room");
  }
}

/* ---------------------------------------------------------------- syncing */

static void sync_ended(void *arg) {
  struct store *s = arg;
  struct raft_event ev = {.type = RAFT_EV_STABLE};
  pthread_mutex_lock(&s->lock);
  s->sync_posted = false;
  ev.stable = s->synced;
  bool failed = s->sync_failed;
  pthread_mutex_unlock(&s->lock);
  if (s->stopping)
    return;
  if (failed) {
    fatal(s, &s->sync_err);
    return;
  }
  step(s, &ev);
}

static void *syncer(void *arg) {
  struct store *s = arg;
  pthread_mutex_lock(&s->lock);
  for (;;) {
    while (!s->sync_wanted && !s->sync_quit)
      pthread_cond_wait(&s->wake, &s->lock);
    if (!s->sync_wanted)
      break;
    s->sync_wanted = false;
    pthread_mutex_unlock(&s->lock);
    struct raft_stable stable;
    struct err err;
    uint64_t ticket;
    int rc = dlog_sync(s->log, &stable, &ticket, &err);
    pthread_mutex_lock(&s->lock);
    if (rc < 0) {
      s->sync_failed = true;
      s->sync_err = err;
    } else {
      s->synced = stable;
    }
    bool post = !s->sync_posted;
    s->sync_posted = true;
    /* Without memory for the message nobody would ever learn of this sync: then the next one's stands for both, and there is always a next one
     * as long as anybody waits and asks again. */
    if (post && loop_post(s->loop, sync_ended, s) < 0)
      s->sync_posted = false;
    if (rc < 0)
      break;
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

static void want_sync(struct store *s) {
  pthread_mutex_lock(&s->lock);
  s->sync_wanted = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->lock);
}

/* ---------------------------------------------------------------- what the core says */

static void set_timer(struct store *s, struct loop_timer *timer, int64_t at) {
  struct err err;
  if (at == INT64_MAX)
    loop_timer_cancel(s->loop, timer);
  else if (loop_timer_at(s->loop, timer, at, &err) < 0)
    fatal(s, &err);
}

static void add_lease(void *arg, uint64_t id, uint64_t ttl_ms) {
  struct store *s = arg;
  struct err err;
  if (lease_clock_add(s->leases, id, (int64_t)ttl_ms * NS_PER_MS, loop_now(s->loop)) < 0) {
    err_set(&err, ERR_MEMORY, "out of memory");
    fatal(s, &err);
  }
}

static void role_changed(struct store *s) {
  struct err err;
  lease_clock_reset(s->leases);
  if (raft_role(s->raft) == RAFT_LEADER) {
    /* Nobody knows how much of each lease's time had passed: all get it in full. */
    if (kv_leases(s->kv, add_lease, s, &err) < 0)
      fatal(s, &err);
    set_timer(s, &s->lease_timer, lease_clock_deadline(s->leases));
    plan_history(s);
    return;
  }
  loop_timer_cancel(s->loop, &s->lease_timer);
  loop_timer_cancel(s->loop, &s->history_timer);
  err_set(&err, ERR_UNAVAILABLE, "this store is not the leader any more: the outcome is not known");
  while (s->waiting.count) {
    struct proposal p = pop(&s->waiting);
    refuse(s, &p, &err);
  }
}

static void write_log(struct store *s) {
  struct raft_actions *a = &s->actions;
  struct err err;
  for (size_t i = 0; i < a->n_append; i++)
    s->snapshot_bytes_at += a->append[i].len;
  if (dlog_write(s->log, a->hard_changed ? &a->hard : NULL, a->append, a->n_append, &err) == 0) {
    want_sync(s);
    return;
  }
  if (err.code != ERR_NO_SPACE) {
    fatal(s, &err);
    return;
  }
  note_fault(s, &err);
  struct raft_event ev = {.type = RAFT_EV_WRITE_FAILED, .stable = dlog_mark(s->log)};
  struct proposals keep = {0};
  while (s->waiting.count) {
    struct proposal p = pop(&s->waiting);
    if (p.index > ev.stable.index || push(&keep, &p) < 0)
      refuse(s, &p, &err);
  }
  free(s->waiting.list);
  s->waiting = keep;
  step(s, &ev);
}

static void finish_round(struct read_round *round, const struct err *err) {
  for (struct reader *r = round->first, *next; r; r = next) {
    next = r->next;
    r->done(r->arg, err);
    free(r);
  }
  free(round);
}

static void answer_reads(struct store *s) {
  struct read_round **at = &s->rounds;
  uint64_t applied = kv_state(s->kv)->applied_index;
  while (*at) {
    struct read_round *round = *at;
    if (!round->confirmed || round->index > applied) {
      at = &round->next;
      continue;
    }
    *at = round->next;
    if (!*at)
      s->rounds_last = at;
    finish_round(round, NULL);
  }
}

static void note_read(struct store *s, const struct raft_read *read) {
  struct err err;
  for (struct read_round **at = &s->rounds; *at; at = &(*at)->next) {
    struct read_round *round = *at;
    if (round->id != read->id)
      continue;
    if (read->ok) {
      round->confirmed = true;
      round->index = read->index;
      return;
    }
    *at = round->next;
    if (!*at)
      s->rounds_last = at;
    err_set(&err, ERR_NO_LEADER, "this store is not the leader");
    finish_round(round, &err);
    return;
  }
}

/* In the order of raft.h's contract. There are no messages while there is one member. */
static void act(struct store *s) {
  struct raft_actions *a = &s->actions;
  bool role = a->role_changed;
  s->commit = a->commit > s->commit ? a->commit : s->commit;
  for (size_t i = 0; i < a->n_reads; i++)
    note_read(s, &a->reads[i]);
  if (a->write)
    write_log(s);
  if (s->stopping)
    return;
  set_timer(s, &s->tick, a->deadline);
  if (role)
    role_changed(s);
  if (!s->stopping && s->commit > kv_state(s->kv)->applied_index)
    apply(s);
  if (!s->stopping)
    answer_reads(s);
}

static void on_tick(void *arg) {
  struct raft_event ev = {.type = RAFT_EV_TICK};
  step(arg, &ev);
}

/* ---------------------------------------------------------------- applying */

static const struct proposal *proposal_of(struct store *s, uint64_t index, size_t *next) {
  for (struct proposal *p; (p = front(&s->waiting, *next)) && p->index <= index; (*next)++)
    if (p->index == index)
      return p;
  return NULL;
}

static void took(struct store *s, const struct kv_result *r) {
  if (r->lease_granted && raft_role(s->raft) == RAFT_LEADER) {
    add_lease(s, r->lease_granted, r->lease_granted_ttl_ms);
    set_timer(s, &s->lease_timer, lease_clock_deadline(s->leases));
  }
  if (r->lease_revoked)
    lease_clock_remove(s->leases, r->lease_revoked);
}

static int apply_entries(struct store *s, uint64_t first, size_t n, struct kv_result *results, struct err *err) {
  size_t bytes = 0, next = 0;
  for (size_t i = 0; i < n; i++) {
    const struct proposal *p = proposal_of(s, first + i, &next);
    bytes += p ? p->len : 4096;
  }
  if (kv_begin(s->kv, bytes, n, err) < 0)
    return -1;
  next = 0;
  for (size_t i = 0; i < n; i++) {
    const struct proposal *p = proposal_of(s, first + i, &next);
    const uint8_t *data = NULL;
    size_t len = 0;
    uint64_t term = raft_term_at(s->raft, first + i);
    if (p && p->term == term) {
      data = p->data;
      len = p->len;
    } else {
      struct raft_entry entry;
      buf_reset(&s->scratch);
      if (dlog_read(s->log, first + i, &entry, &s->scratch, err) < 0)
        return -1;
      term = entry.term;
      if (entry.type == RAFT_ENTRY_DATA) {
        data = s->scratch.data;
        len = entry.len;
      }
    }
    if (kv_apply(s->kv, first + i, term, data, len, &results[i], err) < 0)
      return -1;
  }
  return kv_commit(s->kv, err);
}

static void free_results(struct kv_result *results, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (results[i].reply)
      store__reply__free_unpacked(results[i].reply, NULL);
  free(results);
}

static size_t batch_size(struct store *s) {
  uint64_t first = kv_state(s->kv)->applied_index + 1;
  size_t n = s->commit - first + 1 < s->batch_limit ? (size_t)(s->commit - first + 1) : s->batch_limit;
  size_t bytes = 0;
  for (size_t i = 0; i < s->waiting.count && i < n; i++) {
    bytes += front(&s->waiting, i)->len;
    if (bytes > BATCH_BYTES)
      return i ? i : 1;
  }
  return n;
}

/* One transaction of the map. false: not now. */
static bool apply_batch(struct store *s) {
  struct err err;
  uint64_t first = kv_state(s->kv)->applied_index + 1;
  size_t n = batch_size(s);
  struct kv_result *results = calloc(n, sizeof *results);
  if (!results) {
    err_set(&err, ERR_MEMORY, "out of memory");
    fatal(s, &err);
    return false;
  }
  uint64_t revision = kv_state(s->kv)->revision;
  if (apply_entries(s, first, n, results, &err) < 0) {
    kv_abort(s->kv);
    free_results(results, n);
    if (err.code != ERR_NO_SPACE) {
      fatal(s, &err);
      return false;
    }
    /* They are committed: nobody hears of them before there is room again. Smaller steps need less of it. */
    note_fault(s, &err);
    s->batch_limit = 1;
    set_timer(s, &s->space_timer, loop_now(s->loop) + SPACE_AGAIN_NS);
    return false;
  }
  s->batch_limit = s->batch_limit < BATCH_ENTRIES ? 2 * s->batch_limit : BATCH_ENTRIES;
  bool compacted = false;
  for (size_t i = 0; i < n; i++) {
    took(s, &results[i]);
    compacted |= results[i].compacted;
  }
  for (size_t i = 0; i < n && !s->stopping; i++) {
    struct proposal *p;
    while ((p = front(&s->waiting, 0)) && p->index <= first + i) {
      struct proposal mine = pop(&s->waiting);
      bool same = mine.index == first + i && mine.term == raft_term_at(s->raft, mine.index);
      if (same) {
        mine.done(mine.arg, &results[i], NULL);
      } else {
        err_set(&err, ERR_UNAVAILABLE, "another leader's entry took its place");
        mine.done(mine.arg, NULL, &err);
      }
      drop(s, &mine);
    }
  }
  free_results(results, n);
  if (compacted)
    s->compacting = false;
  if (kv_state(s->kv)->revision != revision || compacted)
    s->ops->changed(s->arg, compacted);
  return true;
}

static void begin_snapshot(struct store *s);

static void apply(struct store *s) {
  while (!s->stopping && !loop_timer_is_set(&s->space_timer) && kv_state(s->kv)->applied_index < s->commit)
    if (!apply_batch(s))
      return;
  if (s->stopping)
    return;
  if (!s->serving && raft_role(s->raft) == RAFT_LEADER && kv_state(s->kv)->applied_index >= raft_last_index(s->raft) &&
      kv_state(s->kv)->applied_term == raft_term(s->raft)) {
    s->serving = true;
    s->ops->serving(s->arg);
  }
  plan_history(s);
  uint64_t applied = kv_state(s->kv)->applied_index;
  if (!s->job_runs && loop_now(s->loop) >= s->snapshot_not_before &&
      (applied - s->snapshot_index >= s->snapshot_entries || s->snapshot_bytes_at >= s->snapshot_bytes))
    begin_snapshot(s);
}

static void on_space(void *arg) {
  struct store *s = arg;
  apply(s);
  answer_reads(s);
}

/* ---------------------------------------------------------------- proposing and reading */

static void propose_some(struct store *s) {
  struct raft_entry entries[256];
  size_t n = 0, bytes = 0;
  struct err err;
  for (struct proposal *p; n < 256 && (p = front(&s->fresh, n)) && (n == 0 || bytes + p->len <= BATCH_BYTES); n++) {
    entries[n] = (struct raft_entry){.type = RAFT_ENTRY_DATA, .data = p->data, .len = p->len};
    bytes += p->len;
  }
  if (dlog_reserve(s->log, n, bytes, &err) < 0) {
    if (err.code != ERR_NO_SPACE && err.code != ERR_TOO_LARGE) {
      fatal(s, &err);
      return;
    }
    note_fault(s, &err);
    while (n--) {
      struct proposal p = pop(&s->fresh);
      refuse(s, &p, &err);
    }
    return;
  }
  if (!loop_timer_is_set(&s->space_timer))
    note_fault(s, &(struct err){.code = ERR_NONE});
  struct raft_event ev = {.type = RAFT_EV_PROPOSE, .entries = entries, .n_entries = n};
  if (raft_step(s->raft, &ev, loop_now(s->loop), &s->actions) < 0) {
    err_set(&err, ERR_MEMORY, "out of memory");
    fatal(s, &err);
    return;
  }
  enum err_code said = s->actions.proposed;
  for (size_t i = 0; i < n; i++) {
    struct proposal p = pop(&s->fresh);
    p.index = s->actions.proposed_first + i;
    p.term = s->actions.proposed_term;
    if (said != ERR_NONE) {
      err_set(&err, said, said == ERR_NO_LEADER ? "this store is not the leader" : "the proposal was not taken");
      refuse(s, &p, &err);
    } else if (push(&s->waiting, &p) < 0) {
      err_set(&err, ERR_MEMORY, "out of memory"); /* the core's actions point into it */
      fatal(s, &err);
      return;
    }
  }
  act(s);
}

static void read_some(struct store *s) {
  struct read_round *round = calloc(1, sizeof *round);
  struct reader *first = s->readers;
  struct reader **last = s->readers_last;
  s->readers = NULL;
  s->readers_last = &s->readers;
  if (!round) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    for (struct reader *r = first, *next; r; r = next) {
      next = r->next;
      r->done(r->arg, &err);
      free(r);
    }
    return;
  }
  *round = (struct read_round){.id = ++s->next_round, .first = first, .last = last};
  *s->rounds_last = round;
  s->rounds_last = &round->next;
  struct raft_event ev = {.type = RAFT_EV_READ, .read_id = round->id};
  step(s, &ev);
}

/* At the end of each round of the loop: all that arrived in it goes together. */
static bool flush(void *arg) {
  struct store *s = arg;
  if (s->stopping)
    return false;
  /* Answers that leave here may swallow the bus's wake-up (ZMQ_FD is edge-triggered): it must look again before the loop sleeps. */
  bool worked = s->fresh.count || s->readers;
  if (s->fresh.count)
    propose_some(s);
  if (!s->stopping && s->readers)
    read_some(s);
  if (!s->stopping && kv_trim_pending(s->kv) && !s->fresh.count && !s->waiting.count && !loop_timer_is_set(&s->space_timer)) {
    struct err err;
    if (kv_begin(s->kv, 0, 0, &err) < 0 || kv_commit(s->kv, &err) < 0) {
      kv_abort(s->kv);
      if (err.code != ERR_NO_SPACE)
        fatal(s, &err);
      else
        set_timer(s, &s->space_timer, loop_now(s->loop) + SPACE_AGAIN_NS);
      return false;
    }
    return true;
  }
  return worked;
}

void store_propose(struct store *s, const uint8_t *call, size_t len, size_t weight, store_done_fn *done, void *arg) {
  struct err err;
  struct buf data = BUF_INIT(KV_MAX_TXN + 65536);
  struct proposal p = {.done = done, .arg = arg, .weight = weight};
  if (len > KV_MAX_TXN) {
    err_set(&err, ERR_TOO_LARGE, "txn: at most %zu bytes, this one has %zu", KV_MAX_TXN, len);
    done(arg, NULL, &err);
    return;
  }
  if (s->pending_bytes + len > PENDING_MAX) {
    err_set(&err, ERR_BUSY, "%zu MiB wait to be written: try again", PENDING_MAX >> 20);
    done(arg, NULL, &err);
    return;
  }
  if (weight && kv_room(s->kv, s->pending_bytes + len, s->pending_weight + weight, &err) < 0) {
    note_fault(s, &err);
    done(arg, NULL, &err);
    return;
  }
  kv_command(&data, (uint64_t)(loop_wall(s->loop) / NS_PER_MS), call, len);
  p.data = buf_take(&data, &p.len);
  if (!p.data || push(&s->fresh, &p) < 0) {
    free(p.data);
    err_set(&err, ERR_MEMORY, "out of memory");
    done(arg, NULL, &err);
  } else if (weight) {
    s->pending_bytes += p.len;
    s->pending_weight += weight;
  }
}

void store_read(struct store *s, store_read_fn *done, void *arg) {
  struct reader *r = malloc(sizeof *r);
  if (!r) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    done(arg, &err);
    return;
  }
  *r = (struct reader){.done = done, .arg = arg};
  *s->readers_last = r;
  s->readers_last = &r->next;
}

struct kv *store_kv(struct store *s) {
  return s->kv;
}

void store_check(struct store *s, const struct err *err) {
  if (err->code == ERR_CORRUPT)
    fatal(s, err);
}

bool store_is_leader(const struct store *s) {
  return raft_role(s->raft) == RAFT_LEADER;
}

/* ---------------------------------------------------------------- what the leader proposes by itself */

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

struct expiry {
  struct store *s;
  uint64_t id;
};

static void expired(void *arg, const struct kv_result *result, const struct err *err) {
  struct expiry *e = arg;
  struct store *s = e->s;
  (void)result; /* revoked, or it was already */
  if (err) {
    lease_clock_retry(s->leases, e->id, loop_now(s->loop) + NS_PER_SEC);
    if (!s->stopping)
      set_timer(s, &s->lease_timer, lease_clock_deadline(s->leases));
  }
  free(e);
}

static void on_lease(void *arg) {
  struct store *s = arg;
  for (uint64_t id; (id = lease_clock_expired(s->leases, loop_now(s->loop))) != 0;) {
    struct expiry *e = malloc(sizeof *e);
    if (!e) {
      lease_clock_retry(s->leases, id, loop_now(s->loop) + NS_PER_SEC);
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
  set_timer(s, &s->lease_timer, lease_clock_deadline(s->leases));
}

bool store_keep_alive(struct store *s, uint64_t id, uint64_t *ret_ttl_ms) {
  int64_t ttl;
  if (!lease_clock_keep_alive(s->leases, id, loop_now(s->loop)) || lease_clock_left(s->leases, id, loop_now(s->loop), &ttl) < 0)
    return false;
  *ret_ttl_ms = (uint64_t)(ttl / NS_PER_MS);
  return true;
}

int64_t store_lease_left_ms(struct store *s, uint64_t id) {
  int64_t left = lease_clock_left(s->leases, id, loop_now(s->loop), NULL);
  return left < 0 ? -1 : left / NS_PER_MS;
}

static void compacted(void *arg, const struct kv_result *result, const struct err *err) {
  struct store *s = arg;
  (void)result;
  (void)err; /* it is tried again with the next sample */
  s->compacting = false;
}

static void compact(struct store *s, uint64_t revision) {
  if (s->compacting || revision <= kv_state(s->kv)->compact_revision || !store_is_leader(s))
    return;
  s->compacting = true;
  Store__Call call = STORE__CALL__INIT;
  Store__Compact c = STORE__COMPACT__INIT;
  PB_SET(&c, revision, revision);
  call.body_case = STORE__CALL__BODY_COMPACT;
  call.compact = &c;
  propose_call(s, &call, compacted, s);
}

/* The timer runs only while there is history that will have to go: an idle store has none. */
static void plan_history(struct store *s) {
  const struct kv_state *st = kv_state(s->kv);
  uint64_t kept = st->revision - st->compact_revision;
  if (!store_is_leader(s))
    return;
  if (st->history_bytes > HISTORY_BYTES && !kv_trim_pending(s->kv))
    compact(s, st->revision - kept / 2);
  if (kept > HISTORY_REVISIONS && !loop_timer_is_set(&s->history_timer))
    set_timer(s, &s->history_timer, loop_now(s->loop) + HISTORY_SAMPLE_NS);
}

static void on_history(void *arg) {
  struct store *s = arg;
  const struct kv_state *st = kv_state(s->kv);
  if (s->n_samples == HISTORY_SAMPLES) {
    uint64_t old = s->samples[0].revision, most = st->revision - HISTORY_REVISIONS;
    memmove(s->samples, s->samples + 1, (HISTORY_SAMPLES - 1) * sizeof s->samples[0]);
    s->n_samples--;
    if (st->revision > HISTORY_REVISIONS)
      compact(s, old < most ? old : most);
  }
  s->samples[s->n_samples++].revision = st->revision;
  plan_history(s);
}

/* ---------------------------------------------------------------- snapshots */

static void job_ended(void *arg);

static int copy_out(struct job *job, struct kv *kv) {
  if (kv_copy(kv, job->path, &job->err) < 0)
    return -1;
  job->fd = open(job->path, O_RDONLY | O_CLOEXEC);
  if (job->fd < 0)
    return err_errno(&job->err, errno, "%s", job->path);
  unlink(job->path);
  return 0;
}

/* What a copy holds is known only once it is there: the map went on while the thread came to life. */
static int copy_for_snapshot(struct job *job, struct kv *kv) {
  struct kv_state state;
  if (kv_copy(kv, job->path, &job->err) < 0 || kv_copy_state(job->path, &state, &job->err) < 0)
    return -1;
  job->meta.raft.index = state.applied_index;
  job->meta.raft.term = state.applied_term;
  job->meta.revision = state.revision;
  return 0;
}

static void *work(void *arg) {
  struct store *s = arg;
  struct job *job = &s->job;
  int rc = -1;
  switch (job->kind) {
  case JOB_COPY:
    rc = copy_for_snapshot(job, s->kv);
    break;
  case JOB_COPY_OUT:
    rc = copy_out(job, s->kv);
    break;
  case JOB_COMMIT:
    rc = snapshot_commit(disk_posix(), s->snap_dir, job->path, &job->meta, NULL, &job->err);
    if (rc == 0)
      rc = snapshot_clean(disk_posix(), s->snap_dir, SNAPSHOTS_KEPT, &job->err);
    break;
  }
  job->failed = rc < 0;
  loop_post(s->loop, job_ended, s);
  return NULL;
}

static int start_job(struct store *s, struct err *err) {
  int rc = pthread_create(&s->worker, NULL, work, s);
  if (rc)
    return err_errno(err, rc, "a thread for snapshots");
  s->job_runs = true;
  return 0;
}

static void snapshot_failed(struct store *s, const struct err *err) {
  unlink(s->job.path);
  s->ops->note(s->arg, "snapshot failed, trying again in 10 s", err->msg);
  s->snapshot_not_before = loop_now(s->loop) + 10 * NS_PER_SEC;
}

static void begin_snapshot(struct store *s) {
  struct err err;
  s->job = (struct job){.kind = JOB_COPY, .fd = -1};
  if (snapshot_begin(disk_posix(), s->snap_dir, s->job.path, &err) < 0 || start_job(s, &err) < 0)
    snapshot_failed(s, &err);
  else
    s->snapshot_bytes_at = 0;
}

static void copied(struct store *s) {
  struct err err;
  const struct raft_members *members = raft_members_at(s->raft, s->job.meta.raft.index);
  if (!members) {
    err_set(&err, ERR_INTERNAL, "the members as of entry %" PRIu64 " are not known", s->job.meta.raft.index);
    snapshot_failed(s, &err);
    return;
  }
  s->job.meta.raft.members = *members;
  memcpy(s->job.meta.cluster_id, s->cluster_id, sizeof s->cluster_id);
  s->job.meta.data_format = KV_FORMAT;
  s->job.kind = JOB_COMMIT;
  if (start_job(s, &err) < 0)
    snapshot_failed(s, &err);
}

/* The log is cut behind the snapshot before the newest: should that one turn out damaged, the older one and the log still make the state. */
static void snapshot_made(struct store *s) {
  struct err err;
  s->snapshot_before = s->snapshot_index;
  s->snapshot_index = s->job.meta.raft.index;
  char text[96];
  snprintf(text, sizeof text, "entry %" PRIu64 ", revision %" PRIu64 ", %" PRIu64 " bytes", s->snapshot_index, s->job.meta.revision,
           s->job.meta.size);
  s->ops->note(s->arg, "snapshot made", text);
  if (s->snapshot_before && dlog_cut(s->log, s->snapshot_before, &err) < 0) {
    if (err.code != ERR_NO_SPACE) {
      fatal(s, &err);
      return;
    }
    s->ops->note(s->arg, "the log was not cut", err.msg);
  }
  struct raft_event ev = {.type = RAFT_EV_COMPACTED, .snapshot = &s->job.meta.raft};
  step(s, &ev);
}

static void job_ended(void *arg) {
  struct store *s = arg;
  if (!s->job_runs)
    return;
  pthread_join(s->worker, NULL);
  s->job_runs = false;
  struct job *job = &s->job;
  if (s->stopping)
    return;
  if (job->kind == JOB_COPY_OUT) {
    store_copy_fn *done = job->done;
    job->done = NULL;
    done(job->arg, job->failed ? -1 : job->fd, job->failed ? &job->err : NULL);
  } else if (job->failed) {
    snapshot_failed(s, &job->err);
  } else if (job->kind == JOB_COPY) {
    copied(s);
  } else {
    snapshot_made(s);
  }
}

int store_copy(struct store *s, store_copy_fn *done, void *arg, struct err *err) {
  if (s->job_runs)
    return err_set(err, ERR_BUSY, "a snapshot is being made: try again");
  s->job = (struct job){.kind = JOB_COPY_OUT, .fd = -1, .done = done, .arg = arg};
  if (snapshot_begin(disk_posix(), s->snap_dir, s->job.path, err) < 0)
    return -1;
  return start_job(s, err);
}

/* ---------------------------------------------------------------- status */

void store_status(struct store *s, Store__StatusReply *r) {
  const struct kv_state *st = kv_state(s->kv);
  uint64_t size, used;
  kv_sizes(s->kv, &size, &used);
  r->node = s->node;
  r->version = (char *)(uintptr_t)ORCA_VERSION;
  PB_SET(r, leader, store_is_leader(s));
  r->leader_node = store_is_leader(s) ? s->node : NULL;
  PB_SET(r, term, raft_term(s->raft));
  PB_SET(r, commit_index, raft_commit(s->raft));
  PB_SET(r, applied_index, st->applied_index);
  PB_SET(r, revision, st->revision);
  PB_SET(r, compact_revision, st->compact_revision);
  PB_SET(r, db_size, size);
  PB_SET(r, db_used, used);
  PB_SET(r, log_size, dlog_bytes(s->log));
  PB_SET(r, keys, st->keys);
  if (s->fault[0])
    r->fault = s->fault;
}

/* ---------------------------------------------------------------- opening */

static int copy_file(const char *from, const char *to, struct err *err) {
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0)
    return err_errno(err, errno, "%s", from);
  int out = open(to, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (out < 0) {
    int e = errno;
    close(in);
    return err_errno(err, e, "%s", to);
  }
  ssize_t n;
  while ((n = copy_file_range(in, NULL, out, NULL, (size_t)1 << 30, 0)) > 0)
    ;
  if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
    char chunk[65536];
    ssize_t m = 0;
    while (m >= 0 && (n = read(in, chunk, sizeof chunk)) > 0)
      for (ssize_t put = 0; put < n && (m = write(out, chunk + put, (size_t)(n - put))) >= 0; put += m)
        ;
    if (m < 0)
      n = -1;
  }
  int e = n < 0 ? errno : 0;
  close(in);
  if (close(out) < 0 && !e)
    e = errno;
  return e ? err_errno(err, e, "%s", to) : 0;
}

static void skipped(void *arg, const char *file, const char *text) {
  struct store *s = arg;
  char line[512];
  snprintf(line, sizeof line, "%.200s: %.280s", file, text);
  s->ops->note(s->arg, "damaged snapshot passed over", line);
}

/* The map anew: from the newest snapshot that is whole, or from nothing when the log goes back to its beginning. */
static int rebuild(struct store *s, const struct dlog_found *found, const char *why, struct err *err) {
  if (found->last)
    s->ops->note(s->arg, "rebuilding the state from snapshot and log", why);
  kv_close(s->kv);
  s->kv = NULL;
  struct snapshot_meta meta;
  char path[SNAPSHOT_PATH_MAX], data[SNAPSHOT_PATH_MAX + 16];
  int have = snapshot_newest(disk_posix(), s->snap_dir, s->cluster_id, true, &meta, path, skipped, s, err);
  if (have < 0 && (err->code != ERR_CORRUPT || found->first > 1))
    return -1;
  uint64_t base = have > 0 ? meta.raft.index : 0;
  if (found->first > base + 1)
    return err_set(err, ERR_CORRUPT,
                   "the log in %s begins at entry %" PRIu64 ", the newest whole snapshot ends at %" PRIu64 ": what is between them is lost",
                   s->log_dir, found->first, base);
  if (kv_discard(s->kv_dir, err) < 0)
    return -1;
  if (have > 0) {
    if (mkdir(s->kv_dir, 0700) < 0 && errno != EEXIST)
      return err_errno(err, errno, "%s", s->kv_dir);
    snprintf(data, sizeof data, "%s/data.mdb", s->kv_dir);
    if (copy_file(path, data, err) < 0)
      return -1;
  }
  struct kv_options options = {.map_size = s->map_size};
  s->kv = kv_open(s->kv_dir, &options, err);
  if (!s->kv)
    return -1;
  if (have > 0 && kv_state(s->kv)->applied_index != base)
    return err_set(err, ERR_CORRUPT, "snapshot %s holds entries up to %" PRIu64 ", not %" PRIu64, path, kv_state(s->kv)->applied_index, base);
  return 0;
}

static const char *distrust(enum mark_trust trust) {
  switch (trust) {
  case MARK_NEW:
    return "there is no mark of the last start";
  case MARK_REBOOTED:
    return "the machine went down without a clean stop";
  case MARK_CRASHED:
    return "the last process died of a fault";
  case MARK_UNREADABLE:
    return "the mark of the last start cannot be read";
  case MARK_TRUSTED:
    break;
  }
  return NULL;
}

static int open_state(struct store *s, const struct dlog_found *found, struct err *err) {
  const char *why = distrust(mark_read(s->dir));
  /* From here on the map changes: whoever comes after a power cut must see that. */
  if (mark_write(s->dir, false, err) < 0)
    return -1;
  char text[600];
  if (!why) {
    struct kv_options options = {.map_size = s->map_size};
    s->kv = kv_open(s->kv_dir, &options, err);
    if (!s->kv && err->code != ERR_CORRUPT)
      return -1;
    if (!s->kv) {
      snprintf(text, sizeof text, "%s", err->msg);
      why = text;
    } else if (kv_state(s->kv)->applied_index + 1 < found->first) {
      why = "the map is older than the log reaches back";
    }
  }
  if (why && rebuild(s, found, why, err) < 0)
    return -1;
  uint64_t last = found->last >= found->first ? found->last : found->base_index, applied = kv_state(s->kv)->applied_index;
  if (applied > last)
    return err_set(err, ERR_CORRUPT, "the log in %s ends at entry %" PRIu64 ", but entries up to %" PRIu64 " had been applied: its end is lost",
                   s->log_dir, last, applied);
  return 0;
}

static int open_raft(struct store *s, const struct dlog_found *found, const char *address, struct err *err) {
  struct raft_options options = {.id = FOUNDER, .hard = found->hard, .applied = kv_state(s->kv)->applied_index};
  struct snapshot_meta meta;
  char path[SNAPSHOT_PATH_MAX];
  if (crypto_random(&options.seed, sizeof options.seed, err) < 0)
    return -1;
  int have = snapshot_newest(disk_posix(), s->snap_dir, s->cluster_id, false, &meta, path, skipped, s, err);
  if (have < 0 && (err->code != ERR_CORRUPT || found->first > 1))
    return -1;
  options.snapshot.members = (struct raft_members){.n = 1, .m = {{.id = FOUNDER, .voter = true}}};
  snprintf(options.snapshot.members.m[0].address, RAFT_ADDRESS_MAX, "%s", address);
  /* One that is ahead of the map is of no use: the log behind the map's own entry is needed. The map is at or behind it only after it was rebuilt
   * from an older one. */
  if (have > 0 && meta.raft.index <= options.applied) {
    options.snapshot = meta.raft;
    s->snapshot_index = meta.raft.index;
  } else if (have > 0 && found->first > 1) {
    return err_set(err, ERR_CORRUPT, "the newest snapshot ends at entry %" PRIu64 ", the state at %" PRIu64, meta.raft.index, options.applied);
  }
  s->raft = raft_new(&options, err);
  if (!s->raft)
    return -1;
  for (uint64_t i = options.snapshot.index + 1; i <= found->last; i++) {
    struct raft_entry entry;
    buf_reset(&s->scratch);
    if (dlog_read(s->log, i, &entry, &s->scratch, err) < 0)
      return -1;
    entry.data = s->scratch.data;
    if (raft_restore(s->raft, &entry, err) < 0)
      return -1;
    s->snapshot_bytes_at += entry.len;
  }
  return 0;
}

static void refuse_all(struct store *s) {
  struct err err;
  err_set(&err, ERR_UNAVAILABLE, "the store is stopping: the outcome is not known");
  struct proposals *queues[] = {&s->fresh, &s->waiting};
  for (size_t q = 0; q < 2; q++) {
    while (queues[q]->count) {
      struct proposal p = pop(queues[q]);
      refuse(s, &p, &err);
    }
    free(queues[q]->list);
  }
  for (struct reader *r = s->readers, *next; r; r = next) {
    next = r->next;
    r->done(r->arg, &err);
    free(r);
  }
  while (s->rounds) {
    struct read_round *round = s->rounds;
    s->rounds = round->next;
    finish_round(round, &err);
  }
}

static void close_all(struct store *s) {
  if (s->syncer_runs) {
    pthread_mutex_lock(&s->lock);
    s->sync_quit = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->syncer, NULL);
  }
  if (s->job_runs)
    pthread_join(s->worker, NULL);
  /* Both threads have ended; what they posted must not find this freed. */
  loop_post_cancel(s->loop, sync_ended, s);
  loop_post_cancel(s->loop, job_ended, s);
  loop_hook_remove(s->loop, &s->hook);
  struct loop_timer *timers[] = {&s->tick, &s->lease_timer, &s->space_timer, &s->history_timer};
  for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
    loop_timer_cancel(s->loop, timers[i]);
  raft_free(s->raft);
  raft_actions_fini(&s->actions);
  refuse_all(s);
  kv_close(s->kv);
  dlog_close(s->log);
  lease_clock_free(s->leases);
  buf_free(&s->scratch);
  pthread_mutex_destroy(&s->lock);
  pthread_cond_destroy(&s->wake);
  free(s->dir);
  free(s->node);
  free(s);
}

static int set_paths(struct store *s, struct err *err) {
  int a = snprintf(s->log_dir, sizeof s->log_dir, "%s/log", s->dir), b = snprintf(s->kv_dir, sizeof s->kv_dir, "%s/kv", s->dir),
      c = snprintf(s->snap_dir, sizeof s->snap_dir, "%s/snapshots", s->dir);
  if (a < 0 || b < 0 || c < 0 || (size_t)c >= sizeof s->snap_dir - 64)
    return err_set(err, ERR_INVALID, "path too long: %s", s->dir);
  if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "%s", s->dir);
  return 0;
}

struct store *store_open(const struct store_options *o, struct err *err) {
  struct store *s = calloc(1, sizeof *s);
  if (!s) {
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  *s = (struct store){.loop = o->loop,
                      .ops = o->ops,
                      .arg = o->arg,
                      .dir = strdup(o->dir),
                      .node = strdup(o->node),
                      .map_size = o->map_size,
                      .snapshot_entries = o->snapshot_entries ? o->snapshot_entries : SNAPSHOT_ENTRIES,
                      .snapshot_bytes = o->snapshot_bytes ? o->snapshot_bytes : SNAPSHOT_BYTES,
                      .batch_limit = BATCH_ENTRIES,
                      .scratch = BUF_INIT(RAFT_ENTRY_MAX),
                      .leases = lease_clock_new(),
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .wake = PTHREAD_COND_INITIALIZER};
  s->readers_last = &s->readers;
  s->rounds_last = &s->rounds;
  s->tick = (struct loop_timer){.cb = on_tick, .arg = s};
  s->lease_timer = (struct loop_timer){.cb = on_lease, .arg = s};
  s->space_timer = (struct loop_timer){.cb = on_space, .arg = s};
  s->history_timer = (struct loop_timer){.cb = on_history, .arg = s};
  s->hook = (struct loop_hook){.cb = flush, .arg = s};
  loop_hook_add(s->loop, &s->hook);
  raft_actions_init(&s->actions);
  uint8_t hash[32];
  crypto_sha256(o->cluster_id, strlen(o->cluster_id), hash);
  memcpy(s->cluster_id, hash, sizeof s->cluster_id);
  if (!s->dir || !s->node || !s->leases) {
    err_set(err, ERR_MEMORY, "out of memory");
    goto failed;
  }
  if (set_paths(s, err) < 0)
    goto failed;
  struct dlog_found found;
  struct dlog_options log_options = {.dir = s->log_dir};
  memcpy(log_options.cluster_id, s->cluster_id, sizeof log_options.cluster_id);
  if (dlog_open(&s->log, &log_options, &found, err) < 0)
    goto failed;
  if (found.torn)
    s->ops->note(s->arg, "an unfinished write at the end of the log was cut off", found.torn_text);
  if (open_state(s, &found, err) < 0 || open_raft(s, &found, o->address, err) < 0)
    goto failed;
  int rc = pthread_create(&s->syncer, NULL, syncer, s);
  if (rc) {
    err_errno(err, rc, "a thread for syncs");
    goto failed;
  }
  s->syncer_runs = true;
  struct raft_event ev = {.type = RAFT_EV_START};
  step(s, &ev);
  return s;
failed:
  close_all(s);
  return NULL;
}

int store_close(struct store *s, struct err *err) {
  if (!s)
    return 0;
  bool clean = !s->stopping;
  s->stopping = true;
  int rc = 0;
  struct raft_stable stable;
  uint64_t ticket;
  if (s->job_runs) {
    pthread_join(s->worker, NULL);
    s->job_runs = false;
    if (s->job.fd >= 0)
      close(s->job.fd);
  }
  pthread_mutex_lock(&s->lock);
  s->sync_quit = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&s->lock);
  pthread_join(s->syncer, NULL);
  s->syncer_runs = false;
  if (clean)
    rc = dlog_sync(s->log, &stable, &ticket, err) < 0 || kv_sync(s->kv, err) < 0 || mark_write(s->dir, true, err) < 0 ? -1 : 0;
  close_all(s);
  return rc;
}
