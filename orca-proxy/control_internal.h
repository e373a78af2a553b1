/* What control's files share among themselves. Not for others.
 *
 * control.c starts, hands over and stops; the rest each have a part of struct control that is theirs alone. */
#ifndef ORCA_PROXY_CONTROL_INTERNAL_H
#define ORCA_PROXY_CONTROL_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "common/daemon/daemon.h"
#include "common/loop.h"
#include "orca-proxy/certificate.h"
#include "orca-proxy/control.h"
#include "orca-proxy/drain.h"
#include "orca-proxy/listen.h"
#include "orca-proxy/routes.h"
#include "orca-proxy/service_ids.h"
#include "orca-proxy/state.h"
#include "orca-proxy/worker.h"

#define CONTROL_CALL_TIMEOUT (5 * NS_PER_SEC)

struct control_tables {
  struct table *newest;
  struct old_table *old; /* some worker may still read these */
  uint64_t seq;
  struct loop_timer save;
};

struct control_listen {
  uint16_t port;   /* where it listens for HTTP */
  char fault[256]; /* why not where it should: told with acknowledgements; "": it does */
  struct loop_timer again;
};

struct control_link {
  struct bus *bus;
  struct bus_conn *conn;
  struct bus_call *stream, *ack;
  bool ack_due;
  uint64_t acked;
  struct loop_timer retry;
};

struct control_stats {
  struct bus_call *report;
  uint64_t *last_requests; /* of each service id, when last reported */
  size_t last_size;
  uint64_t last_connections;
  int64_t watched_every, watched_until; /* somebody looks at the figures: they are told more often, also when nothing changed */
  struct loop_timer next;
};

struct control {
  struct daemon *daemon;
  struct loop *loop;
  struct state *state;
  struct routes *routes;
  struct drain *drain;
  struct service_ids *ids;
  struct certificate *certificate;
  struct listen_sockets sockets;
  struct worker_shared shared;
  struct worker *workers[WORKER_MAX];
  unsigned worker_count, worker_most;
  bool ending;
  struct control_tables tables;
  struct control_listen listen;
  struct control_link link;
  struct control_stats stats;
};

/* control_tables.c: routes become the table that workers read, and are kept on disk; which tables and endpoints workers have left. */
int control_tables_open(struct control *c, struct err *err); /* what was saved, as the first table */
void control_tables_close(struct control *c);                /* once no worker reads any more */
int control_tables_apply(struct control *c, const Node__RouteTable *routes, struct err *err);
void control_tables_save(struct control *c);
void control_tables_save_due(struct control *c); /* if something is to be saved soon: now */
/* worker_events: on a worker's thread. */
void control_tables_switched(void *arg, unsigned worker, uint64_t seq, const uint32_t *busy, size_t count);
void control_tables_idle(void *arg, unsigned worker, uint32_t slot);

/* control_listen.c: the addresses of HTTP and of the API. */
void control_listen_init(struct control *c);
int control_listen_open(struct control *c, struct err *err); /* before there are workers */
void control_listen_close(struct control *c);                /* follows no more; the sockets stay */
void control_listen_follow(struct control *c);               /* what is wanted may have changed */
void control_listen_store(const struct control *c);          /* systemd keeps copies: the next process has them, however this one ends */
uint16_t control_listen_port(const struct control *c);
const char *control_listen_fault(const struct control *c);

/* control_link.c: the conversation with an apiserver; control_connect() begins it. */
void control_link_init(struct control *c);
void control_link_close(struct control *c);
void control_link_ack(struct control *c);                    /* something of what an acknowledgement says has changed */
struct bus_conn *control_link_conn(const struct control *c); /* NULL: not up */

/* control_stats.c: counters, added up and told. */
int control_stats_start(struct control *c, struct err *err);
void control_stats_close(struct control *c);
void control_stats_watch(struct control *c, const Node__WatchFigures *watch);

#endif
