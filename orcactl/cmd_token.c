/* token create, list, rm. A token's text is printed once, alone on stdout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/crypto/crypto.h"
#include "common/http/http.h"
#include "orcactl/api.h"
#include "orcactl/table.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

/* --project may be given several times, and each may be a list with commas. */
static json_t *projects(const struct ctl *ctl) {
  json_t *list = json_array();
  for (size_t i = 0; i < ctl->given_count; i++) {
    if (strcmp(ctl->given[i].option->name, "project") != 0)
      continue;
    for (const char *p = ctl->given[i].value; p; p = *p ? p + 1 : NULL) {
      size_t len = strcspn(p, ",");
      if (len)
        json_array_append_new(list, json_stringn(p, len));
      p += len;
      if (!*p)
        break;
    }
  }
  return list;
}

int cmd_token_create(struct ctl *ctl) {
  const char *name = ctl_value(ctl, "name"), *role = ctl_value(ctl, "role"), *expires = ctl_value(ctl, "expires");
  if (!name || !role)
    return ctl_usage(ctl, "want --name NAME and --role admin|deployer|viewer");
  json_t *body = json_pack("{s:s,s:s,s:o}", "name", name, "role", role, "projects", projects(ctl)), *reply;
  if (body && expires)
    json_object_set_new(body, "expires", json_string(expires));
  struct err err;
  if (!body) {
    err_set(&err, ERR_INVALID, "not UTF-8 text: a name, a role or a project");
    return ctl_fail(ctl, &err);
  }
  int rc = api_call(ctl, "POST", "/api/v1/tokens", body, &reply, &err);
  json_decref(body);
  if (rc < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else {
    fprintf(stderr, "Token %s is made. This is its text, told only now:\n", name);
    fflush(stderr);
    char *text = text_cleaned(api_str(reply, "value"));
    if (text) {
      puts(text);
      crypto_wipe(text, strlen(text));
    }
    free(text);
  }
  json_decref(reply);
  return CTL_OK;
}

/* "in 3d", "expired", "never" */
static void expiry(const json_t *token, char out[32]) {
  const char *at = api_str(token, "expires");
  time_t now = time(NULL);
  int64_t then = text_time(at);
  char left[16];
  if (!*at || then < 0)
    snprintf(out, 32, "never");
  else if (then <= now)
    snprintf(out, 32, "expired");
  else
    snprintf(out, 32, "in %s", (text_age(then - now, left), left));
}

int cmd_token_list(struct ctl *ctl) {
  struct err err;
  json_t *reply, *one;
  size_t i;
  if (api_call(ctl, "GET", "/api/v1/tokens", NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    int rc = ctl_print_json(ctl, reply);
    json_decref(reply);
    return rc;
  }
  struct table t = {0};
  table_column(&t, "TOKEN", false);
  table_column(&t, "ROLE", false);
  table_column(&t, "PROJECTS", false);
  table_column(&t, "AGE", true);
  table_column(&t, "LAST USED", true);
  table_column(&t, "EXPIRES", false);
  table_column(&t, "BY", false);
  t.minor = "BY,AGE";
  json_array_foreach(json_object_get(reply, "tokens"), i, one) {
    char age[16], used[16], until[32];
    struct buf of = BUF_INIT((size_t)1 << 16);
    view_age(api_str(one, "created"), age);
    view_age(api_str(one, "last_used"), used);
    expiry(one, until);
    view_join(json_object_get(one, "projects"), &of);
    bool expired = strcmp(until, "expired") == 0;
    table_cellf(&t, TABLE_PLAIN, "%s%s", api_str(one, "name"), json_is_true(json_object_get(one, "yours")) ? " *" : "");
    table_cell(&t, TABLE_PLAIN, api_str(one, "role"));
    table_cell(&t, TABLE_PLAIN, of.len ? buf_str(&of) : "(all)");
    table_cell(&t, TABLE_PLAIN, age);
    table_cell(&t, TABLE_PLAIN, used);
    table_cell(&t, expired ? TABLE_RED : TABLE_PLAIN, until);
    table_cell(&t, TABLE_PLAIN, json_is_true(json_object_get(one, "declared")) ? "cluster.toml" : api_str(one, "created_by"));
    buf_free(&of);
  }
  view_print(ctl, &t);
  table_free(&t);
  json_decref(reply);
  return CTL_OK;
}

int cmd_token_rm(struct ctl *ctl) {
  int rc = CTL_OK;
  json_t *done = json_array();
  for (int i = 0; i < ctl->argc && rc != CTL_UNREACHABLE; i++) {
    struct err err;
    char path[512], name[256];
    if (!*ctl->argv[i] || http_escape(ctl->argv[i], name, sizeof name) < 0) {
      err_set(&err, ERR_INVALID, "not the name of a token: %.80s", ctl->argv[i]);
      rc = ctl_fail(ctl, &err);
      continue;
    }
    snprintf(path, sizeof path, "/api/v1/tokens/%s", name);
    if (api_call(ctl, "DELETE", path, NULL, NULL, &err) < 0) {
      rc = ctl_fail(ctl, &err);
      continue;
    }
    json_array_append_new(done, json_string(ctl->argv[i]));
    if (ctl->output != CTL_JSON)
      printf("%s: removed; it ended at once\n", ctl->argv[i]);
  }
  ctl_print_done(ctl, "removed", done);
  return rc;
}
