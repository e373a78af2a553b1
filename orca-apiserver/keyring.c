#include "orca-apiserver/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/crypto/key_file.h"

#define HEX_LEN (2 * CRYPTO_KEY_LEN)

static int path_of(const struct keyring *ring, const char *name, char out[PATH_MAX], struct err *err) {
  return snprintf(out, PATH_MAX, "%s/%s", ring->dir, name) < PATH_MAX ? 0 : err_set(err, ERR_INVALID, "key_dir is too long");
}

static void name_key(struct keyring_key *key) {
  static const char domain[] = "orca master key"; /* so that the id is of no use for anything else */
  struct crypto_sha256 hash;
  uint8_t digest[32];
  char hex[65];
  crypto_sha256_start(&hash);
  crypto_sha256_add(&hash, domain, sizeof domain);
  crypto_sha256_add(&hash, key->key, sizeof key->key);
  crypto_sha256_end(&hash, digest);
  crypto_hex(digest, sizeof digest, hex);
  memcpy(key->id, hex, KEYRING_ID_LEN);
  key->id[KEYRING_ID_LEN] = 0;
  key->there = true;
  crypto_wipe(&hash, sizeof hash);
}

static int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int from_hex(const char *text, size_t len, uint8_t key[CRYPTO_KEY_LEN]) {
  while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
    len--;
  if (len != HEX_LEN)
    return -1;
  for (size_t i = 0; i < CRYPTO_KEY_LEN; i++) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0)
      return -1;
    key[i] = (uint8_t)(high << 4 | low);
  }
  return 0;
}

static int read_key(const struct keyring *ring, const char *name, struct keyring_key *ret, struct err *err) {
  char path[PATH_MAX], text[HEX_LEN + 8];
  if (path_of(ring, name, path, err) < 0)
    return -1;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
  if (fd < 0)
    return errno == ENOENT ? 0 : err_errno(err, errno, "%s", path);
  int rc = key_file_check(fd, path, err);
  ssize_t n = rc == 0 ? read(fd, text, sizeof text) : 0;
  if (n < 0)
    rc = err_errno(err, errno, "%s", path);
  close(fd);
  if (rc == 0 && from_hex(text, (size_t)n, ret->key) < 0)
    rc = err_set(err, ERR_INVALID, "%s: not a key: want %d hexadecimal digits", path, HEX_LEN);
  crypto_wipe(text, sizeof text);
  if (rc == 0)
    name_key(ret);
  return rc;
}

int keyring_open(struct keyring *ring, const char *key_dir, struct err *err) {
  *ring = (struct keyring){0};
  if (snprintf(ring->dir, sizeof ring->dir, "%s/apiserver", key_dir) >= (int)sizeof ring->dir)
    return err_set(err, ERR_INVALID, "key_dir is too long");
  if (read_key(ring, "master.key", &ring->master, err) == 0 && read_key(ring, "master.key.next", &ring->next, err) == 0)
    return 0;
  keyring_wipe(ring);
  return -1;
}

void keyring_wipe(struct keyring *ring) {
  crypto_wipe(&ring->master, sizeof ring->master);
  crypto_wipe(&ring->next, sizeof ring->next);
}

const struct keyring_key *keyring_find(const struct keyring *ring, const char *id) {
  if (ring->master.there && strcmp(ring->master.id, id) == 0)
    return &ring->master;
  return ring->next.there && strcmp(ring->next.id, id) == 0 ? &ring->next : NULL;
}

const struct keyring_key *keyring_current(const struct keyring *ring, const char *current, struct err *err) {
  const struct keyring_key *key = *current ? keyring_find(ring, current) : ring->master.there ? &ring->master : NULL;
  if (!key && *current)
    err_set(err, ERR_UNAVAILABLE, "%s/master.key is not the key that secrets are sealed with (%s): put that one back", ring->dir, current);
  else if (!key)
    err_set(err, ERR_UNAVAILABLE, "there is no %s/master.key: `orcactl init` makes it", ring->dir);
  return key;
}

static int sync_dir(const struct keyring *ring, struct err *err) {
  int fd = open(ring->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "%s", ring->dir);
  int rc = fsync(fd) < 0 ? err_errno(err, errno, "sync %s", ring->dir) : 0;
  close(fd);
  return rc;
}

static int write_key(const char *path, const struct keyring_key *key, struct err *err) {
  char hex[HEX_LEN + 1];
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
  if (fd < 0)
    return err_errno(err, errno, "create %s", path);
  crypto_hex(key->key, sizeof key->key, hex);
  hex[HEX_LEN] = '\n'; /* in the place of the NUL */
  ssize_t n = write(fd, hex, sizeof hex);
  int rc = n == (ssize_t)sizeof hex && fsync(fd) == 0 ? 0 : err_errno(err, n >= 0 && n < (ssize_t)sizeof hex ? ENOSPC : errno, "write %s", path);
  crypto_wipe(hex, sizeof hex);
  close(fd);
  if (rc < 0)
    unlink(path);
  return rc;
}

int keyring_make_next(struct keyring *ring, struct err *err) {
  char path[PATH_MAX], temporary[PATH_MAX];
  if (ring->next.there)
    return 0;
  struct keyring_key key = {0};
  if (path_of(ring, "master.key.next", path, err) < 0 || path_of(ring, "master.key.new", temporary, err) < 0 ||
      crypto_random(key.key, sizeof key.key, err) < 0)
    return -1;
  name_key(&key);
  unlink(temporary); /* of one that was cut off while it wrote */
  int rc = write_key(temporary, &key, err);
  if (rc == 0 && rename(temporary, path) < 0)
    rc = err_errno(err, errno, "rename %s", temporary);
  if (rc == 0 && sync_dir(ring, err) == 0)
    ring->next = key;
  else
    rc = -1;
  crypto_wipe(&key, sizeof key);
  return rc;
}

int keyring_settle(struct keyring *ring, const char *current, struct err *err) {
  char from[PATH_MAX], to[PATH_MAX];
  if (!ring->next.there || strcmp(ring->next.id, current) != 0)
    return 0;
  if (path_of(ring, "master.key.next", from, err) < 0 || path_of(ring, "master.key", to, err) < 0)
    return -1;
  if (rename(from, to) < 0)
    return err_errno(err, errno, "rename %s", from);
  crypto_wipe(&ring->master, sizeof ring->master);
  ring->master = ring->next;
  crypto_wipe(&ring->next, sizeof ring->next);
  return sync_dir(ring, err);
}
