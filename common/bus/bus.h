/* The bus: protobuf over ZeroMQ ROUTER and DEALER, encrypted and authenticated by CURVE, one small library for
 * every conversation of the house (../../proto/bus.proto has the frame, the other .proto files what is said).
 *
 * A conversation is symmetric: a `bus_conn` joins two processes, one of which connected; once it is up, either side may
 * call the other. A call is answered by exactly one of: a reply, an error, or a stream of items that ends
 * in an error or a reply. Whoever makes a call hears its end exactly once: `done` or `failed` — also when the peer
 * dies, hangs, restarts or answers nonsense — at the latest when the deadline has passed.
 * Streams carry credit: the answerer may push as many items as the caller has allowed; past that bus_push() says so and
 * `ready` is told when there is room again. A slow reader slows its sender; nothing is dropped silently, and
 * nothing grows: what waits for a peer is bounded (BUS_MAX_QUEUED), and a peer over its bound is cut.
 *
 * A peer is hostile until proven otherwise: malformed, oversized or unexpected frames are refused, counted
 * (bus_counters) and reported at most once per peer and minute through `bus_config.report`; they never end the process. A client
 * that is not on the allow-list is refused by ZAP before it can send anything.
 *
 * After a lost conversation a connector reconnects by itself, to the next address each time (10 ms, doubling to 1 s),
 * and says `up` again; all calls of the old conversation have failed with ERR_UNAVAILABLE by then. Whoever needs
 * a stream opens it again in `up`, from where it stopped.
 *
 * Threads: everything is the loop's thread. ZeroMQ's own I/O thread stays inside. */
#ifndef ORCA_COMMON_BUS_BUS_H
#define ORCA_COMMON_BUS_BUS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

#define BUS_MAX_MESSAGE ((size_t)8 << 20) /* bytes of one body */
#define BUS_MAX_QUEUED ((size_t)64 << 20) /* bytes that wait for one peer */
#define BUS_STREAM_CREDIT 64u             /* items in flight unless the caller says otherwise */
#define BUS_KEY_LEN 40                    /* Z85 text of a CURVE key, without NUL */

struct bus;
struct bus_conn;
struct bus_call;

struct bus_key_pair {
  char public_key[BUS_KEY_LEN + 1];
  char secret_key[BUS_KEY_LEN + 1];
};
int bus_key_new(struct bus_key_pair *ret, struct err *err);
/* NAME.key (secret, refused unless key_file_check() finds it ours alone) and NAME.pub in dir. */
int bus_key_load(const char *dir, const char *name, struct bus_key_pair *ret, struct err *err);
int bus_key_save(const char *dir, const char *name, const struct bus_key_pair *pair, struct err *err); /* 0400 and 0444; never overwrites */

struct bus_config {
  const struct bus_key_pair *keys; /* copied */
  int64_t heartbeat_ns;            /* 0: 1 s. A peer that is silent for three of them is gone */
  /* One line about a misbehaving peer, already rate-limited. May be NULL. */
  void (*report)(void *arg, const char *peer, const char *what);
  void *report_arg;
};
struct bus *bus_new(struct loop *loop, const struct bus_config *config, struct err *err);
void bus_free(struct bus *bus); /* fails what is open, closes all; calls no `up` any more */

struct bus_counters {
  uint64_t sent, received, refused_malformed, refused_too_large, refused_unauthorized, cut_slow, reconnects;
};
const struct bus_counters *bus_counters(const struct bus *bus);

/* What the owner of a conversation is told. Any may be NULL (a NULL `call` refuses calls as not_supported). */
struct bus_conn_ops {
  /* Connector: connected, again after every loss. Listener: a new peer has come. */
  void (*up)(void *arg, struct bus_conn *conn);
  /* The conversation is lost; its calls have failed and its incoming calls were cancelled. Listener: conn is freed after this returns. */
  void (*down)(void *arg, struct bus_conn *conn, const struct err *why);
  /* The peer calls. body is borrowed until this returns. The call must end by bus_reply() or bus_fail(), now or later. */
  void (*call)(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len);
};

/* Who may connect to a listener. public_key: Z85 text. Fills who (free text such as "agent@n1", shown in logs) and
 * an opaque number of the listener's own that bus_peer_tag() gives back (a role, an index); false refuses.
 * Asked again at each new connection; bus_listener_recheck() cuts those who are no longer allowed. */
