#include "orca-apiserver/exec_query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/ws/exec_wire.h"

#define WORDS_MAX 256u

struct words {
  char **list;
  size_t count;
};

static int words_add(struct words *w, const char *word, struct err *err) {
  char **longer = w->count < WORDS_MAX ? realloc(w->list, (w->count + 1) * sizeof *longer) : NULL;
  if (!longer)
    return err_set(err, ERR_TOO_LARGE, "a command has at most %u words, and as many variables", WORDS_MAX);
  w->list = longer;
  if (!pb_utf8_valid(word, strlen(word)) || !(w->list[w->count] = strdup(word)))
    return err_set(err, ERR_INVALID, "the command must be UTF-8");
  w->count++;
  return 0;
}

static void words_free(struct words *w) {
  for (size_t i = 0; i < w->count; i++)
    free(w->list[i]);
  free(w->list);
  *w = (struct words){0};
}

/* ["sh","-c","…"]: one parameter for what has many words. */
static int words_add_json(struct words *w, const char *key, const char *text, struct err *err) {
  json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *one;
  size_t i;
  int rc = json_is_array(json) ? 0 : err_set(err, ERR_INVALID, "%s: not a JSON array of strings", key);
  json_array_foreach(json, i, one) {
    const char *word = json_string_value(one);
    if (rc == 0 && !word)
      rc = err_set(err, ERR_INVALID, "%s: not a JSON array of strings", key);
    if (rc == 0)
      rc = words_add(w, word, err);
  }
  json_decref(json);
  return rc;
}

static int words_of(const struct api_request *r, const char *key, struct words *w, struct err *err) {
  size_t times = 0;
  for (size_t i = 0; i < r->query_count; i++)
    times += strcmp(r->query[i].key, key) == 0;
  for (size_t i = 0; i < r->query_count; i++) {
    if (strcmp(r->query[i].key, key) != 0)
      continue;
    const char *value = r->query[i].value;
    if ((times == 1 && value[0] == '[' ? words_add_json(w, key, value, err) : words_add(w, value, err)) < 0)
      return -1;
  }
  return 0;
}

static int number_of(const struct api_request *r, const char *key, uint32_t *ret, struct err *err) {
  const char *text = api_request_query(r, key);
  *ret = 0;
  if (!text)
    return 0;
  char *end;
  unsigned long n = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || n < 1 || n > EXEC_SIDE_MAX)
    return err_set(err, ERR_INVALID, "%s: a number from 1 to %u", key, EXEC_SIDE_MAX);
  *ret = (uint32_t)n;
  return 0;
}

static int text_of(const struct api_request *r, const char *key, char **ret, struct err *err) {
  const char *text = api_request_query(r, key);
  if (!text || !*text)
    return 0;
  if (!pb_utf8_valid(text, strlen(text)))
    return err_set(err, ERR_INVALID, "%s: not UTF-8", key);
  *ret = strdup(text);
  return *ret ? 0 : err_set(err, ERR_MEMORY, "no memory");
}

static int fill(const struct api_request *r, Node__StartExec *m, struct words *cmd, struct words *env, struct err *err) {
  if (words_of(r, "cmd", cmd, err) < 0 || words_of(r, "env", env, err) < 0)
    return -1;
  m->argv = cmd->list;
  m->n_argv = cmd->count;
  m->env = env->list;
  m->n_env = env->count;
  *cmd = *env = (struct words){0};
  if (!m->n_argv || !*m->argv[0])
    return err_set(err, ERR_INVALID, "cmd: a command is needed: ?cmd=sh&cmd=-c&cmd=…, or a JSON array");
  if (number_of(r, "rows", &m->rows, err) < 0 || number_of(r, "cols", &m->cols, err) < 0 || text_of(r, "user", &m->user, err) < 0 ||
      text_of(r, "workdir", &m->workdir, err) < 0)
    return -1;
  m->has_rows = m->has_cols = m->rows && m->cols;
  PB_SET(m, tty, api_request_flag(r, "tty"));
  PB_SET(m, stdin, api_request_flag(r, "stdin"));
  return 0;
}

Node__StartExec *exec_query_parse(const struct api_request *r, struct err *err) {
  Node__StartExec *m = malloc(sizeof *m);
  struct words cmd = {0}, env = {0};
  if (!m) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  node__start_exec__init(m);
  if (fill(r, m, &cmd, &env, err) == 0)
    return m;
  words_free(&cmd);
  words_free(&env);
  node__start_exec__free_unpacked(m, NULL);
  return NULL;
}

static int number_wanted(const char *wanted, const char *project, const char *service, uint64_t *ret) {
  char prefix[160];
  int len = snprintf(prefix, sizeof prefix, "%s/%s.", project, service);
  const char *digits = strncmp(wanted, prefix, (size_t)len) == 0 ? wanted + len : wanted;
  char *end;
  if (*digits < '0' || *digits > '9')
    return -1;
  *ret = strtoull(digits, &end, 10);
  return *end ? -1 : 0;
}

const Model__Instance *exec_query_instance(const struct api_cache *cache, const char *project, const char *service, const char *wanted,
                                           struct err *err) {
  uint64_t number = 0;
  if (wanted && *wanted && number_wanted(wanted, project, service, &number) < 0) {
    err_set(err, ERR_INVALID, "instance: its number, or %s/%s.NUMBER", project, service);
    return NULL;
  }
  size_t count;
  const struct api_smap_entry *all = api_cache_of_service(cache, API_INSTANCES, project, service, &count);
  const Model__Instance *best = NULL;
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *one = API_MSG(&all[i], Model__Instance);
    const Model__InstanceStatus *status = api_cache_instance_status(cache, one);
    if (wanted && *wanted && PB_GET(one, number, 0) == number) {
      if (*PB_STR(one->node))
        return one; /* whether it runs its agent knows best */
      err_set(err, ERR_CONFLICT, "%s/%s.%" PRIu64 " is on no node yet", project, service, number);
      return NULL;
    }
    if ((wanted && *wanted) || !*PB_STR(one->node) || !status || status->phase != MODEL__PHASE__PHASE_RUNNING)
      continue;
    if (PB_GET(status, ready, false))
      return one;
    if (!best)
      best = one;
  }
  if (!best && wanted && *wanted)
    err_set(err, ERR_NOT_FOUND, "instance not found: %s/%s.%" PRIu64, project, service, number);
  else if (!best)
    err_set(err, ERR_CONFLICT, "no instance of %s/%s runs", project, service);
  return best;
}
