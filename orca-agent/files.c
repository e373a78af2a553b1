#include "orca-agent/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"

#define MAX_FILES 10000u

struct files {
  char dir[PATH_MAX / 2];
  int lock_fd;
};

static int make_dir(const char *path, mode_t mode, struct err *err) {
  if (mkdir(path, mode) == 0 || errno == EEXIST)
    return 0;
  return err_errno(err, errno, "mkdir %s", path);
}

static int path_join(char out[PATH_MAX], struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int path_join(char out[PATH_MAX], struct err *err, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(out, PATH_MAX, fmt, ap);
  va_end(ap);
  return n < 0 || n >= PATH_MAX ? err_set(err, ERR_TOO_LARGE, "a path is too long") : 0;
}

/* Two agents that share a state folder are one node twice: the second says who the first is. */
static int take_lock(struct files *f, struct err *err) {
  char path[PATH_MAX], pid[32] = "";
  if (path_join(path, err, "%s/lock", f->dir) < 0)
    return -1;
  f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (f->lock_fd < 0)
    return err_errno(err, errno, "open %s", path);
  if (flock(f->lock_fd, LOCK_EX | LOCK_NB) < 0) {
    int why = errno;
    ssize_t n = read(f->lock_fd, pid, sizeof pid - 1);
    return why == EWOULDBLOCK ? err_set(err, ERR_CONFLICT, "%s is in use by another orca-agent, process %.*s", f->dir,
                                        n > 0 ? (int)strcspn(pid, " \n") : 1, n > 0 ? pid : "?")
                              : err_errno(err, why, "lock %s", path);
  }
  int len = snprintf(pid, sizeof pid, "%-10d\n", (int)getpid());
  if (write(f->lock_fd, pid, (size_t)len) != len && errno != ENOSPC) /* a full disk keeps nobody from starting */
    return err_errno(err, errno, "write %s", path);
  return 0;
}

struct files *files_open(const char *state_dir, struct err *err) {
  struct files *f = calloc(1, sizeof *f);
  if (!f) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  char real[PATH_MAX], path[PATH_MAX];
  /* Docker binds by absolute path. */
  if ((mkdir(state_dir, 0755) < 0 && errno != EEXIST) || !realpath(state_dir, real)) {
    err_errno(err, errno, "state_dir %s", state_dir);
    free(f);
    return NULL;
  }
  f->lock_fd = -1;
  if (snprintf(f->dir, sizeof f->dir, "%s/agent", real) >= (int)sizeof f->dir || make_dir(f->dir, 0711, err) < 0 ||
      path_join(path, err, "%s/content", f->dir) < 0 || make_dir(path, 0700, err) < 0 || path_join(path, err, "%s/mounts", f->dir) < 0 ||
      make_dir(path, 0711, err) < 0 || take_lock(f, err) < 0) {
    files_close(f);
    return NULL;
  }
  return f;
}

void files_close(struct files *f) {
  if (f && f->lock_fd >= 0)
    close(f->lock_fd);
  free(f);
}

const char *files_dir(const struct files *f) {
  return f->dir;
}

static bool sha_valid(const char *sha256) {
  return strlen(sha256) == 64 && strspn(sha256, "0123456789abcdef") == 64;
}

bool files_have(const struct files *f, const char *sha256) {
  char path[PATH_MAX];
  struct stat st;
  if (!sha_valid(sha256) || path_join(path, NULL, "%s/content/%s", f->dir, sha256) < 0 || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
    return false;
  utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW); /* used now: whoever asks lays it in a moment */
  return true;
}

static int write_file(const char *path, const void *data, size_t len, mode_t mode, struct err *err) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return err_errno(err, errno, "create %s", path);
  const uint8_t *p = data;
  int rc = 0;
  while (len && rc == 0) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      rc = err_errno(err, errno, "write %s", path);
      break;
    }
    p += n;
    len -= (size_t)n;
  }
  if (rc == 0 && fchmod(fd, mode) < 0)
    rc = err_errno(err, errno, "chmod %s", path);
  if (close(fd) < 0 && rc == 0)
    rc = err_errno(err, errno, "close %s", path);
  if (rc < 0)
    unlink(path);
  return rc;
}

