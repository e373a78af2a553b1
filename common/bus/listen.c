#include "common/bus/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ROUTER: one socket, many peers. A peer's routing id is libzmq's own (a zero byte and a number of 32 bits, never used again within a
 * socket's life); a peer that chose its id itself is refused, and so is one that comes under another's id with another key. */

#define ROUTING_ID_LEN 5
#define PROBE_AFTER (10 * NS_PER_MS)

#define OWNER(slot_) ((struct bus_conn *)((char *)(slot_)-offsetof(struct bus_conn, slot)))

static bool routing_key(zmq_msg_t *id, uint64_t *ret) {
  const uint8_t *p = zmq_msg_data(id);
  if (zmq_msg_size(id) != ROUTING_ID_LEN || p[0] != 0)
    return false;
  uint32_t number;
  memcpy(&number, p + 1, sizeof number);
  *ret = number;
  return true;
}

/* Takes body on success. Everything after the first part cannot fail: ROUTER decides for the whole message there. */
static int router_send(struct bus_listener *listener, uint64_t routing, const uint8_t *header, size_t len, zmq_msg_t *body) {
  uint8_t id[ROUTING_ID_LEN] = {0};
  uint32_t number = (uint32_t)routing;
  memcpy(id + 1, &number, sizeof number);
  void *zmq = listener->socket.zmq;
  bus_touched(listener->bus, &listener->socket);
  if (zmq_send(zmq, id, sizeof id, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 || zmq_send(zmq, header, len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 ||
      zmq_msg_send(body, zmq, ZMQ_DONTWAIT) < 0)
    return zmq_errno();
  return 0;
}

static int transmit(struct bus_conn *conn, const uint8_t *header, size_t len, zmq_msg_t *body) {
  return router_send(conn->listener, conn->slot.key, header, len, body);
}

/* Tells a peer that it has no conversation here (any more); its connector then begins another. */
static void refuse(struct bus_listener *listener, uint64_t routing, enum err_code code, const char *why) {
  struct bus_frame frame = {.kind = BUS__KIND__ERROR};
  uint8_t header[FRAME_MAX];
  zmq_msg_t body;
  err_set(&frame.error, code, "%s", why);
  size_t len = bus_frame_encode(&frame, header);
  zmq_msg_init(&body);
  if (router_send(listener, routing, header, len, &body) != 0)
    zmq_msg_close(&body); /* gone, or not reading: it will find out by itself */
}

static void on_tick(void *arg) {
  struct bus_conn *conn = arg;
  struct bus *bus = conn->bus;
  if (bus_conn_silent(conn))
    bus_conn_break(conn, ERR_UNAVAILABLE, "silent for %lld ms", (long long)(BUS_SILENT * bus->heartbeat / NS_PER_MS));
  else if (loop_timer_at(bus->loop, &conn->tick, conn->last_received + BUS_SILENT * bus->heartbeat + 1, NULL) < 0)
    bus_conn_break(conn, ERR_MEMORY, "no memory to watch over it");
}

static struct bus_conn *new_peer(struct bus_listener *listener, uint64_t routing, const char *key, const uint8_t *header, size_t len,
                                 size_t body_len) {
  struct bus *bus = listener->bus;
  struct bus_frame frame = {0};
  struct err err;
  if (bus_frame_decode(header, len, body_len, &frame, &err) < 0) {
    bus->counters.refused_malformed++;
    bus_report(bus, &listener->last_report, key, err.msg);
    if (err.code == ERR_UNSUPPORTED)
      refuse(listener, routing, ERR_UNSUPPORTED, err.msg);
    return NULL;
  }
  if (frame.kind != BUS__KIND__PING) {
    /* Often honest: we gave it up while it was frozen. */
    if (!(frame.kind == BUS__KIND__ERROR && frame.id == 0))
      refuse(listener, routing, ERR_UNAVAILABLE, "no conversation here: connect again");
    return NULL;
  }
  struct bus_conn *conn = calloc(1, sizeof *conn);
  if (!conn)
    return NULL;
  if (!listener->allow(listener->arg, key, conn->who, &conn->tag)) {
    bus->counters.refused_unauthorized++;
    refuse(listener, routing, ERR_DENIED, "not on the allow-list");
    free(conn);
    return NULL;
  }
  conn->who[sizeof conn->who - 1] = 0;
  size_t same = 0;
  for (const struct bus_conn *c = listener->conns; c; c = c->next)
    same += strcmp(c->key, key) == 0;
  if (same >= BUS_MAX_PER_KEY) {
    bus->counters.refused_unauthorized++;
    bus_report(bus, &listener->last_report, conn->who, "has too many conversations open");
    refuse(listener, routing, ERR_BUSY, "too many conversations under this key");
    free(conn);
    return NULL;
  }
  bus_conn_init(conn, bus);
  conn->listener = listener;
  conn->ops = listener->ops;
  conn->arg = listener->arg;
  conn->transmit = transmit;
  snprintf(conn->key, sizeof conn->key, "%s", key);
  conn->tick = (struct loop_timer){.cb = on_tick, .arg = conn};
  if (loop_timer_in(bus->loop, &conn->tick, BUS_SILENT * bus->heartbeat + 1, NULL) < 0 || bus_table_add(&listener->peers, &conn->slot, routing) < 0) {
    loop_timer_cancel(bus->loop, &conn->tick);
    free(conn);
    return NULL;
  }
  conn->next = listener->conns;
  if (conn->next)
    conn->next->prev = conn;
  listener->conns = conn;
  return conn;
}

static void on_message(struct bus_listener *listener, zmq_msg_t *parts, unsigned count) {
  struct bus *bus = listener->bus;
  const char *key = count > 1 ? zmq_msg_gets(&parts[1], "User-Id") : NULL;
  uint64_t routing;
  if (!key || strlen(key) != BUS_KEY_LEN || !routing_key(&parts[0], &routing)) {
    bus->counters.received++;
    bus->counters.refused_malformed++;
    bus_report(bus, &listener->last_report, key ? key : "a peer", "came under an id of its own choice");
    return;
  }
  struct bus_slot *slot = bus_table_find(&listener->peers, routing);
  struct bus_conn *conn = slot ? OWNER(slot) : NULL;
  if (conn && strcmp(conn->key, key) != 0) {
    bus_conn_misbehaved(conn, "another key came under its id");
    bus_conn_break(conn, ERR_DENIED, "another key came under its id");
    return;
  }
  if (count != 3) {
    bus->counters.received++;
    bus->counters.refused_malformed++;
    bus_report(bus, conn ? &conn->last_report : &listener->last_report, conn ? bus_peer_name(conn) : key, "sent a message that is not of two parts");
    return;
  }
  const uint8_t *header = zmq_msg_data(&parts[1]), *body = zmq_msg_data(&parts[2]);
  size_t len = zmq_msg_size(&parts[1]), body_len = zmq_msg_size(&parts[2]);
  if (!conn)
    conn = new_peer(listener, routing, key, header, len, body_len);
  if (conn)
    bus_conn_receive(conn, header, len, body, body_len);
}

/* A connection has ended, libzmq doesn't say whose. Sending finds out: to a peer that is gone it fails at once. */
static void on_probe(void *arg) {
  struct bus_listener *listener = arg;
  for (struct bus_conn *conn = listener->conns; conn; conn = conn->next) {
    struct bus_frame frame = {.kind = BUS__KIND__PONG, .session = conn->session};
    if (!conn->queue)
      bus_conn_send(conn, &frame, NULL);
  }
}

bool bus_listener_pump(struct bus_listener *listener) {
  bool worked = false;
  for (unsigned n = 0; n < BUS_BATCH && !listener->gone && bus_socket_readable(&listener->socket); n++) {
    zmq_msg_t parts[3];
    unsigned count;
    if (bus_socket_receive(&listener->socket, parts, 3, &count) < 0)
      break;
    worked = true;
    on_message(listener, parts, count);
    for (unsigned i = 0; i < count && i < 3; i++)
      zmq_msg_close(&parts[i]);
  }
  uint32_t value;
  while (!listener->gone && bus_monitor_next(&listener->monitor, &value))
    if (!loop_timer_is_set(&listener->probe) && loop_timer_in(listener->bus->loop, &listener->probe, PROBE_AFTER, NULL) < 0)
      break; /* the heartbeats will tell, later */
  return worked;
}

static void close_conn(struct bus_conn *conn, const struct err *why) {
  struct bus_listener *listener = conn->listener;
  bool was_up = conn->up;
  struct err lost = *why;
  lost.code = why->code == ERR_CANCELLED ? ERR_CANCELLED : ERR_UNAVAILABLE;
  err_context(&lost, "%s", bus_peer_name(conn));
  bus_conn_drop_calls(conn, &lost);
  bus_table_remove(&listener->peers, &conn->slot);
  if (conn->prev)
    conn->prev->next = conn->next;
  else
    listener->conns = conn->next;
  if (conn->next)
    conn->next->prev = conn->prev;
  if (was_up && conn->ops->down)
    conn->ops->down(conn->arg, conn, why);
  conn->gone = true;
  bus_conn_fail_orphans(conn, &lost);
  bus_conn_bury(conn);
}

void bus_listener_lost(struct bus_conn *conn) {
  struct err why = conn->why;
  refuse(conn->listener, conn->slot.key, why.code, why.msg);
  close_conn(conn, &why);
}

/* ---- the listener itself ---- */

/* A socket is its owner's alone; in a folder that a group shares for this (setgid), the group's too. Who may say what, the keys decide. */
static mode_t socket_umask(const char *path) {
  char folder[sizeof(struct sockaddr_un)];
  const char *slash = strrchr(path, '/');
  struct stat st;
  if (!slash || (size_t)(slash - path) >= sizeof folder)
    return 0177;
  memcpy(folder, path, (size_t)(slash - path));
  folder[slash - path] = 0;
  return stat(folder, &st) == 0 && (st.st_mode & S_ISGID) && (st.st_mode & S_IWGRP) ? 0117 : 0177;
}

static int configure(struct bus_listener *l, const char *endpoint, struct err *err) {
  struct bus *bus = l->bus;
  struct bus_socket *s = &l->socket;
  if (bus_socket_common(s, err) < 0 || bus_socket_set(s, ZMQ_ROUTER_MANDATORY, 1, err) < 0 || bus_socket_set(s, ZMQ_CURVE_SERVER, 1, err) < 0 ||
      bus_socket_set(s, ZMQ_ZAP_ENFORCE_DOMAIN, 1, err) < 0 || bus_socket_set(s, ZMQ_BACKLOG, 1024, err) < 0)
    return -1;
  if (zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, bus->keys.secret_key, BUS_KEY_LEN + 1) != 0 ||
      zmq_setsockopt(s->zmq, ZMQ_ZAP_DOMAIN, l->domain, strlen(l->domain)) != 0)
    return err_set(err, ERR_INTERNAL, "encrypt %s: %s", endpoint, zmq_strerror(zmq_errno()));
  if (strchr(endpoint, '[') && bus_socket_set(s, ZMQ_IPV6, 1, err) < 0)
    return -1;
  bool ipc = strncmp(endpoint, "ipc://", 6) == 0;
  mode_t old = ipc ? umask(socket_umask(endpoint + sizeof "ipc://" - 1)) : 0;
  int rc = zmq_bind(s->zmq, endpoint);
  int code = zmq_errno();
  if (ipc)
    umask(old);
  if (rc != 0)
    return code == EADDRINUSE || code == EACCES || code == EADDRNOTAVAIL || code == ENOENT
               ? err_errno(err, code, "listen on %s", endpoint)
               : err_set(err, ERR_INVALID, "listen on %s: %s", endpoint, zmq_strerror(code));
  size_t len = sizeof l->endpoint;
  if (zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, l->endpoint, &len) != 0)
    return err_set(err, ERR_INTERNAL, "listen on %s: %s", endpoint, zmq_strerror(zmq_errno()));
  return 0;
}

