/* States of a session:
 *
 *   CREATING  Docker makes the exec
 *   STARTING  the raw connection is open, its answer's head has not come
 *   RUNNING   bytes go both ways
 *   ENDED     Docker has closed the stream: its exit code is asked for until there is one, then said
 *   HANGUP    nobody listens any more (call is NULL): the process is ended, in all states it may have got into */
#include "orca-agent/exec_session.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/http/upgrade.h"
#include "common/log.h"
#include "orca-agent/agent.h"
#include "orca-agent/docker_frames.h"
#include "orca-agent/exec_fault.h"
#include "orca-agent/exec_marks.h"
#include "orca-agent/exec_process.h"
#include "orca-agent/exec_request.h"

#define QUICK (10 * NS_PER_SEC)
#define PIECE ((size_t)32 << 10)    /* read at once, and pushed in one item at most */
#define PID_AFTER (500 * NS_PER_MS) /* a short command needs no looking after */
#define EXIT_FIRST (5 * NS_PER_MS)  /* Docker closes the stream a little before it knows the exit code */
#define EXIT_MAX NS_PER_SEC
#define HANGUP_EVERY (200 * NS_PER_MS)
#define HANGUP_AGAIN NS_PER_SEC /* while Docker is away */
#define HANGUP_KILL 25u         /* tries: five seconds after SIGHUP */
#define HANGUP_MAX 50u
#define HANGUP_NOT_STARTED 10u /* Docker may still be about to start what was asked for */

enum state { CREATING, STARTING, RUNNING, ENDED, HANGUP };

struct session {
  struct exec_sessions *execs;
  struct session *next, *prev;
  enum state state;
  uint64_t id;
  struct bus_conn *conn;
  struct bus_call *call, *input;
  struct docker_call *docker, *resizing;
  char instance[INSTANCE_ID_MAX], container[AGENT_CONTAINER_ID], exec_id[AGENT_CONTAINER_ID];
  bool tty, stdin_open, eof, half_closed, bad_frames, have_exit;
  bool over; /* nothing runs of it, as far as can be known: its mark goes */
  int32_t exit_code;
  struct exec_fault fault; /* whether Docker's own words were that there is no such command */
  pid_t pid;               /* 0: not known yet */
  uint32_t rows, cols;
  bool resized; /* rows and cols are not told yet */
  int fd;
  struct loop_io io;
  struct loop_timer timer;
  int64_t wait;
  unsigned tries;
  struct http_upgrade head;
  struct docker_frames frames;
  struct buf request;   /* alone until its answer has come: what follows it too early, Docker loses */
  struct buf to_docker; /* input */
  struct buf unsent;    /* output that had no credit: stream, length, bytes */
  struct buf item;      /* of one stream, while frames are taken apart */
  int item_stream;
};

struct exec_sessions {
  struct agent *a;
  struct session *list;
  size_t count;
};

static void ask_exit(struct session *s);
static void hang_up(struct session *s);

/* ---- life ---- */

static void close_stream(struct session *s) {
  if (s->fd < 0)
    return;
  if (s->io.active)
    loop_io_remove(s->execs->a->loop, &s->io);
  close(s->fd);
  s->fd = -1;
}

static void fail_input(struct session *s, enum err_code code, const char *why) {
  struct err err;
  struct bus_call *input = s->input;
  s->input = NULL;
  err_set(&err, code, "%s", why);
  if (input)
    bus_fail(input, &err);
}

static void on_io(void *arg, uint32_t events);
static void on_timer(void *arg);

static struct session *session_new(struct exec_sessions *execs, const char *container) {
  struct session *s = calloc(1, sizeof *s);
  if (!s)
    return NULL;
  *s = (struct session){.execs = execs,
                        .fd = -1,
                        .next = execs->list,
                        .request = BUF_INIT(4096),
                        .to_docker = BUF_INIT(EXEC_INPUT_MAX),
                        .unsent = BUF_INIT(4 * PIECE),
                        .item = BUF_INIT(PIECE)};
  s->io = (struct loop_io){.cb = on_io, .arg = s};
  s->timer = (struct loop_timer){.cb = on_timer, .arg = s};
  http_upgrade_init(&s->head);
  snprintf(s->container, sizeof s->container, "%s", container);
  if (s->next)
    s->next->prev = s;
  execs->list = s;
  execs->count++;
  return s;
}

