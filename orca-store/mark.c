#include "orca-store/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
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

int mark_write(const char *dir, bool clean, struct err *err) {
  char path[4096], fresh[4096], crashed[4096], boot[64], text[160];
  int n = snprintf(path, sizeof path, "%s/mark", dir), m = snprintf(fresh, sizeof fresh, "%s/mark.new", dir),
      c = snprintf(crashed, sizeof crashed, "%s/crashed", dir);
  if (n < 0 || m < 0 || c < 0 || (size_t)m >= sizeof fresh || (size_t)c >= sizeof crashed)
    return err_set(err, ERR_INVALID, "path too long: %s", dir);
  boot_id(boot);
  int len = snprintf(text, sizeof text, "boot %s %s\n", boot[0] ? boot : "unknown", clean ? "clean" : "running");
  int fd = open(fresh, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_errno(err, errno, "%s", fresh);
  ssize_t put = write(fd, text, (size_t)len);
  int e = put < 0 ? errno : put != len ? ENOSPC : fdatasync(fd) < 0 ? errno : 0;
  close(fd);
  if (e)
    return err_errno(err, e, "%s", fresh);
  if (rename(fresh, path) < 0)
    return err_errno(err, errno, "%s", path);
  if (unlink(crashed) < 0 && errno != ENOENT)
    return err_errno(err, errno, "%s", crashed);
  fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "%s", dir);
  e = fsync(fd) < 0 ? errno : 0;
  close(fd);
  return e ? err_errno(err, e, "%s", dir) : 0;
}
