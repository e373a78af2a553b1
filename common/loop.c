#include "common/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIGNALS 8
#define EVENTS_PER_ROUND 64

struct posted {
  void (*cb)(void *arg);
  void *arg;
};

struct loop {
  int epoll_fd, wake_fd, signal_fd;
  struct loop_clock clock;
  int64_t now;
  bool stop; /* atomic */
  struct loop_timer **heap;
  size_t heap_len, heap_size;
  struct loop_hook *hooks, *hook_cursor;
  struct loop_io wake_io, signal_io;
  struct {
    int signo;
    void (*cb)(void *arg, int signo);
    void *arg;
  } signals[MAX_SIGNALS];
  unsigned signal_count;
  /* Events of this round not yet dispatched: loop_io_remove() wipes those of what it removes. */
  struct epoll_event ready[EVENTS_PER_ROUND];
  int ready_len, ready_at;
  pthread_mutex_t post_lock; /* guards posted, posted_len, posted_size */
  struct posted *posted;
  size_t posted_len, posted_size;
  struct posted *running; /* taken out of posted, being called now */
  size_t running_len;
};

static int64_t clock_ns(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t real_mono(void *arg) {
  (void)arg;
  return clock_ns(CLOCK_MONOTONIC);
}

static int64_t real_wall(void *arg) {
  (void)arg;
  return clock_ns(CLOCK_REALTIME);
}

/* ---- timers: a binary heap by time; `slot` is the index + 1 ---- */

static void heap_put(struct loop *loop, size_t i, struct loop_timer *timer) {
  loop->heap[i] = timer;
  timer->slot = i + 1;
}

static void heap_up(struct loop *loop, size_t i, struct loop_timer *timer) {
  while (i > 0 && loop->heap[(i - 1) / 2]->at > timer->at) {
    heap_put(loop, i, loop->heap[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  heap_put(loop, i, timer);
}

static void heap_down(struct loop *loop, size_t i, struct loop_timer *timer) {
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= loop->heap_len)
      break;
    if (child + 1 < loop->heap_len && loop->heap[child + 1]->at < loop->heap[child]->at)
      child++;
    if (loop->heap[child]->at >= timer->at)
      break;
    heap_put(loop, i, loop->heap[child]);
    i = child;
  }
  heap_put(loop, i, timer);
}

static void heap_fix(struct loop *loop, size_t i, struct loop_timer *timer) {
  if (i > 0 && loop->heap[(i - 1) / 2]->at > timer->at)
    heap_up(loop, i, timer);
  else
    heap_down(loop, i, timer);
}

int loop_timer_at(struct loop *loop, struct loop_timer *timer, int64_t at, struct err *err) {
  timer->at = at;
  if (timer->slot) {
    heap_fix(loop, timer->slot - 1, timer);
    return 0;
  }
  if (loop->heap_len == loop->heap_size) {
    size_t size = loop->heap_size ? loop->heap_size * 2 : 32;
    struct loop_timer **heap = reallocarray(loop->heap, size, sizeof(struct loop_timer *));
    if (!heap)
      return err_set(err, ERR_MEMORY, "no memory for a timer");
    loop->heap = heap;
    loop->heap_size = size;
  }
  heap_up(loop, loop->heap_len++, timer);
  return 0;
}

int loop_timer_in(struct loop *loop, struct loop_timer *timer, int64_t delay, struct err *err) {
  int64_t at;
  if (__builtin_add_overflow(loop->now, delay, &at))
    at = INT64_MAX;
  return loop_timer_at(loop, timer, at, err);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer) {
  if (!timer->slot)
    return;
  size_t i = timer->slot - 1;
  timer->slot = 0;
  struct loop_timer *last = loop->heap[--loop->heap_len];
  if (last != timer)
    heap_fix(loop, i, last);
}

static void run_timers(struct loop *loop) {
  /* A timer set for "now" from a callback waits for the next round, so that a round always ends. */
  int64_t until = loop->now;
  size_t budget = loop->heap_len;
  while (loop->heap_len && loop->heap[0]->at <= until && budget--) {
    struct loop_timer *timer = loop->heap[0];
    loop_timer_cancel(loop, timer);
    timer->cb(timer->arg);
  }
}

/* ---- file descriptors ---- */

int loop_io_add(struct loop *loop, struct loop_io *io, int fd, uint32_t events, struct err *err) {
  struct epoll_event ev = {.events = events, .data.ptr = io};
  if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
    return err_errno(err, errno, "epoll: add descriptor %d", fd);
  io->fd = fd;
  io->events = events;
  io->active = true;
  return 0;
}

int loop_io_change(struct loop *loop, struct loop_io *io, uint32_t events, struct err *err) {
  if (io->events == events)
    return 0;
  struct epoll_event ev = {.events = events, .data.ptr = io};
  if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev) < 0)
    return err_errno(err, errno, "epoll: change descriptor %d", io->fd);
  io->events = events;
  return 0;
}

