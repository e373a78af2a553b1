/* struct api: all that this process owns, handed to every handler.
 *
 * The shell (main.c, http.c, gateway.c, store_link.c) feeds the cache and answers sockets; handlers (api_*.c) read the cache and
 * build transactions; decisions are in deploy_plan, routes_derive, desired, status_view.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_API_H
#define ORCA_APISERVER_API_H

#include <stdbool.h>
#include <stdint.h>

#include "common/loop.h"
#include "common/spec/node_config.h"
#include "common/storec/storec.h"
#include "orca-apiserver/audit.h"
#include "orca-apiserver/cache.h"
#include "orca-apiserver/figures.h"
#include "orca-apiserver/keyring.h"
#include "orca-apiserver/request.h"
#include "orca-apiserver/throttle.h"
#include "orca-apiserver/token_use.h"

#define API_COMMIT_TIMEOUT (10 * NS_PER_SEC)

struct gateway;
struct exec_relay;

/* Where transactions go: the store, or a test's model of it. Takes txn. */
typedef void api_commit_fn(void *arg, struct storec_txn *txn, storec_txn_fn *done, void *done_arg);

struct api_waiter {
  uint64_t revision;
  int64_t deadline;
  void (*cb)(void *arg);
  void *arg;
  struct api_waiter *next;
};

struct api {
  struct loop *loop;
  const struct node_config *config;
  struct api_cache cache;
  bool synced;       /* the cache has held the whole state at least once */
  bool in_touch;     /* and hears of changes now */
  char why_not[256]; /* when not */
  bool disk_full;    /* the last transaction was refused for that */
  api_commit_fn *commit;
  void *commit_arg;
  struct storec *store; /* for reads that are not cached; NULL in tests */
  struct api_waiter *waiters;
  struct loop_timer waiters_timer;
  struct api_request *streams;
  size_t stream_count;
  struct exec_relay *execs;
  struct api_figures figures;      /* what nodes report and nobody stores */
  struct gateway *gateway;         /* NULL until it is open */
  struct api_listeners *listeners; /* NULL in tests */
  struct bus *bus;                 /* NULL in tests */
  struct api_audit audit;
  struct api_throttle throttle;
  struct keyring keyring;
  struct api_token_uses uses;
  uint32_t event_seq;
  int64_t started_ms;
  uint64_t requests[6]; /* by status / 100, for /metrics */
  uint64_t wrong_tokens;
};

void api_init(struct api *api, struct loop *loop, const struct node_config *config);
void api_fini(struct api *api);
void api_end_waits(struct api *api); /* tells all who wait for the cache, as if it had come */
int64_t api_now_ms(const struct api *api);
/* cb once the cache has reached the revision, at the latest when wait_ns has passed; at once when it has. */
void api_when(struct api *api, uint64_t revision, int64_t wait_ns, void (*cb)(void *arg), void *arg);
void api_reached(struct api *api); /* the cache's revision has grown: wakes waiters and streams */
void api_wake_streams(void *api);  /* something that is not in the cache has changed */

/* Answers a request whose head (and body, when there is one) is complete: authentication, permission, route, handler. */
void api_dispatch(struct api *api, struct api_request *request);
/* The part before the body is read: true when the request goes on, false when it is answered (401, 403, 404, 405). */
bool api_admit(struct api *api, struct api_request *request, const char *authorization);

/* ---- transactions ---- */

struct api_write {
  struct api *api;
  struct api_request *request;
  /* Builds the transaction from the cache; called again after a conflict. 0: commit it; 1: nothing to change, answer; 2: commit it, it is a first
   * part, and build the next when it is there; -1: err, or faults when there are any. */
  int (*build)(struct api_write *write, struct storec_txn *txn, struct err *err);
  void (*answer)(struct api_write *write); /* committed, and the cache has it */
  void (*free_ctx)(void *ctx);             /* may be NULL */
  void *ctx;
  struct spec_faults faults;
  unsigned tries;
  bool more; /* what build said last was 2 */
};
/* Copies *write; takes its ctx. The request is answered in the end, by answer or with the error. */
void api_write_start(const struct api_write *write);

/* For every transaction that brings in specs, or takes some away that others may name: what was checked between services (domains, ports, names)
 * still holds when it is committed, since of two that were planned on the same one is planned again. */
void api_change_wanted(struct api *api, struct storec_txn *txn);

#define API_HISTORY_MAX 5000
/* Appends an event to the transaction, and trims this daemon's history to the newest API_HISTORY_MAX. */
void api_event(struct api *api, struct storec_txn *txn, const Model__Event *event);
void api_service_event(struct api *api, struct storec_txn *txn, const struct api_request *by, const char *kind, const char *project,
                       const char *service, const char *fmt, ...) __attribute__((format(printf, 7, 8)));

/* ?since= (a time, an age, or a revision of the store) and ?limit=, of everything that is told in the order of its happening. */
int api_parse_since(struct api_request *request, uint64_t *after, int64_t *from_ms, struct err *err);
int api_parse_limit(struct api_request *request, size_t *ret, struct err *err);

/* The service a request names: 404, or 409 with the projects that have one; NULL when the request is answered. */
const Model__Service *api_find_service(struct api_request *request, uint64_t *mod);
const Model__Service *api_find_service_err(struct api_request *request, uint64_t *mod, struct err *err);

#endif
