/* Inside of a worker: its connections and what flows between them. Only the files of the byte path include this.
 *
 *   sock ── client     a connection from outside; carries one exchange at a time (HTTP/1)
 *        └─ upstream   a connection to an instance; busy with one exchange, or idle in its endpoint's pool
 *   exchange           one request and its answer: two flows, one each way. It knows nothing of how its client frames requests
 *                      on the wire beyond client_*(): a front that carries many at a time (HTTP/2) makes its own
 *   flow               bytes of one direction, re-framed; what the receiver does not take yet waits in one block or one pipe, and
 *                      while something waits nothing more is read (back-pressure)
 *
 * Events are edge-triggered and registered once for good: `readable` and `writable` remember them until the kernel says EAGAIN.
 * Nothing is freed while a round of events runs: what was closed waits in the graveyard.
 * Threads: all of it belongs to one worker. */
#ifndef ORCA_PROXY_CONN_H
#define ORCA_PROXY_CONN_H

#include <pthread.h>
#include <sys/uio.h>

#include "common/tls/server.h"
#include "orca-proxy/balance.h"
#include "orca-proxy/chunk.h"
#include "orca-proxy/head.h"
#include "orca-proxy/page.h"
#include "orca-proxy/serial.h"
#include "orca-proxy/table.h"
#include "orca-proxy/target.h"
#include "orca-proxy/wheel.h"
#include "orca-proxy/worker.h"

#define IO_MAX ((size_t)32768)                             /* bytes of one read */
#define BLOCK_SIZE (SERIAL_MAX + IO_MAX + HEAD_MAX + 4096) /* a head, a read re-framed, and a target fit in one */
#define SPLICE_MIN UINT64_C(16384)                         /* shorter rests are copied: two system calls more cost as much */
#define PIPE_SIZE ((size_t)262144)
#define PUMP_ROUNDS 32        /* reads of one flow in one turn: others wait too */
#define UPSTREAM_IDLE_MAX 256 /* connections kept for an endpoint */

/* Time limits, milliseconds. */
#define LIMIT_HEAD 10000 /* a request head, from its first byte */
#define LIMIT_IDLE 60000 /* a client between requests */
#define LIMIT_CONNECT 2000
#define LIMIT_STALL 30000    /* a client that neither takes nor sends what is due */
#define LIMIT_STREAM 3600000 /* an answer of unknown length, or a tunnel, without a byte */
#define LIMIT_LINGER 2000
#define LIMIT_HANDSHAKE 5000  /* of TLS, from the connection's begin */
#define LIMIT_DRAIN_IDLE 5000 /* a client between requests, once another process serves: its next request is its last here */
#define HANDSHAKES_MAX 256    /* of one worker at a time: the oldest makes room */
#define LIMIT_UPSTREAM_IDLE 30000
/* A request that can't be repeated takes a kept connection only where the instance has shown for REUSE_PROOF_MS that it keeps them, and one that is
 * younger than REUSE_UNSAFE_MS: elsewhere it might be closed at that very moment, and nobody could tell whether the request was taken. */
#define REUSE_UNSAFE_MS 1000
#define REUSE_PROOF_MS 50

struct block {
  struct block *next;
  uint8_t data[BLOCK_SIZE];
};

struct pipe_pair {
  struct pipe_pair *next;
  int fd[2];
};

enum sock_kind { SOCK_LISTENER, SOCK_WAKE, SOCK_CLIENT, SOCK_UPSTREAM };

struct sock {
  enum sock_kind kind;
  int fd;
  bool readable, writable;
  bool hung_up;           /* the peer has sent FIN: an end of data will be read */
  bool failed;            /* reset, or another error */
  bool closed;            /* in the graveyard */
  struct tls_stream *tls; /* NULL: plain */
  struct wheel_timer timer;
  struct sock *next; /* graveyard */
};

enum flow_state { FLOW_OFF, FLOW_ON, FLOW_DONE };
enum flow_result { FLOW_OK, FLOW_FROM_FAILED, FLOW_TO_FAILED, FLOW_BAD };

#define BODY_RAW ((enum body_kind)(BODY_UNTIL_CLOSE + 1)) /* a tunnel */

struct flow {
  struct sock *from, *to;
  enum body_kind in, out;
  enum flow_state state;
  bool in_done, ended_by_eof;
  bool excess;             /* more came than belongs to it */
  bool busy;               /* moved a lot at once: raw flows splice then */
  uint64_t left;           /* BODY_LENGTH: still to be read */
  uint64_t limit, decoded; /* of a body of unknown length; 0: none */
  uint64_t moved;          /* bytes sent on */
  struct chunk_decoder *decoder;
  struct block *waiting;
  size_t at, len; /* of what waits */
  struct pipe_pair *pipe;
  size_t piped;
};

