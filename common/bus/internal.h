/* Inside of the bus; nobody else includes this (but its tests and its fuzzer).
 *
 *   bus.c      the bus itself: its hook, its graveyard, reports
 *   frame.c    the frame, checked
 *   talk.c     one conversation: what a frame does, calls and answers, the queue; no sockets: it speaks through conn->transmit
 *   listen.c   ROUTER: peers by routing id     connect.c   DEALER: reconnecting     zap.c   who may connect
 *
 * Callbacks come only from the loop (the hook, a timer, a descriptor), never out of a function the owner calls, but for the
 * three that free. So sending never ends a conversation under its caller's feet: it is marked broken and settled by the hook.
 * What was freed goes to the graveyard until the hook begins again, when none of our frames are on the stack: callbacks may free anything. */
#ifndef ORCA_COMMON_BUS_INTERNAL_H
#define ORCA_COMMON_BUS_INTERNAL_H

#include <zmq.h>

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* declared among the drafts, there in the packaged library */
#endif

#include "common/bus/bus.h"
#include "common/bus/frame.h"

#define BUS_MAX_ANSWERS 16384u /* calls of one peer that we have not answered yet */
#define BUS_MAX_PER_KEY 64u    /* conversations that one key may have with one listener */
#define BUS_BATCH 64u          /* messages of one socket per round */
#define BUS_SILENT 3           /* heartbeats */
#define BUS_LINGER_MS 100      /* how long an orderly end waits for what is still to be sent */

struct bus_grave {
  struct bus_grave *next;
};

/* Hash by number, chained; the multiplier is random, so that peers who choose ids cannot choose collisions. */
struct bus_slot {
  struct bus_slot *next;
  uint64_t key;
};
struct bus_table {
  struct bus_slot **heads;
  size_t count;
  unsigned bits;
  uint64_t multiplier;
};
struct bus_slot *bus_table_find(const struct bus_table *t, uint64_t key);
int bus_table_add(struct bus_table *t, struct bus_slot *slot, uint64_t key); /* -1: no memory */
void bus_table_remove(struct bus_table *t, struct bus_slot *slot);
struct bus_slot *bus_table_any(const struct bus_table *t);
void bus_table_free(struct bus_table *t);

struct bus_socket {
  void *zmq;
  struct bus *bus;
  struct loop_io io;
  bool look; /* ZMQ_EVENTS may have changed: its descriptor has said so, or something was sent */
};

struct bus_out { /* waits because ZeroMQ's buffer for the peer is full */
  struct bus_out *next;
  size_t header_len;
  zmq_msg_t body;
  uint8_t header[];
};

struct bus_held { /* arrived while its stream was held */
  struct bus_held *next;
  size_t len;
  uint8_t body[];
};

struct bus_call {
  struct bus_grave grave; /* first */
  struct bus_slot slot;   /* in conn->calls (ours) or conn->answers (the peer's) */
  struct bus *bus;
  struct bus_conn *conn; /* NULL: an orphan whose conversation is gone, `failed` is on its way */
  bool ours, ended, orphan;
  struct loop_timer timer; /* ours: the deadline, or the failure that is due */
  int64_t timeout, deadline;
  void *arg;
  /* ours */
  const struct bus_call_ops *ops;
  struct err why;         /* of an orphan */
  uint32_t allowed, used; /* items the peer may still send; items used up since the last CREDIT */
  bool held, finished;    /* finished: the end has arrived while held */
  bool finished_well, on_resumed;
  struct bus_held *items, **items_tail, *last;
  struct bus_call *next_resumed;
  struct bus_call *next_orphan, *prev_orphan;
  /* the peer's */
  const struct bus_answer_ops *answer;
  uint32_t credit;
  bool starved;
};

struct bus_conn {
  struct bus_grave grave; /* first */
  struct bus_slot slot;   /* in listener->peers, by routing id */
  struct bus *bus;
  struct bus_listener *listener; /* NULL: a connector */
  struct bus_conn *next, *prev;
  const struct bus_conn_ops *ops;
  void *arg, *data;
  char who[64], key[BUS_KEY_LEN + 1];
  uint64_t tag;
  uint64_t session, peer_session; /* random per conversation */
  bool up, gone;
  int64_t last_sent, last_received, last_report;
  struct loop_timer tick;
  /* Takes body (zmq_msg_t) on 0, else an errno: EAGAIN, EHOSTUNREACH … */
  int (*transmit)(struct bus_conn *conn, const uint8_t *header, size_t header_len, zmq_msg_t *body);
  struct bus_table calls, answers;
  uint64_t last_id;
  struct bus_out *queue, **queue_tail;
  size_t queued;
  bool on_queued, broken, push_waits;
  struct err why; /* of broken */
  struct bus_conn *next_queued, *next_broken;
  /* connector's */
  struct bus_address *addresses;
  size_t address_count, address_at;
  struct bus_socket socket, monitor;
  int64_t backoff, up_since;
  bool tick_on;
  struct loop_timer retry;
};

