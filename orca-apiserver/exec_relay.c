#include "orca-apiserver/exec_relay.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/log.h"
#include "common/ws/exec_wire.h"
#include "common/ws/ws.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/gateway.h"

#define SESSIONS_MAX 128u
#define SESSIONS_PER_TOKEN 32u
#define QUEUE_HIGH ((size_t)256 << 10) /* of output that waits for the client: the agent's stream is held above it */
#define QUEUE_LOW ((size_t)64 << 10)
#define TICK NS_PER_SEC
#define PING_TICKS 15u
#define SILENT_TICKS 50u /* nothing heard in all of them: the client is gone */
#define CLOSING_TICKS 5u /* for the client's own close, once all is written */
#define INPUT_TIMEOUT 0  /* a command may take its time to read */

struct exec_relay {
  struct api *api;
  struct api_request *request;
  struct api_socket *socket;
  int fd;
  struct loop_io io;
  struct loop_timer tick;
  struct ws *ws;
  struct bus_call *stream, *input;
  Node__StartExec *start;
  char project[64], service[64], instance[INSTANCE_ID_MAX], node[64];
  uint64_t session, heard;
  int64_t began;
  unsigned silent, ticks, closing; /* closing: ticks since all was written, plus one */
  bool started, deaf;              /* deaf: the command takes no more input */
  struct exec_relay *next, *prev;
};

static void settle(struct exec_relay *x);

/* ---- history ---- */

static void told(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)arg;
  (void)succeeded;
  (void)revision;
  if (err)
    log_warn("an exec is not in the history", "error", err->msg);
}

/* Never more of the command than its first word: the others may be secrets. */
static void tell(const struct exec_relay *x, const char *kind, const char *what) {
  struct storec_txn *txn = x->api->in_touch ? storec_txn_new() : NULL;
  log_info(kind, "instance", x->instance, "node", x->node, "actor", x->request->who.name, "command", x->start->argv[0], "what", what);
  if (!txn)
    return;
  api_service_event(x->api, txn, x->request, kind, x->project, x->service, "%s: %.100s%s%s", x->instance, x->start->argv[0], *what ? ": " : "", what);
  x->api->commit(x->api->commit_arg, txn, told, NULL);
}

/* ---- life ---- */

struct exec_relay *exec_relay_new(struct api_request *r, const char *project, const char *service, const char *instance, const char *node,
                                  Node__StartExec *start, struct err *err) {
  struct api *api = r->api;
  size_t same = 0, all = 0;
  for (const struct exec_relay *one = api->execs; one; one = one->next) {
    same += strcmp(one->request->who.token_id, r->who.token_id) == 0;
    all++;
  }
  struct exec_relay *x = NULL;
  uint64_t session = 0;
  if (all >= SESSIONS_MAX || same >= SESSIONS_PER_TOKEN)
    err_set(err, ERR_BUSY, "too many commands are open");
  else if (crypto_random(&session, sizeof session, err) == 0 && !(x = calloc(1, sizeof *x)))
    err_set(err, ERR_MEMORY, "no memory");
  if (!x) {
    node__start_exec__free_unpacked(start, NULL);
    return NULL;
  }
  x->api = api;
  x->request = api_request_ref(r);
  x->fd = -1;
  x->start = start;
  x->session = session ? session : 1;
  snprintf(x->project, sizeof x->project, "%s", project);
  snprintf(x->service, sizeof x->service, "%s", service);
  snprintf(x->instance, sizeof x->instance, "%s", instance);
  snprintf(x->node, sizeof x->node, "%s", node);
  x->next = api->execs;
  if (x->next)
    x->next->prev = x;
  api->execs = x;
  return x;
}

static void relay_free(struct exec_relay *x) {
  if (x->stream)
    bus_call_cancel(x->stream);
  if (x->input)
    bus_call_cancel(x->input);
  if (x->io.active)
    loop_io_remove(x->api->loop, &x->io);
  loop_timer_cancel(x->api->loop, &x->tick);
  ws_free(x->ws);
  if (x->socket)
    api_socket_close(x->socket);
  if (x->prev)
    x->prev->next = x->next;
  else
    x->api->execs = x->next;
  if (x->next)
    x->next->prev = x->prev;
  node__start_exec__free_unpacked(x->start, NULL);
  api_request_unref(x->request);
  free(x);
}