static void session_free(struct session *s) {
  struct exec_sessions *execs = s->execs;
  fail_input(s, ERR_NOT_FOUND, "the command has ended");
  if (s->exec_id[0] && (s->over || s->have_exit))
    exec_unmark(execs->a->exec_marks, s->exec_id);
  docker_cancel(s->docker);
  docker_cancel(s->resizing);
  close_stream(s);
  loop_timer_cancel(execs->a->loop, &s->timer);
  http_upgrade_fini(&s->head);
  buf_free(&s->request);
  buf_free(&s->to_docker);
  buf_free(&s->unsent);
  buf_free(&s->item);
  if (s->prev)
    s->prev->next = s->next;
  else
    execs->list = s->next;
  if (s->next)
    s->next->prev = s->prev;
  execs->count--;
  free(s);
}

static void set_timer(struct session *s, int64_t in) {
  if (loop_timer_in(s->execs->a->loop, &s->timer, in, NULL) < 0)
    log_error("no memory for a timer");
}

/* Whoever asked hears why; what may run by now is ended. */
static void give_up(struct session *s, enum err_code code, const char *why) {
  struct err err;
  struct bus_call *call = s->call;
  s->call = NULL;
  err_set(&err, code, "%s", why);
  if (call)
    bus_fail(call, &err);
  hang_up(s);
}

/* ---- ending what nobody listens to ---- */

static void hangup_again(struct session *s, int64_t in) {
  if (loop_timer_in(s->execs->a->loop, &s->timer, in, NULL) < 0)
    session_free(s);
}

static void on_hangup_inspected(void *arg, const struct docker_reply *reply) {
  struct session *s = arg;
  s->docker = NULL;
  if (reply->code == ERR_UNAVAILABLE || reply->code == ERR_TIMEOUT) {
    hangup_again(s, HANGUP_AGAIN);
    return;
  }
  if (reply->code != ERR_NONE) {
    s->over = reply->code == ERR_NOT_FOUND;
    if (!s->over)
      log_warn("a command that nobody listens to may go on", "container", s->container, "error", reply->message);
    session_free(s);
    return;
  }
  bool running = json_is_true(json_object_get(reply->json, "Running"));
  bool never_ran = !running && json_is_null(json_object_get(reply->json, "ExitCode"));
  s->pid = exec_process_pid(reply->json);
  unsigned try = s->tries++;
  s->over = !running && !(never_ran && try < HANGUP_NOT_STARTED);
  if (s->over || try >= HANGUP_MAX) {
    session_free(s);
    return;
  }
  if (s->pid && (s->wait == 0 || try >= HANGUP_KILL)) {
    if (!exec_process_signal(s->container, s->pid, s->wait == 0 ? SIGHUP : SIGKILL)) {
      s->over = true;
      session_free(s);
      return;
    }
    s->wait = 1;
  }
  hangup_again(s, HANGUP_EVERY);
}

static void inspect(struct session *s, docker_done_fn *done) {
  char path[AGENT_CONTAINER_ID + 32];
  snprintf(path, sizeof path, "/exec/%s/json", s->exec_id);
  s->docker = docker_call(s->execs->a->docker, &(struct docker_options){.method = "GET", .path = path, .timeout_ns = QUICK, .done = done, .arg = s});
}

static void hang_up(struct session *s) {
  fail_input(s, ERR_CANCELLED, "cancelled");
  docker_cancel(s->docker);
  s->docker = NULL;
  enum state was = s->state;
  s->state = HANGUP;
  close_stream(s);
  loop_timer_cancel(s->execs->a->loop, &s->timer);
  if (was == CREATING || (was == ENDED && s->have_exit)) {
    session_free(s); /* nothing runs */
    return;
  }
  s->tries = 0;
  s->wait = 0;
  inspect(s, on_hangup_inspected);
  if (!s->docker)
    session_free(s);
}

static void on_cancelled(void *arg) {
  struct session *s = arg;
  s->call = NULL;
  hang_up(s);
}

/* ---- output ---- */

