#include <stdio.h>
#include <string.h>

#include "orcactl/change.h"

int cmd_rollback(struct ctl *ctl) {
  const char *to = ctl_value(ctl, "to");
  char query[40] = "";
  if (to && (!*to || strspn(to, "0123456789") != strlen(to) || strlen(to) > 18))
    return ctl_usage(ctl, "--to %s: want the number of a revision, as `orcactl history` lists them", to);
  if (to)
    snprintf(query, sizeof query, "to=%s", to);
  return change_services(ctl, 1, "POST", "/rollback", query, NULL, "rolls back; `orcactl status --watch` follows");
}
