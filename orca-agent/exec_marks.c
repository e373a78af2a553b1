#include "orca-agent/exec_marks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "orca-agent/container.h"

struct exec_marks {
  int dir;
};

static bool is_id(const char *text) {
  size_t len = strlen(text);
  return len > 0 && len < AGENT_CONTAINER_ID && strspn(text, "0123456789abcdef") == len;
}

struct exec_marks *exec_marks_open(const char *agent_dir, struct err *err) {
  char path[PATH_MAX];
  struct exec_marks *m = malloc(sizeof *m);
  if (!m) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  if (snprintf(path, sizeof path, "%s/execs", agent_dir) >= (int)sizeof path) {
    err_set(err, ERR_INVALID, "state_dir is too long");
  } else if ((mkdir(path, 0700) < 0 && errno != EEXIST) || (m->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0) {
    err_errno(err, errno, "%s", path);
  } else {
    return m;
  }
  free(m);
  return NULL;
}

void exec_marks_close(struct exec_marks *m) {
  if (m)
    close(m->dir);
  free(m);
}

void exec_mark(struct exec_marks *m, const char *exec_id, const char *container) {
  int fd = openat(m->dir, exec_id, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  bool ok = fd >= 0 && dprintf(fd, "%s\n", container) > 0;
  if (!ok)
    log_warn("a command would outlive a killed agent", "container", container, "error", strerror(errno));
  if (fd >= 0)
    close(fd);
}

void exec_unmark(struct exec_marks *m, const char *exec_id) {
  if (unlinkat(m->dir, exec_id, 0) < 0 && errno != ENOENT)
    log_warn("the mark of a command that has ended stays", "exec", exec_id, "error", strerror(errno));
}

/* false: it says nothing of use, as after a full disk. */
static bool read_mark(const struct exec_marks *m, const char *name, char container[AGENT_CONTAINER_ID]) {
  int fd = openat(m->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  ssize_t n = fd < 0 ? -1 : read(fd, container, AGENT_CONTAINER_ID - 1);
  if (fd >= 0)
    close(fd);
  if (n <= 0)
    return false;
  container[n] = 0;
  container[strcspn(container, "\n")] = 0;
  return is_id(container) && strlen(container) == AGENT_CONTAINER_ID - 1; /* a part of one could be another's */
}

void exec_marks_each(struct exec_marks *m, void (*each)(void *arg, const char *exec_id, const char *container), void *arg) {
  int fd = openat(m->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir) {
    log_warn("commands that were left behind are not looked for", "error", strerror(errno));
    if (fd >= 0)
      close(fd);
    return;
  }
  size_t told = 0;
  char container[AGENT_CONTAINER_ID];
  for (const struct dirent *e; told < EXEC_MARKS_MAX && (e = readdir(dir));) {
    if (!is_id(e->d_name))
      continue;
    if (read_mark(m, e->d_name, container)) {
      each(arg, e->d_name, container);
      told++;
    } else {
      exec_unmark(m, e->d_name);
    }
  }
  closedir(dir);
}
