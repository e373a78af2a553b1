#include "orcactl/ctl.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orcactl/api.h"
#include "orcactl/complete.h"
#include "orcactl/manual.h"
#include "orcactl/names.h"
#include "orcactl/text.h"

/* Good before and after the verb. */
const struct ctl_option ctl_globals[] = {
    {"context", 0, "NAME", "the cluster to talk to; else $ORCA_CONTEXT, else the current one"},
    {"directory", 'C', "DIR", "the infra directory; else $ORCA_DIR, else the nearest parent with a cluster.toml"},
    {"output", 'o', "FORMAT", "table, wide or json"},
    {"yes", 'y', NULL, "don't ask before destroying something"},
    {"help", 'h', NULL, "what a verb does"},
};
#define GLOBAL_COUNT (sizeof ctl_globals / sizeof *ctl_globals)
const size_t ctl_global_count = GLOBAL_COUNT;

/* ---- help ---- */

#define LEFT 27 /* columns of what stands before its explanation */

static unsigned help_width(const struct ctl *ctl) {
  return !ctl->width || ctl->width > 100 ? 100 : ctl->width < 40 ? 40 : ctl->width;
}

static void print_text(const struct ctl *ctl, const char *text) {
  struct buf b = BUF_INIT((size_t)1 << 16);
  text_wrap(text, 0, 0, help_width(ctl), &b);
  puts(buf_str(&b));
  buf_free(&b);
}

static void print_pair(const struct ctl *ctl, const char *left, const char *right) {
  struct buf b = BUF_INIT((size_t)1 << 16);
  if (strlen(left) > LEFT)
    buf_printf(&b, "  %s\n%*s", left, LEFT + 3, "");
  else
    buf_printf(&b, "  %-*s ", LEFT, left);
  text_wrap(right, LEFT + 3, LEFT + 3, help_width(ctl), &b);
  puts(buf_str(&b));
  buf_free(&b);
}

static void print_option(const struct ctl *ctl, const struct ctl_option *o) {
  char left[64];
  snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
           o->value ? " " : "", o->value ? o->value : "");
  print_pair(ctl, left, o->help);
}

static void print_globals(const struct ctl *ctl) {
  printf("\nEverywhere:\n");
  for (size_t i = 0; i < GLOBAL_COUNT; i++)
    print_option(ctl, &ctl_globals[i]);
}

/* What follows the group's word in a verb of two words; NULL: not one of the group's. */
static const char *sub_verb(const struct ctl_command *c, const char *group) {
  size_t len = strlen(group);
  return strncmp(c->name, group, len) == 0 && c->name[len] == ' ' ? c->name + len + 1 : NULL;
}

static void print_command(const struct ctl *ctl, const struct ctl_command *c) {
  char left[60];
  snprintf(left, sizeof left, "%s%s%s", c->name, *c->args ? " " : "", c->args);
  print_pair(ctl, left, c->summary);
}

/* "list, run, history" */
static void list_subs(const char *group, struct buf *to) {
  const char *comma = "", *sub;
  for (size_t i = 0; i < ctl_command_count; i++)
    if ((sub = sub_verb(&ctl_commands[i], group))) {
      buf_printf(to, "%s%s", comma, sub);
      comma = ", ";
    }
}

/* "  secrets VERB         sealed values: set, list, rm" */
static void print_group(const struct ctl *ctl, const struct ctl_command *head) {
  struct buf b = BUF_INIT((size_t)1 << 16);
  buf_printf(&b, "%s: ", head->summary);
  list_subs(head->name, &b);
  print_pair(ctl, head->name, buf_str(&b));
  buf_free(&b);
}

/* "orcactl scale [options] NAME N" */
static void print_usage(const struct ctl_command *c, FILE *to) {
  fprintf(to, "orcactl %s%s%s%s", c->name, c->options[0].name || !c->run ? " [options]" : "", *c->args ? " " : "", c->args);
}

static void help_group(const struct ctl *ctl, const struct ctl_command *head) {
  print_usage(head, stdout);
  printf("\n\n");
  print_text(ctl, head->summary);
  if (head->details) {
    printf("\n");
    print_text(ctl, head->details);
  }
  printf("\n");
  for (size_t i = 0; i < ctl_command_count; i++)
    if (sub_verb(&ctl_commands[i], head->name))
      print_command(ctl, &ctl_commands[i]);
  print_globals(ctl);
  printf("\n`orcactl %s VERB --help` says more.\n", head->name);
}

