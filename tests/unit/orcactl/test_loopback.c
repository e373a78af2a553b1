/* Whose the other end of a connection to this machine is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orcactl/loopback.h"

#define STRANGER 65534

enum act { WAITS, ACCEPTS, ACCEPTS_AND_CLOSES };

union address {
  struct sockaddr any;
  struct sockaddr_in6 v6;
  struct sockaddr_in v4;
};

static socklen_t make(const char *text, unsigned port, union address *ret) {
  *ret = (union address){.v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)}};
  if (inet_pton(AF_INET6, text, &ret->v6.sin6_addr) == 1)
    return sizeof ret->v6;
  *ret = (union address){.v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}};
  assert_int_equal(inet_pton(AF_INET, text, &ret->v4.sin_addr), 1);
  return sizeof ret->v4;
}

/* In a child of that user: the port is told when it listens, one byte more when it has done what it does. */
static pid_t listener(uid_t user, const char *on, enum act act, int *ret_pipe) {
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child) {
    close(pipes[1]);
    *ret_pipe = pipes[0];
    return child;
  }
  union address at;
  socklen_t len = make(on, 0, &at);
  if (user && setresuid(user, user, user) < 0)
    _exit(1);
  int fd = socket(at.any.sa_family, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, &at.any, len) < 0 || listen(fd, 4) < 0 || getsockname(fd, &at.any, &len) < 0)
    _exit(1);
  unsigned port = ntohs(at.any.sa_family == AF_INET6 ? at.v6.sin6_port : at.v4.sin_port);
  if (write(pipes[1], &port, sizeof port) != sizeof port)
    _exit(1);
  if (act != WAITS && accept(fd, NULL, NULL) < 0)
    _exit(1);
  if (act == ACCEPTS_AND_CLOSES)
    close(fd);
  if (write(pipes[1], "x", 1) != 1)
    _exit(1);
  pause();
  _exit(0);
}

static enum err_code judged(uid_t user, const char *on, const char *server, enum act act) {
  struct err err = {0};
  char own[INET6_ADDRSTRLEN], done;
  unsigned port = 0;
  int told;
  pid_t child = listener(user, on, act, &told);
  assert_int_equal(read(told, &port, sizeof port), sizeof port);
  union address at;
  socklen_t len = make(server, port, &at);
  int fd = socket(at.any.sa_family, SOCK_STREAM, 0);
  assert_int_equal(connect(fd, &at.any, len), 0);
  assert_int_equal(read(told, &done, 1), 1);
  assert_int_equal(getsockname(fd, &at.any, &len), 0);
  bool v6 = at.any.sa_family == AF_INET6;
  inet_ntop(at.any.sa_family, v6 ? (void *)&at.v6.sin6_addr : (void *)&at.v4.sin_addr, own, sizeof own);
  int rc = loopback_check(server, (int)port, own, ntohs(v6 ? at.v6.sin6_port : at.v4.sin_port), &err);
  assert_int_equal(rc, err.code == ERR_NONE ? 0 : -1);
  if (rc < 0)
    assert_non_null(strstr(err.msg, "(65534)"));
  close(fd);
  close(told);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return err.code;
}

static void a_port_is_somebodys(void **state) {
  (void)state;
  static const struct {
    const char *on, *server;
  } cases[] = {{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "127.0.0.1"}, {"127.3.2.1", "127.3.2.1"}, {"::1", "::1"}, {"::", "::1"}, {"::", "127.0.0.1"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    for (enum act act = WAITS; act <= ACCEPTS_AND_CLOSES; act++) {
      assert_int_equal(judged(0, cases[i].on, cases[i].server, act), ERR_NONE);
      if (geteuid() == 0 && judged(STRANGER, cases[i].on, cases[i].server, act) != ERR_DENIED)
        fail_msg("%s on %s, %d", cases[i].server, cases[i].on, (int)act);
    }
}

static void what_is_not_here_is_nobodys(void **state) {
  (void)state;
  struct err err;
  assert_int_equal(loopback_check("127.0.0.1", 1, "127.0.0.1", 2, &err), 0);
  assert_int_equal(loopback_check("localhost", 1, "127.0.0.1", 2, &err), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_port_is_somebodys), cmocka_unit_test(what_is_not_here_is_nobodys)};
  return cmocka_run_group_tests_name("loopback", tests, NULL, NULL);
}
