/* An instance's spec as the body of POST /containers/create.
 * Threads: pure. */
#ifndef ORCA_AGENT_CONTAINER_JSON_H
#define ORCA_AGENT_CONTAINER_JSON_H

#include <jansson.h>

#include "common/err.h"
#include "orca-agent/core.h"

struct agent_container_source {
  const char *image;            /* what to create from */
  const char *node_address;     /* published ports bind to it */
  char *const *mounts;          /* host path of each of the spec's mounts, in their order */
  const Node__Secrets *secrets; /* NULL: the spec names none */
  const char *secrets_dir;      /* host path of its secret files */
};
/* NULL and *err when the spec can't be expressed (an unresolved ${…}, a bad port, no memory). */
json_t *agent_container_json(const struct agent_core *core, const struct agent_instance *i, const struct agent_container_source *from,
                             struct err *err);
json_t *agent_network_json(const struct agent_core *core, const char *name, const char *project, const char *node_address);
json_t *agent_volume_json(const struct agent_core *core, const char *project, const Model__Volume *volume);

#endif
