/* What is found wrong with a spec, as a text that tests compare. */
#ifndef ORCA_TESTS_UNIT_SPEC_FAULTS_H
#define ORCA_TESTS_UNIT_SPEC_FAULTS_H

#include "common/spec/spec.h"

/* A line for each, with no newline behind the last. */
static inline void print_faults(const struct spec_faults *faults, struct buf *to) {
  for (size_t i = 0; i < faults->count; i++) {
    if (i)
      buf_add_byte(to, '\n');
    spec_fault_print(&faults->list[i], to);
  }
}

#endif
