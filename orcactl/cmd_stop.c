#include <stdio.h>
#include <stdlib.h>

#include "orcactl/api.h"
#include "orcactl/change.h"
#include "orcactl/text.h"

static int stop_all(struct ctl *ctl) {
  int rc = ctl_confirm(ctl, "Stop every service of the cluster?");
  if (rc != CTL_OK)
    return rc;
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_call(ctl, "POST", "/api/v1/stop", NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON)
    rc = ctl_print_json(ctl, reply);
  else
    json_array_foreach(json_object_get(reply, "stopped"), i, one) {
      char *name = text_cleaned(json_is_string(one) ? json_string_value(one) : "");
      printf("%s: stopped; its spec stays\n", name ? name : "");
      free(name);
    }
  json_decref(reply);
  return rc;
}

int cmd_stop(struct ctl *ctl) {
  if (ctl_flag(ctl, "all"))
    return ctl->argc ? ctl_usage(ctl, "--all or names, not both") : stop_all(ctl);
  if (!ctl->argc)
    return ctl_usage(ctl, "`stop` needs NAME... or --all");
  return change_services(ctl, ctl->argc, "POST", "/stop", "", NULL, "stopped; its spec stays, `orcactl start` runs it again");
}
