#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/ctl.h"
#include "orcactl/init.h"

static int read_port(struct ctl *ctl, const char *option, uint16_t *ret) {
  const char *text = ctl_value(ctl, option);
  char *end;
  if (!text)
    return CTL_OK;
  long n = strtol(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > 65535)
    return ctl_usage(ctl, "--%s %s: want a port from 1 to 65535", option, text);
  *ret = (uint16_t)n;
  return CTL_OK;
}

int cmd_init(struct ctl *ctl) {
  struct init_options options = {
      .name = ctl_value(ctl, "name"),
      .address = ctl_value(ctl, "address"),
      .root = ctl_value(ctl, "root"),
      .docker = ctl_value(ctl, "docker"),
      .context = ctl->context_name,
      .use = ctl_flag(ctl, "use"),
      .free_ports = ctl_flag(ctl, "free-ports"),
  };
  if (read_port(ctl, "http-port", &options.http_port) != CTL_OK || read_port(ctl, "https-port", &options.https_port) != CTL_OK)
    return CTL_USAGE;
  char node_toml[PATH_MAX], ca_hash[65];
  struct err err;
  if (init_run(&options, node_toml, ca_hash, &err) < 0)
    return ctl_fail(ctl, &err);
  if (ctl->output == CTL_JSON) {
    json_t *out = json_pack("{s:s,s:s}", "node_toml", node_toml, "ca_sha256", ca_hash);
    int rc = ctl_print_json(ctl, out);
    json_decref(out);
    return rc;
  }
  printf("This machine is a master now: %s\n", node_toml);
  printf("Its CA, for `orcactl login` elsewhere: sha256:%s\n", ca_hash);
  if (!options.root)
    printf("Start it: systemctl enable --now orca-master.target\n");
  json_t *contexts = context_all(&err);
  const char *mine = options.context ? options.context : "default", *current = contexts ? api_str(contexts, "current") : mine;
  if (strcmp(current, mine) != 0)
    printf("orcactl still talks to the cluster of context %s: `orcactl context use %s` changes that\n", current, mine);
  json_decref(contexts);
  return CTL_OK;
}