static bool is_grouped(const struct ctl_command *c) {
  for (size_t i = 0; i < ctl_command_count; i++)
    if (!ctl_commands[i].run && sub_verb(c, ctl_commands[i].name))
      return true;
  return false;
}

/* In the order in which they are looked for. */
static const struct {
  const char *title, *verbs;
} sections[] = {
    {"Is all well, and if not, why", "status ps explain logs events top doctor"},
    {"What should run", "plan deploy history rollback scale restart redeploy stop start rm inspect"},
    {"A command, a job", "exec run job"},
    {"Secrets and access", "secrets token audit login context"},
    {"Machines, and orcactl itself", "nodes init install-service version completion help"},
};

static bool has_word(const char *words, const char *word) {
  size_t len = strlen(word);
  for (const char *at = words; (at = strstr(at, word)); at += len)
    if ((at == words || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
      return true;
  return false;
}

static void print_section(const struct ctl *ctl, const char *title, const char *verbs) {
  bool headed = false;
  for (size_t i = 0; i < ctl_command_count; i++) {
    const struct ctl_command *c = &ctl_commands[i];
    bool elsewhere = false;
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++)
      elsewhere |= has_word(sections[k].verbs, c->name);
    if (is_grouped(c) || (verbs ? !has_word(verbs, c->name) : elsewhere))
      continue;
    if (!headed)
      printf("\n%s:\n", title);
    headed = true;
    if (c->run)
      print_command(ctl, c);
    else
      print_group(ctl, c);
  }
}

static void help_all(const struct ctl *ctl) {
  printf("orcactl VERB [NAME...] [options]\n");
  for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
    print_section(ctl, sections[i].title, sections[i].verbs);
  print_section(ctl, "Also", NULL);
  print_globals(ctl);
  printf("\n");
  print_text(ctl, "NAME is a service's name, or PROJECT/NAME where several projects have one. `orcactl VERB --help` says more.");
  print_text(ctl, "Exit codes: 0 done, 1 failed, 2 usage, 3 not reachable, 4 not allowed.");
}

static void help_one(const struct ctl *ctl, const struct ctl_command *c) {
  if (!c->run) {
    help_group(ctl, c);
    return;
  }
  print_usage(c, stdout);
  printf("\n\n");
  print_text(ctl, c->summary);
  if (c->details) {
    printf("\n");
    print_text(ctl, c->details);
  }
  if (c->options[0].name)
    printf("\n");
  for (size_t i = 0; i < CTL_OPTIONS_MAX && c->options[i].name; i++)
    print_option(ctl, &c->options[i]);
  print_globals(ctl);
}

/* ---- complaints ---- */

static void complain(const struct ctl *ctl, const char *text) {
  struct buf b = BUF_INIT((size_t)1 << 20);
  text_clean(text, &b);
  fprintf(stderr, "%sorcactl: %s%s\n", ctl->complain_color ? "\033[31m" : "", buf_str(&b), ctl->complain_color ? "\033[0m" : "");
  buf_free(&b);
}

int ctl_usage(struct ctl *ctl, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  complain(ctl, text);
  if (ctl->command) {
    fprintf(stderr, "Usage: ");
    print_usage(ctl->command, stderr);
    fprintf(stderr, "; `orcactl %s --help` says more.\n", ctl->command->name);
  } else {
    fprintf(stderr, "`orcactl --help` lists the verbs.\n");
  }
  return CTL_USAGE;
}

static void print_details(const json_t *details) {
  size_t i;
  json_t *one;
  json_array_foreach(details, i, one) {
    struct buf b = BUF_INIT((size_t)1 << 20);
    text_clean(api_str(one, "path"), &b);
    if (b.len)
      buf_add_str(&b, ": ");
    text_clean(api_str(one, "message"), &b);
    fprintf(stderr, "  %s\n", buf_str(&b));
    buf_free(&b);
  }
}

int ctl_fail(struct ctl *ctl, const struct err *err) {
  complain(ctl, err->msg);
  if (json_array_size(ctl->details) > 1)
    print_details(ctl->details);
  switch (err->code) {
  case ERR_UNAUTHENTICATED:
    fprintf(stderr, "That is the token of context %s (%s). Another cluster: `orcactl context list`; a new token: `orcactl login`.\n",
            ctl->context.name, ctl->context.url);
    return CTL_DENIED;
  case ERR_DENIED:
    return CTL_DENIED;
  case ERR_NOT_FOUND:
    names_suggest(ctl, err);
    return CTL_FAILED;
  case ERR_UNAVAILABLE:
  case ERR_NO_LEADER:
    if (ctl->command && strcmp(ctl->command->name, "login") == 0)
      return CTL_UNREACHABLE; /* says itself what to look at */
    if (ctl->unreachable)
      fprintf(stderr, "Is the cluster running? On its master: `systemctl status orca-apiserver`. Another cluster: --context NAME.\n");
    else
      fprintf(stderr, "What runs goes on running; try again in a moment.\n");
    return CTL_UNREACHABLE;
  default:
    return CTL_FAILED;
  }
}

int ctl_confirm(struct ctl *ctl, const char *question) {
  if (ctl->yes)
    return CTL_OK;
  if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
    return ctl_usage(ctl, "%s This needs --yes where nobody can be asked.", question);
  struct buf b = BUF_INIT((size_t)1 << 20);
  text_clean(question, &b);
  fprintf(stderr, "%s [y/N] ", buf_str(&b));
  buf_free(&b);
  char answer[16] = "";
  if (fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
    return CTL_OK;
  fprintf(stderr, "Nothing was done.\n");
  return CTL_FAILED;
}

/* ---- the arguments ---- */

/* Optimal string alignment: one for an insertion, a deletion, another letter, or two neighbours swapped. */
static unsigned distance(const char *a, const char *b) {
  size_t la = strlen(a), lb = strlen(b);
  enum { MAX = 63 };
  if (la > MAX || lb > MAX)
    return MAX;
  unsigned rows[3][MAX + 1];
  for (size_t j = 0; j <= lb; j++)
    rows[0][j] = (unsigned)j;
  for (size_t i = 1; i <= la; i++) {
    unsigned *now = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
    now[0] = (unsigned)i;
    for (size_t j = 1; j <= lb; j++) {
      unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
      if (above[j] + 1 < best)
        best = above[j] + 1;
      if (now[j - 1] + 1 < best)
        best = now[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
        best = before[j - 2] + 1;
      now[j] = best;
    }
  }
  return rows[la % 3][lb];
}

const char *ctl_nearest(const char *text, const char *(*name)(const void *list, size_t i), const void *list) {
  const char *best = NULL, *one;
  unsigned least = ((unsigned)strlen(text) + 2) / 3 + 1; /* of three letters one may be another, of four two */
  for (size_t i = 0; (one = name(list, i)); i++) {
    unsigned d = distance(text, one);
    if (d < least && d < strlen(text)) {
      least = d;
      best = one;
    }
  }
  return best;
}

static const char *verb_name(const void *list, size_t i) {
  (void)list;
  for (size_t k = 0; k < ctl_command_count; k++)
    if (!strchr(ctl_commands[k].name, ' ') && i-- == 0)
      return ctl_commands[k].name;
  return NULL;
}

/* By its one word: `orcactl "secrets set"` is no verb. */
static const struct ctl_command *find_command(const char *name) {
  for (size_t i = 0; i < ctl_command_count; i++)
    if (strcmp(ctl_commands[i].name, name) == 0 && !strchr(name, ' '))
      return &ctl_commands[i];
  return NULL;
}

/* The options that are good here: the command's, then the global ones. */
static const struct ctl_option *option_at(const struct ctl *ctl, size_t i) {
  size_t own = 0;
  while (ctl->command && own < CTL_OPTIONS_MAX && ctl->command->options[own].name)
    own++;
  if (i < own)
    return &ctl->command->options[i];
  return i - own < GLOBAL_COUNT ? &ctl_globals[i - own] : NULL;
}

static const char *option_name(const void *list, size_t i) {
  const struct ctl_option *o = option_at(list, i);
  return o ? o->name : NULL;
}

static int set_output(struct ctl *ctl, const char *value) {
  if (strcmp(value, "table") == 0)
    ctl->output = CTL_TABLE;
  else if (strcmp(value, "wide") == 0)
    ctl->output = CTL_WIDE;
  else if (strcmp(value, "json") == 0)
    ctl->output = CTL_JSON;
  else
    return ctl_usage(ctl, "-o %s: want table, wide or json", value);
  return CTL_OK;
}

static int set_option(struct ctl *ctl, const struct ctl_option *o, const char *value, bool *help) {
  if (ctl->command && o >= ctl->command->options && o < ctl->command->options + CTL_OPTIONS_MAX) {
    ctl->values[o - ctl->command->options] = value;
    if (ctl->given_count == CTL_GIVEN_MAX)
      return ctl_usage(ctl, "too many options");
    ctl->given[ctl->given_count].option = o;
    ctl->given[ctl->given_count++].value = value;
    return CTL_OK;
  }
  switch (o - ctl_globals) {
  case 0:
    ctl->context_name = value;
    break;
  case 1:
    ctl->dir = value;
    break;
  case 2:
    return set_output(ctl, value);
  case 3:
    ctl->yes = true;
    break;
  default:
    *help = true;
  }
  return CTL_OK;
}

static int parse_long(struct ctl *ctl, int argc, char **argv, int *at, bool *help) {
  const char *text = argv[*at] + 2, *equals = strchr(text, '=');
  size_t len = equals ? (size_t)(equals - text) : strlen(text);
  const struct ctl_option *o;
  for (size_t i = 0; (o = option_at(ctl, i)); i++)
    if (strlen(o->name) == len && strncmp(o->name, text, len) == 0)
      break;
  if (!o) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)len, text);
    const char *near = ctl_nearest(name, option_name, ctl);
    return near ? ctl_usage(ctl, "unknown option --%s: did you mean --%s?", name, near) : ctl_usage(ctl, "unknown option --%s", name);
  }
  const char *value = "";
  if (o->value && equals)
    value = equals + 1;
  else if (o->value && *at + 1 < argc)
    value = argv[++*at];
  else if (o->value)
    return ctl_usage(ctl, "--%s needs a value: --%s %s", o->name, o->name, o->value);
  else if (equals)
    return ctl_usage(ctl, "--%s takes no value", o->name);
  return set_option(ctl, o, value, help);
}

