/* Numbers that follow from a seed. Threads: whoever holds the state. */
#ifndef ORCA_TESTS_UNIT_SCHEDULER_XORSHIFT_H
#define ORCA_TESTS_UNIT_SCHEDULER_XORSHIFT_H

#include <stdint.h>

/* The next one, which is also the state: never 0, and it must not begin with 0. */
static inline uint64_t xorshift64(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

#endif
