/* raft-sim --seeds N [--from S] [--voters V] [--mutant NAME] | --replay SEED [--voters V] | --mutants
 * Voters 0 (the default): 1, 2, 3, 4, 5 in turn, by seed. Exit code 1 when there was a violation. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/raft/mutants.h"
#include "tests/sim/raft/sim.h"

static const struct {
  const char *name, *what;
} mutants[] = {{"none", "the core as it is"},
#define X(name, text, what) {text, what},
               RAFT_MUTANTS(X)
#undef X
};

static int usage(void) {
  fprintf(stderr, "usage: raft-sim --seeds N [--from S] [--voters 1..7] [--mutant NAME] | --replay SEED [--voters V] [--mutant NAME] | --mutants\n");
  return 2;
}

static int number(const char *text, uint64_t *ret) {
  char *end;
  errno = 0;
  *ret = strtoull(text, &end, 10);
  return errno || end == text || *end ? -1 : 0;
}

int main(int argc, char **argv) {
  uint64_t seeds = 0, from = 1, voters = 0, replay = 0;
  bool replaying = false;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--mutants") == 0) {
      for (int m = 1; m < MUTANT_COUNT; m++)
        printf("%-20s %s\n", mutants[m].name, mutants[m].what);
      return 0;
    }
    if (i + 1 == argc)
      return usage();
    const char *value = argv[++i];
    if (strcmp(argv[i - 1], "--mutant") == 0) {
      for (int m = 0; m < MUTANT_COUNT; m++)
        if (strcmp(value, mutants[m].name) == 0)
          raft_sim_mutant = (enum raft_mutant)m;
      if (raft_sim_mutant == MUTANT_NONE)
        return usage();
      continue;
    }
    uint64_t *to = strcmp(argv[i - 1], "--seeds") == 0    ? &seeds
                   : strcmp(argv[i - 1], "--from") == 0   ? &from
                   : strcmp(argv[i - 1], "--voters") == 0 ? &voters
                   : strcmp(argv[i - 1], "--replay") == 0 ? &replay
                                                          : NULL;
    if (!to || number(value, to) < 0 || voters > 7)
      return usage();
    replaying |= to == &replay;
  }
  if (!replaying && seeds == 0)
    return usage();
  if (replaying) {
    from = replay;
    seeds = 1;
  }
  struct sim_result sum = {0};
  uint64_t violations = 0;
  struct timespec began, ended;
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (uint64_t seed = from; seed < from + seeds; seed++) {
    struct sim_result r;
    int v = voters ? (int)voters : (int)(seed % 5) + 1;
    sim_run(seed, v, replaying, &r);
    sum.steps += r.steps;
    sum.acked += r.acked;
    sum.reads += r.reads;
    sum.crashes += r.crashes;
    sum.elections += r.elections;
    sum.snapshots += r.snapshots;
    sum.changes += r.changes;
    if (!r.violated)
      continue;
    violations++;
    printf("seed %llu, %d voters: %s\n", (unsigned long long)seed, v, r.text);
    if (raft_sim_mutant != MUTANT_NONE) { /* found: that is all that was asked */
      seeds = seed - from + 1;
      break;
    }
  }
  clock_gettime(CLOCK_MONOTONIC, &ended);
  double s = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
  printf("%llu steps, %llu acknowledged writes, %llu reads, %llu crashes, %llu leaders, %llu snapshots installed, %llu membership changes; %.0f "
         "seeds/s\n",
         (unsigned long long)sum.steps, (unsigned long long)sum.acked, (unsigned long long)sum.reads, (unsigned long long)sum.crashes,
         (unsigned long long)sum.elections, (unsigned long long)sum.snapshots, (unsigned long long)sum.changes, (double)seeds / (s > 0 ? s : 1));
  printf("%llu seeds, %llu violations\n", (unsigned long long)seeds, (unsigned long long)violations);
  return violations ? 1 : 0;
}
