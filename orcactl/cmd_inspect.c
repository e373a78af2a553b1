#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static void line(const char *name, const char *value) {
  char *text = text_cleaned(value);
  if (text && *text)
    printf("%-12s %s\n", name, text);
  free(text);
}

static void print_spec(const json_t *spec) {
  char *text = json_dumps(spec, JSON_INDENT(2));
  if (text) {
    struct buf b = BUF_INIT((size_t)16 << 20);
    text_clean_lines(text, &b);
    printf("\nSpec:\n%s\n", buf_str(&b));
    buf_free(&b);
  }
  free(text);
}

static void show(struct ctl *ctl, const json_t *reply) {
  const json_t *s = json_object_get(reply, "service"), *rollout = json_object_get(reply, "rollout");
  char text[600];
  snprintf(text, sizeof text, "%s/%s", api_str(s, "project"), api_str(s, "name"));
  line("Service", text);
  snprintf(text, sizeof text, "%s, %lld of %lld ready", api_str(s, "status"), api_int(s, "ready_replicas"), api_int(s, "replicas"));
  line("Status", text);
  line("Problem", api_str(s, "last_error"));
  line("Image", api_str(s, "image"));
  line("Domain", api_str(s, "domain"));
  snprintf(text, sizeof text, "%lld", api_int(s, "revision"));
  line("Revision", text);
  if (json_is_object(rollout)) {
    snprintf(text, sizeof text, "%s%s%s", api_str(rollout, "state"), *api_str(rollout, "phase") ? ": " : "", api_str(rollout, "phase"));
    line("Rollout", text);
    line("", api_str(rollout, "reason"));
  }
  size_t i;
  json_t *one;
  const json_t *instances = json_object_get(reply, "instances");
  if (json_array_size(instances)) {
    struct table t = {0};
    view_instance_columns(&t, ctl->output == CTL_WIDE);
    json_array_foreach(instances, i, one) view_instance_row(&t, one, ctl->output == CTL_WIDE);
    putchar('\n');
    view_print(ctl, &t);
    table_free(&t);
  }
  print_spec(json_object_get(reply, "spec"));
}

int cmd_inspect(struct ctl *ctl) {
  char path[512];
  struct err err;
  json_t *reply;
  if (api_service_path(ctl->argv[0], "", "", path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON)
    ctl_print_json(ctl, reply);
  else
    show(ctl, reply);
  json_decref(reply);
  return CTL_OK;
}