void loop_io_remove(struct loop *loop, struct loop_io *io) {
  if (!io->active)
    return;
  io->active = false;
  epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
  for (int i = loop->ready_at; i < loop->ready_len; i++)
    if (loop->ready[i].data.ptr == io)
      loop->ready[i].data.ptr = NULL;
}

/* ---- hooks ---- */

void loop_hook_add(struct loop *loop, struct loop_hook *hook) {
  hook->prev = NULL;
  hook->next = loop->hooks;
  if (hook->next)
    hook->next->prev = hook;
  loop->hooks = hook;
}

void loop_hook_remove(struct loop *loop, struct loop_hook *hook) {
  if (loop->hook_cursor == hook)
    loop->hook_cursor = hook->next;
  if (hook->prev)
    hook->prev->next = hook->next;
  else if (loop->hooks == hook)
    loop->hooks = hook->next;
  if (hook->next)
    hook->next->prev = hook->prev;
  hook->next = hook->prev = NULL;
}

static bool run_hooks(struct loop *loop) {
  bool more = false;
  for (struct loop_hook *hook = loop->hooks; hook; hook = loop->hook_cursor) {
    loop->hook_cursor = hook->next;
    more |= hook->cb(hook->arg);
  }
  loop->hook_cursor = NULL;
  return more;
}

/* ---- wake-ups and signals ---- */

static void wake(struct loop *loop) {
  uint64_t one = 1;
  ssize_t n = write(loop->wake_fd, &one, sizeof one);
  (void)n; /* EAGAIN: it is already awake */
}

int loop_post(struct loop *loop, void (*cb)(void *arg), void *arg) {
  pthread_mutex_lock(&loop->post_lock);
  int rc = 0;
  if (loop->posted_len == loop->posted_size) {
    size_t size = loop->posted_size ? loop->posted_size * 2 : 32;
    struct posted *posted = reallocarray(loop->posted, size, sizeof *posted);
    if (posted) {
      loop->posted = posted;
      loop->posted_size = size;
    } else {
      rc = -1;
    }
  }
  if (rc == 0)
    loop->posted[loop->posted_len++] = (struct posted){cb, arg};
  pthread_mutex_unlock(&loop->post_lock);
  if (rc == 0)
    wake(loop);
  return rc;
}

static void run_posted(void *arg, uint32_t events) {
  (void)events;
  struct loop *loop = arg;
  uint64_t count;
  ssize_t n = read(loop->wake_fd, &count, sizeof count);
  (void)n;
  pthread_mutex_lock(&loop->post_lock);
  struct posted *posted = loop->posted;
  size_t len = loop->posted_len;
  loop->posted = NULL;
  loop->posted_len = loop->posted_size = 0;
  pthread_mutex_unlock(&loop->post_lock);
  loop->running = posted;
  loop->running_len = len;
  for (size_t i = 0; i < len; i++)
    if (posted[i].cb)
      posted[i].cb(posted[i].arg);
  loop->running = NULL;
  loop->running_len = 0;
  free(posted);
}

void loop_post_cancel(struct loop *loop, void (*cb)(void *arg), void *arg) {
  for (size_t i = 0; i < loop->running_len; i++)
    if (loop->running[i].cb == cb && loop->running[i].arg == arg)
      loop->running[i].cb = NULL;
  pthread_mutex_lock(&loop->post_lock);
  size_t kept = 0;
  for (size_t i = 0; i < loop->posted_len; i++)
    if (loop->posted[i].cb != cb || loop->posted[i].arg != arg)
      loop->posted[kept++] = loop->posted[i];
  loop->posted_len = kept;
  pthread_mutex_unlock(&loop->post_lock);
}

