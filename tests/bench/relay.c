/* The floor of what a proxied request costs: a relay that parses nothing. Each client gets a connection of its own to the origin, and bytes are
 * read and sent both ways. One thread, epoll, edge-triggered, registered once.
 *   relay PORT ORIGIN_PORT */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ 65536

struct half {
  int fd;
  struct half *other;
  bool writable, readable, dead;
  char *kept; /* bytes that this side has not taken yet */
  size_t kept_at, kept_len;
};

static int epoll_fd;
static char data[READ];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void end(struct half *h) {
  struct half *o = h->other;
  if (h->dead)
    return;
  h->dead = o->dead = true;
  close(h->fd);
  close(o->fd);
}

/* Sends to h; what it does not take is kept. */
static bool give(struct half *h, const char *from, size_t len) {
  ssize_t n = send(h->fd, from, len, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN)
    return false;
  size_t sent = n < 0 ? 0 : (size_t)n;
  if (sent == len)
    return true;
  h->writable = false;
  if (!h->kept && !(h->kept = malloc(READ)))
    return false;
  memmove(h->kept, from + sent, len - sent);
  h->kept_at = 0;
  h->kept_len = len - sent;
  return true;
}

static bool drain(struct half *h) {
  while (h->kept_len && h->writable) {
    ssize_t n = send(h->fd, h->kept + h->kept_at, h->kept_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
      return false;
    if (n < 0) {
      h->writable = false;
      break;
    }
    h->kept_at += (size_t)n;
    h->kept_len -= (size_t)n;
  }
  return true;
}

static void move(struct half *from, struct half *to) {
  if (!drain(to)) {
    end(from);
    return;
  }
  while (from->readable && !to->kept_len) {
    ssize_t n = recv(from->fd, data, READ, 0);
    if (n < 0 && errno == EAGAIN) {
      from->readable = false;
      return;
    }
    if (n <= 0 || !give(to, data, (size_t)n)) {
      end(from);
      return;
    }
    if (n < READ)
      from->readable = false;
  }
}

static void watch(struct half *h) {
  struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = h};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, h->fd, &ev) < 0)
    die("epoll_ctl");
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  int on = 1;
  struct half listener = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in origin = a;
  origin.sin_port = htons((uint16_t)atoi(argv[2]));
  setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(listener.fd, (const struct sockaddr *)&a, sizeof a) < 0 || listen(listener.fd, 4096) < 0 || (epoll_fd = epoll_create1(0)) < 0)
    die("listen");
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &listener};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener.fd, &ev);
  for (;;) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll_fd, events, 256, -1);
    struct half *buried[256];
    int dead = 0;
    for (int i = 0; i < n; i++) {
      struct half *h = events[i].data.ptr;
      if (h == &listener) {
        int fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
          continue;
        struct half *pair = calloc(2, sizeof *pair);
        int to = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (!pair || to < 0)
          die("client");
        setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(to, (const struct sockaddr *)&origin, sizeof origin) < 0 && errno != EINPROGRESS)
          die("connect");
        pair[0] = (struct half){.fd = fd, .other = &pair[1], .writable = true, .readable = true};
        pair[1] = (struct half){.fd = to, .other = &pair[0]};
        watch(&pair[0]);
        watch(&pair[1]);
        continue;
      }
      if (h->dead)
        continue;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        h->readable = true;
      if (events[i].events & EPOLLOUT)
        h->writable = true;
      move(h, h->other);
      if (!h->dead)
        move(h->other, h);
      if (h->dead)
        buried[dead++] = h < h->other ? h : h->other;
    }
    for (int i = 0; i < dead; i++) {
      free(buried[i][0].kept);
      free(buried[i][1].kept);
      free(buried[i]);
    }
  }
}
