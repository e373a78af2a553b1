#include "orca-proxy/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "orca-proxy/conn.h"

#define EVENTS 256
#define ACCEPTS 64      /* in one turn */
#define BLOCKS_MAX 4096 /* of one worker: what slow peers can make it hold */
#define FREE_BLOCKS_MAX 256
#define FREE_PIPES_MAX 64
#define FREE_EXCHANGES_MAX 1024
#define ACCEPT_PAUSE_MS 100

/* ---- pools ---- */

struct block *block_get(struct worker *w) {
  struct block *b = w->free_blocks;
  if (b) {
    w->free_blocks = b->next;
    w->free_block_count--;
    return b;
  }
  if (w->block_count < BLOCKS_MAX && (b = malloc(sizeof *b))) {
    w->block_count++;
    return b;
  }
  if (w->heads.idle_next == &w->heads)
    return NULL;
  client_close(w, w->heads.idle_next); /* whose head has been on its way for longest makes room: it holds a block */
  return block_get(w);
}

void block_put(struct worker *w, struct block *b) {
  if (w->free_block_count >= FREE_BLOCKS_MAX) {
    w->block_count--;
    free(b);
    return;
  }
  b->next = w->free_blocks;
  w->free_blocks = b;
  w->free_block_count++;
}

struct pipe_pair *pipe_get(struct worker *w) {
  struct pipe_pair *p = w->free_pipes;
  if (p) {
    w->free_pipes = p->next;
    w->free_pipe_count--;
    return p;
  }
  if (!(p = calloc(1, sizeof *p)))
    return NULL;
  if (pipe2(p->fd, O_NONBLOCK | O_CLOEXEC) < 0) {
    free(p);
    return NULL; /* the caller copies instead */
  }
  (void)fcntl(p->fd[1], F_SETPIPE_SZ, (int)PIPE_SIZE); /* past the user's limit the default size serves */
  return p;
}

void pipe_put(struct worker *w, struct pipe_pair *p, bool empty) {
  if (empty && w->free_pipe_count < FREE_PIPES_MAX) {
    p->next = w->free_pipes;
    w->free_pipes = p;
    w->free_pipe_count++;
    return;
  }
  close(p->fd[0]);
  close(p->fd[1]);
  free(p);
}

/* ---- sockets: the one place that knows how bytes are carried, plain or by TLS ---- */

int sock_register(struct worker *w, struct sock *s) {
  struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
  return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev);
}

