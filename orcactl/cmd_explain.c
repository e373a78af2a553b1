#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orcactl/api.h"
#include "orcactl/job_view.h"
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
  struct buf out = BUF_INIT((size_t)64 << 20);
  table_print(&t, 0, ctl->color, &out); /* a reason is not cut: it is what was asked for */
  fputs(buf_str(&out), stdout);
  buf_free(&out);
  table_free(&t);
}

static void last_end(const json_t *in) {
  const json_t *end = json_object_get(in, "last_end");
  char at[32];
  size_t i;
  json_t *line;
  if (!json_is_object(end))
    return;
  struct buf b = BUF_INIT((size_t)1 << 20);
  view_when(api_str(end, "time"), at);
  buf_add_str(&b, "  last ended");
  if (*at)
    buf_printf(&b, " %s", at);
  view_after(&b, ": ", api_str(end, "by"));
  buf_printf(&b, " (%lld restart%s)", api_int(in, "restarts"), api_int(in, "restarts") == 1 ? "" : "s");
  view_put(&b);
  json_array_foreach(json_object_get(end, "lines"), i, line) {
    struct buf l = BUF_INIT((size_t)1 << 20);
    buf_add_str(&l, "    | ");
    text_clean(json_is_string(line) ? json_string_value(line) : "", &l);
    view_put(&l);
  }
  view_when(api_str(in, "next_try"), at);
  if (strcmp(api_str(in, "state"), "backoff") == 0 || strcmp(api_str(in, "state"), "failed") == 0)
    printf("  next try %s\n", strncmp(at, "in ", 3) == 0 ? at : "at once");
}

static void instance(struct ctl *ctl, const json_t *in, bool routed) {
  struct buf b = BUF_INIT((size_t)1 << 20);
  const char *node = api_str(in, "node"), *state = api_str(in, "state");
  text_clean(api_str(in, "id"), &b);
  buf_add_str(&b, ": ");
  view_colored(ctl, &b, view_status_color(state), state);
  if (*node) {
    buf_add_str(&b, " on ");
    text_clean(node, &b);
  }
  buf_printf(&b, ", revision %lld", api_int(in, "revision"));
  view_after(&b, ": ", *api_str(in, "progress") ? api_str(in, "progress") : api_str(in, "reason"));
  view_put(&b);
  if (routed && json_is_true(json_object_get(in, "receives"))) {
    printf("  receives requests\n");
  } else if (routed) {
    struct buf line = BUF_INIT((size_t)1 << 20);
    buf_add_str(&line, "  receives no requests");
    view_after(&line, ": ", api_str(in, "receives_not"));
    view_put(&line);
  }
  last_end(in);
  if (json_array_size(json_object_get(in, "verdicts")))
    verdicts(ctl, json_object_get(in, "verdicts"));
}

static void head(struct ctl *ctl, const json_t *reply) {
  struct buf b = BUF_INIT((size_t)1 << 20);
  const char *status = api_str(reply, "status");
  text_clean(api_str(reply, "service"), &b);
  buf_add_str(&b, ": ");
  view_colored(ctl, &b, view_status_color(status), status);
  buf_printf(&b, ", %lld of %lld ready", api_int(reply, "ready_replicas"), api_int(reply, "replicas"));
  view_after(&b, ": ", api_str(reply, "last_error"));
  view_put(&b);
  const json_t *rollout = json_object_get(reply, "rollout");
  if (json_is_object(rollout) && strcmp(api_str(rollout, "state"), "complete") != 0) {
    struct buf r = BUF_INIT((size_t)1 << 20);
    buf_printf(&r, "rollout of revision %lld: ", api_int(rollout, "revision"));
    text_clean(api_str(rollout, "state"), &r);
    view_after(&r, ": ", *api_str(rollout, "reason") ? api_str(rollout, "reason") : api_str(rollout, "phase"));
    if (api_int(rollout, "stable_revision") && api_int(rollout, "stable_revision") != api_int(rollout, "revision"))
      buf_printf(&r, "; the last good one is %lld", api_int(rollout, "stable_revision"));
    view_put(&r);
  }
}

static void depends(const json_t *list) {
  size_t i;
  json_t *d;
  json_array_foreach(list, i, d) {
    struct buf b = BUF_INIT((size_t)1 << 20);
    buf_add_str(&b, json_is_true(json_object_get(d, "satisfied")) ? "depends on " : "waits for ");
    text_clean(api_str(d, "service"), &b);
    view_after(&b, ": ", json_is_true(json_object_get(d, "satisfied")) ? "ready" : api_str(d, "reason"));
    view_put(&b);
  }
}

static void join(const json_t *strings, struct buf *b) {
  size_t i;
  json_t *s;
  json_array_foreach(strings, i, s) {
    buf_add_str(b, i ? ", " : "");
    text_clean(json_is_string(s) ? json_string_value(s) : "", b);
  }
}

static void route(const json_t *reply) {
  const json_t *r = json_object_get(reply, "route");
  struct buf b = BUF_INIT((size_t)1 << 20);
  size_t i, all = json_array_size(json_object_get(reply, "instances"));
  json_t *p;
  if (!json_is_object(r)) {
    buf_add_str(&b, "no route");
    view_after(&b, ": ", api_str(reply, "no_route"));
    view_put(&b);
    return;
  }
  buf_add_str(&b, "route ");
  join(json_object_get(r, "domains"), &b);
  buf_add_byte(&b, ' ');
  join(json_object_get(r, "paths"), &b);
  buf_printf(&b, " -> %lld of %zu instance%s", api_int(r, "endpoints"), all, all == 1 ? "" : "s");
  if (!api_int(r, "endpoints"))
    buf_add_str(&b, ": requests are answered with 503");
  view_put(&b);
  json_array_foreach(json_object_get(r, "proxies"), i, p) {
    bool connected = json_is_true(json_object_get(p, "connected")), current = json_is_true(json_object_get(p, "up_to_date"));
    if (connected && current && !*api_str(p, "fault"))
      continue;
    struct buf l = BUF_INIT((size_t)1 << 20);
    buf_add_str(&l, "  the proxy on ");
    text_clean(api_str(p, "node"), &l);
    buf_add_str(&l, !connected ? " is not connected: it goes on with the last table it had" : !current ? " has not taken the newest table yet" : "");
    view_after(&l, ": ", api_str(p, "fault"));
    view_put(&l);
  }
}

void view_explain_instance(struct ctl *ctl, const json_t *in) {
  instance(ctl, in, false);
}

int cmd_explain(struct ctl *ctl) {
  struct err err;
  json_t *reply, *one;
  size_t i;
  bool job;
  if (job_or_service(ctl, ctl->argv[0], "/explain", &reply, &job, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else if (job) {
    job_explain(ctl, reply);
  } else {
    const json_t *list = json_object_get(reply, "instances");
    bool routed = json_is_object(json_object_get(reply, "route"));
    head(ctl, reply);
    depends(json_object_get(reply, "depends_on"));
    route(reply);
    if (!json_array_size(list))
      printf("\nIt has no instances: it is stopped, scaled to 0, or the scheduler has not come to it yet.\n");
    json_array_foreach(list, i, one) {
      putchar('\n');
      instance(ctl, one, routed);
    }
  }
  json_decref(reply);
  return CTL_OK;
}
