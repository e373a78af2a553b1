#include "common/bus/internal.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One conversation. A call of ours:
 *
 *   bus_call() ─▶ open ─▶ ITEM* ─▶ REPLY | ERROR | deadline | loss | cancel ─▶ ended
 *
 * and the peer's is its mirror image. Late frames about an ended call are normal (they crossed our CANCEL on the way) and are
 * dropped; frames about a call that was never made are not, and count as malformed. */

#define PUSH_ROOM (BUS_MAX_QUEUED / 4) /* streams wait when this much is queued, and leave the rest to calls and replies */
#define MAX_CREDIT 1000000u

#define OWNER(slot_) ((struct bus_call *)((char *)(slot_)-offsetof(struct bus_call, slot)))

/* ---- sending ---- */

void bus_conn_break(struct bus_conn *conn, enum err_code code, const char *fmt, ...) {
  if (conn->broken || conn->gone)
    return;
  va_list ap;
  char text[sizeof conn->why.msg];
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  err_set(&conn->why, code, "%s", text);
  conn->broken = true;
  conn->next_broken = conn->bus->broken;
  conn->bus->broken = conn;
}

void bus_conn_drop_queue(struct bus_conn *conn) {
  while (conn->queue) {
    struct bus_out *out = conn->queue;
    conn->queue = out->next;
    zmq_msg_close(&out->body);
    free(out);
  }
  conn->queue_tail = &conn->queue;
  conn->queued = 0;
}

static void sent(struct bus_conn *conn) {
  conn->last_sent = loop_now(conn->bus->loop);
  conn->bus->counters.sent++;
}

static void enqueue(struct bus_conn *conn, const uint8_t *header, size_t len, zmq_msg_t *body) {
  size_t size = sizeof(struct bus_out) + len + zmq_msg_size(body);
  struct bus_out *out = NULL;
  if (conn->queued + size > BUS_MAX_QUEUED) {
    conn->bus->counters.cut_slow++;
    bus_conn_break(conn, ERR_UNAVAILABLE, "does not read: %zu bytes wait for it", conn->queued);
  } else if (!(out = malloc(sizeof *out + len))) {
    bus_conn_break(conn, ERR_MEMORY, "no memory for what waits for it");
  }
  if (!out) {
    zmq_msg_close(body);
    return;
  }
  out->next = NULL;
  out->header_len = len;
  memcpy(out->header, header, len);
  zmq_msg_init(&out->body);
  zmq_msg_move(&out->body, body);
  zmq_msg_close(body);
  *conn->queue_tail = out;
  conn->queue_tail = &out->next;
  conn->queued += size;
  if (!conn->on_queued) {
    conn->on_queued = true;
    conn->next_queued = conn->bus->queued;
    conn->bus->queued = conn;
  }
}

static void send_failed(struct bus_conn *conn, int code) {
  bus_conn_break(conn, ERR_UNAVAILABLE, "%s", code == EHOSTUNREACH ? "disconnected" : zmq_strerror(code));
}

static void tell_ready(struct bus_conn *conn) {
  conn->push_waits = false;
  /* `ready` may push, reply or fail, which changes the table: collect the ids first. */
  size_t count = 0, at = 0;
  uint64_t *ids = conn->answers.count ? malloc(conn->answers.count * sizeof *ids) : NULL;
  if (!ids) {
    conn->push_waits = conn->answers.count != 0;
    return;
  }
  for (size_t i = 0; i < (size_t)1 << conn->answers.bits; i++)
    for (struct bus_slot *s = conn->answers.heads[i]; s; s = s->next)
      if (OWNER(s)->starved && OWNER(s)->credit)
        ids[count++] = s->key;
  for (; at < count && conn->queued <= PUSH_ROOM && conn->up && !conn->broken; at++) {
    struct bus_slot *s = bus_table_find(&conn->answers, ids[at]);
    if (s && OWNER(s)->starved && OWNER(s)->credit) {
      OWNER(s)->starved = false;
      if (OWNER(s)->answer && OWNER(s)->answer->ready)
        OWNER(s)->answer->ready(OWNER(s)->arg);
    }
  }
  conn->push_waits |= at < count;
  free(ids);
}

