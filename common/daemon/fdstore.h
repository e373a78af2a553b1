/* systemd's store of file descriptors (sd_notify(3): FDSTORE, FDNAME; sd_listen_fds(3)): what is put there comes to the next process of the unit,
 * however this one ends. Nothing happens where there is no systemd, or its unit has no FileDescriptorStoreMax=.
 * Threads: one. */
#ifndef ORCA_COMMON_DAEMON_FDSTORE_H
#define ORCA_COMMON_DAEMON_FDSTORE_H

#include <stdbool.h>

/* Whether systemd watches over this process. */
bool fdstore_has(void);
/* A copy goes to systemd; the same file again is not kept twice. name: letters, digits, -; several may have one name. */
void fdstore_put(const char *name, int fd);
void fdstore_remove(const char *name); /* all of that name */
/* Those that systemd passed to this process, once: how many are in ret; more than `max` are closed. They are the caller's now. */
unsigned fdstore_take(int *ret, unsigned max);

#endif
