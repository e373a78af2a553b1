#include "orca-store/kv.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "orca-store/kv_int.h"

#define MAP_SIZE ((size_t)16 << 30)
#define RESERVE_STEP ((uint64_t)1 << 20)
#define PAGES_PER_ENTRY 16 /* copied or made by one small change: a path of pages in each of the tables it touches */
#define TRIM_PER_BATCH 2048
#define STATE_NUMBERS 12

static const char *const table_names[] = {
#define X(id, name) [id] = name,
    KV_TABLES(X)
#undef X
};

const char *kv_table_name(enum kv_table table) {
  return table_names[table];
}

int kv_mdb_error(int rc, struct err *err, const char *doing) {
  switch (rc) {
  case MDB_MAP_FULL:
    return err_set(err, ERR_NO_SPACE, "%s: the store's map is full", doing);
  case MDB_VERSION_MISMATCH:
  case MDB_INVALID:
  case MDB_CORRUPTED:
  case MDB_PAGE_NOTFOUND:
  case MDB_PANIC:
  case MDB_INCOMPATIBLE:
    return err_set(err, ERR_CORRUPT, "%s: %s", doing, mdb_strerror(rc));
  default:
    if (rc > 0)
      return err_errno(err, rc, "%s", doing);
    return err_set(err, ERR_INTERNAL, "%s: %s", doing, mdb_strerror(rc));
  }
}

/* ---------------------------------------------------------------- the one record of state */

static void state_numbers(struct kv *kv, const struct kv_state *s, uint64_t n[STATE_NUMBERS]) {
  uint64_t all[STATE_NUMBERS] = {s->applied_index, s->applied_term,  s->revision, s->compact_revision, s->keys,           s->leases,
                                 s->history_first, s->history_bytes, s->time_ms,  kv->next_txn_first,  kv->next_txn_next, kv->next_txn_bytes};
  memcpy(n, all, sizeof all);
}

/* crc, format, numbers */
static int write_state(struct kv *kv, struct err *err) {
  uint64_t n[STATE_NUMBERS];
  state_numbers(kv, &kv->next, n);
  uint8_t data[8 + sizeof n];
  uint32_t format = htole32(KV_FORMAT);
  memcpy(data + 4, &format, 4);
  for (size_t i = 0; i < STATE_NUMBERS; i++) {
    uint64_t v = htole64(n[i]);
    memcpy(data + 8 + 8 * i, &v, 8);
  }
  uint32_t crc = htole32(crypto_crc32c(0, data + 4, sizeof data - 4));
  memcpy(data, &crc, 4);
  MDB_val k = {5, (void *)(uintptr_t) "state"}, v = {sizeof data, data};
  int rc = mdb_put(kv->batch, kv->dbi[KV_META], &k, &v, 0);
  return rc ? kv_mdb_error(rc, err, "writing the state") : 0;
}

/* 1: read; 0: a new map; -1. */
static int read_state(struct kv *kv, MDB_txn *txn, struct err *err) {
  MDB_val k = {5, (void *)(uintptr_t) "state"}, v;
  int rc = mdb_get(txn, kv->dbi[KV_META], &k, &v);
  if (rc == MDB_NOTFOUND)
    return 0;
  if (rc)
    return kv_mdb_error(rc, err, "reading the state");
  const uint8_t *p = v.mv_data;
  uint32_t crc, format;
  if (v.mv_size < 8)
    return kv_corrupt(err, KV_META, &k);
  memcpy(&crc, p, 4);
  memcpy(&format, p + 4, 4);
  if (le32toh(crc) != crypto_crc32c(0, p + 4, v.mv_size - 4))
    return kv_corrupt(err, KV_META, &k);
  if (le32toh(format) > KV_FORMAT)
    return err_set(err, ERR_UNSUPPORTED, "%s has format %u of a newer orca-store; this one knows up to %u", kv->dir, le32toh(format), KV_FORMAT);
  if (v.mv_size != 8 + 8 * STATE_NUMBERS)
    return kv_corrupt(err, KV_META, &k);
  uint64_t n[STATE_NUMBERS];
  memcpy(n, p + 8, sizeof n);
  for (size_t i = 0; i < STATE_NUMBERS; i++)
    n[i] = le64toh(n[i]);
  kv->state = (struct kv_state){.applied_index = n[0],
                                .applied_term = n[1],
                                .revision = n[2],
                                .compact_revision = n[3],
                                .keys = n[4],
                                .leases = n[5],
                                .history_first = n[6],
                                .history_bytes = n[7],
                                .time_ms = n[8]};
  kv->txn_first = n[9];
  kv->txn_next = n[10];
  kv->txn_bytes = n[11];
  return 1;
}

/* ---------------------------------------------------------------- opening */