/* -f, -wf, -C DIR, -ojson */
static int parse_short(struct ctl *ctl, int argc, char **argv, int *at, bool *help) {
  for (const char *p = argv[*at] + 1; *p; p++) {
    const struct ctl_option *o;
    for (size_t i = 0; (o = option_at(ctl, i)); i++)
      if (o->letter == *p)
        break;
    if (!o)
      return ctl_usage(ctl, "unknown option -%c", *p);
    if (!o->value) {
      if (set_option(ctl, o, "", help) != CTL_OK)
        return CTL_USAGE;
      continue;
    }
    if (!p[1] && *at + 1 >= argc)
      return ctl_usage(ctl, "-%c needs a value: -%c %s", *p, *p, o->value);
    return set_option(ctl, o, p[1] ? p + 1 : argv[++*at], help);
  }
  return CTL_OK;
}

static const char *sub_name(const void *group, size_t i) {
  const char *sub;
  for (size_t k = 0; k < ctl_command_count; k++)
    if ((sub = sub_verb(&ctl_commands[k], group)) && i-- == 0)
      return sub;
  return NULL;
}

static const struct ctl_command *find_sub(const char *group, const char *word) {
  const char *sub;
  for (size_t i = 0; i < ctl_command_count; i++)
    if ((sub = sub_verb(&ctl_commands[i], group)) && strcmp(sub, word) == 0)
      return &ctl_commands[i];
  return NULL;
}

