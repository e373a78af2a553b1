#include "orca-proxy/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "orca-proxy/table.h"

#define BACKLOG 4096
#define TAKEN_TRIES 50
#define TAKEN_PAUSE_US 20000

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

static union table_addr v4(uint32_t host_order, uint16_t port) {
  union table_addr a = {.in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host_order)}};
  return a;
}

static union table_addr v6(struct in6_addr addr, uint16_t port) {
  union table_addr a = {.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = addr}};
  return a;
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

int listen_open(const char *node_address, uint16_t port, unsigned sets, bool patient, int *ret, unsigned *count, struct err *err) {
  union table_addr want[LISTEN_ADDRESSES_MAX];
  bool optional[LISTEN_ADDRESSES_MAX] = {false}, dual = false;
  unsigned n = 0;
  struct in_addr ip4;
  struct in6_addr ip6;
  bool is4 = inet_pton(AF_INET, node_address, &ip4) == 1, is6 = !is4 && inet_pton(AF_INET6, node_address, &ip6) == 1;
  bool localhost = strcmp(node_address, "localhost") == 0 || (is4 && ntohl(ip4.s_addr) == INADDR_LOOPBACK) || (is6 && IN6_IS_ADDR_LOOPBACK(&ip6));
  if (localhost) {
    want[n++] = v4(INADDR_LOOPBACK, port);
    optional[n] = true;
    want[n++] = v6(in6addr_loopback, port);
  } else if (is4 && ntohl(ip4.s_addr) >> 24 == 127) { /* one of several nodes on this machine */
    want[n++] = v4(ntohl(ip4.s_addr), port);
  } else {
    dual = true;
    want[n++] = v6(in6addr_any, port);
    if (probe(&want[0], true, patient) < 0 && lacks_v6(errno)) {
      dual = false;
      want[0] = v4(INADDR_ANY, port);
    }
  }
  unsigned good = 0;
  for (unsigned i = 0; i < n; i++) {
    if (probe(&want[i], dual, patient) == 0)
      want[good++] = want[i];
    else if (!(optional[i] && lacks_v6(errno)))
      return err_errno(err, errno, "listen on port %u", port);
  }
  for (unsigned s = 0; s < sets; s++)
    for (unsigned i = 0; i < good; i++) {
      int fd = open_one(&want[i], true, dual);
      ret[s * LISTEN_ADDRESSES_MAX + i] = fd;
      if (fd >= 0)
        continue;
      err_errno(err, errno, "listen on port %u", port);
      for (unsigned k = 0; k < s * LISTEN_ADDRESSES_MAX + i; k++)
        if (k % LISTEN_ADDRESSES_MAX < good)
          close(ret[k]);
      return -1;
    }
  *count = good;
  return 0;
}
