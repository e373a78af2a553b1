#include "orcactl/complete.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/spec/spec.h"
#include "orcactl/api.h"
#include "orcactl/ctl.h"
#include "orcactl/names.h"

#define SECONDS 2
#define NAME_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

struct line {
  const struct ctl_command *command;  /* of the words so far; NULL: the verb is still to come */
  const struct ctl_option *value_of;  /* the last word is this option's value */
  int args;                           /* words that were arguments */
  const char *context, *first, *last; /* first: of the arguments */
};

static void offer(const struct line *line, const char *word, const char *what) {
  if (strncmp(word, line->last, strlen(line->last)) != 0)
    return;
  printf("%s\t%.*s\n", word, (int)strcspn(what, "\n"), what);
}

/* ---- reading the words ---- */

static const struct ctl_command *command_named(const char *group, const char *word) {
  char name[80];
  if ((size_t)snprintf(name, sizeof name, "%s%s%s", group ? group : "", group ? " " : "", word) >= sizeof name)
    return NULL;
  for (size_t i = 0; i < ctl_command_count; i++)
    if (strcmp(ctl_commands[i].name, name) == 0)
      return &ctl_commands[i];
  return NULL;
}

static bool is_below(const struct ctl_command *c, const char *group) {
  size_t len = strlen(group);
  return strncmp(c->name, group, len) == 0 && c->name[len] == ' ';
}

static const struct ctl_option *option_among(const struct ctl_option *list, size_t count, const char *word) {
  for (size_t i = 0; i < count && list[i].name; i++)
    if (word[1] == '-' ? strcmp(list[i].name, word + 2) == 0 : list[i].letter && list[i].letter == word[strlen(word) - 1])
      return &list[i];
  return NULL;
}

static const struct ctl_option *option_of(const struct line *line, const char *word) {
  const struct ctl_option *o = line->command ? option_among(line->command->options, CTL_OPTIONS_MAX, word) : NULL;
  return o ? o : option_among(ctl_globals, ctl_global_count, word);
}

static void read_word(struct line *line, const char *word) {
  if (line->value_of) {
    if (strcmp(line->value_of->name, "context") == 0)
      line->context = word;
    line->value_of = NULL;
  } else if (word[0] == '-' && word[1]) {
    const struct ctl_option *o = option_of(line, word);
    line->value_of = o && o->value ? o : NULL;
  } else {
    const struct ctl_command *sub = !line->command                                         ? command_named(NULL, word)
                                    : line->args == 0 && !strchr(line->command->name, ' ') ? command_named(line->command->name, word)
                                                                                           : NULL;
    if (sub)
      line->command = sub;
    else if (line->args++ == 0)
      line->first = word;
  }
}

/* ---- what may come ---- */

static void offer_options(const struct line *line) {
  const struct ctl_option *lists[] = {line->command ? line->command->options : NULL, ctl_globals};
  size_t counts[] = {line->command ? CTL_OPTIONS_MAX : 0, ctl_global_count};
  for (size_t k = 0; k < 2; k++)
    for (size_t i = 0; i < counts[k] && lists[k][i].name; i++) {
      char word[64];
      snprintf(word, sizeof word, "--%s", lists[k][i].name);
      offer(line, word, lists[k][i].help);
    }
}

static void offer_verbs(const struct line *line, const char *group) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    const struct ctl_command *c = &ctl_commands[i];
    if (group ? is_below(c, group) : !strchr(c->name, ' '))
      offer(line, group ? c->name + strlen(group) + 1 : c->name, c->summary);
  }
}

/* Only what is a name is printed: nothing of it can surprise a shell. */
static void offer_name(void *arg, const char *project, const char *name) {
  const struct line *line = arg;
  char full[160];
  if (strspn(name, NAME_LETTERS) != strlen(name))
    return;
  snprintf(full, sizeof full, "%s/%s", project, name);
  if (strchr(line->last, '/') && spec_name_valid(project))
    offer(line, full, "");
  else
    offer(line, name, spec_name_valid(project) ? project : "");
}

