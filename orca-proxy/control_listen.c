#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/daemon/fdstore.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-proxy/control_internal.h"
#include "orca-proxy/handover.h"

#define LOOK_AGAIN (30 * NS_PER_SEC)  /* for addresses of the API that are not this machine's */
#define LISTEN_AGAIN (1 * NS_PER_SEC) /* for a port that is taken */

static uint16_t wanted_port(const struct control *c) {
  uint16_t port = routes_http_port(c->routes);
  return port ? port : c->daemon->config.port_http;
}

static int give_sockets(struct control *c, struct err *err) {
  struct worker_listener list[LISTEN_MAX];
  int rc = 0;
  for (unsigned i = 0; i < c->worker_count; i++) {
    int n = listen_share(&c->sockets, i, c->worker_count, list, err);
    if (n < 0 || worker_listen(c->workers[i], list, (unsigned)n, err) < 0)
      rc = -1;
  }
  return rc;
}

void control_listen_store(const struct control *c) {
  char name[LISTEN_NAME_MAX];
  for (unsigned i = 0; i < c->sockets.count; i++) {
    listen_name(&c->sockets.list[i].addr, name);
    fdstore_put(name, c->sockets.list[i].fd);
  }
}

static int listen_for_http(struct control *c, uint16_t port, bool patient, struct err *err) {
  struct listen_address now[2], before[2];
  unsigned count = listen_http(c->daemon->config.address, port, now);
  for (unsigned i = 0; i < count; i++)
    if (listen_ensure(&c->sockets, FRONT_HTTP, &now[i], c->worker_most, patient, err) < 0) {
      listen_close_others(&c->sockets, FRONT_HTTP, before, c->listen.port ? listen_http(c->daemon->config.address, c->listen.port, before) : 0,
                          fdstore_remove);
      return -1;
    }
  return 0;
}

/* [proxy] http_port may have changed. Returns whether there are other sockets now. */
static bool follow_http(struct control *c, struct err *fault) {
  struct listen_address keep[2];
  uint16_t port = wanted_port(c), before = c->listen.port;
  if (port == c->listen.port || listen_for_http(c, port, false, fault) < 0)
    return false;
  c->listen.port = port;
  listen_close_others(&c->sockets, FRONT_HTTP, keep, listen_http(c->daemon->config.address, port, keep), fdstore_remove);
  log_info("listening", "port", log_u64(port), "before", log_u64(before));
  control_tables_save(c); /* not soon: a proxy that is started anew would be elsewhere */
  return true;
}

/* [api] listen, or the certificate for it, may have changed. */
static bool follow_api(struct control *c, bool patient, struct err *fault) {
  struct listen_address keep[LISTEN_API_MAX], a;
  char hosts[LISTEN_API_MAX][64];
  const char *own[LISTEN_API_MAX];
  char *const *list;
  struct err err;
  /* Only a master has an apiserver to hand over to. */
  size_t count = c->daemon->config.role == NODE_MASTER ? routes_api_listen(c->routes, &list) : 0;
  unsigned n = 0, kept = 0;
  bool changed = false;
  for (size_t i = 0; i < count && n < LISTEN_API_MAX; i++)
    if (listen_api(list[i], &a) && spec_listen_host(list[i], hosts[n], sizeof hosts[n])) {
      keep[n] = a;
      own[n] = hosts[n];
      n++;
    }
  if (certificate_want(c->certificate, own, n, &err) < 0)
    *fault = err;
  else if (*certificate_fault(c->certificate))
    err_set(fault, ERR_UNAVAILABLE, "listen for the API: %s", certificate_fault(c->certificate));
  for (unsigned i = 0; i < n; i++) {
    bool had = listen_has(&c->sockets, FRONT_API, &keep[i]);
    if (!had && (!certificate_covers(c->certificate, own[i]) || listen_ensure(&c->sockets, FRONT_API, &keep[i], 1, patient, fault) < 0))
      continue;
    if (!had)
      log_info("listening for the API", "address", own[i], "port", log_u64(ntohs(keep[i].addr.in.sin_port)));
    changed |= !had;
    keep[kept++] = keep[i];
  }
  if (n < count && loop_timer_in(c->loop, &c->listen.again, LOOK_AGAIN, &err) < 0) /* an address may come to this machine */
    log_error("no timer", "error", err.msg);
  return listen_close_others(&c->sockets, FRONT_API, keep, kept, fdstore_remove) || changed;
}

static void set_fault(struct control *c, const char *fault) {
  if (strcmp(c->listen.fault, fault) == 0)
    return;
  snprintf(c->listen.fault, sizeof c->listen.fault, "%.250s", fault);
  if (*fault)
    log_error("not listening everywhere", "port", log_u64(c->listen.port), "error", fault);
  control_link_ack(c);
}

void control_listen_follow(struct control *c) {
  struct err api = {0}, http = {0}, err;
  loop_timer_cancel(c->loop, &c->listen.again);
  bool changed = follow_api(c, false, &api);
  changed |= follow_http(c, &http);
  if (changed && give_sockets(c, &err) < 0)
    http = err;
  if (changed)
    control_listen_store(c);
  const struct err *fault = http.code != ERR_NONE ? &http : &api;
  set_fault(c, fault->code != ERR_NONE ? fault->msg : "");
  if (fault->code != ERR_NONE && loop_timer_in(c->loop, &c->listen.again, LISTEN_AGAIN, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void on_listen_again(void *arg) {
  control_listen_follow(arg);
}

static void take_sockets(struct control *c) {
  int fds[LISTEN_MAX];
  unsigned n = fdstore_take(fds, LISTEN_MAX);
  for (unsigned i = 0; i < n; i++)
    listen_adopt(&c->sockets, fds[i]);
  if (n)
    log_info("took the sockets that systemd kept", "sockets", log_u64(c->sockets.count));
  else
    handover_ask(c->daemon->config.run_dir, &c->sockets);
}

int control_listen_open(struct control *c, struct err *err) {
  struct err api = {0};
  uint16_t port = wanted_port(c);
  take_sockets(c);
  int rc = listen_for_http(c, port, true, err);
  if (rc < 0 && port != c->daemon->config.port_http) { /* the port of the last table is another's now: better node.toml's than none */
    snprintf(c->listen.fault, sizeof c->listen.fault, "%.250s", err->msg);
    log_error("not on the port that cluster.toml names", "port", log_u64(port), "error", err->msg);
    port = c->daemon->config.port_http;
    rc = listen_for_http(c, port, true, err);
    if (rc == 0 && loop_timer_in(c->loop, &c->listen.again, LISTEN_AGAIN, err) < 0)
      return -1;
  }
  if (rc < 0)
    return -1;
  c->listen.port = port;
  (void)follow_api(c, true, &api);
  if (api.code != ERR_NONE && !*c->listen.fault) {
    snprintf(c->listen.fault, sizeof c->listen.fault, "%.250s", api.msg);
    if (loop_timer_in(c->loop, &c->listen.again, LISTEN_AGAIN, err) < 0)
      return -1;
  }
  listen_close_unclaimed(&c->sockets, fdstore_remove);
  return 0;
}

void control_listen_init(struct control *c) {
  c->listen.again = (struct loop_timer){.cb = on_listen_again, .arg = c};
}

void control_listen_close(struct control *c) {
  loop_timer_cancel(c->loop, &c->listen.again);
}

uint16_t control_listen_port(const struct control *c) {
  return c->listen.port;
}

const char *control_listen_fault(const struct control *c) {
  return c->listen.fault;
}
