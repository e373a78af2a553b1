#include "orca-store/watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

/* Many watchers watch few different ranges. So a range is a node of its own with a list of those who watch it, ranges lie in one array sorted by
 * their start, and a change looks at the ranges that start at or before its key. */

struct interest { /* one watcher's share in one range */
  struct watcher *watcher;
  struct range *range;
  struct interest *next, *prev;
};

struct range {
  uint8_t *start, *end;
  struct kv_bounds bounds;
  struct interest *first;
};

struct watcher {
  struct watch_set *set;
  void *owner;
  uint64_t next_revision;
  bool live, prev_kv;
  struct interest *interests;
  size_t n_interests;
  struct watcher *next, *prev;
  /* While a revision is being told. */
  bool hit;
  size_t *events;
  size_t n_events, size_events;
};

struct watch_set {
  watch_send_fn *send;
  struct range **ranges; /* by start, then end */
  size_t n_ranges, size_ranges;
  struct watcher *first;
  size_t count;
  struct watcher **hit; /* those the revision being told concerns; NULL: removed meanwhile */
  size_t n_hit, size_hit;
  struct watcher *each_next;
  /* Scratch for one item. */
  Store__WatchEvent *pb_events, **pb_list;
  Store__KeyValue *pb_now, *pb_prev;
  size_t size_pb;
};

struct watch_set *watch_set_new(watch_send_fn *send) {
  struct watch_set *set = calloc(1, sizeof *set);
  if (set)
    set->send = send;
  return set;
}

size_t watch_count(const struct watch_set *set) {
  return set->count;
}

/* ---------------------------------------------------------------- ranges */

static int compare_bounds(const struct kv_bounds *a, const struct kv_bounds *b) {
  int c = kv_compare_keys(a->start.data, a->start.len, b->start.data, b->start.len);
  if (c)
    return c;
  return kv_compare_keys(a->end.data, a->end.len, b->end.data, b->end.len);
}

