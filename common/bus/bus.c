#include "common/bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/bus/internal.h"
#include "common/crypto/crypto.h"

/* One raw libzmq context per bus, not czmq's global one: czmq brings an atexit handler, a signal handler and a megabyte of
 * resident memory per daemon, and one context per bus lets tests hold several in a process. */

/* ---- tables ---- */

static size_t bucket(const struct bus_table *t, uint64_t key) {
  assert(t->bits);
  return (size_t)((key * t->multiplier) >> (64 - t->bits));
}

struct bus_slot *bus_table_find(const struct bus_table *t, uint64_t key) {
  if (!t->bits)
    return NULL;
  struct bus_slot *s = t->heads[bucket(t, key)];
  while (s && s->key != key)
    s = s->next;
  return s;
}

static int grow(struct bus_table *t) {
  struct bus_table bigger = {.bits = t->bits ? t->bits + 1 : 4, .count = t->count, .multiplier = t->multiplier ? t->multiplier : bus_random() | 1};
  bigger.heads = calloc((size_t)1 << bigger.bits, sizeof(struct bus_slot *));
  if (!bigger.heads)
    return -1;
  for (size_t i = 0; t->bits && i < (size_t)1 << t->bits; i++)
    for (struct bus_slot *s = t->heads[i], *next; s; s = next) {
      next = s->next;
      size_t b = bucket(&bigger, s->key);
      s->next = bigger.heads[b];
      bigger.heads[b] = s;
    }
  free(t->heads);
  *t = bigger;
  return 0;
}

int bus_table_add(struct bus_table *t, struct bus_slot *slot, uint64_t key) {
  if ((!t->bits || t->count >= (size_t)2 << t->bits) && grow(t) < 0 && !t->bits)
    return -1; /* a full table that cannot grow still works */
  slot->key = key;
  size_t b = bucket(t, key);
  slot->next = t->heads[b];
  t->heads[b] = slot;
  t->count++;
  return 0;
}

void bus_table_remove(struct bus_table *t, struct bus_slot *slot) {
  if (!t->bits)
    return;
  for (struct bus_slot **at = &t->heads[bucket(t, slot->key)]; *at; at = &(*at)->next)
    if (*at == slot) {
      *at = slot->next;
      t->count--;
      return;
    }
}

struct bus_slot *bus_table_any(const struct bus_table *t) {
  if (t->count)
    for (size_t i = 0; i < (size_t)1 << t->bits; i++)
      if (t->heads[i])
        return t->heads[i];
  return NULL;
}

void bus_table_free(struct bus_table *t) {
  free(t->heads);
  *t = (struct bus_table){0};
}

/* ---- small things ---- */

uint64_t bus_random(void) {
  uint64_t v = 0;
  while (v == 0)
    if (crypto_random(&v, sizeof v, NULL) < 0)
      abort(); /* a machine without randomness cannot have keys either */
  return v;
}

void bus_bury(struct bus *bus, struct bus_grave *grave) {
  grave->next = bus->graves;
  bus->graves = grave;
}

void bus_report(struct bus *bus, int64_t *last, const char *peer, const char *what) {
  int64_t now = loop_now(bus->loop);
  if (!bus->report || (*last && now - *last < 60 * NS_PER_SEC))
    return;
  *last = now;
  /* A peer that comes again and again under one name is one peer. */
  struct bus_named *slot = &bus->named[0];
  for (size_t i = 0; i < sizeof bus->named / sizeof *bus->named; i++) {
    struct bus_named *n = &bus->named[i];
    if (n->at && strncmp(n->peer, peer, sizeof n->peer - 1) == 0) {
      if (now - n->at < 60 * NS_PER_SEC)
        return;
      slot = n;
      break;
    }
    if (n->at < slot->at)
      slot = n;
  }
  snprintf(slot->peer, sizeof slot->peer, "%s", peer);
  slot->at = now;
  bus->report(bus->report_arg, peer, what);
}

/* ---- sockets ---- */

static void bus_pump_all(struct bus *bus) {
  bus->worked |= bus_zap_pump(bus);
  for (struct bus_listener *l = bus->listeners; l; l = bus->listener_cursor) {
    bus->listener_cursor = l->next;
    bus->worked |= bus_listener_pump(l);
  }
  for (struct bus_conn *c = bus->connectors; c; c = bus->connector_cursor) {
    bus->connector_cursor = c->next;
    bus->worked |= bus_connector_pump(c);
  }
}

/* ZMQ_FD stays readable until libzmq has looked into its mailbox, and every send looks, too. So a socket is asked for its events (two system
 * calls) after its descriptor has said something and after each send, and not else. */
static void on_descriptor(void *arg, uint32_t events) {
  (void)events;
  struct bus_socket *s = arg;
  s->look = true;
  bus_pump_all(s->bus);
}

int bus_socket_set(struct bus_socket *s, int option, int value, struct err *err) {
  if (zmq_setsockopt(s->zmq, option, &value, sizeof value) == 0)
    return 0;
  return err_set(err, ERR_INTERNAL, "socket option %d: %s", option, zmq_strerror(zmq_errno()));
}

