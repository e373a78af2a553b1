#include <stdio.h>
#include <stdlib.h>

#include "orcactl/change.h"

#define REPLICAS_MAX 10000

int cmd_scale(struct ctl *ctl) {
  char *end, said[64];
  long n = strtol(ctl->argv[1], &end, 10);
  if (ctl->argv[1][0] < '0' || ctl->argv[1][0] > '9' || *end || n > REPLICAS_MAX)
    return ctl_usage(ctl, "%s: want a number of instances from 0 to %d", ctl->argv[1], REPLICAS_MAX);
  json_t *body = json_pack("{s:I}", "replicas", (json_int_t)n);
  snprintf(said, sizeof said, "scaled to %ld", n);
  int rc = change_services(ctl, 1, "POST", "/scale", "", body, said);
  json_decref(body);
  return rc;
}
