#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static void labels(const json_t *object, struct buf *to) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    const char *text = json_string_value(value);
    buf_printf(to, "%s%s=%s", to->len ? "," : "", key, text ? text : "");
  }
}

static void row(struct table *t, const json_t *node, bool wide) {
  const char *state = api_str(node, "state");
  const json_t *capacity = json_object_get(node, "capacity"), *used = json_object_get(node, "used");
  char in_use[16], memory[16];
  text_bytes((uint64_t)api_int(used, "memory"), in_use);
  text_bytes((uint64_t)api_int(capacity, "memory"), memory);
  table_cell(t, TABLE_PLAIN, api_str(node, "name"));
  table_cell(t, strcmp(state, "ready") == 0 ? TABLE_GREEN : strcmp(state, "unreachable") == 0 ? TABLE_RED : TABLE_YELLOW, state);
  table_cell(t, TABLE_PLAIN, api_str(node, "role"));
  table_cell(t, TABLE_PLAIN, api_str(node, "address"));
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(node, "instances"));
  table_cellf(t, TABLE_PLAIN, "%.2f/%g", api_num(used, "cpu"), api_num(capacity, "cpu"));
  table_cellf(t, TABLE_PLAIN, "%s/%s", in_use, memory);
  if (wide) {
    struct buf b = BUF_INIT((size_t)1 << 16);
    labels(json_object_get(node, "labels"), &b);
    table_cell(t, TABLE_PLAIN, buf_str(&b));
    buf_free(&b);
    table_cell(t, TABLE_PLAIN, api_str(node, "version"));
    table_cell(t, TABLE_PLAIN, api_str(node, "docker_version"));
    table_cell(t, TABLE_PLAIN, api_str(node, "kernel"));
    table_cell(t, TABLE_PLAIN, api_str(node, "arch"));
  }
  table_cell(t, TABLE_PLAIN, api_str(node, "reason"));
}

int cmd_nodes(struct ctl *ctl) {
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_call(ctl, "GET", "/api/v1/nodes", NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    int rc = ctl_print_json(ctl, reply);
    json_decref(reply);
    return rc;
  }
  bool wide = ctl->output == CTL_WIDE;
  struct table t = {0};
  table_column(&t, "NODE", false);
  table_column(&t, "STATE", false);
  table_column(&t, "ROLE", false);
  table_column(&t, "ADDRESS", false);
  table_column(&t, "INSTANCES", true);
  table_column(&t, "CPU", true);
  table_column(&t, "MEMORY", true);
  if (wide) {
    table_column(&t, "LABELS", false);
    table_column(&t, "ORCA", false);
    table_column(&t, "DOCKER", false);
    table_column(&t, "KERNEL", false);
    table_column(&t, "ARCH", false);
  }
  table_column(&t, "REASON", false);
  t.minor = "ADDRESS,ARCH,KERNEL,DOCKER,LABELS,ROLE";
  json_array_foreach(json_object_get(reply, "nodes"), i, one) row(&t, one, wide);
  view_print(ctl, &t);
  table_free(&t);
  json_decref(reply);
  return CTL_OK;
}
