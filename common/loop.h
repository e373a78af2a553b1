/* The event loop: file descriptors, timers, signals and wake-ups from other threads, on epoll.
 *
 * Times are int64_t nanoseconds: `loop_now` is monotonic and the same for a whole round (refreshed after each
 * wait), `loop_wall` is Unix time. Tests give the loop a clock of their own (`struct loop_clock`); then waits for
 * timers don't sleep: the loop asks the clock to advance.
 *
 * Callbacks may add, change and remove any watch or timer, also their own. Structs are the caller's memory and must
 * stay in place while they are registered; nothing here allocates per event.
 * Threads: everything is the loop thread's, but loop_post() and loop_stop(). */
#ifndef ORCA_COMMON_LOOP_H
#define ORCA_COMMON_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_SEC INT64_C(1000000000)

struct loop;

struct loop_clock {
  int64_t (*mono)(void *arg);
  int64_t (*wall)(void *arg);
  /* Called instead of sleeping until `until` (INT64_MAX: no timer is set). NULL: really sleep. */
  void (*sleep)(void *arg, int64_t until);
  void *arg;
};

/* clock: NULL for the machine's; else borrowed for the loop's life. */
struct loop *loop_new(const struct loop_clock *clock, struct err *err);
void loop_free(struct loop *loop);

/* Runs until loop_stop(). -1 only when epoll itself fails. */
int loop_run(struct loop *loop, struct err *err);
/* One round: waits at most max_wait ns (0: don't, -1: as long as it takes), then runs what is due. */
int loop_once(struct loop *loop, int64_t max_wait, struct err *err);
void loop_stop(struct loop *loop);

int64_t loop_now(const struct loop *loop);
int64_t loop_wall(const struct loop *loop);

/* File descriptors. events: EPOLLIN | EPOLLOUT, level-triggered. The descriptor is the caller's: remove it here before closing it. */
struct loop_io {
  void (*cb)(void *arg, uint32_t events);
  void *arg;
  int fd;
  uint32_t events;
  bool active;
};
int loop_io_add(struct loop *loop, struct loop_io *io, int fd, uint32_t events, struct err *err);
int loop_io_change(struct loop *loop, struct loop_io *io, uint32_t events, struct err *err);
void loop_io_remove(struct loop *loop, struct loop_io *io);

/* One-shot timers in a heap: set again from the callback to repeat. Setting a set timer moves it. */
struct loop_timer {
  void (*cb)(void *arg);
  void *arg;
  int64_t at;
  size_t slot; /* place in the heap + 1; 0 when not set */
};
int loop_timer_at(struct loop *loop, struct loop_timer *timer, int64_t at, struct err *err);
int loop_timer_in(struct loop *loop, struct loop_timer *timer, int64_t delay, struct err *err);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);
static inline bool loop_timer_is_set(const struct loop_timer *timer) {
  return timer->slot != 0;
}

/* Hooks that run before every wait, for edge-triggered sources like ZeroMQ's descriptor, and for work put off to the end of a
 * round (one sync, one transaction for all that arrived). A hook returns true when there may be more to do: then the loop polls instead of waiting.
 */
struct loop_hook {
  bool (*cb)(void *arg);
  void *arg;
  struct loop_hook *next, *prev;
};
void loop_hook_add(struct loop *loop, struct loop_hook *hook);
void loop_hook_remove(struct loop *loop, struct loop_hook *hook);

/* Runs cb on the loop's thread, soon. Any thread. Takes a copy of the two pointers. -1 when memory ends. */
int loop_post(struct loop *loop, void (*cb)(void *arg), void *arg);
/* Forgets every post of this pair that has not run yet: before arg is freed, once whoever posts has ended. The loop's thread. */
void loop_post_cancel(struct loop *loop, void (*cb)(void *arg), void *arg);

/* Signals, by signalfd: blocks signo in the calling thread (do it before threads start). cb(arg, signo). At most 8. */
int loop_signal(struct loop *loop, int signo, void (*cb)(void *arg, int signo), void *arg, struct err *err);

#endif
