/* Who watches what, and how far each has been told: the core of watches. Every watcher is told each revision that touches its ranges once, in order,
 * whole.
 *
 * A watcher is live (told at once by watch_publish) or lagging: it had no room, or started in the past. A lagging one is told nothing until
 * watch_catch_up() has led it through history to the present; what it lags behind is in the history of the map, never in memory here.
 * Pure: no I/O, no clock; items leave through `send`. Threads: one. */
#ifndef ORCA_STORE_WATCH_H
#define ORCA_STORE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orca-store/kv.h"

#define WATCH_MAX_RANGES 64u
#define WATCH_MAX_ITEM ((size_t)7 << 20) /* bytes of one item, well below what the bus carries */

struct watch_set;
struct watcher;

/* Sends an item to the watcher's owner: true: taken; false: no room now (then it is tried again by watch_catch_up). The item is borrowed. */
typedef bool watch_send_fn(void *owner, const Store__WatchItem *item);

struct watch_set *watch_set_new(watch_send_fn *send);
void watch_set_free(struct watch_set *set); /* and its watchers */
size_t watch_count(const struct watch_set *set);

/* next: the first revision wanted. live: nothing before `next` is missing in between. NULL when memory ends. */
struct watcher *watch_add(struct watch_set *set, Store__KeyRange *const *ranges, size_t n, bool prev_kv, uint64_t next, bool live, void *owner);
void watch_remove(struct watch_set *set, struct watcher *w); /* also from within send */
bool watch_is_live(const struct watcher *w);
uint64_t watch_next(const struct watcher *w);
void *watch_owner(const struct watcher *w);

/* A new revision, to all live watchers. Those without room begin to lag. -1 when memory ends: those it could not serve lag too. */
int watch_publish(struct watch_set *set, uint64_t revision, const struct kv_event *events, size_t count);
/* A revision of the past, to one lagging watcher (in order from watch_next). false: it had no room. */
bool watch_replay(struct watch_set *set, struct watcher *w, uint64_t revision, const struct kv_event *events, size_t count);
/* It was led through all before `next`; live: and that is the present. */
void watch_caught_up(struct watcher *w, uint64_t next, bool live);
/* "Everything up to revision has been told": to a live watcher. false: no room, it is left out. */
bool watch_progress(struct watch_set *set, struct watcher *w, uint64_t revision);
/* All watchers, in no order; fn may remove the one it is given. */
void watch_each(struct watch_set *set, void (*fn)(void *arg, struct watcher *w), void *arg);

#endif
