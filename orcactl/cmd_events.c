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
    ctl_print_json_line(ctl, e);
    return;
  }
  const char *severity = api_str(e, "severity"), *message = api_str(e, "message");
  const char *color = !ctl->color                      ? ""
                      : strcmp(severity, "error") == 0 ? table_color_code(TABLE_RED)
                      : strcmp(severity, "warn") == 0  ? table_color_code(TABLE_YELLOW)
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

/* The history is not kept for ever: what was asked for may be gone. */
static void say_trimmed(const json_t *from) {
  char *time = text_cleaned(api_str(from, "oldest_time"));
  fprintf(stderr, "orcactl: what happened before %s (revision %lld) is no longer kept: this is not all that was asked for\n", time ? time : "",
          api_int(from, "oldest"));
  free(time);
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct ctl *ctl = arg;
  json_t *json = json_loads(data, 0, NULL);
  if (json && strcmp(event, "event") == 0)
    print_event(ctl, json);
  else if (json && strcmp(event, "trimmed") == 0)
    say_trimmed(json);
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

/* "key=VALUE&", escaped; -1: too long. */
static int add_query(struct buf *path, const char *key, const char *value) {
  char escaped[400];
  if (!value)
    return 0;
  if (strlen(value) > 128 || http_escape(value, escaped, sizeof escaped) < 0)
    return -1;
  return buf_printf(path, "%s=%s&", key, escaped);
}

static int filters(struct ctl *ctl, struct buf *path) {
  static const char *const names[] = {"project", "service", "kind"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (add_query(path, names[i], ctl_value(ctl, names[i])) < 0)
      return -1;
  return 0;
}

int cmd_events(struct ctl *ctl) {
  const char *since = ctl_value(ctl, "since"), *tail = ctl_value(ctl, "tail");
  struct buf path = BUF_INIT(4096);
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (tail && (!*tail || strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 5))
    return ctl_usage(ctl, "--tail %s: want a number", tail);
  buf_add_str(&path, "/api/v1/events?");
  if (filters(ctl, &path) < 0 || add_query(&path, "since", since) < 0) {
    buf_free(&path);
    return ctl_usage(ctl, "--since, --project, --service or --kind is too long");
  }
  buf_printf(&path, "limit=%s", tail ? tail : since ? "10000" : "100");
  int rc = api_call(ctl, "GET", buf_str(&path), NULL, &reply, &err);
  buf_reset(&path);
  if (rc < 0) {
    buf_free(&path);
    return ctl_fail(ctl, &err);
  }
  if (json_is_true(json_object_get(reply, "trimmed")))
    say_trimmed(reply);
  json_array_foreach(json_object_get(reply, "events"), i, one) print_event(ctl, one);
  buf_printf(&path, "/api/v1/events?since=%lld&follow=true&", api_int(reply, "revision"));
  json_decref(reply);
  fflush(stdout);
  rc = filters(ctl, &path) < 0 ? ctl_usage(ctl, "a filter is too long") : ctl_flag(ctl, "follow") ? follow(ctl, buf_str(&path)) : CTL_OK;
  buf_free(&path);
  return rc;
}
