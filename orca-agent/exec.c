/* A command in a container, for the keeper's exec probes: made, started, its output's tail kept, its exit code asked for. When its time is
 * over its processes are killed: Docker has no call for that. Of one whose end is not known the mark stays: the next agent ends it. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/docker_frames.h"
#include "orca-agent/exec_marks.h"
#include "orca-agent/exec_process.h"
#include "orca-agent/keeper_rpc.h"
#include "proto/keeper.pb-c.h"

#define TAIL 256u
#define MAX_OUTPUT ((size_t)16 << 20)
#define QUICK (10 * NS_PER_SEC)
#define MAX_TIMEOUT_MS 600000u

struct exec {
  struct agent *a;
  struct bus_call *call; /* NULL: the keeper went away */
  struct docker_call *docker;
  struct loop_timer timer;
  char container[AGENT_CONTAINER_ID], id[AGENT_CONTAINER_ID];
  struct docker_frames frames;
  char tail[TAIL];
  size_t tail_len, total;
  bool timed_out, bad_frames;
  bool over; /* nothing runs of it, as far as can be known */
};

static void exec_free(struct exec *e) {
  loop_timer_cancel(e->a->loop, &e->timer);
  if (e->id[0] && e->over)
    exec_unmark(e->a->exec_marks, e->id);
  free(e);
}

static void give_up(struct exec *e, enum err_code code, const char *why) {
  struct err err;
  err_set(&err, code, "%s", why);
  if (e->call)
    bus_fail(e->call, &err);
  exec_free(e);
}

static void finish(struct exec *e, int32_t exit_code) {
  char text[TAIL + 1];
  size_t n = 0;
  for (size_t at = 0; at < e->tail_len; at++) {
    unsigned char c = (unsigned char)e->tail[at];
    text[n++] = c >= 0x20 && c < 0x7f ? (char)c : c == '\n' ? ' ' : '?';
  }
  text[n] = 0;
  if (e->call) {
    Keeper__ExecResult result = KEEPER__EXEC_RESULT__INIT;
    PB_SET(&result, exit_code, exit_code);
    PB_SET(&result, timed_out, e->timed_out);
    result.output = text;
    Keeper__Reply reply = KEEPER__REPLY__INIT;
    reply.body_case = KEEPER__REPLY__BODY_EXEC;
    reply.exec = &result;
    bus_reply(e->call, &reply.base);
  }
  exec_free(e);
}

static void on_output(void *arg, int stream, const uint8_t *data, size_t len) {
  (void)stream;
  struct exec *e = arg;
  if (len >= TAIL) {
    memcpy(e->tail, data + len - TAIL, TAIL);
    e->tail_len = TAIL;
    return;
  }
  if (e->tail_len + len > TAIL) {
    size_t drop = e->tail_len + len - TAIL;
    memmove(e->tail, e->tail + drop, e->tail_len - drop);
    e->tail_len -= drop;
  }
  memcpy(e->tail + e->tail_len, data, len);
  e->tail_len += len;
}

static bool on_stream(void *arg, const uint8_t *data, size_t len) {
  struct exec *e = arg;
  e->total += len;
  e->bad_frames = !docker_frames_feed(&e->frames, data, len, on_output, e) || e->total > MAX_OUTPUT;
  return !e->bad_frames;
}

static void on_inspected(void *arg, const struct docker_reply *reply) {
  struct exec *e = arg;
  e->docker = NULL;
  if (reply->code != ERR_NONE) {
    e->over = reply->code == ERR_NOT_FOUND;
    give_up(e, reply->code, reply->message);
    return;
  }
  bool running = json_is_true(json_object_get(reply->json, "Running"));
  json_int_t code = json_integer_value(json_object_get(reply->json, "ExitCode"));
  if (e->timed_out && running)
    exec_process_signal(e->container, exec_process_pid(reply->json), SIGKILL);
  e->over = !running || e->timed_out;
  if (!e->over) {
    give_up(e, ERR_IO, "the command's output ended before it did");
    return;
  }
  finish(e, code >= INT32_MIN && code <= INT32_MAX ? (int32_t)code : -1);
}

