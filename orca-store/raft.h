/* Raft, as a pure core: raft_step(state, event, now) fills in actions; the shell carries them out.
 *
 * No I/O, no clock, no threads, no randomness but a seeded generator in its state. The core keeps of the log only its
 * shape (terms and lengths of entries), never a payload: what it wants written points into the event, what it wants sent
 * names a range of indexes that the shell reads from its log. Sections in comments (§) are those of D. Ongaro,
 * "Consensus: Bridging Theory and Practice" (2014).
 *
 * The shell's contract, after each raft_step(), in this order:
 *   1. `write` set: put `hard` (when hard_changed) and then `append[0 .. n_append)` into the log. An entry whose index is in
 *      the log already replaces it and everything behind it. (dlog_write does all that.)
 *   2. Messages with `after_sync` leave, in order, only when everything written up to now has been synced; the others
 *      at once (a leader replicates while its own disk is syncing, §10.2.1).
 *   3. `commit`: entries up to it are committed and stable here: apply them in order, each once.
 *   4. When a sync has ended: RAFT_EV_STABLE with what the log's mark said when that sync began. A failed sync ends the process.
 *   5. `deadline`: RAFT_EV_TICK no later than then (INT64_MAX: no timer; a leader that is alone needs none).
 * Space: the shell reserves room in its log (dlog_reserve) before it hands in proposals or an append message, and refuses or
 * drops them when there is none. Should a write still fail for want of space: RAFT_EV_WRITE_FAILED.
 *
 * Ownership: struct raft is raft_new()'s and raft_free()'s. struct raft_actions is the caller's, kept from step to step; what it
 * points to is good until the next step, payloads as long as the event's are.
 * Threads: one. Times: ns, monotonic. Errors: raft_step() fails only when memory ends; then the state is void and the process must end. */
#ifndef ORCA_STORE_RAFT_H
#define ORCA_STORE_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define RAFT_MEMBERS_MAX 16
#define RAFT_ADDRESS_MAX 128
#define RAFT_ENTRY_MAX (16u << 20) /* bytes of one entry's payload */

enum raft_entry_type {
  RAFT_ENTRY_NOOP = 1,    /* a leader's first entry in its term (§6.4): no payload */
  RAFT_ENTRY_DATA = 2,    /* the state machine's */
  RAFT_ENTRY_MEMBERS = 3, /* a membership, encoded by raft_members_encode */
};

struct raft_entry {
  uint64_t index, term;
  enum raft_entry_type type;
  const void *data;
  size_t len;
};

struct raft_member {
  uint64_t id; /* never 0 */
  bool voter;  /* else a learner (§4.2.1): gets the log, has no vote */
  char address[RAFT_ADDRESS_MAX];
};
struct raft_members {
  size_t n;
  struct raft_member m[RAFT_MEMBERS_MAX]; /* by ascending id */
};

struct raft_hard { /* durable before anything that rests on it leaves (§3.8) */
  uint64_t term;
  uint64_t vote; /* 0: none in this term */
};

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

/* ---------------------------------------------------------------- messages between members */

enum raft_msg_type {
  RAFT_MSG_VOTE = 1,
  RAFT_MSG_VOTE_REPLY,
  RAFT_MSG_APPEND, /* also the heartbeat, with no entries */
  RAFT_MSG_APPEND_REPLY,
  RAFT_MSG_SNAPSHOT,       /* the shell streams its newest snapshot (≥ index) in place of this, then reports RAFT_EV_SNAPSHOT_SENT */
  RAFT_MSG_SNAPSHOT_REPLY, /* the receiver has it installed and synced up to `match` (or refused: ok false) */
  RAFT_MSG_TIMEOUT_NOW,    /* leadership transfer (§3.10) */
};

struct raft_msg {
  enum raft_msg_type type;
  uint64_t from, to;
  uint64_t term;
  bool after_sync; /* outgoing: see the contract above */

  bool pre;      /* VOTE, VOTE_REPLY: pre-vote (§9.6) */
  bool transfer; /* VOTE: by the leader's wish, so that a living leader is no reason to refuse (§4.2.3) */
  bool ok;       /* VOTE_REPLY: granted. APPEND_REPLY, SNAPSHOT_REPLY: accepted */

