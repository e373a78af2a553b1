#include "orca-apiserver/listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"

#define BACKLOG 1024
#define ACCEPTS 64              /* in one turn */
#define PAUSE (100 * NS_PER_MS) /* when there are no descriptors left */
#define AGAIN (10 * NS_PER_SEC) /* for an address that can't be had */
#define ADDRESSES_MAX 64
#define ADDRESS_MAX 80
#define TEXT_MAX 640

union address {
  struct sockaddr sa;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  struct sockaddr_storage room;
};

struct one {
  struct api_listeners *all;
  char address[ADDRESS_MAX];
  struct loop_io io; /* fd < 0: it can't be had now */
  int fd;
  struct err why;
  bool wanted;
  struct one *next;
};

struct api_listeners {
  struct api *api;
  char own[ADDRESS_MAX];
  api_accept_fn *accepted;
  void *arg;
  struct one *list;
  bool paused;
  struct loop_timer timer; /* to try again, or to go on after a pause */
};

/* ---- sockets ---- */

static int parse(const char *text, union address *a, socklen_t *len) {
  char host[ADDRESS_MAX];
  const char *colon = strrchr(text, ':');
  size_t n = colon ? (size_t)(colon - text) : 0;
  unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 65536;
  bool v6 = n > 2 && text[0] == '[' && text[n - 1] == ']';
  if (!n || n >= sizeof host || port > 65535)
    return -1;
  snprintf(host, sizeof host, "%.*s", (int)(v6 ? n - 2 : n), text + v6);
  memset(a, 0, sizeof *a);
  if (v6) {
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_port = htons((uint16_t)port);
    *len = sizeof a->in6;
    return inet_pton(AF_INET6, host, &a->in6.sin6_addr) == 1 ? 0 : -1;
  }
  a->in.sin_family = AF_INET;
  a->in.sin_port = htons((uint16_t)port);
  *len = sizeof a->in;
  return inet_pton(AF_INET, host, &a->in.sin_addr) == 1 ? 0 : -1;
}

int api_listen_on(const char *text, uint16_t *ret_port, struct err *err) {
  union address a;
  socklen_t len;
  int on = 1;
  if (parse(text, &a, &len) < 0)
    return err_set(err, ERR_INVALID, "not an address with a port: %s", text);
  int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return err_errno(err, errno, "listen on %s", text);
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
      (a.sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) || bind(fd, &a.sa, len) < 0 ||
      listen(fd, BACKLOG) < 0 || getsockname(fd, &a.sa, &len) < 0) {
    err_errno(err, errno, "listen on %s", text);
    close(fd);
    return -1;
  }
  if (ret_port)
    *ret_port = ntohs(a.sa.sa_family == AF_INET ? a.in.sin_port : a.in6.sin6_port);
  return fd;
}

/* ---- accepting ---- */

