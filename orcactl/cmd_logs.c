/* logs: what a service's instances have written and write.
 *
 * Where each instance's log was left is kept, so that a connection that is lost (the apiserver restarts) is come back to without a gap and without a
 * repeat. Lines are raw for a pipe; on a terminal nothing of theirs but text gets through. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/logs/mark.h"
#include "orcactl/api.h"
#include "orcactl/text.h"

#define INSTANCES_MAX 1000u

struct seen { /* one instance */
  uint64_t number;
  char label[80]; /* "web.3" */
  const char *color;
  struct log_mark mark;
  bool in_pieces[2];
};

struct reader {
  struct ctl *ctl;
  struct seen *list;
  size_t count;
  bool timestamps, prefixes, said_lost, got_some;
  long long began_ns;
  const struct seen *torn; /* its line is open on the terminal */
  unsigned label_width;
};

static struct seen *seen_of(struct reader *r, const char *instance) {
  const char *dot = strrchr(instance, '.'), *slash = strchr(instance, '/');
  uint64_t number = dot ? strtoull(dot + 1, NULL, 10) : 0;
  for (size_t i = 0; i < r->count; i++)
    if (r->list[i].number == number)
      return &r->list[i];
  if (!number || r->count == INSTANCES_MAX)
    return NULL;
  static const char *const colors[] = {"\033[36m", "\033[33m", "\033[32m", "\033[35m", "\033[34m",
                                       "\033[96m", "\033[93m", "\033[92m", "\033[95m", "\033[94m"};
  struct seen *s = &r->list[r->count];
  *s = (struct seen){.number = number, .color = colors[r->count % (sizeof colors / sizeof *colors)]};
  char *label = text_cleaned(slash ? slash + 1 : instance);
  snprintf(s->label, sizeof s->label, "%.60s", label ? label : "");
  free(label);
  unsigned width = text_width(s->label);
  r->label_width = width > r->label_width ? width : r->label_width;
  r->count++;
  return s;
}

/* "2026-11-21T12:00:00.123456789Z" → ns; 0: not one. */
static int64_t time_ns(const char *text) {
  int64_t seconds = text_time(text), ns = 0;
  const char *dot = strchr(text, '.');
  if (seconds < 0 || !dot || strspn(dot + 1, "0123456789") != 9)
    return 0;
  for (int i = 1; i <= 9; i++)
    ns = ns * 10 + dot[i] - '0';
  return seconds * INT64_C(1000000000) + ns;
}

