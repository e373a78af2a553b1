/* Whether the disposable map may be trusted at a start: DIR/mark holds the boot id and whether the last stop was clean.
 *
 * The map is written without syncs. A process that was killed leaves it whole in the page cache; a machine that went down does not. So it is trusted
 * when the boot id is the same, or when the last stop had synced it. A process that died of a fault (SIGSEGV, SIGBUS, SIGABRT) may have died of the
 * map: DIR/crashed, made by the signal handler in main.c, says so.
 * Threads: one. */
#ifndef ORCA_STORE_MARK_H
#define ORCA_STORE_MARK_H

#include <stdbool.h>

#include "common/err.h"

enum mark_trust { MARK_NEW, MARK_TRUSTED, MARK_REBOOTED, MARK_CRASHED, MARK_UNREADABLE };

enum mark_trust mark_read(const char *dir);
/* Durable when it returns; clears `crashed`. */
int mark_write(const char *dir, bool clean, struct err *err);

#endif