void sock_close(struct worker *w, struct sock *s) {
  if (s->closed)
    return;
  s->closed = true;
  wheel_remove(&w->wheel, &s->timer);
  tls_stream_free(s->tls);
  s->tls = NULL;
  /* Closed, it leaves epoll, unless somebody else has it too: after a fork, for a moment, the process that hands over, whose epoll is the same. */
  if (atomic_load_explicit(&w->shared->draining, memory_order_relaxed))
    (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
  close(s->fd);
  s->next = w->graveyard;
  w->graveyard = s;
}

/* A short count means that the buffer of the kernel is empty, or that the end is next, which `hung_up` tells. */
static ssize_t got(struct sock *s, ssize_t n, bool all) {
  if (n > 0) {
    if (!all && !s->hung_up)
      s->readable = false;
    return n;
  }
  s->readable = false;
  if (n == 0) {
    s->hung_up = true;
    return 0;
  }
  if (errno != EAGAIN && errno != EINTR)
    s->failed = true;
  else if (errno == EINTR)
    s->readable = true;
  return -1;
}

/* libc's own wrappers are cancellation points: in a process with threads each costs two atomic operations, some 15 % of what a request takes here.
 * syscall() is none; the meaning of the arguments and of errno is the same. */
static ssize_t plain_recv(int fd, void *data, size_t len) {
  return syscall(SYS_recvfrom, fd, data, len, 0, NULL, NULL);
}

static ssize_t plain_send(int fd, const void *data, size_t len, int flags) {
  return syscall(SYS_sendto, fd, data, len, flags, NULL, 0);
}

/* TLS has bytes of its own in between: only EAGAIN says that nothing is left. */
static ssize_t secret_read(struct sock *s, void *data, size_t len) {
  ssize_t n = tls_read(s->tls, data, len);
  if (n > 0)
    return n;
  s->readable = false;
  if (n == 0)
    s->hung_up = true;
  else if (errno != EAGAIN)
    s->failed = true;
  return n;
}

ssize_t sock_read(struct sock *s, void *data, size_t len) {
  if (__builtin_expect(s->tls != NULL, 0))
    return secret_read(s, data, len);
  ssize_t n = plain_recv(s->fd, data, len);
  return got(s, n, n == (ssize_t)len);
}

static ssize_t put(struct sock *s, ssize_t n, bool all) {
  if (n >= 0) {
    if (!all)
      s->writable = false;
    return n;
  }
  if (errno == EAGAIN) {
    s->writable = false;
    return 0;
  }
  if (errno == EINTR)
    return 0;
  s->failed = true;
  return -1;
}

/* One piece after the other: small ones have been gathered by the caller. What is taken in part is offered again from the same place. */
static ssize_t secret_write(struct sock *s, const struct iovec *iov, int count) {
  ssize_t total = 0;
  for (int i = 0; i < count; i++)
    for (size_t at = 0; at < iov[i].iov_len;) {
      ssize_t n = tls_write(s->tls, (const uint8_t *)iov[i].iov_base + at, iov[i].iov_len - at);
      if (n > 0) {
        at += (size_t)n;
        total += n;
        continue;
      }
      s->writable = false;
      if (errno == EAGAIN)
        return total;
      s->failed = true;
      return -1;
    }
  return total;
}

void sock_end(struct sock *s) {
  if (s->tls)
    tls_end(s->tls);
  shutdown(s->fd, SHUT_WR);
}

ssize_t sock_write(struct sock *s, const struct iovec *iov, int count, bool more) {
  if (__builtin_expect(s->tls != NULL, 0))
    return secret_write(s, iov, count);
  int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
  if (count == 1) {
    ssize_t n = plain_send(s->fd, iov->iov_base, iov->iov_len, flags);
    return put(s, n, n == (ssize_t)iov->iov_len);
  }
  size_t total = 0;
  for (int i = 0; i < count; i++)
    total += iov[i].iov_len;
  struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
  ssize_t n = syscall(SYS_sendmsg, s->fd, &msg, flags);
  return put(s, n, n == (ssize_t)total);
}

ssize_t sock_splice_in(struct sock *s, int pipe, size_t len) {
  return got(s, splice(s->fd, NULL, pipe, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK), true);
}

ssize_t sock_splice_out(struct sock *s, int pipe, size_t len, bool more) {
  ssize_t n = splice(pipe, NULL, s->fd, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (more ? SPLICE_F_MORE : 0));
  return put(s, n, n > 0);
}

/* ---- counters, endpoints, tables ---- */

struct service_counters *counters_of(struct worker *w, uint32_t service) {
  if (service >= WORKER_SERVICES_MAX)
    service = WORKER_SERVICES_MAX - 1;
  struct counters_page *page = atomic_load_explicit(&w->counters[service / 64], memory_order_relaxed);
  if (!page) {
    if (!(page = calloc(1, sizeof *page)))
      return NULL;
    atomic_store_explicit(&w->counters[service / 64], page, memory_order_release);
  }
  return &page->of[service % 64];
}

const struct service_counters *worker_counters(const struct worker *w, uint32_t service) {
  if (service >= WORKER_SERVICES_MAX)
    return NULL;
  const struct counters_page *page = atomic_load_explicit(&w->counters[service / 64], memory_order_acquire);
  return page ? &page->of[service % 64] : NULL;
}

uint64_t worker_connections(const struct worker *w) {
  return atomic_load_explicit(&w->clients, memory_order_relaxed);
}

uint64_t worker_accepted(const struct worker *w) {
  return atomic_load_explicit(&w->accepted, memory_order_relaxed);
}

static void forget_endpoint(struct worker *w, struct endpoint *e) {
  upstream_close_idle(w, e);
  w->endpoints[e->slot] = NULL;
  free(e->instance);
  free(e);
}

static bool grow_endpoints(struct worker *w, uint32_t slot) {
  if (slot < w->endpoint_count)
    return true;
  size_t count = w->endpoint_count ? w->endpoint_count : 64;
  while (count <= slot)
    count *= 2;
  struct endpoint **list = reallocarray(w->endpoints, count, sizeof(struct endpoint *));
  if (!list)
    return false;
  memset(list + w->endpoint_count, 0, (count - w->endpoint_count) * sizeof(struct endpoint *));
  w->endpoints = list;
  w->endpoint_count = count;
  return true;
}

static struct endpoint *make_endpoint(struct worker *w, const struct table_endpoint *te) {
  struct endpoint *e = calloc(1, sizeof *e);
  char *instance = strdup(te->instance);
  if (!e || !instance || !grow_endpoints(w, te->slot)) {
    free(e);
    free(instance);
    return NULL;
  }
  e->slot = te->slot;
  e->incarnation = te->incarnation;
  e->addr = te->addr;
  e->instance = instance;
  e->in_table = true;
  w->endpoints[e->slot] = e;
  return e;
}

struct endpoint *endpoint_of(struct worker *w, const struct table_endpoint *te) {
  struct endpoint *e = te->slot < w->endpoint_count ? w->endpoints[te->slot] : NULL;
  return e ? e : make_endpoint(w, te);
}

void endpoint_release(struct worker *w, struct endpoint *e) {
  if (--e->balance.outstanding || e->in_table)
    return;
  uint32_t slot = e->slot;
  forget_endpoint(w, e);
  w->shared->events.idle(w->shared->events.arg, w->index, slot);
}

static void switch_table(struct worker *w, const struct table *t) {
  w->table = t;
  for (size_t i = 0; i < w->endpoint_count; i++)
    if (w->endpoints[i])
      w->endpoints[i]->in_table = false;
  for (size_t i = 0; i < t->endpoint_count; i++) {
    const struct table_endpoint *te = &t->endpoints[i];
    struct endpoint *e = te->slot < w->endpoint_count ? w->endpoints[te->slot] : NULL;
    if (e && e->incarnation != te->incarnation) /* control has heard that it is idle here, else the slot would not be another's */
      forget_endpoint(w, e);
    else if (e)
      e->in_table = true;
  }
  size_t busy_count = 0;
  uint32_t *busy = w->endpoint_count ? calloc(w->endpoint_count, sizeof *busy) : NULL;
  for (size_t i = 0; i < w->endpoint_count; i++) {
    struct endpoint *e = w->endpoints[i];
    if (!e || e->in_table)
      continue;
    if (!e->balance.outstanding)
      forget_endpoint(w, e);
    else {
      upstream_close_idle(w, e);
      if (busy)
        busy[busy_count++] = e->slot;
    }
  }
  w->shared->events.switched(w->shared->events.arg, w->index, t->seq, busy, busy_count);
  free(busy);
}

/* ---- the round ---- */

void worker_again(struct worker *w, struct client *c) {
  if (c->again || c->sock.closed)
    return;
  if (w->again_count == w->again_size) {
    size_t size = w->again_size ? w->again_size * 2 : 64;
    struct client **again = reallocarray(w->again, size, sizeof(struct client *));
    if (!again) {
      c->sock.failed = true; /* it can't be served fairly: its next event, or its time limit, ends it */
      return;
    }
    w->again = again;
    w->again_size = size;
  }
  c->again = true;
  w->again[w->again_count++] = c;
}

static void run_again(struct worker *w) {
  size_t count = w->again_count;
  for (size_t i = 0; i < count; i++) {
    struct client *c = w->again[i];
    if (!c)
      continue;
    c->again = false;
    client_run(w, c);
  }
  w->again_count -= count;
  memmove(w->again, w->again + count, w->again_count * sizeof(struct client *));
}

static void bury(struct worker *w) {
  while (w->graveyard) {
    struct sock *s = w->graveyard;
    w->graveyard = s->next;
    if (s->kind == SOCK_CLIENT && ((struct client *)s)->again)
      for (size_t i = 0; i < w->again_count; i++)
        if (w->again[i] == (struct client *)s)
          w->again[i] = NULL;
    free(s); /* a client or an upstream begins with its sock */
  }
  while (w->free_exchange_count > FREE_EXCHANGES_MAX) {
    struct exchange *x = w->free_exchanges;
    w->free_exchanges = x->next;
    w->free_exchange_count--;
    free(x);
  }
}

static void read_clock(struct worker *w) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  w->now_us = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
  w->now_ms = w->now_us / 1000;
}