static void inspect(struct exec *e) {
  char path[AGENT_CONTAINER_ID + 32];
  snprintf(path, sizeof path, "/exec/%s/json", e->id);
  e->docker = docker_call(e->a->docker, &(struct docker_options){.method = "GET", .path = path, .timeout_ns = QUICK, .done = on_inspected, .arg = e});
  if (!e->docker)
    give_up(e, ERR_MEMORY, "no memory");
}

static void on_ended(void *arg, const struct docker_reply *reply) {
  struct exec *e = arg;
  e->docker = NULL;
  if (reply->code != ERR_NONE && !e->bad_frames) {
    give_up(e, reply->code, reply->message);
    return;
  }
  e->timed_out = e->timed_out || e->bad_frames; /* one that floods us is ended like one that hangs */
  loop_timer_cancel(e->a->loop, &e->timer);
  inspect(e);
}

static void on_created(void *arg, const struct docker_reply *reply) {
  struct exec *e = arg;
  e->docker = NULL;
  const char *id = json_string_value(json_object_get(reply->json, "Id"));
  if (reply->code != ERR_NONE || !id || strlen(id) >= sizeof e->id || strspn(id, "0123456789abcdef") != strlen(id)) {
    give_up(e, reply->code != ERR_NONE ? reply->code : ERR_INVALID, reply->code != ERR_NONE ? reply->message : "Docker's answer names no exec");
    return;
  }
  snprintf(e->id, sizeof e->id, "%s", id);
  exec_mark(e->a->exec_marks, e->id, e->container);
  char path[AGENT_CONTAINER_ID + 32];
  snprintf(path, sizeof path, "/exec/%s/start", e->id);
  json_t *body = json_pack("{s:b, s:b}", "Detach", 0, "Tty", 0);
  e->docker = body
                  ? docker_call(e->a->docker,
                                &(struct docker_options){.method = "POST", .path = path, .body = body, .data = on_stream, .done = on_ended, .arg = e})
                  : NULL;
  if (!e->docker)
    give_up(e, ERR_MEMORY, "no memory");
}

static void on_timeout(void *arg) {
  struct exec *e = arg;
  docker_cancel(e->docker);
  e->docker = NULL;
  e->timed_out = true;
  if (e->id[0])
    inspect(e);
  else
    finish(e, -1);
}

static void on_cancelled(void *arg) {
  struct exec *e = arg;
  e->call = NULL; /* it goes on to its end, for nobody */
}

void exec_run(struct agent *a, struct bus_call *call, const char *container, char *const *argv, size_t argc, uint32_t timeout_ms) {
  static const struct bus_answer_ops ops = {.cancelled = on_cancelled};
  struct exec *e = calloc(1, sizeof *e);
  json_t *args = json_array(), *body = NULL;
  char path[AGENT_CONTAINER_ID + 32];
  bool ok = e && args;
  for (size_t n = 0; ok && n < argc; n++)
    ok = json_array_append_new(args, json_string(argv[n])) == 0;
  body = ok ? json_pack("{s:O, s:b, s:b}", "Cmd", args, "AttachStdout", 1, "AttachStderr", 1) : NULL;
  json_decref(args);
  if (!body) {
    struct err err;
    err_set(&err, ERR_MEMORY, "no memory");
    bus_fail(call, &err);
    free(e);
    return;
  }
  e->a = a;
  e->call = call;
  snprintf(e->container, sizeof e->container, "%s", container);
  e->timer = (struct loop_timer){.cb = on_timeout, .arg = e};
  bus_answer_on(call, &ops, e);
  if (timeout_ms == 0 || timeout_ms > MAX_TIMEOUT_MS)
    timeout_ms = MAX_TIMEOUT_MS;
  snprintf(path, sizeof path, "/containers/%s/exec", container);
  e->docker = docker_call(a->docker,
                          &(struct docker_options){.method = "POST", .path = path, .body = body, .timeout_ns = QUICK, .done = on_created, .arg = e});
  if (!e->docker || loop_timer_in(a->loop, &e->timer, (int64_t)timeout_ms * NS_PER_MS, NULL) < 0) {
    docker_cancel(e->docker);
    give_up(e, ERR_MEMORY, "no memory");
  }
}