bool bus_conn_flush(struct bus_conn *conn) {
  while (conn->queue && !conn->broken) {
    struct bus_out *out = conn->queue;
    size_t size = sizeof *out + out->header_len + zmq_msg_size(&out->body);
    int rc = conn->transmit(conn, out->header, out->header_len, &out->body);
    if (rc == EAGAIN)
      break;
    if (rc) {
      send_failed(conn, rc);
      break;
    }
    sent(conn);
    conn->queue = out->next;
    if (!conn->queue)
      conn->queue_tail = &conn->queue;
    conn->queued -= size;
    free(out);
  }
  if (conn->push_waits && conn->queued <= PUSH_ROOM && !conn->broken) {
    tell_ready(conn);
    conn->bus->worked = true;
  }
  return !conn->queue;
}

/* Takes body. */
static void transmit(struct bus_conn *conn, const struct bus_frame *frame, zmq_msg_t *body) {
  if (conn->broken || conn->gone) {
    zmq_msg_close(body);
    return;
  }
  uint8_t header[FRAME_MAX];
  size_t len = bus_frame_encode(frame, header);
  int rc = conn->queue ? EAGAIN : conn->transmit(conn, header, len, body);
  if (rc == 0) {
    sent(conn);
  } else if (rc == EAGAIN) {
    enqueue(conn, header, len, body);
  } else {
    zmq_msg_close(body);
    send_failed(conn, rc);
  }
}

static int pack(const ProtobufCMessage *from, zmq_msg_t *to) {
  size_t len = from ? protobuf_c_message_get_packed_size(from) : 0;
  if (len > BUS_MAX_MESSAGE)
    return ERR_TOO_LARGE;
  if (zmq_msg_init_size(to, len) != 0)
    return ERR_MEMORY;
  if (from)
    protobuf_c_message_pack(from, zmq_msg_data(to));
  return 0;
}

void bus_conn_send(struct bus_conn *conn, const struct bus_frame *frame, const ProtobufCMessage *body) {
  zmq_msg_t msg;
  if (pack(body, &msg) == 0)
    transmit(conn, frame, &msg);
  else
    bus_conn_break(conn, ERR_MEMORY, "no memory for a message to it");
}

static void send_error(struct bus_conn *conn, uint64_t id, enum err_code code, const char *msg) {
  struct bus_frame frame = {.kind = BUS__KIND__ERROR, .id = id};
  err_set(&frame.error, code, "%s", msg);
  bus_conn_send(conn, &frame, NULL);
}

/* ---- our calls ---- */

static void free_items(struct bus_call *call) {
  while (call->items) {
    struct bus_held *item = call->items;
    call->items = item->next;
    free(item);
  }
  free(call->last);
  call->items_tail = &call->items;
  call->last = NULL;
}

static void unlink_resumed(struct bus_call *call) {
  if (!call->on_resumed)
    return;
  call->on_resumed = false;
  for (struct bus_call **at = &call->bus->resumed; *at; at = &(*at)->next_resumed)
    if (*at == call) {
      *at = call->next_resumed;
      return;
    }
}

/* Takes the call out of everything; its memory lives until the hook begins again. */
static void end(struct bus_call *call) {
  call->ended = true;
  loop_timer_cancel(call->bus->loop, &call->timer);
  if (call->orphan) {
    if (call->prev_orphan)
      call->prev_orphan->next_orphan = call->next_orphan;
    else
      call->bus->orphans = call->next_orphan;
    if (call->next_orphan)
      call->next_orphan->prev_orphan = call->prev_orphan;
  } else if (call->conn) {
    bus_table_remove(call->ours ? &call->conn->calls : &call->conn->answers, &call->slot);
  }
  unlink_resumed(call);
  free_items(call);
  bus_bury(call->bus, &call->grave);
}