struct bus_listener *bus_listen(struct bus *bus, const char *endpoint, bus_allow_fn *allow, const struct bus_conn_ops *ops, void *arg,
                                struct err *err) {
  struct bus_listener *l = calloc(1, sizeof *l);
  if (!l) {
    err_set(err, ERR_MEMORY, "no memory to listen on %s", endpoint);
    return NULL;
  }
  l->bus = bus;
  l->allow = allow;
  l->ops = ops;
  l->arg = arg;
  l->probe = (struct loop_timer){.cb = on_probe, .arg = l};
  snprintf(l->domain, sizeof l->domain, "listener-%llu", (unsigned long long)++bus->numbers);
  /* The domain must be known to ZAP before the first peer can come. */
  l->next = bus->listeners;
  if (l->next)
    l->next->prev = l;
  bus->listeners = l;
  if (bus_zap_open(bus, err) == 0 && bus_socket_open(bus, &l->socket, ZMQ_ROUTER, err) == 0 &&
      bus_socket_monitor(bus, &l->socket, &l->monitor, ZMQ_EVENT_DISCONNECTED, err) == 0 && configure(l, endpoint, err) == 0)
    return l;
  bus_listener_free(l);
  return NULL;
}

const char *bus_listener_endpoint(const struct bus_listener *listener) {
  return listener->endpoint;
}

