#include "orca-store/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int posix_open(struct disk *d, const char *path, enum disk_open how) {
  (void)d;
  int flags = O_CLOEXEC | O_NOFOLLOW;
  switch (how) {
  case DISK_READ:
    flags |= O_RDONLY;
    break;
  case DISK_WRITE:
    flags |= O_RDWR;
    break;
  case DISK_CREATE:
    flags |= O_RDWR | O_CREAT;
    break;
  case DISK_CREATE_NEW:
    flags |= O_RDWR | O_CREAT | O_TRUNC;
    break;
  }
  int fd = open(path, flags, 0600);
  return fd < 0 ? -errno : fd;
}

static void posix_close(struct disk *d, int fd) {
  (void)d;
  close(fd); /* nothing rests on it: what must last has been synced */
}

static ssize_t posix_pread(struct disk *d, int fd, void *data, size_t len, int64_t offset) {
  (void)d;
  ssize_t n;
  do
    n = pread(fd, data, len, offset);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

static ssize_t posix_pwrite(struct disk *d, int fd, const void *data, size_t len, int64_t offset) {
  (void)d;
  ssize_t n;
  do
    n = pwrite(fd, data, len, offset);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

/* Not tried again on EINTR: after a failed sync the kernel may have dropped what it could not write. */
static int posix_fdatasync(struct disk *d, int fd) {
  (void)d;
  return fdatasync(fd) < 0 ? -errno : 0;
}

static int posix_allocate(struct disk *d, int fd, int64_t len) {
  (void)d;
  if (fallocate(fd, 0, 0, len) == 0)
    return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS)
    return -errno;
  int rc = posix_fallocate(fd, 0, len); /* a file system without: by writing */
  return -rc;
}

#define MAX_EXTENTS 64 /* more pieces than that are not a log's */

static int posix_written(struct disk *d, int fd, int64_t *ret) {
  (void)d;
  off_t end = 0;
  for (int i = 0; i < MAX_EXTENTS; i++) {
    off_t data = lseek(fd, end, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      *ret = end;
      return 0;
    }
    off_t hole = data < 0 ? data : lseek(fd, data, SEEK_HOLE);
    if (hole < 0)
      return -errno;
    end = hole;
  }
  return -EOVERFLOW;
}

static int posix_truncate(struct disk *d, int fd, int64_t len) {
  (void)d;
  return ftruncate(fd, len) < 0 ? -errno : 0;
}

static int posix_size(struct disk *d, int fd, int64_t *ret) {
  (void)d;
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  *ret = st.st_size;
  return 0;
}

static int posix_rename(struct disk *d, const char *from, const char *to) {
  (void)d;
  return rename(from, to) < 0 ? -errno : 0;
}

static int posix_unlink(struct disk *d, const char *path) {
  (void)d;
  return unlink(path) < 0 ? -errno : 0;
}

static int posix_make_dir(struct disk *d, const char *path) {
  (void)d;
  return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int posix_sync_dir(struct disk *d, const char *path) {
  (void)d;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  int rc = fsync(fd) < 0 ? -errno : 0;
  close(fd);
  return rc;
}

static int posix_list(struct disk *d, const char *path, void (*each)(void *arg, const char *name), void *arg) {
  (void)d;
  DIR *dir = opendir(path);
  if (!dir)
    return -errno;
  int rc = 0;
  for (;;) {
    errno = 0;
    struct dirent *e = readdir(dir);
    if (!e) {
      rc = -errno;
      break;
    }
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
      each(arg, e->d_name);
  }
  closedir(dir);
  return rc;
}

static int posix_lock(struct disk *d, int fd) {
  (void)d;
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  /* the open file description's: not lost when some other descriptor of the file is closed */
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
    return 0;
  return errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK : -errno;
}

static struct disk posix = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .fdatasync = posix_fdatasync,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .written = posix_written,
    .size = posix_size,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .make_dir = posix_make_dir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .lock = posix_lock,
};

struct disk *disk_posix(void) {
  return &posix;
}

ssize_t disk_read_at(struct disk *d, int fd, void *data, size_t len, int64_t offset) {
  size_t done = 0;
  while (done < len) {
    ssize_t n = d->pread(d, fd, (char *)data + done, len - done, offset + (int64_t)done);
    if (n < 0)
      return n;
    if (n == 0)
      break;
    done += (size_t)n;
  }
  return (ssize_t)done;
}

int disk_write_at(struct disk *d, int fd, const void *data, size_t len, int64_t offset) {
  size_t done = 0;
  while (done < len) {
    ssize_t n = d->pwrite(d, fd, (const char *)data + done, len - done, offset + (int64_t)done);
    if (n < 0)
      return (int)n;
    if (n == 0)
      return -ENOSPC;
    done += (size_t)n;
  }
  return 0;
}
