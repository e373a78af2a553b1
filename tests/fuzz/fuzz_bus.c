/* What a peer may say in a conversation. The input is a list of messages: a length byte for the header, one for the body, then both. The peer's
 * half-way honest frames are made easy to hit: both sides have calls open and streams in flight. */
#include <stdlib.h>
#include <string.h>

#include "common/bus/internal.h"
#include "tests/fuzz/fuzz.h"

static int transmit(struct bus_conn *conn, const uint8_t *header, size_t len, zmq_msg_t *body) {
  struct bus_frame frame;
  struct err err;
  (void)conn;
  if (bus_frame_decode(header, len, zmq_msg_size(body), &frame, &err) < 0)
    abort(); /* what we say must be right, whatever was said to us */
  zmq_msg_close(body);
  return 0;
}

static void push_some(void *arg) {
  Bus__Header m = BUS__HEADER__INIT;
  for (unsigned i = 0; i < 3 && bus_push(arg, &m.base) == 0; i++)
    ;
}

static void cancelled(void *arg) {
  (void)arg;
}

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  static const struct bus_answer_ops ops = {cancelled, push_some};
  (void)arg;
  (void)conn;
  if (len && body[0] == 'r') {
    bus_reply(call, NULL);
  } else {
    bus_answer_on(call, &ops, call);
    push_some(call);
  }
}

static void done(void *arg, const uint8_t *body, size_t len) {
  (void)arg;
  (void)body;
  (void)len;
}

static void failed(void *arg, const struct err *why) {
  (void)arg;
  (void)why;
}

static void item(void *arg, const uint8_t *body, size_t len) {
  struct bus_call **call = arg;
  if (len && body[0] == 'h' && *call)
    bus_call_hold(*call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct bus_conn_ops ops = {.call = on_call};
  static const struct bus_call_ops stream = {done, failed, item}, plain = {done, failed, NULL};
  static struct loop *loop;
  static struct bus *bus;
  struct err err;
  if (!bus) {
    struct bus_key_pair keys;
    struct bus_config config = {.keys = &keys};
    loop = loop_new(NULL, &err);
    bus_key_new(&keys, &err);
    bus = bus_new(loop, &config, &err);
  }
  struct bus_conn *conn = calloc(1, sizeof *conn);
  if (!conn)
    return 0;
  bus_conn_init(conn, bus);
  conn->ops = &ops;
  conn->transmit = transmit;
  conn->up = true;
  conn->peer_session = 1;
  Bus__Header m = BUS__HEADER__INIT;
  struct bus_call *held = NULL;
  held = bus_call(conn, &m.base, 0, &stream, &held);
  bus_call(conn, &m.base, NS_PER_SEC, &plain, NULL);
  while (size >= 2) {
    size_t header = data[0], body = data[1];
    data += 2;
    size -= 2;
    if (header > size)
      header = size;
    if (body > size - header)
      body = size - header;
    /* exact copies, so that reading one byte too far is seen */
    uint8_t *h = malloc(header ? header : 1), *b = malloc(body ? body : 1);
    if (h && b) {
      memcpy(h, data, header);
      memcpy(b, data + header, body);
      bus_conn_receive(conn, h, header, b, body);
    }
    free(h);
    free(b);
    data += header + body;
    size -= header + body;
  }
  if (held && !held->ended)
    bus_call_resume(held);
  bus_calls_deliver_resumed(bus);
  err_set(&err, ERR_CANCELLED, "over");
  bus_conn_drop_calls(conn, &err);
  conn->gone = true;
  bus_conn_fail_orphans(conn, &err);
  bus_conn_bury(conn);
  loop_once(loop, 0, &err); /* the graveyard */
  return 0;
}
