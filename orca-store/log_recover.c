/* Opening a log: who has it, what reading found, a torn tail cut off, and all that will be relied on made durable. */
#include "orca-store/log_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int dlog_take_lock(struct dlog *log, struct err *err) {
  char path[512], pid[32] = {0};
  if (dlog_path(path, sizeof path, log->dir, "lock", err) < 0)
    return -1;
  log->lock_fd = log->disk->open(log->disk, path, DISK_CREATE);
  if (log->lock_fd < 0)
    return err_errno(err, -log->lock_fd, "%s", path);
  int rc = log->disk->lock(log->disk, log->lock_fd);
  if (rc == -EWOULDBLOCK) {
    ssize_t n = disk_read_at(log->disk, log->lock_fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    return err_set(err, ERR_CONFLICT, "%s is held by process %s", log->dir, pid[0] ? pid : "(unknown)");
  }
  if (rc == 0)
    rc = log->disk->truncate(log->disk, log->lock_fd, 0);
  int len = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
  if (rc == 0)
    rc = disk_write_at(log->disk, log->lock_fd, pid, (size_t)len, 0);
  /* A full disk must not keep a store from opening: the name of its holder is all that is missing then. */
  return rc < 0 && rc != -ENOSPC ? err_errno(err, -rc, "%s", path) : 0;
}

struct faults {
  const char *dir;
  struct err first;
  size_t more;
  struct dlog_found *found;
};

static void each_fault(void *arg, const struct dlog_fault *f) {
  struct faults *c = arg;
  if (f->torn) {
    c->found->torn = true;
    snprintf(c->found->torn_text, sizeof c->found->torn_text, "%s: offset %" PRIu64 ", behind entry %" PRIu64 ": %s", f->file, f->offset, f->index,
             f->text);
  } else if (c->first.code == ERR_NONE) {
    err_set(&c->first, ERR_CORRUPT, "%s/%s: offset %" PRIu64 ", behind entry %" PRIu64 ": %s", c->dir, f->file, f->offset, f->index, f->text);
  } else {
    c->more++;
  }
}

/* What no sync had covered becomes zeros again; segments behind it go. */
static int cut_tail(struct dlog *log, struct dlog_segment *seg, uint64_t offset, struct err *err) {
  uint8_t chunk[16384];
  for (uint64_t at = offset; at < seg->size; at += sizeof chunk) {
    size_t len = seg->size - at < sizeof chunk ? seg->size - at : sizeof chunk;
    ssize_t n = disk_read_at(log->disk, seg->fd, chunk, len, (int64_t)at);
    if (n < 0)
      return err_errno(err, (int)-n, "%s: segment %" PRIu64, log->dir, seg->number);
    if (dlog_is_zero(chunk, (size_t)n))
      continue;
    memset(chunk, 0, sizeof chunk);
    int rc = disk_write_at(log->disk, seg->fd, chunk, (size_t)n, (int64_t)at);
    if (rc < 0)
      return err_errno(err, -rc, "%s: cutting the tail of segment %" PRIu64, log->dir, seg->number);
  }
  return 0;
}

static void each_behind(void *arg, const char *name) {
  uint64_t number, *highest = arg;
  if (dlog_parse_name(name, &number) && number > *highest)
    *highest = number;
}

/* Newest first: a crash in between leaves no gap. */
static int drop_behind(struct dlog *log, uint64_t number, struct err *err) {
  uint64_t highest = number;
  int rc = log->disk->list(log->disk, log->dir, each_behind, &highest);
  for (; rc == 0 && highest > number; highest--) {
    char path[512];
    if (dlog_segment_path(log, highest, path, sizeof path, err) < 0)
      return -1;
    rc = log->disk->unlink(log->disk, path);
  }
  return rc < 0 ? err_errno(err, -rc, "%s: dropping what lies behind the tail", log->dir) : 0;
}

/* After a sync that failed, the kernel holds the pages for clean, though they never reached the disk, and a second sync would say yes to
 * nothing. So what no sync is known to have covered is written once more. */
static int write_again(struct dlog *log, struct dlog_segment *seg, uint64_t synced, struct err *err) {
  uint8_t chunk[16384];
  uint64_t at = synced >> 32 > seg->number ? seg->used : synced >> 32 == seg->number ? synced & UINT32_MAX : DLOG_HEADER;
  while (at < seg->used) {
    size_t len = seg->used - at < sizeof chunk ? seg->used - at : sizeof chunk;
    ssize_t n = disk_read_at(log->disk, seg->fd, chunk, len, (int64_t)at);
    int rc = n < 0 ? (int)n : n == 0 ? -EIO : disk_write_at(log->disk, seg->fd, chunk, (size_t)n, (int64_t)at);
    if (rc < 0)
      return err_errno(err, -rc, "%s: segment %" PRIu64, log->dir, seg->number);
    at += (uint64_t)n;
  }
  return 0;
}