typedef bool bus_allow_fn(void *arg, const char *public_key, char who[64], uint64_t *tag);

struct bus_listener;
/* endpoint: "tcp://127.0.0.1:6881", "ipc:///run/orca/agent.sock" (made 0600; 0660 in a folder that is setgid). Port 0 picks one: see
 * bus_listener_endpoint(). */
struct bus_listener *bus_listen(struct bus *bus, const char *endpoint, bus_allow_fn *allow, const struct bus_conn_ops *ops, void *arg,
                                struct err *err);
const char *bus_listener_endpoint(const struct bus_listener *listener);
void bus_listener_recheck(struct bus_listener *listener);
void bus_listener_free(struct bus_listener *listener);

struct bus_address {
  const char *endpoint;   /* copied */
  const char *server_key; /* Z85; copied */
};
/* Starts connecting to the first address; returns at once. -1-style NULL only for unusable arguments. */
struct bus_conn *bus_connect(struct bus *bus, const struct bus_address *addresses, size_t count, const struct bus_conn_ops *ops, void *arg,
                             struct err *err);
void bus_conn_free(struct bus_conn *conn); /* of bus_connect(); fails its calls with ERR_CANCELLED */
/* The owner has refused what the peer said as malformed or not its to say: counted, and reported at most once per peer and minute. */
void bus_conn_refused(struct bus_conn *conn, const char *what);
void bus_conn_cut(struct bus_conn *conn); /* drops the peer: `down` follows soon; a connector then reconnects */

bool bus_conn_is_up(const struct bus_conn *conn);
const char *bus_peer_name(const struct bus_conn *conn); /* `who` of the allow function; for a connector the endpoint */
const char *bus_peer_key(const struct bus_conn *conn);  /* Z85 */
uint64_t bus_peer_tag(const struct bus_conn *conn);
void bus_conn_set_data(struct bus_conn *conn, void *data); /* the owner's own pointer */
void *bus_conn_data(const struct bus_conn *conn);

/* ---- making calls ---- */

struct bus_call_ops {
  void (*done)(void *arg, const uint8_t *body, size_t len); /* the reply, borrowed; NULL,0 when a stream ended well. Last word. */
  void (*failed)(void *arg, const struct err *why);         /* last word */
  void (*item)(void *arg, const uint8_t *body, size_t len); /* NULL: items are refused */
};
/* Sends body (any message with a descriptor). timeout_ns > 0: a plain call, failed with ERR_TIMEOUT when it has passed; 0: a stream without a
 * deadline. When the conversation is not up, `failed` comes from the loop, soon, with ERR_UNAVAILABLE.
 * The handle is good until done/failed has returned; NULL only when memory ended (nothing will be called). */
struct bus_call *bus_call(struct bus_conn *conn, const ProtobufCMessage *body, int64_t timeout_ns, const struct bus_call_ops *ops, void *arg);
void bus_call_cancel(struct bus_call *call); /* no callback comes after this */
/* Streams: items that arrive while held are not lost, the sender just runs out of credit. */
void bus_call_hold(struct bus_call *call);
void bus_call_resume(struct bus_call *call);

/* ---- answering calls ---- */

struct bus_answer_ops {
  void (*cancelled)(void *arg); /* the caller went away or lost interest; the handle is dead after this returns */
  void (*ready)(void *arg);     /* there is credit again after bus_push() had said 1 */
};
/* For calls that are answered later. Without it a cancelled call is forgotten silently, and the handle must not be kept. */
void bus_answer_on(struct bus_call *call, const struct bus_answer_ops *ops, void *arg);
void bus_reply(struct bus_call *call, const ProtobufCMessage *body); /* ends the call; NULL body: a stream's good end */
void bus_fail(struct bus_call *call, const struct err *why);         /* ends the call */
/* 0: sent. 1: no credit, not sent: wait for `ready`. -1: the body is over BUS_MAX_MESSAGE (a programmer's mistake). */
int bus_push(struct bus_call *call, const ProtobufCMessage *item);
struct bus_conn *bus_call_conn(const struct bus_call *call);
int64_t bus_call_deadline(const struct bus_call *call); /* loop time; INT64_MAX for a stream */

#endif
