#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/http/http.h"
#include "orcactl/api.h"
#include "orcactl/exec_client.h"
#include "orcactl/terminal.h"

#define PATH_MAX_BYTES ((size_t)30 << 10)

static void add_query(struct buf *path, const char *key, const char *value) {
  size_t size = 3 * strlen(value) + 1;
  char *escaped = malloc(size);
  buf_printf(path, "%c%s=", memchr(path->data, '?', path->len) ? '&' : '?', key);
  if (escaped && http_escape(value, escaped, size) == 0)
    buf_add_str(path, escaped);
  else
    path->failed = true;
  free(escaped);
}

static void add_list(struct buf *path, const char *key, json_t *list) {
  char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
  if (text)
    add_query(path, key, text);
  else
    path->failed = true;
  free(text);
  json_decref(list);
}

static json_t *variables(const struct ctl *ctl, bool tty) {
  json_t *list = json_array();
  const char *term = getenv("TERM"), *one;
  char text[128];
  if (tty && term && *term && strlen(term) < 100) {
    snprintf(text, sizeof text, "TERM=%s", term);
    json_array_append_new(list, json_string(text));
  }
  for (size_t n = 0; (one = ctl_value_at(ctl, "env", n)); n++)
    json_array_append_new(list, json_string(one)); /* what is not UTF-8 is missing, and found so */
  return list;
}

static int check(struct ctl *ctl, size_t *variable_count) {
  const char *one;
  size_t n = 0;
  for (; (one = ctl_value_at(ctl, "env", n)); n++)
    if (!strchr(one, '=') || *one == '=')
      return ctl_usage(ctl, "--env %s: want KEY=VALUE", one);
  *variable_count = n;
  const char *dir = ctl_value(ctl, "workdir");
  if (dir && *dir != '/')
    return ctl_usage(ctl, "--workdir %s: must begin with /", dir);
  if (ctl_flag(ctl, "tty") && ctl_flag(ctl, "stdin") && !isatty(STDIN_FILENO))
    return ctl_usage(ctl, "-t with -i needs a terminal as stdin: leave -t out");
  return CTL_OK;
}

static json_t *command(const struct ctl *ctl) {
  json_t *list = json_array();
  for (int i = 1; i < ctl->argc; i++)
    json_array_append_new(list, json_string(ctl->argv[i]));
  return list;
}

int cmd_exec(struct ctl *ctl) {
  struct exec_options options = {.stdin_open = ctl_flag(ctl, "stdin"), .tty = ctl_flag(ctl, "tty")};
  options.raw = options.tty && options.stdin_open;
  struct err err;
  char base[512];
  size_t variable_count = 0;
  int rc = check(ctl, &variable_count);
  if (rc != CTL_OK)
    return rc;
  if (api_service_path(ctl->argv[0], "/exec", "", base, &err) < 0)
    return ctl_fail(ctl, &err);
  json_t *cmd = command(ctl), *env = variables(ctl, options.tty);
  if (json_array_size(cmd) != (size_t)ctl->argc - 1 || json_array_size(env) < variable_count) {
    json_decref(cmd);
    json_decref(env);
    return ctl_usage(ctl, "the command and its variables must be UTF-8");
  }
  struct buf path = BUF_INIT(PATH_MAX_BYTES);
  buf_add_str(&path, base);
  add_list(&path, "cmd", cmd);
  if (json_array_size(env))
    add_list(&path, "env", env);
  else
    json_decref(env);
  const char *names[] = {"instance", "user", "workdir"};
  for (size_t i = 0; i < 3; i++)
    if (ctl_value(ctl, names[i]))
      add_query(&path, names[i], ctl_value(ctl, names[i]));
  uint32_t rows, cols;
  char number[16];
  if (options.stdin_open)
    add_query(&path, "stdin", "true");
  if (options.tty) {
    add_query(&path, "tty", "true");
    if (terminal_size(&rows, &cols)) {
      snprintf(number, sizeof number, "%u", rows);
      add_query(&path, "rows", number);
      snprintf(number, sizeof number, "%u", cols);
      add_query(&path, "cols", number);
    }
  }
  if (buf_failed(&path)) {
    err_set(&err, ERR_TOO_LARGE, "the command is too long");
    rc = ctl_fail(ctl, &err);
  } else {
    rc = exec_client_run(ctl, buf_str(&path), &options);
  }
  buf_free(&path);
  return rc;
}
