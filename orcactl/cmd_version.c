#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "orcactl/api.h"
#include "orcactl/pin.h"
#include "orcactl/text.h"

/* Useful without a cluster, too: then only orcactl's own version is said, and that is no failure. */
int cmd_version(struct ctl *ctl) {
  struct err err;
  json_t *health = NULL;
  bool there = api_call(ctl, "GET", "/api/v1/health", NULL, &health, &err) == 0;
  char pin[65] = "";
  bool pinned = strncmp(ctl->context.url, "https:", 6) == 0 && *ctl->context.ca && pin_of_pem(ctl->context.ca, pin) == 0;
  if (ctl->output == CTL_JSON) {
    json_t *out =
        json_pack("{s:s,s:s?,s:s?}", "orcactl", ORCA_VERSION, "cluster", there ? api_str(health, "version") : NULL, "ca_sha256", pinned ? pin : NULL);
    ctl_print_json(ctl, out);
    json_decref(out);
  } else {
    char *version = text_cleaned(there ? api_str(health, "version") : err.msg);
    printf("orcactl  %s\ncluster  %s%s%s\n", ORCA_VERSION, version ? version : "", there ? " at " : "", there ? ctl->context.url : "");
    if (pinned)
      printf("ca       sha256 %s\n", pin);
    free(version);
  }
  json_decref(health);
  return CTL_OK;
}
