#include "orcactl/entries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orcactl/api.h"
#include "orcactl/text.h"

struct show {
  struct ctl *ctl;
  const struct entries *of;
};

void entries_when(const json_t *entry, char out[32]) {
  time_t t = (time_t)text_time(api_str(entry, "time"));
  struct tm tm;
  if (t < 0 || !localtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm))
    snprintf(out, 32, "-");
}

static void print(const struct show *s, const json_t *entry) {
  if (s->ctl->output == CTL_JSON)
    ctl_print_json_line(s->ctl, entry); /* for programs that follow */
  else
    s->of->print(s->ctl, entry);
}

/* The history is not kept for ever: what was asked for may be gone. */
static void say_trimmed(const json_t *from) {
  char *time = text_cleaned(api_str(from, "oldest_time"));
  fprintf(stderr, "orcactl: what happened before %s (revision %lld) is no longer kept: this is not all that was asked for\n", time ? time : "",
          api_int(from, "oldest"));
  free(time);
}

static bool on_event(void *arg, const char *event, const char *data) {
  const struct show *s = arg;
  json_t *json = json_loads(data, 0, NULL);
  if (json && strcmp(event, s->of->event) == 0)
    print(s, json);
  else if (json && strcmp(event, "trimmed") == 0)
    say_trimmed(json);
  json_decref(json);
  return fflush(stdout) == 0; /* the reader of a pipe has gone */
}

/* An apiserver that restarts is come back to, where it was left (Last-Event-ID). */
static int follow(struct show *s, const char *path) {
  char last_id[64] = "";
  struct err err;
  for (;;) {
    int rc = api_follow(s->ctl, path, last_id, on_event, s, &err);
    if (ctl_unread())
      return CTL_OK;
    if (rc < 0 && !s->ctl->unreachable && err.code != ERR_UNAVAILABLE)
      return ctl_fail(s->ctl, &err);
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
}

static int add_filters(struct ctl *ctl, const struct entries *of, struct buf *path) {
  for (const char *const *name = of->filters; *name; name++)
    if (api_add_query(path, *name, ctl_value(ctl, *name)) < 0)
      return ctl_usage(ctl, "--%s is too long", *name);
  return CTL_OK;
}

static int show(struct show *s, struct buf *path) {
  struct ctl *ctl = s->ctl;
  const char *since = ctl_value(ctl, "since"), *tail = ctl_value(ctl, "tail");
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (tail && (!*tail || strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 5))
    return ctl_usage(ctl, "--tail %s: want a number", tail);
  buf_printf(path, "%s?limit=%s", s->of->path, tail ? tail : since ? "10000" : "100");
  if (api_add_query(path, "since", since) < 0)
    return ctl_usage(ctl, "--since is too long");
  if (add_filters(ctl, s->of, path) != CTL_OK)
    return CTL_USAGE;
  if (api_call(ctl, "GET", buf_str(path), NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (json_is_true(json_object_get(reply, "trimmed")))
    say_trimmed(reply);
  json_array_foreach(json_object_get(reply, s->of->list), i, one) print(s, one);
  buf_reset(path);
  buf_printf(path, "%s?follow=true&since=%lld", s->of->path, api_int(reply, "revision"));
  json_decref(reply);
  if (!ctl_flag(ctl, "follow"))
    return CTL_OK;
  add_filters(ctl, s->of, path); /* they fitted before */
  fflush(stdout);
  return follow(s, buf_str(path));
}

int entries_show(struct ctl *ctl, const struct entries *of) {
  struct buf path = BUF_INIT(4096);
  int code = show(&(struct show){ctl, of}, &path);
  buf_free(&path);
  return code;
}
