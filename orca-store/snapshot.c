#include "orca-store/snapshot.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto/crypto.h"

/* .meta, little-endian: magic[8], format u32, length u32 of it all, cluster[16], index u64, term u64, revision u64, size u64, sha256[32], data_format
 * u32, members' length u32, members (proto/raft.proto), CRC32C u32 of all before. Magic, format, length and the checksum at the end stay where they
 * are in every format to come. */
#define META_FORMAT 1
#define META_FIXED 104
#define META_MAX (META_FIXED + RAFT_MEMBERS_BYTES + 4)
#define NAME_LEN 33 /* TERM-INDEX, 16 digits each */
#define TEMPORARY "writing.tmp"
#define CHUNK (256u << 10)

static const uint8_t magic[8] = {'o', 'r', 'c', 'a', 's', 'n', 'a', 'p'};

static uint8_t *put32(uint8_t *p, uint32_t v) {
  v = htole32(v);
  memcpy(p, &v, sizeof v);
  return p + sizeof v;
}
static uint8_t *put64(uint8_t *p, uint64_t v) {
  v = htole64(v);
  memcpy(p, &v, sizeof v);
  return p + sizeof v;
}
static uint32_t get32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}
static uint64_t get64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

static int join(char out[SNAPSHOT_PATH_MAX], const char *dir, const char *name, const char *suffix, struct err *err) {
  int n = snprintf(out, SNAPSHOT_PATH_MAX, "%s/%s%s", dir, name, suffix);
  return n < 0 || n >= SNAPSHOT_PATH_MAX ? err_set(err, ERR_INVALID, "%s: path is too long", dir) : 0;
}

/* ---------------------------------------------------------------- metadata */

static size_t meta_encode(const struct snapshot_meta *m, uint8_t out[META_MAX]) {
  size_t members = raft_members_encode(&m->raft.members, out + META_FIXED, RAFT_MEMBERS_BYTES);
  uint8_t *p = out;
  memcpy(p, magic, sizeof magic);
  p = put32(p + sizeof magic, META_FORMAT);
  p = put32(p, (uint32_t)(META_FIXED + members + 4));
  memcpy(p, m->cluster_id, SNAPSHOT_CLUSTER_ID);
  p = put64(p + SNAPSHOT_CLUSTER_ID, m->raft.index);
  p = put64(p, m->raft.term);
  p = put64(p, m->revision);
  p = put64(p, m->size);
  memcpy(p, m->sha256, sizeof m->sha256);
  p = put32(p + sizeof m->sha256, m->data_format);
  put32(p, (uint32_t)members);
  put32(out + META_FIXED + members, crypto_crc32c(0, out, META_FIXED + members));
  return META_FIXED + members + 4;
}

static int meta_decode(const uint8_t *p, size_t len, struct snapshot_meta *ret, struct err *err) {
  if (len < META_FIXED + 4 || memcmp(p, magic, sizeof magic) != 0 || get32(p + 12) != len || get32(p + len - 4) != crypto_crc32c(0, p, len - 4))
    return err_set(err, ERR_CORRUPT, "metadata checksum does not match");
  if (get32(p + 8) > META_FORMAT)
    return err_set(err, ERR_UNSUPPORTED, "written by a newer orca-store: snapshot format %u, this one knows up to %d", get32(p + 8), META_FORMAT);
  struct snapshot_meta m = {
      .raft.index = get64(p + 32), .raft.term = get64(p + 40), .revision = get64(p + 48), .size = get64(p + 56), .data_format = get32(p + 96)};
  memcpy(m.cluster_id, p + 16, sizeof m.cluster_id);
  memcpy(m.sha256, p + 64, sizeof m.sha256);
  size_t members = get32(p + 100);
  if (get32(p + 8) == 0 || members != len - META_FIXED - 4 || m.raft.index == 0 || m.raft.term == 0)
    return err_set(err, ERR_CORRUPT, "metadata makes no sense, though its checksum holds");
  if (raft_members_decode(p + META_FIXED, members, &m.raft.members, err) < 0)
    return -1;
  *ret = m;
  return 0;
}

static int meta_read(struct disk *disk, const char *dir, const char *name, struct snapshot_meta *ret, struct err *err) {
  uint8_t bytes[META_MAX + 1];
  char path[SNAPSHOT_PATH_MAX];
  if (join(path, dir, name, ".meta", err) < 0)
    return -1;
  int fd = disk->open(disk, path, DISK_READ);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  ssize_t n = disk_read_at(disk, fd, bytes, sizeof bytes, 0);
  disk->close(disk, fd);
  if (n < 0)
    return err_errno(err, (int)-n, "%s", path);
  return meta_decode(bytes, (size_t)n, ret, err) < 0 ? err_context(err, "%s", path) : 0;
}

