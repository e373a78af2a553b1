#include "tests/lib/simdisk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512
#define FILES 512
#define HANDLES 512
#define PATH 200

struct inode {
  uint8_t *now, *synced; /* synced: bytes as they lie on the platter; same capacity */
  int64_t len, synced_len, cap;
  uint8_t *dirty; /* per sector */
  int links;      /* names (now or on the platter) that lead here, and handles */
  bool locked;
};
struct name {
  char path[PATH];
  struct inode *inode; /* NULL: free */
};
struct simdisk {
  struct disk disk;
  uint64_t random, calls, fail_at, stop_at;
  enum simdisk_fault fault;
  bool failed, full;
  struct name now[FILES], synced[FILES];
  struct {
    struct inode *inode;
    bool writes, has_lock;
  } handles[HANDLES];
};

static uint64_t draw(struct simdisk *s) {
  uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static struct simdisk *of(struct disk *d) {
  return d->arg;
}

static void drop(struct inode *i) {
  if (i && --i->links == 0) {
    free(i->now);
    free(i->synced);
    free(i->dirty);
    free(i);
  }
}

static void grow(struct inode *i, int64_t len) {
  if (len <= i->cap)
    return;
  int64_t cap = (len * 2 + SECTOR - 1) / SECTOR * SECTOR;
  i->now = realloc(i->now, (size_t)cap);
  i->synced = realloc(i->synced, (size_t)cap);
  i->dirty = realloc(i->dirty, (size_t)(cap / SECTOR));
  if (!i->now || !i->synced || !i->dirty)
    abort();
  memset(i->now + i->cap, 0, (size_t)(cap - i->cap));
  memset(i->synced + i->cap, 0, (size_t)(cap - i->cap));
  memset(i->dirty + i->cap / SECTOR, 0, (size_t)((cap - i->cap) / SECTOR));
  i->cap = cap;
}

static struct name *find(struct name *names, const char *path) {
  for (size_t i = 0; i < FILES; i++)
    if (names[i].inode && strcmp(names[i].path, path) == 0)
      return &names[i];
  return NULL;
}

static void put_name(struct name *names, const char *path, struct inode *inode) {
  struct name *n = find(names, path);
  inode->links++;
  if (n) {
    drop(n->inode);
    n->inode = inode;
    return;
  }
  for (size_t i = 0; i < FILES; i++) {
    if (names[i].inode)
      continue;
    names[i].inode = inode;
    strncpy(names[i].path, path, PATH - 1);
    return;
  }
  abort();
}

/* Counts a changing call. 0: go on. */
static int changing(struct simdisk *s, bool *part, int *rc) {
  s->calls++;
  *part = false;
  *rc = 0;
  if (s->stop_at && s->calls >= s->stop_at) {
    s->failed = true;
    return *rc = -EIO;
  }
  if (s->fail_at && s->calls == s->fail_at) {
    s->failed = true;
    *part = s->fault != SIMDISK_EIO;
    return *rc = s->fault == SIMDISK_ENOSPC ? -ENOSPC : -EIO;
  }
  return 0;
}

static int sim_open(struct disk *d, const char *path, enum disk_open how) {
  struct simdisk *s = of(d);
  struct name *n = find(s->now, path);
  bool part;
  int rc;
  if (!n && (how == DISK_READ || how == DISK_WRITE))
    return -ENOENT;
  if ((!n || how == DISK_CREATE_NEW) && changing(s, &part, &rc))
    return rc;
  if (!n) {
    struct inode *i = calloc(1, sizeof *i);
    if (!i)
      abort();
    put_name(s->now, path, i);
    n = find(s->now, path);
  } else if (how == DISK_CREATE_NEW) { /* simplified: a fresh file under that name */
    struct inode *i = calloc(1, sizeof *i);
    if (!i)
      abort();
    put_name(s->now, path, i);
  }
  for (int fd = 0; fd < HANDLES; fd++) {
    if (s->handles[fd].inode)
      continue;
    s->handles[fd].inode = n->inode;
    s->handles[fd].writes = how != DISK_READ;
    s->handles[fd].has_lock = false;
    n->inode->links++;
    return fd;
  }
  return -EMFILE;
}

static void sim_close(struct disk *d, int fd) {
  struct simdisk *s = of(d);
  struct inode *i = s->handles[fd].inode;
  if (!i)
    return;
  if (s->handles[fd].has_lock)
    i->locked = false;
  s->handles[fd].inode = NULL;
  drop(i);
}

static ssize_t sim_pread(struct disk *d, int fd, void *data, size_t len, int64_t offset) {
  struct inode *i = of(d)->handles[fd].inode;
  if (!i)
    return -EBADF;
  if (offset >= i->len)
    return 0;
  if ((int64_t)len > i->len - offset)
    len = (size_t)(i->len - offset);
  memcpy(data, i->now + offset, len);
  return (ssize_t)len;
}

static void apply(struct inode *i, const void *data, size_t len, int64_t offset) {
  if (len == 0)
    return;
  grow(i, offset + (int64_t)len);
  memcpy(i->now + offset, data, len);
  for (int64_t k = offset / SECTOR; k <= (offset + (int64_t)len - 1) / SECTOR; k++)
    i->dirty[k] = 1;
  if (offset + (int64_t)len > i->len)
    i->len = offset + (int64_t)len;
}

static ssize_t sim_pwrite(struct disk *d, int fd, const void *data, size_t len, int64_t offset) {
  struct simdisk *s = of(d);
  struct inode *i = s->handles[fd].inode;
  bool part;
  int rc;
  if (!i || !s->handles[fd].writes)
    return -EBADF;
  if (changing(s, &part, &rc)) {
    if (part)
      apply(i, data, (size_t)(draw(s) % len), offset);
    return rc;
  }
  if (s->full && offset + (int64_t)len > i->len)
    return -ENOSPC;
  apply(i, data, len, offset);
  return (ssize_t)len;
}

static int sim_fdatasync(struct disk *d, int fd) {
  struct simdisk *s = of(d);
  struct inode *i = s->handles[fd].inode;
  bool part;
  int rc;
  if (!i)
    return -EBADF;
  if (changing(s, &part, &rc))
    return -EIO;
  if (i->cap > 0) {
    for (int64_t k = 0; k * SECTOR < i->cap; k++)
      if (i->dirty[k])
        memcpy(i->synced + k * SECTOR, i->now + k * SECTOR, SECTOR);
    memset(i->dirty, 0, (size_t)(i->cap / SECTOR));
  }
  i->synced_len = i->len;
  return 0;
}

static int sim_allocate(struct disk *d, int fd, int64_t len) {
  struct simdisk *s = of(d);
  struct inode *i = s->handles[fd].inode;
  bool part;
  int rc;
  if (!i)
    return -EBADF;
  if (changing(s, &part, &rc))
    return rc;
  if (s->full && len > i->len)
    return -ENOSPC;
  grow(i, len);
  if (len > i->len)
    i->len = len;
  return 0;
}

static int sim_truncate(struct disk *d, int fd, int64_t len) {
  struct simdisk *s = of(d);
  struct inode *i = s->handles[fd].inode;
  bool part;
  int rc;
  if (changing(s, &part, &rc))
    return rc;
  grow(i, len);
  if (len < i->len) {
    memset(i->now + len, 0, (size_t)(i->len - len));
    for (int64_t k = len / SECTOR; k * SECTOR < i->len; k++)
      i->dirty[k] = 1;
  }
  i->len = len;
  return 0;
}

static int sim_size(struct disk *d, int fd, int64_t *ret) {
  *ret = of(d)->handles[fd].inode->len;
  return 0;
}

static int sim_rename(struct disk *d, const char *from, const char *to) {
  struct simdisk *s = of(d);
  struct name *n = find(s->now, from);
  bool part;
  int rc;
  if (!n)
    return -ENOENT;
  if (changing(s, &part, &rc))
    return rc;
  put_name(s->now, to, n->inode);
  drop(n->inode);
  n->inode = NULL;
  return 0;
}

static int sim_unlink(struct disk *d, const char *path) {
  struct simdisk *s = of(d);
  struct name *n = find(s->now, path);
  bool part;
  int rc;
  if (!n)
    return -ENOENT;
  if (changing(s, &part, &rc))
    return rc;
  drop(n->inode);
  n->inode = NULL;
  return 0;
}

static int sim_make_dir(struct disk *d, const char *path) {
  (void)d;
  (void)path;
  return 0;
}

static bool in_dir(const char *path, const char *dir) {
  size_t n = strlen(dir);
  return strncmp(path, dir, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

static int sim_sync_dir(struct disk *d, const char *path) {
  struct simdisk *s = of(d);
  bool part;
  int rc;
  if (changing(s, &part, &rc))
    return -EIO;
  for (size_t i = 0; i < FILES; i++) {
    if (s->synced[i].inode && in_dir(s->synced[i].path, path)) {
      drop(s->synced[i].inode);
      s->synced[i].inode = NULL;
    }
  }
  for (size_t i = 0; i < FILES; i++)
    if (s->now[i].inode && in_dir(s->now[i].path, path))
      put_name(s->synced, s->now[i].path, s->now[i].inode);
  return 0;
}

static int sim_list(struct disk *d, const char *path, void (*each)(void *arg, const char *name), void *arg) {
  struct simdisk *s = of(d);
  for (size_t i = 0; i < FILES; i++)
    if (s->now[i].inode && in_dir(s->now[i].path, path))
      each(arg, s->now[i].path + strlen(path) + 1);
  return 0;
}

static int sim_lock(struct disk *d, int fd) {
  struct simdisk *s = of(d);
  if (s->handles[fd].inode->locked)
    return -EWOULDBLOCK;
  s->handles[fd].inode->locked = s->handles[fd].has_lock = true;
  return 0;
}

struct simdisk *simdisk_new(uint64_t seed) {
  struct simdisk *s = calloc(1, sizeof *s);
  if (!s)
    abort();
  s->random = seed;
  s->disk = (struct disk){.open = sim_open,
                          .close = sim_close,
                          .pread = sim_pread,
                          .pwrite = sim_pwrite,
                          .fdatasync = sim_fdatasync,
                          .allocate = sim_allocate,
                          .truncate = sim_truncate,
                          .size = sim_size,
                          .rename = sim_rename,
                          .unlink = sim_unlink,
                          .make_dir = sim_make_dir,
                          .sync_dir = sim_sync_dir,
                          .list = sim_list,
                          .lock = sim_lock,
                          .arg = s};
  return s;
}

void simdisk_free(struct simdisk *s) {
  if (!s)
    return;
  simdisk_kill(s);
  for (size_t i = 0; i < FILES; i++) {
    drop(s->now[i].inode);
    drop(s->synced[i].inode);
  }
  free(s);
}

struct disk *simdisk_disk(struct simdisk *s) {
  return &s->disk;
}

void simdisk_kill(struct simdisk *s) {
  for (int fd = 0; fd < HANDLES; fd++)
    sim_close(&s->disk, fd);
  s->fail_at = s->stop_at = 0;
}

/* Each unsynced sector is on the platter or is not, in any combination; or, as often, all of it, or none. */
static void cut_inode(struct simdisk *s, struct inode *i) {
  uint64_t mode = draw(s) % 4;
  for (int64_t k = 0; k * SECTOR < i->cap; k++) {
    if (!i->dirty[k])
      continue;
    bool kept = mode == 0 ? false : mode == 1 ? true : draw(s) % 2;
    if (kept)
      memcpy(i->synced + k * SECTOR, i->now + k * SECTOR, SECTOR);
    else
      memcpy(i->now + k * SECTOR, i->synced + k * SECTOR, SECTOR);
    i->dirty[k] = 0;
  }
  if (mode == 0 || draw(s) % 2)
    i->len = i->synced_len;
  if (i->len < i->cap) { /* nothing is behind the end */
    memset(i->now + i->len, 0, (size_t)(i->cap - i->len));
    memset(i->synced + i->len, 0, (size_t)(i->cap - i->len));
  }
  i->synced_len = i->len;
}

void simdisk_power_cut(struct simdisk *s) {
  simdisk_kill(s);
  bool names_lost = draw(s) % 2;
  for (size_t k = 0; k < FILES; k++) {
    struct name *keep = names_lost ? s->synced : s->now;
    struct name *other = names_lost ? s->now : s->synced;
    (void)keep;
    if (other[k].inode) {
      drop(other[k].inode);
      other[k].inode = NULL;
    }
  }
  for (size_t k = 0; k < FILES; k++) {
    struct name *n = names_lost ? &s->synced[k] : &s->now[k];
    if (n->inode)
      put_name(names_lost ? s->now : s->synced, n->path, n->inode);
  }
  for (size_t k = 0; k < FILES; k++)
    if (s->now[k].inode)
      cut_inode(s, s->now[k].inode);
}

void simdisk_fail_at(struct simdisk *s, uint64_t n, enum simdisk_fault fault) {
  s->fail_at = n ? s->calls + n : 0;
  s->fault = fault;
  s->failed = false;
}

void simdisk_stop_at(struct simdisk *s, uint64_t n) {
  s->stop_at = n ? s->calls + n : 0;
  s->failed = false;
}

bool simdisk_has_failed(const struct simdisk *s) {
  return s->failed;
}
uint64_t simdisk_calls(const struct simdisk *s) {
  return s->calls;
}
void simdisk_set_full(struct simdisk *s, bool full) {
  s->full = full;
}

uint8_t *simdisk_bytes(struct simdisk *s, const char *path, int64_t *ret_len) {
  struct name *n = find(s->now, path);
  if (!n)
    return NULL;
  if (ret_len)
    *ret_len = n->inode->len;
  return n->inode->now;
}

int simdisk_set(struct simdisk *s, const char *path, const void *data, int64_t len) {
  int fd = sim_open(&s->disk, path, DISK_CREATE_NEW);
  if (fd < 0)
    return fd;
  int rc = len > 0 ? disk_write_at(&s->disk, fd, data, (size_t)len, 0) : 0;
  if (rc == 0)
    rc = sim_fdatasync(&s->disk, fd);
  sim_close(&s->disk, fd);
  struct name *n = find(s->now, path);
  if (n)
    put_name(s->synced, path, n->inode);
  return rc;
}
