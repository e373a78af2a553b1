#include "orca-proxy/listen.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec.h"

#define BACKLOG 4096
#define TAKEN_TRIES 50
#define TAKEN_PAUSE_US 20000

/* ---- addresses ---- */

static union table_addr v4(uint32_t host_order, uint16_t port) {
  return (union table_addr){.in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host_order)}};
}

static union table_addr v6(struct in6_addr addr, uint16_t port) {
  return (union table_addr){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = addr}};
}

static bool same_host(const union table_addr *a, const union table_addr *b) {
  if (a->sa.sa_family != b->sa.sa_family)
    return false;
  return a->sa.sa_family == AF_INET ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr : IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
}

static in_port_t port_of(const union table_addr *a) {
  return a->sa.sa_family == AF_INET ? a->in.sin_port : a->in6.sin6_port;
}

/* Whether a socket at `at` is what is wanted. */
static bool is_that(const struct listen_address *want, const union table_addr *at) {
  union table_addr any4 = v4(INADDR_ANY, 0);
  return port_of(&want->addr) == port_of(at) && (same_host(&want->addr, at) || (want->dual && same_host(&any4, at)));
}

unsigned listen_http(const char *node_address, uint16_t port, struct listen_address ret[2]) {
  struct in_addr ip4;
  struct in6_addr ip6;
  bool is4 = inet_pton(AF_INET, node_address, &ip4) == 1, is6 = !is4 && inet_pton(AF_INET6, node_address, &ip6) == 1;
  if (strcmp(node_address, "localhost") == 0 || (is4 && ntohl(ip4.s_addr) == INADDR_LOOPBACK) || (is6 && IN6_IS_ADDR_LOOPBACK(&ip6))) {
    ret[0] = (struct listen_address){.addr = v4(INADDR_LOOPBACK, port)};
    ret[1] = (struct listen_address){.addr = v6(in6addr_loopback, port), .optional = true};
    return 2;
  }
  if (is4 && ntohl(ip4.s_addr) >> 24 == 127) /* one of several nodes on this machine */
    ret[0] = (struct listen_address){.addr = v4(ntohl(ip4.s_addr), port)};
  else
    ret[0] = (struct listen_address){.addr = v6(in6addr_any, port), .dual = true};
  return 1;
}

static bool is_own(const union table_addr *a) {
  struct ifaddrs *list;
  bool own = false;
  if (getifaddrs(&list) < 0)
    return true; /* bind says so, too */
  for (const struct ifaddrs *i = list; i && !own; i = i->ifa_next) {
    union table_addr at = {0};
    if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
      memcpy(&at.in, i->ifa_addr, sizeof at.in);
    else if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6)
      memcpy(&at.in6, i->ifa_addr, sizeof at.in6);
    own = at.sa.sa_family && same_host(&at, a);
  }
  freeifaddrs(list);
  return own;
}

bool listen_api(const char *text, struct listen_address *ret) {
  char host[64];
  struct in_addr ip4;
  struct in6_addr ip6;
  const char *colon = strrchr(text, ':');
  unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
  if (!spec_listen_host(text, host, sizeof host) || !port || port > UINT16_MAX)
    return false;
  *ret = (struct listen_address){0};
  if (inet_pton(AF_INET, host, &ip4) == 1)
    ret->addr = v4(ntohl(ip4.s_addr), (uint16_t)port);
  else if (inet_pton(AF_INET6, host, &ip6) == 1)
    ret->addr = v6(ip6, (uint16_t)port);
  else
    return false;
  return is_own(&ret->addr);
}

void listen_name(const union table_addr *a, char out[LISTEN_NAME_MAX]) {
  char hex[33];
  bool is4 = a->sa.sa_family == AF_INET;
  crypto_hex(is4 ? (const uint8_t *)&a->in.sin_addr : (const uint8_t *)&a->in6.sin6_addr, is4 ? 4 : 16, hex);
  snprintf(out, LISTEN_NAME_MAX, "%s-%s-%u", is4 ? "ipv4" : "ipv6", hex, ntohs(port_of(a)));
}

/* ---- opening ---- */

static int open_one(const union table_addr *a, bool share, bool dual) {
  int on = 1, off = 0;
  int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -1;
  socklen_t len = a->sa.sa_family == AF_INET ? sizeof a->in : sizeof a->in6;
  /* TCP_NODELAY is inherited by what is accepted: one call less for each client. */
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) ||
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
      (a->sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? &off : &on, sizeof on) < 0) || bind(fd, &a->sa, len) < 0 ||
      listen(fd, BACKLOG) < 0) {
    int e = errno;
    close(fd);
    errno = e;
    return -1;
  }
  return fd;
}

/* A machine without IPv6 can't bind it: that is no failure where IPv4 will do. */
static bool lacks_v6(int e) {
  return e == EAFNOSUPPORT || e == EADDRNOTAVAIL;
}

/* Probes without SO_REUSEPORT, which fails where anybody listens already; with it, two nodes on one machine would share a port and not know. */
static int probe(const union table_addr *a, bool dual, bool patient) {
  int fd = open_one(a, false, dual);
  for (int tries = 0; fd < 0 && patient && errno == EADDRINUSE && tries < TAKEN_TRIES; tries++) {
    usleep(TAKEN_PAUSE_US);
    fd = open_one(a, false, dual);
  }
  if (fd < 0)
    return -1;
  close(fd);
  return 0;
}

