#include "orca-store/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static int read_text(const char *path, char *out, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  ssize_t n = read(fd, out, size - 1);
  close(fd);
  if (n < 0)
    return -1;
  out[n] = 0;
  return 0;
}

static void boot_id(char out[64]) {
  if (read_text(BOOT_ID, out, 64) < 0)
    out[0] = 0; /* then only a clean stop is trusted: "" never equals a mark's */
  out[strcspn(out, "\n")] = 0;
}

enum mark_trust mark_read(const char *dir) {
  char path[4096], text[160], boot[64];
  int n = snprintf(path, sizeof path, "%s/crashed", dir);
  if (n < 0 || (size_t)n >= sizeof path)
    return MARK_UNREADABLE;
  if (access(path, F_OK) == 0)
    return MARK_CRASHED;
  n = snprintf(path, sizeof path, "%s/mark", dir);
  if (n < 0 || (size_t)n >= sizeof path)
    return MARK_UNREADABLE;
  if (read_text(path, text, sizeof text) < 0)
    return errno == ENOENT ? MARK_NEW : MARK_UNREADABLE;
  char then[64] = "", how[16] = "";
  if (sscanf(text, "boot %63s %15s", then, how) != 2)
    return MARK_UNREADABLE;
  if (strcmp(how, "clean") == 0)
    return MARK_TRUSTED;
  boot_id(boot);
  return boot[0] && strcmp(then, boot) == 0 ? MARK_TRUSTED : MARK_REBOOTED;
}

/* One sector, of one length always: over an older mark it is written in place, which is whole or not at all, and needs neither a rename nor
 * a sync of the folder: both would wait for the file system's journal. Torn all the same, it would be unreadable, and distrusted. */
static int put(const char *path, int flags, const char *text, size_t len) {
  int fd = open(path, flags | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0)
    return errno;
  ssize_t n = write(fd, text, len);
  int e = n < 0 ? errno : n != (ssize_t)len ? ENOSPC : fdatasync(fd) < 0 ? errno : 0;
  close(fd);
  return e;
}

static int sync_folder(const char *dir) {
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return errno;
  int e = fsync(fd) < 0 ? errno : 0;
  close(fd);
  return e;
}

int mark_write(const char *dir, bool clean, struct err *err) {
  char path[4096], fresh[4096], crashed[4096], boot[64], text[160];
  int n = snprintf(path, sizeof path, "%s/mark", dir), m = snprintf(fresh, sizeof fresh, "%s/mark.new", dir),
      c = snprintf(crashed, sizeof crashed, "%s/crashed", dir);
  if (n < 0 || m < 0 || c < 0 || (size_t)m >= sizeof fresh || (size_t)c >= sizeof crashed)
    return err_set(err, ERR_INVALID, "path too long: %s", dir);
  boot_id(boot);
  int len = snprintf(text, sizeof text, "boot %-63s %-7s\n", boot[0] ? boot : "unknown", clean ? "clean" : "running");
  struct stat st;
  bool in_place = stat(path, &st) == 0 && st.st_size == len;
  int e = put(in_place ? path : fresh, in_place ? 0 : O_CREAT | O_TRUNC, text, (size_t)len);
  if (e)
    return err_errno(err, e, "%s", in_place ? path : fresh);
  if (!in_place && rename(fresh, path) < 0)
    return err_errno(err, errno, "%s", path);
  bool was_there = unlink(crashed) == 0;
  if (!was_there && errno != ENOENT)
    return err_errno(err, errno, "%s", crashed);
  if (!in_place || was_there) {
    e = sync_folder(dir);
    if (e)
      return err_errno(err, e, "%s", dir);
  }
  return 0;
}