static int unknown_sub(struct ctl *ctl, const char *group, const char *word) {
  const char *near = ctl_nearest(word, sub_name, group);
  if (near)
    return ctl_usage(ctl, "unknown verb `%s %s`: did you mean `%s %s`?", group, word, group, near);
  struct buf subs = BUF_INIT((size_t)1 << 16);
  list_subs(group, &subs);
  int rc = subs.len ? ctl_usage(ctl, "unknown verb `%s %s`: want one of %s", group, word, buf_str(&subs))
                    : ctl_usage(ctl, "`%s` has no verbs of its own: %s", group, word);
  buf_free(&subs);
  return rc;
}

static int parse_word(struct ctl *ctl, char *word) {
  const char *group = ctl->group;
  ctl->group = NULL;
  if (group && ctl->command) {
    const struct ctl_command *sub = find_sub(group, word);
    if (sub) {
      ctl->command = sub;
      return CTL_OK;
    }
    if (!ctl->command->run)
      return unknown_sub(ctl, group, word);
  }
  if (ctl->command) {
    ctl->argv[ctl->argc++] = word;
    return CTL_OK;
  }
  ctl->command = find_command(word);
  if (ctl->command) {
    ctl->group = sub_name(ctl->command->name, 0) ? ctl->command->name : NULL;
    return CTL_OK;
  }
  const char *near = ctl_nearest(word, verb_name, NULL);
  return near ? ctl_usage(ctl, "unknown verb `%s`: did you mean `%s`?", word, near) : ctl_usage(ctl, "unknown verb `%s`", word);
}

