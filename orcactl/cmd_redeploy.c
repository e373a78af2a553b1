#include "orcactl/change.h"

int cmd_redeploy(struct ctl *ctl) {
  return change_services(ctl, ctl->argc, "POST", "/redeploy", "", NULL, "its image is pulled again and it rolls; `orcactl status --watch` follows");
}