int bus_socket_common(struct bus_socket *s, struct err *err) {
  const int64_t max = (int64_t)BUS_MAX_MESSAGE + 1024; /* CURVE's frame around it */
  if (zmq_setsockopt(s->zmq, ZMQ_MAXMSGSIZE, &max, sizeof max) != 0)
    return err_set(err, ERR_INTERNAL, "socket option: %s", zmq_strerror(zmq_errno()));
  static const struct {
    int option, value;
  } options[] = {
      {ZMQ_LINGER, 0},
      {ZMQ_SNDHWM, 32},
      {ZMQ_RCVHWM, 32},
      {ZMQ_HANDSHAKE_IVL, 5000},
      {ZMQ_TCP_KEEPALIVE, 1},
      {ZMQ_TCP_KEEPALIVE_IDLE, 30},
      {ZMQ_TCP_KEEPALIVE_INTVL, 10},
      {ZMQ_TCP_KEEPALIVE_CNT, 3},
  };
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    if (bus_socket_set(s, options[i].option, options[i].value, err) < 0)
      return -1;
  return 0;
}

int bus_socket_open(struct bus *bus, struct bus_socket *s, int type, struct err *err) {
  if (!bus->zmq) {
    bus->zmq = zmq_ctx_new();
    if (!bus->zmq)
      return err_set(err, ERR_MEMORY, "start ZeroMQ: %s", zmq_strerror(zmq_errno()));
    zmq_ctx_set(bus->zmq, ZMQ_BLOCKY, 0);
  }
  s->zmq = zmq_socket(bus->zmq, type);
  if (!s->zmq)
    return err_set(err, ERR_INTERNAL, "open a ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
  int fd;
  size_t len = sizeof fd;
  s->bus = bus;
  s->look = true;
  s->io = (struct loop_io){.cb = on_descriptor, .arg = s};
  if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &len) != 0)
    err_set(err, ERR_INTERNAL, "ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
  else if (loop_io_add(bus->loop, &s->io, fd, EPOLLIN, err) == 0)
    return 0;
  zmq_close(s->zmq);
  s->zmq = NULL;
  return -1;
}

int bus_socket_monitor(struct bus *bus, struct bus_socket *s, struct bus_socket *monitor, int events, struct err *err) {
  char name[64];
  snprintf(name, sizeof name, "inproc://monitor-%llu", (unsigned long long)++bus->numbers);
  if (bus_socket_open(bus, monitor, ZMQ_PAIR, err) < 0)
    return -1;
  if (bus_socket_set(monitor, ZMQ_RCVHWM, 0, err) == 0 && zmq_socket_monitor(s->zmq, name, events) == 0 && zmq_connect(monitor->zmq, name) == 0)
    return 0;
  err_set(err, ERR_INTERNAL, "watch a socket: %s", zmq_strerror(zmq_errno()));
  zmq_socket_monitor(s->zmq, NULL, 0);
  bus_socket_close(bus, monitor, 0);
  return -1;
}

/* The I/O thread waits for ever, and holds a lock, when it reports an event to a monitor that is full or gone: so ours is never full, and
 * reporting ends before the monitor does. */
void bus_socket_close_monitored(struct bus *bus, struct bus_socket *s, struct bus_socket *monitor, int linger_ms) {
  if (s->zmq)
    zmq_socket_monitor(s->zmq, NULL, 0);
  bus_socket_close(bus, monitor, 0);
  bus_socket_close(bus, s, linger_ms);
}

void bus_socket_close(struct bus *bus, struct bus_socket *s, int linger_ms) {
  if (!s->zmq)
    return;
  loop_io_remove(bus->loop, &s->io);
  zmq_setsockopt(s->zmq, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
  zmq_close(s->zmq);
  s->zmq = NULL;
}

bool bus_socket_readable(struct bus_socket *s) {
  int events = 0;
  size_t len = sizeof events;
  if (!s->zmq || !s->look)
    return false;
  s->look = zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &len) == 0 && (events & ZMQ_POLLIN);
  return s->look;
}

int bus_socket_receive(struct bus_socket *s, zmq_msg_t *parts, unsigned max, unsigned *ret_parts) {
  unsigned count = 0;
  for (;;) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, s->zmq, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&part);
      for (unsigned i = 0; i < count && i < max; i++)
        zmq_msg_close(&parts[i]);
      return -1; /* EAGAIN; the parts of one message are never split by it */
    }
    int more = zmq_msg_more(&part);
    if (count < max) {
      zmq_msg_init(&parts[count]);
      zmq_msg_move(&parts[count], &part);
    }
    zmq_msg_close(&part);
    count++;
    if (!more)
      break;
  }
  *ret_parts = count;
  return 0;
}

unsigned bus_monitor_next(struct bus_socket *monitor, uint32_t *ret_value) {
  zmq_msg_t parts[2];
  unsigned count;
  if (!monitor->zmq || !bus_socket_readable(monitor) || bus_socket_receive(monitor, parts, 2, &count) < 0)
    return 0;
  uint16_t event = 0;
  if (zmq_msg_size(&parts[0]) == sizeof event + sizeof *ret_value) {
    const uint8_t *p = zmq_msg_data(&parts[0]);
    memcpy(&event, p, sizeof event);
    memcpy(ret_value, p + sizeof event, sizeof *ret_value);
  }
  for (unsigned i = 0; i < count && i < 2; i++)
    zmq_msg_close(&parts[i]);
  return event;
}