static void set_accepting(struct worker *w, bool on) {
  if (w->accepting == on)
    return;
  w->accepting = on;
  for (unsigned i = 0; w->listeners && i < w->listeners->count; i++) {
    struct epoll_event ev = {.events = on ? EPOLLIN : 0, .data.ptr = &w->listeners->list[i].sock};
    (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, w->listeners->list[i].sock.fd, &ev);
  }
}

static void accept_clients(struct worker *w, struct listener *l) {
  for (unsigned i = 0; i < ACCEPTS; i++) {
    if (worker_connections(w) >= w->shared->clients_max) {
      /* Full: the client that has been idle longest makes room, then the one whose head has been on its way for longest. When all are busy
       * new ones wait in the kernel. */
      struct client *last = w->idle.idle_next != &w->idle ? w->idle.idle_next : w->heads.idle_next;
      if (last == &w->heads) {
        w->accept_again_ms = w->now_ms + ACCEPT_PAUSE_MS;
        set_accepting(w, false);
        return;
      }
      client_close(w, last);
    }
    union {
      struct sockaddr sa;
      struct sockaddr_storage room;
    } peer;
    socklen_t len = sizeof peer;
    int fd = accept4(l->sock.fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        w->accept_again_ms = w->now_ms + ACCEPT_PAUSE_MS;
        set_accepting(w, false);
      }
      return;
    }
    atomic_store_explicit(&w->accepted, worker_accepted(w) + 1, memory_order_relaxed);
    client_accept(w, fd, &peer.sa, l->front);
  }
}

