/* Coarse timers for many connections: a wheel of 512 slots of 128 ms, lazily kept.
 *
 * A deadline that moves later costs one store: the entry stays where it is and is put back when its slot comes up. So a busy keep-alive
 * connection hardly ever touches the wheel. Timers fire up to 128 ms late, never early.
 * Threads: one owner. Times are monotonic milliseconds. */
#ifndef ORCA_PROXY_WHEEL_H
#define ORCA_PROXY_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#define WHEEL_SLOTS 512
#define WHEEL_SHIFT 7 /* 128 ms */

struct wheel_timer {
  struct wheel_timer *next, *prev;
  int64_t deadline; /* 0: none */
  int64_t tick;     /* where it stands in the wheel; 0: not in it */
};

struct wheel {
  struct wheel_timer slots[WHEEL_SLOTS]; /* heads of rings */
  uint64_t used[WHEEL_SLOTS / 64];
  int64_t tick; /* all before it has been looked at */
};

void wheel_init(struct wheel *w, int64_t now);
void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t deadline);
static inline void wheel_clear(struct wheel_timer *t) {
  t->deadline = 0;
}
void wheel_remove(struct wheel *w, struct wheel_timer *t); /* before its memory goes */

/* One timer that is due, taken out of the wheel; NULL when there is none any more. */
struct wheel_timer *wheel_due(struct wheel *w, int64_t now);
/* How long nothing can be due: for epoll_wait. -1: for ever. */
int wheel_wait(const struct wheel *w, int64_t now);

#endif