/* ---- the bus ---- */

static void bury_dead(struct bus *bus) {
  while (bus->graves) {
    struct bus_grave *grave = bus->graves;
    bus->graves = grave->next;
    free(grave);
  }
}

static bool settle_broken(struct bus *bus) {
  bool worked = false;
  while (bus->broken) {
    struct bus_conn *conn = bus->broken;
    bus->broken = conn->next_broken;
    conn->next_broken = NULL;
    worked = true;
    if (conn->gone)
      continue;
    if (conn->listener)
      bus_listener_lost(conn);
    else
      bus_connector_lost(conn);
  }
  return worked;
}

static void flush_queued(struct bus *bus) {
  struct bus_conn *conn = bus->queued;
  bus->queued = NULL;
  while (conn) {
    struct bus_conn *next = conn->next_queued;
    conn->next_queued = NULL;
    conn->on_queued = false;
    if (!conn->gone && !bus_conn_flush(conn) && !conn->on_queued) {
      conn->on_queued = true;
      conn->next_queued = bus->queued;
      bus->queued = conn;
    }
    conn = next;
  }
}

/* Every send makes libzmq look into its mailbox, and takes the descriptor's signal with it when a message has just come. Whoever sends
 * from another hook that runs after ours would put the loop to sleep over that message, for a timer's length or for ever. */
void bus_touched(struct bus *bus, struct bus_socket *s) {
  s->look = true;
  if (!bus->in_hook && !loop_timer_is_set(&bus->again) && loop_timer_in(bus->loop, &bus->again, 0, NULL) < 0)
    bus->worked = true;
}

static void on_again(void *arg) {
  (void)arg; /* it has kept the loop awake; the hook does the rest */
}

/* After the sends of this very hook. */
static bool more_to_read(struct bus *bus) {
  bool more = bus_socket_readable(&bus->zap);
  for (struct bus_listener *l = bus->listeners; l && !more; l = l->next)
    more = bus_socket_readable(&l->socket);
  for (struct bus_conn *c = bus->connectors; c && !more; c = c->next)
    more = bus_socket_readable(&c->socket);
  return more;
}

/* Before each wait. True when something was done: callbacks may have left work to the other hooks or to this one. */
static bool bus_hook(void *arg) {
  struct bus *bus = arg;
  bus->in_hook = true;
  loop_timer_cancel(bus->loop, &bus->again);
  bury_dead(bus);
  bus_pump_all(bus);
  bus->worked |= settle_broken(bus);
  flush_queued(bus);
  bus->worked |= bus_calls_deliver_resumed(bus);
  bool worked = bus->worked;
  bus->worked = false;
  bus->in_hook = false;
  return worked || bus->broken || bus->resumed || more_to_read(bus);
}

struct bus *bus_new(struct loop *loop, const struct bus_config *config, struct err *err) {
  uint8_t raw[32];
  if (!zmq_z85_decode(raw, config->keys->public_key) || !zmq_z85_decode(raw, config->keys->secret_key)) {
    crypto_wipe(raw, sizeof raw);
    err_set(err, ERR_INVALID, "the bus's own keys are not keys");
    return NULL;
  }
  crypto_wipe(raw, sizeof raw);
  struct bus *bus = calloc(1, sizeof *bus);
  if (!bus) {
    err_set(err, ERR_MEMORY, "no memory for a bus");
    return NULL;
  }
  bus->loop = loop;
  bus->keys = *config->keys;
  bus->heartbeat = config->heartbeat_ns > 0 ? config->heartbeat_ns : NS_PER_SEC;
  bus->report = config->report;
  bus->report_arg = config->report_arg;
  bus->hook = (struct loop_hook){.cb = bus_hook, .arg = bus};
  bus->again = (struct loop_timer){.cb = on_again, .arg = bus};
  loop_hook_add(loop, &bus->hook);
  return bus;
}

const struct bus_counters *bus_counters(const struct bus *bus) {
  return &bus->counters;
}

void bus_free(struct bus *bus) {
  if (!bus)
    return;
  while (bus->connectors)
    bus_conn_free(bus->connectors);
  while (bus->listeners)
    bus_listener_free(bus->listeners);
  struct err why;
  err_set(&why, ERR_CANCELLED, "shutting down");
  while (bus->orphans) {
    struct bus_call *call = bus->orphans;
    bus_call_fail(call, &why);
  }
  bus_socket_close(bus, &bus->zap, 0);
  loop_hook_remove(bus->loop, &bus->hook);
  loop_timer_cancel(bus->loop, &bus->again);
  if (bus->zmq)
    zmq_ctx_term(bus->zmq); /* waits as long as the sockets linger */
  bury_dead(bus);
  crypto_wipe(&bus->keys, sizeof bus->keys);
  free(bus);
}
