#include "orcactl/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/crypto/key_file.h"

int files_mkdir_p(const char *path, mode_t mode, struct err *err) {
  char part[PATH_MAX];
  size_t len = strlen(path);
  if (len == 0 || len >= sizeof part)
    return err_set(err, ERR_INVALID, "unusable path: %s", path);
  memcpy(part, path, len + 1);
  for (char *p = part + 1;; p++) {
    if (*p != '/' && *p)
      continue;
    char was = *p;
    *p = 0;
    if (mkdir(part, was ? 0755 : mode) < 0 && errno != EEXIST)
      return err_errno(err, errno, "make folder %s", part);
    *p = was;
    if (!was)
      return 0;
  }
}

static int sync_folder_of(const char *path, struct err *err) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t len = slash ? (size_t)(slash - path) : 0;
  if (len >= sizeof folder)
    return err_set(err, ERR_INVALID, "path too long: %s", path);
  memcpy(folder, slash ? path : ".", slash ? len : 1);
  folder[slash ? (len ? len : 0) : 1] = 0;
  int fd = open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "open folder %s", folder);
  int rc = fsync(fd);
  if (rc < 0)
    err_errno(err, errno, "sync folder %s", folder);
  close(fd);
  return rc;
}

static int write_all(int fd, const void *data, size_t len) {
  const char *p = data;
  while (len) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno != EINTR)
      return -1;
    if (n > 0) {
      p += n;
      len -= (size_t)n;
    }
  }
  return 0;
}

int files_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err) {
  char temporary[PATH_MAX];
  if ((size_t)snprintf(temporary, sizeof temporary, "%s.new", path) >= sizeof temporary)
    return err_set(err, ERR_INVALID, "path too long: %s", path);
  if (unlink(temporary) < 0 && errno != ENOENT)
    return err_errno(err, errno, "remove %s", temporary);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0)
    return err_errno(err, errno, "write %s", temporary);
  int failed = fchmod(fd, mode) < 0 || write_all(fd, data, len) < 0 || fsync(fd) < 0 ? errno : 0;
  if (close(fd) < 0 && !failed)
    failed = errno;
  if (!failed && rename(temporary, path) < 0)
    failed = errno;
  if (failed) {
    unlink(temporary);
    return err_errno(err, failed, "write %s", path);
  }
  return sync_folder_of(path, err);
}

int files_read(const char *path, bool secret, struct buf *to, struct err *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (secret ? O_NONBLOCK : 0));
  if (fd < 0)
    return err_errno(err, errno, "read %s", path);
  int rc = secret ? key_file_check(fd, path, err) : 0;
  char piece[4096];
  while (rc == 0) {
    ssize_t n = read(fd, piece, sizeof piece);
    if (n == 0)
      break;
    if (n < 0 && errno != EINTR)
      rc = err_errno(err, errno, "read %s", path);
    else if (n > 0 && buf_add(to, piece, (size_t)n) < 0)
      rc = err_set(err, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, to->cap);
  }
  if (secret)
    crypto_wipe(piece, sizeof piece);
  close(fd);
  return rc;
}
