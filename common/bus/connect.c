#include "common/bus/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* DEALER: one socket per conversation, never reconnected by libzmq:
 *
 *   waiting ──retry──▶ connecting ──handshake, PING, PONG──▶ up
 *      ▲                   │ refused, no answer for 3 heartbeats │ disconnected, silent, refused, cut
 *      └──next address─────┴─────────────────────────────────────┘
 *
 * A fresh socket each time, so that nothing of an old conversation can leak into a new one. */

#define BACKOFF_MIN (2 * NS_PER_MS)
#define BACKOFF_MAX NS_PER_SEC

#define EVENTS                                                                                                                                       \
  (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |    \
   ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED)

static int transmit(struct bus_conn *conn, const uint8_t *header, size_t len, zmq_msg_t *body) {
  if (!conn->socket.zmq)
    return ENOTCONN;
  bus_touched(conn->bus, &conn->socket);
  if (zmq_send(conn->socket.zmq, header, len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 || zmq_msg_send(body, conn->socket.zmq, ZMQ_DONTWAIT) < 0)
    return zmq_errno();
  return 0;
}

static void send_ping(struct bus_conn *conn) {
  struct bus_frame frame = {.kind = BUS__KIND__PING, .session = conn->session};
  bus_conn_send(conn, &frame, NULL);
}

static void on_tick(void *arg) {
  struct bus_conn *conn = arg;
  struct bus *bus = conn->bus;
  int64_t now = loop_now(bus->loop), almost = bus->heartbeat - bus->heartbeat / 8;
  if (bus_conn_silent(conn)) {
    bus_conn_break(conn, ERR_UNAVAILABLE, "silent for %lld ms", (long long)(BUS_SILENT * bus->heartbeat / NS_PER_MS));
    return;
  }
  /* Also when we talk and it doesn't: an answer that takes long is not silence. */
  if (now - conn->last_sent >= almost || now - conn->last_received >= almost)
    send_ping(conn);
  if (loop_timer_in(bus->loop, &conn->tick, bus->heartbeat, NULL) < 0)
    bus_conn_break(conn, ERR_MEMORY, "no memory to watch over it");
}

static int configure(struct bus_conn *conn, const struct bus_address *to, struct err *err) {
  struct bus *bus = conn->bus;
  struct bus_socket *s = &conn->socket;
  if (bus_socket_common(s, err) < 0 || bus_socket_set(s, ZMQ_IMMEDIATE, 1, err) < 0 || bus_socket_set(s, ZMQ_RECONNECT_IVL, -1, err) < 0)
    return -1;
  if (strchr(to->endpoint, '[') && bus_socket_set(s, ZMQ_IPV6, 1, err) < 0)
    return -1;
  if (zmq_setsockopt(s->zmq, ZMQ_CURVE_SERVERKEY, to->server_key, BUS_KEY_LEN + 1) != 0 ||
      zmq_setsockopt(s->zmq, ZMQ_CURVE_PUBLICKEY, bus->keys.public_key, BUS_KEY_LEN + 1) != 0 ||
      zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, bus->keys.secret_key, BUS_KEY_LEN + 1) != 0 || zmq_connect(s->zmq, to->endpoint) != 0)
    return err_set(err, ERR_INVALID, "connect to %s: %s", to->endpoint, zmq_strerror(zmq_errno()));
  return 0;
}

static void close_sockets(struct bus_conn *conn, int linger_ms) {
  bus_socket_close_monitored(conn->bus, &conn->socket, &conn->monitor, linger_ms);
  loop_timer_cancel(conn->bus->loop, &conn->tick);
  loop_timer_cancel(conn->bus->loop, &conn->retry);
}

static void start(struct bus_conn *conn) {
  struct bus *bus = conn->bus;
  struct err err;
  conn->session = bus_random();
  conn->peer_session = 0;
  conn->last_received = conn->last_sent = loop_now(bus->loop);
  if (bus_socket_open(bus, &conn->socket, ZMQ_DEALER, &err) < 0 || bus_socket_monitor(bus, &conn->socket, &conn->monitor, EVENTS, &err) < 0 ||
      configure(conn, &conn->addresses[conn->address_at], &err) < 0 || loop_timer_in(bus->loop, &conn->retry, BUS_SILENT * bus->heartbeat, &err) < 0)
    bus_conn_break(conn, err.code, "%s", err.msg);
}

