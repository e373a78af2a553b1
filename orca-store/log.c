#include "orca-store/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "orca-store/log_int.h"

#define SEGMENT_DEFAULT (UINT32_C(4) << 20)
#define SEGMENT_LEAST (UINT32_C(64) << 10)
#define BATCH_MAX (UINT32_C(64) << 20)
#define SLACK 8192 /* stays free behind every reservation: hard state and no-ops while the disk is full */
#define FIRST_RECORD (DLOG_RECORD_OVERHEAD + DLOG_HARD_PAYLOAD)

static int poison(struct dlog *log) {
  pthread_mutex_lock(&log->lock);
  log->poisoned = true;
  pthread_mutex_unlock(&log->lock);
  return -1;
}

static int check_poison(struct dlog *log, struct err *err) {
  pthread_mutex_lock(&log->lock);
  bool poisoned = log->poisoned;
  pthread_mutex_unlock(&log->lock);
  return poisoned ? err_set(err, ERR_IO, "%s: an earlier sync or write failed: nobody knows what is on disk; restart", log->dir) : 0;
}

int dlog_segment_path(const struct dlog *log, uint64_t number, char *out, size_t cap, struct err *err) {
  char name[DLOG_NAME_MAX];
  dlog_name(name, number);
  return dlog_path(out, cap, log->dir, name, err);
}

/* ---------------------------------------------------------------- segments */

int dlog_make_segment(struct dlog *log, uint64_t number, uint64_t size, struct dlog_segment *ret, struct err *err) {
  char tmp[512], path[512];
  uint8_t header[DLOG_HEADER];
  if (dlog_path(tmp, sizeof tmp, log->dir, "next.tmp", err) < 0 || dlog_segment_path(log, number, path, sizeof path, err) < 0)
    return -1;
  int fd = log->disk->open(log->disk, tmp, DISK_CREATE_NEW);
  if (fd < 0)
    return err_errno(err, -fd, "%s", tmp);
  dlog_put_header(header, number, log->cluster_id);
  int rc = log->disk->allocate(log->disk, fd, (int64_t)size);
  if (rc == 0)
    rc = disk_write_at(log->disk, fd, header, sizeof header, 0);
  if (rc == 0)
    rc = log->disk->fdatasync(log->disk, fd);
  if (rc == 0)
    rc = log->disk->rename(log->disk, tmp, path);
  if (rc < 0) {
    log->disk->close(log->disk, fd);
    log->disk->unlink(log->disk, tmp); /* else opening does */
    return err_errno(err, -rc, "%s: making a segment", path);
  }
  rc = log->disk->sync_dir(log->disk, log->dir);
  if (rc < 0) {
    log->disk->close(log->disk, fd);
    err_errno(err, -rc, "%s: syncing the folder", log->dir);
    return poison(log);
  }
  *ret = (struct dlog_segment){.number = number, .size = size, .used = DLOG_HEADER, .synced = DLOG_HEADER, .fd = fd};
  return 0;
}

int dlog_push_segment(struct dlog *log, const struct dlog_segment *seg, struct err *err) {
  if (log->n_segs == log->cap_segs) {
    size_t cap = log->cap_segs ? log->cap_segs * 2 : 8;
    struct dlog_segment *grown = reallocarray(log->segs, cap, sizeof *grown);
    if (!grown)
      return err_set(err, ERR_MEMORY, "log: out of memory");
    log->segs = grown;
    log->cap_segs = cap;
  }
  log->segs[log->n_segs++] = *seg;
  return 0;
}

/* One at a time makes the spare: the owner when it needs one, the syncing thread ahead of that. */
static int make_spare(struct dlog *log, uint64_t size, struct err *err) {
  pthread_mutex_lock(&log->lock);
  while (log->making)
    pthread_cond_wait(&log->made, &log->lock);
  struct dlog_segment spare = log->spare;
  uint64_t number = dlog_active(log)->number + 1;
  if (spare.number != 0 && spare.size >= size) {
    pthread_mutex_unlock(&log->lock);
    return 0;
  }
  log->making = true;
  pthread_mutex_unlock(&log->lock);

  int rc;
  if (spare.number != 0) { /* too small for what is coming: longer */
    rc = log->disk->allocate(log->disk, spare.fd, (int64_t)size);
    if (rc < 0) {
      rc = err_errno(err, -rc, "%s: growing a segment", log->dir);
    } else if ((rc = log->disk->fdatasync(log->disk, spare.fd)) < 0) {
      err_errno(err, -rc, "%s: syncing a segment", log->dir);
      rc = poison(log);
    } else {
      spare.size = size;
    }
  } else {
    rc = dlog_make_segment(log, number, size, &spare, err);
  }

  pthread_mutex_lock(&log->lock);
  if (rc == 0)
    log->spare = spare;
  log->making = false;
  pthread_cond_broadcast(&log->made);
  pthread_mutex_unlock(&log->lock);
  return rc;
}