/* With nothing to wait for it is not watched at all: a closed connection would be told again and again. */
static void update_events(struct session *s) {
  struct loop *loop = s->execs->a->loop;
  bool writes = s->state == STARTING ? s->request.len > 0 : s->to_docker.len > 0;
  uint32_t events = (s->unsent.len ? 0u : (uint32_t)EPOLLIN) | (writes ? (uint32_t)EPOLLOUT : 0u);
  if (s->fd < 0 || (events == s->io.events && s->io.active))
    return;
  if (!events)
    loop_io_remove(loop, &s->io);
  else if ((s->io.active ? loop_io_change(loop, &s->io, events, NULL) : loop_io_add(loop, &s->io, s->fd, events, NULL)) < 0)
    log_error("epoll refuses a stream of Docker's");
}

static int push(struct session *s, int stream, const uint8_t *data, size_t len) {
  Node__ExecOutput out = NODE__EXEC_OUTPUT__INIT;
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_EXEC;
  item.exec = &out;
  ProtobufCBinaryData bytes = {len, (uint8_t *)(uintptr_t)data};
  if (stream == 2)
    PB_SET(&out, err, bytes);
  else
    PB_SET(&out, out, bytes);
  return bus_push(s->call, &item.base);
}

static void emit(struct session *s, int stream, const uint8_t *data, size_t len) {
  exec_fault_feed(&s->fault, data, len);
  if (!len || (!s->unsent.len && push(s, stream, data, len) == 0))
    return;
  uint8_t which = (uint8_t)stream;
  uint32_t size = (uint32_t)len;
  buf_add(&s->unsent, &which, 1);
  buf_add(&s->unsent, &size, sizeof size);
  buf_add(&s->unsent, data, len);
}

static void flush_item(struct session *s) {
  emit(s, s->item_stream, s->item.data, s->item.len);
  buf_reset(&s->item);
}

static void on_frame(void *arg, int stream, const uint8_t *data, size_t len) {
  struct session *s = arg;
  if (s->item.len && s->item_stream != stream)
    flush_item(s);
  s->item_stream = stream;
  buf_add(&s->item, data, len);
}

static void take_output(struct session *s, const uint8_t *data, size_t len) {
  if (s->tty) {
    emit(s, 1, data, len);
  } else {
    s->bad_frames = !docker_frames_feed(&s->frames, data, len, on_frame, s);
    flush_item(s);
  }
}

/* The exit code is the last word: it waits for credit like all before it. */
static void say_exit(struct session *s) {
  Node__ExecOutput out = NODE__EXEC_OUTPUT__INIT;
  PB_SET(&out, exit_code, s->exit_code);
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_EXEC;
  item.exec = &out;
  if (s->unsent.len || bus_push(s->call, &item.base) == 1)
    return;
  bus_reply(s->call, NULL);
  s->call = NULL;
  session_free(s);
}

static void on_ready(void *arg) {
  struct session *s = arg;
  while (s->unsent.len) {
    uint32_t size;
    memcpy(&size, s->unsent.data + 1, sizeof size);
    if (push(s, s->unsent.data[0], s->unsent.data + 1 + sizeof size, size) == 1)
      return;
    buf_consume(&s->unsent, 1 + sizeof size + size);
  }
  if (s->have_exit)
    say_exit(s);
  else
    update_events(s);
}

/* ---- the end ---- */

static void on_exit_inspected(void *arg, const struct docker_reply *reply) {
  struct session *s = arg;
  s->docker = NULL;
  if (reply->code != ERR_NONE) {
    give_up(s, reply->code, reply->message);
    return;
  }
  json_int_t code = json_integer_value(json_object_get(reply->json, "ExitCode"));
  if (json_is_true(json_object_get(reply->json, "Running"))) { /* it has closed its output, and goes on */
    s->pid = exec_process_pid(reply->json);
    set_timer(s, s->wait);
    s->wait = s->wait * 2 < EXIT_MAX ? s->wait * 2 : EXIT_MAX;
    return;
  }
  s->have_exit = true;
  s->exit_code = exec_fault_code(&s->fault, code >= INT32_MIN && code <= INT32_MAX ? (int32_t)code : -1);
  say_exit(s);
}

static void ask_exit(struct session *s) {
  inspect(s, on_exit_inspected);
  if (!s->docker)
    give_up(s, ERR_MEMORY, "no memory");
}

static void on_stream_end(struct session *s) {
  close_stream(s);
  loop_timer_cancel(s->execs->a->loop, &s->timer);
  fail_input(s, ERR_NOT_FOUND, "the command takes no more input");
  docker_cancel(s->docker); /* of its pid */
  s->docker = NULL;
  buf_free(&s->to_docker);
  s->state = ENDED;
  s->wait = EXIT_FIRST;
  ask_exit(s);
}