static void offer_names(struct line *line, const struct names_source *source) {
  struct ctl ctl = {.command = line->command, .context_name = line->context};
  struct err err;
  json_t *reply;
  alarm(SECONDS); /* ends this process: whoever types is not kept waiting */
  if (api_call(&ctl, "GET", source->path, NULL, &reply, &err) == 0) {
    names_each(source, reply, offer_name, line);
    json_decref(reply);
  }
  alarm(0);
  api_end(&ctl);
}

static void offer_contexts(const struct line *line) {
  struct err err;
  json_t *all = context_all(&err), *one;
  const char *name;
  if (!all)
    return;
  json_object_foreach(json_object_get(all, "contexts"), name, one) {
    if (spec_name_valid(name))
      offer(line, name, api_str(one, "url"));
  }
  json_decref(all);
}

/* The word of `args` that the next argument stands for: "NAME N" at 1 is "N"; the last one repeats when it ends in dots. */
static size_t arg_at(const char *args, int at, const char **ret) {
  const char *p = args;
  size_t len = strcspn(p, " ");
  while (at-- > 0 && p[len] == ' ') {
    p += len + 1;
    len = strcspn(p, " ");
    if (at >= 0 && !p[len] && !(len > 3 && strstr(p, "...")))
      return 0;
  }
  while (len && (*p == '[' || *p == '<'))
    p++, len--;
  *ret = p;
  return strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static void offer_arguments(struct line *line) {
  const struct ctl_command *c = line->command;
  const char *arg = "";
  size_t len = c->max_args >= 0 && line->args >= c->max_args ? 0 : arg_at(c->args, line->args, &arg);
  if (len == 4 && strncmp(arg, "NAME", len) == 0) {
    if (names_source(c))
      offer_names(line, names_source(c));
    else if (is_below(c, "context"))
      offer_contexts(line);
  } else if (len == 4 && strncmp(arg, "VERB", len) == 0) {
    offer_verbs(line, line->args ? line->first : NULL);
  } else if (len == 4 && strncmp(arg, "FILE", len) == 0) {
    printf(":files\n");
  } else if (len == 5 && strncmp(arg, "SHELL", len) == 0) {
    offer(line, "bash", "shell");
    offer(line, "fish", "shell");
    offer(line, "zsh", "shell");
  }
}

static void offer_value(const struct line *line) {
  static const struct {
    const char *command, *value, *words[4]; /* command NULL: any */
  } known[] = {{NULL, "FORMAT", {"table", "wide", "json", NULL}},
               {"install-service", "ROLE", {"master", "worker", NULL}},
               {"token create", "ROLE", {"admin", "deployer", "viewer", NULL}},
               {"top", "BY", {"cpu", "memory", "requests", NULL}}};
  const char *value = line->value_of->value, *command = line->command ? line->command->name : "";
  if (strcmp(line->value_of->name, "context") == 0)
    offer_contexts(line);
  else if (strcmp(value, "DIR") == 0 || strcmp(value, "FILE") == 0 || strcmp(value, "SOCKET") == 0)
    printf(":files\n");
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(value, known[i].value) == 0 && (!known[i].command || strcmp(command, known[i].command) == 0))
      for (size_t k = 0; known[i].words[k]; k++)
        offer(line, known[i].words[k], line->value_of->name);
}

int complete_print(int argc, char **argv) {
  struct line line = {.last = argc ? argv[argc - 1] : ""};
  int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (quiet >= 0)
    dup2(quiet, STDERR_FILENO);
  bool words_only = false;
  for (int i = 0; i + 1 < argc; i++)
    if (words_only || strcmp(argv[i], "--") != 0)
      read_word(&line, argv[i]);
    else
      words_only = true;
  if (words_only || (line.command && line.args > 1 && strstr(line.command->args, "COMMAND")))
    printf(":files\n"); /* of the command that follows */
  else if (line.value_of)
    offer_value(&line);
  else if (line.last[0] == '-')
    offer_options(&line);
  else if (!line.command && line.args == 0)
    offer_verbs(&line, NULL);
  else if (line.command) {
    if (line.args == 0 && !strchr(line.command->name, ' '))
      offer_verbs(&line, line.command->name);
    if (line.command->run)
      offer_arguments(&line);
  }
  return CTL_OK;
}
