/* audit: who did what, from where, on what, and how it ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/entries.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void print_entry(const struct ctl *ctl, const json_t *e) {
  const char *result = api_str(e, "result");
  bool ok = strcmp(result, "ok") == 0;
  char when[32], count[32] = "";
  entries_when(e, when);
  if (api_int(e, "count") > 1)
    snprintf(count, sizeof count, " (%lld times)", api_int(e, "count"));
  char *actor = text_cleaned(*api_str(e, "actor") ? api_str(e, "actor") : "-"), *from = text_cleaned(api_str(e, "from")),
       *method = text_cleaned(api_str(e, "method")), *path = text_cleaned(api_str(e, "path")), *target = text_cleaned(api_str(e, "target")),
       *said = text_cleaned(result);
  if (actor && from && method && path && target && said)
    printf("%s%s  %-12s  %-15s  %-6s %s%s%s  %s%s%s\n", ctl->color && !ok ? table_color_code(TABLE_YELLOW) : "", when, actor, from, method, path,
           *target ? "  " : "", target, said, count, ctl->color && !ok ? "\033[0m" : "");
  free(actor);
  free(from);
  free(method);
  free(path);
  free(target);
  free(said);
}

int cmd_audit(struct ctl *ctl) {
  static const char *const filters[] = {"project", "actor", NULL};
  return entries_show(ctl, &(struct entries){"/api/v1/audit", "entries", "audit", filters, print_entry});
}
