#include "common/ws/ws.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "common/buf.h"
#include "common/crypto/crypto.h"

/* Pongs are queued without being asked for: a peer that pings and reads nothing gets no more than this many. */
#define PINGS_MAX 64

struct ws {
  wslay_event_context_ptr wslay;
  struct ws_ops ops;
  void *arg;
  enum ws_role role;
  struct buf given;   /* came with the handshake, or was there when it was held */
  struct buf waiting; /* messages that came out of wslay's own buffer while held: length, bytes */
  bool held, over, broken, eof;
  bool closing;   /* a close waits for what was sent before it: wslay would send it first, and nothing after it */
  unsigned pings; /* since anything could be written */
  uint16_t close_code;
  char close_reason[124];
  unsigned why;
  uint64_t frames;
};

static ssize_t on_recv(wslay_event_context_ptr wslay, uint8_t *to, size_t len, int flags, void *arg) {
  (void)flags;
  struct ws *ws = arg;
  if (ws->held) {
    wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  if (ws->given.len) {
    size_t n = ws->given.len < len ? ws->given.len : len;
    memcpy(to, ws->given.data, n);
    buf_consume(&ws->given, n);
    return (ssize_t)n;
  }
  ssize_t n = ws->ops.read(ws->arg, to, len);
  if (n > 0)
    return n;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
    return -1;
  }
  ws->eof = true;
  wslay_event_set_error(wslay, WSLAY_ERR_CALLBACK_FAILURE);
  return -1;
}

static ssize_t on_send(wslay_event_context_ptr wslay, const uint8_t *data, size_t len, int flags, void *arg) {
  (void)flags;
  struct ws *ws = arg;
  ssize_t n = ws->ops.write(ws->arg, data, len);
  if (n > 0) {
    ws->pings = 0;
    return n;
  }
  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    ws->broken = true;
    wslay_event_set_error(wslay, WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
  }
  wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
  return -1;
}

static int on_mask(wslay_event_context_ptr wslay, uint8_t *to, size_t len, void *arg) {
  (void)wslay;
  (void)arg;
  return crypto_random(to, len, NULL);
}

static void on_frame(wslay_event_context_ptr wslay, const struct wslay_event_on_frame_recv_start_arg *frame, void *arg) {
  (void)wslay;
  (void)frame;
  ((struct ws *)arg)->frames++;
}

/* Nothing more is heard of it. */
static void refuse(struct ws *ws, enum ws_code code, const char *why) {
  ws_close(ws, code, why);
  wslay_event_shutdown_read(ws->wslay);
}

static void on_message(wslay_event_context_ptr wslay, const struct wslay_event_on_msg_recv_arg *m, void *arg) {
  struct ws *ws = arg;
  (void)wslay;
  switch (m->opcode) {
  case WSLAY_BINARY_FRAME:
    if (!ws->held) {
      ws->ops.message(ws->arg, m->msg, m->msg_length);
      return;
    }
    uint32_t len = (uint32_t)m->msg_length;
    buf_add(&ws->waiting, &len, sizeof len);
    buf_add(&ws->waiting, m->msg, m->msg_length);
    if (buf_failed(&ws->waiting))
      refuse(ws, WS_INTERNAL, "no memory");
    return;
  case WSLAY_TEXT_FRAME:
    refuse(ws, WS_UNSUPPORTED, "only binary messages");
    return;
  case WSLAY_CONNECTION_CLOSE:
    if (!ws->why)
      ws->why = m->status_code ? m->status_code : 1005; /* section 7.1.5: none was said */
    return;
  default:
    if (m->opcode == WSLAY_PING && ++ws->pings > PINGS_MAX)
      refuse(ws, WS_POLICY, "pongs are not read");
    return;
  }
}

struct ws *ws_new(enum ws_role role, size_t max, const struct ws_ops *ops, void *arg) {
  static const struct wslay_event_callbacks callbacks = {.recv_callback = on_recv,
                                                         .send_callback = on_send,
                                                         .genmask_callback = on_mask,
                                                         .on_frame_recv_start_callback = on_frame,
                                                         .on_msg_recv_callback = on_message};
  struct ws *ws = calloc(1, sizeof *ws);
  if (!ws)
    return NULL;
  ws->ops = *ops;
  ws->arg = arg;
  ws->role = role;
  ws->given.cap = (size_t)1 << 20;
  /* While held nothing new is read: what is left is in wslay's buffer (4 KiB), a message under way, and what was given. */
  ws->waiting.cap = 2 * max + ((size_t)1 << 20);
  int rc =
      role == WS_SERVER ? wslay_event_context_server_init(&ws->wslay, &callbacks, ws) : wslay_event_context_client_init(&ws->wslay, &callbacks, ws);
  if (rc != 0) {
    free(ws);
    return NULL;
  }
  wslay_event_config_set_max_recv_msg_length(ws->wslay, max);
  return ws;
}