/* ---- terminal ---- */

static void resize(struct session *s);

static void on_resized(void *arg, const struct docker_reply *reply) {
  struct session *s = arg;
  s->resizing = NULL;
  if (reply->code != ERR_NONE)
    log_debug("a terminal was not resized", "instance", s->instance, "error", reply->message);
  resize(s);
}

static void resize(struct session *s) {
  if (!s->resized || s->resizing || s->state != RUNNING)
    return;
  char path[AGENT_CONTAINER_ID + 64];
  snprintf(path, sizeof path, "/exec/%s/resize?h=%" PRIu32 "&w=%" PRIu32, s->exec_id, s->rows, s->cols);
  s->resized = false;
  s->resizing =
      docker_call(s->execs->a->docker, &(struct docker_options){.method = "POST", .path = path, .timeout_ns = QUICK, .done = on_resized, .arg = s});
}

static void want_size(struct session *s, uint32_t rows, uint32_t cols) {
  if (!s->tty || !rows || !cols)
    return;
  s->rows = rows;
  s->cols = cols;
  s->resized = true;
  resize(s);
}

/* ---- Docker's stream ---- */

static void input_taken(struct session *s) {
  struct bus_call *input = s->input;
  if (s->eof && !s->half_closed && s->state == RUNNING) {
    s->half_closed = true;
    shutdown(s->fd, SHUT_WR);
  }
  s->input = NULL;
  if (!input)
    return;
  Node__Done done = NODE__DONE__INIT;
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_DONE;
  reply.done = &done;
  bus_reply(input, &reply.base);
}

/* false: the session is gone, or about to be. */
static bool write_out(struct session *s) {
  struct buf *from = s->state == STARTING ? &s->request : &s->to_docker;
  while (from->len) {
    ssize_t n = send(s->fd, from->data, from->len, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN)
      break;
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && s->state == RUNNING) { /* its end comes by reading */
      buf_reset(from);
      fail_input(s, ERR_NOT_FOUND, "the command takes no more input");
      return true;
    }
    if (n < 0) {
      give_up(s, ERR_UNAVAILABLE, "Docker has closed the connection");
      return false;
    }
    buf_consume(from, (size_t)n);
  }
  if (!from->len && s->state == RUNNING)
    input_taken(s);
  return true;
}

static void on_started(struct session *s) {
  Node__ExecOutput out = NODE__EXEC_OUTPUT__INIT;
  PB_SET(&out, started, true);
  Node__Item item = NODE__ITEM__INIT;
  item.body_case = NODE__ITEM__BODY_EXEC;
  item.exec = &out;
  s->state = RUNNING;
  bus_push(s->call, &item.base); /* the first item of all: there is credit, and it is no loss if not */
  set_timer(s, PID_AFTER);
  resize(s);
  write_out(s);
}

static void refused(struct session *s) {
  enum err_code code = s->head.status == 404   ? ERR_NOT_FOUND
                       : s->head.status == 409 ? ERR_CONFLICT
                       : s->head.status == 400 ? ERR_INVALID
                                               : ERR_INTERNAL;
  json_t *json = json_loadb(buf_str(&s->head.body), s->head.body.len, 0, NULL);
  const char *message = json_string_value(json_object_get(json, "message"));
  give_up(s, code, message ? message : "Docker did not start it, and gave no reason");
  json_decref(json);
}

/* false: it is no more. */
static bool take_head(struct session *s, const uint8_t *data, size_t len) {
  size_t used = 0;
  switch (len ? http_upgrade_feed(&s->head, data, len, &used) : http_upgrade_end(&s->head)) {
  case HTTP_UPGRADE_MORE:
    return true;
  case HTTP_UPGRADE_DONE:
    on_started(s);
    take_output(s, data + used, len - used);
    return true;
  case HTTP_UPGRADE_REFUSED:
    refused(s);
    return false;
  case HTTP_UPGRADE_BAD:
    break;
  }
  give_up(s, ERR_UNAVAILABLE, len ? "Docker's answer is not one to an exec" : "Docker has closed the connection");
  return false;
}