static void run_signals(void *arg, uint32_t events) {
  (void)events;
  struct loop *loop = arg;
  struct signalfd_siginfo info;
  while (read(loop->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
    for (unsigned i = 0; i < loop->signal_count; i++)
      if (loop->signals[i].signo == (int)info.ssi_signo)
        loop->signals[i].cb(loop->signals[i].arg, (int)info.ssi_signo);
}

int loop_signal(struct loop *loop, int signo, void (*cb)(void *arg, int signo), void *arg, struct err *err) {
  if (loop->signal_count == MAX_SIGNALS)
    return err_set(err, ERR_INTERNAL, "more than %d signals", MAX_SIGNALS);
  sigset_t all, one;
  sigemptyset(&all);
  sigemptyset(&one);
  sigaddset(&one, signo);
  sigaddset(&all, signo);
  for (unsigned i = 0; i < loop->signal_count; i++)
    sigaddset(&all, loop->signals[i].signo);
  int rc = pthread_sigmask(SIG_BLOCK, &one, NULL);
  if (rc)
    return err_errno(err, rc, "block signal %d", signo);
  int fd = signalfd(loop->signal_fd, &all, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0)
    return err_errno(err, errno, "signalfd");
  loop->signals[loop->signal_count].signo = signo;
  loop->signals[loop->signal_count].cb = cb;
  loop->signals[loop->signal_count++].arg = arg;
  if (loop->signal_fd >= 0)
    return 0;
  loop->signal_fd = fd;
  loop->signal_io = (struct loop_io){.cb = run_signals, .arg = loop};
  return loop_io_add(loop, &loop->signal_io, fd, EPOLLIN, err);
}

/* ---- the loop ---- */

struct loop *loop_new(const struct loop_clock *clock, struct err *err) {
  struct loop *loop = calloc(1, sizeof *loop);
  if (!loop) {
    err_set(err, ERR_MEMORY, "no memory for an event loop");
    return NULL;
  }
  loop->clock = clock ? *clock : (struct loop_clock){real_mono, real_wall, NULL, NULL};
  loop->signal_fd = -1;
  pthread_mutex_init(&loop->post_lock, NULL);
  loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (loop->epoll_fd < 0 || loop->wake_fd < 0) {
    err_errno(err, errno, "event loop");
    loop_free(loop);
    return NULL;
  }
  loop->wake_io = (struct loop_io){.cb = run_posted, .arg = loop};
  if (loop_io_add(loop, &loop->wake_io, loop->wake_fd, EPOLLIN, err) < 0) {
    loop_free(loop);
    return NULL;
  }
  loop->now = loop->clock.mono(loop->clock.arg);
  return loop;
}

void loop_free(struct loop *loop) {
  if (!loop)
    return;
  if (loop->signal_fd >= 0)
    close(loop->signal_fd);
  if (loop->wake_fd >= 0)
    close(loop->wake_fd);
  if (loop->epoll_fd >= 0)
    close(loop->epoll_fd);
  pthread_mutex_destroy(&loop->post_lock);
  free(loop->posted);
  free(loop->heap);
  free(loop);
}

void loop_stop(struct loop *loop) {
  __atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
  wake(loop);
}

int64_t loop_now(const struct loop *loop) {
  return loop->now;
}

int64_t loop_wall(const struct loop *loop) {
  return loop->clock.wall(loop->clock.arg);
}

static int64_t time_to_wait(struct loop *loop, int64_t max_wait) {
  int64_t wait = max_wait < 0 ? INT64_MAX : max_wait;
  if (loop->heap_len) {
    int64_t now = loop->clock.mono(loop->clock.arg);
    int64_t left = loop->heap[0]->at > now ? loop->heap[0]->at - now : 0;
    if (left < wait)
      wait = left;
  }
  return wait;
}

static int wait_for_events(struct loop *loop, int64_t wait) {
  if (wait > 0 && loop->clock.sleep) {
    int n = epoll_wait(loop->epoll_fd, loop->ready, EVENTS_PER_ROUND, 0);
    if (n != 0)
      return n;
    loop->clock.sleep(loop->clock.arg, loop->heap_len ? loop->heap[0]->at : INT64_MAX);
    wait = 0;
  }
  if (wait == INT64_MAX)
    return epoll_wait(loop->epoll_fd, loop->ready, EVENTS_PER_ROUND, -1);
  struct timespec ts = {.tv_sec = wait / NS_PER_SEC, .tv_nsec = wait % NS_PER_SEC};
  return epoll_pwait2(loop->epoll_fd, loop->ready, EVENTS_PER_ROUND, &ts, NULL);
}

int loop_once(struct loop *loop, int64_t max_wait, struct err *err) {
  bool more = run_hooks(loop);
  int n = wait_for_events(loop, more ? 0 : time_to_wait(loop, max_wait));
  loop->now = loop->clock.mono(loop->clock.arg);
  if (n < 0 && errno != EINTR)
    return err_errno(err, errno, "epoll_wait");
  loop->ready_len = n > 0 ? n : 0;
  for (loop->ready_at = 0; loop->ready_at < loop->ready_len;) {
    struct epoll_event ev = loop->ready[loop->ready_at++];
    struct loop_io *io = ev.data.ptr;
    if (io)
      io->cb(io->arg, ev.events);
  }
  loop->ready_len = loop->ready_at = 0;
  run_timers(loop);
  return 0;
}

int loop_run(struct loop *loop, struct err *err) {
  while (!__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE))
    if (loop_once(loop, -1, err) < 0)
      return -1;
  return 0;
}
