#include <stdio.h>

#include "common/buf.h"
#include "orcactl/change.h"

int cmd_rm(struct ctl *ctl) {
  if (!ctl_flag(ctl, "purge"))
    return change_services(ctl, ctl->argc, "DELETE", "", "", NULL, "stopped; its spec stays (`orcactl rm --purge` forgets it)");
  struct buf question = BUF_INIT(8192);
  buf_add_str(&question, "Forget");
  for (int i = 0; i < ctl->argc; i++)
    buf_printf(&question, "%s %s", i ? "," : "", ctl->argv[i]);
  buf_add_str(&question, ", with spec and revisions?");
  int rc = ctl_confirm(ctl, buf_str(&question));
  buf_free(&question);
  return rc == CTL_OK ? change_services(ctl, ctl->argc, "DELETE", "", "purge=true", NULL, "removed") : rc;
}
