/* The Raft core once more, with the mutants in: it takes the place of the archive's copy. */
#define RAFT_SIM 1
#include "orca-store/raft.c"
#include "orca-store/raft_change.c"
#include "orca-store/raft_election.c"
#include "orca-store/raft_follower.c"
#include "orca-store/raft_leader.c"
#include "orca-store/raft_shape.c"

enum raft_mutant raft_sim_mutant = MUTANT_NONE;