static uint64_t spare_size(const struct dlog *log, uint64_t need) {
  uint64_t size = DLOG_HEADER + FIRST_RECORD + need + SLACK;
  return size > log->segment_size ? (size + 4095) & ~UINT64_C(4095) : log->segment_size;
}

static int rotate(struct dlog *log, uint64_t need, struct err *err) {
  if (make_spare(log, spare_size(log, need), err) < 0)
    return -1;
  pthread_mutex_lock(&log->lock);
  int rc = dlog_push_segment(log, &log->spare, err);
  if (rc == 0)
    log->spare = (struct dlog_segment){0};
  pthread_mutex_unlock(&log->lock);
  return rc;
}

int dlog_reserve(struct dlog *log, size_t n, size_t bytes, struct err *err) {
  if (bytes > BATCH_MAX || n > BATCH_MAX / DLOG_RECORD_OVERHEAD)
    return err_set(err, ERR_TOO_LARGE, "log: %zu entries with %zu bytes at once", n, bytes);
  if (check_poison(log, err) < 0)
    return -1;
  uint64_t need = n * (DLOG_RECORD_OVERHEAD + 7) + bytes + FIRST_RECORD;
  const struct dlog_segment *seg = dlog_active(log);
  if (seg->used + need + SLACK <= seg->size)
    return 0;
  return make_spare(log, spare_size(log, need), err);
}

/* ---------------------------------------------------------------- writing */

static int room_for_batch(struct dlog *log, size_t size, struct err *err) {
  if (size <= log->cap_batch)
    return 0;
  size_t cap = size + size / 2;
  uint8_t *grown = realloc(log->batch, cap);
  if (!grown)
    return err_set(err, ERR_MEMORY, "log: out of memory");
  log->batch = grown;
  log->cap_batch = cap;
  return 0;
}

static int room_for_positions(struct dlog *log, const struct raft_entry *entries, size_t n, struct err *err) {
  struct dlog_state *s = &log->state;
  uint64_t last = s->last;
  for (size_t i = 0; i < n; i++) {
    const struct raft_entry *e = &entries[i];
    if (e->index <= s->base_index || e->index > last + 1 || (i > 0 && e->index != last + 1) || e->len > RAFT_ENTRY_MAX || e->term == 0)
      return err_set(err, ERR_INVALID, "log: entry %" PRIu64 " of term %" PRIu64 " behind %" PRIu64, e->index, e->term, last);
    last = e->index;
  }
  if (last - s->base_index > s->cap_positions) {
    size_t cap = (last - s->base_index) * 2;
    uint64_t *grown = reallocarray(s->positions, cap, sizeof *grown);
    if (!grown)
      return err_set(err, ERR_MEMORY, "log: out of memory");
    s->positions = grown;
    s->cap_positions = cap;
  }
  return 0;
}

/* What a failed write may have left is made zeros again, so that the tail is where it was. */
static int write_batch(struct dlog *log, size_t size, struct err *err) {
  struct dlog_segment *seg = dlog_active(log);
  int rc = disk_write_at(log->disk, seg->fd, log->batch, size, (int64_t)seg->used);
  if (rc == 0)
    return 0;
  err_errno(err, -rc, "%s: writing segment %" PRIu64, log->dir, seg->number);
  if (rc != -ENOSPC && rc != -EDQUOT)
    return poison(log);
  memset(log->batch, 0, size);
  if (disk_write_at(log->disk, seg->fd, log->batch, size, (int64_t)seg->used) < 0) {
    /* Zeros that can't be written lie where nothing was written either, but a part may: only a restart can tell. */
    poison(log);
    return err_set(err, ERR_IO, "%s: the disk is full and what was half written can't be taken back", log->dir);
  }
  return -1;
}