static void meta_name(const struct snapshot_meta *m, char out[NAME_LEN + 1]) {
  snprintf(out, NAME_LEN + 1, "%016" PRIx64 "-%016" PRIx64, m->raft.term, m->raft.index);
}

/* ---------------------------------------------------------------- contents */

static int hash(struct disk *disk, int fd, uint64_t *size, uint8_t sha256[32], struct err *err) {
  uint8_t *chunk = malloc(CHUNK);
  if (!chunk)
    return err_set(err, ERR_MEMORY, "out of memory");
  struct crypto_sha256 state;
  crypto_sha256_start(&state);
  uint64_t at = 0;
  ssize_t n;
  while ((n = disk_read_at(disk, fd, chunk, CHUNK, (int64_t)at)) > 0) {
    crypto_sha256_add(&state, chunk, (size_t)n);
    at += (uint64_t)n;
  }
  crypto_sha256_end(&state, sha256);
  *size = at;
  free(chunk);
  return n < 0 ? err_errno(err, (int)-n, "reading at offset %" PRIu64, at) : 0;
}

static int check_contents(struct disk *disk, const char *dir, const char *name, const struct snapshot_meta *m, bool whole, struct err *err) {
  char path[SNAPSHOT_PATH_MAX];
  uint8_t sha256[32];
  uint64_t size = 0;
  int64_t there = 0;
  if (join(path, dir, name, ".snap", err) < 0)
    return -1;
  int fd = disk->open(disk, path, DISK_READ);
  if (fd < 0)
    return fd == -ENOENT ? err_set(err, ERR_CORRUPT, "%s is missing, its .meta is there", path) : err_errno(err, -fd, "%s", path);
  int rc = disk->size(disk, fd, &there);
  if (rc < 0)
    rc = err_errno(err, -rc, "%s", path);
  else if ((uint64_t)there != m->size)
    rc = err_set(err, ERR_CORRUPT, "%s: %" PRId64 " bytes, %" PRIu64 " were written", path, there, m->size);
  else if (whole && hash(disk, fd, &size, sha256, err) < 0)
    rc = err_context(err, "%s", path);
  else if (whole && memcmp(sha256, m->sha256, sizeof sha256) != 0)
    rc = err_set(err, ERR_CORRUPT, "%s: SHA-256 does not match", path);
  disk->close(disk, fd);
  return rc;
}

/* Metadata and what it speaks of; its name must be its own. */
static int check(struct disk *disk, const char *dir, const char *name, bool whole, struct snapshot_meta *m, struct err *err) {
  char own[NAME_LEN + 1];
  if (meta_read(disk, dir, name, m, err) < 0)
    return -1;
  meta_name(m, own);
  if (strcmp(own, name) != 0)
    return err_set(err, ERR_CORRUPT, "%s/%s.meta: this is %s under another's name", dir, name, own);
  return check_contents(disk, dir, name, m, whole, err);
}

/* ---------------------------------------------------------------- making */

int snapshot_begin(struct disk *disk, const char *dir, char path[SNAPSHOT_PATH_MAX], struct err *err) {
  int rc = disk->make_dir(disk, dir);
  if (rc < 0)
    return err_errno(err, -rc, "%s", dir);
  if (join(path, dir, TEMPORARY, "", err) < 0)
    return -1;
  rc = disk->unlink(disk, path);
  return rc < 0 && rc != -ENOENT ? err_errno(err, -rc, "%s", path) : 0;
}

static int sync_contents(struct disk *disk, const char *path, struct snapshot_meta *m, const uint8_t *expect, struct err *err) {
  int fd = disk->open(disk, path, DISK_WRITE);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  int rc = disk->fdatasync(disk, fd);
  if (rc < 0)
    rc = err_errno(err, -rc, "%s", path);
  else if (hash(disk, fd, &m->size, m->sha256, err) < 0)
    rc = err_context(err, "%s", path);
  else if (expect && memcmp(expect, m->sha256, sizeof m->sha256) != 0)
    rc = err_set(err, ERR_CORRUPT, "%s: SHA-256 is not the sender's", path);
  disk->close(disk, fd);
  return rc;
}

