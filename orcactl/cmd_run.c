#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/job_wait.h"

static json_t *variables(struct ctl *ctl, const char **ret_bad) {
  json_t *env = json_object();
  const char *one;
  for (size_t n = 0; (one = ctl_value_at(ctl, "env", n)); n++) {
    const char *equals = strchr(one, '=');
    char name[256];
    if (!equals || equals == one || (size_t)(equals - one) >= sizeof name) {
      *ret_bad = one;
      break;
    }
    snprintf(name, sizeof name, "%.*s", (int)(equals - one), one);
    json_object_set_new(env, name, json_string(equals + 1));
  }
  return env;
}

int cmd_run(struct ctl *ctl) {
  static const char *const plain[] = {"name", "memory", "project", "timeout"};
  const char *bad = NULL, *cpu = ctl_value(ctl, "cpu");
  json_t *body = json_pack("{s:s}", "image", ctl->argv[0]), *command = json_array(), *env = variables(ctl, &bad);
  char *end = NULL;
  int rc;
  for (int i = 1; i < ctl->argc; i++)
    json_array_append_new(command, json_string(ctl->argv[i]));
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (ctl_value(ctl, plain[i]))
      json_object_set_new(body, plain[i], json_string(ctl_value(ctl, plain[i])));
  if (cpu)
    json_object_set_new(body, "cpu", json_real(strtod(cpu, &end)));
  if (json_array_size(command))
    json_object_set(body, "command", command);
  if (json_object_size(env))
    json_object_set(body, "env", env);
  if (bad)
    rc = ctl_usage(ctl, "--env %s: want KEY=VALUE", bad);
  else if (cpu && (!*cpu || *end))
    rc = ctl_usage(ctl, "--cpu %s: want a number of cores, like 0.5", cpu);
  else if (!body || json_array_size(command) != (size_t)ctl->argc - 1)
    rc = ctl_usage(ctl, "the command's arguments must be UTF-8");
  else
    rc = ctl_flag(ctl, "detach") ? job_start(ctl, "/api/v1/tasks", body) : job_wait(ctl, "/api/v1/tasks", body);
  json_decref(command);
  json_decref(env);
  json_decref(body);
  return rc;
}