/* `orcactl exec api ls -l`: from the first word of a COMMAND on, all is its own. */
static bool in_its_command(const struct ctl *ctl) {
  return ctl->command && ctl->argc > 1 && strstr(ctl->command->args, "COMMAND");
}

int ctl_parse(struct ctl *ctl, int argc, char **argv, bool *ret_stop) {
  bool help = false, words_only = false;
  static char version[] = "version";
  *ret_stop = true;
  ctl->argv = argv + 1; /* words are written where words, or what came before them, were read */
  for (int i = 1; i < argc; i++) {
    int rc;
    if (words_only || in_its_command(ctl) || argv[i][0] != '-' || !argv[i][1])
      rc = parse_word(ctl, argv[i]);
    else if (strcmp(argv[i], "--") == 0)
      words_only = true, rc = CTL_OK;
    else if (strcmp(argv[i], "--version") == 0 && !ctl->command)
      rc = parse_word(ctl, version);
    else if (argv[i][1] == '-')
      rc = parse_long(ctl, argc, argv, &i, &help);
    else
      rc = parse_short(ctl, argc, argv, &i, &help);
    if (rc != CTL_OK)
      return rc;
  }
  if (help || !ctl->command) {
    if (ctl->command)
      help_one(ctl, ctl->command);
    else
      help_all(ctl);
    return help ? CTL_OK : CTL_USAGE;
  }
  if (!ctl->command->run) {
    help_group(ctl, ctl->command);
    return CTL_USAGE;
  }
  if (ctl->argc < ctl->command->min_args)
    return ctl_usage(ctl, "`%s` needs %s", ctl->command->name, ctl->command->args);
  if (ctl->command->max_args >= 0 && ctl->argc > ctl->command->max_args)
    return ctl_usage(ctl, "`%s` has one argument too many: %s", ctl->command->name, ctl->argv[ctl->command->max_args]);
  *ret_stop = false;
  return CTL_OK;
}

const char *ctl_value(const struct ctl *ctl, const char *option) {
  for (size_t i = 0; i < CTL_OPTIONS_MAX && ctl->command->options[i].name; i++)
    if (strcmp(ctl->command->options[i].name, option) == 0)
      return ctl->values[i];
  return NULL;
}

const char *ctl_value_at(const struct ctl *ctl, const char *option, size_t n) {
  for (size_t i = 0; i < ctl->given_count; i++)
    if (strcmp(ctl->given[i].option->name, option) == 0 && n-- == 0)
      return ctl->given[i].value;
  return NULL;
}

bool ctl_flag(const struct ctl *ctl, const char *option) {
  return ctl_value(ctl, option) != NULL;
}

int cmd_help(struct ctl *ctl) {
  const struct ctl_command *c = ctl->argc ? find_command(ctl->argv[0]) : NULL;
  if (c && ctl->argc > 1) {
    const struct ctl_command *sub = find_sub(c->name, ctl->argv[1]);
    if (!sub)
      return unknown_sub(ctl, c->name, ctl->argv[1]);
    c = sub;
  }
  if (ctl->argc && !c) {
    const char *near = ctl_nearest(ctl->argv[0], verb_name, NULL);
    return near ? ctl_usage(ctl, "unknown verb `%s`: did you mean `%s`?", ctl->argv[0], near) : ctl_usage(ctl, "unknown verb `%s`", ctl->argv[0]);
  }
  if (c)
    help_one(ctl, c);
  else
    help_all(ctl);
  return CTL_OK;
}

/* ---- what commands share ---- */

/* A folder that is there, without that in it. */
static bool is_empty_of(const char *dir, const char *name) {
  char path[PATH_MAX];
  int len = snprintf(path, sizeof path, "%s/%s", dir, name);
  return access(dir, X_OK) == 0 && len > 0 && (size_t)len < sizeof path && access(path, F_OK) < 0 && errno == ENOENT;
}

