#include "orca-agent/secret_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "orca-agent/secret_values.h"

/* Modes of a container's folder. */
#define BEGUN 0700 /* an agent that was killed in the middle leaves some of the files, or a part of one */
#define WHOLE 0750
#define OWNED 0755

static bool in_memory(const char *path) {
  struct statfs fs;
  return statfs(path, &fs) == 0 && ((unsigned long)fs.f_type == TMPFS_MAGIC || (unsigned long)fs.f_type == RAMFS_MAGIC);
}

/* Ours alone: /dev/shm is everybody's, and somebody may have been there before us. */
static int open_base(struct secret_files *f, struct err *err) {
  struct stat st;
  int fd = open(f->base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "secret_files: %s", f->base);
  if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077)) {
    close(fd);
    return err_set(err, ERR_DENIED, "secret_files: %s is somebody else's, or others can enter it: remove it", f->base);
  }
  f->fd = fd;
  return 0;
}

static int make_base(struct secret_files *f, struct err *err) {
  if (f->fd >= 0)
    return 0;
  if (!*f->base) {
    *err = f->why;
    return -1;
  }
  if (mkdir(f->base, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "secret_files: mkdir %s", f->base);
  return open_base(f, err);
}

void secret_files_open(struct secret_files *f, const char *run_dir, const char *cluster8, const char *node) {
  char real[PATH_MAX];
  *f = (struct secret_files){.fd = -1};
  int n;
  if (realpath(run_dir, real) && in_memory(real)) {
    n = snprintf(f->base, sizeof f->base, "%s/agent-secrets", real);
  } else if (in_memory("/dev/shm")) {
    n = snprintf(f->base, sizeof f->base, "/dev/shm/orca-%s-%s", cluster8, node);
  } else {
    err_set(&f->why, ERR_UNAVAILABLE, "secret_files need memory to lie in: neither %s nor /dev/shm is a tmpfs", run_dir);
    return;
  }
  if (n >= 0 && n < (int)sizeof f->base) {
    struct err err;
    open_base(f, &err); /* what stands in the way is said to whoever needs it */
    return;
  }
  f->base[0] = 0;
  err_set(&f->why, ERR_INVALID, "run_dir is too long");
}

void secret_files_close(struct secret_files *f) {
  if (f->fd >= 0)
    close(f->fd);
  f->fd = -1;
}

static bool name_ok(const char *container) {
  return *container && *container != '.' && !strchr(container, '/');
}

static int open_folder(const struct secret_files *f, const char *container) {
  return f->fd >= 0 && name_ok(container) ? openat(f->fd, container, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
}

static bool is_dots(const char *name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

void secret_files_drop(struct secret_files *f, const char *container) {
  int fd = open_folder(f, container);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0)
      close(fd);
    return;
  }
  for (struct dirent *e; (e = readdir(dir));)
    if (!is_dots(e->d_name))
      unlinkat(dirfd(dir), e->d_name, 0);
  closedir(dir);
  unlinkat(f->fd, container, AT_REMOVEDIR);
  if (rmdir(f->base) == 0) /* the last one */
    secret_files_close(f);
}

static int write_one(int folder, const char *name, const uint8_t *data, size_t len, struct err *err) {
  int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
  if (fd < 0)
    return err_errno(err, errno, "secret file %s", name);
  int rc = 0;
  while (len && rc == 0) {
    ssize_t n = write(fd, data, len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      rc = err_errno(err, errno, "secret file %s", name);
      break;
    }
    data += n;
    len -= (size_t)n;
  }
  close(fd);
  return rc;
}

int secret_files_lay(struct secret_files *f, const char *container, const Model__ServiceSpec *spec, const Node__Secrets *values, struct err *err) {
  if (!name_ok(container))
    return err_set(err, ERR_INVALID, "not a container's name");
  secret_files_drop(f, container);
  if (make_base(f, err) < 0)
    return -1;
  if (mkdirat(f->fd, container, BEGUN) < 0)
    return err_errno(err, errno, "mkdir %s/%s", f->base, container);
  int folder = open_folder(f, container), rc = folder < 0 ? err_errno(err, errno, "%s/%s", f->base, container) : 0;
  for (size_t n = 0; n < spec->n_secret_files && rc == 0; n++) {
    const Node__SecretValue *value = secret_value_of(values, spec->secret_files[n]);
    bool valid = spec_secret_name_valid(spec->secret_files[n], strlen(spec->secret_files[n]));
    rc = !valid  ? err_set(err, ERR_INVALID, "secret_files: not a name of a secret")
         : value ? write_one(folder, spec->secret_files[n], value->value.data, value->value.len, err)
                 : err_set(err, ERR_UNPROCESSABLE, "secret %s is missing", spec->secret_files[n]);
  }
  if (rc == 0 && fchmod(folder, WHOLE) < 0)
    rc = err_errno(err, errno, "chmod %s/%s", f->base, container);
  if (folder >= 0)
    close(folder);
  if (rc < 0)
    secret_files_drop(f, container);
  return rc;
}

static bool mode_of(const struct secret_files *f, const char *container, mode_t *ret) {
  struct stat st;
  if (f->fd < 0 || !name_ok(container) || fstatat(f->fd, container, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
    return false;
  *ret = st.st_mode & 0777;
  return true;
}

bool secret_files_there(const struct secret_files *f, const char *container) {
  mode_t mode;
  return mode_of(f, container, &mode) && mode != BEGUN;
}

bool secret_files_owned(const struct secret_files *f, const char *container) {
  mode_t mode;
  return mode_of(f, container, &mode) && mode == OWNED;
}

int secret_files_own(struct secret_files *f, const char *container, uid_t uid, struct err *err) {
  int fd = open_folder(f, container), rc = 0;
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    err_errno(err, errno, "%s/%s", f->base, container);
    if (fd >= 0)
      close(fd);
    return -1;
  }
  for (struct dirent *e; rc == 0 && (e = readdir(dir));)
    if (!is_dots(e->d_name) && fchownat(dirfd(dir), e->d_name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0)
      rc = err_errno(err, errno, "chown of a secret file to user %u", (unsigned)uid);
  if (rc == 0 && fchmod(dirfd(dir), OWNED) < 0)
    rc = err_errno(err, errno, "chmod %s/%s", f->base, container);
  closedir(dir);
  return rc;
}

int secret_files_path(const struct secret_files *f, const char *container, char out[PATH_MAX], struct err *err) {
  int n = snprintf(out, PATH_MAX, "%s/%s", f->base, container);
  return n > 0 && n < PATH_MAX ? 0 : err_set(err, ERR_TOO_LARGE, "a path is too long");
}

void secret_files_sweep(struct secret_files *f, bool (*known)(void *arg, const char *container), void *arg) {
  int fd = f->fd < 0 ? -1 : openat(f->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    if (fd >= 0)
      close(fd);
    return;
  }
  for (struct dirent *e; (e = readdir(dir));)
    if (!is_dots(e->d_name) && !known(arg, e->d_name))
      secret_files_drop(f, e->d_name);
  closedir(dir);
}