int files_put(struct files *f, const char *sha256, const void *content, size_t len, struct err *err) {
  uint8_t digest[32];
  char hex[65], path[PATH_MAX], temporary[PATH_MAX];
  if (!sha_valid(sha256) || len > FILES_MAX)
    return err_set(err, ERR_INVALID, "a file's name is not a SHA-256, or it is too large");
  crypto_sha256(content, len, digest);
  crypto_hex(digest, sizeof digest, hex);
  if (strcmp(hex, sha256) != 0)
    return err_set(err, ERR_CORRUPT, "the content of %.12s… is not what its name says", sha256);
  if (path_join(path, err, "%s/content/%s", f->dir, sha256) < 0 || path_join(temporary, err, "%s/content/new", f->dir) < 0)
    return -1;
  unlink(temporary);
  if (write_file(temporary, content, len, 0600, err) < 0)
    return -1;
  if (rename(temporary, path) < 0)
    return err_errno(err, errno, "rename %s", path);
  return 0;
}

static int read_content(const struct files *f, const char *sha256, uint8_t **ret, size_t *ret_len, struct err *err) {
  char path[PATH_MAX];
  if (!sha_valid(sha256))
    return err_set(err, ERR_INVALID, "a file's name is not a SHA-256");
  if (path_join(path, err, "%s/content/%s", f->dir, sha256) < 0)
    return -1;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < 0 || (size_t)st.st_size > FILES_MAX) {
    err_errno(err, fd < 0 ? errno : EIO, "open %s", path);
    if (fd >= 0)
      close(fd);
    return -1;
  }
  size_t len = (size_t)st.st_size, got = 0;
  uint8_t *data = malloc(len ? len : 1);
  while (data && got < len) {
    ssize_t n = read(fd, data + got, len - got);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    got += (size_t)n;
  }
  close(fd);
  if (!data || got < len) {
    free(data);
    return err_set(err, data ? ERR_IO : ERR_MEMORY, "read %s", path);
  }
  uint8_t digest[32];
  char hex[65];
  crypto_sha256(data, len, digest);
  crypto_hex(digest, sizeof digest, hex);
  if (strcmp(hex, sha256) != 0) {
    free(data);
    unlink(path); /* damaged on disk: fetched again */
    return err_set(err, ERR_CORRUPT, "the stored content of %.12s… was damaged", sha256);
  }
  *ret = data;
  *ret_len = len;
  return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st;
  (void)type;
  (void)ftw;
  return remove(path);
}

