#include <stdio.h>

#include "orcactl/api.h"
#include "orcactl/infra.h"
#include "orcactl/plan_view.h"

int cmd_plan(struct ctl *ctl) {
  struct spec_set set;
  json_t *body, *plan;
  struct err err;
  bool prune = ctl_flag(ctl, "prune");
  if (prune && ctl->argc)
    return ctl_usage(ctl, "--prune looks at the whole infra directory: it goes without names");
  int rc = infra_load(ctl, &set, &body);
  if (rc != CTL_OK)
    return rc;
  if (api_call(ctl, "POST", prune ? "/api/v1/deploy?dry_run=true&prune=true" : "/api/v1/deploy?dry_run=true", body, &plan, &err) < 0) {
    rc = infra_refused(ctl, &set, &err);
  } else {
    if (ctl->output == CTL_JSON) {
      ctl_print_json(ctl, plan);
    } else {
      plan_print(ctl, plan);
      plan_warn(plan);
    }
    json_decref(plan);
  }
  json_decref(body);
  spec_set_free(&set);
  return rc;
}
