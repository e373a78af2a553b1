/* The user's terminal for a session on another one: raw while it lasts, and as it was on every way out of the process.
 * Threads: none; one per process. */
#ifndef ORCA_ORCACTL_TERMINAL_H
#define ORCA_ORCACTL_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

bool terminal_size(uint32_t *rows, uint32_t *cols); /* of stdout, or of stdin; false: neither is a terminal */
bool terminal_raw(void);                            /* stdin; false: it is none. Again after a stop: sets it again */
void terminal_restore(void);                        /* also at exit */

#endif
