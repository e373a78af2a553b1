#include "orcactl/names.h"

#include <stdio.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/text.h"

const struct names_source *names_source(const struct ctl_command *c) {
  static const struct names_source services = {"/api/v1/status", {"services", NULL}, "orcactl status"},
                                   both = {"/api/v1/status", {"services", "jobs", NULL}, "orcactl status"},
                                   jobs = {"/api/v1/jobs", {"jobs", NULL}, "orcactl job list"},
                                   secrets = {"/api/v1/secrets", {"secrets", NULL}, "orcactl secrets list"},
                                   tokens = {"/api/v1/tokens", {"tokens", NULL}, "orcactl token list"};
  static const struct {
    const char *verb;
    const struct names_source *source;
  } of[] = {{"ps", &both},         {"inspect", &both}, {"explain", &both}, {"logs", &both},  {"exec", &both},
            {"secrets", &secrets}, {"job", &jobs},     {"token", &tokens}, {"context", NULL}};
  if (strncmp(c->args, "NAME", 4) != 0 && strncmp(c->args, "[NAME", 5) != 0)
    return NULL;
  size_t len = strcspn(c->name, " ");
  for (size_t i = 0; i < sizeof of / sizeof *of; i++)
    if (strncmp(of[i].verb, c->name, len) == 0 && !of[i].verb[len])
      return of[i].source;
  return &services;
}

void names_each(const struct names_source *source, const json_t *reply, void (*take)(void *arg, const char *project, const char *name), void *arg) {
  size_t i;
  json_t *one;
  for (size_t k = 0; source->lists[k]; k++)
    json_array_foreach(json_object_get(reply, source->lists[k]), i, one) {
      const char *name = json_string_value(one) ? json_string_value(one) : api_str(one, "name");
      if (*name)
        take(arg, api_str(one, "project"), name);
    }
}

/* ---- did you mean ---- */

struct asked {
  json_t *names; /* as the one that was asked for is written: NAME or PROJECT/NAME */
  bool with_project;
};

static void keep(void *arg, const char *project, const char *name) {
  struct asked *asked = arg;
  char text[160];
  snprintf(text, sizeof text, asked->with_project ? "%s/%s" : "%s%s", asked->with_project ? project : "", name);
  json_array_append_new(asked->names, json_string(text));
}

static const char *name_at(const void *list, size_t i) {
  return json_string_value(json_array_get(list, i));
}

/* Which of the arguments the message names at its end: "service not found: shop/wbe". */
static const char *argument_of(const struct ctl *ctl, const char *message) {
  const char *colon = strrchr(message, ':');
  for (int i = 0; colon && i < ctl->argc; i++)
    if (strcmp(colon + 1 + (colon[1] == ' '), ctl->argv[i]) == 0)
      return ctl->argv[i];
  return NULL;
}

void names_suggest(struct ctl *ctl, const struct err *err) {
  const struct names_source *source = ctl->command ? names_source(ctl->command) : NULL;
  const char *asked_for = source ? argument_of(ctl, err->msg) : NULL;
  struct err other;
  json_t *reply;
  if (!asked_for || api_call(ctl, "GET", source->path, NULL, &reply, &other) < 0)
    return;
  struct asked asked = {json_array(), strchr(asked_for, '/') != NULL};
  names_each(source, reply, keep, &asked);
  const char *near = ctl_nearest(asked_for, name_at, asked.names);
  struct buf b = BUF_INIT((size_t)1 << 16);
  if (near) {
    buf_add_str(&b, "Did you mean ");
    text_clean(near, &b);
    buf_add_str(&b, "? ");
  }
  fprintf(stderr, "%s`%s` lists what there is.\n", buf_str(&b), source->verb);
  buf_free(&b);
  json_decref(asked.names);
  json_decref(reply);
}
