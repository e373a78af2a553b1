#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "orcactl/api.h"
#include "orcactl/infra.h"
#include "orcactl/plan_view.h"
#include "orcactl/progress.h"
#include "orcactl/text.h"

#define LOST_TRIES 60 /* half a second apart: an apiserver that restarts or gives way to another */

struct deploy {
  struct ctl *ctl;
  struct progress progress;
  json_t *plan, *done;
};

static void print_list(const json_t *names, const char *what) {
  size_t i;
  json_t *one;
  json_array_foreach(names, i, one) {
    char *name = text_cleaned(json_is_string(one) ? json_string_value(one) : "");
    printf("%s  %s\n", name ? name : "", what);
    free(name);
  }
}

/* Jobs are not waited for. */
static void print_jobs(const json_t *changes) {
  size_t i;
  json_t *one;
  json_array_foreach(changes, i, one) {
    if (!json_is_true(json_object_get(one, "job")) || strcmp(api_str(one, "action"), "remove") == 0)
      continue;
    char *name = text_cleaned(api_str(one, "service"));
    printf("%s  job, revision %lld%s\n", name ? name : "", api_int(one, "revision"), json_is_true(json_object_get(one, "runs")) ? ": runs now" : "");
    free(name);
  }
}

/* Before the lines that change: what has none. */
static void say_plan(const struct deploy *d) {
  if (d->ctl->output == CTL_JSON)
    return;
  plan_warn(d->plan);
  print_list(json_object_get(d->plan, "removed"), "removed");
  size_t unchanged = json_array_size(json_object_get(d->plan, "unchanged")), deployed = json_array_size(json_object_get(d->plan, "deployed"));
  bool cluster = json_is_true(json_object_get(d->plan, "cluster_changed"));
  if (cluster)
    puts("cluster.toml  changed");
  print_jobs(json_object_get(d->plan, "changes"));
  if (!deployed && !cluster && !json_array_size(json_object_get(d->plan, "removed")))
    printf("Nothing to change: %zu service%s as the infra directory says\n", unchanged, unchanged == 1 ? " is" : "s are");
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct deploy *d = arg;
  json_t *json = json_loads(data, 0, NULL);
  if (!json)
    return true;
  bool last = strcmp(event, "done") == 0;
  if ((strcmp(event, "plan") == 0 || strcmp(event, "message") == 0) && !d->plan) {
    d->plan = json_incref(json);
    say_plan(d);
    ctl_tell_on_interrupt("the deploy goes on: `orcactl status --watch` follows it");
  }
  if (last) {
    json_decref(d->done);
    d->done = json_incref(json);
  }
  if (d->ctl->output != CTL_JSON) {
    struct buf out = BUF_INIT((size_t)16 << 20);
    progress_event(&d->progress, event, json, &out);
    fputs(buf_str(&out), stdout);
    buf_free(&out);
  }
  fflush(stdout);
  json_decref(json);
  return !last;
}

/* The same deploy sent again changes nothing and goes on telling, so a connection that is lost on the way is no failure. */
static int follow(struct deploy *d, const char *path, const json_t *body, struct err *err) {
  char no_id[64] = "";
  for (unsigned tries = 0;; tries++) {
    int rc = api_stream(d->ctl, "POST", path, body, no_id, on_event, d, err);
    if (d->done)
      return 0;
    bool lost = rc == 0 || d->ctl->unreachable || err->code == ERR_UNAVAILABLE || err->code == ERR_NO_LEADER;
    if (!lost || !d->plan || tries == LOST_TRIES)
      return rc < 0 ? -1 : err_set(err, ERR_UNAVAILABLE, "the apiserver ended the deploy's progress; `orcactl status` says how it stands");
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
}

static int result(struct deploy *d) {
  bool ok = d->done ? json_is_true(json_object_get(d->done, "ok")) : true;
  if (d->ctl->output == CTL_JSON) {
    json_t *out = d->plan ? json_copy(d->plan) : json_object();
    if (d->done)
      json_object_update(out, d->done);
    ctl_print_json_line(d->ctl, out);
    json_decref(out);
  }
  return ok ? CTL_OK : CTL_FAILED;
}

/* --prune: what would go is named, and asked about, before anything is done. */
static int confirm_prune(struct ctl *ctl, const json_t *body, const struct spec_set *set) {
  struct err err;
  json_t *plan, *one;
  size_t i;
  if (ctl->yes)
    return CTL_OK;
  if (api_call(ctl, "POST", "/api/v1/deploy?dry_run=true&prune=true", body, &plan, &err) < 0)
    return infra_refused(ctl, set, &err);
  const json_t *removed = json_object_get(plan, "removed");
  struct buf question = BUF_INIT((size_t)1 << 20);
  buf_add_str(&question, "Remove ");
  json_array_foreach(removed, i, one) buf_printf(&question, "%s%s", i ? ", " : "", json_is_string(one) ? json_string_value(one) : "?");
  buf_add_str(&question, "?");
  int rc = json_array_size(removed) ? ctl_confirm(ctl, buf_str(&question)) : CTL_OK;
  buf_free(&question);
  json_decref(plan);
  return rc;
}

static int send_it(struct deploy *d, const struct spec_set *set, const json_t *body) {
  struct ctl *ctl = d->ctl;
  struct err err;
  bool prune = ctl_flag(ctl, "prune");
  char path[128];
  int rc;
  if (ctl_flag(ctl, "no-wait")) {
    snprintf(path, sizeof path, "/api/v1/deploy%s", prune ? "?prune=true" : "");
    rc = api_call(ctl, "POST", path, body, &d->plan, &err);
    if (rc == 0) {
      say_plan(d);
      if (ctl->output != CTL_JSON)
        print_list(json_object_get(d->plan, "deployed"), "accepted; `orcactl status --watch` follows");
    }
  } else {
    snprintf(path, sizeof path, "/api/v1/deploy?wait=true%s", prune ? "&prune=true" : "");
    rc = follow(d, path, body, &err);
  }
  if (rc < 0)
    return infra_refused(ctl, set, &err);
  return result(d);
}

int cmd_deploy(struct ctl *ctl) {
  if (ctl_flag(ctl, "dry-run"))
    return cmd_plan(ctl);
  if (ctl_flag(ctl, "prune") && ctl->argc)
    return ctl_usage(ctl, "--prune looks at the whole infra directory: it goes without names");
  struct spec_set set;
  json_t *body;
  struct winsize size;
  int rc = infra_load(ctl, &set, &body);
  if (rc != CTL_OK)
    return rc;
  struct deploy d = {.ctl = ctl, .progress = {.live = ctl->live, .color = ctl->color, .width = ctl->width, .height = 24}};
  if (ctl->tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row)
    d.progress.height = size.ws_row;
  rc = ctl_flag(ctl, "prune") ? confirm_prune(ctl, body, &set) : CTL_OK;
  if (rc == CTL_OK)
    rc = send_it(&d, &set, body);
  progress_free(&d.progress);
  json_decref(d.plan);
  json_decref(d.done);
  json_decref(body);
  spec_set_free(&set);
  return rc;
}
