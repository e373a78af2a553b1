#include "orcactl/change.h"

int cmd_start(struct ctl *ctl) {
  return change_services(ctl, ctl->argc, "POST", "/start", "", NULL, "runs again");
}
