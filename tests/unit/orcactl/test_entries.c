/* What `events`, `audit` and `logs` ask for and print; and that who follows one ends with whoever reads it, though nothing happens any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "orcactl/ctl.h"

#define ENDS_WITHIN_MS 5000 /* at once, on a machine with other things to do */

struct api { /* one that answers what it is told to */
  int listener, connection;
  pid_t orcactl;
  int out; /* its stdout */
  char asked[512];
};

static void start(struct api *a, const char *const *argv) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  int pipes[2], argc = 0;
  while (argv[argc])
    argc++;
  *a = (struct api){.connection = -1};
  a->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(a->listener >= 0);
  assert_int_equal(bind(a->listener, (struct sockaddr *)&at, sizeof at), 0);
  assert_int_equal(listen(a->listener, 4), 0);
  assert_int_equal(getsockname(a->listener, (struct sockaddr *)&at, &len), 0);
  struct context context = {.name = "here", .token = "none"};
  struct err err;
  snprintf(context.url, sizeof context.url, "http://127.0.0.1:%u", ntohs(at.sin_port));
  assert_int_equal(context_save(&context, true, &err), 0);
  assert_int_equal(pipe(pipes), 0);
  fflush(stdout);
  a->orcactl = fork();
  assert_true(a->orcactl >= 0);
  if (a->orcactl == 0) {
    dup2(pipes[1], STDOUT_FILENO);
    close(pipes[0]);
    close(pipes[1]);
    close(a->listener);
    _exit(ctl_main(argc, (char **)(uintptr_t)argv));
  }
  close(pipes[1]);
  a->out = pipes[0];
}

/* Takes the next request; its answer is what is written to the connection until the next one. */
static void take(struct api *a, const char *expected) {
  char request[4096];
  size_t have = 0;
  if (a->connection >= 0)
    close(a->connection);
  a->connection = accept(a->listener, NULL, NULL);
  assert_true(a->connection >= 0);
  for (request[0] = 0; !strstr(request, "\r\n\r\n"); request[have] = 0) {
    ssize_t n = read(a->connection, request + have, sizeof request - 1 - have);
    assert_true(n > 0);
    have += (size_t)n;
  }
  snprintf(a->asked, sizeof a->asked, "%.*s", (int)strcspn(request, "\r"), request);
  assert_string_equal(a->asked, expected);
}

static void say(const struct api *a, const char *text) {
  assert_int_equal(write(a->connection, text, strlen(text)), strlen(text));
}

static void answer(const struct api *a, const char *json) {
  char head[128];
  snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", strlen(json));
  say(a, head);
  say(a, json);
}

static void stream(const struct api *a, const char *events) {
  say(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: this is one\n\n");
  say(a, events);
}

/* Its next line. */
static void reads(const struct api *a, const char *expected) {
  char text[2048];
  size_t have = 0;
  do
    assert_true(have < sizeof text - 1 && read(a->out, text + have, 1) == 1);
  while (text[have++] != '\n');
  text[have] = 0;
  assert_string_equal(text, expected);
}

static void ends(struct api *a, int expected) {
  int status = 0;
  pid_t pid = 0;
  for (int ms = 0; ms < ENDS_WITHIN_MS && pid == 0; ms += 10) {
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    pid = waitpid(a->orcactl, &status, WNOHANG);
  }
  assert_int_equal(pid, a->orcactl);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), expected);
  if (a->connection >= 0)
    close(a->connection);
  close(a->listener);
}

static void goes(struct api *a) {
  close(a->out);
  ends(a, CTL_OK);
}

#define START(a, ...) start((a), (const char *[]){"orcactl", __VA_ARGS__, NULL})

#define DEPLOYED                                                                                                                                     \
  "{\"revision\":7,\"time\":\"2026-11-21T10:00:00Z\",\"severity\":\"info\",\"kind\":\"deploy\",\"project\":\"shop\",\"service\":\"web\","            \
  "\"message\":\"revision 2\",\"actor\":\"admin\"}"

