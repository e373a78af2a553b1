#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "orca-store/disk.h"
#include "orca-store/kv.h"
#include "orca-store/log.h"
#include "orca-store/snapshot.h"
#include "orca-store/storectl/storectl.h"

#define FOUNDER 1 /* the one member that a restored store has, as that of a new one */

struct place {
  char store[SNAPSHOT_PATH_MAX], log[SNAPSHOT_PATH_MAX + 16], snapshots[SNAPSHOT_PATH_MAX + 16], kv[SNAPSHOT_PATH_MAX + 16];
};

static int make_place(struct place *p, const char *state_dir, struct err *err) {
  struct stat st;
  int n = snprintf(p->store, sizeof p->store, "%s/store", state_dir);
  if (n < 0 || (size_t)n >= sizeof p->store - 64)
    return err_set(err, ERR_INVALID, "path too long: %s", state_dir);
  snprintf(p->log, sizeof p->log, "%s/log", p->store);
  snprintf(p->snapshots, sizeof p->snapshots, "%s/snapshots", p->store);
  snprintf(p->kv, sizeof p->kv, "%s/kv", p->store);
  if (stat(p->log, &st) == 0 || stat(p->snapshots, &st) == 0 || stat(p->kv, &st) == 0)
    return err_set(err, ERR_CONFLICT, "%s holds a state already: stop orca-store and move that folder away first", p->store);
  if (mkdir(p->store, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "%s", p->store);
  return 0;
}

static int read_all(int fd, uint8_t *to, size_t len, const char *file, struct err *err) {
  for (size_t got = 0; got < len;) {
    ssize_t n = read(fd, to + got, len - got);
    if (n < 0)
      return err_errno(err, errno, "%s", file);
    if (n == 0)
      return err_set(err, ERR_CORRUPT, "%s: it is shorter than it was", file);
    got += (size_t)n;
  }
  return 0;
}

/* Its content goes to fd `out` (-1: nowhere); *sha256 is what that is in truth. */
static int read_content(int in, uint64_t size, int out, const char *file, uint8_t sha256[32], struct err *err) {
  static uint8_t chunk[65536];
  struct crypto_sha256 hash;
  crypto_sha256_start(&hash);
  if (lseek(in, 0, SEEK_SET) < 0)
    return err_errno(err, errno, "%s", file);
  for (uint64_t left = size; left;) {
    size_t n = left < sizeof chunk ? (size_t)left : sizeof chunk;
    if (read_all(in, chunk, n, file, err) < 0)
      return -1;
    crypto_sha256_add(&hash, chunk, n);
    for (size_t put = 0; out >= 0 && put < n;) {
      ssize_t m = write(out, chunk + put, n - put);
      if (m < 0)
        return err_errno(err, errno, "a copy of %s", file);
      put += (size_t)m;
    }
    left -= n;
  }
  crypto_sha256_end(&hash, sha256);
  return 0;
}

/* All that can be wrong with the file is found before anything is made of it. */
static int check(const char *file, const char *cluster_id, int *ret_fd, uint64_t *ret_size, struct sctl_trailer *trailer, struct err *err) {
  uint8_t sha256[32], cluster[32];
  struct stat st;
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0) {
    err_errno(err, errno, "%s", file);
    goto failed;
  }
  if (!S_ISREG(st.st_mode) || st.st_size <= (off_t)sizeof *trailer || lseek(fd, -(off_t)sizeof *trailer, SEEK_END) < 0 ||
      read_all(fd, (uint8_t *)trailer, sizeof *trailer, file, err) < 0 || memcmp(trailer->magic, SCTL_TRAILER_MAGIC, sizeof trailer->magic) != 0) {
    err_set(err, ERR_INVALID, "%s is not what `orca-storectl snapshot save` wrote, or not all of it", file);
    goto failed;
  }
  crypto_sha256(cluster_id, strlen(cluster_id), cluster);
  if (memcmp(trailer->cluster, cluster, sizeof trailer->cluster) != 0) {
    err_set(err, ERR_INVALID, "%s is of another cluster than node.toml: restore that and key_dir first", file);
    goto failed;
  }
  *ret_size = (uint64_t)st.st_size - sizeof *trailer;
  if (read_content(fd, *ret_size, -1, file, sha256, err) < 0)
    goto failed;
  if (memcmp(sha256, trailer->sha256, sizeof sha256) != 0) {
    err_set(err, ERR_CORRUPT, "%s is damaged: its SHA-256 is not what was written", file);
    goto failed;
  }
  *ret_fd = fd;
  return 0;
failed:
  if (fd >= 0)
    close(fd);
  return -1;
}

