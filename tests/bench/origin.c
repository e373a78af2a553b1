/* The origin of the proxy's benchmark: answers every request with N bytes. One thread, epoll, level-triggered.
 *   origin PORT SIZE
 * It takes whatever ends in a blank line for a request. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
  int fd;
  unsigned matched;  /* of CR LF CR LF */
  size_t owed, sent; /* bytes of answers to send; of the current one */
};

static char *answer;
static size_t answer_len;
static int epoll_fd;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void watch(int op, struct conn *c, uint32_t events) {
  struct epoll_event ev = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, op, c->fd, &ev) < 0)
    die("epoll_ctl");
}

static int flush_to(struct conn *c) {
  while (c->owed) {
    size_t left = answer_len - c->sent;
    ssize_t n = send(c->fd, answer + c->sent, left, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
      watch(EPOLL_CTL_MOD, c, EPOLLIN | EPOLLOUT);
      return 0;
    }
    if (n < 0)
      return -1;
    c->sent += (size_t)n;
    if (c->sent == answer_len) {
      c->sent = 0;
      c->owed--;
    }
  }
  return 0;
}

static int serve(struct conn *c, uint32_t events) {
  static const char mark[] = "\r\n\r\n";
  static char data[65536];
  if (events & EPOLLIN) {
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
      return -1;
    for (ssize_t i = 0; i < n; i++) {
      c->matched = data[i] == mark[c->matched] ? c->matched + 1 : data[i] == '\r' ? 1 : 0;
      if (c->matched == 4) {
        c->matched = 0;
        c->owed++;
      }
    }
  }
  if (events & EPOLLOUT)
    watch(EPOLL_CTL_MOD, c, EPOLLIN);
  return flush_to(c);
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  size_t size = strtoull(argv[2], NULL, 10);
  answer = malloc(size + 256);
  if (!answer)
    die("malloc");
  int head = snprintf(answer, 256, "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", size);
  memset(answer + head, 'x', size);
  answer_len = (size_t)head + size;
  int on = 1;
  struct conn listener = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(listener.fd, (const struct sockaddr *)&a, sizeof a) < 0 || listen(listener.fd, 4096) < 0 || (epoll_fd = epoll_create1(0)) < 0)
    die("listen");
  watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
  for (;;) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll_fd, events, 256, -1);
    for (int i = 0; i < n; i++) {
      struct conn *c = events[i].data.ptr;
      if (c != &listener) {
        if (serve(c, events[i].events) < 0) {
          close(c->fd);
          free(c);
        }
        continue;
      }
      int fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK);
      if (fd < 0)
        continue;
      c = calloc(1, sizeof *c);
      if (!c)
        die("calloc");
      c->fd = fd;
      watch(EPOLL_CTL_ADD, c, EPOLLIN);
    }
  }
}
