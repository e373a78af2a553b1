/* Workers: the threads that carry bytes. Each has its own epoll, its own listeners (SO_REUSEPORT), its own connections to instances and its
 * own pools; what they share is read-only or a relaxed atomic.
 *
 * Control gives them route tables: worker_publish() swaps one pointer and wakes them; each worker looks at the pointer between two rounds of
 * events, so a table it has left is one that it never reads again. It says so through `switched`, from its own thread.
 * worker_pause() ends a thread between two rounds and leaves everything as it is: the process may fork then, and its child goes on with
 * worker_start() where the thread was. worker_drain() says that another process accepts: what is here is brought to its end.
 * Threads: worker_*() is control's. */
#ifndef ORCA_PROXY_WORKER_H
#define ORCA_PROXY_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-proxy/accesslog.h"
#include "orca-proxy/table.h"

#define WORKER_MAX 64
#define WORKER_LATENCY_BUCKETS 20
#define WORKER_SERVICES_MAX 65536u /* ids from here on are counted together, as the last */

/* Written by one worker, read by control: relaxed atomics. Since the process's start. */
struct service_counters {
  _Atomic uint64_t requests, errors_4xx, errors_5xx, bytes_in, bytes_out;
  _Atomic uint64_t latency[WORKER_LATENCY_BUCKETS];
};

/* Told on the worker's thread: hand over, don't work. */
struct worker_events {
  void (*switched)(void *arg, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count); /* busy: copied by the receiver */
  void (*idle)(void *arg, unsigned worker, uint32_t slot);
  void *arg;
};

struct worker_shared {
  const char *node;      /* name, for pages */
  struct accesslog *log; /* NULL: off */
  struct worker_events events;
  const struct table *_Atomic table;
  _Atomic bool stopping, pausing, draining;
  unsigned clients_max; /* of one worker */
};

/* What a listener's clients may reach, and how they speak. */
enum front {
  FRONT_HTTP, /* the routes, in the clear */
  FRONT_API,  /* the apiserver, over TLS */
};
struct worker_listener {
  int fd;
  enum front front;
};

struct tls_server;
struct worker;
/* listeners: sockets of this worker's own, taken. */
struct worker *worker_new(struct worker_shared *shared, unsigned index, const struct worker_listener *listeners, unsigned listener_count,
                          struct err *err);
int worker_start(struct worker *w, struct err *err);
/* Other sockets in the place of those it has, soon; taken, also on failure. What is connected stays. */
int worker_listen(struct worker *w, const struct worker_listener *listeners, unsigned listener_count, struct err *err);
/* The certificate of connections from now on; taken. Those there are keep theirs. */
void worker_tls(struct worker *w, struct tls_server *tls);
void worker_wake(struct worker *w);
/* After stopping, pausing or draining was set: waits until the thread has ended. That is at once when pausing, else when nothing is in flight any
 * more, at most WORKER_STOP_MS or WORKER_DRAIN_MS. */
void worker_join(struct worker *w);
void worker_free(struct worker *w);

#define WORKER_STOP_MS INT64_C(10000)
#define WORKER_DRAIN_MS INT64_C(32000) /* downloads of half a minute end well */

/* NULL when the worker has never had a request for that service. */
const struct service_counters *worker_counters(const struct worker *w, uint32_t service);
uint64_t worker_connections(const struct worker *w);
uint64_t worker_accepted(const struct worker *w);

#endif
