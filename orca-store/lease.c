#include "orca-store/lease.h"

#include <stdlib.h>
#include <string.h>

/* A hash of leases, and a heap of (time, id). A keep-alive only changes the lease's own end: the heap's entry is older then, and is put back
 * when it comes up. So keeping alive costs one look-up, however many leases there are. */

struct lease {
  uint64_t id; /* 0: the place is empty */
  int64_t ttl, end;
  bool ending;
};

struct due {
  int64_t at;
  uint64_t id;
};

struct lease_clock {
  struct lease *table;
  size_t size, count;
  struct due *heap;
  size_t heap_count, heap_size;
};

struct lease_clock *lease_clock_new(void) {
  return calloc(1, sizeof(struct lease_clock));
}

void lease_clock_reset(struct lease_clock *c) {
  if (c->size)
    memset(c->table, 0, c->size * sizeof *c->table);
  c->count = c->heap_count = 0;
}

void lease_clock_free(struct lease_clock *c) {
  if (!c)
    return;
  free(c->table);
  free(c->heap);
  free(c);
}

static size_t home(const struct lease_clock *c, uint64_t id) {
  return (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (c->size - 1);
}

static struct lease *find(const struct lease_clock *c, uint64_t id) {
  if (!c->size)
    return NULL;
  for (size_t i = home(c, id); c->table[i].id; i = (i + 1) & (c->size - 1))
    if (c->table[i].id == id)
      return &c->table[i];
  return NULL;
}

static void place(struct lease_clock *c, const struct lease *l) {
  size_t i = home(c, l->id);
  while (c->table[i].id)
    i = (i + 1) & (c->size - 1);
  c->table[i] = *l;
}

static int grow_table(struct lease_clock *c) {
  if (2 * (c->count + 1) <= c->size)
    return 0;
  size_t old_size = c->size;
  struct lease *old = c->table, *grown = calloc(old_size ? 2 * old_size : 16, sizeof *grown);
  if (!grown)
    return -1;
  c->table = grown;
  c->size = old_size ? 2 * old_size : 16;
  for (size_t i = 0; i < old_size; i++)
    if (old[i].id)
      place(c, &old[i]);
  free(old);
  return 0;
}

static int heap_push(struct lease_clock *c, int64_t at, uint64_t id) {
  if (c->heap_count == c->heap_size) {
    size_t size = c->heap_size ? 2 * c->heap_size : 16;
    struct due *grown = realloc(c->heap, size * sizeof *grown);
    if (!grown)
      return -1;
    c->heap = grown;
    c->heap_size = size;
  }
  size_t i = c->heap_count++;
  for (; i && c->heap[(i - 1) / 2].at > at; i = (i - 1) / 2)
    c->heap[i] = c->heap[(i - 1) / 2];
  c->heap[i] = (struct due){at, id};
  return 0;
}

static void heap_pop(struct lease_clock *c) {
  struct due last = c->heap[--c->heap_count];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= c->heap_count)
      break;
    if (child + 1 < c->heap_count && c->heap[child + 1].at < c->heap[child].at)
      child++;
    if (c->heap[child].at >= last.at)
      break;
    c->heap[i] = c->heap[child];
    i = child;
  }
  if (c->heap_count)
    c->heap[i] = last;
}

int lease_clock_add(struct lease_clock *c, uint64_t id, int64_t ttl, int64_t now) {
  struct lease *l = find(c, id);
  if (!l) {
    struct lease fresh = {.id = id, .ttl = ttl, .end = now + ttl};
    if (grow_table(c) < 0 || heap_push(c, now + ttl, id) < 0)
      return -1;
    place(c, &fresh);
    c->count++;
    return 0;
  }
  l->ttl = ttl;
  l->end = now + ttl;
  l->ending = false;
  return heap_push(c, l->end, id);
}

void lease_clock_remove(struct lease_clock *c, uint64_t id) {
  struct lease *l = find(c, id);
  if (!l)
    return;
  size_t mask = c->size - 1, i = (size_t)(l - c->table);
  for (size_t j = (i + 1) & mask; c->table[j].id; j = (j + 1) & mask) {
    if (((j - home(c, c->table[j].id)) & mask) >= ((j - i) & mask)) {
      c->table[i] = c->table[j];
      i = j;
    }
  }
  c->table[i].id = 0;
  c->count--; /* its entry in the heap finds nobody when it comes up */
}

bool lease_clock_keep_alive(struct lease_clock *c, uint64_t id, int64_t now) {
  struct lease *l = find(c, id);
  if (!l || l->ending)
    return false;
  l->end = now + l->ttl;
  return true;
}

int64_t lease_clock_left(const struct lease_clock *c, uint64_t id, int64_t now, int64_t *ret_ttl) {
  const struct lease *l = find(c, id);
  if (!l)
    return -1;
  if (ret_ttl)
    *ret_ttl = l->ttl;
  return l->ending || l->end < now ? 0 : l->end - now;
}

uint64_t lease_clock_expired(struct lease_clock *c, int64_t now) {
  while (c->heap_count && c->heap[0].at <= now) {
    uint64_t id = c->heap[0].id;
    heap_pop(c);
    struct lease *l = find(c, id);
    if (!l || l->ending)
      continue;
    if (l->end > now) {
      heap_push(c, l->end, id); /* there is room: one was just taken out */
      continue;
    }
    l->ending = true;
    return id;
  }
  return 0;
}

void lease_clock_retry(struct lease_clock *c, uint64_t id, int64_t at) {
  struct lease *l = find(c, id);
  if (!l || !l->ending)
    return;
  l->ending = false;
  l->end = at;
  heap_push(c, at, id);
}

int64_t lease_clock_deadline(const struct lease_clock *c) {
  return c->heap_count ? c->heap[0].at : INT64_MAX;
}

size_t lease_clock_count(const struct lease_clock *c) {
  return c->count;
}
