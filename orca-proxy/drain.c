#include "orca-proxy/drain.h"

#include <stdlib.h>
#include <string.h>

struct slot {
  char *key;      /* "INSTANCE ADDRESS PORT"; NULL: free */
  char *instance; /* borrowed from key's memory */
  uint64_t incarnation;
  uint64_t asked;   /* the build that asked for it last */
  uint64_t removed; /* seq of the first table without it; 0: in the table */
  uint64_t busy;    /* a bit for each worker */
  uint32_t next;    /* in its hash chain, + 1 */
};

struct published {
  uint64_t seq, version;
};

struct drain {
  unsigned workers;
  uint64_t switched[DRAIN_WORKERS_MAX];
  struct slot *slots;
  size_t count, size;
  uint32_t *chains;
  size_t chain_mask;
  uint64_t builds, incarnations;
  struct published *history; /* published and not yet acknowledged, oldest first */
  size_t history_len, history_size;
  uint64_t version, seq;
};

struct drain *drain_new(unsigned workers) {
  struct drain *d = calloc(1, sizeof *d);
  if (!d)
    return NULL;
  d->workers = workers < DRAIN_WORKERS_MAX ? workers : DRAIN_WORKERS_MAX;
  d->builds = 1;
  d->chain_mask = 255;
  d->chains = calloc(d->chain_mask + 1, sizeof *d->chains);
  if (!d->chains) {
    free(d);
    return NULL;
  }
  return d;
}

void drain_free(struct drain *d) {
  if (!d)
    return;
  for (size_t i = 0; i < d->count; i++)
    free(d->slots[i].key);
  free(d->slots);
  free(d->chains);
  free(d->history);
  free(d);
}

static size_t hash_of(const char *s) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (; *s; s++)
    h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
  return (size_t)(h ^ h >> 29);
}

static uint32_t *chain_of(struct drain *d, const char *key) {
  return &d->chains[hash_of(key) & d->chain_mask];
}

static void rehash(struct drain *d) {
  size_t mask = d->chain_mask * 2 + 1;
  uint32_t *chains = calloc(mask + 1, sizeof *chains);
  if (!chains) /* longer chains then */
    return;
  free(d->chains);
  d->chains = chains;
  d->chain_mask = mask;
  for (uint32_t i = 0; i < d->count; i++) {
    if (!d->slots[i].key)
      continue;
    uint32_t *chain = chain_of(d, d->slots[i].key);
    d->slots[i].next = *chain;
    *chain = i + 1;
  }
}

static uint32_t free_slot(struct drain *d) {
  for (uint32_t i = 0; i < d->count; i++)
    if (!d->slots[i].key)
      return i;
  if (d->count == d->size) {
    size_t size = d->size ? d->size * 2 : 64;
    struct slot *slots = reallocarray(d->slots, size, sizeof *slots);
    if (!slots)
      return DRAIN_NO_SLOT;
    d->slots = slots;
    d->size = size;
  }
  d->slots[d->count] = (struct slot){0};
  d->count++;
  if (d->count > d->chain_mask)
    rehash(d);
  return (uint32_t)d->count - 1;
}

uint32_t drain_slot(struct drain *d, const char *instance, const char *address, uint32_t port, uint64_t *incarnation) {
  size_t name_len = strlen(instance), len = name_len + strlen(address) + 16;
  char *key = malloc(len + name_len + 1); /* the key, then the name alone */
  if (!key)
    return DRAIN_NO_SLOT;
  memcpy(key, instance, name_len);
  key[name_len] = ' ';
  size_t at = name_len + 1, address_len = strlen(address);
  memcpy(key + at, address, address_len);
  at += address_len;
  key[at++] = ' ';
  for (unsigned shift = 16; shift; shift -= 4)
    key[at++] = "0123456789abcdef"[port >> (shift - 4) & 15];
  key[at++] = 0;
  uint32_t *chain = chain_of(d, key);
  for (uint32_t i = *chain; i; i = d->slots[i - 1].next) {
    struct slot *s = &d->slots[i - 1];
    if (strcmp(s->key, key) == 0) {
      free(key);
      s->asked = d->builds;
      *incarnation = s->incarnation;
      return i - 1;
    }
  }
  uint32_t index = free_slot(d);
  if (index == DRAIN_NO_SLOT) {
    free(key);
    return index;
  }
  struct slot *s = &d->slots[index];
  memcpy(key + at, instance, name_len + 1);
  chain = chain_of(d, key); /* the table of chains may have grown */
  *s = (struct slot){.key = key, .instance = key + at, .incarnation = ++d->incarnations, .asked = d->builds, .next = *chain};
  *chain = index + 1;
  *incarnation = s->incarnation;
  return index;
}

