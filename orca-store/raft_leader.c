/* The leader: replication (§3.5, §10.1.3), commitment (§3.6.2), ReadIndex (§6.4), check-quorum (§6.2), transfer (§3.10). */
#include "orca-store/raft_internal.h"

#include <stdlib.h>
#include <string.h>

void raft_become_leader(struct raft *r) {
  r->role = RAFT_LEADER;
  r->leader = r->id;
  r->transfer = 0;
  r->read_seq = 0;
  r->heartbeat_at = r->now + r->heartbeat;
  r->quorum_at = r->now + r->election_timeout;
  for (size_t i = 0; i < r->members.n; i++)
    r->peers[i] = (struct raft_peer){.id = r->members.m[i].id, .next = r->shape.last + 1, .last_ack = r->now};
  /* §6.4, §3.6.2: an entry of its own term, so that what earlier terms left can be committed, and reads begin. */
  raft_append(r, &(struct raft_entry){.type = RAFT_ENTRY_NOOP}, NULL);
  raft_replicate_all(r);
}

static void fill_append(struct raft *r, struct raft_peer *p, struct raft_msg *m, uint64_t prev) {
  m->index = prev;
  m->index_term = raft_shape_term(&r->shape, prev);
  m->commit = r->commit;
  m->read_seq = r->read_seq;
  p->sent_commit = r->commit;
}

/* Heartbeat, also the carrier of commit and of read rounds: no entries. To a follower that waits for a snapshot the entry before is
 * not known here: index 0, on which all logs agree. */
static void send_empty(struct raft *r, struct raft_peer *p) {
  struct raft_msg *m = raft_send(r, p->id, RAFT_MSG_APPEND, false);
  if (m)
    fill_append(r, p, m, p->flow == FLOW_SNAPSHOT || p->next <= r->shape.base_index ? 0 : p->next - 1);
}

static void send_snapshot(struct raft *r, struct raft_peer *p) {
  p->flow = FLOW_SNAPSHOT;
  p->inflight_n = 0;
  struct raft_msg *m = raft_send(r, p->id, RAFT_MSG_SNAPSHOT, false);
  if (!m)
    return;
  m->index = r->shape.base_index;
  m->index_term = r->shape.base_term;
}

void raft_replicate(struct raft *r, struct raft_peer *p) {
  while (p->flow != FLOW_SNAPSHOT && p->next <= r->shape.last) {
    /* Before the windows: what they wait for may have been compacted meanwhile, and no heartbeat would show it. */
    if (p->next <= r->shape.base_index) {
      send_snapshot(r, p);
      return;
    }
    if (p->flow == FLOW_PROBE ? p->waiting : p->inflight_n >= r->max_inflight)
      return;
    uint64_t n = 0, bytes = 0;
    while (n < r->max_entries && p->next + n <= r->shape.last) {
      bytes += raft_shape_len(&r->shape, p->next + n);
      if (n > 0 && bytes > r->max_bytes)
        break;
      n++;
    }
    /* §10.2.1: leaves beside our own sync; our copy counts when that has ended. */
    struct raft_msg *m = raft_send(r, p->id, RAFT_MSG_APPEND, false);
    if (!m)
      return;
    fill_append(r, p, m, p->next - 1);
    m->first = p->next;
    m->n_entries = n;
    if (p->flow == FLOW_PROBE) {
      p->waiting = true;
      return;
    }
    p->next += n;
    p->inflight[(p->inflight_first + p->inflight_n++) % RAFT_INFLIGHT_MAX] = p->next - 1;
  }
}

void raft_replicate_all(struct raft *r) {
  for (size_t i = 0; i < r->members.n; i++)
    if (r->peers[i].id != r->id)
      raft_replicate(r, &r->peers[i]);
}

/* After a commit: who has nothing to get would learn of it only with the next heartbeat. */
static void tell_commit(struct raft *r) {
  for (size_t i = 0; i < r->members.n; i++) {
    struct raft_peer *p = &r->peers[i];
    if (p->id != r->id && p->flow == FLOW_REPLICATE && p->inflight_n == 0 && p->sent_commit < r->commit)
      send_empty(r, p);
  }
}

static int descending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

void raft_advance_commit(struct raft *r) {
  uint64_t match[RAFT_MEMBERS_MAX];
  size_t n = 0;
  for (size_t i = 0; i < r->members.n; i++)
    if (r->members.m[i].voter)
      match[n++] = r->peers[i].id == r->id ? (MUTANT(COUNT_UNSYNCED) ? r->shape.last : r->stable) : r->peers[i].match;
  if (n == 0)
    return;
  qsort(match, n, sizeof match[0], descending);
  uint64_t index = match[raft_quorum(r) - 1];
  /* §3.6.2: only an entry of the current term is committed by counting; earlier ones follow it. */
  if (index <= r->commit || (raft_shape_term(&r->shape, index) != r->hard.term && !MUTANT(COMMIT_OLD_TERM)))
    return;
  r->commit = index;
  raft_confirm_reads(r);                                           /* those that waited for this term's first commit */
  if (r->members_index <= r->commit && !raft_is_voter(r, r->id)) { /* §4.2.2: removed by what it has just committed */
    tell_commit(r);
    raft_become_follower(r, r->hard.term, 0);
    return;
  }
  tell_commit(r);
}

