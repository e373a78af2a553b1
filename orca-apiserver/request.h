/* One request to the API, apart from how it came: what handlers see.
 *
 * A handler ends with api_reply…() or api_fail(), at once or later. Later: api_request_ref() before it returns, and the answer, then
 * api_request_unref(), when it is known; a client that went away in between costs nothing but the answer.
 * Streams (server-sent events) are pulled: `fill` is asked for the next piece whenever the client has room, so a slow reader holds
 * nothing but its own place; api_stream_wake() says that there may be more.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_REQUEST_H
#define ORCA_APISERVER_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/spec/faults.h"
#include "orca-apiserver/auth.h"
#include "orca-apiserver/from.h"
#include "orca-apiserver/json_out.h"

#define API_BODY_MAX ((size_t)12 << 20) /* SPEC_FILES_MAX in base64, and the services */
#define API_BODY_DEPTH 64
#define API_BODY_PARTS 300000u /* values: each takes a few hundred bytes for a moment, whatever it took in the body */
#define API_PARAM_MAX 132      /* the name of a secret, and its NUL */
#define API_QUERY_MAX 16

struct api;
struct api_route;

struct api_query {
  char *key, *value;
};
enum api_piece { API_PIECE_NONE, API_PIECE_SOME, API_PIECE_LAST };
struct api_stream_ops {
  enum api_piece (*fill)(void *arg, struct buf *out); /* appends at most some 64 KiB */
  void (*free)(void *arg);
};

struct api_socket; /* http.c's: a connection that is no longer HTTP */
/* What becomes of a connection after 101. Exactly one of open and drop is called. */
struct api_upgrade_ops {
  void (*open)(void *arg, struct api_socket *socket, int fd, const void *early, size_t len); /* early: bytes that came behind the head, borrowed */
  void (*shutdown)(void *arg); /* the process ends: api_socket_close() before it returns */
  void (*drop)(void *arg);     /* the client did not wait for it */
};

struct api_request {
  struct api *api;
  const struct api_route *route;
  char *method, *path;
  struct api_query query[API_QUERY_MAX];
  size_t query_count;
  bool query_cut;            /* there were more: it is refused, as half of a command must not run */
  char param[API_PARAM_MAX]; /* of the path's {name} */
  char *last_event_id;       /* header, NULL when absent */
  struct buf body;
  json_t *json; /* the body, when the route takes one; until the handler returns */
  struct api_principal who;
  struct api_from from;
  struct { /* what the audit log will say of it */
    char project[64], target[160], result[160];
    bool done; /* nothing more is to be said */
  } audit;

  /* the answer */
  bool answered;
  bool last; /* the connection ends with it */
  int status;
  const char *content_type; /* static text */
  struct buf out;
  unsigned retry_after; /* seconds; 0: no header */
  char allow[48];       /* of a 405 */
  const struct api_stream_ops *stream;
  void *stream_arg;
  bool stream_over;
  const struct api_upgrade_ops *upgrade;
  void *upgrade_arg;
  char accept[32];                               /* Sec-WebSocket-Accept */
  const char *upgrade_protocol;                  /* Sec-WebSocket-Protocol, static text */
  struct api_request *next_stream, *prev_stream; /* in the api's list */

  unsigned refs;
  void *transport;                                                      /* http.c's; NULL once the client is gone */
  void (*wake)(struct api_request *request);                            /* http.c's: there is an answer, or more of a stream */
  const char *(*header)(struct api_request *request, const char *name); /* http.c's, for a handler before it returns; NULL in tests */
};

struct api_request *api_request_new(struct api *api, const char *method, const char *path);
struct api_request *api_request_ref(struct api_request *request);
void api_request_unref(struct api_request *request); /* takes NULL */
/* -1: that is too many, or memory ends; api_dispatch() refuses the request then. */
int api_request_add_query(struct api_request *request, const char *key, const char *value);
/* Of a change: a parameter that its route does not take, or a flag that is neither true nor false, is refused: ?dryrun=true would deploy. */
int api_request_check_query(const struct api_request *request, struct err *err);
const char *api_request_query(const struct api_request *request, const char *key); /* NULL when absent */
bool api_request_flag(const struct api_request *request, const char *key);         /* true, 1, yes, or present without a value */

/* Starts the answer; what is written to the result becomes its body at api_reply_end(). */
struct api_json api_reply_json(struct api_request *request, int status);
void api_reply_end(struct api_request *request);
void api_reply_text(struct api_request *request, int status, const char *content_type);          /* body: request->out, already written */
void api_reply_stream(struct api_request *request, const struct api_stream_ops *ops, void *arg); /* takes arg */
void api_stream_wake(struct api_request *request);
/* 101: the connection becomes a WebSocket. Takes arg. */
void api_reply_upgrade(struct api_request *request, const char *accept, const char *protocol, const struct api_upgrade_ops *ops, void *arg);
void api_socket_close(struct api_socket *socket); /* flushes nothing; the descriptor is gone after */
void api_fail(struct api_request *request, const struct err *err);
void api_fail_with(struct api_request *request, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void api_fail_faults(struct api_request *request, enum err_code code, const struct spec_faults *faults);

/* The body as JSON: depth, size and number of values bounded, duplicates refused. */
int api_request_parse(struct api_request *request, struct err *err);

#endif