static void send_control(struct exec_relay *x, const struct exec_control *control) {
  struct buf b = BUF_INIT(4096);
  exec_control_write(control, &b);
  if (buf_failed(&b) || ws_send(x->ws, b.data, b.len) < 0)
    log_warn("an exec's client was not told its end", "instance", x->instance);
  buf_free(&b);
}

/* The last word is queued; what is left is to write it and to hear the client's own close. */
static void finish(struct exec_relay *x, enum ws_code code, const char *reason, const char *what) {
  if (x->closing)
    return;
  x->closing = 1;
  if (x->stream)
    bus_call_cancel(x->stream);
  if (x->input)
    bus_call_cancel(x->input);
  x->stream = x->input = NULL;
  ws_close(x->ws, code, reason);
  ws_resume(x->ws);
  tell(x, "exec.ended", what);
}

static void fail(struct exec_relay *x, enum ws_code close_code, enum err_code code, const char *why) {
  struct exec_control control = {.kind = EXEC_ERROR};
  if (x->closing)
    return;
  snprintf(control.text, sizeof control.text, "%s", why);
  if (!pb_utf8_valid(control.text, strlen(control.text)))
    snprintf(control.text, sizeof control.text, "it failed, and the reason is not UTF-8");
  snprintf(control.code, sizeof control.code, "%s", err_code_text(code));
  send_control(x, &control);
  finish(x, close_code, err_code_text(code), why);
}

/* ---- from the agent ---- */

static void send_output(struct exec_relay *x, enum exec_channel channel, const uint8_t *data, size_t len) {
  static uint8_t message[EXEC_MESSAGE_MAX]; /* the loop's thread's alone */
  while (len) {
    size_t n = len < sizeof message - 1 ? len : sizeof message - 1;
    message[0] = (uint8_t)channel;
    memcpy(message + 1, data, n);
    if (ws_send(x->ws, message, n + 1) < 0) {
      fail(x, WS_INTERNAL, ERR_MEMORY, "no memory");
      return;
    }
    data += n;
    len -= n;
  }
}

static void on_item(void *arg, const uint8_t *body, size_t len) {
  struct exec_relay *x = arg;
  struct err err;
  Node__Item *item = (Node__Item *)pb_unpack(&node__item__descriptor, body, len, &err);
  if (!item || item->body_case != NODE__ITEM__BODY_EXEC) {
    fail(x, WS_INTERNAL, ERR_INTERNAL, "the agent's answer is not one to an exec");
  } else {
    const Node__ExecOutput *out = item->exec;
    if (out->started && !x->started) {
      x->started = true;
      send_control(x, &(struct exec_control){.kind = EXEC_STARTED});
    }
    send_output(x, EXEC_STDOUT, out->out.data, out->out.len);
    send_output(x, EXEC_STDERR, out->err.data, out->err.len);
    if (out->has_exit_code) {
      char what[64];
      int64_t ms = (loop_now(x->api->loop) - x->began) / NS_PER_MS;
      snprintf(what, sizeof what, "exit code %d after %" PRId64 ".%03" PRId64 " s", out->exit_code, ms / 1000, ms % 1000);
      send_control(x, &(struct exec_control){.kind = EXEC_EXIT, .exit_code = out->exit_code});
      finish(x, WS_GOOD, "", what);
    }
  }
  if (item)
    node__item__free_unpacked(item, NULL);
  settle(x);
}

static void on_stream_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct exec_relay *x = arg;
  x->stream = NULL;
  fail(x, WS_INTERNAL, ERR_INTERNAL, "the agent did not say how it ended");
  settle(x);
}

static void on_stream_failed(void *arg, const struct err *why) {
  struct exec_relay *x = arg;
  char text[512];
  x->stream = NULL;
  if (why->code == ERR_UNAVAILABLE || why->code == ERR_TIMEOUT)
    snprintf(text, sizeof text, "the connection to the agent of node %s is lost: %.300s", x->node, why->msg);
  else
    snprintf(text, sizeof text, "%s", why->msg);
  fail(x, why->code == ERR_UNAVAILABLE ? WS_GOING_AWAY : WS_INTERNAL, why->code, text);
  settle(x);
}

/* ---- to the agent ---- */

static void on_input_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct exec_relay *x = arg;
  x->input = NULL;
  ws_resume(x->ws);
  settle(x);
}