struct bus_listener {
  struct bus_grave grave; /* first */
  struct bus *bus;
  struct bus_listener *next, *prev;
  struct bus_socket socket, monitor;
  char endpoint[256], domain[24];
  bus_allow_fn *allow;
  const struct bus_conn_ops *ops;
  void *arg;
  struct bus_table peers;
  struct bus_conn *conns;
  struct loop_timer probe; /* a connection has ended: find out whose */
  bool gone;
  int64_t last_report;
};

struct bus_refusal { /* recent ones, for the rate limit */
  char key[BUS_KEY_LEN + 1];
  int64_t at;
};
struct bus_named { /* peers that were reported, whatever conversation of theirs it was about */
  char peer[64];
  int64_t at;
};

struct bus {
  struct loop *loop;
  struct bus_key_pair keys;
  int64_t heartbeat;
  void (*report)(void *arg, const char *peer, const char *what);
  void *report_arg;
  struct bus_counters counters;
  void *zmq;
  struct loop_hook hook;
  struct bus_socket zap;
  struct bus_refusal refusals[32];
  struct bus_named named[32];
  struct bus_listener *listeners, *listener_cursor;
  struct bus_conn *connectors, *connector_cursor;
  uint64_t numbers; /* for inproc names and domains */
  struct bus_grave *graves;
  struct bus_conn *queued, *broken;
  struct bus_call *resumed, *orphans;
  bool worked; /* a callback may have run since the hook last said so */
  bool in_hook;
  struct loop_timer again; /* something was sent outside of the hook: look at the sockets once more before sleeping */
};

/* bus.c */
void bus_bury(struct bus *bus, struct bus_grave *grave);
uint64_t bus_random(void);
void bus_touched(struct bus *bus, struct bus_socket *s); /* with every send */
void bus_report(struct bus *bus, int64_t *last, const char *peer, const char *what);
int bus_socket_open(struct bus *bus, struct bus_socket *s, int type, struct err *err);
int bus_socket_set(struct bus_socket *s, int option, int value, struct err *err);
int bus_socket_common(struct bus_socket *s, struct err *err); /* bounds and timeouts of both kinds */
int bus_socket_monitor(struct bus *bus, struct bus_socket *s, struct bus_socket *monitor, int events, struct err *err);
void bus_socket_close(struct bus *bus, struct bus_socket *s, int linger_ms);
void bus_socket_close_monitored(struct bus *bus, struct bus_socket *s, struct bus_socket *monitor, int linger_ms);
bool bus_socket_readable(struct bus_socket *s);
/* Receives one whole message. Parts over max are dropped and counted in *ret_parts. The caller closes the first min(max, *ret_parts). 0, or -1:
 * nothing there. */
int bus_socket_receive(struct bus_socket *s, zmq_msg_t *parts, unsigned max, unsigned *ret_parts);
/* One event of a monitor: its number, or 0: none. */
unsigned bus_monitor_next(struct bus_socket *monitor, uint32_t *ret_value);

/* talk.c */
void bus_conn_init(struct bus_conn *conn, struct bus *bus);
void bus_conn_bury(struct bus_conn *conn); /* the last step; the owner's lists have let go of it */
void bus_conn_receive(struct bus_conn *conn, const uint8_t *header, size_t header_len, const uint8_t *body, size_t body_len);
void bus_conn_misbehaved(struct bus_conn *conn, const char *what);
void bus_conn_send(struct bus_conn *conn, const struct bus_frame *frame, const ProtobufCMessage *body);
void bus_conn_break(struct bus_conn *conn, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Fails and cancels everything of the conversation; the connection itself stays as it is. */
void bus_conn_drop_calls(struct bus_conn *conn, const struct err *why);
void bus_conn_drop_queue(struct bus_conn *conn);
void bus_conn_fail_orphans(struct bus_conn *conn, const struct err *why);
bool bus_conn_flush(struct bus_conn *conn); /* true: the queue is empty */
void bus_call_fail(struct bus_call *call, const struct err *why);
bool bus_calls_deliver_resumed(struct bus *bus);
bool bus_conn_silent(struct bus_conn *conn); /* asked at its tick */

/* zap.c */
int bus_zap_open(struct bus *bus, struct err *err);
bool bus_zap_pump(struct bus *bus);

/* listen.c, connect.c: read what has arrived (true: something was), and what becomes of a broken conversation */
bool bus_listener_pump(struct bus_listener *listener);
void bus_listener_lost(struct bus_conn *conn);
bool bus_connector_pump(struct bus_conn *conn);
void bus_connector_lost(struct bus_conn *conn);

#endif
