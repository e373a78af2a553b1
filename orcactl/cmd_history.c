#include <stdio.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/view.h"

int cmd_history(struct ctl *ctl) {
  char path[512];
  struct err err;
  json_t *reply, *r;
  size_t i;
  if (api_service_path(ctl->argv[0], "/history", "", path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else {
    bool wide = ctl->output == CTL_WIDE;
    struct table t = {0};
    table_column(&t, "REVISION", true);
    table_column(&t, "STATE", false);
    table_column(&t, "CREATED", false);
    table_column(&t, "BY", false);
    table_column(&t, "IMAGE", false);
    table_column(&t, "CHANGED", false);
    if (wide)
      table_column(&t, "RESOLVED", false);
    t.minor = "RESOLVED,IMAGE,BY";
    json_array_foreach(json_object_get(reply, "revisions"), i, r) {
      const char *state = api_str(r, "state");
      table_cellf(&t, TABLE_PLAIN, "%lld", api_int(r, "number"));
      bool gave_up = strcmp(state, "failed") == 0 || strcmp(state, "rolled back") == 0;
      table_cell(&t, strcmp(state, "running") == 0 ? TABLE_GREEN : gave_up ? TABLE_RED : TABLE_PLAIN, state);
      table_cellf(&t, TABLE_PLAIN, "%.19sZ", api_str(r, "created"));
      table_cell(&t, TABLE_PLAIN, api_str(r, "created_by"));
      table_cell(&t, TABLE_PLAIN, api_str(r, "image"));
      table_cell(&t, TABLE_DIM, api_str(r, "changes"));
      if (wide)
        table_cell(&t, TABLE_PLAIN, api_str(r, "resolved"));
    }
    view_print(ctl, &t);
    table_free(&t);
  }
  json_decref(reply);
  return CTL_OK;
}
