/* The file operations that the durable log and the snapshots rest on, as a table, so that tests put a simulated, full or
 * failing disk beneath the very same code.
 *
 * Every call returns 0 (or a count, or a handle ≥ 0), else a negative errno value: -ENOSPC, -EIO … Paths are whole paths.
 * Handles are the implementation's: plain descriptors with disk_posix().
 * Threads: `fdatasync` and `pwrite` on different handles may run at once; an implementation must allow that.
 * Ownership: the table is the caller's and outlives what was opened through it. */
#ifndef ORCA_STORE_DISK_H
#define ORCA_STORE_DISK_H

#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

enum disk_open {
  DISK_READ = 0,       /* an existing file, read only */
  DISK_WRITE = 1,      /* an existing file, read and write */
  DISK_CREATE = 2,     /* read and write; made (mode 0600) when missing */
  DISK_CREATE_NEW = 3, /* read and write; made empty, whatever was there is cut to nothing */
};

struct disk {
  int (*open)(struct disk *d, const char *path, enum disk_open how);
  void (*close)(struct disk *d, int fd);
  ssize_t (*pread)(struct disk *d, int fd, void *data, size_t len, int64_t offset);        /* may be short; 0 at the end */
  ssize_t (*pwrite)(struct disk *d, int fd, const void *data, size_t len, int64_t offset); /* may be short */
  int (*fdatasync)(struct disk *d, int fd);
  int (*allocate)(struct disk *d, int fd, int64_t len); /* makes the file len long, its blocks reserved and read as zeros */
  int (*truncate)(struct disk *d, int fd, int64_t len);
  int (*size)(struct disk *d, int fd, int64_t *ret);
  /* Everything from *ret to the file's end is known to read as zeros: never written. May be NULL: nothing is known. */
  int (*written)(struct disk *d, int fd, int64_t *ret);
  int (*rename)(struct disk *d, const char *from, const char *to);
  int (*unlink)(struct disk *d, const char *path);
  int (*make_dir)(struct disk *d, const char *path); /* mode 0700; 0 too when it is there */
  int (*sync_dir)(struct disk *d, const char *path);
  int (*list)(struct disk *d, const char *path, void (*each)(void *arg, const char *name), void *arg); /* no order, no "." and ".." */
  /* Takes the file's write lock for as long as the handle is open. -EWOULDBLOCK when another process has it. */
  int (*lock)(struct disk *d, int fd);
  void *arg;
};

/* The machine's disk. Never NULL, never freed. */
struct disk *disk_posix(void);

/* Whole reads and writes: a short count is gone on with. disk_read_at returns how much there was before the end of the file. */
ssize_t disk_read_at(struct disk *d, int fd, void *data, size_t len, int64_t offset);
int disk_write_at(struct disk *d, int fd, const void *data, size_t len, int64_t offset);

#endif
