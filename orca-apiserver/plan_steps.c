#include "orca-apiserver/plan_steps.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/gateway.h"

#define PLAN_TIMEOUT (5 * NS_PER_SEC)
#define PLAN_ROOM 4096u /* of a message, for what is around the changes */

struct asking {
  struct api_request *request; /* counted */
  struct api_json json;
};

static void step_json(const Node__PlanStep *step, struct api_json *json) {
  api_json_object(json, NULL);
  api_json_str(json, "action", PB_STR(step->what));
  api_json_str(json, "instance", PB_STR(step->instance));
  api_json_str(json, "node", PB_STR(step->node));
  api_json_str(json, "from", PB_STR(step->from));
  api_json_str(json, "reason", PB_STR(step->reason));
  api_json_u64(json, "revision", PB_GET(step, revision, 0));
  api_json_array(json, "verdicts");
  for (size_t i = 0; i < step->n_verdicts; i++) {
    const Model__NodeVerdict *v = step->verdicts[i];
    api_json_object(json, NULL);
    api_json_str(json, "node", PB_STR(v->node));
    api_json_bool(json, "chosen", PB_GET(v, chosen, 0));
    api_json_bool(json, "fits", PB_GET(v, fits, 0));
    api_json_str(json, "reason", PB_STR(v->reason));
    api_json_object_end(json);
  }
  api_json_array_end(json);
  api_json_object_end(json);
}

static bool is_seen(const struct api_request *r, const char *instance) {
  char project[64];
  size_t len = strcspn(instance, "/");
  if (len >= sizeof project)
    return false;
  memcpy(project, instance, len);
  project[len] = 0;
  return !*instance || api_auth_sees(&r->api->cache, &r->who, project);
}

static void steps_json(const struct api_request *r, const Node__Planned *planned, struct api_json *json) {
  api_json_array(json, "steps");
  for (size_t i = 0; i < planned->n_steps; i++)
    if (is_seen(r, PB_STR(planned->steps[i]->instance)))
      step_json(planned->steps[i], json);
  api_json_array_end(json);
}

static void answer(struct api_request *r, struct api_json json, const Node__Planned *planned, const char *why_not) {
  if (planned)
    steps_json(r, planned, &json);
  else
    api_json_null(&json, "steps");
  api_json_str(&json, "steps_missing", planned ? "" : why_not);
  api_reply_end(r);
}

static void ask_done(void *arg, const uint8_t *body, size_t len) {
  struct asking *a = arg;
  struct err err;
  Node__Reply *reply = (Node__Reply *)(void *)pb_unpack(&node__reply__descriptor, body, len, &err);
  bool ok = reply && reply->body_case == NODE__REPLY__BODY_PLAN;
  answer(a->request, a->json, ok ? reply->plan : NULL, reply ? "the scheduler answered something else" : err.msg);
  if (reply)
    node__reply__free_unpacked(reply, NULL);
  api_request_unref(a->request);
  free(a);
}

static void ask_failed(void *arg, const struct err *why) {
  struct asking *a = arg;
  answer(a->request, a->json, NULL, why->msg);
  api_request_unref(a->request);
  free(a);
}

static bool changes_something(enum api_change change) {
  return change != API_CHANGE_NONE;
}

void api_plan_steps(struct api_request *r, struct api_json json, const struct api_plan *plan) {
  static const struct bus_call_ops ops = {.done = ask_done, .failed = ask_failed};
  struct bus_conn *scheduler = r->api->gateway ? gateway_scheduler(r->api->gateway) : NULL;
  Node__PlannedChange *changes = calloc(plan->count + 1, sizeof *changes), **list = calloc(plan->count + 1, sizeof(Node__PlannedChange *));
  struct asking *asking = malloc(sizeof *asking);
  Node__Planned none = NODE__PLANNED__INIT;
  Node__Plan ask = NODE__PLAN__INIT;
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_PLAN;
  call.plan = &ask;
  ask.changes = list;
  for (size_t i = 0; changes && list && i < plan->count; i++) {
    const struct api_plan_item *item = &plan->items[i];
    if (!changes_something(item->change) || item->is_job) /* a job runs when it is time: that is no step of the deploy */
      continue;
    Node__PlannedChange *c = &changes[ask.n_changes];
    node__planned_change__init(c);
    c->project = (char *)(uintptr_t)item->project;
    c->name = (char *)(uintptr_t)item->name;
    c->service = item->service; /* NULL: it would be removed */
    c->revision = item->revision;
    list[ask.n_changes++] = c;
  }
  if (!changes || !list || !asking) {
    answer(r, json, NULL, "no memory to ask the scheduler");
  } else if (!ask.n_changes) {
    answer(r, json, &none, NULL);
  } else if (!scheduler) {
    answer(r, json, NULL, "no scheduler is connected");
  } else if (protobuf_c_message_get_packed_size(&call.base) + PLAN_ROOM > BUS_MAX_MESSAGE) {
    answer(r, json, NULL, "the changes are too large to ask the scheduler about at once");
  } else {
    *asking = (struct asking){api_request_ref(r), json};
    if (bus_call(scheduler, &call.base, PLAN_TIMEOUT, &ops, asking)) {
      asking = NULL;
    } else {
      answer(r, json, NULL, "no memory to ask the scheduler");
      api_request_unref(r);
    }
  }
  free(asking);
  free(list);
  free(changes);
}
