#include "orca-proxy/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/spec/read_file.h"

struct state {
  int dir, lock;
};

static int take_lock(struct state *s, const char *path, struct err *err) {
  s->lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (s->lock < 0)
    return err_errno(err, errno, "%s/lock", path);
  char pid[32] = "";
  if (flock(s->lock, LOCK_EX | LOCK_NB) < 0) {
    ssize_t n = pread(s->lock, pid, sizeof pid - 1, 0);
    pid[n > 0 ? n : 0] = 0;
    return err_set(err, ERR_CONFLICT, "%s is in use by another orca-proxy, pid %.*s", path, (int)strcspn(pid, " \n"), pid);
  }
  int n = snprintf(pid, sizeof pid, "%-10d\n", getpid());
  if (pwrite(s->lock, pid, (size_t)n, 0) != n && errno != ENOSPC) /* a full disk keeps nobody from starting */
    return err_errno(err, errno, "%s/lock", path);
  return 0;
}

struct state *state_open(const char *state_dir, struct err *err) {
  char path[4096];
  struct state *s = malloc(sizeof *s);
  if (!s) {
    err_set(err, ERR_MEMORY, "no memory for the state folder");
    return NULL;
  }
  *s = (struct state){-1, -1};
  if (snprintf(path, sizeof path, "%s/proxy", state_dir) >= (int)sizeof path) {
    err_set(err, ERR_INVALID, "the path of the state folder is too long");
    goto fail;
  }
  if ((mkdir(state_dir, 0755) < 0 && errno != EEXIST) || (mkdir(path, 0700) < 0 && errno != EEXIST) ||
      (s->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
    err_errno(err, errno, "%s", path);
    goto fail;
  }
  if (take_lock(s, path, err) == 0)
    return s;
fail:
  state_close(s);
  return NULL;
}

void state_close(struct state *s) {
  if (!s)
    return;
  if (s->lock >= 0)
    close(s->lock);
  if (s->dir >= 0)
    close(s->dir);
  free(s);
}

static int write_all(int fd, const uint8_t *data, size_t len) {
  while (len) {
    ssize_t n = write(fd, data, len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -1;
    data += n;
    len -= (size_t)n;
  }
  return 0;
}

int state_write(struct state *s, const char *name, const struct buf *data, mode_t mode, struct err *err) {
  char new[64];
  snprintf(new, sizeof new, "%s.new", name);
  if (s->lock < 0)
    return err_set(err, ERR_CONFLICT, "%s: the folder is another proxy's by now", name);
  unlinkat(s->dir, new, 0); /* one that was left behind may not be ours to write to */
  int fd = openat(s->dir, new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0)
    return err_errno(err, errno, "%s", new);
  bool ok = write_all(fd, data->data, data->len) == 0 && fdatasync(fd) == 0;
  int e = errno;
  close(fd);
  if (!ok) {
    unlinkat(s->dir, new, 0);
    return err_errno(err, e, "%s", new);
  }
  if (renameat(s->dir, new, s->dir, name) < 0 || fsync(s->dir) < 0)
    return err_errno(err, errno, "%s", name);
  return 0;
}

void state_release(struct state *s) {
  flock(s->lock, LOCK_UN); /* a forked child holds the same lock: closing the descriptor would not do */
  close(s->lock);
  s->lock = -1;
}

int state_read(struct state *s, const char *name, struct buf *data, struct err *err) {
  int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return err_errno(err, errno, "%s", name);
  int rc = spec_read_fd(fd, name, data, err);
  close(fd);
  return rc;
}
