/* The infra directory: cluster.toml, services/PROJECT/service.toml, and the files that mounts ship. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/spec/read_file.h"
#include "common/spec/spec_set.h"

#define TOML_MAX (1u << 20)
#define FILES_PER_MOUNT 1000
#define DIR_DEPTH 16
#define PATH_LEN 4096

struct infra {
  int dir_fd;
  struct spec_set *set;
  size_t bytes; /* of all files so far */
};

/* ---- files of mounts ---- */

struct walk {
  struct spec_reader *r;
  const struct toml_value *at;
  ProtobufCMessage *mount;
  size_t count;
};

static int add_file(struct walk *w, int fd, const char *path, const struct stat *st) {
  struct infra *in = w->r->collect_arg;
  struct buf content = BUF_INIT(SPEC_FILE_MAX);
  struct err err;
  if (++w->count > FILES_PER_MOUNT) {
    spec_fault(w->r, w->at, "more than %d files", FILES_PER_MOUNT);
    return -1;
  }
  if (spec_read_fd(fd, path, &content, &err) < 0) {
    spec_fault(w->r, w->at, "%s", err.msg);
    buf_free(&content);
    return 0;
  }
  uint8_t hash[32];
  char hex[65];
  size_t len = content.len;
  crypto_sha256(buf_str(&content), len, hash);
  crypto_hex(hash, sizeof hash, hex);
  size_t before = in->set->file_count;
  uint8_t *data = len ? buf_take(&content, NULL) : calloc(1, 1);
  buf_free(&content);
  Model__MountFile *file = (Model__MountFile *)spec_message_new(&model__mount_file__descriptor);
  if (!data || spec_set_add_file(in->set, hex, data, len) < 0 || !file || !(file->sha256 = strdup(hex)) || (*path && !(file->path = strdup(path)))) {
    if (file)
      model__mount_file__free_unpacked(file, NULL);
    w->r->memory = true;
    return -1;
  }
  file->has_mode = 1; /* like git, which carries only this bit from one checkout to the next: else each would be another revision */
  file->mode = st->st_mode & 0100 ? 0755 : 0644;
  if (spec_repeated_add(w->mount, "files", file) < 0) {
    w->r->memory = true;
    return -1;
  }
  if (in->set->file_count > before)
    in->bytes += len;
  if (in->bytes > SPEC_FILES_MAX) {
    spec_fault(w->r, w->at, "with it, the files of all mounts are larger than %d MiB", SPEC_FILES_MAX >> 20);
    return -1;
  }
  return 0;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t count) {
  for (size_t i = 0; i < count; i++)
    free(names[i]);
  free(names);
}

/* Names in a directory but . and .., sorted. Takes fd. -1: errno. */
static int list_dir(int fd, char ***ret, size_t *ret_count) {
  DIR *dir = fdopendir(fd);
  char **names = NULL;
  size_t count = 0;
  if (!dir) {
    close(fd);
    return -1;
  }
  for (struct dirent *e; (errno = 0, e = readdir(dir));) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
      continue;
    char **more = reallocarray(names, count + 1, sizeof *names);
    if (more)
      names = more;
    if (!more || !(names[count] = strdup(e->d_name))) {
      errno = ENOMEM;
      break;
    }
    count++;
  }
  int saved = errno;
  closedir(dir);
  if (saved) {
    free_names(names, count);
    errno = saved;
    return -1;
  }
  if (count)
    qsort(names, count, sizeof *names, by_name);
  *ret = names;
  *ret_count = count;
  return 0;
}

/* O_NOFOLLOW at every step: a link in an infra directory that others push to must not ship this machine's files. */
static int open_part(int dir_fd, const char *name) {
  return openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
}

static void open_fault(struct walk *w, const char *path) {
  if (errno == ELOOP)
    spec_fault(w->r, w->at, "%s is a symbolic link: links are not shipped", path);
  else
    spec_fault(w->r, w->at, "%s: %s", path, strerror(errno));
}

static int walk(struct walk *w, int fd, const char *below, unsigned depth) { /* takes fd */
  char **names;
  size_t count;
  if (depth > DIR_DEPTH) {
    spec_fault(w->r, w->at, "%s: directories nest deeper than %d", below, DIR_DEPTH);
    close(fd);
    return -1;
  }
  int dir_fd = dup(fd);
  if (dir_fd < 0 || list_dir(fd, &names, &count) < 0) {
    spec_fault(w->r, w->at, "%s: %s", below, strerror(errno));
    if (dir_fd < 0)
      close(fd);
    else
      close(dir_fd);
    return -1;
  }
  int rc = 0;
  for (size_t i = 0; i < count && rc == 0; i++) {
    char path[PATH_LEN];
    struct stat st;
    if ((size_t)snprintf(path, sizeof path, "%s%s%s", below, *below ? "/" : "", names[i]) >= sizeof path) {
      spec_fault(w->r, w->at, "%s: a path that is too long", below);
      break;
    }
    int sub = open_part(dir_fd, names[i]);
    if (sub < 0 || fstat(sub, &st) < 0) {
      open_fault(w, path);
      if (sub >= 0)
        close(sub);
    } else if (S_ISDIR(st.st_mode)) {
      rc = walk(w, sub, path, depth + 1);
    } else if (S_ISREG(st.st_mode)) {
      rc = add_file(w, sub, path, &st);
      close(sub);
    } else {
      spec_fault(w->r, w->at, "%s is neither a file nor a directory", path);
      close(sub);
    }
  }
  free_names(names, count);
  close(dir_fd);
  return rc;
}

