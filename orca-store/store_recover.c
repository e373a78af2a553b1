/* At the start: the log, the map (trusted, or made again) and the core as they were left. */
#include "orca-store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "orca-store/mark.h"

#define FOUNDER 1 /* the member that founds a cluster; those who join are given numbers */

static int copy_file(const char *from, const char *to, struct err *err) {
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0)
    return err_errno(err, errno, "%s", from);
  int out = open(to, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (out < 0) {
    int e = errno;
    close(in);
    return err_errno(err, e, "%s", to);
  }
  ssize_t n;
  while ((n = copy_file_range(in, NULL, out, NULL, (size_t)1 << 30, 0)) > 0)
    ;
  if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
    char chunk[65536];
    ssize_t m = 0;
    while (m >= 0 && (n = read(in, chunk, sizeof chunk)) > 0)
      for (ssize_t put = 0; put < n && (m = write(out, chunk + put, (size_t)(n - put))) >= 0; put += m)
        ;
    if (m < 0)
      n = -1;
  }
  int e = n < 0 ? errno : 0;
  close(in);
  if (close(out) < 0 && !e)
    e = errno;
  return e ? err_errno(err, e, "%s", to) : 0;
}

static void skipped(void *arg, const char *file, const char *text) {
  struct store *s = arg;
  char line[512];
  snprintf(line, sizeof line, "%.200s: %.280s", file, text);
  s->ops->note(s->arg, "damaged snapshot passed over", line);
}

/* The map anew: from the newest snapshot that is whole, or from nothing when the log goes back to its beginning. */
static int rebuild(struct store *s, const struct dlog_found *found, const char *why, struct err *err) {
  if (found->last)
    s->ops->note(s->arg, "rebuilding the state from snapshot and log", why);
  kv_close(s->kv);
  s->kv = NULL;
  struct snapshot_meta meta;
  char path[SNAPSHOT_PATH_MAX], data[SNAPSHOT_PATH_MAX + 16];
  int have = snapshot_newest(disk_posix(), s->snap_dir, s->cluster_id, true, &meta, path, skipped, s, err);
  if (have < 0 && (err->code != ERR_CORRUPT || found->first > 1))
    return -1;
  uint64_t base = have > 0 ? meta.raft.index : 0;
  if (found->first > base + 1)
    return err_set(err, ERR_CORRUPT,
                   "the log in %s begins at entry %" PRIu64 ", the newest whole snapshot ends at %" PRIu64 ": what is between them is lost",
                   s->log_dir, found->first, base);
  if (kv_discard(s->kv_dir, err) < 0)
    return -1;
  if (have > 0) {
    if (mkdir(s->kv_dir, 0700) < 0 && errno != EEXIST)
      return err_errno(err, errno, "%s", s->kv_dir);
    snprintf(data, sizeof data, "%s/data.mdb", s->kv_dir);
    if (copy_file(path, data, err) < 0)
      return -1;
  }
  struct kv_options options = {.map_size = s->map_size};
  s->kv = kv_open(s->kv_dir, &options, err);
  if (!s->kv)
    return -1;
  if (have > 0 && kv_state(s->kv)->applied_index != base)
    return err_set(err, ERR_CORRUPT, "snapshot %s holds entries up to %" PRIu64 ", not %" PRIu64, path, kv_state(s->kv)->applied_index, base);
  return 0;
}

static const char *distrust(enum mark_trust trust) {
  switch (trust) {
  case MARK_NEW:
    return "there is no mark of the last start";
  case MARK_REBOOTED:
    return "the machine went down without a clean stop";
  case MARK_CRASHED:
    return "the last process died of a fault";
  case MARK_UNREADABLE:
    return "the mark of the last start cannot be read";
  case MARK_TRUSTED:
    break;
  }
  return NULL;
}

static int open_state(struct store *s, const struct dlog_found *found, struct err *err) {
  const char *why = distrust(mark_read(s->dir));
  /* From here on the map changes: whoever comes after a power cut must see that. */
  if (mark_write(s->dir, false, err) < 0)
    return -1;
  char text[600];
  if (!why) {
    struct kv_options options = {.map_size = s->map_size};
    s->kv = kv_open(s->kv_dir, &options, err);
    if (!s->kv && err->code != ERR_CORRUPT)
      return -1;
    if (!s->kv) {
      snprintf(text, sizeof text, "%s", err->msg);
      why = text;
    } else if (kv_state(s->kv)->applied_index + 1 < found->first) {
      why = "the map is older than the log reaches back";
    }
  }
  if (why && rebuild(s, found, why, err) < 0)
    return -1;
  uint64_t last = found->last >= found->first ? found->last : found->base_index, applied = kv_state(s->kv)->applied_index;
  if (applied > last)
    return err_set(err, ERR_CORRUPT, "the log in %s ends at entry %" PRIu64 ", but entries up to %" PRIu64 " had been applied: its end is lost",
                   s->log_dir, last, applied);
  return 0;
}

static int open_raft(struct store *s, const struct dlog_found *found, const char *address, struct err *err) {
  struct raft_options options = {.id = FOUNDER, .hard = found->hard, .applied = kv_state(s->kv)->applied_index};
  struct snapshot_meta meta;
  char path[SNAPSHOT_PATH_MAX];
  if (crypto_random(&options.seed, sizeof options.seed, err) < 0)
    return -1;
  int have = snapshot_newest(disk_posix(), s->snap_dir, s->cluster_id, false, &meta, path, skipped, s, err);
  if (have < 0 && (err->code != ERR_CORRUPT || found->first > 1))
    return -1;
  options.snapshot.members = (struct raft_members){.n = 1, .m = {{.id = FOUNDER, .voter = true}}};
  snprintf(options.snapshot.members.m[0].address, RAFT_ADDRESS_MAX, "%s", address);
  /* One that is ahead of the map is of no use: the log behind the map's own entry is needed. The map is at or behind it only after it was rebuilt
   * from an older one. */
  if (have > 0 && meta.raft.index <= options.applied) {
    options.snapshot = meta.raft;
    s->snapshots.newest = meta.raft.index;
  } else if (have > 0 && found->first > 1) {
    return err_set(err, ERR_CORRUPT, "the newest snapshot ends at entry %" PRIu64 ", the state at %" PRIu64, meta.raft.index, options.applied);
  }
  s->raft = raft_new(&options, err);
  if (!s->raft)
    return -1;
  for (uint64_t i = options.snapshot.index + 1; i <= found->last; i++) {
    struct raft_entry entry;
    buf_reset(&s->scratch);
    if (dlog_read(s->log, i, &entry, &s->scratch, err) < 0)
      return -1;
    entry.data = s->scratch.data;
    if (raft_restore(s->raft, &entry, err) < 0)
      return -1;
    store_snapshots_logged(s, entry.len);
  }
  return 0;
}

int store_recover(struct store *s, const char *address, struct err *err) {
  struct dlog_found found;
  struct dlog_options options = {.dir = s->log_dir};
  memcpy(options.cluster_id, s->cluster_id, sizeof options.cluster_id);
  if (dlog_open(&s->log, &options, &found, err) < 0)
    return -1;
  if (found.torn)
    s->ops->note(s->arg, "an unfinished write at the end of the log was cut off", found.torn_text);
  return open_state(s, &found, err) < 0 || open_raft(s, &found, address, err) < 0 ? -1 : 0;
}
