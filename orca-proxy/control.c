#include "orca-proxy/control.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/daemon/fdstore.h"
#include "common/log.h"
#include "orca-proxy/control_internal.h"
#include "orca-proxy/handover.h"

#define HANDOVER_WAIT_MS 3000 /* for a process that takes the listening sockets */

/* Each client may need a connection to an instance, and both sometimes a pipe. */
static unsigned clients_for(unsigned workers) {
  struct rlimit r;
  if (getrlimit(RLIMIT_NOFILE, &r) < 0)
    return 256;
  r.rlim_cur = r.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &r) < 0)
    log_warn("the limit of open files stays low");
  rlim_t files = r.rlim_cur > 1048576 ? 1048576 : r.rlim_cur;
  rlim_t n = (files > 256 ? files - 192 : 64) / 3 / workers;
  return n > 65536 ? 65536 : (unsigned)n;
}

static int start_workers(struct control *c, unsigned count, struct err *err) {
  struct worker_listener list[LISTEN_MAX];
  struct tls_server *server = certificate_server(c->certificate);
  for (unsigned i = 0; i < count; i++) {
    int n = listen_share(&c->sockets, i, count, list, err);
    if (n < 0 || !(c->workers[i] = worker_new(&c->shared, i, list, (unsigned)n, err)))
      return -1;
    c->worker_count++;
    if (server)
      worker_tls(c->workers[i], tls_server_ref(server));
  }
  for (unsigned i = 0; i < count; i++)
    if (worker_start(c->workers[i], err) < 0)
      return -1;
  control_listen_store(c);
  return 0;
}

static void on_certificate(void *arg) {
  struct control *c = arg;
  struct tls_server *server = certificate_server(c->certificate);
  if (c->ending)
    return;
  for (unsigned i = 0; server && i < c->worker_count; i++)
    worker_tls(c->workers[i], tls_server_ref(server));
  control_listen_follow(c);
  control_link_ack(c); /* it says when the certificate ends */
}

struct control *control_start(struct daemon *d, const struct control_options *o, struct err *err) {
  struct control *c = calloc(1, sizeof *c);
  if (!c) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  unsigned workers = o->workers < WORKER_MAX ? o->workers : WORKER_MAX;
  c->daemon = d;
  c->loop = d->loop;
  control_listen_init(c);
  control_link_init(c);
  c->shared.node = d->config.name;
  c->shared.events = (struct worker_events){control_tables_switched, control_tables_idle, c};
  c->shared.clients_max = clients_for(workers);
  c->routes = routes_new();
  c->drain = drain_new(workers);
  c->ids = service_ids_new();
  if (!c->routes || !c->drain || !c->ids) {
    err_set(err, ERR_MEMORY, "no memory");
    goto fail;
  }
  if (!(c->state = state_open(d->config.state_dir, err)))
    goto fail;
  if (control_tables_open(c, err) < 0)
    goto fail;
  if (o->log != ACCESSLOG_OFF && !(c->shared.log = accesslog_new(o->log, STDOUT_FILENO, err)))
    goto fail;
  c->worker_most = workers;
  if (!(c->certificate = certificate_new(c->loop, c->state, on_certificate, c, err)) || control_listen_open(c, err) < 0 ||
      start_workers(c, workers, err) < 0)
    goto fail;
  return c;
fail:
  control_stop(c);
  return NULL;
}

void control_describe(const struct control *c, char *out, size_t size) {
  snprintf(out, size, "serving %zu routes on port %u with %u workers", routes_count(c->routes), control_listen_port(c), c->worker_count);
}

/* What workers handed over after the loop had ended. */
static void run_out(struct control *c) {
  struct err err;
  if (loop_once(c->loop, 0, &err) < 0)
    log_error("stopping", "error", err.msg);
}

/* Wakes the workers to what was just set, and waits for them. */
static void join_workers(struct control *c) {
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_wake(c->workers[i]);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_join(c->workers[i]);
}

/* Brings what is in flight to its end, while another process serves already, or will soon. */
static void drain(struct control *c, int ask, uint64_t connections) {
  struct err err;
  atomic_store_explicit(&c->shared.pausing, false, memory_order_release);
  atomic_store_explicit(&c->shared.draining, true, memory_order_release);
  if (c->shared.log && accesslog_resume(c->shared.log, &err) < 0)
    log_error("the last lines of the access log are lost", "error", err.msg);
  for (unsigned i = 0; i < c->worker_count; i++)
    if (worker_start(c->workers[i], &err) < 0)
      log_error("connections are lost", "error", err.msg);
  if (ask >= 0)
    handover_give(c->daemon->config.run_dir, ask, &c->sockets, HANDOVER_WAIT_MS);
  log_info("handed over", "connections", log_u64(connections), "process", log_i64(getpid()));
  listen_close_all(&c->sockets);
  join_workers(c);
  if (c->shared.log)
    accesslog_pause(c->shared.log);
}

static uint64_t connections_of(const struct control *c) {
  uint64_t n = 0;
  for (unsigned i = 0; i < c->worker_count; i++)
    n += worker_connections(c->workers[i]);
  return n;
}

void control_hand_over(struct control *c) {
  struct err err;
  c->ending = true;
  int ask = fdstore_has() ? -1 : handover_open(c->daemon->config.run_dir, &err);
  if (ask < 0 && !fdstore_has())
    log_warn("the listening sockets can't be handed over", "error", err.msg);
  control_link_close(c); /* the next process says hello in this one's name */
  control_tables_save_due(c);
  state_release(c->state);
  atomic_store_explicit(&c->shared.pausing, true, memory_order_release);
  join_workers(c);
  if (c->shared.log)
    accesslog_pause(c->shared.log);
  uint64_t connections = connections_of(c);
  if (ask < 0 && connections == 0)
    return;
  /* No thread runs: what is copied is whole. Whoever waits for this process can start the next one at once. */
  pid_t pid = fork();
  if (pid > 0)
    _exit(0);
  if (pid < 0)
    log_error("what is in flight is ended before this process is", "error", strerror(errno));
  sigset_t all;
  sigfillset(&all);
  signal(SIGTERM, SIG_DFL); /* asked once more it ends at once */
  signal(SIGINT, SIG_DFL);
  sigprocmask(SIG_UNBLOCK, &all, NULL);
  drain(c, ask, connections);
  log_info("nothing is in flight any more", "cut", log_u64(connections_of(c)));
  _exit(0);
}

void control_stop(struct control *c) {
  if (!c)
    return;
  c->ending = true;
  atomic_store_explicit(&c->shared.stopping, true, memory_order_release);
  atomic_store_explicit(&c->shared.pausing, false, memory_order_release);
  join_workers(c);
  run_out(c);
  control_tables_save_due(c);
  control_listen_close(c);
  control_link_close(c);
  control_stats_close(c);
  certificate_free(c->certificate);
  listen_close_all(&c->sockets);
  accesslog_free(c->shared.log);
  for (unsigned i = 0; i < c->worker_count; i++)
    worker_free(c->workers[i]);
  control_tables_close(c);
  state_close(c->state);
  service_ids_free(c->ids);
  drain_free(c->drain);
  routes_free(c->routes);
  free(c);
}
