#include "orcactl/job_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orcactl/api.h"
#include "orcactl/job_wait.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

/* ---- tables ---- */

enum table_color job_color(const char *state) {
  if (strcmp(state, "succeeded") == 0)
    return TABLE_GREEN;
  if (strcmp(state, "failed") == 0 || strcmp(state, "timed_out") == 0)
    return TABLE_RED;
  if (strcmp(state, "running") == 0 || strcmp(state, "skipped") == 0)
    return TABLE_YELLOW;
  return TABLE_PLAIN;
}

static void last_run(const json_t *job, char out[64]) {
  const json_t *run = json_array_get(json_object_get(job, "runs"), 0);
  char age[16];
  const char *when = api_str(run, "ended");
  when = *when ? when : *api_str(run, "started") ? api_str(run, "started") : api_str(run, "scheduled");
  if (!run) {
    snprintf(out, 64, "-");
    return;
  }
  view_age(when, age);
  if (json_is_integer(json_object_get(run, "exit_code")) && strcmp(api_str(run, "state"), "failed") == 0)
    snprintf(out, 64, "%lld, exit code %lld, %s", api_int(run, "run"), api_int(run, "exit_code"), age);
  else
    snprintf(out, 64, "%lld, %s", api_int(run, "run"), age);
}

void job_columns(struct table *t) {
  static const char *const heads[] = {"JOB", "STATUS", "SCHEDULE", "NEXT", "LAST", "IMAGE"};
  for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
    table_column(t, heads[k], false);
  t->minor = "IMAGE";
}

void job_row(struct table *t, const json_t *job) {
  const char *schedule = api_str(job, "schedule"), *status = api_str(job, "status"), *tz = api_str(job, "tz"), *error = api_str(job, "error");
  char last[64], next[32];
  last_run(job, last);
  view_when(api_str(job, "next"), next);
  table_cellf(t, TABLE_PLAIN, "%s/%s", api_str(job, "project"), api_str(job, "name"));
  table_cell(t, job_color(status), status);
  table_cellf(t, TABLE_PLAIN, "%s%s%s", *schedule ? schedule : "-", *schedule && strcmp(tz, "UTC") != 0 ? " " : "",
              *schedule && strcmp(tz, "UTC") != 0 ? tz : "");
  table_cellf(t, *error ? TABLE_RED : TABLE_PLAIN, "%s", *error ? error : *next ? next : "-");
  table_cell(t, TABLE_PLAIN, last);
  table_cell(t, TABLE_PLAIN, api_str(job, "image"));
}

static void duration(const json_t *run, char out[32]) {
  int64_t from = text_time(api_str(run, "started")), to = text_time(api_str(run, "ended"));
  if (from < 0 || to < from)
    snprintf(out, 32, "-");
  else if (to - from < 120)
    snprintf(out, 32, "%llds", (long long)(to - from));
  else
    text_age(to - from, out);
}

void job_run_row(struct table *t, const json_t *run) {
  char took[32];
  const char *state = api_str(run, "state"), *started = api_str(run, "started");
  duration(run, took);
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "run"));
  table_cell(t, job_color(state), state);
  if (json_is_integer(json_object_get(run, "exit_code")))
    table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "exit_code"));
  else
    table_cell(t, TABLE_PLAIN, "-");
  const char *when = *started ? started : api_str(run, "scheduled");
  table_cellf(t, TABLE_PLAIN, "%.19s%s", *when ? when : "-", *when ? "Z" : "");
  table_cell(t, TABLE_PLAIN, took);
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "attempts"));
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "revision"));
  table_cell(t, TABLE_PLAIN, *api_str(run, "node") ? api_str(run, "node") : "-");
  table_cell(t, TABLE_PLAIN, api_str(run, "by"));
  table_cell(t, TABLE_PLAIN, api_str(run, "reason"));
}

void job_run_columns(struct table *t) {
  static const char *const heads[] = {"RUN", "STATE", "EXIT", "STARTED", "TOOK", "TRIES", "REVISION", "NODE", "BY", "REASON"};
  for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
    table_column(t, heads[k], k == 0);
}

/* ---- explain, inspect ---- */

static void schedule(const json_t *job) {
  struct buf b = BUF_INIT((size_t)1 << 16);
  char at[32];
  view_when(api_str(job, "next"), at);
  if (*api_str(job, "schedule")) {
    view_after(&b, "schedule ", api_str(job, "schedule"));
    view_after(&b, ", ", api_str(job, "tz"));
  } else {
    buf_add_str(&b, "no schedule: it runs when a revision of it is deployed, and by `orcactl job run`");
  }
  view_put(&b);
  if (*api_str(job, "error")) {
    struct buf e = BUF_INIT((size_t)1 << 16);
    view_after(&e, "  it has no ticks: ", api_str(job, "error"));
    view_put(&e);
  } else if (json_is_true(json_object_get(job, "stopped"))) {
    printf("  it is stopped: no ticks until `orcactl job start` or a deploy\n");
  } else if (*at) {
    char *next = text_cleaned(api_str(job, "next"));
    printf("  next run %s (%.19sZ)\n", at, next ? next : "");
    free(next);
  }
}

