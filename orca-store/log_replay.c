/* Reading a log's folder, for opening and for verifying: one understanding of what is whole, torn and damaged. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "orca-store/log_format.h"

int dlog_path(char *out, size_t cap, const char *dir, const char *name, struct err *err) {
  int n = snprintf(out, cap, "%s/%s", dir, name);
  return n < 0 || (size_t)n >= cap ? err_set(err, ERR_INVALID, "%s: path is too long", dir) : 0;
}

int dlog_state_add(struct dlog_state *s, uint64_t index, uint64_t term, uint64_t position) {
  size_t at = index - s->base_index - 1;
  if (at >= s->cap_positions) {
    size_t cap = s->cap_positions ? s->cap_positions * 2 : 1024;
    uint64_t *grown = reallocarray(s->positions, cap, sizeof *grown);
    if (!grown)
      return -1;
    s->positions = grown;
    s->cap_positions = cap;
  }
  s->positions[at] = position;
  s->last = index;
  s->last_term = term;
  return 0;
}

void dlog_state_reset(struct dlog_state *s, uint64_t index, uint64_t term) {
  s->base_index = s->last = index;
  s->base_term = s->last_term = term;
}

void dlog_replay_fini(struct dlog_replay *r) {
  free(r->state.positions);
  free(r->places);
  r->state = (struct dlog_state){0};
  r->places = NULL;
  r->n_places = 0;
}

static void tell(struct dlog_replay *r, uint64_t number, uint64_t offset, bool torn, const char *text) {
  char name[DLOG_NAME_MAX];
  dlog_name(name, number);
  if (!torn)
    r->damaged++;
  if (r->fault)
    r->fault(r->arg, &(struct dlog_fault){.file = name, .offset = offset, .index = r->state.last, .text = text, .torn = torn});
}

struct names {
  uint64_t *n;
  size_t count, cap;
  bool failed;
};

static void each_name(void *arg, const char *name) {
  struct names *l = arg;
  uint64_t number;
  if (l->failed || !dlog_parse_name(name, &number))
    return;
  if (l->count == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 16;
    uint64_t *grown = reallocarray(l->n, cap, sizeof *grown);
    if (!grown) {
      l->failed = true;
      return;
    }
    l->n = grown;
    l->cap = cap;
  }
  l->n[l->count++] = number;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y ? 1 : 0;
}

struct bytes {
  uint8_t *data;                /* a mapping of its own: zeros that nobody touches cost nothing */
  size_t mapped, size, written; /* behind `written` there are but zeros, and they were not read: a segment's room for more */
};

static void forget(struct bytes *b) {
  if (b->data)
    munmap(b->data, b->mapped);
  *b = (struct bytes){0};
}

static int map(struct bytes *b, size_t size) {
  void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    return -1;
  *b = (struct bytes){.data = data, .mapped = size};
  return 0;
}

static int read_whole(struct dlog_replay *r, uint64_t number, struct bytes *ret, struct err *err) {
  char name[DLOG_NAME_MAX], path[512];
  int64_t len = 0, written = 0;
  dlog_name(name, number);
  if (dlog_path(path, sizeof path, r->dir, name, err) < 0)
    return -1;
  int fd = r->disk->open(r->disk, path, DISK_READ);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  int rc = r->disk->size(r->disk, fd, &len);
  if (rc < 0)
    rc = err_errno(err, -rc, "%s", path);
  else if (len > DLOG_SEGMENT_MAX)
    rc = err_set(err, ERR_CORRUPT, "%s: %" PRId64 " bytes, more than a segment has", path, len);
  if (rc == 0 && (!r->disk->written || r->disk->written(r->disk, fd, &written) < 0 || written > len))
    written = len;
  /* The mapping before does, unless something of it would be left behind what is read now. */
  if (rc == 0 && (ret->mapped < (size_t)len + 8 || written < len)) {
    forget(ret);
    if (map(ret, (size_t)len + 8) < 0)
      rc = err_set(err, ERR_MEMORY, "%s: out of memory", path);
  }
  if (rc == 0) {
    ssize_t n = disk_read_at(r->disk, fd, ret->data, (size_t)written, 0);
    if (n < 0)
      rc = err_errno(err, (int)-n, "%s", path);
    else
      *ret = (struct bytes){ret->data, ret->mapped, n < written ? (size_t)n : (size_t)len, (size_t)n};
  }
  r->disk->close(r->disk, fd);
  return rc;
}

