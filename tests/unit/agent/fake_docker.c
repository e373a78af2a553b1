#include "tests/unit/agent/fake_docker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void serve(int listener, fake_docker_fn *answer) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    char asked[2048] = "";
    if (fd < 0 || recv(fd, asked, sizeof asked - 1, 0) <= 0)
      _exit(1);
    answer(fd, asked);
  }
}

void fake_docker_open(struct fake_docker *d, fake_docker_fn *answer) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  snprintf(d->path, sizeof d->path, "/tmp/orca-test-docker.%d", (int)getpid());
  snprintf(at.sun_path, sizeof at.sun_path, "%s", d->path);
  d->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (answer ? 0 : SOCK_NONBLOCK), 0);
  assert_int_equal(bind(d->listener, (struct sockaddr *)&at, sizeof at), 0);
  assert_int_equal(listen(d->listener, 8), 0);
  d->child = -1;
  if (!answer)
    return;
  d->child = fork();
  if (d->child == 0)
    serve(d->listener, answer);
  assert_true(d->child > 0);
}

void fake_docker_close(struct fake_docker *d) {
  if (d->child > 0) {
    kill(d->child, SIGKILL);
    waitpid(d->child, NULL, 0);
  }
  close(d->listener);
  unlink(d->path);
}

bool fake_docker_was_asked(struct fake_docker *d) {
  int fd = accept(d->listener, NULL, NULL);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}
