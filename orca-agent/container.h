/* What Docker says of one container, as far as the agent cares: filled by docker_parse.c, judged by the core.
 * Plain values without owners: copied freely. */
#ifndef ORCA_AGENT_CONTAINER_H
#define ORCA_AGENT_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define AGENT_CONTAINER_ID 65
#define AGENT_NAME_MAX 256

#define AGENT_LABEL_CLUSTER "orca.cluster"
#define AGENT_LABEL_NODE "orca.node"
#define AGENT_LABEL_PROJECT "orca.project"
#define AGENT_LABEL_SERVICE "orca.service"
#define AGENT_LABEL_INSTANCE "orca.instance"
#define AGENT_LABEL_REVISION "orca.revision"
#define AGENT_LABEL_EPOCH "orca.epoch"
#define AGENT_LABEL_SPEC "orca.spec"
#define AGENT_LABEL_RESTART "orca.restart" /* always | on-failure | never: how to go on without any master */
#define AGENT_LABEL_SECRETS "orca.secrets" /* which versions it was made with: secret_values.h */
#define AGENT_SECRETS_LABEL_MAX 1024
#define AGENT_LABEL_VOLUME "orca.volume" /* of a volume: its source in the spec */

enum agent_cstate {
  AGENT_C_UNKNOWN, /* look before anything is done */
  AGENT_C_NONE,
  AGENT_C_CREATED,
  AGENT_C_RUNNING,
  AGENT_C_EXITED,
  AGENT_C_BROKEN, /* dead or half removed: only good for removal */
};

struct agent_container {
  char id[AGENT_CONTAINER_ID]; /* "" when there is none */
  char name[AGENT_NAME_MAX];   /* without the leading slash */
  bool ours;                   /* carries this cluster's and this node's labels and names an instance */
  char project[64], service[64];
  uint64_t number, revision, epoch;
  char spec_hash[65];
  uint8_t restart; /* Model__RestartPolicy by its label */
  enum agent_cstate state;
  bool host_network;
  char network[AGENT_NAME_MAX];    /* the one it was made on */
  char address[46];                /* on that network; "" when it has none */
  bool detailed;                   /* the fields below are known (inspect); a list has them not */
  int64_t started_ns, finished_ns; /* Unix time; 0: never */
  int32_t exit_code;
  bool oom_killed;
  pid_t pid;
  char secrets[AGENT_SECRETS_LABEL_MAX]; /* its label, unparsed */
};

#endif
