/* Who else can read or replace a private file: keys of the bus, master.key, ca.key, orcactl's token.
 *
 * Asked of the open file, so that what was checked is what is read.
 * Threads: any. */
#ifndef ORCA_COMMON_CRYPTO_KEY_FILE_H
#define ORCA_COMMON_CRYPTO_KEY_FILE_H

#include <sys/stat.h>

#include "common/err.h"

/* 0: a regular file of ours or root's that group and others can't touch. ERR_DENIED otherwise, with the path, how it is and what to do. */
int key_file_check(int fd, const char *path, struct err *err);
/* The same of what fstat said, for process user `uid`: a pure function. */
int key_file_judge(const struct stat *st, uid_t uid, const char *path, struct err *err);

#endif