void bus_call_fail(struct bus_call *call, const struct err *why) {
  if (call->ended)
    return;
  end(call);
  if (call->ops->failed)
    call->ops->failed(call->arg, why);
}

static void send_cancel(struct bus_call *call) {
  struct bus_frame frame = {.kind = BUS__KIND__CANCEL, .id = call->slot.key};
  bus_conn_send(call->conn, &frame, NULL);
}

static void call_due(void *arg) {
  struct bus_call *call = arg;
  call->bus->worked = true;
  if (call->orphan) {
    struct err why = call->why;
    bus_call_fail(call, &why);
    return;
  }
  struct err why;
  err_set(&why, ERR_TIMEOUT, "%s did not answer within %lld ms", bus_peer_name(call->conn), (long long)(call->timeout / NS_PER_MS));
  send_cancel(call);
  bus_call_fail(call, &why);
}

/* The call cannot be sent: it fails from the loop, so that callers never hear of it out of bus_call(). */
static struct bus_call *make_orphan(struct bus_call *call, enum err_code code, const char *what) {
  call->orphan = true;
  err_set(&call->why, code, "%s", what);
  call->next_orphan = call->bus->orphans;
  if (call->next_orphan)
    call->next_orphan->prev_orphan = call;
  call->bus->orphans = call;
  if (loop_timer_in(call->bus->loop, &call->timer, 0, NULL) == 0)
    return call;
  end(call);
  return NULL;
}

struct bus_call *bus_call(struct bus_conn *conn, const ProtobufCMessage *body, int64_t timeout_ns, const struct bus_call_ops *ops, void *arg) {
  struct bus_call *call = calloc(1, sizeof *call);
  if (!call)
    return NULL;
  call->bus = conn->bus;
  call->conn = conn;
  call->ours = true;
  call->ops = ops;
  call->arg = arg;
  call->timeout = timeout_ns;
  call->items_tail = &call->items;
  call->timer = (struct loop_timer){.cb = call_due, .arg = call};
  if (!conn->up || conn->broken) {
    char text[128];
    snprintf(text, sizeof text, "not connected to %s", bus_peer_name(conn));
    return make_orphan(call, ERR_UNAVAILABLE, text);
  }
  zmq_msg_t msg;
  int rc = pack(body, &msg);
  if (rc)
    return make_orphan(call, (enum err_code)rc, rc == ERR_TOO_LARGE ? "the call is too large for the bus" : "no memory for the call");
  if (bus_table_add(&conn->calls, &call->slot, conn->last_id + 1) < 0 ||
      (timeout_ns > 0 && loop_timer_in(conn->bus->loop, &call->timer, timeout_ns, NULL) < 0)) {
    zmq_msg_close(&msg);
    bus_table_remove(&conn->calls, &call->slot);
    free(call);
    return NULL;
  }
  conn->last_id++;
  struct bus_frame frame = {.kind = BUS__KIND__CALL, .id = call->slot.key};
  if (timeout_ns > 0) {
    int64_t ms = timeout_ns / NS_PER_MS + (timeout_ns % NS_PER_MS != 0);
    frame.deadline_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
  }
  if (ops->item)
    frame.credit = call->allowed = BUS_STREAM_CREDIT;
  transmit(conn, &frame, &msg);
  return call;
}

void bus_call_cancel(struct bus_call *call) {
  if (!call || call->ended)
    return;
  if (!call->orphan && !call->finished)
    send_cancel(call);
  end(call);
}

static void grant(struct bus_call *call, uint32_t when) {
  if (call->held || call->finished || call->orphan || call->used < when)
    return;
  struct bus_frame frame = {.kind = BUS__KIND__CREDIT, .id = call->slot.key, .credit = call->used};
  call->allowed += call->used;
  call->used = 0;
  bus_conn_send(call->conn, &frame, NULL);
}

void bus_call_hold(struct bus_call *call) {
  if (!call->ended)
    call->held = true;
}