static int take_places(struct dlog *log, const struct dlog_replay *r, struct err *err) {
  for (size_t i = 0; i < r->n_places; i++) {
    const struct dlog_place *p = &r->places[i];
    struct dlog_segment seg = {.number = p->number, .size = p->size, .used = p->used, .synced = p->used, .max_index = p->max_index};
    char path[512];
    if (dlog_segment_path(log, p->number, path, sizeof path, err) < 0)
      return -1;
    seg.fd = log->disk->open(log->disk, path, DISK_WRITE);
    if (seg.fd < 0)
      return err_errno(err, -seg.fd, "%s", path);
    if (dlog_push_segment(log, &seg, err) < 0) {
      log->disk->close(log->disk, seg.fd);
      return -1;
    }
    bool torn = r->torn_at != 0 && r->torn_at >> 32 == p->number;
    if (torn && (cut_tail(log, &seg, p->used, err) < 0 || drop_behind(log, p->number, err) < 0))
      return -1;
    /* What a killed process wrote and never synced was read here, and is about to be relied on. */
    if (r->synced != 0 && write_again(log, &seg, r->synced, err) < 0)
      return -1;
    int rc = log->disk->fdatasync(log->disk, seg.fd);
    if (rc < 0)
      return err_errno(err, -rc, "%s", path);
  }
  int rc = log->disk->sync_dir(log->disk, log->dir);
  return rc < 0 ? err_errno(err, -rc, "%s", log->dir) : 0;
}

static int open_hint(struct dlog *log, struct err *err) {
  char path[512];
  uint8_t hint[DLOG_HINT_BYTES];
  if (dlog_path(path, sizeof path, log->dir, "synced", err) < 0)
    return -1;
  log->hint_fd = log->disk->open(log->disk, path, DISK_CREATE);
  if (log->hint_fd < 0)
    return err_errno(err, -log->hint_fd, "%s", path);
  dlog_put_hint(hint, log->synced);
  int rc = disk_write_at(log->disk, log->hint_fd, hint, sizeof hint, 0);
  return rc < 0 && rc != -ENOSPC ? err_errno(err, -rc, "%s", path) : 0;
}

int dlog_recover(struct dlog *log, struct dlog_found *found, struct err *err) {
  char tmp[512];
  struct faults faults = {.dir = log->dir, .found = found};
  struct dlog_replay r = {.disk = log->disk, .dir = log->dir, .cluster_id = log->cluster_id, .fault = each_fault, .arg = &faults};
  int rc = dlog_replay(&r, err);
  if (rc == 0 && r.damaged > 0) {
    if (err)
      *err = faults.first;
    rc = faults.more ? err_context(err, "damaged in %zu places", faults.more + 1) : -1;
  }
  if (rc == 0 && dlog_path(tmp, sizeof tmp, log->dir, "next.tmp", err) == 0) {
    int gone = log->disk->unlink(log->disk, tmp);
    rc = gone < 0 && gone != -ENOENT ? err_errno(err, -gone, "%s", tmp) : take_places(log, &r, err);
  }
  if (rc == 0) {
    log->state = r.state;
    r.state.positions = NULL;
  }
  dlog_replay_fini(&r);
  if (rc < 0)
    return -1;

  struct dlog_segment seg;
  if (log->n_segs > 1 && dlog_active(log)->used == DLOG_HEADER) { /* made ahead, not begun */
    log->spare = *dlog_active(log);
    log->n_segs--;
  } else if (log->n_segs == 0) {
    if (dlog_make_segment(log, 1, log->segment_size, &seg, err) < 0)
      return -1;
    if (dlog_push_segment(log, &seg, err) < 0) {
      log->disk->close(log->disk, seg.fd);
      return -1;
    }
  }
  log->synced = dlog_position(dlog_active(log)->number, dlog_active(log)->used);
  log->mark = (struct raft_stable){log->state.last, log->state.last_term, log->state.hard};
  found->hard = log->state.hard;
  found->base_index = log->state.base_index;
  found->base_term = log->state.base_term;
  found->first = log->state.base_index + 1;
  found->last = log->state.last;
  return open_hint(log, err);
}