/* Puts hard (or NULL), a reset (or NULL) and entries into the file as one write. */
static int put(struct dlog *log, const struct raft_hard *hard, const struct dlog_record *reset, const struct raft_entry *entries, size_t n,
               struct err *err) {
  size_t size = (hard ? FIRST_RECORD : 0) + (reset ? DLOG_RECORD_OVERHEAD : 0);
  if (check_poison(log, err) < 0 || room_for_positions(log, entries, n, err) < 0)
    return -1;
  for (size_t i = 0; i < n; i++)
    size += dlog_record_size(entries[i].len);
  if (size > 2 * (size_t)BATCH_MAX || dlog_active(log)->number >= UINT32_MAX - 1)
    return err_set(err, ERR_TOO_LARGE, "log: a batch of %zu bytes", size);
  if (dlog_active(log)->used + size + (dlog_active(log)->used == DLOG_HEADER ? FIRST_RECORD : 0) > dlog_active(log)->size &&
      rotate(log, size, err) < 0)
    return -1;
  if (room_for_batch(log, size + FIRST_RECORD, err) < 0)
    return -1;

  struct dlog_segment *seg = dlog_active(log);
  pthread_mutex_lock(&log->lock);
  uint64_t synced = log->synced;
  pthread_mutex_unlock(&log->lock);
  const struct dlog_state *s = &log->state;
  struct dlog_record rec = {
      .type = DLOG_HARD, .index = s->last, .last_term = s->last_term, .term = s->hard.term, .vote = s->hard.vote, .synced = synced};
  size_t at = 0;
  if (seg->used == DLOG_HEADER) {
    if (log->n_segs > 1)
      rec.prev_end = dlog_position(seg[-1].number, seg[-1].used);
    at += dlog_put_record(log->batch + at, seg->number, seg->used + at, &rec);
    rec.prev_end = 0;
  }
  if (hard) {
    rec.term = hard->term;
    rec.vote = hard->vote;
    at += dlog_put_record(log->batch + at, seg->number, seg->used + at, &rec);
  }
  if (reset) {
    rec = *reset;
    rec.synced = synced;
    at += dlog_put_record(log->batch + at, seg->number, seg->used + at, &rec);
  }
  size_t first_entry = at;
  for (size_t i = 0; i < n; i++) {
    const struct raft_entry *e = &entries[i];
    rec = (struct dlog_record){
        .type = DLOG_ENTRY, .entry_type = e->type, .index = e->index, .term = e->term, .synced = synced, .data = e->data, .len = (uint32_t)e->len};
    at += dlog_put_record(log->batch + at, seg->number, seg->used + at, &rec);
  }
  if (write_batch(log, at, err) < 0)
    return -1;

  pthread_mutex_lock(&log->lock);
  if (hard)
    log->state.hard = *hard;
  if (reset)
    dlog_state_reset(&log->state, reset->index, reset->term);
  uint64_t offset = seg->used + first_entry;
  for (size_t i = 0; i < n; i++) {
    /* room was made above: this cannot fail */
    if (dlog_state_add(&log->state, entries[i].index, entries[i].term, dlog_position(seg->number, offset)) < 0)
      abort();
    offset += dlog_record_size(entries[i].len);
    if (entries[i].index > seg->max_index)
      seg->max_index = entries[i].index;
  }
  seg->used += at;
  log->mark = (struct raft_stable){log->state.last, log->state.last_term, log->state.hard};
  if (!reset) /* which is synced before anyone can ask */
    log->ticket++;
  pthread_mutex_unlock(&log->lock);
  return 0;
}

int dlog_write(struct dlog *log, const struct raft_hard *hard, const struct raft_entry *entries, size_t n, struct err *err) {
  return !hard && n == 0 ? 0 : put(log, hard, NULL, entries, n, err);
}

/* ---------------------------------------------------------------- syncing */

static struct dlog_segment *by_number(struct dlog *log, uint64_t number) {
  if (log->n_segs == 0 || number < log->segs[0].number || number > dlog_active(log)->number)
    return NULL;
  return &log->segs[number - log->segs[0].number];
}

