#include "orca-keeper/try.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/err.h"
#include "common/daemon/daemon.h"
#include "proto/keeper.pb-c.h"

#define MAX_BODY ((size_t)4096)
#define EXEC_GRACE_NS NS_PER_SEC /* the agent keeps the time of an exec; this is for an agent that hangs */
#define REASON 256

struct keeper_try {
  struct keeper_try_tools tools;
  keeper_try_done *done;
  void *arg;
  char subject[128]; /* "/healthz", "port 5432" */
  struct http_request *request;
  bool passed; /* an http answer's status was good before its body was read */
  struct loop_io io;
  int fd; /* tcp; -1 */
  struct bus_call *call;
  struct loop_timer timer; /* tcp: its timeout; all: a result that was there at once */
  bool at_once, at_once_success;
  bool broken; /* no memory for a timer: it never started */
  char at_once_reason[REASON];
};

static void try_free(struct keeper_try *t) {
  loop_timer_cancel(t->tools.loop, &t->timer);
  if (t->fd >= 0) {
    loop_io_remove(t->tools.loop, &t->io);
    close(t->fd);
  }
  free(t);
}

static void finish(struct keeper_try *t, bool success, const char *reason) {
  keeper_try_done *done = t->done;
  void *arg = t->arg;
  char copy[REASON];
  snprintf(copy, sizeof copy, "%s", success ? "" : reason);
  try_free(t);
  done(arg, success, copy);
}

/* done comes from the loop, so that callers need not expect it inside of keeper_try_start(). */
static void finish_soon(struct keeper_try *t, bool success, const char *reason) {
  t->at_once = true;
  t->at_once_success = success;
  snprintf(t->at_once_reason, sizeof t->at_once_reason, "%.250s", reason);
  t->broken = loop_timer_in(t->tools.loop, &t->timer, 0, NULL) < 0;
}

/* ---- http ---- */

/* A 2xx body has begun: that is all there is to know. */
static bool on_data(void *arg, const uint8_t *data, size_t len) {
  (void)data;
  (void)len;
  struct keeper_try *t = arg;
  t->passed = true;
  return false;
}

static void on_answer(void *arg, const struct http_answer *answer, const struct err *err) {
  struct keeper_try *t = arg;
  char reason[REASON];
  t->request = NULL;
  if (t->passed || (!err && answer->status >= 200 && answer->status < 400)) {
    finish(t, true, "");
  } else if (err) {
    snprintf(reason, sizeof reason, "http %.100s: %.120s", t->subject, err->code == ERR_TIMEOUT ? "no answer in time" : err->msg);
    finish(t, false, reason);
  } else {
    snprintf(reason, sizeof reason, "http %d from %.120s", answer->status, t->subject);
    finish(t, false, reason);
  }
}

/* The path goes into a request line as it is: only what can stand there. */
static bool path_usable(const char *path) {
  if (*path != '/' || strlen(path) > 1024)
    return false;
  for (; *path; path++)
    if ((unsigned char)*path <= ' ' || (unsigned char)*path >= 0x7f || *path == '#')
      return false;
  return true;
}

static void start_http(struct keeper_try *t, const struct keeper_try_what *what, uint32_t port) {
  static const char *const headers[] = {"User-Agent: orca-keeper/" ORCA_VERSION, "Accept: */*", NULL};
  const char *path = what->probe->path;
  char url[1280];
  snprintf(t->subject, sizeof t->subject, "%.120s", path);
  if (!path_usable(path)) {
    finish_soon(t, false, "the path cannot be asked for");
    return;
  }
  snprintf(url, sizeof url, strchr(what->address, ':') ? "http://[%.64s]:%u%s" : "http://%.64s:%u%s", what->address, port, path);
  const struct http_options options = {.method = "GET",
                                       .url = url,
                                       .headers = headers,
                                       .timeout_ns = what->timeout,
                                       .max_body = MAX_BODY,
                                       .fresh_connection = true,
                                       .data = on_data,
                                       .done = on_answer,
                                       .arg = t};
  struct err err;
  t->request = http_start(t->tools.http, &options, &err);
  if (!t->request)
    finish_soon(t, false, err.msg);
}

/* ---- tcp ---- */

static void tcp_failed(struct keeper_try *t, const char *why) {
  char reason[REASON];
  snprintf(reason, sizeof reason, "tcp %.60s: %.120s", t->subject, why);
  finish(t, false, reason);
}

static void on_connected(void *arg, uint32_t events) {
  (void)events;
  struct keeper_try *t = arg;
  int error = 0;
  socklen_t len = sizeof error;
  char text[96];
  if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
    error = errno;
  if (error)
    tcp_failed(t, strerror_r(error, text, sizeof text));
  else
    finish(t, true, "");
}

static bool parse_address(const char *text, uint32_t port, struct sockaddr_storage *ret, socklen_t *len) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
  memset(ret, 0, sizeof *ret);
  if (port == 0 || port > 65535)
    return false;
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    *len = sizeof *v4;
    return true;
  }
  if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
    return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons((uint16_t)port);
  *len = sizeof *v6;
  return true;
}

