#include "common/daemon/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

#define FIRST 3 /* SD_LISTEN_FDS_START */

/* NULL: no systemd. */
static const char *notify_path(void) {
  const char *path = getenv("NOTIFY_SOCKET");
  return path && (path[0] == '/' || path[0] == '@') && strlen(path) < sizeof((struct sockaddr_un *)0)->sun_path ? path : NULL;
}

bool fdstore_has(void) {
  return notify_path() != NULL;
}

static void say(const char *text, int fd) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  const char *path = notify_path();
  if (!path)
    return;
  memcpy(to.sun_path, path, strlen(path));
  if (path[0] == '@')
    to.sun_path[0] = 0;
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
  struct msghdr msg = {
      .msg_name = &to, .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)), .msg_iov = &iov, .msg_iovlen = 1};
  if (fd >= 0) {
    msg.msg_control = control.room;
    msg.msg_controllen = sizeof control.room;
    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
  }
  int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s < 0 || sendmsg(s, &msg, MSG_NOSIGNAL) < 0)
    log_warn("systemd could not be told of a socket", "error", strerror(errno));
  if (s >= 0)
    close(s);
}

void fdstore_put(const char *name, int fd) {
  char text[320];
  if ((size_t)snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", name) < sizeof text)
    say(text, fd);
}

void fdstore_remove(const char *name) {
  char text[320];
  if ((size_t)snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name) < sizeof text)
    say(text, -1);
}

unsigned fdstore_take(int *ret, unsigned max) {
  const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
  unsigned n = 0;
  unsigned long given = pid && count && strtol(pid, NULL, 10) == getpid() ? strtoul(count, NULL, 10) : 0;
  for (unsigned long i = 0; i < given && i < 4096; i++) {
    int fd = FIRST + (int)i;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
      continue;
    if (n < max)
      ret[n++] = fd;
    else
      close(fd);
  }
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  return n;
}