void bus_call_resume(struct bus_call *call) {
  if (call->ended || !call->held)
    return;
  call->held = false;
  if (call->on_resumed)
    return;
  call->on_resumed = true;
  call->next_resumed = call->bus->resumed;
  call->bus->resumed = call;
}

static void finish(struct bus_call *call, bool well, const uint8_t *body, size_t len, const struct err *why) {
  end(call);
  if (!well) {
    if (call->ops->failed)
      call->ops->failed(call->arg, why);
  } else if (call->ops->done) {
    call->ops->done(call->arg, len ? body : NULL, len);
  }
}

static struct bus_held *keep(const uint8_t *body, size_t len) {
  struct bus_held *item = malloc(sizeof *item + len);
  if (item) {
    item->next = NULL;
    item->len = len;
    if (len)
      memcpy(item->body, body, len);
  }
  return item;
}

static void deliver_resumed(struct bus_call *call) {
  while (!call->ended && !call->held && call->items) {
    struct bus_held *item = call->items;
    call->items = item->next;
    if (!call->items)
      call->items_tail = &call->items;
    call->used++;
    call->ops->item(call->arg, item->body, item->len);
    free(item);
  }
  if (call->ended || call->held)
    return;
  if (call->finished) {
    struct bus_held *last = call->last;
    struct err why = call->why;
    call->last = NULL;
    finish(call, call->finished_well, last ? last->body : NULL, last ? last->len : 0, &why);
    free(last);
    return;
  }
  grant(call, 1);
}

bool bus_calls_deliver_resumed(struct bus *bus) {
  bool worked = bus->resumed != NULL;
  size_t count = 0;
  /* One pass: what is held and resumed again by these callbacks waits for the next. */
  for (struct bus_call *call = bus->resumed; call; call = call->next_resumed)
    count++;
  for (; count && bus->resumed; count--) {
    struct bus_call *call = bus->resumed;
    bus->resumed = call->next_resumed;
    call->on_resumed = false;
    deliver_resumed(call);
  }
  return worked;
}

/* ---- the peer's calls ---- */

static void forget_answer(struct bus_call *call) {
  const struct bus_answer_ops *answer = call->answer;
  void *arg = call->arg;
  end(call);
  if (answer && answer->cancelled)
    answer->cancelled(arg);
}

void bus_answer_on(struct bus_call *call, const struct bus_answer_ops *ops, void *arg) {
  call->answer = ops;
  call->arg = arg;
}

void bus_reply(struct bus_call *call, const ProtobufCMessage *body) {
  if (call->ended)
    return;
  struct bus_conn *conn = call->conn;
  struct bus_frame frame = {.kind = BUS__KIND__REPLY, .id = call->slot.key};
  end(call);
  zmq_msg_t msg;
  int rc = pack(body, &msg);
  if (rc == 0)
    transmit(conn, &frame, &msg);
  else
    send_error(conn, frame.id, (enum err_code)rc, rc == ERR_TOO_LARGE ? "the answer is too large for the bus" : "no memory for the answer");
}

void bus_fail(struct bus_call *call, const struct err *why) {
  if (call->ended)
    return;
  struct bus_conn *conn = call->conn;
  uint64_t id = call->slot.key;
  end(call);
  send_error(conn, id, why->code, why->msg);
}

int bus_push(struct bus_call *call, const ProtobufCMessage *item) {
  if (call->ended)
    return 1;
  if (call->credit == 0 || call->conn->queued > PUSH_ROOM) {
    call->starved = true;
    call->conn->push_waits |= call->credit != 0;
    return 1;
  }
  zmq_msg_t msg;
  int rc = pack(item, &msg);
  if (rc == ERR_TOO_LARGE)
    return -1;
  if (rc) {
    bus_conn_break(call->conn, ERR_MEMORY, "no memory for a message to it");
    return 1;
  }
  struct bus_frame frame = {.kind = BUS__KIND__ITEM, .id = call->slot.key};
  call->credit--;
  transmit(call->conn, &frame, &msg);
  return 0;
}

struct bus_conn *bus_call_conn(const struct bus_call *call) {
  return call->conn;
}