/* "./a/../b" → "b"; the reader has seen to it that it stays inside. */
static bool normalise(const char *source, char out[PATH_LEN]) {
  size_t len = 0;
  for (const char *s = source; *s; s += strspn(s, "/")) {
    size_t n = strcspn(s, "/");
    if (n == 2 && s[0] == '.' && s[1] == '.') {
      while (len && out[len - 1] != '/')
        len--;
      len -= len > 0;
    } else if (!(n == 1 && s[0] == '.')) {
      if (len + n + 2 > PATH_LEN)
        return false;
      if (len)
        out[len++] = '/';
      memcpy(out + len, s, n);
      len += n;
    }
    s += n;
  }
  out[len] = 0;
  return true;
}

static void collect(struct spec_reader *r, const struct toml_value *at, ProtobufCMessage *msg) {
  struct infra *in = r->collect_arg;
  Model__Mount *mount = (Model__Mount *)msg;
  const struct toml_value *source = toml_get(at, "source");
  struct walk w = {.r = r, .at = source ? source : at, .mount = msg};
  if (mount->source[0] == '/')
    return;
  if (mount->n_files) { /* the list is ours to make */
    spec_fault(r, at, "`files` is filled in by orcactl, not written by hand");
    return;
  }
  char path[PATH_LEN];
  if (!normalise(mount->source, path)) {
    spec_fault(r, w.at, "a path that is too long");
    return;
  }
  if (!*path) {
    spec_fault(r, w.at, "the whole infra directory cannot be mounted: name a part of it");
    return;
  }
  int fd = dup(in->dir_fd);
  for (char *part = path, *slash; fd >= 0 && part; part = slash) {
    if ((slash = strchr(part, '/')))
      *slash++ = 0;
    int next = open_part(fd, part);
    int saved = errno;
    close(fd);
    errno = saved;
    fd = next;
  }
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) {
    if (errno == ELOOP)
      spec_fault(r, w.at, "%s leads over a symbolic link: links are not shipped", mount->source);
    else
      spec_fault(r, w.at, "%s: %s", mount->source, strerror(errno));
  } else if (S_ISDIR(st.st_mode)) {
    walk(&w, fd, "", 0);
    return;
  } else if (S_ISREG(st.st_mode)) {
    add_file(&w, fd, "", &st);
  } else {
    spec_fault(r, w.at, "%s is neither a file nor a directory", mount->source);
  }
  if (fd >= 0)
    close(fd);
}

/* ---- the directory ---- */

static void read_project(struct infra *in, const char *name, struct spec_faults *faults) {
  char path[PATH_LEN];
  if ((size_t)snprintf(path, sizeof path, "services/%s/service.toml", name) >= sizeof path)
    return;
  struct stat st;
  if (fstatat(in->dir_fd, path, &st, 0) < 0 && (errno == ENOENT || errno == ENOTDIR))
    return; /* a folder of something else */
  struct buf text = BUF_INIT(TOML_MAX);
  struct err err;
  if (!spec_name_valid(name)) {
    spec_fault_add(faults, path, 0, 0, "", "the folder names a project: it %s", spec_check_name(name));
  } else if (spec_read_file(in->dir_fd, path, &text, &err) < 0) {
    spec_fault_add(faults, "", 0, 0, "", "%s", err.msg); /* which names the file */
  } else {
    struct spec_reader r = {.faults = faults, .file = path, .project = name, .collect = collect, .collect_arg = in};
    spec_parse_file(&r, buf_str(&text), text.len, &spec_service_file, in->set);
  }
  buf_free(&text);
}

static void read_cluster(struct infra *in, struct spec_faults *faults) {
  struct buf text = BUF_INIT(TOML_MAX);
  struct err err;
  struct stat st;
  if (fstatat(in->dir_fd, "cluster.toml", &st, 0) < 0 && errno == ENOENT)
    return;
  if (spec_read_file(in->dir_fd, "cluster.toml", &text, &err) < 0)
    spec_fault_add(faults, "", 0, 0, "", "%s", err.msg);
  else
    spec_parse_cluster("cluster.toml", buf_str(&text), text.len, &in->set->cluster, faults);
  buf_free(&text);
}

int spec_read_infra(const char *dir, struct spec_set *ret, struct spec_faults *faults, struct err *err) {
  struct spec_set set = {0};
  struct infra in = {.set = &set};
  size_t first = faults->count;
  in.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (in.dir_fd < 0)
    return err_errno(err, errno, "%s", dir);
  read_cluster(&in, faults);
  int fd = openat(in.dir_fd, "services", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int rc = 0;
  if (fd >= 0) {
    char **names = NULL;
    size_t count = 0;
    if (list_dir(fd, &names, &count) < 0)
      rc = err_errno(err, errno, "%s/services", dir);
    for (size_t i = 0; i < count; i++)
      read_project(&in, names[i], faults);
    free_names(names, count);
  } else if (errno != ENOENT) {
    rc = err_errno(err, errno, "%s/services", dir);
  }
  close(in.dir_fd);
  if (rc == 0)
    spec_check_names(&set, faults);
  if (rc == 0 && faults->count > first)
    rc = spec_faults_err(faults, err);
  if (rc == 0)
    *ret = set;
  else
    spec_set_free(&set);
  return rc;
}

char *spec_find_infra(const char *from) {
  char *path = realpath(from, NULL);
  for (;;) {
    char candidate[PATH_LEN];
    if (!path || (size_t)snprintf(candidate, sizeof candidate, "%s/cluster.toml", path) >= sizeof candidate)
      break;
    if (access(candidate, F_OK) == 0)
      return path;
    char *slash = strrchr(path, '/');
    if (!slash || !path[1])
      break;
    slash[slash == path] = 0;
  }
  free(path);
  return NULL;
}
