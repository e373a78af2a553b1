/* A cluster in one thread: the real core, log and snapshots over simulated disks, network and time. All that happens follows from the seed. */
#ifndef ORCA_TESTS_SIM_RAFT_SIM_H
#define ORCA_TESTS_SIM_RAFT_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_result {
  bool violated;
  char text[512]; /* of the first violation */
  uint64_t steps, acked, reads, crashes, elections, snapshots, changes;
};

/* voters 1 … 7. verbose: the history, on stdout. */
void sim_run(uint64_t seed, int voters, bool verbose, struct sim_result *ret);

#endif