static void on_retry(void *arg) {
  struct bus_conn *conn = arg;
  if (conn->socket.zmq)
    bus_conn_break(conn, ERR_UNAVAILABLE, "no answer to the first ping");
  else
    start(conn);
}

/* Up means: the other side has answered our ping. */
static void note_up(struct bus_conn *conn) {
  if (conn->tick_on)
    return;
  conn->tick_on = true;
  conn->up_since = loop_now(conn->bus->loop);
  loop_timer_cancel(conn->bus->loop, &conn->retry);
  if (loop_timer_in(conn->bus->loop, &conn->tick, conn->bus->heartbeat, NULL) < 0)
    bus_conn_break(conn, ERR_MEMORY, "no memory to watch over it");
}

static bool read_batch(struct bus_conn *conn) {
  bool worked = false;
  for (unsigned n = 0; n < BUS_BATCH && !conn->gone && !conn->broken && bus_socket_readable(&conn->socket); n++) {
    zmq_msg_t parts[2];
    unsigned count;
    if (bus_socket_receive(&conn->socket, parts, 2, &count) < 0)
      break;
    worked = true;
    if (count == 2) {
      bus_conn_receive(conn, zmq_msg_data(&parts[0]), zmq_msg_size(&parts[0]), zmq_msg_data(&parts[1]), zmq_msg_size(&parts[1]));
    } else {
      conn->bus->counters.received++;
      bus_conn_misbehaved(conn, "sent a message that is not of two parts");
    }
    for (unsigned i = 0; i < count && i < 2; i++)
      zmq_msg_close(&parts[i]);
    if (!conn->gone && conn->up)
      note_up(conn);
  }
  return worked;
}

static void on_event(struct bus_conn *conn, unsigned event) {
  switch (event) {
  case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
    send_ping(conn);
    break;
  case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
    bus_report(conn->bus, &conn->last_report, bus_peer_name(conn), "refuses our key");
    bus_conn_break(conn, ERR_DENIED, "refuses our key");
    break;
  case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
  case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    bus_report(conn->bus, &conn->last_report, bus_peer_name(conn), "did not complete the handshake: is its key the configured one?");
    bus_conn_break(conn, ERR_UNAVAILABLE, "handshake failed");
    break;
  default:
    bus_conn_break(conn, ERR_UNAVAILABLE, conn->up ? "disconnected" : "not reachable");
  }
}

bool bus_connector_pump(struct bus_conn *conn) {
  bool worked = read_batch(conn);
  uint32_t value;
  unsigned event;
  while (!conn->gone && !conn->broken && (event = bus_monitor_next(&conn->monitor, &value))) {
    /* What came before the connection ended is still to be read. */
    worked = true;
    if (event == ZMQ_EVENT_DISCONNECTED || event == ZMQ_EVENT_CLOSED)
      for (unsigned n = 0; n < 16 && read_batch(conn); n++)
        ;
    if (!conn->gone)
      on_event(conn, event);
  }
  return worked;
}

void bus_connector_lost(struct bus_conn *conn) {
  struct bus *bus = conn->bus;
  bool was_up = conn->up;
  struct err why = conn->why, lost = conn->why;
  lost.code = ERR_UNAVAILABLE;
  err_context(&lost, "%s", bus_peer_name(conn));
  /* An orderly end: what was said before the cut may still leave. */
  close_sockets(conn, was_up ? BUS_LINGER_MS : 0);
  bus_conn_drop_queue(conn);
  conn->tick_on = false;
  /* Still marked broken: what the callbacks below call or send goes nowhere but to its own failure. */
  bus_conn_drop_calls(conn, &lost);
  if (!conn->gone && was_up && conn->ops->down)
    conn->ops->down(conn->arg, conn, &why);
  if (conn->gone)
    return;
  conn->broken = false;
  bus->counters.reconnects++;
  conn->address_at = (conn->address_at + 1) % conn->address_count;
  /* One who lets us in only to throw us out is not met at full speed. */
  if (was_up && loop_now(bus->loop) - conn->up_since > NS_PER_SEC)
    conn->backoff = 0;
  /* Longer by a quarter each time: who comes back after t is met again within t / 4, be it a process that starts beside us or a machine. */
  conn->backoff = conn->backoff ? conn->backoff + conn->backoff / 4 : BACKOFF_MIN;
  if (conn->backoff > BACKOFF_MAX)
    conn->backoff = BACKOFF_MAX;
  int64_t delay = conn->backoff + (int64_t)(bus_random() % (uint64_t)(conn->backoff / 4)); /* a thousand nodes don't come back in step */
  if (loop_timer_in(bus->loop, &conn->retry, delay, NULL) < 0)
    bus_conn_break(conn, ERR_MEMORY, "no memory to reconnect"); /* settled in the next round, which tries again */
}