static int write_meta(struct disk *disk, const char *path, const struct snapshot_meta *m, struct err *err) {
  uint8_t bytes[META_MAX];
  size_t len = meta_encode(m, bytes);
  int fd = disk->open(disk, path, DISK_CREATE_NEW);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  int rc = disk_write_at(disk, fd, bytes, len, 0);
  if (rc == 0)
    rc = disk->fdatasync(disk, fd);
  disk->close(disk, fd);
  return rc < 0 ? err_errno(err, -rc, "%s", path) : 0;
}

int snapshot_commit(struct disk *disk, const char *dir, const char *path, struct snapshot_meta *meta, const uint8_t *expect_sha256, struct err *err) {
  char name[NAME_LEN + 1], snap[SNAPSHOT_PATH_MAX], tmp[SNAPSHOT_PATH_MAX], final[SNAPSHOT_PATH_MAX];
  struct snapshot_meta there;
  if (meta->raft.index == 0 || meta->raft.term == 0 || meta->raft.members.n == 0)
    return err_set(err, ERR_INVALID, "snapshot: of index %" PRIu64 ", term %" PRIu64 ", with %zu members", meta->raft.index, meta->raft.term,
                   meta->raft.members.n);
  meta_name(meta, name);
  if (join(snap, dir, name, ".snap", err) < 0 || join(final, dir, name, ".meta", err) < 0 || join(tmp, dir, "meta.tmp", "", err) < 0 ||
      sync_contents(disk, path, meta, expect_sha256, err) < 0)
    return -1;
  /* A whole one of the same index is as good (the log may have been cut behind it): it is never replaced, not even for a moment. */
  if (check(disk, dir, name, true, &there, NULL) == 0) {
    *meta = there;
    int rc = disk->unlink(disk, path);
    if (rc == 0)
      rc = disk->sync_dir(disk, dir); /* its renames may have been the last thing before a sync of the folder that failed */
    return rc < 0 ? err_errno(err, -rc, "%s", path) : 0;
  }
  if (write_meta(disk, tmp, meta, err) < 0)
    return -1;
  int rc = disk->unlink(disk, final); /* a damaged one's, so that it does not speak for the new contents */
  if (rc == -ENOENT)
    rc = 0;
  if (rc == 0)
    rc = disk->rename(disk, path, snap);
  if (rc == 0)
    rc = disk->rename(disk, tmp, final);
  if (rc == 0)
    rc = disk->sync_dir(disk, dir);
  if (rc < 0)
    return err_errno(err, -rc, "%s", snap);
  return check(disk, dir, name, true, &there, err) < 0 ? err_context(err, "reading back") : 0;
}

/* ---------------------------------------------------------------- finding */

struct listed {
  char (*names)[NAME_LEN + 1]; /* those with a .meta, or those with only a .snap when `bare` */
  size_t n, cap;
  const char *suffix;
  bool failed;
};

static bool is_name(const char *name, const char *suffix) {
  if (strlen(name) != NAME_LEN + strlen(suffix) || strcmp(name + NAME_LEN, suffix) != 0 || name[16] != '-')
    return false;
  for (size_t i = 0; i < NAME_LEN; i++)
    if (i != 16 && !strchr("0123456789abcdef", name[i]))
      return false;
  return true;
}

static void each_name(void *arg, const char *name) {
  struct listed *l = arg;
  if (l->failed || !is_name(name, l->suffix))
    return;
  if (l->n == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 8;
    char(*grown)[NAME_LEN + 1] = reallocarray(l->names, cap, sizeof *grown);
    if (!grown) {
      l->failed = true;
      return;
    }
    l->names = grown;
    l->cap = cap;
  }
  memcpy(l->names[l->n], name, NAME_LEN);
  l->names[l->n++][NAME_LEN] = '\0';
}

/* By index, the greatest first, then by term. */
static int newest_first(const void *a, const void *b) {
  const char *x = a, *y = b;
  int by_index = strcmp(y + 17, x + 17);
  return by_index ? by_index : strcmp(y, x);
}

static int list(struct disk *disk, const char *dir, const char *suffix, struct listed *l, struct err *err) {
  *l = (struct listed){.suffix = suffix};
  int rc = disk->list(disk, dir, each_name, l);
  if (rc == -ENOENT)
    rc = 0;
  if (rc < 0)
    err_errno(err, -rc, "%s", dir);
  else if (l->failed)
    rc = err_set(err, ERR_MEMORY, "snapshots: out of memory");
  if (rc < 0)
    free(l->names);
  else if (l->n > 0)
    qsort(l->names, l->n, sizeof *l->names, newest_first);
  return rc < 0 ? -1 : 0;
}

