/* GET /services/{name}/exec: a command in one of its containers, or of a job that runs, over WebSocket. What is refused is refused with an HTTP
 * answer, before the upgrade; what the agent says later comes as a control message (exec_relay.c). */
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/ws/exec_wire.h"
#include "common/ws/ws.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/exec_query.h"
#include "orca-apiserver/exec_relay.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/routes.h"

static const char *header(struct api_request *r, const char *name) {
  return r->header ? r->header(r, name) : NULL;
}

static int accept_upgrade(struct api_request *r, char accept[WS_ACCEPT_LEN + 1], struct err *err) {
  struct ws_offer offer = {.upgrade = header(r, "Upgrade"),
                           .connection = header(r, "Connection"),
                           .version = header(r, "Sec-WebSocket-Version"),
                           .key = header(r, "Sec-WebSocket-Key"),
                           .protocols = header(r, "Sec-WebSocket-Protocol"),
                           .origin = header(r, "Origin"),
                           .host = header(r, "Host")};
  return ws_accept(&offer, EXEC_PROTOCOL, accept, err);
}

void api_get_exec(struct api_request *r) {
  struct err err;
  struct api_subject of;
  char accept[WS_ACCEPT_LEN + 1], instance[INSTANCE_ID_MAX];
  if (api_find_subject(r, &of, &err) < 0) {
    api_fail(r, &err);
    return;
  }
  if (accept_upgrade(r, accept, &err) < 0) {
    api_fail(r, &err);
    if (err.code == ERR_UNSUPPORTED)
      r->status = 426;
    return;
  }
  const Model__Instance *one = exec_query_instance(&r->api->cache, of.project, of.name, api_request_query(r, "instance"), &err);
  if (!one) {
    if (of.job && err.code == ERR_CONFLICT)
      err_set(&err, ERR_CONFLICT, "no run of job %s/%s is running now: `orcactl job run`, or `orcactl logs` for what the last one wrote", of.project,
              of.name);
    api_fail(r, &err);
    return;
  }
  instance_id(instance, of.project, of.name, PB_GET(one, number, 0));
  if (!r->api->gateway || !gateway_agent(r->api->gateway, one->node)) {
    api_fail_with(r, ERR_UNAVAILABLE, "%s is on node %s, whose agent is not connected", instance, one->node);
    return;
  }
  Node__StartExec *start = exec_query_parse(r, &err);
  struct exec_relay *relay = start ? exec_relay_new(r, of.project, of.name, instance, one->node, start, &err) : NULL;
  if (!relay) {
    api_fail(r, &err);
    return;
  }
  api_audit_target(r, of.project, "%s: %.60s", instance, start->argv[0]);
  api_audit_note(r, 101, "ok");
  api_reply_upgrade(r, accept, EXEC_PROTOCOL, &exec_relay_ops, relay);
}
