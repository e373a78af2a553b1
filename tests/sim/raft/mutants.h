/* Deliberate faults of the Raft core, compiled into the simulator's copy of it alone. Name on the command line: lower case, dashes. */
#ifndef ORCA_TESTS_SIM_RAFT_MUTANTS_H
#define ORCA_TESTS_SIM_RAFT_MUTANTS_H

#define RAFT_MUTANTS(X)                                                                                                                              \
  X(COMMIT_OLD_TERM, "commit-old-term", "entries of earlier terms are committed by counting")                                                        \
  X(ACK_BEFORE_SYNC, "ack-before-sync", "a follower acknowledges entries before they are synced")                                                    \
  X(COUNT_UNSYNCED, "count-unsynced", "a leader counts its own copy before it is synced")                                                            \
  X(DOUBLE_VOTE, "double-vote", "a second vote in a term is given")                                                                                  \
  X(FORGET_VOTE, "forget-vote", "the vote is never written down")                                                                                    \
  X(UNSYNCED_VOTE, "unsynced-vote", "the vote is told before it is synced")                                                                          \
  X(UNSAVED_TERM, "unsaved-term", "a term or vote that is not for oneself is not handed to the log")                                                 \
  X(VOTE_SHORT_LOG, "vote-short-log", "votes for candidates with an older log")                                                                      \
  X(KEEP_CONFLICT, "keep-conflict", "entries that conflict with the leader's are kept")                                                              \
  X(COMMIT_PAST_SENT, "commit-past-sent", "a follower's commit is not capped at the last entry sent")                                                \
  X(STALE_READ, "stale-read", "reads are answered without asking a quorum")                                                                          \
  X(OLD_SNAPSHOT, "old-snapshot", "a snapshot is installed over newer state")                                                                        \
  X(CHANGE_BEFORE_NOOP, "change-before-noop", "membership changes before the term's first commit")

enum raft_mutant {
  MUTANT_NONE,
#define X(name, text, what) MUTANT_##name,
  RAFT_MUTANTS(X)
#undef X
      MUTANT_COUNT
};
extern enum raft_mutant raft_sim_mutant;

#endif
