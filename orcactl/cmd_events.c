/* events: what has happened in the cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/entries.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void print_event(const struct ctl *ctl, const json_t *e) {
  const char *severity = api_str(e, "severity"), *message = api_str(e, "message");
  const char *color = !ctl->color                      ? ""
                      : strcmp(severity, "error") == 0 ? table_color_code(TABLE_RED)
                      : strcmp(severity, "warn") == 0  ? table_color_code(TABLE_YELLOW)
                                                       : "";
  char when[32], subject[300];
  entries_when(e, when);
  if (*api_str(e, "instance"))
    snprintf(subject, sizeof subject, "%s", api_str(e, "instance"));
  else if (*api_str(e, "service"))
    snprintf(subject, sizeof subject, "%s/%s", api_str(e, "project"), api_str(e, "service"));
  else
    snprintf(subject, sizeof subject, "%s", api_str(e, "node"));
  struct buf line = BUF_INIT((size_t)1 << 20);
  char *kind = text_cleaned(api_str(e, "kind")), *about = text_cleaned(subject), *said = text_cleaned(message),
       *by = text_cleaned(api_str(e, "actor"));
  if (kind && about && said && by) {
    buf_printf(&line, "%s  %-20s  %-20s  %s", when, kind, about, said);
    if (*by)
      buf_printf(&line, " (%s)", by);
    printf("%s%s%s\n", color, buf_str(&line), *color ? "\033[0m" : "");
  }
  free(kind);
  free(about);
  free(said);
  free(by);
  buf_free(&line);
}

int cmd_events(struct ctl *ctl) {
  static const char *const filters[] = {"project", "service", "kind", NULL};
  return entries_show(ctl, &(struct entries){"/api/v1/events", "events", "event", filters, print_event});
}
