/* The frame of the core: state, terms (§3.3), dispatch. Invariants that hold between steps:
 *   base ≤ commit ≤ last, stable ≤ last, announced = the greatest min(commit, stable) so far;
 *   what is in the shape was handed out to be written; hard state too, unless hard_dirty. */
#include "orca-store/raft.h"

#include <stdlib.h>
#include <string.h>

#include "orca-store/raft_internal.h"

#define MS INT64_C(1000000)

/* ---------------------------------------------------------------- actions */

void raft_actions_init(struct raft_actions *a) {
  *a = (struct raft_actions){.deadline = INT64_MAX};
}

void raft_actions_fini(struct raft_actions *a) {
  free(a->append);
  free(a->msgs);
  free(a->reads);
  free(a->scratch);
  raft_actions_init(a);
}

static void actions_clear(struct raft_actions *a) {
  struct raft_actions fresh = {.append = a->append,
                               .msgs = a->msgs,
                               .reads = a->reads,
                               .scratch = a->scratch,
                               .cap_append = a->cap_append,
                               .cap_msgs = a->cap_msgs,
                               .cap_reads = a->cap_reads};
  *a = fresh;
}

struct raft_msg *raft_send(struct raft *r, uint64_t to, enum raft_msg_type type, bool after_sync) {
  struct raft_actions *a = r->a;
  if (a->n_msgs == a->cap_msgs) {
    size_t cap = a->cap_msgs ? a->cap_msgs * 2 : 16;
    struct raft_msg *grown = reallocarray(a->msgs, cap, sizeof *grown);
    if (!grown) {
      r->failed = true;
      return NULL;
    }
    a->msgs = grown;
    a->cap_msgs = cap;
  }
  struct raft_msg *m = &a->msgs[a->n_msgs++];
  *m = (struct raft_msg){.type = type, .from = r->id, .to = to, .term = r->hard.term, .after_sync = after_sync};
  return m;
}

/* Puts an entry behind the log: a leader's gets the current term, a follower's (index set) keeps its own. */
void raft_append(struct raft *r, const struct raft_entry *e, const struct raft_members *members) {
  struct raft_actions *a = r->a;
  if (a->n_append == a->cap_append) {
    size_t cap = a->cap_append ? a->cap_append * 2 : 64;
    struct raft_entry *grown = reallocarray(a->append, cap, sizeof *grown);
    if (!grown) {
      r->failed = true;
      return;
    }
    a->append = grown;
    a->cap_append = cap;
  }
  struct raft_entry *to = &a->append[a->n_append];
  *to = *e;
  if (e->index == 0) {
    to->index = r->shape.last + 1;
    to->term = r->hard.term;
  }
  if (raft_shape_push(&r->shape, to->term, to->len, members) < 0) {
    r->failed = true;
    return;
  }
  a->n_append++;
  if (members)
    raft_use_members(r); /* §4.1: in force as soon as it is in the log */
}

/* ---------------------------------------------------------------- members */

struct raft_peer *raft_peer(struct raft *r, uint64_t id) {
  for (size_t i = 0; i < r->members.n; i++)
    if (r->peers[i].id == id)
      return &r->peers[i];
  return NULL;
}

bool raft_is_voter(const struct raft *r, uint64_t id) {
  const struct raft_member *m = raft_members_find(&r->members, id);
  return m && m->voter;
}

/* §4.2.2: until its removal is committed a server may still be needed: nobody else need have the entry that removes it. Then it stands, without a
 * vote of its own. */
bool raft_may_stand(const struct raft *r) {
  if (raft_is_voter(r, r->id))
    return true;
  if (r->members_index <= r->commit || r->shape.n_members < 2)
    return false;
  const struct raft_member *before = raft_members_find(&r->shape.members[r->shape.n_members - 2].members, r->id);
  return before && before->voter;
}

size_t raft_quorum(const struct raft *r) {
  size_t voters = 0;
  for (size_t i = 0; i < r->members.n; i++)
    voters += r->members.m[i].voter;
  return voters / 2 + 1;
}