void bus_listener_recheck(struct bus_listener *listener) {
  for (struct bus_conn *conn = listener->conns; conn; conn = conn->next) {
    char who[64] = "";
    uint64_t tag = 0;
    if (listener->allow(listener->arg, conn->key, who, &tag)) {
      memcpy(conn->who, who, sizeof who);
      conn->who[sizeof who - 1] = 0;
      conn->tag = tag;
    } else {
      bus_conn_break(conn, ERR_DENIED, "no longer on the allow-list");
    }
  }
}

void bus_listener_free(struct bus_listener *l) {
  if (!l || l->gone)
    return;
  struct bus *bus = l->bus;
  struct err why;
  err_set(&why, ERR_CANCELLED, "closed from this side");
  while (l->conns)
    close_conn(l->conns, &why);
  l->gone = true;
  if (bus->listener_cursor == l)
    bus->listener_cursor = l->next;
  if (l->prev)
    l->prev->next = l->next;
  else
    bus->listeners = l->next;
  if (l->next)
    l->next->prev = l->prev;
  loop_timer_cancel(bus->loop, &l->probe);
  bus_socket_close_monitored(bus, &l->socket, &l->monitor, BUS_LINGER_MS);
  bus_table_free(&l->peers);
  bus_bury(bus, &l->grave);
}