static int make_dir(const char *dir, struct err *err) {
  if (mkdir(dir, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "%s", dir);
  return 0;
}

/* A map that is written through needs blocks under it before it is touched: where the file system cannot promise them, pages are written with
 * pwrite instead, whose failure is an error value. */
static bool can_reserve(const char *dir) {
  char path[4096];
  int n = snprintf(path, sizeof path, "%s/reserve-test", dir);
  if (n < 0 || (size_t)n >= sizeof path)
    return false;
  int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return false;
  int rc = fallocate(fd, 0, 0, 4096);
  bool can = rc == 0 || errno == ENOSPC;
  close(fd);
  unlink(path);
  return can;
}

static int open_env(struct kv *kv, struct err *err) {
  int rc = mdb_env_create(&kv->env);
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  if ((rc = mdb_env_set_mapsize(kv->env, kv->map_size)) || (rc = mdb_env_set_maxdbs(kv->env, KV_TABLE_COUNT)) ||
      (rc = mdb_env_set_maxreaders(kv->env, 8)))
    return kv_mdb_error(rc, err, kv->dir);
  kv->write_map = can_reserve(kv->dir);
  rc = mdb_env_open(kv->env, kv->dir, MDB_NOSYNC | MDB_NOTLS | (kv->write_map ? MDB_WRITEMAP : 0), 0600);
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  MDB_stat st;
  mdb_env_stat(kv->env, &st);
  kv->page_size = st.ms_psize;
  return 0;
}

static int open_tables(struct kv *kv, struct err *err) {
  /* The first page writes of a new map need their blocks too. */
  if (kv_reserve(kv, 64 * kv->page_size, err) < 0)
    return -1;
  int rc = mdb_txn_begin(kv->env, NULL, 0, &kv->batch);
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  for (int i = 0; i < KV_TABLE_COUNT; i++)
    if ((rc = mdb_dbi_open(kv->batch, table_names[i], MDB_CREATE, &kv->dbi[i]))) {
      kv_abort(kv);
      return kv_mdb_error(rc, err, kv->dir);
    }
  int found = read_state(kv, kv->batch, err);
  if (found == 0) {
    kv->next = kv->state = (struct kv_state){.revision = 1, .history_first = 1};
    found = write_state(kv, err);
  }
  if (found < 0) {
    kv_abort(kv);
    return -1;
  }
  rc = mdb_txn_commit(kv->batch);
  kv->batch = NULL;
  kv->batch_need = 0;
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &kv->reader);
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  mdb_txn_reset(kv->reader);
  return kv_seen_load(kv, err);
}