/* Follows one record that holds. Returns what is wrong with its place in the sequence, NULL: nothing, or "" when memory ended. */
static const char *follow(struct dlog_replay *r, const struct dlog_record *rec, struct dlog_place *place, uint64_t offset, bool broken) {
  struct dlog_state *s = &r->state;
  bool empty = s->last == s->base_index;
  switch (rec->type) {
  case DLOG_HARD:
    /* at the very beginning: what has been cut away before it */
    if (r->records == 0)
      dlog_state_reset(s, rec->index, rec->last_term);
    else if (!broken && rec->prev_end != 0 && rec->index != s->last)
      return "does not follow the segment before";
    if (rec->term < s->hard.term || (rec->term == s->hard.term && s->hard.vote != 0 && rec->vote != s->hard.vote))
      return "hard state goes backwards";
    s->hard = (struct raft_hard){rec->term, rec->vote};
    break;
  case DLOG_RESET:
    dlog_state_reset(s, rec->index, rec->term);
    for (size_t i = 0; i < r->n_places; i++)
      r->places[i].max_index = 0;
    place->max_index = 0;
    break;
  case DLOG_ENTRY:
    /* Before the base: it replaces entries of segments that are gone (behind a snapshot, or by a reset further on). */
    if (rec->index <= s->base_index || (broken && rec->index > s->last + 1))
      dlog_state_reset(s, rec->index - 1, 0);
    if (rec->index > s->last + 1)
      return empty ? "first entry does not follow what was cut" : "entry does not follow the one before";
    if (dlog_state_add(s, rec->index, rec->term, dlog_position(place->number, offset)) < 0)
      return "";
    if (rec->index > place->max_index)
      place->max_index = rec->index;
    break;
  }
  r->records++;
  return NULL;
}

/* Does any whole record behind `offset` in these bytes say that `position` had been synced? */
static bool says_synced(const struct bytes *b, uint64_t number, uint64_t offset, uint64_t position) {
  struct dlog_record rec;
  while (dlog_find_record(b->data, b->written, number, &offset, &rec))
    if (rec.synced > position)
      return true;
  return false;
}

struct pass {
  struct dlog_replay *r;
  const struct names *names;
  uint64_t hint;
  struct bytes this, other;
};

/* Whether what does not hold at this place had ever been synced. */
static int was_synced(struct pass *p, size_t i, uint64_t offset, bool *ret, struct err *err) {
  uint64_t position = dlog_position(p->names->n[i], offset);
  *ret = p->hint > position || says_synced(&p->this, p->names->n[i], offset, position);
  for (size_t k = i + 1; k < p->names->count && !*ret; k++) {
    if (read_whole(p->r, p->names->n[k], &p->other, err) < 0)
      return -1;
    *ret = says_synced(&p->other, p->names->n[k], DLOG_HEADER - 8, position);
  }
  return 0;
}

/* Where the segment after this one says this one ended, by its first record; 0: there is none, or it is empty. */
static int next_says_end(struct pass *p, size_t i, uint64_t *ret, struct err *err) {
  struct dlog_record rec;
  const char *text;
  uint8_t head[DLOG_HEADER + DLOG_RECORD_OVERHEAD + DLOG_HARD_PAYLOAD];
  char name[DLOG_NAME_MAX], path[512];
  *ret = 0;
  if (i + 1 == p->names->count)
    return 0;
  struct disk *disk = p->r->disk;
  dlog_name(name, p->names->n[i + 1]);
  if (dlog_path(path, sizeof path, p->r->dir, name, err) < 0)
    return -1;
  int fd = disk->open(disk, path, DISK_READ);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  ssize_t n = disk_read_at(disk, fd, head, sizeof head, 0);
  disk->close(disk, fd);
  if (n < 0)
    return err_errno(err, (int)-n, "%s", path);
  if (dlog_get_record(head, (size_t)n, 0, p->names->n[i + 1], DLOG_HEADER, &rec, &text) == DLOG_SEEN_RECORD && rec.type == DLOG_HARD)
    *ret = rec.prev_end;
  return 0;
}