static void on_input_failed(void *arg, const struct err *why) {
  (void)why; /* the stream says how it ended */
  struct exec_relay *x = arg;
  x->input = NULL;
  x->deaf = true;
  ws_resume(x->ws);
  settle(x);
}

static void send_input(struct exec_relay *x, Node__ExecInput *m) {
  static const struct bus_call_ops ops = {.done = on_input_done, .failed = on_input_failed};
  struct bus_conn *conn = x->stream && !x->deaf ? gateway_agent(x->api->gateway, x->node) : NULL;
  if (!conn)
    return;
  PB_SET(m, session, x->session);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_EXEC_INPUT;
  call.exec_input = m;
  x->input = bus_call(conn, &call.base, INPUT_TIMEOUT, &ops, x);
  if (x->input)
    ws_hold(x->ws);
  else
    fail(x, WS_INTERNAL, ERR_MEMORY, "no memory");
}

static void on_message(void *arg, const uint8_t *data, size_t len) {
  struct exec_relay *x = arg;
  Node__ExecInput input = NODE__EXEC_INPUT__INIT;
  struct exec_control control;
  if (x->closing)
    return;
  if (len && data[0] == EXEC_STDIN && PB_GET(x->start, stdin, false)) {
    ProtobufCBinaryData bytes = {len - 1, (uint8_t *)(uintptr_t)data + 1};
    PB_SET(&input, data, bytes);
    if (len > 1)
      send_input(x, &input);
    return;
  }
  if (!len || data[0] != EXEC_CONTROL || !exec_control_parse(data + 1, len - 1, &control) ||
      (control.kind != EXEC_RESIZE && control.kind != EXEC_EOF)) {
    fail(x, WS_POLICY, ERR_INVALID, len && data[0] == EXEC_STDIN ? "input was not asked for (?stdin=true)" : "not a message of " EXEC_PROTOCOL);
    return;
  }
  if (control.kind == EXEC_EOF) {
    PB_SET(&input, eof, true);
  } else {
    PB_SET(&input, rows, control.rows);
    PB_SET(&input, cols, control.cols);
  }
  send_input(x, &input);
}

/* ---- the socket ---- */

static ssize_t on_read(void *arg, uint8_t *to, size_t len) {
  return recv(((struct exec_relay *)arg)->fd, to, len, 0);
}

static ssize_t on_write(void *arg, const uint8_t *data, size_t len) {
  return send(((struct exec_relay *)arg)->fd, data, len, MSG_NOSIGNAL);
}

/* After anything happened: writes what there is, and says what is waited for. May free. */
static void settle(struct exec_relay *x) {
  if (!ws_write(x->ws)) {
    if (!x->closing)
      tell(x, "exec.ended", "the client is gone");
    relay_free(x);
    return;
  }
  size_t queued = ws_queued(x->ws);
  if (x->stream && queued > QUEUE_HIGH)
    bus_call_hold(x->stream);
  else if (x->stream && queued < QUEUE_LOW)
    bus_call_resume(x->stream);
  uint32_t events = EPOLLRDHUP | (ws_wants_read(x->ws) ? (uint32_t)EPOLLIN : 0u) | (ws_wants_write(x->ws) ? (uint32_t)EPOLLOUT : 0u);
  struct err err;
  if (events != x->io.events && loop_io_change(x->api->loop, &x->io, events, &err) < 0)
    log_error("epoll refuses an exec's client", "error", err.msg);
}

static void on_io(void *arg, uint32_t events) {
  struct exec_relay *x = arg;
  bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
  /* What came before its end is heard first, but not while its input waits: then whoever has gone wants no more of it. */
  if (!gone && (events & (EPOLLIN | EPOLLRDHUP)))
    gone = ws_is_held(x->ws) ? (events & EPOLLRDHUP) != 0 : !ws_read(x->ws);
  if (gone) {
    ws_write(x->ws); /* the answer to a close, or why it was refused */
    if (!x->closing) {
      char what[64];
      snprintf(what, sizeof what, "the client is gone (close code %u)", ws_why(x->ws));
      tell(x, "exec.ended", ws_why(x->ws) ? what : "the client is gone");
    }
    relay_free(x);
    return;
  }
  settle(x);
}