void ws_free(struct ws *ws) {
  if (!ws)
    return;
  wslay_event_context_free(ws->wslay);
  buf_free(&ws->given);
  buf_free(&ws->waiting);
  free(ws);
}

int ws_give(struct ws *ws, const uint8_t *data, size_t len) {
  return buf_add(&ws->given, data, len);
}

bool ws_read(struct ws *ws) {
  if (ws->over)
    return false;
  if (ws->held)
    return true;
  if (wslay_event_recv(ws->wslay) != 0 || ws->eof || !wslay_event_get_read_enabled(ws->wslay))
    ws->over = true;
  return !ws->over;
}

static void queue_close(struct ws *ws) {
  if (!ws->closing || wslay_event_get_queued_msg_count(ws->wslay))
    return;
  ws->closing = false;
  wslay_event_queue_close(ws->wslay, ws->close_code, (const uint8_t *)ws->close_reason, strlen(ws->close_reason));
}

bool ws_write(struct ws *ws) {
  for (int part = 0; part < 2 && !ws->broken; part++) {
    queue_close(ws);
    if (wslay_event_want_write(ws->wslay) && wslay_event_send(ws->wslay) != 0)
      ws->broken = true;
  }
  /* Our close is not the end: who closes the pipe with something unread in it takes from the peer what it has not read yet. */
  bool done = wslay_event_get_close_sent(ws->wslay) && wslay_event_get_close_received(ws->wslay);
  return !ws->broken && (ws->closing || wslay_event_want_write(ws->wslay) || !done);
}

bool ws_wants_read(const struct ws *ws) {
  return !ws->over && !ws->held;
}

bool ws_wants_write(const struct ws *ws) {
  return !ws->broken && (ws->closing || wslay_event_want_write(ws->wslay));
}

static int queue(struct ws *ws, uint8_t opcode, const void *data, size_t len) {
  if (ws->closing)
    return -1;
  struct wslay_event_msg m = {.opcode = opcode, .msg = data, .msg_length = len};
  return wslay_event_queue_msg(ws->wslay, &m) == 0 ? 0 : -1;
}

int ws_send(struct ws *ws, const void *data, size_t len) {
  return queue(ws, WSLAY_BINARY_FRAME, data, len);
}

size_t ws_queued(const struct ws *ws) {
  return wslay_event_get_queued_msg_length(ws->wslay);
}

void ws_ping(struct ws *ws) {
  queue(ws, WSLAY_PING, NULL, 0);
}

void ws_pong(struct ws *ws) {
  queue(ws, WSLAY_PONG, NULL, 0);
}

void ws_close(struct ws *ws, enum ws_code code, const char *reason) {
  if (!ws->why)
    ws->why = code;
  if (ws->closing)
    return;
  ws->closing = true;
  ws->close_code = (uint16_t)code;
  snprintf(ws->close_reason, sizeof ws->close_reason, "%s", reason);
  queue_close(ws);
}

void ws_hold(struct ws *ws) {
  ws->held = true;
}

void ws_resume(struct ws *ws) {
  ws->held = false;
  while (!ws->held && ws->waiting.len) {
    uint32_t len;
    memcpy(&len, ws->waiting.data, sizeof len);
    uint8_t *copy = malloc(len + 1); /* the callback may hold again, and more may come */
    if (!copy) {
      ws_close(ws, WS_INTERNAL, "no memory");
      return;
    }
    memcpy(copy, ws->waiting.data + sizeof len, len);
    buf_consume(&ws->waiting, sizeof len + len);
    ws->ops.message(ws->arg, copy, len);
    free(copy);
  }
}

bool ws_is_held(const struct ws *ws) {
  return ws->held;
}

uint64_t ws_frames(const struct ws *ws) {
  return ws->frames;
}

unsigned ws_why(const struct ws *ws) {
  return ws->why || !wslay_event_get_close_sent(ws->wslay) ? ws->why : wslay_event_get_status_code_sent(ws->wslay);
}
