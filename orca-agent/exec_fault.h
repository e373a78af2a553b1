/* The exit code of a command that is not there. Docker before 28 says 126 for all that it could not start, and why in the command's output; 127 is
 * what a shell says of a command that is not found, and newer ones too.
 * Threads: pure functions of the struct. */
#ifndef ORCA_AGENT_EXEC_FAULT_H
#define ORCA_AGENT_EXEC_FAULT_H

#include <stddef.h>
#include <stdint.h>

#define EXEC_FAULT_MAX 512u

struct exec_fault { /* all zero: nothing was written yet */
  char text[EXEC_FAULT_MAX + 1];
  size_t len; /* more than EXEC_FAULT_MAX: a command wrote it */
};

void exec_fault_feed(struct exec_fault *fault, const uint8_t *data, size_t len);
int32_t exec_fault_code(const struct exec_fault *fault, int32_t code);

#endif