static void on_io(void *arg, uint32_t events) {
  struct session *s = arg;
  static uint8_t piece[PIECE]; /* the loop's thread's alone */
  if ((events & EPOLLOUT) && !write_out(s))
    return;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !s->unsent.len) {
    ssize_t n = recv(s->fd, piece, sizeof piece, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      n = -2;
    if (n >= 0 && s->state == STARTING) {
      if (!take_head(s, piece, (size_t)n))
        return;
    } else if (n > 0) {
      take_output(s, piece, (size_t)n);
    } else if (n != -2) {
      on_stream_end(s);
      return;
    }
    if (s->bad_frames || buf_failed(&s->unsent) || buf_failed(&s->item)) {
      give_up(s, ERR_UNAVAILABLE, s->bad_frames ? "Docker's stream is not what it should be" : "no memory");
      return;
    }
  }
  update_events(s);
}

static int connect_docker(struct session *s, struct err *err) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  const char *path = s->execs->a->daemon->config.docker;
  if (strlen(path) >= sizeof to.sun_path)
    return err_set(err, ERR_INVALID, "%s: too long for a socket's path", path);
  memcpy(to.sun_path, path, strlen(path) + 1);
  s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (s->fd < 0)
    return err_errno(err, errno, "a socket for Docker");
  /* A unix socket is connected at once, or not: EAGAIN is a full backlog, which means a Docker that hangs. */
  if (connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 || loop_io_add(s->execs->a->loop, &s->io, s->fd, EPOLLIN | EPOLLOUT, err) < 0) {
    err_errno(err, errno, "%s", path);
    close(s->fd);
    s->fd = -1;
    return -1;
  }
  return 0;
}

static void on_created(void *arg, const struct docker_reply *reply) {
  struct session *s = arg;
  struct err err;
  s->docker = NULL;
  const char *id = json_string_value(json_object_get(reply->json, "Id"));
  if (reply->code != ERR_NONE) {
    give_up(s, reply->code, reply->message);
    return;
  }
  if (!id || !*id || strlen(id) >= sizeof s->exec_id || strspn(id, "0123456789abcdef") != strlen(id)) {
    give_up(s, ERR_INTERNAL, "Docker's answer names no exec");
    return;
  }
  snprintf(s->exec_id, sizeof s->exec_id, "%s", id);
  exec_mark(s->execs->a->exec_marks, s->exec_id, s->container);
  if (connect_docker(s, &err) < 0) {
    give_up(s, ERR_UNAVAILABLE, err.msg);
    return;
  }
  s->state = STARTING;
  exec_request_start(s->exec_id, s->tty, &s->request);
  set_timer(s, QUICK);
  if (write_out(s))
    update_events(s);
}

static void on_pid_known(void *arg, const struct docker_reply *reply) {
  struct session *s = arg;
  s->docker = NULL;
  if (reply->code == ERR_NONE)
    s->pid = exec_process_pid(reply->json);
}

static void on_timer(void *arg) {
  struct session *s = arg;
  switch (s->state) {
  case CREATING:
  case STARTING:
    give_up(s, ERR_TIMEOUT, "Docker does not start it");
    break;
  case RUNNING:
    inspect(s, on_pid_known);
    break;
  case ENDED:
    ask_exit(s);
    break;
  case HANGUP:
    inspect(s, on_hangup_inspected);
    if (!s->docker)
      session_free(s);
    break;
  }
}

/* ---- what a master asks ---- */

static const struct agent_instance *find(struct agent *a, const char *id, struct err *err) {
  const struct agent_instance *i = agent_core_find(&a->core, id);
  if (!i || !i->assigned)
    err_set(err, ERR_NOT_FOUND, "%.120s is not an instance of this node", id);
  else if (!i->c.id[0] || i->c.state != AGENT_C_RUNNING)
    err_set(err, ERR_CONFLICT, "%s does not run", id);
  else
    return i;
  return NULL;
}

static struct session *by_id(const struct exec_sessions *execs, const struct bus_conn *conn, uint64_t id) {
  for (struct session *s = execs->list; s; s = s->next)
    if (s->id == id && s->conn == conn)
      return s;
  return NULL;
}

