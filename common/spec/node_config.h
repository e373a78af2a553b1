/* node.toml: the little that one machine's daemons need before there is a cluster to ask (docs/config reference).
 *
 * Every default of the reference is filled in; all strings are owned by the struct and never NULL unless said so.
 * Threads: read-only after reading. */
#ifndef ORCA_COMMON_SPEC_NODE_CONFIG_H
#define ORCA_COMMON_SPEC_NODE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct spec_faults;

struct node_master {
  char *name, *address;
  char *key;       /* CURVE public key of its node gateway (apiserver), Z85 */
  char *store_key; /* CURVE public key of its store; only masters need it; "" elsewhere */
};

struct node_config {
  char *name, *address, *state_dir, *run_dir, *key_dir, *docker;
  enum node_role { NODE_MASTER, NODE_WORKER } role;
  int store_backend; /* 0: raft */
  char *cluster_id;
  struct node_master *masters;
  size_t master_count;
  uint16_t port_api, port_gateway, port_store, port_raft, port_gossip, port_http, port_https;
};

/* Reads and checks the file; -1 with every fault in *faults (and their sum in *err). */
int node_config_read(const char *path, struct node_config *ret, struct spec_faults *faults, struct err *err);
/* The same from text; `file` is for the faults. */
int node_config_parse(const char *file, const char *text, size_t len, struct node_config *ret, struct spec_faults *faults, struct err *err);
void node_config_free(struct node_config *config);

#endif
