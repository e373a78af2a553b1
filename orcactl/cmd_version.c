#include <stdio.h>
#include <stdlib.h>

#include "common/daemon/daemon.h"
#include "orcactl/api.h"
#include "orcactl/text.h"

/* Useful without a cluster, too: then only orcactl's own version is said, and that is no failure. */
int cmd_version(struct ctl *ctl) {
  struct err err;
  json_t *info = NULL;
  bool there = api_call(ctl, "GET", "/api/v1/cluster/info", NULL, &info, &err) == 0;
  if (ctl->output == CTL_JSON) {
    json_t *out = json_pack("{s:s}", "orcactl", ORCA_VERSION);
    if (there)
      json_object_set(out, "cluster", info);
    ctl_print_json(ctl, out);
    json_decref(out);
  } else {
    printf("orcactl  %s\n", ORCA_VERSION);
    char *version = text_cleaned(there ? api_str(info, "version") : err.msg), *id = text_cleaned(there ? api_str(info, "id") : "");
    if (version && id)
      printf("cluster  %s%s%s\n", version, *id ? "  " : "", id);
    free(version);
    free(id);
  }
  json_decref(info);
  return CTL_OK;
}
