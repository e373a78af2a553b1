#include <stdio.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static void verdicts(struct ctl *ctl, const json_t *list) {
  size_t i;
  json_t *v;
  struct table t = {0};
  table_column(&t, "  NODE", false);
  table_column(&t, "VERDICT", false);
  table_column(&t, "REASON", false);
  json_array_foreach(list, i, v) {
    bool chosen = json_is_true(json_object_get(v, "chosen")), fits = json_is_true(json_object_get(v, "fits"));
    table_cellf(&t, TABLE_PLAIN, "  %s", api_str(v, "node"));
    table_cell(&t, chosen ? TABLE_GREEN : fits ? TABLE_PLAIN : TABLE_YELLOW, chosen ? "chosen" : fits ? "fits" : "does not fit");
    table_cell(&t, TABLE_PLAIN, api_str(v, "reason"));
  }
  view_print(ctl, &t);
  table_free(&t);
}

static void instance(struct ctl *ctl, const json_t *in) {
  struct buf b = BUF_INIT((size_t)1 << 20);
  const char *node = api_str(in, "node"), *state = api_str(in, "state");
  text_clean(api_str(in, "id"), &b);
  buf_add_str(&b, ": ");
  if (ctl->color)
    buf_add_str(&b, table_color_code(view_status_color(state)));
  text_clean(state, &b);
  if (ctl->color)
    buf_add_str(&b, "\033[0m");
  if (*node) {
    buf_add_str(&b, " on ");
    text_clean(node, &b);
  }
  if (*api_str(in, "reason")) {
    buf_add_str(&b, ": ");
    text_clean(api_str(in, "reason"), &b);
  }
  puts(buf_str(&b));
  buf_free(&b);
  if (json_array_size(json_object_get(in, "verdicts")))
    verdicts(ctl, json_object_get(in, "verdicts"));
}

int cmd_explain(struct ctl *ctl) {
  char path[512];
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_service_path(ctl->argv[0], "/explain", "", path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  const json_t *list = json_object_get(reply, "instances");
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else if (!json_array_size(list)) {
    printf("It has no instances: it is stopped, scaled to 0, or the scheduler has not come to it yet.\n");
  } else {
    json_array_foreach(list, i, one) {
      if (i)
        putchar('\n');
      instance(ctl, one);
    }
  }
  json_decref(reply);
  return CTL_OK;
}