int snapshot_newest(struct disk *disk, const char *dir, const uint8_t *cluster_id, bool verify, struct snapshot_meta *meta,
                    char path[SNAPSHOT_PATH_MAX], void (*skipped)(void *arg, const char *file, const char *text), void *arg, struct err *err) {
  struct listed l;
  struct err why = {0};
  if (list(disk, dir, ".meta", &l, err) < 0)
    return -1;
  int rc = 0;
  for (size_t i = 0; i < l.n && rc == 0; i++) {
    if (check(disk, dir, l.names[i], verify, meta, &why) == 0) {
      if (cluster_id && memcmp(cluster_id, meta->cluster_id, SNAPSHOT_CLUSTER_ID) != 0)
        rc = err_set(&why, ERR_INVALID, "%s/%s.meta: this snapshot belongs to another cluster", dir, l.names[i]);
      else
        rc = join(path, dir, l.names[i], ".snap", &why) < 0 ? -1 : 1;
    } else if (why.code != ERR_CORRUPT) {
      rc = -1; /* unreadable or of a newer version: an older one would be a step back that nobody asked for */
    } else if (skipped) {
      skipped(arg, l.names[i], why.msg);
    }
  }
  /* Found is not yet durable: a process may have ended between the renames and the sync of the folder, and the log is about to be judged by this. */
  if (rc == 1 && verify) {
    int synced = disk->sync_dir(disk, dir);
    if (synced < 0)
      rc = err_errno(&why, -synced, "%s", dir);
  }
  if (rc == 0 && l.n > 0)
    rc = err_context(&why, "no whole snapshot among %zu", l.n);
  if (rc < 0 && err)
    *err = why;
  free(l.names);
  return rc;
}

int snapshot_clean(struct disk *disk, const char *dir, size_t keep, struct err *err) {
  static const char *const temporaries[] = {TEMPORARY, "meta.tmp"};
  struct listed metas, snaps;
  char path[SNAPSHOT_PATH_MAX];
  int rc = 0;
  if (list(disk, dir, ".meta", &metas, err) < 0)
    return -1;
  if (list(disk, dir, ".snap", &snaps, err) < 0) {
    free(metas.names);
    return -1;
  }
  for (size_t i = 0; rc == 0 && i < 2; i++) {
    if ((rc = join(path, dir, temporaries[i], "", err)) < 0)
      break;
    int gone = disk->unlink(disk, path);
    if (gone < 0 && gone != -ENOENT)
      rc = err_errno(err, -gone, "%s", path);
  }
  for (size_t i = keep; rc == 0 && i < metas.n; i++) {
    if ((rc = join(path, dir, metas.names[i], ".meta", err)) < 0)
      break;
    int gone = disk->unlink(disk, path);
    if (gone < 0)
      rc = err_errno(err, -gone, "%s", path);
  }
  for (size_t i = 0; rc == 0 && i < snaps.n; i++) {
    bool kept = false;
    for (size_t k = 0; k < metas.n && k < keep; k++)
      kept |= strcmp(metas.names[k], snaps.names[i]) == 0;
    if (kept)
      continue;
    if ((rc = join(path, dir, snaps.names[i], ".snap", err)) < 0)
      break;
    int gone = disk->unlink(disk, path);
    if (gone < 0)
      rc = err_errno(err, -gone, "%s", path);
  }
  if (rc == 0) {
    int synced = disk->sync_dir(disk, dir);
    if (synced < 0 && synced != -ENOENT)
      rc = err_errno(err, -synced, "%s", dir);
  }
  free(metas.names);
  free(snaps.names);
  return rc;
}

int snapshot_verify(struct disk *disk, const char *dir, void (*each)(void *arg, const char *file, uint64_t offset, const char *text), void *arg,
                    size_t *ret_count, struct err *err) {
  struct listed l;
  size_t whole = 0;
  int faults = 0;
  if (!disk)
    disk = disk_posix();
  if (list(disk, dir, ".meta", &l, err) < 0)
    return -1;
  for (size_t i = 0; i < l.n; i++) {
    struct snapshot_meta m;
    struct err why;
    if (check(disk, dir, l.names[i], true, &m, &why) == 0) {
      whole++;
      continue;
    }
    faults++;
    if (each)
      each(arg, l.names[i], 0, why.msg);
  }
  if (ret_count)
    *ret_count = whole;
  free(l.names);
  return faults;
}