/* The oldest segment with something unsynced; the lock is held. */
static struct dlog_segment *oldest_dirty(struct dlog *log) {
  for (size_t i = 0; i < log->n_segs; i++)
    if (log->segs[i].synced < log->segs[i].used)
      return &log->segs[i];
  return NULL;
}

int dlog_sync(struct dlog *log, struct raft_stable *ret, uint64_t *ret_ticket, struct err *err) {
  uint8_t hint[DLOG_HINT_BYTES];
  pthread_mutex_lock(&log->lock);
  struct raft_stable mark = log->mark;
  uint64_t ticket = log->ticket, until = dlog_position(dlog_active(log)->number, dlog_active(log)->used);
  /* In order, so that `synced` is never true of less than all before it. */
  struct dlog_segment *seg;
  while (!log->poisoned && (seg = oldest_dirty(log)) && seg->number <= until >> 32) {
    uint64_t number = seg->number, used = number == until >> 32 ? until & UINT32_MAX : seg->used;
    if (seg->synced >= used)
      break; /* what is dirty came after the call */
    int fd = seg->fd;
    seg->busy = true;
    pthread_mutex_unlock(&log->lock);
    int rc = log->disk->fdatasync(log->disk, fd);
    pthread_mutex_lock(&log->lock);
    seg = by_number(log, number);
    seg->busy = false;
    if (rc < 0) {
      log->poisoned = true;
      pthread_mutex_unlock(&log->lock);
      return err_errno(err, -rc, "%s: syncing segment %" PRIu64, log->dir, number);
    }
    seg->synced = used;
  }
  if (log->poisoned) {
    pthread_mutex_unlock(&log->lock);
    return check_poison(log, err);
  }
  bool news = until > log->synced;
  if (news) {
    log->synced = until;
    log->synced_ticket = ticket;
  }
  bool ahead = dlog_active(log)->used > dlog_active(log)->size / 2 && log->spare.number == 0 && !log->making;
  pthread_mutex_unlock(&log->lock);

  if (news) {
    /* A hint that can't be written says less than is true: nothing is lost by it but a finding. */
    dlog_put_hint(hint, until);
    (void)disk_write_at(log->disk, log->hint_fd, hint, sizeof hint, 0);
  }
  /* A spare that can't be made now is asked for again, and then refused with the reason, by dlog_reserve(). */
  if (ahead)
    (void)make_spare(log, log->segment_size, NULL);
  if (check_poison(log, err) < 0)
    return -1;
  *ret = mark;
  if (ret_ticket)
    *ret_ticket = ticket;
  return 0;
}

uint64_t dlog_ticket(const struct dlog *log) {
  return log->ticket;
}
struct raft_stable dlog_mark(const struct dlog *log) {
  return log->mark;
}

/* ---------------------------------------------------------------- reading */

static int read_failed(const struct dlog *log, uint64_t number, int code, struct err *err) {
  char name[DLOG_NAME_MAX];
  dlog_name(name, number);
  return err_errno(err, code, "%s/%s", log->dir, name);
}

static int entry_damaged(const struct dlog *log, uint64_t number, uint64_t offset, uint64_t index, const char *how, struct err *err) {
  char name[DLOG_NAME_MAX];
  dlog_name(name, number);
  return err_set(err, ERR_CORRUPT, "%s/%s: offset %" PRIu64 ", entry %" PRIu64 ": %s", log->dir, name, offset, index, how);
}

