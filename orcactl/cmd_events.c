#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orcactl/api.h"
#include "common/http/http.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void print_event(struct ctl *ctl, const json_t *e) {
  if (ctl->output == CTL_JSON) { /* one line each, for programs that follow */
    char *text = json_dumps(e, JSON_COMPACT | (ctl->tty ? JSON_ENSURE_ASCII : 0));
    if (text)
      puts(text);
    free(text);
    return;
  }
  const char *severity = api_str(e, "severity"), *message = api_str(e, "message");
  const char *color = !ctl->color                        ? ""
                      : strcmp(severity, "error") == 0   ? table_color_code(TABLE_RED)
                      : strcmp(severity, "warning") == 0 ? table_color_code(TABLE_YELLOW)
                                                         : "";
  int64_t at = text_time(api_str(e, "time"));
  char when[32] = "-", subject[300];
  time_t t = (time_t)at;
  struct tm tm;
  if (at >= 0 && localtime_r(&t, &tm))
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
  if (*api_str(e, "instance"))
    snprintf(subject, sizeof subject, "%s", api_str(e, "instance"));
  else if (*api_str(e, "service"))
    snprintf(subject, sizeof subject, "%s/%s", api_str(e, "project"), api_str(e, "service"));
  else
    snprintf(subject, sizeof subject, "%s", api_str(e, "node"));
  struct buf line = BUF_INIT((size_t)1 << 20);
  char *kind = text_cleaned(api_str(e, "kind")), *about = text_cleaned(subject), *said = text_cleaned(message),
       *by = text_cleaned(api_str(e, "actor"));
  if (kind && about && said && by) {
    buf_printf(&line, "%s  %-20s  %-20s  %s", when, kind, about, said);
    if (*by)
      buf_printf(&line, " (%s)", by);
    printf("%s%s%s\n", color, buf_str(&line), *color ? "\033[0m" : "");
  }
  free(kind);
  free(about);
  free(said);
  free(by);
  buf_free(&line);
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct ctl *ctl = arg;
  json_t *json = json_loads(data, 0, NULL);
  if (json && strcmp(event, "event") == 0)
    print_event(ctl, json);
  json_decref(json);
  return fflush(stdout) == 0; /* the reader of a pipe has gone */
}

/* An apiserver that restarts is come back to, where it was left (Last-Event-ID). */
static int follow(struct ctl *ctl, const char *path) {
  char last_id[64] = "";
  struct err err;
  for (;;) {
    int rc = api_stream(ctl, "GET", path, NULL, last_id, on_event, ctl, &err);
    if (ferror(stdout))
      return CTL_OK;
    if (rc < 0 && !ctl->unreachable && err.code != ERR_UNAVAILABLE)
      return ctl_fail(ctl, &err);
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
}

int cmd_events(struct ctl *ctl) {
  const char *since = ctl_value(ctl, "since"), *project = ctl_value(ctl, "project"), *tail = ctl_value(ctl, "tail");
  char path[512], value[128];
  int n = snprintf(path, sizeof path, "/api/v1/events?");
  bool follows = ctl_flag(ctl, "follow");
  if (tail && (!*tail || strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 5))
    return ctl_usage(ctl, "--tail %s: want a number", tail);
  if ((since && http_escape(since, value, sizeof value) < 0) || (project && strlen(project) > 63))
    return ctl_usage(ctl, "--since or --project is too long");
  if (since)
    n += snprintf(path + n, sizeof path - (size_t)n, "since=%s&", value);
  if (project && http_escape(project, value, sizeof value) == 0)
    n += snprintf(path + n, sizeof path - (size_t)n, "project=%s&", value);
  snprintf(path + n, sizeof path - (size_t)n, "limit=%s", tail ? tail : since ? "10000" : "100");
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  json_array_foreach(json_object_get(reply, "events"), i, one) print_event(ctl, one);
  n = snprintf(path, sizeof path, "/api/v1/events?since=%lld&follow=true", api_int(reply, "revision"));
  json_decref(reply);
  if (!follows)
    return CTL_OK;
  if (project && http_escape(project, value, sizeof value) == 0)
    snprintf(path + n, sizeof path - (size_t)n, "&project=%s", value);
  fflush(stdout);
  return follow(ctl, path);
}
