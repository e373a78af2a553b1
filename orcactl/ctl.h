/* orcactl's frame: the command table, what every command gets, how it ends.
 *
 * commands.c holds the one table: verb, arguments, options, help, handler; parsing, --help and "did you mean" are made from it. A handler
 * prints its result to stdout, complains through ctl_fail() and returns an exit code.
 * A verb of two words ("secrets set") is an entry of that name; an entry without a handler ("secrets") heads the verbs that begin with its word:
 * alone, or with --help, it lists them. The longest name wins, so that "job" can be a verb beside "job run".
 * Threads: none. */
#ifndef ORCA_ORCACTL_CTL_H
#define ORCA_ORCACTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "orcactl/context.h"

enum ctl_exit { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_UNREACHABLE = 3, CTL_DENIED = 4 };
enum ctl_output { CTL_TABLE, CTL_WIDE, CTL_JSON };

#define CTL_OPTIONS_MAX 20
#define CTL_GIVEN_MAX 128

struct ctl;

struct ctl_option {
  const char *name;  /* "watch" */
  char letter;       /* 0: none */
  const char *value; /* "SECONDS"; NULL: a flag */
  const char *help;
};
struct ctl_command {
  const char *name, *args;       /* "scale", "NAME N"; "secrets set", "NAME [VALUE]" */
  int min_args, max_args;        /* -1: any number */
  int (*run)(struct ctl *ctl);   /* NULL: heads a group of verbs */
  const char *summary, *details; /* details may be NULL */
  struct ctl_option options[CTL_OPTIONS_MAX];
};
extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;
extern const struct ctl_option ctl_globals[]; /* good with every command */
extern const size_t ctl_global_count;

struct ctl {
  const struct ctl_command *command;
  const char *group;                   /* the first word of a verb of two, until the second is read */
  int argc;                            /* what is neither a verb nor an option, and all that follows "--" */
  char **argv;                         /* in main()'s own array, moved to its front */
  const char *values[CTL_OPTIONS_MAX]; /* the last one of each */
  struct {                             /* all of them, in their order */
    const struct ctl_option *option;
    const char *value;
  } given[CTL_GIVEN_MAX];
  size_t given_count;
  const char *context_name, *dir;
  enum ctl_output output;
  bool yes;
  bool tty, live, color; /* of stdout; live: the cursor can be moved */
  bool complain_color;
  unsigned width; /* of the terminal; 0: not one, nothing is cut */
  struct context context;
  bool has_context, unreachable;
  json_t *details; /* of the last refused request: [{"path", "message"}] */
  void *curl;
  struct err stranger; /* why the one who answered was told nothing; ERR_NONE */
};

/* The whole program; main() only calls it. */
int ctl_main(int argc, char **argv);
/* Fills ctl from the arguments. *ret_stop: help or a usage error was printed, end with what it returns. */
int ctl_parse(struct ctl *ctl, int argc, char **argv, bool *ret_stop);

bool ctl_flag(const struct ctl *ctl, const char *option);
const char *ctl_value(const struct ctl *ctl, const char *option); /* NULL: not given */

/* Of an option that may come several times: its nth value, NULL after the last. */
const char *ctl_value_at(const struct ctl *ctl, const char *option, size_t n);

/* "orcactl: MESSAGE", the request's details, and what to do next. Returns the exit code that fits. */
int ctl_fail(struct ctl *ctl, const struct err *err);
int ctl_usage(struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Asks on the terminal; --yes answers. Without a terminal: usage error. CTL_OK: go on. */
int ctl_confirm(struct ctl *ctl, const char *question);
/* The infra directory: -C, $ORCA_DIR, the nearest parent with a cluster.toml. The caller frees. */
char *ctl_infra_dir(struct ctl *ctl, struct err *err);
/* Prints JSON to stdout, indented. */
int ctl_print_json(struct ctl *ctl, const json_t *json);
/* With -o json, of a command that names what it has done: {"KEY": …}. Takes what it is. */
void ctl_print_done(struct ctl *ctl, const char *key, json_t *what);
int ctl_print_json_line(const struct ctl *ctl, const json_t *json);
/* What is told when the user interrupts by Ctrl-C, and orcactl ends by that signal: of what goes on in the cluster. The first text stays. */
void ctl_tell_on_interrupt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Nobody reads stdout any more: it was a pipe's or a connection's, and the other side has closed it. */
bool ctl_unread(void);
/* The name that is nearest, near enough to be meant; NULL when none is. */
const char *ctl_nearest(const char *text, const char *(*name)(const void *list, size_t i), const void *list);

int cmd_deploy(struct ctl *ctl);
int cmd_plan(struct ctl *ctl);
int cmd_status(struct ctl *ctl);
int cmd_ps(struct ctl *ctl);
int cmd_inspect(struct ctl *ctl);
int cmd_explain(struct ctl *ctl);
int cmd_history(struct ctl *ctl);
int cmd_scale(struct ctl *ctl);
int cmd_stop(struct ctl *ctl);
int cmd_start(struct ctl *ctl);
int cmd_restart(struct ctl *ctl);
int cmd_redeploy(struct ctl *ctl);
int cmd_rollback(struct ctl *ctl);
int cmd_rm(struct ctl *ctl);
int cmd_run(struct ctl *ctl);
int cmd_job_list(struct ctl *ctl);
int cmd_job_run(struct ctl *ctl);
int cmd_job_history(struct ctl *ctl);
int cmd_job_stop(struct ctl *ctl);
int cmd_job_start(struct ctl *ctl);
int cmd_job_rm(struct ctl *ctl);
int cmd_nodes(struct ctl *ctl);
int cmd_events(struct ctl *ctl);
int cmd_top(struct ctl *ctl);
int cmd_doctor(struct ctl *ctl);
int cmd_logs(struct ctl *ctl);
int cmd_exec(struct ctl *ctl);
int cmd_secrets_set(struct ctl *ctl);
int cmd_secrets_list(struct ctl *ctl);
int cmd_secrets_rm(struct ctl *ctl);
int cmd_secrets_import(struct ctl *ctl);
int cmd_secrets_rotate_key(struct ctl *ctl);
int cmd_token_create(struct ctl *ctl);
int cmd_token_list(struct ctl *ctl);
int cmd_token_rm(struct ctl *ctl);
int cmd_audit(struct ctl *ctl);
int cmd_login(struct ctl *ctl);
int cmd_context_list(struct ctl *ctl);
int cmd_context_use(struct ctl *ctl);
int cmd_context_rm(struct ctl *ctl);
int cmd_version(struct ctl *ctl);
int cmd_init(struct ctl *ctl);
int cmd_completion(struct ctl *ctl);
int cmd_install_service(struct ctl *ctl);
int cmd_help(struct ctl *ctl);

#endif