int dlog_read(struct dlog *log, uint64_t index, struct raft_entry *entry, struct buf *data, struct err *err) {
  const struct dlog_state *s = &log->state;
  if (index <= s->base_index)
    return err_set(err, ERR_COMPACTED, "log: entry %" PRIu64 " was cut, the first is %" PRIu64, index, s->base_index + 1);
  if (index > s->last)
    return err_set(err, ERR_NOT_FOUND, "log: entry %" PRIu64 " is not there, the last is %" PRIu64, index, s->last);
  uint64_t position = s->positions[index - s->base_index - 1], number = position >> 32, offset = position & UINT32_MAX;
  const struct dlog_segment *seg = by_number(log, number);
  uint8_t small[4096], *bytes = small;
  ssize_t n = disk_read_at(log->disk, seg->fd, small, sizeof small < seg->used - offset ? sizeof small : seg->used - offset, (int64_t)offset);
  if (n < 0)
    return read_failed(log, number, (int)-n, err);
  uint32_t len = 0;
  if (n >= DLOG_RECORD_HEADER)
    len = (uint32_t)small[4] | (uint32_t)small[5] << 8 | (uint32_t)small[6] << 16 | (uint32_t)small[7] << 24;
  size_t size = dlog_record_size(len);
  int rc = 0;
  if (size > seg->used - offset) {
    rc = entry_damaged(log, number, offset, index, "its length was changed", err);
  } else if (size > sizeof small) {
    bytes = malloc(size);
    if (!bytes)
      return err_set(err, ERR_MEMORY, "log: out of memory");
    n = disk_read_at(log->disk, seg->fd, bytes, size, (int64_t)offset);
    if (n < 0)
      rc = read_failed(log, number, (int)-n, err);
  }
  struct dlog_record rec;
  const char *text = "ends too early";
  if (rc == 0) {
    enum dlog_seen seen = dlog_get_record(bytes, (size_t)n, offset, number, offset, &rec, &text);
    if (seen != DLOG_SEEN_RECORD || rec.type != DLOG_ENTRY || rec.index != index)
      rc = entry_damaged(log, number, offset, index, seen == DLOG_SEEN_RECORD ? "another record" : text, err);
  }
  if (rc == 0) {
    *entry = (struct raft_entry){.index = index, .term = rec.term, .type = rec.entry_type, .len = rec.len};
    if (buf_add(data, rec.data, rec.len) < 0)
      rc = err_set(err, ERR_MEMORY, "log: entry %" PRIu64 ": the buffer is full", index);
  }
  if (bytes != small)
    free(bytes);
  return rc;
}

uint64_t dlog_first(const struct dlog *log) {
  return log->state.base_index + 1;
}
uint64_t dlog_last(const struct dlog *log) {
  return log->state.last;
}

uint64_t dlog_bytes(const struct dlog *log) {
  uint64_t n = 0;
  for (size_t i = 0; i < log->n_segs; i++)
    n += log->segs[i].size;
  return n;
}

/* ---------------------------------------------------------------- cutting */

/* The first n segments leave, oldest first: a crash in between leaves a log without a gap. */
static int drop_segments(struct dlog *log, size_t n, struct err *err) {
  for (size_t i = 0; i < n; i++) {
    char path[512];
    if (dlog_segment_path(log, log->segs[0].number, path, sizeof path, err) < 0)
      return -1;
    int rc = log->disk->unlink(log->disk, path);
    if (rc == 0 && i == n - 1)
      rc = log->disk->sync_dir(log->disk, log->dir);
    if (rc < 0) {
      err_errno(err, -rc, "%s: dropping a segment", path);
      return poison(log);
    }
    pthread_mutex_lock(&log->lock);
    log->disk->close(log->disk, log->segs[0].fd);
    memmove(log->segs, log->segs + 1, --log->n_segs * sizeof *log->segs);
    pthread_mutex_unlock(&log->lock);
  }
  return 0;
}

int dlog_cut(struct dlog *log, uint64_t index, struct err *err) {
  struct dlog_state *s = &log->state;
  size_t n = 0;
  if (check_poison(log, err) < 0)
    return -1;
  pthread_mutex_lock(&log->lock);
  /* Only behind what the next segment's first record says of its end, hence a next one with a synced record. */
  while (n + 1 < log->n_segs && log->segs[n].max_index <= index && !log->segs[n].busy && log->segs[n].synced == log->segs[n].used &&
         log->segs[n + 1].synced > DLOG_HEADER)
    n++;
  uint64_t keep = n > 0 ? log->segs[n].number : 0;
  pthread_mutex_unlock(&log->lock);
  if (n == 0)
    return 0;
  size_t gone = 0;
  while (gone < s->last - s->base_index && s->positions[gone] >> 32 < keep)
    gone++;
  uint64_t term = s->base_term;
  if (gone > 0) {
    struct raft_entry last;
    struct buf data = BUF_INIT(RAFT_ENTRY_MAX + 1);
    int rc = dlog_read(log, s->base_index + gone, &last, &data, err);
    buf_free(&data);
    if (rc < 0)
      return -1;
    term = last.term;
  }
  if (drop_segments(log, n, err) < 0)
    return -1;
  memmove(s->positions, s->positions + gone, (s->last - s->base_index - gone) * sizeof *s->positions);
  s->base_index += gone;
  s->base_term = term;
  return 0;
}

