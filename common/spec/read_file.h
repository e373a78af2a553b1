/* A regular file into a buffer, no further than the buffer's cap.
 * Threads: any. */
#ifndef ORCA_COMMON_SPEC_READ_FILE_H
#define ORCA_COMMON_SPEC_READ_FILE_H

#include "common/buf.h"
#include "common/err.h"

/* path is relative to dir_fd (or AT_FDCWD). Its last part may be a link; what it names must be a regular file. */
int spec_read_file(int dir_fd, const char *path, struct buf *to, struct err *err);
/* The same from a descriptor, which stays open. name is for errors. */
int spec_read_fd(int fd, const char *name, struct buf *to, struct err *err);

#endif
