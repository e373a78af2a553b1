/* The Raft core's own parts: state, and what its files call of each other. Included by raft_*.c alone. */
#ifndef ORCA_STORE_RAFT_INTERNAL_H
#define ORCA_STORE_RAFT_INTERNAL_H

#include "orca-store/raft.h"

/* Deliberate faults, in the simulator's build of these files only: they prove that it would see such a one. */
#ifdef RAFT_SIM
#include "tests/sim/raft/mutants.h"
#define MUTANT(name) (raft_sim_mutant == MUTANT_##name)
#else
#define MUTANT(name) false
#endif

#define RAFT_INFLIGHT_MAX 64
#define RAFT_NUMBER_MAX (UINT64_C(1) << 62) /* terms and indexes beyond are a peer's nonsense; sums of two stay in range */

/* The log's shape: terms in runs, lengths in a ring, memberships in a short list. */
struct raft_run {
  uint64_t first, term;
};
struct raft_members_at {
  uint64_t index;
  struct raft_members members;
};
struct raft_shape {
  uint64_t base_index, base_term; /* the entry before the first; 0, 0 at the beginning of time */
  uint64_t last;
  struct raft_run *runs;
  size_t n_runs, cap_runs;
  uint32_t *lens; /* slot: index & (cap_lens - 1) */
  size_t cap_lens;
  struct raft_members_at *members; /* by index; [0] is as of the base, always there */
  size_t n_members, cap_members;
};

/* §10.1.3 pipelining: probe: where do the logs agree; one message at a time. replicate: stream. snapshot: too far behind for the log. */
enum raft_flow { FLOW_PROBE, FLOW_REPLICATE, FLOW_SNAPSHOT };
enum raft_vote { VOTE_NONE, VOTE_GRANTED, VOTE_DENIED };

struct raft_peer { /* beside members.m[] in the same order; our own is there too, unused but for `voted` */
  uint64_t id;
  enum raft_vote voted;
  enum raft_flow flow;
  uint64_t match, next;
  bool waiting;     /* probe: a message is out */
  int64_t last_ack; /* when it last answered in this term */
  uint64_t read_ack;
  uint64_t sent_commit;
  uint64_t inflight[RAFT_INFLIGHT_MAX]; /* last index of each message that is not answered, a ring */
  size_t inflight_first, inflight_n;
};

struct raft_waiting_read {
  uint64_t id, index, seq;
};

struct raft {
  uint64_t id, random;
  int64_t election_timeout, heartbeat;
  uint64_t max_entries, max_bytes, max_inflight;

  struct raft_hard hard, stable_hard;
  bool hard_dirty;       /* differs from what was last handed out to be written */
  uint64_t failed_first; /* first index handed out in the last write; 0: none */
  struct raft_shape shape;
  uint64_t stable, commit, announced;

  enum raft_role role;
  uint64_t leader;
  int64_t election_at, leader_seen; /* leader_seen: when a living leader last spoke */
  struct raft_members members;
  uint64_t members_index;
  struct raft_peer peers[RAFT_MEMBERS_MAX];

  int64_t heartbeat_at, quorum_at;
  uint64_t transfer; /* target, 0: none under way */
  int64_t transfer_until;
  bool campaign_by_transfer;

  uint64_t read_seq; /* newest round that was sent */
  struct raft_waiting_read *reads;
  size_t n_reads, cap_reads;

  /* of the step under way */
  struct raft_actions *a;
  int64_t now;
  bool failed; /* memory ended */
};

/* raft_shape.c */
int raft_shape_init(struct raft_shape *s, uint64_t index, uint64_t term, const struct raft_members *members);
void raft_shape_fini(struct raft_shape *s);
int raft_shape_push(struct raft_shape *s, uint64_t term, size_t len, const struct raft_members *members);
void raft_shape_truncate(struct raft_shape *s, uint64_t last); /* last ≥ base */
void raft_shape_compact(struct raft_shape *s, uint64_t index); /* base < index ≤ last */
void raft_shape_reset(struct raft_shape *s, const struct raft_snapshot *snapshot);
uint64_t raft_shape_term(const struct raft_shape *s, uint64_t index);
uint64_t raft_shape_last_term(const struct raft_shape *s);
uint32_t raft_shape_len(const struct raft_shape *s, uint64_t index);
/* The greatest index ≤ from whose term is ≤ term; the base's at the least. */
uint64_t raft_shape_seek(const struct raft_shape *s, uint64_t from, uint64_t term);

/* raft.c */
struct raft_msg *raft_send(struct raft *r, uint64_t to, enum raft_msg_type type, bool after_sync);
void raft_append(struct raft *r, const struct raft_entry *e, const struct raft_members *members);
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_set_election_deadline(struct raft *r);
bool raft_is_voter(const struct raft *r, uint64_t id);
bool raft_may_stand(const struct raft *r);
size_t raft_quorum(const struct raft *r);
struct raft_peer *raft_peer(struct raft *r, uint64_t id);
void raft_use_members(struct raft *r);

/* raft_election.c */
void raft_campaign(struct raft *r, bool transfer);
void raft_election_timeout(struct raft *r);
void raft_count_votes(struct raft *r);
void raft_on_vote(struct raft *r, const struct raft_msg *m);
void raft_on_vote_reply(struct raft *r, const struct raft_msg *m);

/* raft_leader.c */
void raft_become_leader(struct raft *r);
void raft_advance_commit(struct raft *r);
void raft_replicate(struct raft *r, struct raft_peer *p);
void raft_replicate_all(struct raft *r);
void raft_leader_tick(struct raft *r);
void raft_on_append_reply(struct raft *r, const struct raft_msg *m);
void raft_on_snapshot_reply(struct raft *r, const struct raft_msg *m);
void raft_snapshot_sent(struct raft *r, uint64_t peer, bool ok);
void raft_transfer_start(struct raft *r, uint64_t to);
void raft_read(struct raft *r, uint64_t id);
void raft_confirm_reads(struct raft *r);
void raft_fail_reads(struct raft *r);

/* raft_follower.c */
void raft_on_append(struct raft *r, const struct raft_msg *m);
void raft_install(struct raft *r, const struct raft_event *ev);

/* raft_change.c */
void raft_change(struct raft *r, const struct raft_change *c);

#endif
