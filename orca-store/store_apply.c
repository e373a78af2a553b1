/* What is committed goes into the map, a batch in one transaction; then its callers are answered. */
#include "orca-store/store_int.h"

#include <assert.h>
#include <stdlib.h>

#define BATCH_ENTRIES 2048u
#define SPACE_AGAIN_NS (250 * NS_PER_MS)

static const struct proposal *proposal_of(struct store *s, uint64_t index, size_t *next) {
  for (struct proposal *p; (p = proposal_at(&s->proposals.waiting, *next)) && p->index <= index; (*next)++)
    if (p->index == index)
      return p;
  return NULL;
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
  size_t n = s->step.commit - first + 1 < s->apply.batch_limit ? (size_t)(s->step.commit - first + 1) : s->apply.batch_limit;
  size_t bytes = 0;
  for (size_t i = 0; i < s->proposals.waiting.count && i < n; i++) {
    bytes += proposal_at(&s->proposals.waiting, i)->len;
    if (bytes > STORE_BATCH_BYTES)
      return i ? i : 1;
  }
  return n;
}

/* One transaction of the map. false: not now. */
static bool apply_batch(struct store *s) {
  struct err err;
  uint64_t first = kv_state(s->kv)->applied_index + 1;
  size_t n = batch_size(s);
  assert(n > 0); /* there is something committed, and the limit is never 0 */
  struct kv_result *results = calloc(n, sizeof *results);
  if (!results) {
    err_set(&err, ERR_MEMORY, "out of memory");
    store_fatal(s, &err);
    return false;
  }
  uint64_t revision = kv_state(s->kv)->revision;
  if (apply_entries(s, first, n, results, &err) < 0) {
    kv_abort(s->kv);
    free_results(results, n);
    if (err.code != ERR_NO_SPACE) {
      store_fatal(s, &err);
      return false;
    }
    /* They are committed: nobody hears of them before there is room again. Smaller steps need less of it. */
    store_note_fault(s, &err);
    s->apply.batch_limit = 1;
    store_set_timer(s, &s->apply.space_timer, loop_now(s->loop) + SPACE_AGAIN_NS);
    return false;
  }
  s->apply.batch_limit = s->apply.batch_limit < BATCH_ENTRIES ? 2 * s->apply.batch_limit : BATCH_ENTRIES;
  bool compacted = false;
  for (size_t i = 0; i < n; i++) {
    store_leader_applied(s, &results[i]);
    compacted |= results[i].compacted;
  }
  for (size_t i = 0; i < n && !s->stopping; i++) {
    struct proposal *p;
    while ((p = proposal_at(&s->proposals.waiting, 0)) && p->index <= first + i) {
      struct proposal mine = proposal_pop(&s->proposals.waiting);
      bool same = mine.index == first + i && mine.term == raft_term_at(s->raft, mine.index);
      if (same) {
        mine.done(mine.arg, &results[i], NULL);
      } else {
        err_set(&err, ERR_UNAVAILABLE, "another leader's entry took its place");
        mine.done(mine.arg, NULL, &err);
      }
      proposals_drop(&s->proposals, &mine);
    }
  }
  free_results(results, n);
  if (kv_state(s->kv)->revision != revision || compacted)
    s->ops->changed(s->arg, compacted);
  return true;
}

void store_apply(struct store *s) {
  while (!s->stopping && !loop_timer_is_set(&s->apply.space_timer) && kv_state(s->kv)->applied_index < s->step.commit)
    if (!apply_batch(s))
      return;
  if (s->stopping)
    return;
  if (!s->serving && raft_role(s->raft) == RAFT_LEADER && kv_state(s->kv)->applied_index >= raft_last_index(s->raft) &&
      kv_state(s->kv)->applied_term == raft_term(s->raft)) {
    s->serving = true;
    s->ops->serving(s->arg);
  }
  store_leader_plan_history(s);
  store_snapshots_consider(s);
}

static void on_space(void *arg) {
  struct store *s = arg;
  store_apply(s);
  reads_answer(&s->reads, kv_state(s->kv)->applied_index);
}

bool store_trim(struct store *s) {
  struct err err;
  if (kv_begin(s->kv, 0, 0, &err) == 0 && kv_commit(s->kv, &err) == 0)
    return true;
  kv_abort(s->kv);
  if (err.code != ERR_NO_SPACE)
    store_fatal(s, &err);
  else
    store_set_timer(s, &s->apply.space_timer, loop_now(s->loop) + SPACE_AGAIN_NS);
  return false;
}

void store_apply_init(struct store *s) {
  s->apply.batch_limit = BATCH_ENTRIES;
  s->apply.space_timer = (struct loop_timer){.cb = on_space, .arg = s};
}

void store_apply_fini(struct store *s) {
  loop_timer_cancel(s->loop, &s->apply.space_timer);
}