int64_t bus_call_deadline(const struct bus_call *call) {
  return call->ours ? (call->timeout > 0 ? call->timer.at : INT64_MAX) : call->deadline;
}

/* ---- what a frame does ---- */

void bus_conn_misbehaved(struct bus_conn *conn, const char *what) {
  conn->bus->counters.refused_malformed++;
  bus_report(conn->bus, &conn->last_report, bus_peer_name(conn), what);
}

void bus_conn_refused(struct bus_conn *conn, const char *what) {
  bus_conn_misbehaved(conn, what);
}

static void on_call(struct bus_conn *conn, const struct bus_frame *frame, const uint8_t *body, size_t len) {
  if (bus_table_find(&conn->answers, frame->id)) {
    bus_conn_misbehaved(conn, "used a call's id twice");
    return;
  }
  if (!conn->ops->call) {
    send_error(conn, frame->id, ERR_UNSUPPORTED, "nothing can be called here");
    return;
  }
  if (conn->answers.count >= BUS_MAX_ANSWERS) {
    send_error(conn, frame->id, ERR_BUSY, "too many calls at once");
    return;
  }
  struct bus_call *call = calloc(1, sizeof *call);
  if (!call || bus_table_add(&conn->answers, &call->slot, frame->id) < 0) {
    free(call);
    send_error(conn, frame->id, ERR_MEMORY, "no memory for the call");
    return;
  }
  call->bus = conn->bus;
  call->conn = conn;
  call->items_tail = &call->items;
  call->credit = frame->credit < MAX_CREDIT ? frame->credit : MAX_CREDIT;
  call->deadline = frame->deadline_ms ? loop_now(conn->bus->loop) + (int64_t)frame->deadline_ms * NS_PER_MS : INT64_MAX;
  conn->ops->call(conn->arg, conn, call, body, len);
}

static void on_item(struct bus_call *call, const uint8_t *body, size_t len) {
  struct bus_conn *conn = call->conn;
  if (call->allowed == 0) { /* also when the caller wants none: no credit was given */
    bus_conn_misbehaved(conn, "pushed an item without credit");
    struct err why;
    err_set(&why, ERR_INVALID, "%s sent more than it was allowed to", bus_peer_name(conn));
    send_cancel(call);
    bus_call_fail(call, &why);
    return;
  }
  call->allowed--;
  if (call->held || call->items) {
    struct bus_held *item = keep(body, len);
    if (item) {
      *call->items_tail = item;
      call->items_tail = &item->next;
      return;
    }
    struct err why;
    err_set(&why, ERR_MEMORY, "no memory for the stream from %s", bus_peer_name(conn));
    send_cancel(call);
    bus_call_fail(call, &why);
    return;
  }
  call->used++;
  call->ops->item(call->arg, body, len);
  if (!call->ended)
    grant(call, BUS_STREAM_CREDIT / 2);
}

static void on_end(struct bus_call *call, const struct bus_frame *frame, const uint8_t *body, size_t len) {
  bool well = frame->kind == BUS__KIND__REPLY;
  if (!call->held && !call->items) {
    finish(call, well, body, len, &frame->error);
    return;
  }
  /* It comes after the items that wait. */
  call->finished = true;
  call->finished_well = well;
  if (!well)
    call->why = frame->error;
  if (well && len && !(call->last = keep(body, len))) {
    call->finished_well = false;
    err_set(&call->why, ERR_MEMORY, "no memory for the answer");
  }
}

static void on_answer(struct bus_conn *conn, const struct bus_frame *frame, const uint8_t *body, size_t len) {
  if (frame->id > conn->last_id) {
    bus_conn_misbehaved(conn, "answered a call that was never made");
    return;
  }
  struct bus_slot *slot = bus_table_find(&conn->calls, frame->id);
  if (!slot)
    return; /* it crossed our CANCEL */
  struct bus_call *call = OWNER(slot);
  if (call->finished)
    bus_conn_misbehaved(conn, "went on after the end of an answer");
  else if (frame->kind == BUS__KIND__ITEM)
    on_item(call, body, len);
  else
    on_end(call, frame, body, len);
}