static bool may_go_on(const struct exec_relay *x) {
  const struct api_principal *who = &x->request->who;
  return api_auth_is_known(&x->api->cache, who, api_now_ms(x->api)) && api_auth_sees(&x->api->cache, who, x->project);
}

/* Written, and not yet in the client's hands: closed now, the next that a slow one says would be answered by a reset, which takes it away. One
 * that takes nothing at all is ended by TCP_USER_TIMEOUT. */
static bool in_kernel(int fd) {
  int left = 0;
  return ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0;
}

static void on_tick(void *arg) {
  struct exec_relay *x = arg;
  struct err err;
  x->ticks++;
  if (x->closing && ws_queued(x->ws) == 0 && !in_kernel(x->fd) && ++x->closing > CLOSING_TICKS) {
    relay_free(x);
    return;
  }
  if (loop_timer_in(x->api->loop, &x->tick, TICK, &err) < 0)
    log_error("no timer for an exec", "error", err.msg);
  uint64_t heard = ws_frames(x->ws);
  x->silent = heard != x->heard || ws_is_held(x->ws) ? 0 : x->silent + 1;
  x->heard = heard;
  bool may = may_go_on(x);
  if (x->silent > SILENT_TICKS || (x->closing && !may)) {
    if (!x->closing)
      tell(x, "exec.ended", "the client is silent");
    relay_free(x);
    return;
  }
  if (!may)
    fail(x, WS_POLICY, ERR_UNAUTHENTICATED, "the token was revoked, or has expired");
  if (x->ticks % PING_TICKS == 0 && !x->closing && !ws_wants_write(x->ws))
    ws_ping(x->ws);
  settle(x);
}

/* Whether a client that is not read is still there is TCP's to find out, within the same minute. */
static void keep_alive(int fd) {
  const int one = 1, idle = 20, every = 10, count = 3, user_ms = 50000;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
}

static void start_stream(struct exec_relay *x) {
  static const struct bus_call_ops ops = {.done = on_stream_done, .failed = on_stream_failed, .item = on_item};
  struct bus_conn *conn = x->api->gateway ? gateway_agent(x->api->gateway, x->node) : NULL;
  x->start->instance = strdup(x->instance);
  PB_SET(x->start, session, x->session);
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_START_EXEC;
  call.start_exec = x->start;
  if (!conn)
    fail(x, WS_GOING_AWAY, ERR_UNAVAILABLE, "the node's agent is not connected");
  else if (!x->start->instance || !(x->stream = bus_call(conn, &call.base, 0, &ops, x)))
    fail(x, WS_INTERNAL, ERR_MEMORY, "no memory");
}

static void on_open(void *arg, struct api_socket *socket, int fd, const void *early, size_t len) {
  static const struct ws_ops ops = {.read = on_read, .write = on_write, .message = on_message};
  struct exec_relay *x = arg;
  struct err err;
  x->socket = socket;
  x->fd = fd;
  x->began = loop_now(x->api->loop);
  x->io = (struct loop_io){.cb = on_io, .arg = x};
  x->tick = (struct loop_timer){.cb = on_tick, .arg = x};
  keep_alive(fd);
  if (!(x->ws = ws_new(WS_SERVER, EXEC_MESSAGE_MAX, &ops, x)) || ws_give(x->ws, early, len) < 0 ||
      loop_io_add(x->api->loop, &x->io, fd, EPOLLIN | EPOLLRDHUP, &err) < 0 || loop_timer_in(x->api->loop, &x->tick, TICK, &err) < 0) {
    log_error("no memory for an exec", "instance", x->instance);
    relay_free(x);
    return;
  }
  start_stream(x);
  tell(x, "exec.started", PB_GET(x->start, tty, false) ? "on a terminal" : "");
  if (len && !ws_read(x->ws)) {
    tell(x, "exec.ended", "the client is gone");
    relay_free(x);
    return;
  }
  settle(x);
}

static void on_shutdown(void *arg) {
  struct exec_relay *x = arg;
  fail(x, WS_GOING_AWAY, ERR_UNAVAILABLE, "the apiserver is being stopped");
  ws_write(x->ws);
  relay_free(x);
}

static void on_drop(void *arg) {
  relay_free(arg);
}

const struct api_upgrade_ops exec_relay_ops = {.open = on_open, .shutdown = on_shutdown, .drop = on_drop};
