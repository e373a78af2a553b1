#include "common/crypto/key_file.h"

#include <errno.h>
#include <unistd.h>

int key_file_judge(const struct stat *st, uid_t uid, const char *path, struct err *err) {
  if (!S_ISREG(st->st_mode))
    return err_set(err, ERR_INVALID, "%s is not a regular file", path);
  unsigned mode = (unsigned)st->st_mode & 0777;
  if (st->st_uid != uid && st->st_uid != 0)
    return err_set(err, ERR_DENIED, "%s belongs to user %u, who can read and replace it: chown %u it, and think about making a new one", path,
                   (unsigned)st->st_uid, (unsigned)uid);
  if (mode & 077)
    return err_set(err, ERR_DENIED, "%s can be %s by %s (mode %04o): chmod 0400 it, and think about making a new one", path,
                   mode & 022 ? "changed" : "read", mode & 07 ? "others" : "its group", mode);
  return 0;
}

int key_file_check(int fd, const char *path, struct err *err) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return err_errno(err, errno, "%s", path);
  return key_file_judge(&st, geteuid(), path, err);
}
