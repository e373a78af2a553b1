#include "orcactl/context.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/crypto/crypto.h"
#include "common/spec/spec.h"
#include "orcactl/files.h"

static int home_path(char out[PATH_MAX], const char *below, struct err *err) {
  const char *own = getenv("ORCA_HOME"), *home = getenv("HOME");
  int n;
  if (own && *own)
    n = snprintf(out, PATH_MAX, "%s/%s", own, below);
  else if (home && *home)
    n = snprintf(out, PATH_MAX, "%s/.orca/%s", home, below);
  else
    return err_set(err, ERR_NOT_FOUND, "neither ORCA_HOME nor HOME is set: orcactl doesn't know where its contexts are");
  if (n < 0 || n >= PATH_MAX)
    return err_set(err, ERR_INVALID, "path too long: ORCA_HOME");
  return 0;
}

/* The file, or an empty object when there is none yet. */
static json_t *read_config(struct err *err) {
  char path[PATH_MAX];
  if (home_path(path, "config.json", err) < 0)
    return NULL;
  struct buf text = BUF_INIT(1 << 20);
  json_t *config = NULL;
  struct err why;
  if (files_read(path, false, &text, &why) < 0) {
    if (why.code == ERR_NOT_FOUND)
      config = json_pack("{s:{}}", "contexts");
    else if (err)
      *err = why;
  } else {
    json_error_t at;
    config = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &at);
    if (config && !json_is_object(json_object_get(config, "contexts"))) {
      json_decref(config);
      config = NULL;
      snprintf(at.text, sizeof at.text, "\"contexts\" is missing");
    }
    if (!config)
      err_set(err, ERR_INVALID, "%s:%d:%d: %s", path, at.line, at.column, at.text);
  }
  buf_free(&text);
  return config;
}

static int token_path(char out[PATH_MAX], const char *name, struct err *err) {
  char below[96];
  snprintf(below, sizeof below, "tokens/%s", name);
  return home_path(out, below, err);
}

static int read_token(struct context *c, struct err *err) {
  char path[PATH_MAX];
  if (token_path(path, c->name, err) < 0)
    return -1;
  struct buf text = BUF_INIT(sizeof c->token - 1);
  int rc = files_read(path, true, &text, err);
  if (rc == 0) {
    while (text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == ' '))
      text.len--;
    memcpy(c->token, text.len ? (const char *)text.data : "", text.len);
    c->token[text.len] = 0;
  }
  if (text.data)
    crypto_wipe(text.data, text.size);
  buf_free(&text);
  return rc;
}

int context_load(const char *name, struct context *ret, struct err *err) {
  json_t *config = read_config(err);
  if (!config)
    return -1;
  *ret = (struct context){0};
  const char *wanted = name ? name : getenv("ORCA_CONTEXT");
  if (!wanted || !*wanted)
    wanted = json_string_value(json_object_get(config, "current"));
  const json_t *entry = wanted ? json_object_get(json_object_get(config, "contexts"), wanted) : NULL;
  const char *url = json_string_value(json_object_get(entry, "url")), *ca = json_string_value(json_object_get(entry, "ca"));
  int rc = 0;
  if (!wanted && json_object_size(json_object_get(config, "contexts")))
    rc = err_set(err, ERR_NOT_FOUND, "no context is the current one: `orcactl context use NAME` makes one it, `orcactl context list` shows them");
  else if (!wanted)
    rc = err_set(err, ERR_NOT_FOUND, "no cluster is known here yet: `orcactl login HOST` goes to one, `orcactl init` makes this machine one");
  else if (!spec_name_valid(wanted) || !url)
    rc = err_set(err, ERR_NOT_FOUND, "no context is named %s: `orcactl context list` shows them", wanted);
  else if (strlen(url) >= sizeof ret->url)
    rc = err_set(err, ERR_INVALID, "context %s: url is too long", wanted);
  else if (ca && strlen(ca) >= sizeof ret->ca)
    rc = err_set(err, ERR_INVALID, "context %s: ca is too long", wanted);
  if (rc == 0) {
    snprintf(ret->name, sizeof ret->name, "%s", wanted);
    snprintf(ret->url, sizeof ret->url, "%s", url);
    snprintf(ret->ca, sizeof ret->ca, "%s", ca ? ca : "");
    rc = read_token(ret, err);
  }
  json_decref(config);
  return rc;
}

void context_free(struct context *context) {
  if (context)
    crypto_wipe(context, sizeof *context);
}

/* Takes config. */
static int write_config(json_t *config, struct err *err) {
  char path[PATH_MAX];
  int rc = home_path(path, "config.json", err);
  char *text = rc == 0 ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
  json_decref(config);
  if (rc == 0 && !text)
    return err_set(err, ERR_MEMORY, "no memory");
  if (rc == 0)
    rc = files_write(path, text, strlen(text), 0600, err);
  free(text);
  return rc;
}

int context_save(const struct context *c, bool use, struct err *err) {
  char path[PATH_MAX], folder[PATH_MAX];
  if (home_path(folder, "tokens", err) < 0 || files_mkdir_p(folder, 0700, err) < 0 || token_path(path, c->name, err) < 0)
    return -1;
  json_t *config = read_config(err);
  if (!config)
    return -1;
  json_t *contexts = json_object_get(config, "contexts"), *entry = json_pack("{s:s}", "url", c->url);
  if (*c->ca)
    json_object_set_new(entry, "ca", json_string(c->ca));
  /* Whatever is cut off in between: no token stands where it would be sent to another cluster than its own. */
  if (!json_equal(json_object_get(contexts, c->name), entry) && unlink(path) < 0 && errno != ENOENT) {
    err_errno(err, errno, "remove %s", path);
    json_decref(entry);
    json_decref(config);
    return -1;
  }
  json_object_set_new(contexts, c->name, entry);
  if (use || !json_is_string(json_object_get(config, "current")))
    json_object_set_new(config, "current", json_string(c->name));
  return write_config(config, err) < 0 ? -1 : files_write(path, c->token, strlen(c->token), 0400, err);
}

json_t *context_all(struct err *err) {
  return read_config(err);
}

int context_use(const char *name, struct err *err) {
  json_t *config = read_config(err);
  if (!config)
    return -1;
  if (!json_object_get(json_object_get(config, "contexts"), name)) {
    json_decref(config);
    return err_set(err, ERR_NOT_FOUND, "no context is named %.64s: `orcactl context list` shows them", name);
  }
  json_object_set_new(config, "current", json_string(name));
  return write_config(config, err);
}

int context_remove(const char *name, struct err *err) {
  char path[PATH_MAX];
  json_t *config = read_config(err);
  if (!config)
    return -1;
  if (!spec_name_valid(name) || json_object_del(json_object_get(config, "contexts"), name) < 0) {
    json_decref(config);
    return err_set(err, ERR_NOT_FOUND, "no context is named %.64s: `orcactl context list` shows them", name);
  }
  const char *current = json_string_value(json_object_get(config, "current"));
  if (current && strcmp(current, name) == 0)
    json_object_del(config, "current");
  if (token_path(path, name, err) < 0 || (unlink(path) < 0 && errno != ENOENT && err_errno(err, errno, "remove %s", path) < 0)) {
    json_decref(config);
    return -1;
  }
  return write_config(config, err);
}