static size_t range_slot(const struct watch_set *set, const struct kv_bounds *b, bool *found) {
  size_t lo = 0, hi = set->n_ranges;
  *found = false;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    int c = compare_bounds(&set->ranges[mid]->bounds, b);
    if (c == 0) {
      *found = true;
      return mid;
    }
    if (c < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static void free_range(struct range *r) {
  free(r->start);
  free(r->end);
  free(r);
}

static struct range *get_range(struct watch_set *set, const struct kv_bounds *b) {
  bool found;
  size_t at = range_slot(set, b, &found);
  if (found)
    return set->ranges[at];
  if (set->n_ranges == set->size_ranges) {
    size_t size = set->size_ranges ? 2 * set->size_ranges : 16;
    struct range **grown = realloc(set->ranges, size * sizeof(struct range *));
    if (!grown)
      return NULL;
    set->ranges = grown;
    set->size_ranges = size;
  }
  struct range *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  r->start = malloc(b->start.len + 1);
  r->end = malloc(b->end.len + 1);
  if (!r->start || !r->end) {
    free_range(r);
    return NULL;
  }
  memcpy(r->start, b->start.data, b->start.len);
  if (b->end.len)
    memcpy(r->end, b->end.data, b->end.len);
  r->bounds = *b;
  r->bounds.start.data = r->start;
  r->bounds.end.data = r->end;
  memmove(set->ranges + at + 1, set->ranges + at, (set->n_ranges - at) * sizeof(struct range *));
  set->ranges[at] = r;
  set->n_ranges++;
  return r;
}

static void drop_range(struct watch_set *set, struct range *r) {
  bool found;
  size_t at = range_slot(set, &r->bounds, &found);
  if (!found)
    return;
  set->n_ranges--;
  memmove(set->ranges + at, set->ranges + at + 1, (set->n_ranges - at) * sizeof(struct range *));
  free_range(r);
}

/* ---------------------------------------------------------------- watchers */

struct watcher *watch_add(struct watch_set *set, Store__KeyRange *const *ranges, size_t n, bool prev_kv, uint64_t next, bool live, void *owner) {
  struct watcher *w = calloc(1, sizeof *w);
  if (!w)
    return NULL;
  *w = (struct watcher){.set = set, .owner = owner, .next_revision = next, .live = live, .prev_kv = prev_kv};
  w->next = set->first;
  if (w->next)
    w->next->prev = w;
  set->first = w;
  set->count++;
  w->interests = calloc(n ? n : 1, sizeof *w->interests);
  for (size_t i = 0; w->interests && i < n; i++) {
    struct kv_bounds b = kv_bounds(&ranges[i]->key, &ranges[i]->range_end);
    struct range *r = get_range(set, &b);
    if (!r)
      break;
    struct interest *in = &w->interests[w->n_interests++];
    *in = (struct interest){.watcher = w, .range = r, .next = r->first};
    if (in->next)
      in->next->prev = in;
    r->first = in;
  }
  if (!w->interests || w->n_interests < n) {
    watch_remove(set, w);
    return NULL;
  }
  return w;
}

void watch_remove(struct watch_set *set, struct watcher *w) {
  if (!w)
    return;
  for (size_t i = 0; i < set->n_hit; i++)
    if (set->hit[i] == w)
      set->hit[i] = NULL;
  if (set->each_next == w)
    set->each_next = w->next;
  for (size_t i = 0; i < w->n_interests; i++) {
    struct interest *in = &w->interests[i];
    if (in->prev)
      in->prev->next = in->next;
    else
      in->range->first = in->next;
    if (in->next)
      in->next->prev = in->prev;
    if (!in->range->first)
      drop_range(set, in->range);
  }
  if (w->prev)
    w->prev->next = w->next;
  else
    set->first = w->next;
  if (w->next)
    w->next->prev = w->prev;
  set->count--;
  free(w->interests);
  free(w->events);
  free(w);
}

void watch_set_free(struct watch_set *set) {
  if (!set)
    return;
  while (set->first)
    watch_remove(set, set->first);
  free(set->ranges);
  free(set->hit);
  free(set->pb_events);
  free(set->pb_list);
  free(set->pb_now);
  free(set->pb_prev);
  free(set);
}

bool watch_is_live(const struct watcher *w) {
  return w->live;
}

uint64_t watch_next(const struct watcher *w) {
  return w->next_revision;
}

void *watch_owner(const struct watcher *w) {
  return w->owner;
}

void watch_caught_up(struct watcher *w, uint64_t next, bool live) {
  if (next > w->next_revision)
    w->next_revision = next;
  w->live = live;
}

void watch_each(struct watch_set *set, void (*fn)(void *arg, struct watcher *w), void *arg) {
  for (struct watcher *w = set->first; w; w = set->each_next) {
    set->each_next = w->next;
    fn(arg, w);
  }
  set->each_next = NULL;
}

/* ---------------------------------------------------------------- items */

static int room_for(struct watch_set *set, size_t n) {
  if (n <= set->size_pb)
    return 0;
  Store__WatchEvent *events = realloc(set->pb_events, n * sizeof *events);
  if (events)
    set->pb_events = events;
  Store__WatchEvent **list = realloc(set->pb_list, n * sizeof(Store__WatchEvent *));
  if (list)
    set->pb_list = list;
  Store__KeyValue *now = realloc(set->pb_now, n * sizeof *now), *prev = realloc(set->pb_prev, n * sizeof *prev);
  if (now)
    set->pb_now = now;
  if (prev)
    set->pb_prev = prev;
  if (!events || !list || !now || !prev)
    return -1;
  set->size_pb = n;
  return 0;
}

static void fill(Store__KeyValue *to, const struct kv_slice *key, const struct kv_record *r, bool deleted) {
  store__key_value__init(to);
  to->has_key = 1;
  to->key = (ProtobufCBinaryData){key->len, (uint8_t *)(uintptr_t)key->data};
  PB_SET(to, mod_revision, r->mod_revision);
  if (deleted)
    return;
  to->has_value = 1;
  to->value = (ProtobufCBinaryData){r->value.len, (uint8_t *)(uintptr_t)r->value.data};
  PB_SET(to, create_revision, r->create_revision);
  PB_SET(to, version, r->version);
  if (r->lease)
    PB_SET(to, lease, r->lease);
}

/* which: indexes into events; NULL: all n. */
static bool send_item(struct watch_set *set, struct watcher *w, uint64_t revision, const struct kv_event *events, const size_t *which, size_t n) {
  if (room_for(set, n) < 0)
    return false;
  /* Values of the past are a courtesy: where they would not fit into one message beside the new ones they are left out. */
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) {
    const struct kv_event *e = &events[which ? which[i] : i];
    bytes += 2 * e->key.len + e->now.value.len + e->prev.value.len + 128;
  }
  bool prev = w->prev_kv && bytes < WATCH_MAX_ITEM;
  for (size_t i = 0; i < n; i++) {
    const struct kv_event *e = &events[which ? which[i] : i];
    Store__WatchEvent *p = &set->pb_events[i];
    store__watch_event__init(p);
    PB_SET(p, type, e->deleted ? STORE__EVENT_TYPE__DELETE : STORE__EVENT_TYPE__PUT);
    fill(&set->pb_now[i], &e->key, &e->now, e->deleted);
    p->kv = &set->pb_now[i];
    if (prev && e->has_prev) {
      fill(&set->pb_prev[i], &e->key, &e->prev, false);
      p->prev = &set->pb_prev[i];
    }
    set->pb_list[i] = p;
  }
  Store__WatchItem item = STORE__WATCH_ITEM__INIT;
  PB_SET(&item, revision, revision);
  item.n_events = n;
  item.events = set->pb_list;
  return set->send(w->owner, &item);
}

static int hit(struct watch_set *set, struct watcher *w, size_t event) {
  if (!w->hit) {
    if (set->n_hit == set->size_hit) {
      size_t size = set->size_hit ? 2 * set->size_hit : 16;
      struct watcher **grown = realloc(set->hit, size * sizeof(struct watcher *));
      if (!grown)
        return -1;
      set->hit = grown;
      set->size_hit = size;
    }
    set->hit[set->n_hit++] = w;
    w->hit = true;
    w->n_events = 0;
  } else if (w->n_events && w->events[w->n_events - 1] == event) {
    return 0; /* two of its ranges overlap here */
  }
  if (w->n_events == w->size_events) {
    size_t size = w->size_events ? 2 * w->size_events : 4;
    size_t *grown = realloc(w->events, size * sizeof *grown);
    if (!grown)
      return -1;
    w->events = grown;
    w->size_events = size;
  }
  w->events[w->n_events++] = event;
  return 0;
}

int watch_publish(struct watch_set *set, uint64_t revision, const struct kv_event *events, size_t count) {
  int rc = 0;
  set->n_hit = 0;
  for (size_t i = 0; i < count; i++) {
    for (size_t r = 0; r < set->n_ranges; r++) {
      const struct kv_bounds *b = &set->ranges[r]->bounds;
      if (kv_compare_keys(b->start.data, b->start.len, events[i].key.data, events[i].key.len) > 0)
        break;
      if (!kv_in_bounds(b, events[i].key.data, events[i].key.len))
        continue;
      for (struct interest *in = set->ranges[r]->first; in; in = in->next) {
        struct watcher *w = in->watcher;
        if (w->live && revision >= w->next_revision && hit(set, w, i) < 0) {
          w->live = false; /* what it misses here it finds in history */
          rc = -1;
        }
      }
    }
  }
  for (size_t i = 0; i < set->n_hit; i++) {
    struct watcher *w = set->hit[i];
    if (!w)
      continue;
    w->hit = false;
    if (!w->live) {
      if (w->next_revision < revision)
        w->next_revision = revision;
      continue;
    }
    bool sent = send_item(set, w, revision, events, w->events, w->n_events);
    w = set->hit[i]; /* the owner may have gone meanwhile */
    if (!w)
      continue;
    if (sent) {
      w->next_revision = revision + 1;
    } else {
      w->live = false;
      w->next_revision = revision;
    }
  }
  set->n_hit = 0;
  return rc;
}

bool watch_replay(struct watch_set *set, struct watcher *w, uint64_t revision, const struct kv_event *events, size_t count) {
  if (revision < w->next_revision)
    return true;
  w->n_events = 0;
  for (size_t i = 0; i < count; i++)
    for (size_t r = 0; r < w->n_interests; r++)
      if (kv_in_bounds(&w->interests[r].range->bounds, events[i].key.data, events[i].key.len)) {
        if (w->n_events == w->size_events) {
          size_t size = w->size_events ? 2 * w->size_events : 4;
          size_t *grown = realloc(w->events, size * sizeof *grown);
          if (!grown)
            return false;
          w->events = grown;
          w->size_events = size;
        }
        w->events[w->n_events++] = i;
        break;
      }
  if (w->n_events && !send_item(set, w, revision, events, w->events, w->n_events))
    return false;
  w->next_revision = revision + 1;
  return true;
}

bool watch_progress(struct watch_set *set, struct watcher *w, uint64_t revision) {
  Store__WatchItem item = STORE__WATCH_ITEM__INIT;
  PB_SET(&item, revision, revision);
  PB_SET(&item, progress, true);
  if (!set->send(w->owner, &item))
    return false;
  if (revision >= w->next_revision)
    w->next_revision = revision + 1;
  return true;
}