struct kv *kv_open(const char *dir, const struct kv_options *options, struct err *err) {
  struct kv *kv = calloc(1, sizeof *kv);
  if (!kv || !(kv->dir = strdup(dir))) {
    free(kv);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  kv->map_size = options && options->map_size ? options->map_size : MAP_SIZE;
  kv->slack = options && options->slack ? options->slack : kv->map_size / 64;
  kv->record = BUF_INIT(SIZE_MAX / 4);
  kv->event = BUF_INIT(SIZE_MAX / 4);
  if (make_dir(dir, err) < 0 || open_env(kv, err) < 0 || open_tables(kv, err) < 0) {
    kv_close(kv);
    return NULL;
  }
  return kv;
}

static struct kv *open_read(const char *path, unsigned flags, struct err *err) {
  struct kv *kv = calloc(1, sizeof *kv);
  if (!kv || !(kv->dir = strdup(path))) {
    free(kv);
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  int rc = mdb_env_create(&kv->env);
  /* A reader takes the map's size from the file: ours may be larger than what it was made with. */
  if (!rc && !(rc = mdb_env_set_maxdbs(kv->env, KV_TABLE_COUNT)) && !(rc = mdb_env_open(kv->env, path, MDB_RDONLY | MDB_NOTLS | flags, 0600)))
    rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &kv->reader);
  for (int i = 0; !rc && i < KV_TABLE_COUNT; i++)
    if ((rc = mdb_dbi_open(kv->reader, table_names[i], 0, &kv->dbi[i])) == MDB_NOTFOUND)
      rc = MDB_CORRUPTED;
  int found = rc ? kv_mdb_error(rc, err, path) : read_state(kv, kv->reader, err);
  if (found == 0)
    err_set(err, ERR_CORRUPT, "%s has no state", path);
  if (found != 1) {
    kv_close(kv);
    return NULL;
  }
  /* Tables opened in a reader's transaction are the environment's once it commits. */
  rc = mdb_txn_commit(kv->reader);
  kv->reader = NULL;
  if (rc || (rc = mdb_txn_begin(kv->env, NULL, MDB_RDONLY, &kv->reader))) {
    kv_mdb_error(rc, err, path);
    kv_close(kv);
    return NULL;
  }
  mdb_txn_reset(kv->reader);
  return kv;
}

struct kv *kv_open_read(const char *dir, struct err *err) {
  return open_read(dir, 0, err);
}

int kv_copy_state(const char *file, struct kv_state *ret, struct err *err) {
  struct kv *kv = open_read(file, MDB_NOSUBDIR | MDB_NOLOCK, err);
  if (!kv)
    return -1;
  *ret = kv->state;
  kv_close(kv);
  return 0;
}

void kv_close(struct kv *kv) {
  if (!kv)
    return;
  if (kv->batch)
    mdb_txn_abort(kv->batch);
  if (kv->reader)
    mdb_txn_abort(kv->reader);
  if (kv->env)
    mdb_env_close(kv->env);
  buf_free(&kv->record);
  buf_free(&kv->event);
  free(kv->seen);
  free(kv->dir);
  free(kv);
}

int kv_discard(const char *dir, struct err *err) {
  static const char *const names[] = {"data.mdb", "lock.mdb"};
  for (size_t i = 0; i < 2; i++) {
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    if (n < 0 || (size_t)n >= sizeof path)
      return err_set(err, ERR_INVALID, "path too long: %s", dir);
    if (unlink(path) < 0 && errno != ENOENT)
      return err_errno(err, errno, "%s", path);
  }
  return 0;
}

int kv_sync(struct kv *kv, struct err *err) {
  int rc = mdb_env_sync(kv->env, 1);
  return rc ? kv_mdb_error(rc, err, "syncing the map") : 0;
}

const struct kv_state *kv_state(const struct kv *kv) {
  return &kv->state;
}

/* ---------------------------------------------------------------- space */

static uint64_t end_of_map(const struct kv *kv) {
  MDB_envinfo info;
  mdb_env_info(kv->env, &info);
  return ((uint64_t)info.me_last_pgno + 1) * kv->page_size;
}

int kv_reserve(struct kv *kv, uint64_t bytes, struct err *err) {
  kv->batch_need += bytes;
  uint64_t want = end_of_map(kv) + kv->batch_need;
  if (!kv->write_map || want <= kv->reserved)
    return 0;
  want = (want + RESERVE_STEP - 1) / RESERVE_STEP * RESERVE_STEP;
  if (want > kv->map_size)
    want = kv->map_size; /* then LMDB itself says that the map is full */
  if (want <= kv->reserved)
    return 0;
  int fd;
  int rc = mdb_env_get_fd(kv->env, &fd);
  if (rc)
    return kv_mdb_error(rc, err, kv->dir);
  while ((rc = fallocate(fd, 0, (off_t)kv->reserved, (off_t)(want - kv->reserved))) < 0 && errno == EINTR)
    ;
  if (rc < 0) {
    kv->batch_need -= bytes;
    return err_errno(err, errno, "%s", kv->dir);
  }
  kv->reserved = want;
  return 0;
}

static uint64_t free_pages(struct kv *kv) {
  struct err ignored;
  MDB_txn *txn = kv_read(kv, &ignored);
  MDB_cursor *c;
  uint64_t pages = 0;
  if (!txn)
    return 0;
  /* Table 0 is LMDB's own list of free pages: each record is a count and the pages. */
  if (mdb_cursor_open(txn, 0, &c) == 0) {
    MDB_val k, v;
    while (mdb_cursor_get(c, &k, &v, MDB_NEXT) == 0) {
      size_t n;
      memcpy(&n, v.mv_data, sizeof n);
      pages += n;
    }
    mdb_cursor_close(c);
  }
  kv_read_end(kv);
  return pages;
}

void kv_sizes(const struct kv *kv, uint64_t *size, uint64_t *used) {
  *size = end_of_map(kv);
  *used = *size - free_pages((struct kv *)(uintptr_t)kv) * kv->page_size;
}

int kv_room(struct kv *kv, size_t bytes, size_t changes, struct err *err) {
  /* At least what kv_begin() and kv_apply() will want to reserve for it. */
  uint64_t end = end_of_map(kv), need = 8 * (uint64_t)bytes + (192 + changes * 2 * PAGES_PER_ENTRY) * kv->page_size;
  uint64_t allowed = kv->map_size - kv->slack;
  if (end + need > allowed && end - free_pages(kv) * kv->page_size + need > allowed)
    return err_set(err, ERR_NO_SPACE, "the store holds %zu MiB, all that it may: delete something", (size_t)(allowed >> 20));
  uint64_t before = kv->batch_need;
  int rc = kv_reserve(kv, need, err);
  kv->batch_need = before;
  return rc;
}

/* ---------------------------------------------------------------- batches */

int kv_begin(struct kv *kv, size_t bytes, size_t entries, struct err *err) {
  kv->batch_need = 0;
  uint64_t pages = 64 + entries * PAGES_PER_ENTRY + (kv_trim_pending(kv) ? TRIM_PER_BATCH / 4 : 0);
  if (kv_reserve(kv, 3 * (uint64_t)bytes + pages * kv->page_size, err) < 0)
    return -1;
  int rc = mdb_txn_begin(kv->env, NULL, 0, &kv->batch);
  if (rc)
    return kv_mdb_error(rc, err, "beginning a batch");
  kv->next = kv->state;
  kv->next_txn_first = kv->txn_first;
  kv->next_txn_next = kv->txn_next;
  kv->next_txn_bytes = kv->txn_bytes;
  return 0;
}

int kv_commit(struct kv *kv, struct err *err) {
  if (kv_trim(kv, TRIM_PER_BATCH, err) < 0 || write_state(kv, err) < 0) {
    kv_abort(kv);
    return -1;
  }
  int rc = mdb_txn_commit(kv->batch);
  kv->batch = NULL;
  kv->batch_need = 0;
  if (rc) {
    struct err ignored;
    kv_seen_load(kv, &ignored);
    return kv_mdb_error(rc, err, "committing a batch");
  }
  kv->state = kv->next;
  kv->txn_first = kv->next_txn_first;
  kv->txn_next = kv->next_txn_next;
  kv->txn_bytes = kv->next_txn_bytes;
  return 0;
}

void kv_abort(struct kv *kv) {
  if (!kv->batch)
    return;
  mdb_txn_abort(kv->batch);
  kv->batch = NULL;
  kv->batch_need = 0;
  /* Ids that the batch had added or dropped: the table has the truth. A failure here shows again at the next batch, which looks up the same records.
   */
  struct err ignored;
  if (kv->reader)
    kv_seen_load(kv, &ignored);
}

int kv_put(struct kv *kv, enum kv_table table, const void *key, size_t key_len, const void *data, size_t len, unsigned flags, struct err *err) {
  MDB_val k = {key_len, (void *)(uintptr_t)key}, v = {len, (void *)(uintptr_t)data};
  int rc = mdb_put(kv->batch, kv->dbi[table], &k, &v, flags);
  return rc ? kv_mdb_error(rc, err, "writing") : 0;
}

int kv_del(struct kv *kv, enum kv_table table, const void *key, size_t key_len, struct err *err) {
  MDB_val k = {key_len, (void *)(uintptr_t)key};
  int rc = mdb_del(kv->batch, kv->dbi[table], &k, NULL);
  if (rc == MDB_NOTFOUND)
    return err_set(err, ERR_CORRUPT, "a record that must be in table %s is not", kv_table_name(table));
  return rc ? kv_mdb_error(rc, err, "deleting") : 0;
}

bool kv_trim_pending(const struct kv *kv) {
  return kv->state.history_first < kv->state.compact_revision;
}

int kv_trim(struct kv *kv, size_t most, struct err *err) {
  if (kv->next.history_first >= kv->next.compact_revision)
    return 0;
  MDB_cursor *c;
  int rc = mdb_cursor_open(kv->batch, kv->dbi[KV_HISTORY], &c);
  if (rc)
    return kv_mdb_error(rc, err, "trimming history");
  MDB_val k, v;
  for (size_t n = 0; n < most; n++) {
    rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
    if (rc == MDB_NOTFOUND || (rc == 0 && k.mv_size == 12 && kv_get_be64(k.mv_data) >= kv->next.compact_revision)) {
      kv->next.history_first = kv->next.compact_revision;
      rc = 0;
      break;
    }
    if (rc)
      break;
    if (k.mv_size == 12)
      kv->next.history_first = kv_get_be64(k.mv_data);
    kv->next.history_bytes -= kv->next.history_bytes < v.mv_size ? kv->next.history_bytes : v.mv_size;
    if ((rc = mdb_cursor_del(c, 0)))
      break;
  }
  mdb_cursor_close(c);
  return rc ? kv_mdb_error(rc, err, "trimming history") : 0;
}

/* ---------------------------------------------------------------- copies */

int kv_copy(struct kv *kv, const char *file, struct err *err) {
  int fd = open(file, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_errno(err, errno, "%s", file);
  int rc = mdb_env_copyfd2(kv->env, fd, MDB_CP_COMPACT);
  if (rc == MDB_INCOMPATIBLE) {
    /* LMDB 0.9 cannot compact a map that has leaked pages; a plain copy is as good, only larger. */
    if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
      rc = errno;
    else
      rc = mdb_env_copyfd2(kv->env, fd, 0);
  }
  if (close(fd) < 0 && !rc)
    rc = errno;
  return rc ? kv_mdb_error(rc, err, file) : 0;
}