static void on_credit(struct bus_conn *conn, const struct bus_frame *frame) {
  struct bus_slot *slot = bus_table_find(&conn->answers, frame->id);
  if (!slot)
    return; /* it crossed the end of our answer */
  struct bus_call *call = OWNER(slot);
  uint32_t room = MAX_CREDIT - call->credit;
  call->credit += frame->credit < room ? frame->credit : room;
  if (call->starved && call->credit && conn->queued <= PUSH_ROOM) {
    call->starved = false;
    if (call->answer && call->answer->ready)
      call->answer->ready(call->arg);
  }
}

static void on_refusal(struct bus_conn *conn, const struct bus_frame *frame) {
  bus_conn_break(conn, frame->error.code, "%s", frame->error.msg[0] ? frame->error.msg : "refused");
}

/* First contact: PING starts a conversation on the listener's side, PONG on the connector's. */
static void on_session(struct bus_conn *conn, const struct bus_frame *frame) {
  if ((frame->kind == BUS__KIND__PING) != (conn->listener != NULL)) {
    bus_conn_misbehaved(conn, "pinged from the wrong side");
    return;
  }
  if (conn->up && frame->session != conn->peer_session) {
    bus_conn_break(conn, ERR_UNAVAILABLE, "restarted");
    return;
  }
  conn->peer_session = frame->session;
  if (frame->kind == BUS__KIND__PING) {
    struct bus_frame pong = {.kind = BUS__KIND__PONG, .session = conn->session};
    bus_conn_send(conn, &pong, NULL);
  }
  if (!conn->up && !conn->broken) {
    conn->up = true;
    if (conn->ops->up)
      conn->ops->up(conn->arg, conn);
  }
}

void bus_conn_receive(struct bus_conn *conn, const uint8_t *header, size_t header_len, const uint8_t *body, size_t body_len) {
  struct bus_frame frame = {0};
  struct err err;
  conn->bus->counters.received++;
  if (conn->broken || conn->gone)
    return;
  if (body_len > BUS_MAX_MESSAGE) {
    conn->bus->counters.refused_too_large++;
    bus_report(conn->bus, &conn->last_report, bus_peer_name(conn), "sent a message that is too large");
    return;
  }
  if (bus_frame_decode(header, header_len, body_len, &frame, &err) < 0) {
    bus_conn_misbehaved(conn, err.msg);
    if (err.code == ERR_UNSUPPORTED && (frame.kind == BUS__KIND__CALL || frame.kind == BUS__KIND__PING))
      send_error(conn, frame.kind == BUS__KIND__CALL ? frame.id : 0, ERR_UNSUPPORTED, err.msg);
    return;
  }
  conn->last_received = loop_now(conn->bus->loop);
  if (!conn->up && frame.kind != BUS__KIND__PING && frame.kind != BUS__KIND__PONG && !(frame.kind == BUS__KIND__ERROR && frame.id == 0)) {
    bus_conn_misbehaved(conn, "spoke before its first ping");
    return;
  }
  switch (frame.kind) {
  case BUS__KIND__PING:
  case BUS__KIND__PONG:
    on_session(conn, &frame);
    return;
  case BUS__KIND__CALL:
    on_call(conn, &frame, body, body_len);
    return;
  case BUS__KIND__ERROR:
    if (frame.id == 0) {
      on_refusal(conn, &frame);
      return;
    }
    on_answer(conn, &frame, body, body_len);
    return;
  case BUS__KIND__REPLY:
  case BUS__KIND__ITEM:
    on_answer(conn, &frame, body, body_len);
    return;
  case BUS__KIND__CREDIT:
    on_credit(conn, &frame);
    return;
  case BUS__KIND__CANCEL: {
    struct bus_slot *slot = bus_table_find(&conn->answers, frame.id);
    if (slot)
      forget_answer(OWNER(slot));
    return;
  }
  case _BUS__KIND_IS_INT_SIZE:
    return;
  }
}

