/* secrets set, list, rm, import, rotate-key. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/envfile/envfile.h"
#include "common/http/http.h"
#include "orcactl/api.h"
#include "orcactl/ask.h"
#include "orcactl/table.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

#define VALUE_MAX ((size_t)64 << 10)
#define FILE_MAX ((size_t)1 << 20)

/* "/api/v1/secrets[/NAME][?project=P]" */
static int secrets_path(struct ctl *ctl, const char *name, char out[1024], struct err *err) {
  const char *project = ctl_value(ctl, "project");
  char at[400] = "", of[200] = "";
  if ((name && (!*name || http_escape(name, at, sizeof at) < 0)) || (project && http_escape(project, of, sizeof of) < 0))
    return err_set(err, ERR_INVALID, "a name is too long, or empty");
  snprintf(out, 1024, "/api/v1/secrets%s%s%s%s", name ? "/" : "", at, project ? "?project=" : "", of);
  return 0;
}

static void wipe(struct buf *b) {
  if (b->data)
    crypto_wipe(b->data, b->size);
  buf_free(b);
}

/* ---- set ---- */

static json_t *value_json(const uint8_t *data, size_t len) {
  if (!memchr(data, 0, len) && pb_utf8_valid((const char *)data, len))
    return json_pack("{s:o}", "value", json_stringn((const char *)data, len));
  char *base64 = malloc(CRYPTO_BASE64_LEN(len) + 1);
  if (!base64)
    return NULL;
  crypto_base64(data, len, base64);
  json_t *json = json_pack("{s:s}", "value_base64", base64);
  crypto_wipe(base64, CRYPTO_BASE64_LEN(len));
  free(base64);
  return json;
}

static int read_value(struct ctl *ctl, struct buf *value, struct err *err) {
  if (ctl->argc == 1) {
    char prompt[256];
    snprintf(prompt, sizeof prompt, "Value of %.140s (not shown): ", ctl->argv[0]);
    return ask_hidden(prompt, value, err);
  }
  fprintf(stderr, "The value stood in the arguments: in the list of processes, and perhaps in the shell's history. Without it, it is asked for.\n");
  size_t len = strlen(ctl->argv[1]);
  if (buf_add(value, ctl->argv[1], len) < 0)
    return err_set(err, ERR_TOO_LARGE, "more than %zu bytes", VALUE_MAX);
  crypto_wipe(ctl->argv[1], len); /* takes it out of /proc/PID/cmdline too */
  return 0;
}

static void say_of(const json_t *name, const char *what) {
  char *clean = text_cleaned(json_is_string(name) ? json_string_value(name) : "");
  printf("%s: %s\n", clean ? clean : "", what);
  free(clean);
}

static int say_change(struct ctl *ctl, json_t *reply) {
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
    return CTL_OK;
  }
  size_t i;
  json_t *one;
  json_array_foreach(json_object_get(reply, "changed"), i, one) say_of(one, "kept");
  json_array_foreach(json_object_get(reply, "unchanged"), i, one) say_of(one, "it has that value already");
  return CTL_OK;
}

int cmd_secrets_set(struct ctl *ctl) {
  struct err err;
  struct buf value = BUF_INIT(VALUE_MAX + 2); /* and a line end */
  char path[1024];
  json_t *body = NULL, *reply = NULL;
  int rc = secrets_path(ctl, ctl->argv[0], path, &err);
  if (rc == 0)
    rc = read_value(ctl, &value, &err);
  if (rc == 0 && value.len > VALUE_MAX)
    rc = err_set(&err, ERR_TOO_LARGE, "a value has at most %zu KiB", VALUE_MAX >> 10);
  if (rc == 0 && !(body = value_json((const uint8_t *)buf_str(&value), value.len)))
    rc = err_set(&err, ERR_MEMORY, "no memory");
  if (rc == 0)
    rc = api_call(ctl, "PUT", path, body, &reply, &err);
  int code = rc == 0 ? say_change(ctl, reply) : ctl_fail(ctl, &err);
  json_decref(reply);
  json_decref(body);
  wipe(&value);
  return code;
}

/* ---- import ---- */

static int add_pair(void *arg, const char *name, const char *value, size_t len, unsigned line, struct err *err) {
  json_t *text = json_stringn(value, len);
  if (!text)
    return err_set(err, ERR_INVALID, "line %u: the value of %s is not UTF-8 text", line, name);
  return json_object_set_new(arg, name, text) < 0 ? err_set(err, ERR_MEMORY, "no memory") : 0;
}

static int read_file(const char *path, struct buf *to, struct err *err) {
  int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), rc = 0;
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  ssize_t n = buf_reserve(to, to->cap) < 0 ? -1 : 1; /* all of it at once: what grows leaves copies of secrets behind */
  while (n > 0)
    n = buf_read(to, fd, 4096);
  if (n < 0)
    rc = errno == EFBIG ? err_set(err, ERR_TOO_LARGE, "%s: larger than %zu KiB", path, FILE_MAX >> 10) : err_errno(err, errno, "%s", path);
  if (fd != STDIN_FILENO)
    close(fd);
  return rc;
}