static int read_segment(struct pass *p, size_t i, bool *broken, struct err *err) {
  struct dlog_replay *r = p->r;
  struct dlog_place *place = &r->places[r->n_places];
  uint64_t number = p->names->n[i], offset = DLOG_HEADER;
  struct err why;
  if (read_whole(r, number, &p->this, err) < 0)
    return -1;
  const uint8_t *data = p->this.data;
  size_t size = p->this.size, written = p->this.written;
  *place = (struct dlog_place){.number = number, .size = size};
  r->bytes += size;
  if (dlog_check_header(data, size, number, r->cluster_id, &why) < 0) {
    char name[DLOG_NAME_MAX];
    dlog_name(name, number);
    if (why.code != ERR_CORRUPT) {
      if (err)
        *err = why;
      return err_context(err, "%s/%s", r->dir, name);
    }
    tell(r, number, 0, false, why.msg);
    *broken = true;
    r->n_places++;
    return 0;
  }
  for (;;) {
    struct dlog_record rec;
    const char *text = "ends too early";
    enum dlog_seen seen = dlog_get_record(data, size, 0, number, offset, &rec, &text);
    if (seen == DLOG_SEEN_RECORD) {
      text = follow(r, &rec, place, offset, *broken);
      if (text && *text == '\0')
        return err_set(err, ERR_MEMORY, "log: out of memory");
      if (text) {
        tell(r, number, offset, false, text);
        *broken = true;
      }
      offset += dlog_record_size(rec.len);
      continue;
    }
    if (seen != DLOG_SEEN_DAMAGED) {
      uint64_t end = 0;
      bool synced;
      if (next_says_end(p, i, &end, err) < 0)
        return -1;
      if (seen == DLOG_SEEN_END && end == dlog_position(number, offset))
        break;
      /* Trailing zeros and nothing behind: the usual end. */
      if (was_synced(p, i, offset, &synced, err) < 0)
        return -1;
      if (!synced) {
        size_t rest = written > offset ? written - offset : 0;
        if (seen == DLOG_SEEN_TORN || end != 0 || !dlog_is_zero(data + offset, rest)) {
          tell(r, number, offset, true, seen == DLOG_SEEN_TORN ? text : "the tail was never written");
          r->torn_at = dlog_position(number, offset);
        }
        break;
      }
    }
    tell(r, number, offset, false, text);
    *broken = true;
    if (!dlog_find_record(data, written, number, &offset, &rec))
      break;
  }
  place->used = offset;
  r->n_places++;
  return 0;
}

int dlog_replay(struct dlog_replay *r, struct err *err) {
  struct names names = {0};
  struct pass p = {.r = r, .names = &names};
  uint8_t hint[DLOG_HINT_BYTES] = {0};
  char path[512];
  bool broken = false;
  int rc = dlog_path(path, sizeof path, r->dir, "synced", err);
  if (rc < 0)
    return -1;
  int fd = r->disk->open(r->disk, path, DISK_READ);
  if (fd >= 0) {
    ssize_t n = disk_read_at(r->disk, fd, hint, sizeof hint, 0);
    r->disk->close(r->disk, fd);
    if (n == (ssize_t)sizeof hint) /* a hint that can't be read is none */
      p.hint = dlog_get_hint(hint);
    r->synced = p.hint;
  }
  rc = r->disk->list(r->disk, r->dir, each_name, &names);
  if (rc < 0)
    rc = err_errno(err, -rc, "%s", r->dir);
  else if (names.failed || !(r->places = calloc(names.count + 1, sizeof *r->places)))
    rc = err_set(err, ERR_MEMORY, "log: out of memory");
  if (rc == 0 && names.count > 0)
    qsort(names.n, names.count, sizeof *names.n, ascending);
  for (size_t i = 0; rc == 0 && i < names.count && r->torn_at == 0; i++) {
    if (i > 0 && names.n[i] != names.n[i - 1] + 1) {
      tell(r, names.n[i - 1] + 1, 0, false, "this segment is missing");
      broken = true;
    }
    rc = read_segment(&p, i, &broken, err);
  }
  if (rc == 0 && p.hint >> 32 > (names.count ? names.n[names.count - 1] : 0))
    tell(r, p.hint >> 32, 0, false, "this segment is missing: it had been synced");
  forget(&p.this);
  forget(&p.other);
  free(names.n);
  return rc;
}

int dlog_verify(struct disk *disk, const char *dir, const uint8_t *cluster_id, void (*each)(void *arg, const struct dlog_fault *fault), void *arg,
                struct dlog_summary *summary, struct err *err) {
  struct dlog_replay r = {.disk = disk ? disk : disk_posix(), .dir = dir, .cluster_id = cluster_id, .fault = each, .arg = arg};
  int rc = dlog_replay(&r, err);
  if (rc == 0) {
    rc = (int)r.damaged;
    if (summary)
      *summary = (struct dlog_summary){r.n_places, r.records, r.bytes, r.state.base_index + 1, r.state.last, r.state.hard};
  }
  dlog_replay_fini(&r);
  return rc;
}