/* ---- the connector itself ---- */

static void free_addresses(struct bus_address *addresses, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free((char *)(uintptr_t)addresses[i].endpoint);
    free((char *)(uintptr_t)addresses[i].server_key);
  }
  free(addresses);
}

static bool key_is_valid(const char *key) {
  uint8_t raw[32];
  return key && strlen(key) == BUS_KEY_LEN && zmq_z85_decode(raw, key);
}

struct bus_conn *bus_connect(struct bus *bus, const struct bus_address *addresses, size_t count, const struct bus_conn_ops *ops, void *arg,
                             struct err *err) {
  for (size_t i = 0; i < count; i++)
    if (!addresses[i].endpoint || !key_is_valid(addresses[i].server_key)) {
      err_set(err, ERR_INVALID, "connect to %s: its key is not a key", addresses[i].endpoint ? addresses[i].endpoint : "?");
      return NULL;
    }
  if (!count) {
    err_set(err, ERR_INVALID, "connect: no address");
    return NULL;
  }
  struct bus_conn *conn = calloc(1, sizeof *conn);
  if (conn)
    conn->addresses = calloc(count, sizeof *conn->addresses);
  for (size_t i = 0; conn && conn->addresses && i < count; i++) {
    conn->addresses[i] = (struct bus_address){strdup(addresses[i].endpoint), strdup(addresses[i].server_key)};
    if (conn->addresses[i].endpoint && conn->addresses[i].server_key)
      conn->address_count++;
  }
  if (!conn || conn->address_count < count) {
    if (conn && conn->addresses)
      free_addresses(conn->addresses, count);
    free(conn);
    err_set(err, ERR_MEMORY, "no memory to connect to %s", addresses[0].endpoint);
    return NULL;
  }
  bus_conn_init(conn, bus);
  conn->ops = ops;
  conn->arg = arg;
  conn->transmit = transmit;
  conn->tick = (struct loop_timer){.cb = on_tick, .arg = conn};
  conn->retry = (struct loop_timer){.cb = on_retry, .arg = conn};
  conn->next = bus->connectors;
  if (conn->next)
    conn->next->prev = conn;
  bus->connectors = conn;
  start(conn);
  /* Only the first address is tried here; one that can never be connected to is the configuration's fault and said at once. */
  if (conn->broken && conn->why.code == ERR_INVALID) {
    if (err)
      *err = conn->why;
    bus_conn_free(conn);
    return NULL;
  }
  return conn;
}

void bus_conn_free(struct bus_conn *conn) {
  if (!conn || conn->gone || conn->listener)
    return;
  struct bus *bus = conn->bus;
  struct err why;
  err_set(&why, ERR_CANCELLED, "closed from this side");
  bool was_up = conn->up;
  conn->up = false;
  conn->gone = true;
  if (bus->connector_cursor == conn)
    bus->connector_cursor = conn->next;
  if (conn->prev)
    conn->prev->next = conn->next;
  else
    bus->connectors = conn->next;
  if (conn->next)
    conn->next->prev = conn->prev;
  if (was_up && !conn->broken)
    bus_conn_flush(conn);
  close_sockets(conn, was_up ? BUS_LINGER_MS : 0);
  bus_conn_drop_calls(conn, &why);
  bus_conn_fail_orphans(conn, &why);
  bus_conn_bury(conn);
}
