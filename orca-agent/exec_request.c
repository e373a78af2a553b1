#include "orca-agent/exec_request.h"

#include <inttypes.h>
#include <string.h>

#include "common/bus/pb.h"

#define SIDE_MAX 10000u
/* Docker leaves a terminal's stream, and lets the command run on, at a sequence of keys that it looks for: one that nobody types. */
#define NO_DETACH_KEYS "ctrl-@,ctrl-^,ctrl-@,ctrl-_,ctrl-@,ctrl-^,ctrl-@,ctrl-_"

int exec_request_check(const Node__StartExec *m, struct err *err) {
  size_t text = 0;
  if (!PB_GET(m, session, 0))
    return err_set(err, ERR_INVALID, "an exec needs a session");
  if (!m->n_argv || m->n_argv > EXEC_ARGS_MAX || !*m->argv[0])
    return err_set(err, ERR_INVALID, "an exec needs a command, of at most %u words", EXEC_ARGS_MAX);
  if (m->n_env > EXEC_ARGS_MAX)
    return err_set(err, ERR_INVALID, "more than %u variables", EXEC_ARGS_MAX);
  for (size_t n = 0; n < m->n_argv; n++)
    text += strlen(m->argv[n]);
  for (size_t n = 0; n < m->n_env; n++) {
    const char *equals = strchr(m->env[n], '=');
    if (!equals || equals == m->env[n])
      return err_set(err, ERR_INVALID, "a variable must read KEY=VALUE");
    text += strlen(m->env[n]);
  }
  if (text > EXEC_TEXT_MAX || strlen(PB_STR(m->user)) > 256 || strlen(PB_STR(m->workdir)) > 4096)
    return err_set(err, ERR_TOO_LARGE, "the command is too long");
  if (*PB_STR(m->workdir) && *m->workdir != '/')
    return err_set(err, ERR_INVALID, "the working directory must begin with /");
  if (PB_GET(m, rows, 0) > SIDE_MAX || PB_GET(m, cols, 0) > SIDE_MAX)
    return err_set(err, ERR_INVALID, "a terminal has at most %u rows and columns", SIDE_MAX);
  return 0;
}

static json_t *list(char *const *words, size_t count) {
  json_t *json = json_array();
  for (size_t n = 0; json && n < count; n++)
    if (json_array_append_new(json, json_string(words[n])) < 0) {
      json_decref(json);
      json = NULL;
    }
  return json;
}

json_t *exec_request_json(const Node__StartExec *m) {
  json_t *args = list(m->argv, m->n_argv), *env = list(m->env, m->n_env), *json = NULL;
  if (args && env)
    json = json_pack("{s:O, s:O, s:b, s:b, s:b, s:b, s:s, s:s, s:s}", "Cmd", args, "Env", env, "AttachStdin", PB_GET(m, stdin, 0), "AttachStdout", 1,
                     "AttachStderr", 1, "Tty", PB_GET(m, tty, 0), "User", PB_STR(m->user), "WorkingDir", PB_STR(m->workdir), "DetachKeys",
                     NO_DETACH_KEYS);
  json_decref(args);
  json_decref(env);
  return json;
}

void exec_request_start(const char *exec_id, bool tty, struct buf *out) {
  const char *body = tty ? "{\"Detach\":false,\"Tty\":true}" : "{\"Detach\":false,\"Tty\":false}";
  buf_printf(out,
             "POST /v1.41/exec/%s/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             exec_id, strlen(body), body);
}