static int start(struct exec_sessions *execs, struct bus_call *call, const Node__StartExec *m, struct err *err) {
  static const struct bus_answer_ops ops = {.cancelled = on_cancelled, .ready = on_ready};
  struct agent *a = execs->a;
  if (exec_request_check(m, err) < 0)
    return -1;
  const struct agent_instance *i = find(a, PB_STR(m->instance), err);
  if (!i)
    return -1;
  if (by_id(execs, bus_call_conn(call), m->session))
    return err_set(err, ERR_CONFLICT, "this session is open already");
  if (execs->count >= EXEC_SESSIONS_MAX)
    return err_set(err, ERR_BUSY, "node %s has %u commands open already", a->core.node, EXEC_SESSIONS_MAX);
  json_t *body = exec_request_json(m);
  struct session *s = body ? session_new(execs, i->c.id) : NULL;
  if (!s) {
    json_decref(body);
    return err_set(err, ERR_MEMORY, "no memory");
  }
  s->id = m->session;
  s->conn = bus_call_conn(call);
  s->call = call;
  s->tty = PB_GET(m, tty, 0);
  s->stdin_open = PB_GET(m, stdin, 0);
  want_size(s, PB_GET(m, rows, 0), PB_GET(m, cols, 0));
  char path[AGENT_CONTAINER_ID + 32];
  snprintf(path, sizeof path, "/containers/%s/exec", s->container);
  s->docker = docker_call(a->docker,
                          &(struct docker_options){.method = "POST", .path = path, .body = body, .timeout_ns = QUICK, .done = on_created, .arg = s});
  if (!s->docker) {
    session_free(s);
    return err_set(err, ERR_MEMORY, "no memory");
  }
  bus_answer_on(call, &ops, s);
  return 0;
}

void exec_sessions_start(struct exec_sessions *execs, struct bus_call *call, const Node__StartExec *m) {
  struct err err;
  if (start(execs, call, m, &err) < 0)
    bus_fail(call, &err);
}

static void on_input_cancelled(void *arg) {
  ((struct session *)arg)->input = NULL; /* its bytes are on their way */
}

static int input(struct session *s, struct bus_call *call, const Node__ExecInput *m, struct err *err) {
  static const struct bus_answer_ops ops = {.cancelled = on_input_cancelled};
  if (!s || s->state == ENDED || s->state == HANGUP)
    return err_set(err, ERR_NOT_FOUND, "the command has ended");
  if (s->input)
    return err_set(err, ERR_BUSY, "the input before this one is not taken yet");
  if (m->data.len && (!s->stdin_open || s->eof))
    return err_set(err, ERR_CONFLICT, "the command's input is closed");
  if (m->data.len > EXEC_INPUT_MAX || buf_add(&s->to_docker, m->data.data, m->data.len) < 0)
    return err_set(err, ERR_TOO_LARGE, "that is too much at once");
  s->eof = s->eof || PB_GET(m, eof, 0);
  want_size(s, PB_GET(m, rows, 0), PB_GET(m, cols, 0));
  bus_answer_on(call, &ops, s);
  s->input = call;
  if (s->state == RUNNING && write_out(s))
    update_events(s);
  return 0;
}

void exec_sessions_input(struct exec_sessions *execs, struct bus_call *call, const Node__ExecInput *m) {
  struct err err;
  if (input(by_id(execs, bus_call_conn(call), PB_GET(m, session, 0)), call, m, &err) < 0)
    bus_fail(call, &err);
}

/* ---- opening and closing ---- */

/* By an agent before this one. */
static void left_behind(void *arg, const char *exec_id, const char *container) {
  struct session *s = session_new(arg, container);
  if (!s)
    return;
  snprintf(s->exec_id, sizeof s->exec_id, "%s", exec_id);
  s->state = STARTING;
  hang_up(s);
}

struct exec_sessions *exec_sessions_open(struct agent *a, struct err *err) {
  struct exec_sessions *execs = calloc(1, sizeof *execs);
  if (!execs) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  execs->a = a;
  exec_marks_each(a->exec_marks, left_behind, execs);
  return execs;
}

void exec_sessions_close(struct exec_sessions *execs) {
  if (!execs)
    return;
  while (execs->list) {
    struct session *s = execs->list;
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "the agent of node %s was stopped", execs->a->core.node);
    if (s->call)
      bus_fail(s->call, &err);
    exec_process_signal(s->container, s->pid, s->state == HANGUP ? SIGKILL : SIGHUP);
    session_free(s);
  }
  free(execs);
}