struct endpoint {
  struct balance_endpoint balance;
  uint32_t slot;
  uint64_t incarnation;
  bool in_table;
  bool big; /* its last answer was long: read less with the head, splice the rest */
  union table_addr addr;
  char *instance;
  int64_t keeps_since;   /* it has kept connections since then; 0: it has just closed one early, or never had one */
  struct upstream *idle; /* newest first */
  unsigned idle_count;
};

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_BUSY, UPSTREAM_IDLE };

struct upstream {
  struct sock sock;
  enum upstream_state state;
  bool reused;
  struct endpoint *endpoint;
  struct exchange *exchange;
  struct upstream *idle_next, *idle_prev;
  int64_t idle_since;
  struct block *in; /* part of an answer's head */
  size_t in_len;
};

enum exchange_state {
  EXCHANGE_SENDING,   /* the head and what came with it are on their way */
  EXCHANGE_WAITING,   /* for the head of the answer; the request's body may still flow */
  EXCHANGE_ANSWERING, /* the answer's head has been passed on */
  EXCHANGE_TUNNEL,
};

struct exchange {
  struct client *client;
  struct upstream *up;
  struct endpoint *endpoint; /* counted as outstanding there */
  enum exchange_state state;
  uint8_t minor;
  bool to_head, idempotent, expects_continue, websocket, replayable;
  bool keep_client, keep_up; /* when all ends well */
  bool length_known;         /* of the answer */
  uint8_t attempts, tried_count, interim;
  int32_t tried[BALANCE_ATTEMPTS]; /* slots */
  uint32_t service;
  uint64_t timeout_ms;
  struct block *request; /* head as sent, and the part of the body that came with it; at its end the target as it came, for the access log */
  size_t request_len, sent, target_len;
  struct flow body, answer;
  unsigned status;
  int64_t start_us, head_us; /* when the request was read, when its answer's head was */
  int64_t progress_ms, answer_by_ms;
  uint64_t progress_mark;
  char ws_accept[29];
  struct exchange *next; /* free list */
};

enum client_state { CLIENT_HANDSHAKE, CLIENT_IDLE, CLIENT_HEAD, CLIENT_BUSY, CLIENT_LINGER };

struct client {
  struct sock sock;
  enum client_state state;
  bool again;   /* waits for another turn */
  bool running; /* client_run() is on the stack: what ends now is gone on with there */
  bool is_v6;
  bool hello; /* CLIENT_HANDSHAKE: its first byte was TLS's */
  enum front front;
  uint8_t ip_len;
  char ip[46];
  uint8_t addr[16];
  struct client *idle_next, *idle_prev; /* of the idle ones, of those in the middle of a head, or of those that shake hands: oldest first */
  struct block *in;                     /* part of a head, or requests sent ahead */
  size_t in_len, in_seen;
  size_t lingered;
  struct exchange *exchange;
};

struct counters_page {
  struct service_counters of[64];
};

struct listener {
  struct sock sock;
  enum front front;
};

struct listener_set { /* made by control, then the worker's */
  unsigned count;
  struct listener list[];
};

struct worker {
  struct worker_shared *shared;
  unsigned index;
  pthread_t thread;
  bool started, stopping;
  bool draining; /* stopping, but another process serves: nobody is hurried */
  int epoll_fd;
  struct sock wake;
  struct listener_set *listeners;
  struct listener_set *_Atomic next_listeners; /* to be taken between two rounds */
  struct tls_server *tls;                      /* of new connections; NULL: none yet */
  struct tls_server *_Atomic next_tls;
  bool accepting;
  int64_t accept_again_ms; /* after a lack of descriptors */
  int64_t now_us, now_ms, stop_by_ms;
  const struct table *table;
  struct wheel wheel;
  struct endpoint **endpoints; /* by slot */
  size_t endpoint_count;
  struct counters_page *_Atomic counters[WORKER_SERVICES_MAX / 64];
  _Atomic uint64_t clients, accepted;
  struct client idle;    /* head of the ring of idle clients */
  struct client heads;   /* of those that have sent part of a head */
  struct client shaking; /* of those that have not finished their handshake */
  unsigned shaking_count;
  struct sock *graveyard;
  struct exchange *free_exchanges;
  struct block *free_blocks;
  struct pipe_pair *free_pipes;
  unsigned free_exchange_count, free_block_count, free_pipe_count, block_count;
  struct client **again; /* those that had more to move when their turn ended */
  size_t again_count, again_size;
  uint32_t turn;
  struct head head;
  uint8_t in[IO_MAX];
  uint8_t out[BLOCK_SIZE];
  uint8_t path[HEAD_MAX];
};

