/* For fuzzers of what is read from files: a folder of the process's own, gone at its end. */
#ifndef ORCA_TESTS_FUZZ_FILES_H
#define ORCA_TESTS_FUZZ_FILES_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char fuzz_dir[] = "/tmp/fuzz-XXXXXX";

static inline int fuzz_remove(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

static inline void fuzz_remove_dir(void) {
  nftw(fuzz_dir, fuzz_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* In the process's first call, and the folders below it that are asked for. */
static inline void fuzz_make_dir(const char *below) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", mkdtemp(fuzz_dir) ? fuzz_dir : "", below);
  if (atexit(fuzz_remove_dir) != 0 || (*below && mkdir(path, 0700) < 0))
    abort();
}

static inline void fuzz_write(const char *name, const void *data, size_t size) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0)
    abort();
}

#endif