int dlog_reset(struct dlog *log, uint64_t index, uint64_t term, struct err *err) {
  struct dlog_record reset = {.type = DLOG_RESET, .index = index, .term = term};
  struct raft_stable stable;
  if (put(log, NULL, &reset, NULL, 0, err) < 0 || dlog_sync(log, &stable, NULL, err) < 0)
    return -1;
  for (size_t i = 0; i < log->n_segs; i++)
    log->segs[i].max_index = 0;
  return drop_segments(log, log->n_segs - 1, err);
}

int dlog_follow_snapshot(struct dlog *log, uint64_t index, uint64_t term, struct err *err) {
  const struct dlog_state *s = &log->state;
  if (s->hard.term < term)
    return err_set(err, ERR_CORRUPT,
                   "%s: the log ends in term %" PRIu64 ", the newest snapshot is of term %" PRIu64
                   ": the log was replaced by an older one, or is gone",
                   log->dir, s->hard.term, term);
  if (s->last < index)
    return dlog_reset(log, index, term, err);
  if (s->base_index > index)
    return err_set(err, ERR_CORRUPT,
                   "%s: the log begins at entry %" PRIu64 ", the newest whole snapshot ends at %" PRIu64 ": what is between is missing", log->dir,
                   s->base_index + 1, index);
  uint64_t there = s->base_term;
  if (s->base_index < index) {
    struct raft_entry e;
    struct buf data = BUF_INIT(RAFT_ENTRY_MAX + 1);
    int rc = dlog_read(log, index, &e, &data, err);
    buf_free(&data);
    if (rc < 0)
      return -1;
    there = e.term;
  }
  return there == term || there == 0 ? 0 : dlog_reset(log, index, term, err);
}

/* ---------------------------------------------------------------- opening */

int dlog_open(struct dlog **ret, const struct dlog_options *o, struct dlog_found *found, struct err *err) {
  struct dlog *log = calloc(1, sizeof *log);
  *found = (struct dlog_found){0};
  if (!log)
    return err_set(err, ERR_MEMORY, "log: out of memory");
  pthread_mutex_init(&log->lock, NULL);
  pthread_cond_init(&log->made, NULL);
  log->lock_fd = log->hint_fd = -1;
  log->disk = o->disk ? o->disk : disk_posix();
  log->segment_size = o->segment_size ? o->segment_size : SEGMENT_DEFAULT;
  if (log->segment_size < SEGMENT_LEAST)
    log->segment_size = SEGMENT_LEAST;
  if (log->segment_size > BATCH_MAX)
    log->segment_size = BATCH_MAX;
  memcpy(log->cluster_id, o->cluster_id, DLOG_CLUSTER_ID);
  log->dir = strdup(o->dir);
  if (!log->dir) {
    dlog_close(log);
    return err_set(err, ERR_MEMORY, "log: out of memory");
  }
  int rc = log->disk->make_dir(log->disk, o->dir);
  rc = rc < 0 ? err_errno(err, -rc, "%s", o->dir) : dlog_take_lock(log, err);
  if (rc == 0)
    rc = dlog_recover(log, found, err);
  if (rc < 0) {
    dlog_close(log);
    return -1;
  }
  *ret = log;
  return 0;
}

void dlog_close(struct dlog *log) {
  if (!log)
    return;
  for (size_t i = 0; i < log->n_segs; i++)
    log->disk->close(log->disk, log->segs[i].fd);
  if (log->spare.number != 0)
    log->disk->close(log->disk, log->spare.fd);
  if (log->hint_fd >= 0) {
    (void)log->disk->fdatasync(log->disk, log->hint_fd); /* a hint: see log_format.h */
    log->disk->close(log->disk, log->hint_fd);
  }
  if (log->lock_fd >= 0)
    log->disk->close(log->disk, log->lock_fd);
  pthread_mutex_destroy(&log->lock);
  pthread_cond_destroy(&log->made);
  free(log->state.positions);
  free(log->segs);
  free(log->batch);
  free(log->dir);
  free(log);
}
