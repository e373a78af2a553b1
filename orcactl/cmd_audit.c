/* audit: who did what, from where, on what, and how it ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/http/http.h"
#include "orcactl/api.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void print_entry(struct ctl *ctl, const json_t *e) {
  if (ctl->output == CTL_JSON) { /* one line each, for programs that follow */
    ctl_print_json_line(ctl, e);
    return;
  }
  const char *result = api_str(e, "result");
  bool ok = strcmp(result, "ok") == 0;
  time_t t = (time_t)text_time(api_str(e, "time"));
  struct tm tm;
  char when[32] = "-", count[32] = "";
  if (t >= 0 && localtime_r(&t, &tm))
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
  if (api_int(e, "count") > 1)
    snprintf(count, sizeof count, " (%lld times)", api_int(e, "count"));
  char *actor = text_cleaned(*api_str(e, "actor") ? api_str(e, "actor") : "-"), *from = text_cleaned(api_str(e, "from")),
       *method = text_cleaned(api_str(e, "method")), *path = text_cleaned(api_str(e, "path")), *target = text_cleaned(api_str(e, "target")),
       *said = text_cleaned(result);
  if (actor && from && method && path && target && said)
    printf("%s%s  %-12s  %-15s  %-6s %s%s%s  %s%s%s\n", ctl->color && !ok ? table_color_code(TABLE_YELLOW) : "", when, actor, from, method, path,
           *target ? "  " : "", target, said, count, ctl->color && !ok ? "\033[0m" : "");
  free(actor);
  free(from);
  free(method);
  free(path);
  free(target);
  free(said);
}

static bool on_entry(void *arg, const char *event, const char *data) {
  json_t *json = json_loads(data, 0, NULL);
  if (json && strcmp(event, "audit") == 0)
    print_entry(arg, json);
  json_decref(json);
  return fflush(stdout) == 0; /* the reader of a pipe has gone */
}

/* An apiserver that restarts is come back to, where it was left (Last-Event-ID). */
static int follow(struct ctl *ctl, const char *path) {
  char last_id[64] = "";
  struct err err;
  for (;;) {
    int rc = api_stream(ctl, "GET", path, NULL, last_id, on_entry, ctl, &err);
    if (ferror(stdout))
      return CTL_OK;
    if (rc < 0 && !ctl->unreachable && err.code != ERR_UNAVAILABLE)
      return ctl_fail(ctl, &err);
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
}

static int add_query(char path[1024], const char *key, const char *value) {
  char escaped[256];
  size_t used = strlen(path);
  if (!value)
    return 0;
  if (http_escape(value, escaped, sizeof escaped) < 0)
    return -1;
  int n = snprintf(path + used, 1024 - used, "&%s=%s", key, escaped);
  return n > 0 && (size_t)n < 1024 - used ? 0 : -1;
}

int cmd_audit(struct ctl *ctl) {
  const char *since = ctl_value(ctl, "since"), *tail = ctl_value(ctl, "tail"), *project = ctl_value(ctl, "project"), *actor = ctl_value(ctl, "actor");
  char path[1024];
  if (tail && (!*tail || strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 5))
    return ctl_usage(ctl, "--tail %s: want a number", tail);
  snprintf(path, sizeof path, "/api/v1/audit?limit=%s", tail ? tail : since ? "10000" : "100");
  if (add_query(path, "since", since) < 0 || add_query(path, "project", project) < 0 || add_query(path, "actor", actor) < 0)
    return ctl_usage(ctl, "--since, --project or --actor is too long");
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  json_array_foreach(json_object_get(reply, "entries"), i, one) print_entry(ctl, one);
  snprintf(path, sizeof path, "/api/v1/audit?follow=true&since=%lld", api_int(reply, "revision"));
  json_decref(reply);
  if (!ctl_flag(ctl, "follow"))
    return CTL_OK;
  add_query(path, "project", project); /* they fitted before */
  add_query(path, "actor", actor);
  fflush(stdout);
  return follow(ctl, path);
}