  /* VOTE: the candidate's last entry. APPEND: the entry before the first sent. SNAPSHOT: the snapshot's. APPEND_REPLY refused: hint, see raft.c */
  uint64_t index, index_term;
  uint64_t commit;   /* APPEND */
  uint64_t match;    /* APPEND_REPLY, SNAPSHOT_REPLY: the log agrees with the leader's up to here */
  uint64_t read_seq; /* APPEND and its reply: the newest round of ReadIndex this confirms (§6.4) */

  uint64_t first, n_entries;        /* outgoing APPEND: entries [first, first + n_entries), for the shell to read from its log */
  const struct raft_entry *entries; /* incoming APPEND: those n_entries entries, borrowed. NULL in outgoing messages */
};

/* ---------------------------------------------------------------- events */

enum raft_event_type {
  RAFT_EV_START,         /* once, first */
  RAFT_EV_TICK,          /* the deadline has come (early or late is fine) */
  RAFT_EV_MESSAGE,       /* msg; the shell has checked that `from` is who sent it */
  RAFT_EV_PROPOSE,       /* entries (type DATA; index and term are the core's to give) */
  RAFT_EV_READ,          /* read_id: a linearizable read wants an index (§6.4) */
  RAFT_EV_STABLE,        /* stable: what a finished sync covers */
  RAFT_EV_WRITE_FAILED,  /* the log took nothing of the last step's `write` for want of space, and no message of that step was sent */
  RAFT_EV_COMPACTED,     /* snapshot: entries up to its index need not be sent from the log any more (it may have been cut) */
  RAFT_EV_SNAPSHOT_SENT, /* peer, ok: streaming to it has ended; then its SNAPSHOT_REPLY counts, a failure lets it be tried again */
  RAFT_EV_INSTALL,  /* snapshot, msg.from, msg.term: a received snapshot is verified and durable; the core says in `install` whether to take it */
  RAFT_EV_CHANGE,   /* change: membership, one at a time (§4.1) */
  RAFT_EV_TRANSFER, /* peer: hand leadership to it (0: to whoever is most up to date) (§3.10) */
};

/* Receiving a snapshot: each chunk is handed in as a RAFT_MSG_SNAPSHOT first (term, and the leader's sign of life); chunks of an older term are
 * dropped; the file is committed (snapshot_commit) only when the term is synced; then RAFT_EV_INSTALL. Else a crash could leave a snapshot of a term
 * that the log never saw, which is what a lost log looks like. */

/* What a sync covers: taken from the log (dlog_mark) before it began. An (index, term) pair names a whole prefix of a log (§3.5), so
 * that a report that a later replacement of entries has overtaken is seen to be one. */
struct raft_stable {
  uint64_t index, term;  /* last entry */
  struct raft_hard hard; /* last hard state */
};

struct raft_snapshot {
  uint64_t index, term; /* of the last entry it holds */
  struct raft_members members;
};

enum raft_change_type { RAFT_ADD_LEARNER, RAFT_PROMOTE, RAFT_REMOVE };
struct raft_change {
  enum raft_change_type type;
  uint64_t id;
  const char *address; /* ADD_LEARNER: borrowed */
};

struct raft_event {
  enum raft_event_type type;
  const struct raft_msg *msg;
  const struct raft_entry *entries;
  size_t n_entries;
  uint64_t read_id;
  struct raft_stable stable;
  const struct raft_snapshot *snapshot;
  struct raft_change change;
  uint64_t peer;
  bool ok;
};

/* ---------------------------------------------------------------- actions */

struct raft_read {
  uint64_t id;
  uint64_t index; /* answer once this is applied */
  bool ok;        /* false: not the leader (any more): no answer can be trusted, ask another */
};

struct raft_actions {
  bool write; /* hard or append have something */
  bool hard_changed;
  struct raft_hard hard;
  struct raft_entry *append;
  size_t n_append;

  struct raft_msg *msgs;
  size_t n_msgs;