static int lay_snapshot(const struct place *p, const char *file, int fd, uint64_t size, const struct sctl_trailer *trailer,
                        struct snapshot_meta *meta, struct err *err) {
  char path[SNAPSHOT_PATH_MAX];
  uint8_t sha256[32];
  struct kv_state state;
  if (snapshot_begin(disk_posix(), p->snapshots, path, err) < 0)
    return -1;
  int out = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (out < 0)
    return err_errno(err, errno, "%s", path);
  int rc = read_content(fd, size, out, file, sha256, err);
  if (close(out) < 0 && rc == 0)
    rc = err_errno(err, errno, "%s", path);
  if (rc < 0 || kv_copy_state(path, &state, err) < 0)
    return -1;
  meta->revision = state.revision;
  meta->raft.index = state.applied_index;
  meta->raft.term = state.applied_term;
  return snapshot_commit(disk_posix(), p->snapshots, path, meta, trailer->sha256, err);
}

/* A log that goes on behind the snapshot, as after one that a leader sent. */
static int lay_log(const struct place *p, const struct snapshot_meta *meta, struct err *err) {
  struct dlog_options options = {.dir = p->log};
  memcpy(options.cluster_id, meta->cluster_id, sizeof options.cluster_id);
  struct dlog *log;
  struct dlog_found found;
  struct raft_hard hard = {.term = meta->raft.term};
  struct raft_stable stable;
  uint64_t ticket;
  if (dlog_open(&log, &options, &found, err) < 0)
    return -1;
  int rc = dlog_reserve(log, 1, 0, err);
  if (rc == 0)
    rc = dlog_write(log, &hard, NULL, 0, err);
  if (rc == 0)
    rc = dlog_sync(log, &stable, &ticket, err);
  if (rc == 0)
    rc = dlog_reset(log, meta->raft.index, meta->raft.term, err);
  dlog_close(log);
  return rc;
}

struct giving {
  const struct passwd *to;
  const char *dir;
  struct err *err;
  int rc;
};

static void give_file(void *arg, const char *name) {
  struct giving *g = arg;
  char path[SNAPSHOT_PATH_MAX * 2];
  int n = snprintf(path, sizeof path, "%s/%s", g->dir, name);
  if (g->rc == 0 && n > 0 && (size_t)n < sizeof path && lchown(path, g->to->pw_uid, g->to->pw_gid) < 0)
    g->rc = err_errno(g->err, errno, "%s", path);
}

/* Under systemd the store has a user of its own. */
static int give(const struct place *p, struct err *err) {
  struct giving g = {.to = geteuid() == 0 ? getpwnam("orca-store") : NULL, .err = err};
  const char *dirs[] = {p->snapshots, p->log, p->store};
  for (size_t i = 0; g.to && g.rc == 0 && i < sizeof dirs / sizeof *dirs; i++) {
    g.dir = dirs[i];
    if (disk_posix()->list(disk_posix(), g.dir, give_file, &g) < 0)
      return err_errno(err, errno, "%s", g.dir);
  }
  if (g.to && g.rc == 0 && lchown(p->store, g.to->pw_uid, g.to->pw_gid) < 0)
    return err_errno(err, errno, "%s", p->store);
  return g.rc;
}

int sctl_restore(struct sctl *ctl, const char *file) {
  struct place place;
  struct sctl_trailer trailer;
  struct snapshot_meta meta = {.data_format = KV_FORMAT, .raft = {.members = {.n = 1, .m = {{.id = FOUNDER, .voter = true}}}}};
  struct err err;
  uint64_t size;
  int fd;
  if (check(file, ctl->config.cluster_id, &fd, &size, &trailer, &err) < 0)
    return sctl_fail(&err);
  memcpy(meta.cluster_id, trailer.cluster, sizeof meta.cluster_id);
  snprintf(meta.raft.members.m[0].address, RAFT_ADDRESS_MAX, "%s", ctl->config.address);
  int rc = make_place(&place, ctl->config.state_dir, &err);
  if (rc == 0)
    rc = lay_snapshot(&place, file, fd, size, &trailer, &meta, &err);
  close(fd);
  if (rc < 0 || lay_log(&place, &meta, &err) < 0 || give(&place, &err) < 0)
    return sctl_fail(&err);
  printf(ctl->json ? "{\"revision\":%" PRIu64 "}\n" : "the state is that of revision %" PRIu64 ": start orca-store\n", meta.revision);
  return 0;
}