/* worker.c: pools, sockets */
struct block *block_get(struct worker *w); /* NULL at the cap, or when memory ends; before that it closes clients in CLIENT_HEAD */
void block_put(struct worker *w, struct block *b);
struct pipe_pair *pipe_get(struct worker *w);
void pipe_put(struct worker *w, struct pipe_pair *p, bool empty);
int sock_register(struct worker *w, struct sock *s);
void sock_close(struct worker *w, struct sock *s); /* the memory is freed after the round */
/* > 0 bytes; 0 end; -1 nothing now, or failed (s->failed). */
ssize_t sock_read(struct sock *s, void *data, size_t len);
/* Bytes taken; -1 failed. 0 and !writable: later. */
ssize_t sock_write(struct sock *s, const struct iovec *iov, int count, bool more);
/* Nothing more is sent; what was is let arrive. */
void sock_end(struct sock *s);
/* Plain sockets only. */
ssize_t sock_splice_in(struct sock *s, int pipe, size_t len);
ssize_t sock_splice_out(struct sock *s, int pipe, size_t len, bool more);
struct service_counters *counters_of(struct worker *w, uint32_t service);
struct endpoint *endpoint_of(struct worker *w, const struct table_endpoint *te);
void endpoint_release(struct worker *w, struct endpoint *e); /* one request less */

void worker_again(struct worker *w, struct client *c);

/* client.c */
void client_accept(struct worker *w, int fd, const struct sockaddr *peer, enum front front);
void client_run(struct worker *w, struct client *c);
void client_exchange_done(struct worker *w, struct client *c, bool keep); /* the exchange is gone already */
void client_close(struct worker *w, struct client *c);
void client_linger(struct worker *w, struct client *c);
void client_timeout(struct worker *w, struct client *c);
void client_drain(struct worker *w); /* idle ones get LIMIT_DRAIN_IDLE for one more request */

/* exchange.c */
/* A request made ready: from what its head says and the bytes behind it (*used of them are its body's). NULL: refused, with *status and *why. */
struct exchange *exchange_new(struct worker *w, struct client *c, const struct head *h, uint8_t *rest, size_t len, size_t *used, unsigned *status,
                              const char **why);
void exchange_begin(struct worker *w, struct exchange *x);
void exchange_run(struct worker *w, struct exchange *x);
void exchange_abort(struct worker *w, struct exchange *x); /* the client is gone */
void exchange_timeout(struct worker *w, struct exchange *x);
void exchange_connect_timeout(struct worker *w, struct exchange *x);
/* Answers a request that never became an exchange. h: NULL when it could not be read. Keeps the client when nothing of the request is left unread. */
void exchange_refuse(struct worker *w, struct client *c, const struct head *h, unsigned status, const char *why);

/* upstream.c */
/* A kept connection where that is safe for the request, else a new one. */
struct upstream *upstream_get(struct worker *w, struct endpoint *e, bool repeatable, int *sys_errno);
void upstream_keep(struct worker *w, struct upstream *u); /* the answer has ended well */
void upstream_close(struct worker *w, struct upstream *u);
void upstream_close_idle(struct worker *w, struct endpoint *e);
void upstream_event(struct worker *w, struct upstream *u);
void upstream_timeout(struct worker *w, struct upstream *u);

/* flow.c */
/* limit, which flow_start() leaves alone, is set before it. */
void flow_start(struct flow *f, struct sock *from, struct sock *to, enum body_kind in, enum body_kind out, uint64_t length);
/* Sends head (ours, may be empty), then what of data belongs to the flow. *used: how much that was. */
enum flow_result flow_feed(struct worker *w, struct flow *f, const uint8_t *head, size_t head_len, uint8_t *data, size_t len, size_t *used);
/* Moves what can be moved. *more: its turn ended before it was blocked. */
enum flow_result flow_pump(struct worker *w, struct flow *f, bool *more);
/* Re-frames data for a flow into a block of the caller's, for a body that begins beside its head. Returns the length; *bad when it is not decodable.
 */
size_t flow_encode(struct flow *f, uint8_t *out, size_t cap, uint8_t *data, size_t len, size_t *used, bool *bad);
void flow_fini(struct worker *w, struct flow *f);
static inline bool flow_blocked(const struct flow *f) {
  return f->len || f->piped;
}

#endif