  uint64_t commit; /* never falls; entries up to here may be applied */

  struct raft_read *reads;
  size_t n_reads;

  /* PROPOSE and CHANGE: what became of it. ERR_NONE: entries have the indexes [first, first + n) in `proposed_term`. They are done when applied with
   * that very term; when `role_changed` takes leadership away before that, their fate is open ("unknown", never "no"). */
  enum err_code proposed;
  uint64_t proposed_first, proposed_term;

  bool install; /* INSTALL: replace state and log by the snapshot (dlog_reset), now. Nothing else of this step may be done before */

  bool role_changed; /* role, term or leader differ from before the step: raft_role() … have the new ones */
  int64_t deadline;

  /* Private: room. */
  size_t cap_append, cap_msgs, cap_reads;
  void *scratch;
};

void raft_actions_init(struct raft_actions *a);
void raft_actions_fini(struct raft_actions *a);

/* ---------------------------------------------------------------- the core */

struct raft_options {
  uint64_t id;
  uint64_t seed;                 /* of the generator that spreads election timeouts: from the system's randomness */
  int64_t election_timeout;      /* ns, the least; drawn from [1, 2) of it. 0: 150 ms */
  int64_t heartbeat;             /* 0: a fifth of the election timeout */
  uint64_t max_append_entries;   /* in one message; 0: 1,024 */
  uint64_t max_append_bytes;     /* payload in one message, but always one entry; 0: 1 MiB */
  uint64_t max_inflight;         /* messages to one follower not answered yet; 0: 64 */
  struct raft_hard hard;         /* as the log had it */
  struct raft_snapshot snapshot; /* newest; index 0: none, members then are those the cluster was founded with */
  uint64_t applied;              /* what the state machine holds already (≥ snapshot.index): known to be committed */
};

struct raft;

/* NULL when memory ends or the options contradict themselves. Then raft_restore() for each entry of the log behind the snapshot, in order
 * (payloads only of MEMBERS are looked at; len counts for all; those at or before the snapshot's index are passed over), then raft_step() with
 * RAFT_EV_START. Before: dlog_follow_snapshot(); and a state machine that holds more than the log (applied > last) must be thrown away. */
struct raft *raft_new(const struct raft_options *options, struct err *err);
int raft_restore(struct raft *r, const struct raft_entry *entry, struct err *err);
void raft_free(struct raft *r);

int raft_step(struct raft *r, const struct raft_event *event, int64_t now, struct raft_actions *actions);

/* What the state is, for status and tests. */
enum raft_role raft_role(const struct raft *r);
uint64_t raft_id(const struct raft *r);
uint64_t raft_term(const struct raft *r);
uint64_t raft_leader(const struct raft *r); /* 0: none known */
uint64_t raft_commit(const struct raft *r); /* known to be committed; may be ahead of what is stable here */
uint64_t raft_first_index(const struct raft *r);
uint64_t raft_last_index(const struct raft *r);
uint64_t raft_stable_index(const struct raft *r);
/* 0 when the index is not in the log; the snapshot's own index has its term. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);
/* The newest membership in the log, committed or not (§4.1), and the one as of a committed index (for a snapshot's metadata; NULL when it was
 * compacted). */
const struct raft_members *raft_members(const struct raft *r);
const struct raft_members *raft_members_at(const struct raft *r, uint64_t index);

/* ---------------------------------------------------------------- memberships as bytes (proto/raft.proto, Members) */

/* Returns the length; 0 when cap is too small (RAFT_MEMBERS_BYTES always does). */
#define RAFT_MEMBERS_BYTES (RAFT_MEMBERS_MAX * (RAFT_ADDRESS_MAX + 32))
size_t raft_members_encode(const struct raft_members *members, uint8_t *out, size_t cap);
/* ERR_CORRUPT on anything that is not a membership: no voter, an id twice, 0, an address too long. */
int raft_members_decode(const void *data, size_t len, struct raft_members *ret, struct err *err);
const struct raft_member *raft_members_find(const struct raft_members *members, uint64_t id); /* NULL: not there */

#endif