static void remove_tree(const char *path) {
  nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Below its mount, without tricks: no empty part, no "." or "..", not absolute. */
static bool relative_valid(const char *path) {
  if (strlen(path) >= 1024)
    return false;
  for (const char *p = path;;) {
    size_t len = strcspn(p, "/");
    if (len == 0 || len > 255 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
      return false;
    if (!p[len])
      return true;
    p += len + 1;
  }
}

static int make_parents(const char *root, const char *relative, struct err *err) {
  char path[PATH_MAX];
  for (const char *slash = strchr(relative, '/'); slash; slash = strchr(slash + 1, '/'))
    if (path_join(path, err, "%s/%.*s", root, (int)(slash - relative), relative) < 0 || make_dir(path, 0755, err) < 0)
      return -1;
  return 0;
}

static bool is_single(const Model__Mount *mount) {
  return mount->n_files == 1 && !*PB_STR(mount->files[0]->path);
}

static int lay_one(struct files *f, const char *root, const Model__Mount *mount, const Model__MountFile *file, struct err *err) {
  char path[PATH_MAX];
  const char *relative = is_single(mount) ? "file" : PB_STR(file->path);
  uint8_t *data = NULL;
  size_t len = 0;
  if (!relative_valid(relative))
    return err_set(err, ERR_INVALID, "mount %s: a file's path leaves it", PB_STR(mount->target));
  if (make_parents(root, relative, err) < 0 || path_join(path, err, "%s/%s", root, relative) < 0 ||
      read_content(f, PB_STR(file->sha256), &data, &len, err) < 0)
    return -1;
  int rc = write_file(path, data, len, PB_GET(file, mode, 0644) & 0777, err);
  free(data);
  return rc;
}

int files_lay(struct files *f, const char *container, size_t index, const Model__Mount *mount, struct err *err) {
  char folder[PATH_MAX], root[PATH_MAX];
  if (mount->n_files > MAX_FILES)
    return err_set(err, ERR_TOO_LARGE, "mount %s: more than %u files", PB_STR(mount->target), MAX_FILES);
  if (path_join(folder, err, "%s/mounts/%s", f->dir, container) < 0 || path_join(root, err, "%s/mounts/%s/%zu", f->dir, container, index) < 0)
    return -1;
  remove_tree(root);
  if (make_dir(folder, 0711, err) < 0 || make_dir(root, 0755, err) < 0)
    return -1;
  for (size_t n = 0; n < mount->n_files; n++)
    if (lay_one(f, root, mount, mount->files[n], err) < 0)
      return err_context(err, "mount %s", PB_STR(mount->target));
  return 0;
}

static bool below(const char *path, const char *allowed) {
  size_t len = strlen(allowed);
  while (len > 1 && allowed[len - 1] == '/')
    len--;
  return len && allowed[0] == '/' && strncmp(path, allowed, len) == 0 && (len == 1 || path[len] == 0 || path[len] == '/');
}

int files_host_path(const char *path, const Model__ClusterSpec *cluster, char out[PATH_MAX], struct err *err) {
  char real[PATH_MAX], allowed[PATH_MAX];
  if (!realpath(path, real))
    return err_errno(err, errno, "%s", path);
  /* What a symbolic link leads to must be allowed too, or whoever may write below an allowed path reaches everything. */
  const Model__Policy *policy = cluster ? cluster->policy : NULL;
  for (size_t n = 0; policy && n < policy->n_allow_host_paths; n++)
    if (realpath(policy->allow_host_paths[n], allowed) && below(real, allowed))
      return path_join(out, err, "%s", real);
  return err_set(err, ERR_DENIED, "[policy] allow_host_paths does not allow %s", real);
}

int files_still_real(const char *path, struct err *err) {
  const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
  int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
  if (fd >= 0)
    close(fd);
  if (fd >= 0 || errno != ELOOP)
    return 0;
  return err_set(err, ERR_DENIED,
                 "a symbolic link has taken the place of %s, or of a folder above it: deploy or restart the service to have it judged anew", path);
}

int files_source(const struct files *f, const char *container, size_t index, const Model__Mount *mount, const Model__ClusterSpec *cluster,
                 char out[PATH_MAX], struct err *err) {
  if (mount->n_files)
    return path_join(out, err, is_single(mount) ? "%s/mounts/%s/%zu/file" : "%s/mounts/%s/%zu", f->dir, container, index);
  const char *source = PB_STR(mount->source);
  if (source[0] != '/')
    return err_set(err, ERR_UNPROCESSABLE, "mount %s: \"%s\" is neither an absolute path nor came with files", PB_STR(mount->target), source);
  return files_host_path(source, cluster, out, err) < 0 ? err_context(err, "mount %s", PB_STR(mount->target)) : 0;
}

void files_drop(struct files *f, const char *container) {
  char path[PATH_MAX];
  if (*container && !strchr(container, '/') && container[0] != '.' && path_join(path, NULL, "%s/mounts/%s", f->dir, container) == 0)
    remove_tree(path);
}

static void sweep_mounts(struct files *f, bool (*known)(void *arg, const char *container), void *arg) {
  char path[PATH_MAX];
  DIR *dir = path_join(path, NULL, "%s/mounts", f->dir) < 0 ? NULL : opendir(path);
  if (!dir)
    return;
  for (struct dirent *e; (e = readdir(dir));)
    if (e->d_name[0] != '.' && !known(arg, e->d_name))
      files_drop(f, e->d_name);
  closedir(dir);
}

static void sweep_content(struct files *f, int64_t now_s) {
  char path[PATH_MAX];
  DIR *dir = path_join(path, NULL, "%s/content", f->dir) < 0 ? NULL : opendir(path);
  struct stat st;
  if (!dir)
    return;
  for (struct dirent *e; (e = readdir(dir));)
    if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_mtim.tv_sec < now_s - FILES_UNUSED_S)
      unlinkat(dirfd(dir), e->d_name, 0);
  closedir(dir);
}

void files_sweep(struct files *f, bool (*known)(void *arg, const char *container), void *arg, int64_t now_s) {
  sweep_mounts(f, known, arg);
  sweep_content(f, now_s);
}