static void set_timer(struct api_listeners *l, int64_t in) {
  struct err err;
  int64_t at = loop_now(l->api->loop) + in;
  if (loop_timer_is_set(&l->timer) && l->timer.at <= at)
    return;
  if (loop_timer_at(l->api->loop, &l->timer, at, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void set_paused(struct api_listeners *l, bool paused) {
  struct err err;
  l->paused = paused;
  for (struct one *o = l->list; o; o = o->next)
    if (o->fd >= 0 && loop_io_change(l->api->loop, &o->io, paused ? 0 : EPOLLIN, &err) < 0)
      log_error("an address of the API is lost", "address", o->address, "error", err.msg);
}

static void on_readable(void *arg, uint32_t events) {
  (void)events;
  struct one *o = arg;
  struct api_listeners *l = o->all;
  for (int i = 0; i < ACCEPTS; i++) {
    union address from;
    socklen_t len = sizeof from;
    int fd = accept4(o->fd, &from.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      l->accepted(l->arg, fd, &from.sa, len);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      set_paused(l, true);
      set_timer(l, PAUSE);
    }
    return;
  }
}

/* ---- what is wanted ---- */

static void told(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)arg;
  (void)succeeded;
  (void)revision;
  if (err)
    log_warn("an event was not stored", "error", err->msg);
}

static void tell(struct api_listeners *l, const struct one *o) {
  log_warn("an address of the API can't be had", "address", o->address, "error", o->why.msg);
  if (!l->api->in_touch)
    return;
  struct storec_txn *txn = storec_txn_new();
  if (!txn)
    return;
  char kind[] = "api.not_listening", message[TEXT_MAX], node[64], severity[] = "warn", actor[] = "apiserver";
  api_text_copy(message, sizeof message, o->why.msg);
  snprintf(node, sizeof node, "%s", l->api->config->name);
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, api_now_ms(l->api));
  event.kind = kind;
  event.message = message;
  event.node = node;
  event.severity = severity;
  event.actor = actor;
  api_event(l->api, txn, &event);
  l->api->commit(l->api->commit_arg, txn, told, NULL);
}

static void try_open(struct api_listeners *l, struct one *o) {
  struct err err;
  bool said = o->why.code != ERR_NONE;
  o->fd = api_listen_on(o->address, NULL, &err);
  if (o->fd >= 0 && loop_io_add(l->api->loop, &o->io, o->fd, l->paused ? 0 : EPOLLIN, &err) < 0) {
    close(o->fd);
    o->fd = -1;
  }
  if (o->fd >= 0) {
    o->why = (struct err){0};
    log_info("the API listens", "address", o->address);
    return;
  }
  o->why = err;
  if (!said)
    tell(l, o);
  set_timer(l, AGAIN);
}

static void on_timer(void *arg) {
  struct api_listeners *l = arg;
  if (l->paused)
    set_paused(l, false);
  for (struct one *o = l->list; o; o = o->next)
    if (o->fd < 0)
      try_open(l, o);
}

static void close_one(struct api_listeners *l, struct one *o) {
  if (o->fd >= 0) {
    loop_io_remove(l->api->loop, &o->io);
    close(o->fd);
  }
  free(o);
}

static struct one *find(struct api_listeners *l, const char *address) {
  struct one *o = l->list;
  while (o && strcmp(o->address, address) != 0)
    o = o->next;
  return o;
}

void api_listeners_want(struct api_listeners *l, char *const *addresses, size_t count) {
  for (struct one *o = l->list; o; o = o->next)
    o->wanted = false;
  for (size_t i = 0; i < count && i < ADDRESSES_MAX; i++) {
    struct one *o = find(l, addresses[i]);
    if (!spec_listen_is_loopback(addresses[i]) || strcmp(addresses[i], l->own) == 0 || strlen(addresses[i]) >= ADDRESS_MAX)
      continue;
    if (!o && (o = calloc(1, sizeof *o))) {
      *o = (struct one){.all = l, .fd = -1, .io = {.cb = on_readable, .arg = o}, .next = l->list};
      snprintf(o->address, sizeof o->address, "%s", addresses[i]);
      l->list = o;
    }
    if (o)
      o->wanted = true;
    else
      log_error("no memory for an address of the API", "address", addresses[i]);
  }
  for (struct one **at = &l->list; *at;) { /* first closed, then opened: the same port may be meant */
    struct one *o = *at;
    if (o->wanted) {
      at = &o->next;
      continue;
    }
    *at = o->next;
    log_info("the API no longer listens", "address", o->address);
    close_one(l, o);
  }
  for (struct one *o = l->list; o; o = o->next)
    if (o->fd < 0)
      try_open(l, o);
}

void api_listeners_problems(const struct api_listeners *l, struct api_json *json) {
  for (const struct one *o = l->list; o; o = o->next) {
    char text[TEXT_MAX + 80];
    if (o->why.code == ERR_NONE)
      continue;
    snprintf(text, sizeof text, "%s: the API can't %s", l->api->config->name, o->why.msg);
    api_json_str(json, NULL, text);
  }
}

/* ---- life ---- */

struct api_listeners *api_listeners_new(struct api *api, const char *own, api_accept_fn *accepted, void *arg, struct err *err) {
  struct api_listeners *l = calloc(1, sizeof *l);
  if (!l) {
    err_set(err, ERR_MEMORY, "no memory for the addresses of the API");
    return NULL;
  }
  *l = (struct api_listeners){.api = api, .accepted = accepted, .arg = arg, .timer = {.cb = on_timer, .arg = l}};
  snprintf(l->own, sizeof l->own, "%s", own);
  return l;
}

void api_listeners_free(struct api_listeners *l) {
  if (!l)
    return;
  loop_timer_cancel(l->api->loop, &l->timer);
  while (l->list) {
    struct one *o = l->list;
    l->list = o->next;
    close_one(l, o);
  }
  free(l);
}