static struct listener_set *set_new(const struct worker_listener *from, unsigned count) {
  struct listener_set *set = malloc(sizeof *set + count * sizeof set->list[0]);
  for (unsigned i = 0; !set && i < count; i++)
    close(from[i].fd);
  if (!set)
    return NULL;
  set->count = count;
  for (unsigned i = 0; i < count; i++)
    set->list[i] = (struct listener){.sock = {.kind = SOCK_LISTENER, .fd = from[i].fd}, .front = from[i].front};
  return set;
}

static void set_free(struct listener_set *set) {
  for (unsigned i = 0; set && i < set->count; i++)
    close(set->list[i].sock.fd);
  free(set);
}

/* Control holds the same sockets by descriptors of its own: closing these would not take them out of epoll. */
static void set_remove(struct worker *w, struct listener_set *set) {
  for (unsigned i = 0; set && i < set->count; i++)
    (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, set->list[i].sock.fd, NULL);
  set_free(set);
}

static int set_add(struct worker *w, struct listener_set *set) {
  for (unsigned i = 0; i < set->count; i++) {
    struct epoll_event ev = {.events = w->accepting ? EPOLLIN : 0, .data.ptr = &set->list[i].sock};
    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, set->list[i].sock.fd, &ev) < 0)
      return -1;
  }
  return 0;
}

/* Between two rounds: no event of the old ones is on its way. Those who wait in their queues come in first. */
static void take_listeners(struct worker *w) {
  struct listener_set *next = atomic_exchange_explicit(&w->next_listeners, NULL, memory_order_acquire);
  for (unsigned i = 0; w->listeners && i < w->listeners->count; i++) {
    uint64_t before;
    do {
      before = worker_accepted(w);
      accept_clients(w, &w->listeners->list[i]);
    } while (worker_accepted(w) - before == ACCEPTS);
  }
  if (set_add(w, next) < 0) { /* then the old ones serve on */
    set_remove(w, next);
    return;
  }
  set_remove(w, w->listeners);
  w->listeners = next;
}

