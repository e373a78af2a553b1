#include <stdio.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/view.h"

/* Instances of one service; one that was removed between the two requests has none. */
static int add(struct ctl *ctl, const char *name, bool named, json_t *all, struct err *err) {
  char path[512];
  json_t *reply;
  if (api_service_path(name, "", "", path, err) < 0)
    return -1;
  if (api_call(ctl, "GET", path, NULL, &reply, err) < 0)
    return !named && err->code == ERR_NOT_FOUND ? 0 : -1;
  json_array_extend(all, json_object_get(reply, "instances"));
  json_decref(reply);
  return 0;
}

/* A service's or a job's, PROJECT/NAME or NAME; of the project that --project says. */
static int add_named(struct ctl *ctl, const char *name, json_t *all, struct err *err) {
  const char *project = ctl_value(ctl, "project");
  char full[200], path[512];
  json_t *reply;
  bool short_one = project && !strchr(name, '/');
  snprintf(full, sizeof full, "%.64s%s%.130s", short_one ? project : "", short_one ? "/" : "", name);
  if (add(ctl, full, true, all, err) == 0)
    return 0;
  if (err->code != ERR_NOT_FOUND || api_job_path(full, "", "", path, err) < 0)
    return -1;
  if (api_call(ctl, "GET", path, NULL, &reply, err) < 0)
    return err->code == ERR_NOT_FOUND ? err_set(err, ERR_NOT_FOUND, "service or job not found: %s", name) : -1;
  json_array_extend(all, json_object_get(reply, "instances"));
  json_decref(reply);
  return 0;
}

/* Of jobs, those that run. */
static int add_jobs(struct ctl *ctl, const char *project, json_t *all, struct err *err) {
  json_t *reply, *job, *one;
  size_t i;
  int rc = 0;
  if (api_call(ctl, "GET", "/api/v1/jobs", NULL, &reply, err) < 0)
    return -1;
  json_array_foreach(json_object_get(reply, "jobs"), i, job) {
    char path[512];
    if (!api_int(job, "running") || (project && strcmp(project, api_str(job, "project")) != 0) || rc < 0)
      continue;
    snprintf(path, sizeof path, "/api/v1/jobs/%.63s?project=%.63s", api_str(job, "name"), api_str(job, "project"));
    rc = api_call(ctl, "GET", path, NULL, &one, err);
    if (rc == 0) {
      json_array_extend(all, json_object_get(one, "instances"));
      json_decref(one);
    } else if (err->code == ERR_NOT_FOUND) {
      rc = 0;
    }
  }
  json_decref(reply);
  return rc;
}

static int add_all(struct ctl *ctl, const char *project, json_t *all, struct err *err) {
  json_t *reply, *s;
  size_t i;
  int rc = 0;
  if (api_call(ctl, "GET", "/api/v1/status", NULL, &reply, err) < 0)
    return -1;
  json_array_foreach(json_object_get(reply, "services"), i, s) {
    char name[160];
    if (project && strcmp(project, api_str(s, "project")) != 0)
      continue;
    snprintf(name, sizeof name, "%s/%s", api_str(s, "project"), api_str(s, "name"));
    if (rc == 0)
      rc = add(ctl, name, false, all, err);
  }
  json_decref(reply);
  return rc < 0 ? -1 : add_jobs(ctl, project, all, err);
}

int cmd_ps(struct ctl *ctl) {
  struct err err;
  json_t *all = json_array(), *one;
  size_t i;
  int rc = ctl->argc ? 0 : add_all(ctl, ctl_value(ctl, "project"), all, &err);
  for (int k = 0; rc == 0 && k < ctl->argc; k++)
    rc = add_named(ctl, ctl->argv[k], all, &err);
  if (rc < 0) {
    json_decref(all);
    return ctl_fail(ctl, &err);
  }
  if (ctl->output == CTL_JSON) {
    json_t *out = json_pack("{s:O}", "instances", all);
    ctl_print_json(ctl, out);
    json_decref(out);
  } else if (!json_array_size(all)) {
    printf("No instances.\n");
  } else {
    struct table t = {0};
    view_instance_columns(&t, ctl->output == CTL_WIDE);
    json_array_foreach(all, i, one) view_instance_row(&t, one, ctl->output == CTL_WIDE);
    view_print(ctl, &t);
    table_free(&t);
  }
  json_decref(all);
  return CTL_OK;
}
