/* The follower: entries from the leader (§3.5), snapshots from it (§5). */
#include "orca-store/raft_internal.h"

static void reply_append(struct raft *r, const struct raft_msg *m, bool ok, uint64_t match, uint64_t hint_term) {
  /* §3.8: what is acknowledged is durable first. */
  struct raft_msg *reply = raft_send(r, m->from, RAFT_MSG_APPEND_REPLY, !MUTANT(ACK_BEFORE_SYNC));
  if (!reply)
    return;
  reply->ok = ok;
  reply->match = match;
  reply->index = m->index;
  reply->index_term = hint_term;
  reply->read_seq = m->read_seq;
}

void raft_on_append(struct raft *r, const struct raft_msg *m) {
  uint64_t last_sent = m->index + m->n_entries, skip = 0;
  if (m->index > r->shape.last) {
    uint64_t at = raft_shape_seek(&r->shape, r->shape.last, m->index_term);
    reply_append(r, m, false, at, raft_shape_term(&r->shape, at));
    return;
  }
  if (m->index < r->commit) {
    /* What is committed here is in the leader's log too (§3.6.3), whatever of it the message holds. */
    skip = r->commit - m->index;
  } else if (raft_shape_term(&r->shape, m->index) != m->index_term) {
    uint64_t at = raft_shape_seek(&r->shape, m->index, m->index_term);
    reply_append(r, m, false, at, raft_shape_term(&r->shape, at));
    return;
  }
  for (; skip < m->n_entries; skip++) {
    uint64_t index = m->index + 1 + skip;
    if (index > r->shape.last)
      break;
    if (raft_shape_term(&r->shape, index) == m->entries[skip].term || MUTANT(KEEP_CONFLICT))
      continue;
    /* §3.5: another leader's, never committed: gives way, with all that follows. */
    raft_shape_truncate(&r->shape, index - 1);
    if (r->stable > index - 1)
      r->stable = index - 1;
    raft_use_members(r);
    break;
  }
  for (; skip < m->n_entries && !r->failed; skip++) {
    const struct raft_entry *e = &m->entries[skip];
    struct raft_members members;
    bool is_members = e->type == RAFT_ENTRY_MEMBERS;
    if (is_members && raft_members_decode(e->data, e->len, &members, NULL) < 0)
      return; /* raft_step() has looked: cannot be */
    raft_append(r, e, is_members ? &members : NULL);
  }
  /* §3.5, never past the last entry sent: what lies behind it here may be another's. */
  uint64_t commit = m->commit < last_sent || MUTANT(COMMIT_PAST_SENT) ? m->commit : last_sent;
  if (commit > r->shape.last)
    commit = r->shape.last;
  if (commit > r->commit)
    r->commit = commit;
  reply_append(r, m, true, last_sent > r->commit ? last_sent : r->commit, 0);
}

/* §5: a snapshot replaces the log, unless we have all of it. */
void raft_install(struct raft *r, const struct raft_event *ev) {
  const struct raft_snapshot *s = ev->snapshot;
  uint64_t match;
  if (s->index <= r->commit && !MUTANT(OLD_SNAPSHOT)) {
    match = r->commit;
  } else if (raft_shape_term(&r->shape, s->index) == s->term && s->index > r->shape.base_index) {
    r->commit = s->index; /* the log leads there by itself (§3.5: same index and term, same prefix) */
    match = s->index;
  } else {
    raft_shape_reset(&r->shape, s);
    r->stable = r->commit = r->announced = s->index;
    raft_use_members(r);
    r->a->install = true;
    match = s->index;
  }
  struct raft_msg *reply = raft_send(r, ev->msg->from, RAFT_MSG_SNAPSHOT_REPLY, true);
  if (!reply)
    return;
  reply->ok = true;
  reply->match = match;
}