static void take_tls(struct worker *w) {
  tls_server_free(w->tls);
  w->tls = atomic_exchange_explicit(&w->next_tls, NULL, memory_order_acquire);
}

static void begin_drain(struct worker *w) {
  w->stopping = w->draining = true;
  w->stop_by_ms = w->now_ms + WORKER_DRAIN_MS;
  set_remove(w, w->listeners);
  w->listeners = NULL;
  client_drain(w);
}

static void begin_stop(struct worker *w) {
  w->stopping = true;
  w->stop_by_ms = w->now_ms + WORKER_STOP_MS;
  set_remove(w, w->listeners);
  w->listeners = NULL;
  while (w->idle.idle_next != &w->idle)
    client_close(w, w->idle.idle_next);
}

static void dispatch(struct worker *w, struct sock *s, uint32_t events) {
  if (s->kind == SOCK_LISTENER) {
    if (!w->stopping)
      accept_clients(w, (struct listener *)s);
    return;
  }
  if (s->kind == SOCK_WAKE) {
    uint64_t n;
    ssize_t got_ = read(s->fd, &n, sizeof n);
    (void)got_;
    return;
  }
  if (s->closed)
    return;
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    s->readable = true;
  if (events & EPOLLRDHUP)
    s->hung_up = true;
  if (events & EPOLLOUT)
    s->writable = true;
  if (s->kind == SOCK_CLIENT) {
    if (s->tls) /* either may have waited for the other */
      s->readable = s->writable = true;
    if (events & (EPOLLERR | EPOLLHUP))
      s->failed = true;
    client_run(w, (struct client *)s);
  } else {
    upstream_event(w, (struct upstream *)s);
  }
}

static void fire(struct worker *w, struct wheel_timer *t) {
  struct sock *s = (struct sock *)((char *)t - offsetof(struct sock, timer));
  if (s->kind == SOCK_CLIENT)
    client_timeout(w, (struct client *)s);
  else
    upstream_timeout(w, (struct upstream *)s);
}

static void *run(void *arg) {
  struct worker *w = arg;
  struct epoll_event events[EVENTS];
  for (;;) {
    const struct table *t = atomic_load_explicit(&w->shared->table, memory_order_acquire);
    if (t != w->table)
      switch_table(w, t);
    if (!w->stopping && atomic_load_explicit(&w->next_listeners, memory_order_relaxed))
      take_listeners(w);
    if (atomic_load_explicit(&w->next_tls, memory_order_relaxed))
      take_tls(w);
    if (atomic_load_explicit(&w->shared->pausing, memory_order_acquire))
      return NULL;
    if (!w->stopping && atomic_load_explicit(&w->shared->stopping, memory_order_acquire))
      begin_stop(w);
    if (!w->stopping && atomic_load_explicit(&w->shared->draining, memory_order_acquire))
      begin_drain(w);
    if (w->stopping && (worker_connections(w) == 0 || w->now_ms >= w->stop_by_ms))
      return NULL;
    int wait = w->again_count ? 0 : wheel_wait(&w->wheel, w->now_ms);
    if (!w->accepting && !w->stopping && (wait < 0 || wait > ACCEPT_PAUSE_MS))
      wait = ACCEPT_PAUSE_MS;
    if (w->stopping && (wait < 0 || wait > 100))
      wait = 100;
    int n = (int)syscall(SYS_epoll_pwait, w->epoll_fd, events, EVENTS, wait, NULL, (size_t)8);
    read_clock(w);
    if (!w->accepting && w->now_ms >= w->accept_again_ms)
      set_accepting(w, true);
    if (w->again_count)
      run_again(w);
    for (int i = 0; i < n; i++)
      dispatch(w, events[i].data.ptr, events[i].events);
    for (struct wheel_timer *timer; (timer = wheel_due(&w->wheel, w->now_ms));)
      fire(w, timer);
    if (w->graveyard)
      bury(w);
  }
}

