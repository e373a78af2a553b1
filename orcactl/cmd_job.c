/* job list, run, history, stop, start, rm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/job_view.h"
#include "orcactl/job_wait.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

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
  job_columns(&t);
  json_array_foreach(json_object_get(reply, "jobs"), i, job) {
    if ((project && strcmp(project, api_str(job, "project")) != 0) || (json_is_true(json_object_get(job, "task")) && !ctl_flag(ctl, "tasks")))
      continue;
    job_row(&t, job);
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
  if (api_job_path(ctl->argv[0], "/run", "", path, &err) < 0)
    return ctl_fail(ctl, &err);
  return ctl_flag(ctl, "no-wait") ? job_start(ctl, path, NULL) : job_wait(ctl, path, NULL);
}

int cmd_job_history(struct ctl *ctl) {
  char path[512];
  struct err err;
  json_t *reply, *run;
  size_t i;
  if (api_job_path(ctl->argv[0], "", "", path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  const json_t *runs = json_object_get(json_object_get(reply, "job"), "runs");
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else if (!json_array_size(runs)) {
    printf("It has not run yet.\n");
  } else {
    struct table t = {0};
    job_run_columns(&t);
    json_array_foreach(runs, i, run) job_run_row(&t, run);
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
    if (api_job_path(ctl->argv[i], tail, "", path, &err) < 0 || api_call(ctl, method, path, NULL, &reply, &err) < 0) {
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