int cmd_secrets_import(struct ctl *ctl) {
  struct err err;
  const char *file = ctl_value(ctl, "file");
  char path[1024];
  json_t *values = json_object(), *body = json_pack("{s:O}", "secrets", values), *reply = NULL;
  struct buf content = BUF_INIT(FILE_MAX + 8192);
  if (!file) {
    json_decref(values);
    json_decref(body);
    return ctl_usage(ctl, "say which file: --file .env");
  }
  int rc = values && body ? secrets_path(ctl, NULL, path, &err) : err_set(&err, ERR_MEMORY, "no memory");
  if (rc == 0)
    rc = read_file(file, &content, &err);
  if (rc == 0 && envfile_parse(buf_str(&content), content.len, add_pair, values, &err) < 0)
    rc = err_context(&err, "%s", file);
  if (rc == 0 && !json_object_size(values))
    rc = err_set(&err, ERR_INVALID, "%s: nothing is in it", file);
  if (rc == 0)
    rc = api_call(ctl, "POST", path, body, &reply, &err);
  int code = rc == 0 ? say_change(ctl, reply) : ctl_fail(ctl, &err);
  json_decref(reply);
  json_decref(values);
  json_decref(body);
  wipe(&content);
  return code;
}

/* ---- the others ---- */

int cmd_secrets_list(struct ctl *ctl) {
  struct err err;
  char path[1024];
  json_t *reply, *one;
  size_t i;
  if (secrets_path(ctl, NULL, path, &err) < 0 || api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
    json_decref(reply);
    return CTL_OK;
  }
  struct table t = {0};
  table_column(&t, "SECRET", false);
  table_column(&t, "PROJECT", false);
  table_column(&t, "VERSION", true);
  table_column(&t, "AGE", true);
  table_column(&t, "BY", false);
  table_column(&t, "USED BY", false);
  t.minor = "VERSION,BY";
  json_array_foreach(json_object_get(reply, "secrets"), i, one) {
    char age[16];
    struct buf users = BUF_INIT((size_t)1 << 16);
    view_age(api_str(one, "updated"), age);
    view_join(json_object_get(one, "used_by"), &users);
    table_cell(&t, TABLE_PLAIN, api_str(one, "name"));
    table_cell(&t, TABLE_PLAIN, *api_str(one, "project") ? api_str(one, "project") : "(all)");
    table_cellf(&t, TABLE_PLAIN, "%lld", api_int(one, "version"));
    table_cell(&t, TABLE_PLAIN, age);
    table_cell(&t, TABLE_PLAIN, api_str(one, "updated_by"));
    table_cell(&t, TABLE_PLAIN, users.len ? buf_str(&users) : "-");
    buf_free(&users);
  }
  if (json_array_size(json_object_get(reply, "secrets")))
    view_print(ctl, &t);
  else
    printf("No secrets.\n");
  table_free(&t);
  json_decref(reply);
  return CTL_OK;
}

int cmd_secrets_rm(struct ctl *ctl) {
  struct buf question = BUF_INIT((size_t)1 << 16);
  buf_add_str(&question, "Forget");
  for (int i = 0; i < ctl->argc; i++)
    buf_printf(&question, "%s %s", i ? "," : "", ctl->argv[i]);
  buf_add_str(&question, "? What runs keeps its copy until it is replaced.");
  int rc = ctl_confirm(ctl, buf_str(&question));
  buf_free(&question);
  if (rc != CTL_OK)
    return rc;
  json_t *done = json_array();
  for (int i = 0; i < ctl->argc && rc != CTL_UNREACHABLE; i++) {
    struct err err;
    char path[1024];
    if (secrets_path(ctl, ctl->argv[i], path, &err) < 0 || api_call(ctl, "DELETE", path, NULL, NULL, &err) < 0) {
      rc = ctl_fail(ctl, &err);
      continue;
    }
    json_array_append_new(done, json_string(ctl->argv[i]));
    if (ctl->output != CTL_JSON)
      printf("%s: forgotten\n", ctl->argv[i]);
  }
  ctl_print_done(ctl, "removed", done);
  return rc;
}

int cmd_secrets_rotate_key(struct ctl *ctl) {
  struct err err;
  json_t *reply;
  if (api_call(ctl, "POST", "/api/v1/secrets/rotate-key", NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  char *key = text_cleaned(api_str(reply, "key_id"));
  if (ctl->output == CTL_JSON)
    ctl_print_json(ctl, reply);
  else
    printf(
        "Sealed under a new key, %s: %lld %s. The old master.key opens nothing of the store's any more, but older backups need it: back up again.\n",
        key ? key : "", (long long)api_int(reply, "resealed"), api_int(reply, "resealed") == 1 ? "secret" : "secrets");
  free(key);
  json_decref(reply);
  return CTL_OK;
}
