/* Elections: pre-vote (§9.6), votes (§3.4, §3.6.1), the leader's protection against disturbance (§4.2.3, §6.2). */
#include "orca-store/raft_internal.h"

static void ask_for_votes(struct raft *r, bool pre, bool transfer) {
  for (size_t i = 0; i < r->members.n; i++) {
    if (!r->members.m[i].voter || r->members.m[i].id == r->id)
      continue;
    struct raft_msg *m = raft_send(r, r->members.m[i].id, RAFT_MSG_VOTE, true);
    if (!m)
      return;
    m->pre = pre;
    m->transfer = transfer;
    /* A pre-vote asks about the term it would begin, without beginning it. */
    m->term = pre ? r->hard.term + 1 : r->hard.term;
    m->index = r->shape.last;
    m->index_term = raft_shape_last_term(&r->shape);
  }
}

static void clear_votes(struct raft *r) {
  for (size_t i = 0; i < r->members.n; i++)
    r->peers[i].voted = VOTE_NONE;
}

/* §3.4: a new term, a vote for oneself. That vote too counts only when it is durable: RAFT_EV_STABLE casts it. */
void raft_campaign(struct raft *r, bool transfer) {
  r->role = RAFT_CANDIDATE;
  r->leader = 0;
  r->hard.term++;
  r->hard.vote = r->id;
  r->hard_dirty = true;
  r->campaign_by_transfer = transfer;
  clear_votes(r);
  raft_set_election_deadline(r);
  ask_for_votes(r, false, transfer);
}

void raft_election_timeout(struct raft *r) {
  struct raft_peer *self = raft_peer(r, r->id);
  if (!raft_may_stand(r)) { /* §4.2.1 learners, and who was removed, never stand */
    r->election_at = INT64_MAX;
    return;
  }
  if (raft_quorum(r) == 1 && raft_is_voter(r, r->id)) {
    raft_campaign(r, false);
    return;
  }
  r->role = RAFT_PRECANDIDATE;
  r->leader = 0;
  clear_votes(r);
  if (self)
    self->voted = VOTE_GRANTED;
  raft_set_election_deadline(r);
  ask_for_votes(r, true, false);
}

void raft_count_votes(struct raft *r) {
  size_t granted = 0, denied = 0, voters = 0;
  for (size_t i = 0; i < r->members.n; i++) {
    if (!r->members.m[i].voter)
      continue;
    voters++;
    granted += r->peers[i].voted == VOTE_GRANTED;
    denied += r->peers[i].voted == VOTE_DENIED;
  }
  if (granted >= raft_quorum(r)) {
    if (r->role == RAFT_PRECANDIDATE)
      raft_campaign(r, false);
    else
      raft_become_leader(r);
  } else if (voters - denied < raft_quorum(r)) {
    raft_become_follower(r, r->hard.term, 0);
  }
}

/* §3.6.1: later last term, or the same and not shorter. */
static bool up_to_date(const struct raft *r, const struct raft_msg *m) {
  uint64_t last_term = raft_shape_last_term(&r->shape);
  return m->index_term > last_term || (m->index_term == last_term && m->index >= r->shape.last);
}

/* The message's term is not below ours; a real vote's higher term has been taken over already (raft.c). */
void raft_on_vote(struct raft *r, const struct raft_msg *m) {
  bool free_to = r->hard.vote == m->from || (r->hard.vote == 0 && r->leader == 0);
  bool grant = (up_to_date(r, m) || MUTANT(VOTE_SHORT_LOG)) && (free_to || (m->pre && m->term > r->hard.term) || MUTANT(DOUBLE_VOTE));
  /* §9.6, §4.2.3: whoever hears a living leader does not help to unseat it, not even in a rehearsal. */
  if (m->pre && (r->role == RAFT_LEADER || (r->leader != 0 && r->now - r->leader_seen < r->election_timeout)))
    grant = false;
  if (grant && !m->pre) {
    if (r->hard.vote != m->from && !MUTANT(FORGET_VOTE)) {
      r->hard.vote = m->from;
      r->hard_dirty = true;
    }
    raft_set_election_deadline(r); /* §3.4: one's own candidacy waits */
  }
  struct raft_msg *reply = raft_send(r, m->from, RAFT_MSG_VOTE_REPLY, !MUTANT(UNSYNCED_VOTE)); /* §3.8: the vote is durable before it is told */
  if (!reply)
    return;
  reply->pre = m->pre;
  reply->ok = grant;
  if (m->pre && grant)
    reply->term = m->term; /* of the term asked about, so that the asker can match it */
}

void raft_on_vote_reply(struct raft *r, const struct raft_msg *m) {
  if (m->pre) {
    if (r->role != RAFT_PRECANDIDATE || (m->ok && m->term != r->hard.term + 1))
      return;
  } else if (r->role != RAFT_CANDIDATE || m->term != r->hard.term) {
    return;
  }
  struct raft_peer *p = raft_peer(r, m->from);
  if (!p || p->voted != VOTE_NONE) /* not of our membership, or a duplicate */
    return;
  p->voted = m->ok ? VOTE_GRANTED : VOTE_DENIED;
  raft_count_votes(r);
}