/* The newest membership of the log into force; what is known of those who stay is kept. */
void raft_use_members(struct raft *r) {
  const struct raft_members_at *newest = &r->shape.members[r->shape.n_members - 1];
  struct raft_peer peers[RAFT_MEMBERS_MAX];
  for (size_t i = 0; i < newest->members.n; i++) {
    const struct raft_peer *old = raft_peer(r, newest->members.m[i].id);
    /* who is new is asked about the log's end at once */
    peers[i] = old ? *old : (struct raft_peer){.id = newest->members.m[i].id, .next = r->shape.last ? r->shape.last : 1, .last_ack = r->now};
  }
  r->members = newest->members;
  r->members_index = newest->index;
  memcpy(r->peers, peers, newest->members.n * sizeof peers[0]);
  if (r->role == RAFT_LEADER) {
    if (r->transfer != 0 && !raft_is_voter(r, r->transfer))
      r->transfer = 0;
    if (r->heartbeat_at < r->now)
      r->heartbeat_at = r->now;
    if (r->quorum_at <= r->now)
      r->quorum_at = r->now + r->election_timeout; /* one that was alone until now kept no time */
  } else if (r->election_at == INT64_MAX) {
    raft_set_election_deadline(r);
  }
}

/* ---------------------------------------------------------------- terms and roles */

