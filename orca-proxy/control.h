/* Control: the thread that is not on the byte path. It holds the routes, gives the workers their tables, tells the apiserver what is
 * applied and what still drains, adds up the counters, and keeps the last table on disk.
 *
 *   apiserver ──RouteTable──▶ routes ──table_build──▶ publish ──▶ workers
 *       ▲                                    │                      │ switched, idle
 *       └──RouteAck, ProxyStats───────── drain ◀────────────────────┘
 *
 * Threads: the loop's, but for the two events that workers hand over. */
#ifndef ORCA_PROXY_CONTROL_H
#define ORCA_PROXY_CONTROL_H

#include "common/daemon/daemon.h"
#include "common/err.h"
#include "orca-proxy/accesslog.h"

struct control;

struct control_options {
  unsigned workers;
  enum accesslog_format log;
};

/* Reads the last routes, listens and serves. The apiserver is not needed yet. */
struct control *control_start(struct daemon *d, const struct control_options *o, struct err *err);
/* Begins to look for an apiserver. */
int control_connect(struct control *c, struct err *err);
void control_describe(const struct control *c, char *out, size_t size); /* "serving 3 routes" */
void control_stop(struct control *c);                                   /* lets the requests in flight end, frees all */

/* SIGTERM: another process is about to take this one's place. Accepts no more; the listening sockets, and whoever waits in them, go to that process
 * by systemd or by handover.h. A child goes on with the connections there are, for at most WORKER_DRAIN_MS, and this process ends at once, so that
 * whoever waits for its end starts the next one. Returns only when there is nothing to hand over. */
void control_hand_over(struct control *c);

#endif
