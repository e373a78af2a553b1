/* Making a master: keys, cluster CA, master.key, first token, node.toml and orcactl's context.
 *
 * Everything is written before node.toml, and node.toml last and at once: an init that was cut off can be
 * run again and keeps the keys that are there. One that has finished is refused.
 * Threads: none. */
#ifndef ORCA_ORCACTL_INIT_H
#define ORCA_ORCACTL_INIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct init_options {
  const char *name;               /* NULL: the host name */
  const char *address;            /* NULL: 127.0.0.1 */
  const char *root;               /* everything in this folder; NULL: /etc/orca, /var/lib/orca, /run/orca */
  const char *docker;             /* NULL: /run/docker.sock */
  const char *context;            /* NULL: "default" */
  bool use;                       /* make it the current context */
  bool free_ports;                /* a taken port gives way to a free one; else it is an error */
  uint16_t http_port, https_port; /* 0: 80, 443 */
};
/* Fills node_toml with the path written (PATH_MAX bytes), ca_hash with the SHA-256 of the cluster's CA, by which others pin it. ERR_CONFLICT: this
 * node is a master already. */
int init_run(const struct init_options *options, char *node_toml, char ca_hash[65], struct err *err);

#endif