static uint64_t draw(struct raft *r) { /* splitmix64 */
  uint64_t z = r->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* §3.4, §9.3: spread, so that votes seldom split. */
void raft_set_election_deadline(struct raft *r) {
  r->election_at = raft_may_stand(r) ? r->now + r->election_timeout + (int64_t)(draw(r) % (uint64_t)r->election_timeout) : INT64_MAX;
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader) {
  if (term > r->hard.term) { /* §3.3 */
    r->hard.term = term;
    r->hard.vote = 0;
    r->hard_dirty = true;
  }
  if (r->role == RAFT_LEADER) {
    r->transfer = 0;
    raft_fail_reads(r);
  }
  r->role = RAFT_FOLLOWER;
  r->leader = leader;
  if (leader != 0)
    r->leader_seen = r->now;
  raft_set_election_deadline(r);
}

/* ---------------------------------------------------------------- messages */

/* What a peer says is checked before anything is done with it: it may be broken, old or hostile. */
static bool well_formed(const struct raft *r, const struct raft_msg *m) {
  if (m->from == 0 || m->from == r->id || m->to != r->id || m->term == 0 || m->term > RAFT_NUMBER_MAX || m->index > RAFT_NUMBER_MAX ||
      m->index_term > m->term || m->match > RAFT_NUMBER_MAX)
    return false;
  if (m->type != RAFT_MSG_APPEND)
    return m->type >= RAFT_MSG_VOTE && m->type <= RAFT_MSG_TIMEOUT_NOW;
  if (m->n_entries > RAFT_NUMBER_MAX || (m->n_entries > 0 && !m->entries) || (m->index == 0) != (m->index_term == 0))
    return false;
  uint64_t term = m->index_term;
  for (uint64_t i = 0; i < m->n_entries; i++) {
    const struct raft_entry *e = &m->entries[i];
    struct raft_members members;
    if (e->index != m->index + 1 + i || e->term < term || e->term == 0 || e->term > m->term || e->len > RAFT_ENTRY_MAX || e->type < RAFT_ENTRY_NOOP ||
        e->type > RAFT_ENTRY_MEMBERS)
      return false;
    if (e->type == RAFT_ENTRY_MEMBERS && raft_members_decode(e->data, e->len, &members, NULL) < 0)
      return false;
    term = e->term;
  }
  return true;
}

static bool hears_leader(const struct raft *r) {
  return r->role == RAFT_LEADER || (r->leader != 0 && r->now - r->leader_seen < r->election_timeout);
}

/* §3.3 with §9.6 and §4.2.3. False: the message is dealt with, or is none of our term's business. */
static bool settle_term(struct raft *r, const struct raft_msg *m) {
  if (m->term > r->hard.term) {
    switch (m->type) {
    case RAFT_MSG_VOTE:
      if (m->pre)
        return true; /* a rehearsal changes no term */
      if (!m->transfer && hears_leader(r))
        return false; /* §4.2.3: as if it had not come */
      raft_become_follower(r, m->term, 0);
      return true;
    case RAFT_MSG_VOTE_REPLY:
      if (m->pre && m->ok)
        return true;
      raft_become_follower(r, m->term, 0);
      return false;
    case RAFT_MSG_APPEND:
    case RAFT_MSG_SNAPSHOT:
      raft_become_follower(r, m->term, m->from);
      return true;
    case RAFT_MSG_APPEND_REPLY:
    case RAFT_MSG_SNAPSHOT_REPLY:
      raft_become_follower(r, m->term, 0);
      return false;
    case RAFT_MSG_TIMEOUT_NOW:
      return false;
    }
  }
  if (m->term < r->hard.term) {
    struct raft_msg *reply = NULL;
    /* Whoever is behind learns of the term by the answer; a stale leader steps down. */
    if (m->type == RAFT_MSG_VOTE && (reply = raft_send(r, m->from, RAFT_MSG_VOTE_REPLY, true)))
      reply->pre = m->pre;
    else if (m->type == RAFT_MSG_APPEND && (reply = raft_send(r, m->from, RAFT_MSG_APPEND_REPLY, true)))
      reply->index = m->index;
    return false;
  }
  return true;
}

static void on_message(struct raft *r, const struct raft_msg *m) {
  if (!well_formed(r, m) || !settle_term(r, m))
    return;
  switch (m->type) {
  case RAFT_MSG_VOTE:
    raft_on_vote(r, m);
    return;
  case RAFT_MSG_VOTE_REPLY:
    raft_on_vote_reply(r, m);
    return;
  case RAFT_MSG_APPEND:
    if (r->role == RAFT_LEADER) /* two leaders in a term cannot be (§3.4): not a member's honest message */
      return;
    raft_become_follower(r, m->term, m->from);
    raft_on_append(r, m);
    return;
  case RAFT_MSG_APPEND_REPLY:
    raft_on_append_reply(r, m);
    return;
  case RAFT_MSG_SNAPSHOT: /* a sign of the leader's life; all of it comes as RAFT_EV_INSTALL */
    if (r->role != RAFT_LEADER)
      raft_become_follower(r, m->term, m->from);
    return;
  case RAFT_MSG_SNAPSHOT_REPLY:
    raft_on_snapshot_reply(r, m);
    return;
  case RAFT_MSG_TIMEOUT_NOW:
    /* §3.10: stands at once, without a rehearsal that others would refuse. */
    if (r->role == RAFT_FOLLOWER && r->leader == m->from && raft_is_voter(r, r->id))
      raft_campaign(r, true);
    return;
  }
}

/* ---------------------------------------------------------------- other events */

static void propose(struct raft *r, const struct raft_event *ev) {
  struct raft_actions *a = r->a;
  a->proposed_first = r->shape.last + 1;
  a->proposed_term = r->hard.term;
  if (r->role != RAFT_LEADER || r->transfer != 0) {
    a->proposed = ERR_NO_LEADER;
    return;
  }
  for (size_t i = 0; i < ev->n_entries; i++) {
    if (ev->entries[i].len > RAFT_ENTRY_MAX) {
      a->proposed = ERR_TOO_LARGE;
      return;
    }
  }
  for (size_t i = 0; i < ev->n_entries && !r->failed; i++)
    raft_append(r, &(struct raft_entry){.type = RAFT_ENTRY_DATA, .data = ev->entries[i].data, .len = ev->entries[i].len}, NULL);
  raft_replicate_all(r);
  if (MUTANT(COUNT_UNSYNCED))
    raft_advance_commit(r);
}

static void on_stable(struct raft *r, const struct raft_stable *s) {
  if (s->index > r->stable && s->index <= r->shape.last && raft_shape_term(&r->shape, s->index) == s->term)
    r->stable = s->index;
  r->stable_hard = s->hard;
  if (r->role == RAFT_CANDIDATE && s->hard.term == r->hard.term && s->hard.vote == r->id) {
    struct raft_peer *self = raft_peer(r, r->id);
    if (self && self->voted == VOTE_NONE) {
      self->voted = VOTE_GRANTED;
      raft_count_votes(r);
    }
  } else if (r->role == RAFT_LEADER) {
    raft_advance_commit(r);
  }
}

/* Nothing of the last write is on disk, and nothing that rests on it has left but a leader's entries: to the others this is a member
 * that crashed and came back at once. */
static void write_failed(struct raft *r) {
  if (r->failed_first != 0 && r->failed_first <= r->shape.last) {
    uint64_t last = r->failed_first - 1;
    raft_shape_truncate(&r->shape, last);
    if (r->stable > last)
      r->stable = last;
    if (r->commit > last)
      r->commit = last; /* a follower's, told of in the same message; never one that was announced */
    raft_use_members(r);
  }
  r->hard_dirty = true;
  raft_become_follower(r, r->hard.term, 0);
}

static void tick(struct raft *r) {
  if (r->role == RAFT_LEADER)
    raft_leader_tick(r);
  else if (r->now >= r->election_at)
    raft_election_timeout(r);
}

static void install(struct raft *r, const struct raft_event *ev) {
  if (!ev->snapshot || !ev->msg || ev->msg->from == 0 || ev->msg->from == r->id || ev->msg->term < r->hard.term || ev->msg->term > RAFT_NUMBER_MAX ||
      ev->snapshot->index > RAFT_NUMBER_MAX || (r->role == RAFT_LEADER && ev->msg->term == r->hard.term))
    return;
  raft_become_follower(r, ev->msg->term, ev->msg->from);
  raft_install(r, ev);
}

static void compacted(struct raft *r, const struct raft_snapshot *s) {
  if (s && s->index > r->shape.base_index && s->index <= r->announced)
    raft_shape_compact(&r->shape, s->index);
}

static int64_t deadline(const struct raft *r) {
  if (r->role != RAFT_LEADER)
    return r->election_at;
  if (r->members.n == 1 && r->members.m[0].id == r->id)
    return INT64_MAX;
  int64_t at = r->heartbeat_at < r->quorum_at ? r->heartbeat_at : r->quorum_at;
  return r->transfer != 0 && r->transfer_until < at ? r->transfer_until : at;
}

int raft_step(struct raft *r, const struct raft_event *ev, int64_t now, struct raft_actions *a) {
  enum raft_role role = r->role;
  uint64_t term = r->hard.term, leader = r->leader;
  actions_clear(a);
  r->a = a;
  r->now = now;
  switch (ev->type) {
  case RAFT_EV_START:
    raft_set_election_deadline(r);
    if (raft_is_voter(r, r->id) && raft_quorum(r) == 1) /* nobody to wait for */
      raft_election_timeout(r);
    break;
  case RAFT_EV_TICK:
    tick(r);
    break;
  case RAFT_EV_MESSAGE:
    on_message(r, ev->msg);
    break;
  case RAFT_EV_PROPOSE:
    propose(r, ev);
    break;
  case RAFT_EV_READ:
    raft_read(r, ev->read_id);
    break;
  case RAFT_EV_STABLE:
    on_stable(r, &ev->stable);
    break;
  case RAFT_EV_WRITE_FAILED:
    write_failed(r);
    break;
  case RAFT_EV_COMPACTED:
    compacted(r, ev->snapshot);
    break;
  case RAFT_EV_SNAPSHOT_SENT:
    raft_snapshot_sent(r, ev->peer, ev->ok);
    break;
  case RAFT_EV_INSTALL:
    install(r, ev);
    break;
  case RAFT_EV_CHANGE:
    raft_change(r, &ev->change);
    break;
  case RAFT_EV_TRANSFER:
    raft_transfer_start(r, ev->peer);
    break;
  }

  /* After a failed write the hard state waits for the next event: trying again at once would fail again. */
  if (r->hard_dirty && ev->type != RAFT_EV_WRITE_FAILED) {
    a->hard_changed = !MUTANT(UNSAVED_TERM) || r->hard.vote == r->id;
    a->hard = r->hard;
    r->hard_dirty = false;
  }
  a->write = a->hard_changed || a->n_append > 0;
  if (a->write)
    r->failed_first = a->n_append > 0 ? a->append[0].index : 0;
  /* A state machine must not run ahead of its own log: it would hold what a crash takes from the log. */
  uint64_t ready = r->commit < r->stable || MUTANT(COUNT_UNSYNCED) ? r->commit : r->stable;
  if (ready > r->announced)
    r->announced = ready;
  a->commit = r->announced;
  a->role_changed = role != r->role || term != r->hard.term || leader != r->leader;
  a->deadline = deadline(r);
  r->a = NULL;
  return r->failed ? -1 : 0;
}

/* ---------------------------------------------------------------- life */

struct raft *raft_new(const struct raft_options *o, struct err *err) {
  if (o->id == 0 || o->hard.term > RAFT_NUMBER_MAX || o->snapshot.index > RAFT_NUMBER_MAX || o->applied > RAFT_NUMBER_MAX ||
      o->snapshot.term > o->hard.term || (o->snapshot.index == 0) != (o->snapshot.term == 0)) {
    err_set(err, ERR_INVALID, "raft: id 0, or term %llu with a snapshot of term %llu at %llu", (unsigned long long)o->hard.term,
            (unsigned long long)o->snapshot.term, (unsigned long long)o->snapshot.index);
    return NULL;
  }
  struct raft *r = calloc(1, sizeof *r);
  if (!r || raft_shape_init(&r->shape, o->snapshot.index, o->snapshot.term, &o->snapshot.members) < 0) {
    free(r);
    err_set(err, ERR_MEMORY, "raft: out of memory");
    return NULL;
  }
  r->id = o->id;
  r->random = o->seed;
  r->election_timeout = o->election_timeout > 0 ? o->election_timeout : 150 * MS;
  r->heartbeat = o->heartbeat > 0 ? o->heartbeat : r->election_timeout / 5;
  r->max_entries = o->max_append_entries ? o->max_append_entries : 1024;
  r->max_bytes = o->max_append_bytes ? o->max_append_bytes : 1u << 20;
  r->max_inflight = o->max_inflight && o->max_inflight < RAFT_INFLIGHT_MAX ? o->max_inflight : RAFT_INFLIGHT_MAX;
  r->hard = r->stable_hard = o->hard;
  r->stable = o->snapshot.index;
  r->commit = o->applied > o->snapshot.index ? o->applied : o->snapshot.index;
  r->announced = r->commit;
  r->election_at = INT64_MAX;
  raft_use_members(r);
  return r;
}

int raft_restore(struct raft *r, const struct raft_entry *e, struct err *err) {
  struct raft_members members;
  bool is_members = e->type == RAFT_ENTRY_MEMBERS;
  if (e->index <= r->shape.base_index)
    return 0;
  if (e->index != r->shape.last + 1 || e->term < raft_shape_last_term(&r->shape) || e->term > r->hard.term || e->term == 0)
    return err_set(err, ERR_CORRUPT, "raft: entry %llu of term %llu behind entry %llu of term %llu, in term %llu", (unsigned long long)e->index,
                   (unsigned long long)e->term, (unsigned long long)r->shape.last, (unsigned long long)raft_shape_last_term(&r->shape),
                   (unsigned long long)r->hard.term);
  if (is_members && raft_members_decode(e->data, e->len, &members, err) < 0)
    return err_context(err, "raft: entry %llu", (unsigned long long)e->index);
  if (raft_shape_push(&r->shape, e->term, e->len, is_members ? &members : NULL) < 0)
    return err_set(err, ERR_MEMORY, "raft: out of memory");
  r->stable = r->shape.last; /* what the log had when it was opened is synced */
  if (is_members)
    raft_use_members(r);
  return 0;
}

void raft_free(struct raft *r) {
  if (!r)
    return;
  raft_shape_fini(&r->shape);
  free(r->reads);
  free(r);
}

enum raft_role raft_role(const struct raft *r) {
  return r->role;
}
uint64_t raft_id(const struct raft *r) {
  return r->id;
}
uint64_t raft_term(const struct raft *r) {
  return r->hard.term;
}
uint64_t raft_leader(const struct raft *r) {
  return r->leader;
}
uint64_t raft_commit(const struct raft *r) {
  return r->commit;
}
uint64_t raft_first_index(const struct raft *r) {
  return r->shape.base_index + 1;
}
uint64_t raft_last_index(const struct raft *r) {
  return r->shape.last;
}
uint64_t raft_stable_index(const struct raft *r) {
  return r->stable;
}
uint64_t raft_term_at(const struct raft *r, uint64_t index) {
  return raft_shape_term(&r->shape, index);
}
const struct raft_members *raft_members(const struct raft *r) {
  return &r->members;
}

const struct raft_members *raft_members_at(const struct raft *r, uint64_t index) {
  for (size_t i = r->shape.n_members; i > 0; i--)
    if (r->shape.members[i - 1].index <= index)
      return &r->shape.members[i - 1].members;
  return NULL;
}
