#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/doctor/probe.h"
#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

struct tally {
  unsigned well, warnings, wrong;
};

static void print(const struct ctl *ctl, const char *level, const char *text, const char *advice, struct tally *tally) {
  bool wrong = strcmp(level, "wrong") == 0, warning = strcmp(level, "warning") == 0;
  *(wrong ? &tally->wrong : warning ? &tally->warnings : &tally->well) += 1;
  enum table_color color = wrong ? TABLE_RED : warning ? TABLE_YELLOW : TABLE_GREEN;
  struct buf b = BUF_INIT((size_t)1 << 16);
  buf_printf(&b, "  %s%s%s ", ctl->color ? table_color_code(color) : "",
             wrong     ? text_mark("✗", "x")
             : warning ? "!"
                       : text_mark("✓", "+"),
             ctl->color ? "\033[0m" : "");
  text_clean(text, &b);
  puts(buf_str(&b));
  buf_free(&b);
  if (!*advice || (!wrong && !warning))
    return;
  buf_add_str(&b, "    ");
  text_clean(advice, &b);
  puts(buf_str(&b));
  buf_free(&b);
}

static void findings(const struct ctl *ctl, const char *title, const json_t *list, struct tally *tally) {
  size_t i;
  json_t *f;
  struct buf b = BUF_INIT((size_t)1 << 16);
  text_clean(title, &b);
  puts(buf_str(&b));
  buf_free(&b);
  json_array_foreach(list, i, f) print(ctl, api_str(f, "level"), api_str(f, "text"), api_str(f, "advice"), tally);
}

static bool has_clock(const json_t *list) {
  size_t i;
  json_t *f;
  json_array_foreach(list, i, f) if (strcmp(api_str(f, "check"), "clock") == 0) return true;
  return false;
}

/* A master without TLS listens on loopback alone: it is on this machine, and so is its agent. What a unit confines may not see the clock. */
static bool told_of_this_clock(const struct ctl *ctl, const json_t *reply) {
  size_t i;
  json_t *node;
  if (!reply || strncmp(ctl->context.url, "http://", 7) != 0)
    return false;
  json_array_foreach(json_object_get(reply, "nodes"), i, node) {
    if (strcmp(api_str(node, "node"), api_str(reply, "master")) == 0 && has_clock(json_object_get(node, "findings")))
      return true;
  }
  return has_clock(json_object_get(reply, "findings"));
}

/* What only this machine and this user can see; that the token is private, or refused, is the context's own matter. */
static void local(const struct ctl *ctl, const json_t *reply, struct doctor_report *r) {
  struct doctor_clock clock;
  if (ctl->has_context)
    doctor_add(r, DOCTOR_WELL, "context", "", "the context is %.60s, %.200s", ctl->context.name, ctl->context.url);
  if (told_of_this_clock(ctl, reply))
    return;
  doctor_read_clock(&clock);
  doctor_check_clock(r, &clock);
}

static json_t *report_json(const struct doctor_report *r) {
  static const char *const words[] = {"well", "warning", "wrong"};
  json_t *list = json_array();
  for (size_t i = 0; i < r->count; i++)
    json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "check", r->list[i].check, "level", words[r->list[i].level], "text", r->list[i].text,
                                          "advice", r->list[i].advice));
  return list;
}

/* Why there is nothing from the cluster, and what helps. */
static void untold(const struct ctl *ctl, const struct err *err, struct doctor_report *r) {
  if (!ctl->has_context) {
    doctor_add(r, DOCTOR_WRONG, "context", "", "%.300s", err->msg);
    return;
  }
  const char *advice = err->code == ERR_UNAUTHENTICATED ? "a new token: `orcactl login`"
                       : err->code == ERR_DENIED        ? "ask with an admin's token for all projects"
                                                        : "`systemctl status orca-apiserver` on the master, and the way to it";
  doctor_add(r, DOCTOR_WRONG, "apiserver", advice, "the apiserver does not tell: %.200s", err->msg);
}

int cmd_doctor(struct ctl *ctl) {
  struct doctor_report own = {0};
  struct tally tally = {0};
  struct err err;
  json_t *reply = NULL, *here, *node;
  size_t i;
  bool told = api_call(ctl, "GET", "/api/v1/doctor", NULL, &reply, &err) == 0;
  local(ctl, reply, &own);
  if (!told)
    untold(ctl, &err, &own);
  here = report_json(&own);
  doctor_free(&own);
  if (ctl->output == CTL_JSON) {
    json_t *all = reply ? json_incref(reply) : json_object();
    json_object_set(all, "orcactl", here);
    ctl_print_json(ctl, all);
    json_array_foreach(here, i, node) tally.wrong += strcmp(api_str(node, "level"), "wrong") == 0;
    tally.wrong += (unsigned)api_int(reply, "wrong");
    json_decref(all);
  } else {
    findings(ctl, "orcactl", here, &tally);
    if (reply) {
      char title[300];
      snprintf(title, sizeof title, "master %s", api_str(reply, "master"));
      findings(ctl, title, json_object_get(reply, "findings"), &tally);
      json_array_foreach(json_object_get(reply, "nodes"), i, node) {
        snprintf(title, sizeof title, "node %s", api_str(node, "node"));
        findings(ctl, title, json_object_get(node, "findings"), &tally);
      }
    }
    printf("\n%u well, %u to look at, %u wrong\n", tally.well, tally.warnings, tally.wrong);
  }
  json_decref(here);
  json_decref(reply);
  return tally.wrong ? CTL_FAILED : CTL_OK;
}
