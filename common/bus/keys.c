#include "common/bus/bus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/crypto/crypto.h"
#include "common/crypto/key_file.h"

int bus_key_new(struct bus_key_pair *ret, struct err *err) {
  if (zmq_curve_keypair(ret->public_key, ret->secret_key) != 0)
    return err_set(err, ERR_INTERNAL, "make a key pair: %s", zmq_strerror(zmq_errno()));
  return 0;
}

static int read_key(const char *dir, const char *name, const char *suffix, bool secret, char key[BUS_KEY_LEN + 1], struct err *err) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "path of key %s is too long", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a pipe in its place must not hold the start up */
  if (fd < 0)
    return err_errno(err, errno, "read key %s", path);
  struct stat st;
  char text[BUS_KEY_LEN + 2];
  int rc = 0;
  if (secret)
    rc = key_file_check(fd, path, err);
  else if (fstat(fd, &st) < 0)
    rc = err_errno(err, errno, "read key %s", path);
  else if (!S_ISREG(st.st_mode))
    rc = err_set(err, ERR_INVALID, "key %s is not a file", path);
  if (rc == 0) {
    ssize_t n = read(fd, text, sizeof text);
    if (n < 0)
      rc = err_errno(err, errno, "read key %s", path);
    else if (n > 0 && text[n - 1] == '\n')
      n--;
    uint8_t raw[32];
    if (rc == 0 && n == BUS_KEY_LEN) {
      memcpy(key, text, BUS_KEY_LEN);
      key[BUS_KEY_LEN] = 0;
    }
    if (rc == 0 && (n != BUS_KEY_LEN || !zmq_z85_decode(raw, key)))
      rc = err_set(err, ERR_INVALID, "key %s is not a key: want %d characters of Z85", path, BUS_KEY_LEN);
    crypto_wipe(raw, sizeof raw);
    crypto_wipe(text, sizeof text);
  }
  close(fd);
  return rc;
}

int bus_key_load(const char *dir, const char *name, struct bus_key_pair *ret, struct err *err) {
  struct bus_key_pair pair;
  char derived[BUS_KEY_LEN + 1];
  int rc = read_key(dir, name, "key", true, pair.secret_key, err);
  if (rc == 0)
    rc = read_key(dir, name, "pub", false, pair.public_key, err);
  if (rc == 0 && (zmq_curve_public(derived, pair.secret_key) != 0 || strcmp(derived, pair.public_key) != 0))
    rc = err_set(err, ERR_INVALID, "%s/%s.key and %s.pub are not a pair", dir, name, name);
  if (rc == 0)
    *ret = pair;
  crypto_wipe(&pair, sizeof pair);
  return rc;
}

static int write_key(const char *dir, const char *name, const char *suffix, mode_t mode, const char *key, struct err *err) {
  char path[4096], text[BUS_KEY_LEN + 2];
  if (snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "path of key %s is too long", name);
  int len = snprintf(text, sizeof text, "%s\n", key);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0)
    return err_errno(err, errno, "write key %s", path);
  int rc = 0;
  errno = 0;
  if (fchmod(fd, mode) < 0 || write(fd, text, (size_t)len) != len || fsync(fd) < 0)
    rc = err_errno(err, errno ? errno : EIO, "write key %s", path);
  if (close(fd) < 0 && rc == 0)
    rc = err_errno(err, errno, "write key %s", path);
  crypto_wipe(text, sizeof text);
  if (rc < 0)
    unlink(path);
  return rc;
}

int bus_key_save(const char *dir, const char *name, const struct bus_key_pair *pair, struct err *err) {
  if (write_key(dir, name, "key", 0400, pair->secret_key, err) < 0)
    return -1;
  if (write_key(dir, name, "pub", 0444, pair->public_key, err) == 0)
    return 0;
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s.key", dir, name) < (int)sizeof path)
    unlink(path); /* ours, just made: half a pair helps nobody */
  return -1;
}