static void start_tcp(struct keeper_try *t, const struct keeper_try_what *what, uint32_t port) {
  struct sockaddr_storage to;
  socklen_t len;
  struct err err;
  char text[96], reason[REASON];
  snprintf(t->subject, sizeof t->subject, "port %u", port);
  if (!parse_address(what->address, port, &to, &len)) {
    finish_soon(t, false, "tcp: there is no address to connect to");
    return;
  }
  t->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int error = t->fd < 0 || connect(t->fd, (struct sockaddr *)&to, len) < 0 ? errno : 0;
  if (t->fd < 0 || (error && error != EINPROGRESS)) {
    snprintf(reason, sizeof reason, "tcp %.60s: %.120s", t->subject, strerror_r(error, text, sizeof text));
    finish_soon(t, false, reason);
  } else if (!error) {
    finish_soon(t, true, "");
  } else {
    t->io = (struct loop_io){.cb = on_connected, .arg = t};
    if (loop_io_add(t->tools.loop, &t->io, t->fd, EPOLLOUT, &err) < 0 || loop_timer_in(t->tools.loop, &t->timer, what->timeout, &err) < 0)
      finish_soon(t, false, err.msg);
  }
}

static void on_timer(void *arg) {
  struct keeper_try *t = arg;
  if (t->at_once)
    finish(t, t->at_once_success, t->at_once_reason);
  else
    tcp_failed(t, "no answer in time");
}

/* ---- exec ---- */

static void exec_done(void *arg, const uint8_t *body, size_t len) {
  struct keeper_try *t = arg;
  char reason[REASON];
  struct err err;
  t->call = NULL;
  Keeper__Reply *reply = (Keeper__Reply *)pb_unpack(&keeper__reply__descriptor, body, len, &err);
  bool success = false;
  if (!reply || reply->body_case != KEEPER__REPLY__BODY_EXEC) {
    snprintf(reason, sizeof reason, "exec: the agent's answer is not understood");
  } else {
    const Keeper__ExecResult *result = reply->exec;
    const char *output = PB_STR(result->output);
    success = !PB_GET(result, timed_out, 0) && PB_GET(result, exit_code, -1) == 0;
    if (PB_GET(result, timed_out, 0))
      snprintf(reason, sizeof reason, "exec %.60s: not done in time", t->subject);
    else
      snprintf(reason, sizeof reason, "exec %.60s: exit %d%s%.120s", t->subject, PB_GET(result, exit_code, -1), *output ? ": " : "", output);
  }
  if (reply)
    keeper__reply__free_unpacked(reply, NULL);
  finish(t, success, reason);
}

static void exec_failed(void *arg, const struct err *why) {
  struct keeper_try *t = arg;
  char reason[REASON];
  t->call = NULL;
  snprintf(reason, sizeof reason, "exec: %.200s", why->msg);
  finish(t, false, reason);
}

static void start_exec(struct keeper_try *t, const struct keeper_try_what *what) {
  static const struct bus_call_ops ops = {.done = exec_done, .failed = exec_failed};
  Keeper__Call call = KEEPER__CALL__INIT;
  Keeper__Exec exec = KEEPER__EXEC__INIT;
  call.body_case = KEEPER__CALL__BODY_EXEC;
  call.exec = &exec;
  exec.instance = (char *)(uintptr_t)what->instance;
  exec.container_id = (char *)(uintptr_t)what->container_id;
  exec.n_argv = what->probe->n_exec;
  exec.argv = what->probe->exec;
  PB_SET(&exec, timeout_ms, (uint32_t)(what->timeout / NS_PER_MS));
  snprintf(t->subject, sizeof t->subject, "%.120s", what->probe->exec[0]);
  t->call = bus_call(t->tools.agent, &call.base, what->timeout + EXEC_GRACE_NS, &ops, t);
  if (!t->call)
    finish_soon(t, false, "exec: no memory");
}

/* ---- */

struct keeper_try *keeper_try_start(const struct keeper_try_tools *tools, const struct keeper_try_what *what, keeper_try_done *done, void *arg) {
  struct keeper_try *t = calloc(1, sizeof *t);
  if (!t)
    return NULL;
  t->tools = *tools;
  t->done = done;
  t->arg = arg;
  t->fd = -1;
  t->timer = (struct loop_timer){.cb = on_timer, .arg = t};
  uint32_t port = PB_GET(what->probe, port, 0);
  if (what->probe->n_exec)
    start_exec(t, what);
  else if (PB_GET(what->probe, tcp, 0))
    start_tcp(t, what, port);
  else if (what->probe->path && *what->probe->path)
    start_http(t, what, port);
  else
    finish_soon(t, false, "the probe asks for nothing");
  if (t->broken) {
    keeper_try_cancel(t);
    return NULL;
  }
  return t;
}

void keeper_try_cancel(struct keeper_try *t) {
  if (!t)
    return;
  if (t->request)
    http_cancel(t->request);
  if (t->call)
    bus_call_cancel(t->call);
  try_free(t);
}