static int digit(char c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void print_base64(const char *s) {
  uint32_t bits = 0;
  unsigned have = 0;
  for (int d; (d = digit(*s)) >= 0; s++) {
    bits = bits << 6 | (uint32_t)d;
    have += 6;
    if (have >= 8) {
      have -= 8;
      putchar((int)(bits >> have & 0xff));
    }
  }
}

/* ---- one line ---- */

static void print_raw(const json_t *line, const char *time, const struct seen *s, bool err, bool timestamps) {
  const json_t *text = json_object_get(line, "text");
  const char *base64 = api_str(line, "base64");
  if (timestamps && !s->in_pieces[err])
    printf("%s ", time);
  if (*base64)
    print_base64(base64);
  else
    fwrite(json_string_value(text), 1, json_string_length(text), stdout);
  if (!json_is_true(json_object_get(line, "partial")))
    putchar('\n');
}

static void print_for_people(struct reader *r, const json_t *line, const char *time, const struct seen *s, bool err) {
  const json_t *text = json_object_get(line, "text");
  size_t len = json_string_length(text);
  char *copy = malloc(len + 1);
  if (!copy)
    return;
  memcpy(copy, json_string_value(text), len);
  copy[len] = 0;
  for (size_t i = 0; i < len; i++)
    if (!copy[i])
      copy[i] = ' ';
  char *clean = text_cleaned(copy), *when = text_cleaned(time);
  bool goes_on = r->torn == s && s->in_pieces[err];
  if (r->torn && !goes_on)
    putchar('\n');
  if (!goes_on) {
    const char *color = r->ctl->color ? s->color : "", *reset = r->ctl->color ? "\033[0m" : "";
    printf("%s%-*s |%s ", color, (int)r->label_width, s->label, reset);
    if (r->timestamps)
      printf("%s ", when ? when : "");
  }
  fputs(clean ? clean : "", stdout);
  r->torn = json_is_true(json_object_get(line, "partial")) ? s : NULL;
  if (!r->torn)
    putchar('\n');
  free(clean);
  free(when);
  free(copy);
}

static void on_line(struct reader *r, const json_t *line, const char *data) {
  const char *time = api_str(line, "time");
  int64_t ns = time_ns(time);
  bool err = strcmp(api_str(line, "stream"), "stderr") == 0;
  struct seen *s = seen_of(r, api_str(line, "instance"));
  if (!s || !ns || !json_is_string(json_object_get(line, "text")))
    return;
  if (r->ctl->output == CTL_JSON) {
    if (r->ctl->tty)
      ctl_print_json_line(r->ctl, line);
    else
      puts(data);
  } else if (r->ctl->tty) {
    print_for_people(r, line, time, s, err);
  } else {
    print_raw(line, time, s, err, r->timestamps);
  }
  s->in_pieces[err] = json_is_true(json_object_get(line, "partial"));
  log_mark_seen(&s->mark, err, ns);
}

static void on_note(struct reader *r, const json_t *note) {
  char *instance = text_cleaned(api_str(note, "instance")), *text = text_cleaned(api_str(note, "text"));
  fflush(stdout);
  fprintf(stderr, "orcactl: %s: %s\n", instance ? instance : "", text ? text : "");
  free(instance);
  free(text);
  (void)r;
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct reader *r = arg;
  json_t *json = json_loads(data, JSON_ALLOW_NUL, NULL);
  r->got_some = true;
  if (json && strcmp(event, "log") == 0)
    on_line(r, json, data);
  else if (json && strcmp(event, "note") == 0)
    on_note(r, json);
  else if (json && strcmp(event, "start") == 0 && !r->began_ns)
    r->began_ns = strtoll(api_str(json, "time_ns"), NULL, 10);
  json_decref(json);
  return !ferror(stdout); /* the reader of a pipe has gone */
}

/* ---- the stream ---- */

static const char *resume_text(const struct reader *r, struct buf *to) {
  buf_reset(to);
  if (!r->began_ns)
    return "";
  buf_printf(to, "&resume=@%lld", r->began_ns);
  for (size_t i = 0; i < r->count; i++) {
    char mark[LOG_MARK_TEXT];
    if (!r->list[i].mark.ns)
      continue;
    log_mark_text(&r->list[i].mark, mark);
    buf_printf(to, ",%" PRIu64 ":%s", r->list[i].number, mark);
  }
  return buf_str(to);
}

static int read_all(struct reader *r, const char *path, bool follow) {
  struct ctl *ctl = r->ctl;
  struct buf url = BUF_INIT((size_t)64 << 10), resume = BUF_INIT((size_t)64 << 10);
  struct err err;
  int code = CTL_OK;
  for (;;) {
    char last_id[64] = "";
    buf_reset(&url);
    buf_printf(&url, "%s%s", path, resume_text(r, &resume));
    r->got_some = false;
    int rc = api_follow(ctl, buf_str(&url), last_id, on_event, r, &err);
    fflush(stdout);
    if (ctl_unread() || (rc == 0 && !follow))
      break;
    if (rc < 0 && (!follow || !r->began_ns || (!ctl->unreachable && err.code != ERR_UNAVAILABLE && err.code != ERR_BUSY))) {
      code = ctl_fail(ctl, &err);
      break;
    }
    if (r->got_some)
      r->said_lost = false;
    if (rc < 0 && !r->said_lost) {
      fprintf(stderr, "orcactl: the connection was lost; it goes on when the apiserver is back\n");
      r->said_lost = true;
    }
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
  }
  buf_free(&url);
  buf_free(&resume);
  return code;
}

static void on_signal(int signo) {
  (void)signo;
  _exit(CTL_OK);
}

static int add_option(const struct ctl *ctl, struct buf *query, const char *option) {
  return api_add_query(query, option, ctl_value(ctl, option));
}

int cmd_logs(struct ctl *ctl) {
  const char *tail = ctl_value(ctl, "tail");
  bool follow = ctl_flag(ctl, "follow");
  struct buf query = BUF_INIT(4096);
  char path[512];
  struct err err;
  if (tail && strcmp(tail, "all") != 0 && (!*tail || strspn(tail, "0123456789") != strlen(tail) || strlen(tail) > 18))
    return ctl_usage(ctl, "--tail %s: want a number", tail);
  buf_add_str(&query, follow ? "events=true&follow=true" : "events=true");
  bool fits =
      add_option(ctl, &query, "tail") == 0 && add_option(ctl, &query, "since") == 0 && add_option(ctl, &query, "instance") == 0 && query.len < 256;
  struct reader r = {.ctl = ctl, .timestamps = ctl_flag(ctl, "timestamps"), .list = calloc(INSTANCES_MAX, sizeof *r.list)};
  int code;
  if (!fits)
    code = ctl_usage(ctl, "--since or --instance is too long");
  else if (!r.list)
    code = ctl_fail(ctl, (err_set(&err, ERR_MEMORY, "no memory"), &err));
  else if (api_service_path(ctl->argv[0], "/logs", buf_str(&query), path, &err) < 0)
    code = ctl_fail(ctl, &err);
  else {
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    code = read_all(&r, path, follow);
  }
  free(r.list);
  buf_free(&query);
  return code;
}