char *ctl_infra_dir(struct ctl *ctl, struct err *err) {
  const char *env = getenv("ORCA_DIR");
  char *dir = ctl->dir ? strdup(ctl->dir) : env && *env ? strdup(env) : NULL, *cwd = NULL;
  if (!dir && !ctl->dir && !(env && *env)) {
    cwd = getcwd(NULL, 0);
    dir = cwd ? spec_find_infra(cwd) : NULL;
    free(cwd);
    if (!dir)
      err_set(err, ERR_NOT_FOUND, "no cluster.toml in this folder or above it: name the infra directory with -C DIR or $ORCA_DIR");
  } else if (!dir) {
    err_set(err, ERR_MEMORY, "no memory");
  } else if (is_empty_of(dir, "cluster.toml") && is_empty_of(dir, "services")) {
    err_set(err, ERR_NOT_FOUND, "%s is no infra directory: it has neither cluster.toml nor services/", dir);
    free(dir);
    return NULL;
  }
  return dir;
}

/* On a terminal everything beyond ASCII is escaped: C1 controls and marks of direction are beyond it; and DEL, which JSON leaves as it is. */
static int print_json(const struct ctl *ctl, const json_t *json, size_t form) {
  char *text = json_dumps(json, form | (ctl->tty ? JSON_ENSURE_ASCII : 0));
  if (!text)
    return CTL_FAILED;
  const char *rest = text;
  for (char *del; ctl->tty && (del = strchr(rest, 0x7f)); rest = del + 1)
    printf("%.*s\\u007F", (int)(del - rest), rest);
  puts(rest);
  free(text);
  return CTL_OK;
}

int ctl_print_json_line(const struct ctl *ctl, const json_t *json) {
  return print_json(ctl, json, JSON_COMPACT);
}

int ctl_print_json(struct ctl *ctl, const json_t *json) {
  return print_json(ctl, json, JSON_INDENT(2));
}

void ctl_print_done(struct ctl *ctl, const char *key, json_t *what) {
  json_t *out = json_pack("{s:o}", key, what);
  if (ctl->output == CTL_JSON)
    ctl_print_json(ctl, out);
  json_decref(out);
}

bool ctl_unread(void) {
  struct pollfd out = {.fd = STDOUT_FILENO}; /* errors and hang-ups are told unasked */
  return ferror(stdout) || poll(&out, 1, 0) > 0;
}

static char told_on_interrupt[400];

static void on_interrupt(int signo) {
  if (write(STDERR_FILENO, told_on_interrupt, strlen(told_on_interrupt)) < 0)
    _exit(CTL_FAILED);
  raise(signo); /* SA_RESETHAND: it ends this time */
}

void ctl_tell_on_interrupt(const char *fmt, ...) {
  struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
  va_list ap;
  if (told_on_interrupt[0])
    return;
  char raw[300];
  va_start(ap, fmt);
  vsnprintf(raw, sizeof raw, fmt, ap);
  va_end(ap);
  struct buf text = BUF_INIT(sizeof told_on_interrupt);
  text_clean(raw, &text);
  snprintf(told_on_interrupt, sizeof told_on_interrupt, "\norcactl: %s\n", buf_str(&text));
  buf_free(&text);
  sigaction(SIGINT, &act, NULL);
}

int ctl_main(int argc, char **argv) {
  struct ctl ctl = {0};
  const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
  bool dumb = term && strcmp(term, "dumb") == 0, may_color = !(no_color && *no_color) && !dumb;
  struct winsize size;
  signal(SIGPIPE, SIG_IGN); /* `orcactl events -f | head` ends by a failed write */
  crypto_private_process(); /* a token, and values of secrets */
  text_init();
  if (argc == 2 && strcmp(argv[1], "--man") == 0)
    return manual_print();
  if (argc > 1 && strcmp(argv[1], "--complete") == 0)
    return complete_print(argc - 2, argv + 2);
  ctl.tty = isatty(STDOUT_FILENO);
  ctl.live = ctl.tty && !dumb;
  ctl.color = ctl.tty && may_color;
  ctl.complain_color = isatty(STDERR_FILENO) && may_color;
  if (ctl.tty)
    ctl.width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
  bool stop;
  int rc = ctl_parse(&ctl, argc, argv, &stop);
  if (!stop)
    rc = ctl.command->run(&ctl);
  api_end(&ctl);
  if (fflush(stdout) != 0 && rc == CTL_OK)
    rc = CTL_FAILED;
  return rc;
}