static uint64_t slowest(const struct drain *d) {
  uint64_t least = UINT64_MAX;
  for (unsigned i = 0; i < d->workers; i++)
    if (d->switched[i] < least)
      least = d->switched[i];
  return least;
}

static void let_go(struct drain *d, uint32_t index) {
  struct slot *s = &d->slots[index];
  uint32_t *at = chain_of(d, s->key);
  while (*at != index + 1)
    at = &d->slots[*at - 1].next;
  *at = s->next;
  free(s->key);
  *s = (struct slot){0};
}

static void review(struct drain *d, uint32_t index, uint64_t least) {
  const struct slot *s = &d->slots[index];
  if (s->key && s->removed && !s->busy && s->removed <= least)
    let_go(d, index);
}

void drain_publish(struct drain *d, uint64_t seq, uint64_t version) {
  for (size_t i = 0; i < d->count; i++) {
    struct slot *s = &d->slots[i];
    if (!s->key)
      continue;
    if (s->asked == d->builds) {
      s->removed = 0;
      s->busy = 0;
    } else if (!s->removed) {
      s->removed = seq;
    }
  }
  d->builds++;
  if (d->history_len == d->history_size) {
    size_t size = d->history_size ? d->history_size * 2 : 16;
    struct published *history = reallocarray(d->history, size, sizeof *history);
    if (!history && d->history_len) { /* forget the one before: acknowledging the newer covers it */
      d->history[d->history_len - 1] = (struct published){seq, version};
      return;
    }
    if (!history)
      return;
    d->history = history;
    d->history_size = size;
  }
  d->history[d->history_len++] = (struct published){seq, version};
}

void drain_switched(struct drain *d, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count) {
  if (worker >= d->workers || seq < d->switched[worker])
    return;
  d->switched[worker] = seq;
  uint64_t bit = UINT64_C(1) << worker, least = slowest(d);
  for (size_t i = 0; i < d->count; i++)
    if (d->slots[i].removed && d->slots[i].removed <= seq)
      d->slots[i].busy &= ~bit;
  for (size_t i = 0; i < count; i++)
    if (busy[i] < d->count && d->slots[busy[i]].removed)
      d->slots[busy[i]].busy |= bit;
  for (uint32_t i = 0; i < d->count; i++)
    review(d, i, least);
  size_t done = 0;
  while (done < d->history_len && d->history[done].seq <= least) {
    d->version = d->history[done].version;
    d->seq = d->history[done].seq;
    done++;
  }
  d->history_len -= done;
  if (done)
    memmove(d->history, d->history + done, d->history_len * sizeof *d->history);
}

void drain_idle(struct drain *d, unsigned worker, uint32_t slot) {
  if (worker >= d->workers || slot >= d->count || !d->slots[slot].key)
    return;
  d->slots[slot].busy &= ~(UINT64_C(1) << worker);
  review(d, slot, slowest(d));
}

uint64_t drain_version(const struct drain *d) {
  return d->version;
}

uint64_t drain_seq(const struct drain *d) {
  return d->seq;
}

size_t drain_list(const struct drain *d, const char **ret, size_t max) {
  size_t n = 0;
  for (size_t i = 0; i < d->count; i++)
    if (d->slots[i].key && d->slots[i].removed) {
      if (n < max)
        ret[n] = d->slots[i].instance;
      n++;
    }
  return n;
}
