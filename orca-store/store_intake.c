/* What comes in during one round of the loop, proposals and reads: kept until its end, then one step of the core each. */
#include "orca-store/store_int.h"

#include <stdlib.h>

#define PENDING_MAX ((size_t)32 << 20) /* bytes that were proposed and are not applied */
#define STEP_ENTRIES 256u

static void propose_some(struct store *s) {
  struct raft_entry entries[STEP_ENTRIES];
  size_t n = 0, bytes = 0;
  struct err err;
  for (struct proposal *p; n < STEP_ENTRIES && (p = proposal_at(&s->proposals.fresh, n)) && (n == 0 || bytes + p->len <= STORE_BATCH_BYTES); n++) {
    entries[n] = (struct raft_entry){.type = RAFT_ENTRY_DATA, .data = p->data, .len = p->len};
    bytes += p->len;
  }
  if (dlog_reserve(s->log, n, bytes, &err) < 0) {
    if (err.code != ERR_NO_SPACE && err.code != ERR_TOO_LARGE) {
      store_fatal(s, &err);
      return;
    }
    store_note_fault(s, &err);
    while (n--) {
      struct proposal p = proposal_pop(&s->proposals.fresh);
      proposals_refuse(&s->proposals, &p, &err);
    }
    return;
  }
  if (!loop_timer_is_set(&s->apply.space_timer))
    store_note_fault(s, &(struct err){.code = ERR_NONE});
  struct raft_event ev = {.type = RAFT_EV_PROPOSE, .entries = entries, .n_entries = n};
  if (!store_step_core(s, &ev))
    return;
  enum err_code said = s->step.actions.proposed;
  for (size_t i = 0; i < n; i++) {
    struct proposal p = proposal_pop(&s->proposals.fresh);
    p.index = s->step.actions.proposed_first + i;
    p.term = s->step.actions.proposed_term;
    if (said != ERR_NONE) {
      err_set(&err, said, said == ERR_NO_LEADER ? "this store is not the leader" : "the proposal was not taken");
      proposals_refuse(&s->proposals, &p, &err);
    } else if (proposal_push(&s->proposals.waiting, &p) < 0) {
      err_set(&err, ERR_MEMORY, "out of memory"); /* the core's actions point into it */
      store_fatal(s, &err);
      return;
    }
  }
  store_step_act(s);
}

static void read_some(struct store *s) {
  uint64_t id = reads_begin_round(&s->reads);
  struct raft_event ev = {.type = RAFT_EV_READ, .read_id = id};
  if (id)
    store_step(s, &ev);
}

/* At the end of each round of the loop: all that arrived in it goes together. */
static bool flush(void *arg) {
  struct store *s = arg;
  if (s->stopping)
    return false;
  /* Answers that leave here may swallow the bus's wake-up (ZMQ_FD is edge-triggered): it must look again before the loop sleeps. */
  bool worked = s->proposals.fresh.count || s->reads.fresh;
  if (s->proposals.fresh.count)
    propose_some(s);
  if (!s->stopping && s->reads.fresh)
    read_some(s);
  if (!s->stopping && kv_trim_pending(s->kv) && !s->proposals.fresh.count && !s->proposals.waiting.count && !loop_timer_is_set(&s->apply.space_timer))
    return store_trim(s);
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
  if (s->proposals.bytes + len > PENDING_MAX) {
    err_set(&err, ERR_BUSY, "%zu MiB wait to be written: try again", PENDING_MAX >> 20);
    done(arg, NULL, &err);
    return;
  }
  if (weight && kv_room(s->kv, s->proposals.bytes + len, s->proposals.weight + weight, &err) < 0) {
    store_note_fault(s, &err);
    done(arg, NULL, &err);
    return;
  }
  kv_command(&data, (uint64_t)(loop_wall(s->loop) / NS_PER_MS), call, len);
  p.data = buf_take(&data, &p.len);
  if (!p.data || proposal_push(&s->proposals.fresh, &p) < 0) {
    free(p.data);
    err_set(&err, ERR_MEMORY, "out of memory");
    done(arg, NULL, &err);
  } else if (weight) {
    s->proposals.bytes += p.len;
    s->proposals.weight += weight;
  }
}

void store_read(struct store *s, store_read_fn *done, void *arg) {
  if (reads_add(&s->reads, done, arg) < 0) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    done(arg, &err);
  }
}

void store_intake_init(struct store *s) {
  reads_init(&s->reads);
  s->hook = (struct loop_hook){.cb = flush, .arg = s};
  loop_hook_add(s->loop, &s->hook);
}

void store_intake_fini(struct store *s) {
  loop_hook_remove(s->loop, &s->hook);
  struct err err;
  err_set(&err, ERR_UNAVAILABLE, "the store is stopping: the outcome is not known");
  proposals_refuse_all(&s->proposals, &s->proposals.fresh, &err);
  proposals_refuse_all(&s->proposals, &s->proposals.waiting, &err);
  proposals_fini(&s->proposals);
  reads_refuse_all(&s->reads, &err);
}
