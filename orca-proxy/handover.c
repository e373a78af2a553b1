#include "orca-proxy/handover.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define WAIT_S 2

static bool path_of(const char *run_dir, struct sockaddr_un *ret) {
  *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
  return (size_t)snprintf(ret->sun_path, sizeof ret->sun_path, "%s/proxy-handover.sock", run_dir) < sizeof ret->sun_path;
}

static bool is_one_of_us(int fd) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

int handover_open(const char *run_dir, struct err *err) {
  struct sockaddr_un at;
  if (!path_of(run_dir, &at))
    return err_set(err, ERR_INVALID, "run_dir is too long");
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return err_errno(err, errno, "%s", at.sun_path);
  unlink(at.sun_path);
  mode_t mask = umask(0177); /* no moment in which others could connect */
  int rc = bind(fd, (const struct sockaddr *)&at, sizeof at);
  int why = errno;
  umask(mask);
  if (rc == 0 && listen(fd, 4) == 0)
    return fd;
  err_errno(err, rc < 0 ? why : errno, "%s", at.sun_path);
  close(fd);
  return -1;
}

union rights {
  struct cmsghdr head;
  char room[CMSG_SPACE(sizeof(int) * LISTEN_MAX)];
};

static bool send_all(int to, const struct listen_sockets *sockets) {
  int fds[LISTEN_MAX];
  union rights rights = {0};
  char byte = 1;
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = rights.room, .msg_controllen = CMSG_SPACE(sizeof(int) * sockets->count)};
  for (unsigned i = 0; i < sockets->count; i++)
    fds[i] = sockets->list[i].fd;
  rights.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * sockets->count), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&rights.head), fds, sizeof(int) * sockets->count);
  return sendmsg(to, &msg, MSG_NOSIGNAL) == 1;
}

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool handover_give(const char *run_dir, int fd, const struct listen_sockets *sockets, int wait_ms) {
  struct sockaddr_un at;
  bool given = false;
  for (int64_t now = now_ms(), end = now + wait_ms; !given && now < end; now = now_ms()) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, (int)(end - now)) <= 0)
      continue;
    int to = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    given = to >= 0 && is_one_of_us(to) && send_all(to, sockets);
    if (to >= 0)
      close(to);
  }
  if (path_of(run_dir, &at) && !given) /* else it may be another's by now: that one has taken it away */
    unlink(at.sun_path);
  close(fd);
  return given;
}

void handover_ask(const char *run_dir, struct listen_sockets *sockets) {
  struct sockaddr_un at;
  struct timeval wait = {.tv_sec = WAIT_S};
  union rights rights = {0};
  char byte;
  struct iovec iov = {.iov_base = &byte, .iov_len = 1};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = rights.room, .msg_controllen = sizeof rights.room};
  int fd = path_of(run_dir, &at) ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
  if (fd < 0)
    return;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) < 0 ||
      connect(fd, (const struct sockaddr *)&at, sizeof at) < 0 || !is_one_of_us(fd) || recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) != 1) {
    close(fd);
    return;
  }
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
        int given;
        memcpy(&given, CMSG_DATA(c) + i * sizeof given, sizeof given);
        listen_adopt(sockets, given);
      }
  close(fd);
  unlink(at.sun_path);
  log_info("took the sockets of the proxy before this one", "sockets", log_u64(sockets->count));
}
