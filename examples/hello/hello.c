/* The smallest honest web service: one static binary that answers every request with a greeting, keeps connections open,
 * and finishes what it has when it is told to stop (SIGTERM). Listens on $PORT (8080); says $GREETING. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 1024
#define HEAD_MAX 8192

struct client {
  size_t len;
  char head[HEAD_MAX];
};

static struct pollfd fds[MAX_CLIENTS + 1]; /* [0] is the listener */
static struct client *clients[MAX_CLIENTS + 1];
static nfds_t count = 1;
static volatile sig_atomic_t stopping;

static void on_term(int signo) {
  (void)signo;
  stopping = 1;
}

static void drop(nfds_t i) {
  close(fds[i].fd);
  free(clients[i]);
  fds[i] = fds[--count];
  clients[i] = clients[count];
}

static bool answer(int fd, const char *head) {
  static char host[64];
  if (!host[0] && gethostname(host, sizeof host - 1) < 0)
    host[0] = '?';
  const char *greeting = getenv("GREETING");
  char body[512], reply[1024];
  int n = strncmp(head, "GET /healthz ", 13) == 0
              ? snprintf(body, sizeof body, "ok\n")
              : snprintf(body, sizeof body, "%s\nserved by container %s\n", greeting ? greeting : "Hello from orca!", host);
  bool last = stopping || strstr(head, "\r\nConnection: close") || strstr(head, " HTTP/1.0\r\n");
  int len = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%s\r\n%s", n,
                     last ? "Connection: close\r\n" : "", body);
  return send(fd, reply, (size_t)len, MSG_NOSIGNAL) == len && !last;
}

/* false: the client is done, or sends what this server doesn't take (a head over 8 KiB). Bodies of requests are not expected. */
static bool serve(nfds_t i) {
  struct client *c = clients[i];
  ssize_t n = recv(fds[i].fd, c->head + c->len, HEAD_MAX - 1 - c->len, 0);
  if (n <= 0)
    return n < 0 && (errno == EAGAIN || errno == EINTR);
  c->len += (size_t)n;
  c->head[c->len] = 0;
  for (char *end; (end = strstr(c->head, "\r\n\r\n"));) {
    end[2] = 0;
    bool more = answer(fds[i].fd, c->head);
    size_t used = (size_t)(end + 4 - c->head);
    c->len -= used;
    memmove(c->head, c->head + used, c->len + 1);
    if (!more)
      return false;
  }
  return c->len < HEAD_MAX - 1;
}

static void welcome(void) {
  int fd = accept4(fds[0].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  struct client *c = fd >= 0 && count <= MAX_CLIENTS ? calloc(1, sizeof *c) : NULL;
  if (!c) {
    if (fd >= 0)
      close(fd);
    return;
  }
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  clients[count] = c;
  fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

int main(void) {
  const char *port = getenv("PORT");
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(port ? atoi(port) : 8080))};
  struct sigaction term = {.sa_handler = on_term};
  sigaction(SIGTERM, &term, NULL);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 ||
      listen(fd, 512) < 0) {
    perror("hello: listen");
    return 1;
  }
  printf("hello: listening on port %d\n", ntohs(any.sin_port));
  fflush(stdout);
  fds[0] = (struct pollfd){.fd = fd, .events = POLLIN};
  while (!stopping) {
    if (poll(fds, count, -1) < 0 && errno != EINTR)
      return 1;
    for (nfds_t i = count - 1; i >= 1; i--)
      if (fds[i].revents && !serve(i))
        drop(i);
    if (fds[0].revents)
      welcome();
  }
  return 0;
}
