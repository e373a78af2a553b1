/* orcactl(1), made from the command table: `orcactl --man` at build time.
 * Threads: none. */
#ifndef ORCA_ORCACTL_MANUAL_H
#define ORCA_ORCACTL_MANUAL_H

int manual_print(void); /* the exit code */

#endif
