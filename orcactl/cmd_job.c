/* job list, run, history, stop, start, rm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/job_wait.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static enum table_color color_of(const char *state) {
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

int cmd_job_list(struct ctl *ctl) {
  const char *project = ctl_value(ctl, "project");
  struct err err;
  json_t *reply, *job;
  size_t i, shown = 0;
  if (api_call(ctl, "GET", "/api/v1/jobs", NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
    json_decref(reply);
    return CTL_OK;
  }
  struct table t = {0};
  static const char *const heads[] = {"JOB", "STATUS", "SCHEDULE", "NEXT", "LAST", "IMAGE"};
  for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
    table_column(&t, heads[k], false);
  json_array_foreach(json_object_get(reply, "jobs"), i, job) {
    const char *schedule = api_str(job, "schedule"), *status = api_str(job, "status"), *tz = api_str(job, "tz"), *error = api_str(job, "error");
    char last[64];
    if ((project && strcmp(project, api_str(job, "project")) != 0) || (json_is_true(json_object_get(job, "task")) && !ctl_flag(ctl, "tasks")))
      continue;
    last_run(job, last);
    table_cellf(&t, TABLE_PLAIN, "%s/%s", api_str(job, "project"), api_str(job, "name"));
    table_cell(&t, color_of(status), status);
    table_cellf(&t, TABLE_PLAIN, "%s%s%s", *schedule ? schedule : "-", *schedule && strcmp(tz, "UTC") != 0 ? " " : "",
                *schedule && strcmp(tz, "UTC") != 0 ? tz : "");
    table_cellf(&t, *error ? TABLE_RED : TABLE_PLAIN, "%s", *error ? error : *api_str(job, "next") ? api_str(job, "next") : "-");
    table_cell(&t, TABLE_PLAIN, last);
    table_cell(&t, TABLE_PLAIN, api_str(job, "image"));
    shown++;
  }
  if (shown)
    view_print(ctl, &t);
  else
    printf("No jobs.\n");
  table_free(&t);
  json_decref(reply);
  return CTL_OK;
}

int cmd_job_run(struct ctl *ctl) {
  char path[512];
  struct err err;
  if (job_path(ctl->argv[0], "/run", "", path, &err) < 0)
    return ctl_fail(ctl, &err);
  return ctl_flag(ctl, "no-wait") ? job_start(ctl, path, NULL) : job_wait(ctl, path, NULL);
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

static void history_row(struct table *t, const json_t *run) {
  char took[32];
  const char *state = api_str(run, "state"), *started = api_str(run, "started");
  duration(run, took);
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "run"));
  table_cell(t, color_of(state), state);
  if (json_is_integer(json_object_get(run, "exit_code")))
    table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "exit_code"));
  else
    table_cell(t, TABLE_PLAIN, "-");
  table_cellf(t, TABLE_PLAIN, "%.19s", *started ? started : *api_str(run, "scheduled") ? api_str(run, "scheduled") : "-");
  table_cell(t, TABLE_PLAIN, took);
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "attempts"));
  table_cellf(t, TABLE_PLAIN, "%lld", api_int(run, "revision"));
  table_cell(t, TABLE_PLAIN, *api_str(run, "node") ? api_str(run, "node") : "-");
  table_cell(t, TABLE_PLAIN, api_str(run, "by"));
  table_cell(t, TABLE_PLAIN, api_str(run, "reason"));
}

int cmd_job_history(struct ctl *ctl) {
  char path[512];
  struct err err;
  json_t *reply, *run;
  size_t i;
  if (job_path(ctl->argv[0], "", "", path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  const json_t *runs = json_object_get(json_object_get(reply, "job"), "runs");
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else if (!json_array_size(runs)) {
    printf("It has not run yet.\n");
  } else {
    struct table t = {0};
    static const char *const heads[] = {"RUN", "STATE", "EXIT", "STARTED", "TOOK", "TRIES", "REVISION", "NODE", "BY", "REASON"};
    for (size_t k = 0; k < sizeof heads / sizeof *heads; k++)
      table_column(&t, heads[k], k == 0);
    json_array_foreach(runs, i, run) history_row(&t, run);
    view_print(ctl, &t);
    table_free(&t);
    run = json_array_get(runs, 0);
    if (*api_str(run, "log")) {
      printf("\nThe end of run %lld's log:\n", api_int(run, "run"));
      job_print_log(ctl, api_str(run, "log"));
    }
  }
  json_decref(reply);
  return CTL_OK;
}

/* One request for each argument. */
static int change(struct ctl *ctl, const char *method, const char *tail, const char *said) {
  int worst = CTL_OK;
  for (int i = 0; i < ctl->argc; i++) {
    char path[512];
    struct err err;
    json_t *reply;
    if (job_path(ctl->argv[i], tail, "", path, &err) < 0 || api_call(ctl, method, path, NULL, &reply, &err) < 0) {
      worst = ctl_fail(ctl, &err);
      if (worst == CTL_UNREACHABLE)
        return worst;
      continue;
    }
    char *job = text_cleaned(api_str(reply, "job"));
    if (ctl->output == CTL_JSON)
      ctl_print_json(ctl, reply);
    else
      printf("%s: %s\n", job ? job : "", json_is_false(json_object_get(reply, "changed")) ? "nothing to do, it is so already" : said);
    free(job);
    json_decref(reply);
  }
  return worst;
}

int cmd_job_stop(struct ctl *ctl) {
  return change(ctl, "POST", "/stop", "stopped; no more ticks until `orcactl job start` or a deploy");
}

int cmd_job_start(struct ctl *ctl) {
  return change(ctl, "POST", "/start", "runs by its schedule again");
}

int cmd_job_rm(struct ctl *ctl) {
  struct buf question = BUF_INIT(8192);
  buf_add_str(&question, "Remove");
  for (int i = 0; i < ctl->argc; i++)
    buf_printf(&question, "%s %s", i ? "," : "", ctl->argv[i]);
  buf_add_str(&question, ", with the history of runs?");
  int rc = ctl_confirm(ctl, buf_str(&question));
  buf_free(&question);
  return rc == CTL_OK ? change(ctl, "DELETE", "", "removed") : rc;
}
