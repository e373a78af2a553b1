#include "common/doctor/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)4 << 20) /* /proc/net/tcp of a busy node */
#define PIECE ((size_t)64 << 10)   /* /proc/sys refuses a read as large as that */

/* The file as text; the caller frees. NULL: it can't be read. */
static char *read_text(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  char *text = fd < 0 ? NULL : malloc(TEXT_MAX + 1);
  size_t len = 0;
  while (text && len < TEXT_MAX) {
    ssize_t n = read(fd, text + len, TEXT_MAX - len < PIECE ? TEXT_MAX - len : PIECE);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    len += (size_t)n;
  }
  if (fd >= 0)
    close(fd);
  if (text)
    text[len] = 0;
  return text;
}

void doctor_read_clock(struct doctor_clock *ret) {
  struct timex tx = {0};
  int state = adjtimex(&tx); /* reads only: modes is 0 */
  /* A unit with ProtectClock= may not even ask the kernel; systemd's own time client leaves a mark. */
  if (state < 0) {
    *ret = (struct doctor_clock){.known = access("/run/systemd/timesync/synchronized", F_OK) == 0, .synchronised = true};
    return;
  }
  *ret = (struct doctor_clock){.known = true, .synchronised = state != TIME_ERROR && !(tx.status & STA_UNSYNC), .error_us = tx.esterror};
}

/* Is the file system itself read-only? A daemon's own view is, by its unit, wherever it has nothing to write; so it is asked of the device's mounts:
 * "36 35 98:0 / /mnt ro,noatime master:1 - ext4 /dev/sda1 rw,errors=remount-ro", of which the last field tells. */
static bool went_read_only(const char *path, bool otherwise) {
  struct stat st;
  char device[32], *text = read_text("/proc/self/mountinfo"), *rest = text;
  bool found = otherwise;
  if (text && stat(path, &st) == 0) {
    snprintf(device, sizeof device, " %u:%u ", major(st.st_dev), minor(st.st_dev));
    for (char *line; (line = strsep(&rest, "\n"));) {
      char *at = strstr(line, device), *options = at ? strstr(at, " - ") : NULL;
      for (int i = 0; options && i < 3; i++)
        options = strchr(options + 1, ' ');
      if (!options)
        continue;
      found = strncmp(options, " ro", 3) == 0;
      break;
    }
  }
  free(text);
  return found;
}

void doctor_read_disk(const char *path, struct doctor_disk *ret) {
  struct statvfs fs;
  *ret = (struct doctor_disk){.path = path};
  if (statvfs(path, &fs) < 0) {
    ret->error = errno;
    return;
  }
  /* As one who is not root sees it: what is reserved is not free. */
  uint64_t reserved = fs.f_bfree - fs.f_bavail;
  ret->bytes = (fs.f_blocks - reserved) * fs.f_frsize;
  ret->bytes_free = fs.f_bavail * fs.f_frsize;
  ret->files = fs.f_files;
  ret->files_free = fs.f_favail;
  ret->read_only = (fs.f_flag & ST_RDONLY) && went_read_only(path, true);
}

void doctor_read_key(const char *path, struct doctor_key *ret) {
  struct stat st;
  *ret = (struct doctor_key){.path = path};
  if (lstat(path, &st) < 0) {
    ret->error = errno;
    return;
  }
  ret->mode = st.st_mode;
  ret->owner = st.st_uid;
  ret->is_file = S_ISREG(st.st_mode);
}

void doctor_look_at_files(struct doctor_report *r, const char *who) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
    doctor_check_files(r, who, limit.rlim_cur, limit.rlim_max);
}

void doctor_look_at_cgroup(struct doctor_report *r) {
  unsigned version = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? 2 : 1;
  char *text = read_text(version == 2 ? "/sys/fs/cgroup/cgroup.controllers" : "/proc/cgroups");
  doctor_check_cgroup(r, version, text ? text : "");
  free(text);
}

void doctor_look_at_forward(struct doctor_report *r) {
  char *text = read_text("/proc/sys/net/ipv4/ip_forward");
  doctor_check_forward(r, text != NULL, text && *text == '1');
  free(text);
}

void doctor_look_at_sockets(struct doctor_report *r, const struct doctor_port *ports, size_t count) {
  struct doctor_socket *list = calloc(DOCTOR_SOCKETS, sizeof *list);
  char *v4 = read_text("/proc/net/tcp"), *v6 = read_text("/proc/net/tcp6");
  size_t found = 0;
  if (list && v4)
    found = doctor_parse_sockets(v4, false, list, DOCTOR_SOCKETS);
  if (list && v6)
    found += doctor_parse_sockets(v6, true, list + found, DOCTOR_SOCKETS - found);
  doctor_check_sockets(r, list, found, ports, count, list && v4);
  free(v4);
  free(v6);
  free(list);
}

void doctor_look_at_keys(struct doctor_report *r, const char *key_dir, const char *const *names, size_t count) {
  char path[PATH_MAX];
  for (size_t i = 0; i < count; i++) {
    struct doctor_key key;
    if (snprintf(path, sizeof path, "%s/%s", key_dir, names[i]) >= (int)sizeof path)
      continue;
    doctor_read_key(path, &key);
    /* Each belongs to its daemon's user; whose this process is only root can judge. */
    doctor_check_key(r, &key, 0);
  }
}
