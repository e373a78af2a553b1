#include "common/spec/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int spec_read_fd(int fd, const char *name, struct buf *to, struct err *err) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return err_errno(err, errno, "%s", name);
  if (!S_ISREG(st.st_mode))
    return err_set(err, ERR_INVALID, "%s: not a regular file", name);
  for (;;) {
    size_t step = st.st_size > 0 && to->len < (size_t)st.st_size ? (size_t)st.st_size - to->len : 4096; /* it may grow while we read */
    if (step > to->cap - to->len)
      step = to->cap - to->len;
    uint8_t beyond;
    if (step == 0) { /* full: is that all? */
      ssize_t n = read(fd, &beyond, 1);
      if (n == 0)
        return 0;
      if (n < 0 && errno == EINTR)
        continue;
      return n < 0 ? err_errno(err, errno, "%s", name) : err_set(err, ERR_TOO_LARGE, "%s: larger than %zu bytes", name, to->cap);
    }
    ssize_t n = buf_read(to, fd, step);
    if (n <= 0)
      return n < 0 ? err_errno(err, errno, "%s", name) : 0;
  }
}

int spec_read_file(int dir_fd, const char *path, struct buf *to, struct err *err) {
  int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  int rc = spec_read_fd(fd, path, to, err);
  close(fd);
  return rc;
}
