/* Writing small files safely: all at once, synced, with the mode they keep.
 * Threads: any. */
#ifndef ORCA_ORCACTL_FILES_H
#define ORCA_ORCACTL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

int files_mkdir_p(const char *path, mode_t mode, struct err *err);
/* Writes a temporary beside it, syncs, renames, syncs the folder. Replaces what was there. */
int files_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* Appends the whole file; at most the buffer's cap. secret: refused unless key_file_check() finds it ours alone. */
int files_read(const char *path, bool secret, struct buf *to, struct err *err);

#endif
