#include "orcactl/job_wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "orcactl/api.h"
#include "orcactl/text.h"

#define LOST_TRIES 120 /* half a second apart: an apiserver that restarts or gives way to another */
#define LOG_MAX ((size_t)64 << 10)

struct follow {
  struct ctl *ctl;
  json_t *last; /* of the run, as last told */
  bool over;
  char said[32];
};

void job_print_log(const struct ctl *ctl, const char *log) {
  if (!*log)
    return;
  struct buf out = BUF_INIT(LOG_MAX);
  if (ctl->tty)
    text_clean_lines(log, &out);
  else
    buf_add_str(&out, log);
  if (out.len && out.data[out.len - 1] != '\n')
    buf_add_byte(&out, '\n');
  fputs(buf_str(&out), stdout);
  buf_free(&out);
}

static void say(struct follow *f, const json_t *run) {
  const char *state = api_str(run, "state");
  char *job = text_cleaned(api_str(run, "job")), *reason = text_cleaned(api_str(run, "reason")), *node = text_cleaned(api_str(run, "node"));
  char *told = text_cleaned(state);
  bool other = strcmp(state, f->said) != 0;
  snprintf(f->said, sizeof f->said, "%s", state);
  bool again = strcmp(state, "pending") == 0 && api_int(run, "attempts") && *api_str(run, "next_try");
  bool shown = other && job && reason && node && told && f->ctl->output != CTL_JSON && json_is_integer(json_object_get(run, "run"));
  if (shown && again)
    fprintf(stderr, "%s run %lld: attempt %lld failed: %s; it is tried again\n", job, api_int(run, "run"), api_int(run, "attempts"), reason);
  else if (shown)
    fprintf(stderr, "%s run %lld: %s%s%s%s%s\n", job, api_int(run, "run"), told, *node ? " on " : "", node, *reason ? ": " : "", reason);
  else if (f->over && job && reason && f->ctl->output != CTL_JSON && !json_is_integer(json_object_get(run, "run")))
    fprintf(stderr, "%s: no run: %s\n", job, reason);
  free(job);
  free(reason);
  free(node);
  free(told);
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct follow *f = arg;
  json_t *run = json_loads(data, 0, NULL);
  if (!run)
    return true;
  json_decref(f->last);
  f->last = run;
  f->over = strcmp(event, "done") == 0;
  if (*api_str(run, "job"))
    ctl_tell_on_interrupt("the run goes on: `orcactl job stop %s` ends it, `orcactl logs -f %s` follows it", api_str(run, "job"),
                          api_str(run, "job"));
  say(f, run);
  return !f->over;
}

static int result(struct follow *f) {
  const json_t *run = f->last;
  int code = CTL_FAILED;
  if (f->ctl->output == CTL_JSON)
    ctl_print_json(f->ctl, run);
  else
    job_print_log(f->ctl, api_str(run, "log"));
  fflush(stdout);
  if (json_is_integer(json_object_get(run, "exit_code")))
    code = (int)api_int(run, "exit_code") & 0xff;
  if (strcmp(api_str(run, "state"), "succeeded") == 0)
    code = CTL_OK;
  else if (code == CTL_OK)
    code = CTL_FAILED;
  json_decref(f->last);
  return code;
}

int job_wait(struct ctl *ctl, const char *path, const json_t *body) {
  struct follow f = {.ctl = ctl};
  struct err err;
  char no_id[64] = "", again[512], whole[600];
  snprintf(whole, sizeof whole, "%s%swait=true", path, strchr(path, '?') ? "&" : "?");
  int rc = api_stream(ctl, "POST", whole, body, no_id, on_event, &f, &err);
  for (unsigned tries = 0; !f.over; tries++) {
    bool lost = rc == 0 || ctl->unreachable || err.code == ERR_UNAVAILABLE || err.code == ERR_NO_LEADER;
    char query[64];
    /* Asked for again it would run again: it is followed by its number, once that was told. */
    if (!lost || !f.last || !api_int(f.last, "run") || tries == LOST_TRIES) {
      if (rc == 0)
        err_set(&err, ERR_UNAVAILABLE, "the apiserver ended the run's progress; `orcactl job history` says how it stands");
      json_decref(f.last);
      return ctl_fail(ctl, &err);
    }
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    snprintf(query, sizeof query, "run=%lld&wait=true", api_int(f.last, "run"));
    if (api_job_path(api_str(f.last, "job"), "", query, again, &err) < 0)
      rc = -1;
    else
      rc = api_stream(ctl, "GET", again, NULL, no_id, on_event, &f, &err);
  }
  return result(&f);
}

int job_start(struct ctl *ctl, const char *path, const json_t *body) {
  struct err err;
  json_t *run;
  if (api_call(ctl, "POST", path, body, &run, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    ctl_print_json(ctl, run);
  } else {
    char *job = text_cleaned(api_str(run, "job"));
    if (json_is_integer(json_object_get(run, "run")))
      printf("%s run %lld\n", job ? job : "", api_int(run, "run"));
    else
      printf("%s: asked for; the scheduler has not taken it up yet\n", job ? job : "");
    free(job);
  }
  json_decref(run);
  return CTL_OK;
}
