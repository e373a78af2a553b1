/* context list, use, rm. */
#include <stdio.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/table.h"
#include "orcactl/view.h"

int cmd_context_list(struct ctl *ctl) {
  struct err err;
  json_t *all = context_all(&err), *one;
  const char *name;
  if (!all)
    return ctl_fail(ctl, &err);
  struct table t = {0};
  table_column(&t, "", false);
  table_column(&t, "CONTEXT", false);
  table_column(&t, "URL", false);
  json_t *list = json_array();
  json_object_foreach(json_object_get(all, "contexts"), name, one) {
    bool current = strcmp(name, api_str(all, "current")) == 0;
    json_array_append_new(list, json_pack("{s:s,s:s,s:b}", "name", name, "url", api_str(one, "url"), "current", current));
    table_cell(&t, TABLE_GREEN, current ? "*" : "");
    table_cell(&t, TABLE_PLAIN, name);
    table_cell(&t, TABLE_PLAIN, api_str(one, "url"));
  }
  int rc = CTL_OK;
  json_t *out = json_pack("{s:o}", "contexts", list);
  if (ctl->output == CTL_JSON)
    rc = ctl_print_json(ctl, out);
  else if (!json_array_size(list))
    printf("No cluster is known here yet: `orcactl login HOST` goes to one, `orcactl init` makes this machine one\n");
  else
    view_print(ctl, &t);
  table_free(&t);
  json_decref(out);
  json_decref(all);
  return rc;
}

int cmd_context_use(struct ctl *ctl) {
  struct err err;
  if (context_use(ctl->argv[0], &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output != CTL_JSON)
    printf("%s is the current context\n", ctl->argv[0]);
  ctl_print_done(ctl, "current", json_string(ctl->argv[0]));
  return CTL_OK;
}

int cmd_context_rm(struct ctl *ctl) {
  struct err err;
  if (context_remove(ctl->argv[0], &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output != CTL_JSON)
    printf("%s: forgotten, with its token; the cluster still knows that one (`orcactl token rm`)\n", ctl->argv[0]);
  ctl_print_done(ctl, "removed", json_pack("[s]", ctl->argv[0]));
  return CTL_OK;
}
