#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "orcactl/api.h"
#include "common/http/http.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

static void page_of(const struct ctl *ctl, const json_t *reply, struct buf *page) {
  size_t i;
  json_t *one;
  view_status(ctl, reply, page);
  json_array_foreach(json_object_get(reply, "problems"), i, one) {
    char *text = text_cleaned(json_is_string(one) ? json_string_value(one) : "");
    buf_printf(page, "%s%s\n", i ? "" : "\n", text ? text : "");
    free(text);
  }
}

static int once(struct ctl *ctl, const char *path) {
  struct err err;
  json_t *reply;
  if (api_call(ctl, "GET", path, NULL, &reply, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, reply);
  } else {
    struct buf page = BUF_INIT((size_t)64 << 20);
    page_of(ctl, reply, &page);
    fputs(buf_str(&page), stdout);
    buf_free(&page);
  }
  json_decref(reply);
  return CTL_OK;
}

/* On a terminal the page is drawn over the last one; elsewhere only a page that differs is printed. */
static int watch(struct ctl *ctl, const char *path) {
  char *last = NULL;
  int rc = CTL_OK;
  if (ctl->live)
    fputs("\033[2J", stdout);
  for (bool first = true; rc == CTL_OK && !ctl_unread(); first = false) {
    struct err err;
    json_t *reply;
    struct buf page = BUF_INIT((size_t)64 << 20);
    if (api_call(ctl, "GET", path, NULL, &reply, &err) == 0) {
      page_of(ctl, reply, &page);
      json_decref(reply);
    } else if (first || !(ctl->unreachable || err.code == ERR_UNAVAILABLE)) {
      rc = ctl_fail(ctl, &err);
    } else {
      buf_printf(&page, "%s (trying again)\n", err.msg);
    }
    if (rc == CTL_OK && ctl->live) {
      view_draw(&page);
    } else if (rc == CTL_OK && (!last || strcmp(last, buf_str(&page)) != 0)) {
      printf("%s%s", last ? "\n" : "", buf_str(&page));
      free(last);
      last = strdup(buf_str(&page));
    }
    buf_free(&page);
    fflush(stdout);
    if (rc == CTL_OK)
      nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
  }
  free(last);
  return rc;
}

int cmd_status(struct ctl *ctl) {
  const char *project = ctl_value(ctl, "project");
  char path[256] = "/api/v1/status", value[200];
  if (project && http_escape(project, value, sizeof value) < 0)
    return ctl_usage(ctl, "--project is too long");
  if (project)
    snprintf(path, sizeof path, "/api/v1/status?project=%s", value);
  if (!ctl_flag(ctl, "watch"))
    return once(ctl, path);
  return ctl->output == CTL_JSON ? ctl_usage(ctl, "--watch is for people; programs follow `orcactl events -f -o json`") : watch(ctl, path);
}