static void run_line(const struct ctl *ctl, const json_t *run) {
  struct buf b = BUF_INIT((size_t)1 << 16);
  char at[32];
  const char *state = api_str(run, "state"), *node = api_str(run, "node"), *ended = api_str(run, "ended");
  buf_printf(&b, "run %lld: ", api_int(run, "run"));
  view_colored(ctl, &b, job_color(state), state);
  view_after(&b, " on ", node);
  view_when(*ended ? ended : api_str(run, "started"), at);
  if (*at)
    buf_printf(&b, ", %s%s", *ended ? "ended " : "started ", at);
  if (json_is_integer(json_object_get(run, "exit_code")))
    buf_printf(&b, ", exit code %lld", api_int(run, "exit_code"));
  buf_printf(&b, ", %lld attempt%s", api_int(run, "attempts"), api_int(run, "attempts") == 1 ? "" : "s");
  view_after(&b, ": ", api_str(run, "reason"));
  view_put(&b);
  view_when(api_str(run, "next_try"), at);
  if (strncmp(at, "in ", 3) == 0)
    printf("  next try %s\n", at);
}

static void log_lines(const char *log) {
  while (*log) {
    size_t len = strcspn(log, "\n");
    char *one = strndup(log, len);
    struct buf b = BUF_INIT((size_t)1 << 20);
    view_after(&b, "    | ", one ? one : "");
    view_put(&b);
    free(one);
    log += len + (log[len] == '\n');
  }
}

void job_explain(struct ctl *ctl, const json_t *reply) {
  const json_t *job = json_object_get(reply, "job");
  struct buf b = BUF_INIT((size_t)1 << 16);
  size_t i;
  json_t *one;
  view_after(&b, "job ", api_str(job, "project"));
  view_after(&b, "/", api_str(job, "name"));
  buf_add_str(&b, ": ");
  view_colored(ctl, &b, job_color(api_str(job, "status")), api_str(job, "status"));
  buf_printf(&b, ", revision %lld", api_int(job, "revision"));
  view_put(&b);
  schedule(job);
  json_array_foreach(json_object_get(reply, "instances"), i, one) {
    putchar('\n');
    view_explain_instance(ctl, one);
  }
  json_array_foreach(json_object_get(job, "runs"), i, one) {
    putchar('\n');
    run_line(ctl, one);
    if (api_int(one, "run") == api_int(reply, "last_run"))
      log_lines(api_str(one, "log"));
  }
  if (!json_array_size(json_object_get(job, "runs")))
    printf("\nIt has not run yet.\n");
}

void job_inspect(struct ctl *ctl, const json_t *reply) {
  const json_t *job = json_object_get(reply, "job");
  char text[600];
  size_t i;
  json_t *one;
  snprintf(text, sizeof text, "%s/%s", api_str(job, "project"), api_str(job, "name"));
  view_line("Job", text);
  view_line("Status", api_str(job, "status"));
  view_line("Problem", api_str(job, "error"));
  view_line("Image", api_str(job, "image"));
  snprintf(text, sizeof text, "%lld", api_int(job, "revision"));
  view_line("Revision", text);
  snprintf(text, sizeof text, "%s%s%s", api_str(job, "schedule"), *api_str(job, "tz") ? ", " : "", api_str(job, "tz"));
  view_line("Schedule", text);
  view_line("Next", api_str(job, "next"));
  view_line("Success", api_str(job, "last_success"));
  view_line("Overlap", api_str(job, "overlap"));
  view_instances(ctl, json_object_get(reply, "instances"));
  if (json_array_size(json_object_get(job, "runs"))) {
    struct table t = {0};
    job_run_columns(&t);
    json_array_foreach(json_object_get(job, "runs"), i, one) job_run_row(&t, one);
    putchar('\n');
    view_print(ctl, &t);
    table_free(&t);
  }
  view_spec(json_object_get(reply, "spec"));
}

/* ---- which of the two ---- */

int job_or_service(struct ctl *ctl, const char *name, const char *tail, json_t **ret, bool *job, struct err *err) {
  char path[512];
  struct err none;
  *job = false;
  if (api_service_path(name, tail, "", path, err) < 0)
    return -1;
  if (api_call(ctl, "GET", path, NULL, ret, err) == 0)
    return 0;
  if (err->code != ERR_NOT_FOUND || ctl->unreachable || api_job_path(name, tail, "", path, &none) < 0)
    return -1;
  if (api_call(ctl, "GET", path, NULL, ret, &none) < 0) {
    if (none.code == ERR_NOT_FOUND)
      return err_set(err, ERR_NOT_FOUND, "service or job not found: %.200s", name);
    *err = none;
    return -1;
  }
  *job = true;
  return 0;
}