/* ---------------------------------------------------------------- time */

/* §6.2: a leader that a majority has not answered for an election timeout is none any more. */
static bool quorum_is_alive(const struct raft *r) {
  size_t alive = 0;
  for (size_t i = 0; i < r->members.n; i++)
    if (r->members.m[i].voter && (r->peers[i].id == r->id || r->now - r->peers[i].last_ack < r->election_timeout))
      alive++;
  return alive >= raft_quorum(r);
}

void raft_leader_tick(struct raft *r) {
  if (r->now >= r->quorum_at) {
    if (!quorum_is_alive(r)) {
      raft_become_follower(r, r->hard.term, 0);
      return;
    }
    r->quorum_at = r->now + r->election_timeout;
  }
  if (r->transfer != 0 && r->now >= r->transfer_until)
    r->transfer = 0; /* §3.10: it did not come about; go on */
  if (r->now < r->heartbeat_at)
    return;
  r->heartbeat_at = r->now + r->heartbeat;
  for (size_t i = 0; i < r->members.n; i++) {
    struct raft_peer *p = &r->peers[i];
    if (p->id == r->id)
      continue;
    p->waiting = false; /* a probe without an answer goes out again */
    size_t before = r->a->n_msgs;
    if (p->flow == FLOW_PROBE)
      raft_replicate(r, p);
    if (r->a->n_msgs == before)
      send_empty(r, p);
  }
}

/* ---------------------------------------------------------------- answers */

static void free_inflight(struct raft_peer *p, uint64_t match) {
  while (p->inflight_n > 0 && p->inflight[p->inflight_first] <= match) {
    p->inflight_first = (p->inflight_first + 1) % RAFT_INFLIGHT_MAX;
    p->inflight_n--;
  }
}

static void transfer_when_ready(struct raft *r, struct raft_peer *p) {
  if (r->transfer == p->id && p->match == r->shape.last)
    raft_send(r, p->id, RAFT_MSG_TIMEOUT_NOW, false);
}

static void matched(struct raft *r, struct raft_peer *p, uint64_t match) {
  if (match > r->shape.last) /* nothing we sent */
    return;
  if (match > p->match)
    p->match = match;
  free_inflight(p, match);
  if (p->next <= p->match)
    p->next = p->match + 1;
  if (p->flow == FLOW_PROBE && (p->match > 0 || p->next == 1)) {
    /* the logs agree right before `next`: stream from there. A success for an older probe says less than that */
    if (p->match + 1 == p->next)
      p->flow = FLOW_REPLICATE;
    p->waiting = false;
  } else if (p->flow == FLOW_SNAPSHOT && p->next > r->shape.base_index) {
    p->flow = FLOW_PROBE;
    p->waiting = false;
  }
}

/* A refusal says where to try next (§3.5, fast back-up): the greatest index of the follower's, at most the one asked about, whose term is
 * not later than the one asked about, and that term. Ours with a term not later than that is the next place where both may agree. */
static void refused(struct raft *r, struct raft_peer *p, const struct raft_msg *m) {
  if (m->index <= p->match || p->flow == FLOW_SNAPSHOT || (p->flow == FLOW_PROBE && m->index != p->next - 1))
    return; /* stale */
  if (m->match >= m->index && m->index_term >= raft_shape_term(&r->shape, m->index))
    return; /* contradicts itself */
  uint64_t at = raft_shape_seek(&r->shape, m->match, m->index_term);
  if (m->match < r->shape.base_index)
    at = m->match; /* before what we know: a snapshot will be needed */
  p->next = (at > p->match ? at : p->match) + 1;
  if (p->next > m->index)
    p->next = m->index;
  p->flow = FLOW_PROBE;
  p->waiting = false;
  p->inflight_n = 0;
}

void raft_on_append_reply(struct raft *r, const struct raft_msg *m) {
  struct raft_peer *p = raft_peer(r, m->from);
  if (r->role != RAFT_LEADER || !p || p->id == r->id)
    return;
  p->last_ack = r->now;
  if (m->read_seq > p->read_ack && m->read_seq <= r->read_seq)
    p->read_ack = m->read_seq;
  if (m->ok)
    matched(r, p, m->match);
  else
    refused(r, p, m);
  raft_advance_commit(r);
  if (r->role != RAFT_LEADER)
    return;
  raft_replicate(r, p);
  transfer_when_ready(r, p);
  raft_confirm_reads(r);
}