/* ---- life ---- */

struct worker *worker_new(struct worker_shared *shared, unsigned index, const struct worker_listener *listeners, unsigned count, struct err *err) {
  struct worker *w = calloc(1, sizeof *w);
  struct listener_set *set = set_new(listeners, count);
  if (!w || !set) {
    err_set(err, ERR_MEMORY, "no memory for a worker");
    goto fail;
  }
  w->shared = shared;
  w->index = index;
  w->idle.idle_next = w->idle.idle_prev = &w->idle;
  w->heads.idle_next = w->heads.idle_prev = &w->heads;
  w->shaking.idle_next = w->shaking.idle_prev = &w->shaking;
  w->accepting = true;
  w->wake = (struct sock){.kind = SOCK_WAKE, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &w->wake};
  if (w->epoll_fd < 0 || w->wake.fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake.fd, &ev) < 0) {
    err_errno(err, errno, "worker %u", index);
    goto fail;
  }
  if (set_add(w, set) < 0) {
    err_errno(err, errno, "worker %u", index);
    goto fail;
  }
  w->listeners = set;
  read_clock(w);
  wheel_init(&w->wheel, w->now_ms);
  w->table = NULL;
  return w;
fail:
  if (w && w->epoll_fd > 0)
    close(w->epoll_fd);
  if (w && w->wake.fd > 0)
    close(w->wake.fd);
  set_free(set);
  free(w);
  return NULL;
}

int worker_start(struct worker *w, struct err *err) {
  int rc = pthread_create(&w->thread, NULL, run, w);
  if (rc)
    return err_errno(err, rc, "worker thread");
  w->started = true;
  return 0;
}

int worker_listen(struct worker *w, const struct worker_listener *listeners, unsigned count, struct err *err) {
  struct listener_set *set = set_new(listeners, count);
  if (!set)
    return err_set(err, ERR_MEMORY, "no memory to listen anew");
  set_free(atomic_exchange_explicit(&w->next_listeners, set, memory_order_acq_rel)); /* one that it had not come to take */
  worker_wake(w);
  return 0;
}

void worker_tls(struct worker *w, struct tls_server *tls) {
  tls_server_free(atomic_exchange_explicit(&w->next_tls, tls, memory_order_acq_rel));
  worker_wake(w);
}

void worker_wake(struct worker *w) {
  uint64_t one = 1;
  ssize_t n = write(w->wake.fd, &one, sizeof one);
  (void)n; /* EAGAIN: it is awake */
}

void worker_join(struct worker *w) {
  if (w->started)
    pthread_join(w->thread, NULL);
  w->started = false;
}

/* The process ends after this: clients that are still there are closed with it. */
void worker_free(struct worker *w) {
  if (!w)
    return;
  set_free(w->listeners);
  set_free(atomic_load(&w->next_listeners));
  tls_server_free(w->tls);
  tls_server_free(atomic_load(&w->next_tls));
  for (size_t i = 0; i < w->endpoint_count; i++)
    if (w->endpoints[i])
      forget_endpoint(w, w->endpoints[i]);
  bury(w);
  while (w->free_exchanges) {
    struct exchange *x = w->free_exchanges;
    w->free_exchanges = x->next;
    free(x);
  }
  while (w->free_blocks) {
    struct block *b = w->free_blocks;
    w->free_blocks = b->next;
    free(b);
  }
  while (w->free_pipes) {
    struct pipe_pair *p = w->free_pipes;
    w->free_pipes = p->next;
    close(p->fd[0]);
    close(p->fd[1]);
    free(p);
  }
  for (size_t i = 0; i < WORKER_SERVICES_MAX / 64; i++)
    free(atomic_load(&w->counters[i]));
  free(w->endpoints);
  free(w->again);
  close(w->epoll_fd);
  close(w->wake.fd);
  free(w);
}
