#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/job_view.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static void show(struct ctl *ctl, const json_t *reply) {
  const json_t *s = json_object_get(reply, "service"), *rollout = json_object_get(reply, "rollout");
  char text[600];
  snprintf(text, sizeof text, "%s/%s", api_str(s, "project"), api_str(s, "name"));
  view_line("Service", text);
  snprintf(text, sizeof text, "%s, %lld of %lld ready", api_str(s, "status"), api_int(s, "ready_replicas"), api_int(s, "replicas"));
  view_line("Status", text);
  view_line("Problem", api_str(s, "last_error"));
  view_line("Image", api_str(s, "image"));
  view_line("Domain", api_str(s, "domain"));
  snprintf(text, sizeof text, "%lld", api_int(s, "revision"));
  view_line("Revision", text);
  if (json_is_object(rollout)) {
    snprintf(text, sizeof text, "%s%s%s", api_str(rollout, "state"), *api_str(rollout, "phase") ? ": " : "", api_str(rollout, "phase"));
    view_line("Rollout", text);
    view_line("", api_str(rollout, "reason"));
  }
  view_instances(ctl, json_object_get(reply, "instances"));
  view_spec(json_object_get(reply, "spec"));
}

int cmd_inspect(struct ctl *ctl) {
  struct err err;
  json_t *reply;
  bool job;
  if (job_or_service(ctl, ctl->argv[0], "", &reply, &job, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON)
    ctl_print_json(ctl, reply);
  else if (job)
    job_inspect(ctl, reply);
  else
    show(ctl, reply);
  json_decref(reply);
  return CTL_OK;
}