static void events(void **state) {
  (void)state;
  struct api a;
  START(&a, "events", "-f", "--kind", "deploy,rollout", "--project", "shop");
  take(&a, "GET /api/v1/events?limit=100&project=shop&kind=deploy%2Crollout HTTP/1.1");
  answer(&a, "{\"revision\":7,\"events\":[" DEPLOYED "]}");
  reads(&a, "2026-11-21 10:00:00  deploy                shop/web              revision 2 (admin)\n");
  take(&a, "GET /api/v1/events?follow=true&since=7&project=shop&kind=deploy%2Crollout HTTP/1.1");
  stream(&a, "id: 8\nevent: event\ndata: "
             "{\"time\":\"?\",\"severity\":\"error\",\"kind\":\"node.unreachable\",\"node\":\"n1\",\"message\":\"gone\\u001b[2J\"}\n\n");
  reads(&a, "-  node.unreachable      n1                    gone\n");
  goes(&a);
}

static void audit(void **state) {
  (void)state;
  struct api a;
  START(&a, "audit", "-f", "--since", "1h", "-o", "json");
  take(&a, "GET /api/v1/audit?limit=10000&since=1h HTTP/1.1");
  answer(&a, "{\"revision\":9,\"entries\":[{\"actor\":\"admin\"}]}");
  reads(&a, "{\"actor\":\"admin\"}\n");
  take(&a, "GET /api/v1/audit?follow=true&since=9 HTTP/1.1");
  stream(&a, "");
  goes(&a);
}

static void audit_for_people(void **state) {
  (void)state;
  struct api a;
  START(&a, "audit", "--tail", "2", "--actor", "a b");
  take(&a, "GET /api/v1/audit?limit=2&actor=a%20b HTTP/1.1");
  answer(&a, "{\"revision\":9,\"entries\":[{\"time\":\"2026-11-21T10:00:00Z\",\"actor\":\"a b\",\"from\":\"10.0.0.7\",\"method\":\"POST\","
             "\"path\":\"/api/v1/deploy\",\"target\":\"shop/web\",\"result\":\"denied\",\"count\":3}]}");
  reads(&a, "2026-11-21 10:00:00  a b           10.0.0.7         POST   /api/v1/deploy  shop/web  denied (3 times)\n");
  ends(&a, CTL_OK);
  close(a.out);
}

static void while_the_apiserver_is_away(void **state) {
  (void)state;
  struct api a;
  START(&a, "events", "-f", "--tail", "0");
  take(&a, "GET /api/v1/events?limit=0 HTTP/1.1");
  answer(&a, "{\"revision\":3,\"events\":[]}");
  take(&a, "GET /api/v1/events?follow=true&since=3 HTTP/1.1");
  stream(&a, "id: 5\nevent: event\ndata: " DEPLOYED "\n\n");
  reads(&a, "2026-11-21 10:00:00  deploy                shop/web              revision 2 (admin)\n");
  close(a.listener);
  a.listener = -1;
  close(a.connection);
  a.connection = -1;
  goes(&a);
}

static void logs(void **state) {
  (void)state;
  struct api a;
  START(&a, "logs", "shop/web", "-f", "--since", "1h");
  take(&a, "GET /api/v1/services/web/logs?project=shop&events=true&follow=true&since=1h HTTP/1.1");
  stream(&a,
         "event: log\ndata: {\"instance\":\"shop/web.1\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00.000000001Z\",\"text\":\"one\"}\n\n");
  reads(&a, "one\n");
  goes(&a);
}

static int make_home(void **state) {
  static char home[] = "/tmp/orca-entries-XXXXXX";
  setenv("TZ", "UTC", 1);
  alarm(60); /* a read that nobody answers */
  *state = home;
  return mkdtemp(home) && setenv("ORCA_HOME", home, 1) == 0 ? 0 : -1;
}

static int remove_home(void **state) {
  char path[128];
  static const char *const made[] = {"tokens/here", "tokens", "config.json", ""};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
    snprintf(path, sizeof path, "%s/%s", (const char *)*state, made[i]);
    if (remove(path) < 0)
      return -1;
  }
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(events), cmocka_unit_test(audit), cmocka_unit_test(audit_for_people),
                                     cmocka_unit_test(while_the_apiserver_is_away), cmocka_unit_test(logs)};
  return cmocka_run_group_tests(tests, make_home, remove_home);
}
