/* What the gateway's files share among themselves. Not for others.
 *
 * gateway.c opens and closes, says who may come, and ends each loop round; gateway_calls.c hears what peers say; gateway_changes.c turns what changes
 * in the cache into what is still to be told. The rest stand alone, in headers of their own. */
#ifndef ORCA_APISERVER_GATEWAY_INTERNAL_H
#define ORCA_APISERVER_GATEWAY_INTERNAL_H

#include "common/loop.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/gateway_lost.h"
#include "orca-apiserver/gateway_peers.h"
#include "orca-apiserver/gateway_reports.h"
#include "orca-apiserver/round.h"
#include "orca-apiserver/routes_derive.h"

struct gw_changes {               /* gateway_changes.c's */
  struct api_smap dirty_services; /* PROJECT/NAME: look at their routes again */
  struct api_smap draining;       /* PROJECT/NAME.NUMBER of instances to be let go of */
  bool tell, look_at_drains;      /* at the end of this round */
};

struct gateway {
  struct api *api;
  struct bus_listener *listener;
  struct loop_hook hook;
  struct loop_timer timer; /* grace periods */
  struct api_route_table table;
  struct api_round round;
  struct gw_peers peers;
  struct gw_lost lost;
  struct gw_reports reports;
  struct gw_changes changes;
  uint64_t refused; /* calls */
};

/* gateway.c: looks at grace periods at that time of the loop, or before; INT64_MAX: not for this. */
void gw_due_at(struct gateway *g, int64_t at);

/* gateway_calls.c: bus_conn_ops.call of a gateway. */
void gw_peer_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len);

/* gateway_changes.c */
void gw_changes_all(struct gateway *g); /* what the cache holds already, as if it had just come */
void gw_changes_fini(struct gw_changes *changes);
void gw_changes_drains(struct gateway *g);    /* an instance may be let go of: looks at them at the end of this round */
void gw_changes_end_round(struct gateway *g); /* derives routes, lets go of instances, tells peers */

#endif