bool listen_has(const struct listen_sockets *s, enum front front, const struct listen_address *a) {
  for (unsigned i = 0; i < s->count; i++)
    if (s->list[i].claimed && s->list[i].front == front && is_that(a, &s->list[i].addr))
      return true;
  return false;
}

int listen_ensure(struct listen_sockets *s, enum front front, const struct listen_address *a, unsigned count, bool patient, struct err *err) {
  bool there = false;
  for (unsigned i = 0; i < s->count; i++)
    if (is_that(a, &s->list[i].addr) && (!s->list[i].claimed || s->list[i].front == front)) {
      s->list[i].claimed = there = true;
      s->list[i].front = front;
    }
  if (there)
    return 0;
  union table_addr at = a->addr;
  char text[INET6_ADDRSTRLEN] = "?";
  bool dual = a->dual;
  int rc = probe(&at, dual, patient);
  if (rc < 0 && dual && lacks_v6(errno)) {
    at = v4(INADDR_ANY, ntohs(port_of(&a->addr)));
    dual = false;
    rc = probe(&at, dual, patient);
  }
  if (rc < 0 && a->optional && lacks_v6(errno))
    return 0;
  unsigned before = s->count;
  for (unsigned i = 0; rc == 0 && i < count; i++) {
    int fd = s->count < LISTEN_MAX ? open_one(&at, count > 1, dual) : (errno = ENOBUFS, -1);
    if (fd < 0)
      rc = -1;
    else
      s->list[s->count++] = (struct listen_socket){.fd = fd, .claimed = true, .front = front, .addr = at};
  }
  if (rc == 0)
    return 0;
  int why = errno;
  while (s->count > before)
    close(s->list[--s->count].fd);
  inet_ntop(at.sa.sa_family, at.sa.sa_family == AF_INET ? (const void *)&at.in.sin_addr : (const void *)&at.in6.sin6_addr, text, sizeof text);
  if (front == FRONT_HTTP)
    return err_errno(err, why, "listen on port %u", ntohs(port_of(&at)));
  return err_errno(err, why, at.sa.sa_family == AF_INET ? "listen for the API on %s:%u" : "listen for the API on [%s]:%u", text, ntohs(port_of(&at)));
}

void listen_adopt(struct listen_sockets *s, int fd) {
  union table_addr at = {0};
  socklen_t len = sizeof at, size = sizeof(int);
  int type = 0, listens = 0;
  if (s->count < LISTEN_MAX && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens && getsockname(fd, &at.sa, &len) == 0 &&
      (at.sa.sa_family == AF_INET || at.sa.sa_family == AF_INET6) && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
    s->list[s->count++] = (struct listen_socket){.fd = fd, .addr = at};
  else
    close(fd);
}

/* ---- closing ---- */

static bool is_kept(const struct listen_socket *l, const struct listen_address *keep, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    if (is_that(&keep[i], &l->addr))
      return true;
  return false;
}

static void close_at(struct listen_sockets *s, unsigned i, void (*told)(const char *name)) {
  char name[LISTEN_NAME_MAX];
  listen_name(&s->list[i].addr, name);
  if (told)
    told(name); /* again for each of its sockets: that harms nobody */
  close(s->list[i].fd);
  s->list[i] = s->list[--s->count];
}

bool listen_close_others(struct listen_sockets *s, enum front front, const struct listen_address *keep, unsigned count,
                         void (*told)(const char *name)) {
  bool any = false;
  for (unsigned i = s->count; i-- > 0;)
    if (s->list[i].claimed && s->list[i].front == front && !is_kept(&s->list[i], keep, count)) {
      close_at(s, i, told);
      any = true;
    }
  return any;
}

void listen_close_unclaimed(struct listen_sockets *s, void (*told)(const char *name)) {
  for (unsigned i = s->count; i-- > 0;)
    if (!s->list[i].claimed)
      close_at(s, i, told);
}

void listen_close_all(struct listen_sockets *s) {
  while (s->count)
    close(s->list[--s->count].fd);
}

/* ---- sharing ---- */

static int give(const struct listen_socket *l, struct worker_listener *ret, int *count) {
  int fd = *count < LISTEN_MAX ? fcntl(l->fd, F_DUPFD_CLOEXEC, 3) : (errno = ENOBUFS, -1);
  if (fd < 0)
    return -1;
  ret[(*count)++] = (struct worker_listener){fd, l->front};
  return 0;
}

static bool same_address(const struct listen_socket *a, const struct listen_socket *b) {
  return same_host(&a->addr, &b->addr) && port_of(&a->addr) == port_of(&b->addr);
}

int listen_share(const struct listen_sockets *s, unsigned worker, unsigned workers, struct worker_listener *ret, struct err *err) {
  int count = 0;
  assert(worker < workers);
  for (unsigned i = 0; i < s->count; i++) {
    unsigned index = 0, of_address = 0; /* which of its address's it is, of how many */
    for (unsigned k = 0; k < s->count; k++)
      if (same_address(&s->list[k], &s->list[i])) {
        index += k < i;
        of_address++;
      }
    /* With fewer sockets than workers several share one; with more, one has several. */
    unsigned turns = of_address > workers ? of_address : workers;
    for (unsigned turn = index; turn < turns; turn += of_address)
      if (turn % workers == worker && s->list[i].claimed && give(&s->list[i], ret, &count) < 0) {
        err_errno(err, errno, "sockets of a worker");
        while (count)
          close(ret[--count].fd);
        return -1;
      }
  }
  return count;
}
