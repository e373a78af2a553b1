#include "orcactl/change.h"

int cmd_restart(struct ctl *ctl) {
  return change_services(ctl, ctl->argc, "POST", "/restart", "", NULL, "all its instances are being replaced; `orcactl status --watch` follows");
}