/* ---- a conversation's beginning and end ---- */

void bus_conn_init(struct bus_conn *conn, struct bus *bus) {
  conn->bus = bus;
  conn->queue_tail = &conn->queue;
  conn->session = bus_random();
  conn->last_received = conn->last_sent = loop_now(bus->loop);
}

void bus_conn_drop_calls(struct bus_conn *conn, const struct err *why) {
  struct bus_slot *slot;
  conn->up = false;
  conn->last_id = 0; /* a new conversation counts anew */
  while ((slot = bus_table_any(&conn->calls)))
    bus_call_fail(OWNER(slot), why);
  while ((slot = bus_table_any(&conn->answers)))
    forget_answer(OWNER(slot));
}

void bus_conn_fail_orphans(struct bus_conn *conn, const struct err *why) {
  /* Those made by the callbacks of this very pass go without the conversation and fail from the loop. */
  struct bus_call *call = conn->bus->orphans, *next;
  size_t count = 0;
  for (; call; call = call->next_orphan)
    count += call->conn == conn;
  for (; count; count--) {
    for (call = conn->bus->orphans; call && call->conn != conn; call = call->next_orphan)
      ;
    if (!call)
      break;
    bus_call_fail(call, why);
  }
  for (call = conn->bus->orphans; call; call = next) {
    next = call->next_orphan;
    if (call->conn == conn)
      call->conn = NULL;
  }
}

void bus_conn_bury(struct bus_conn *conn) {
  struct bus *bus = conn->bus;
  loop_timer_cancel(bus->loop, &conn->tick);
  loop_timer_cancel(bus->loop, &conn->retry);
  bus_conn_drop_queue(conn);
  bus_table_free(&conn->calls);
  bus_table_free(&conn->answers);
  for (struct bus_conn **at = &bus->queued; *at; at = &(*at)->next_queued)
    if (*at == conn) {
      *at = conn->next_queued;
      break;
    }
  for (struct bus_conn **at = &bus->broken; *at; at = &(*at)->next_broken)
    if (*at == conn) {
      *at = conn->next_broken;
      break;
    }
  for (size_t i = 0; conn->addresses && i < conn->address_count; i++) {
    free((char *)(uintptr_t)conn->addresses[i].endpoint);
    free((char *)(uintptr_t)conn->addresses[i].server_key);
  }
  free(conn->addresses);
  conn->addresses = NULL;
  conn->address_count = 0;
  bus_bury(bus, &conn->grave);
}

/* A process that was itself stopped for a while (SIGSTOP, a suspended machine, a long callback) finds its own tick late, and must
 * not take its own sleep for the peer's silence. */
bool bus_conn_silent(struct bus_conn *conn) {
  int64_t now = loop_now(conn->bus->loop), beat = conn->bus->heartbeat, limit = BUS_SILENT * beat;
  if (now - conn->tick.at > beat && now - conn->last_received > limit - beat)
    conn->last_received = now - (limit - beat);
  return now - conn->last_received > limit;
}

/* ---- small questions ---- */

bool bus_conn_is_up(const struct bus_conn *conn) {
  return conn->up && !conn->broken;
}

const char *bus_peer_name(const struct bus_conn *conn) {
  if (conn->listener || !conn->address_count)
    return conn->who[0] ? conn->who : conn->key;
  return conn->addresses[conn->address_at].endpoint;
}

const char *bus_peer_key(const struct bus_conn *conn) {
  return conn->listener || !conn->address_count ? conn->key : conn->addresses[conn->address_at].server_key;
}

uint64_t bus_peer_tag(const struct bus_conn *conn) {
  return conn->tag;
}

void bus_conn_set_data(struct bus_conn *conn, void *data) {
  conn->data = data;
}

void *bus_conn_data(const struct bus_conn *conn) {
  return conn->data;
}

void bus_conn_cut(struct bus_conn *conn) {
  bus_conn_break(conn, ERR_UNAVAILABLE, "cut from this side");
}