void raft_on_snapshot_reply(struct raft *r, const struct raft_msg *m) {
  struct raft_peer *p = raft_peer(r, m->from);
  if (r->role != RAFT_LEADER || !p || p->id == r->id)
    return;
  p->last_ack = r->now;
  if (m->ok) {
    matched(r, p, m->match);
    raft_advance_commit(r);
    if (r->role == RAFT_LEADER)
      raft_replicate(r, p);
  } else if (p->flow == FLOW_SNAPSHOT) {
    raft_snapshot_sent(r, p->id, false);
  }
}

/* Ended: ask where its log ends now; what it says decides (entries, or a snapshot again). Failed: the same, not before the next heartbeat. */
void raft_snapshot_sent(struct raft *r, uint64_t peer, bool ok) {
  struct raft_peer *p = raft_peer(r, peer);
  if (r->role != RAFT_LEADER || !p || p->flow != FLOW_SNAPSHOT)
    return;
  p->flow = FLOW_PROBE;
  p->waiting = true;
  if (ok)
    p->next = r->shape.base_index + 1;
}

/* ---------------------------------------------------------------- transfer */

void raft_transfer_start(struct raft *r, uint64_t to) {
  if (r->role != RAFT_LEADER)
    return;
  struct raft_peer *p = NULL;
  for (size_t i = 0; i < r->members.n; i++) {
    struct raft_peer *q = &r->peers[i];
    if (q->id == r->id || !r->members.m[i].voter || (to != 0 && q->id != to))
      continue;
    if (!p || q->match > p->match)
      p = q;
  }
  if (!p)
    return;
  /* §3.10: take no more proposals, bring the target up to date, tell it to stand; an election timeout later give up. */
  r->transfer = p->id;
  r->transfer_until = r->now + r->election_timeout;
  raft_replicate(r, p);
  transfer_when_ready(r, p);
}

/* ---------------------------------------------------------------- reads */

static void answer_read(struct raft *r, uint64_t id, uint64_t index, bool ok) {
  struct raft_actions *a = r->a;
  if (a->n_reads == a->cap_reads) {
    size_t cap = a->cap_reads ? a->cap_reads * 2 : 16;
    struct raft_read *grown = reallocarray(a->reads, cap, sizeof *grown);
    if (!grown) {
      r->failed = true;
      return;
    }
    a->reads = grown;
    a->cap_reads = cap;
  }
  a->reads[a->n_reads++] = (struct raft_read){id, index, ok};
}

void raft_fail_reads(struct raft *r) {
  for (size_t i = 0; i < r->n_reads; i++)
    answer_read(r, r->reads[i].id, 0, false);
  r->n_reads = 0;
}

static size_t confirmed_by(const struct raft *r, uint64_t seq) {
  size_t n = 0;
  for (size_t i = 0; i < r->members.n; i++)
    if (r->members.m[i].voter && (r->peers[i].id == r->id || r->peers[i].read_ack >= seq))
      n++;
  return n;
}

/* §6.4. A read takes the commit index it found (once this term has committed something), then waits for a round of heartbeats
 * that began after it came. One round at a time: what comes meanwhile shares the next. */
void raft_confirm_reads(struct raft *r) {
  if (r->n_reads == 0 || (raft_shape_term(&r->shape, r->commit) != r->hard.term && !MUTANT(STALE_READ)))
    return;
  for (;;) {
    size_t kept = 0;
    bool unsent = false;
    for (size_t i = 0; i < r->n_reads; i++) {
      struct raft_waiting_read read = r->reads[i];
      if (read.index == 0)
        read.index = r->commit;
      if ((read.seq <= r->read_seq && confirmed_by(r, read.seq) >= raft_quorum(r)) || MUTANT(STALE_READ)) {
        answer_read(r, read.id, read.index, true);
        continue;
      }
      unsent |= read.seq > r->read_seq;
      r->reads[kept++] = read;
    }
    r->n_reads = kept;
    if (!unsent || confirmed_by(r, r->read_seq) < raft_quorum(r))
      return;
    r->read_seq++;
    for (size_t i = 0; i < r->members.n; i++)
      if (r->peers[i].id != r->id && r->members.m[i].voter)
        send_empty(r, &r->peers[i]);
  }
}

void raft_read(struct raft *r, uint64_t id) {
  if (r->role != RAFT_LEADER) {
    answer_read(r, id, 0, false);
    return;
  }
  if (r->n_reads == r->cap_reads) {
    size_t cap = r->cap_reads ? r->cap_reads * 2 : 16;
    struct raft_waiting_read *grown = reallocarray(r->reads, cap, sizeof *grown);
    if (!grown) {
      r->failed = true;
      return;
    }
    r->reads = grown;
    r->cap_reads = cap;
  }
  bool known = raft_shape_term(&r->shape, r->commit) == r->hard.term;
  r->reads[r->n_reads++] = (struct raft_waiting_read){.id = id, .index = known ? r->commit : 0, .seq = r->read_seq + 1};
  raft_confirm_reads(r);
}
