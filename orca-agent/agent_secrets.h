/* Secrets on this node: fetched when a container is made, held until it is, written to its files before it starts.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_AGENT_SECRETS_H
#define ORCA_AGENT_AGENT_SECRETS_H

#include "orca-agent/agent.h"

/* Fetches what the instance's spec names, lays its files, holds the values for its create. */
typedef void agent_secrets_fn(void *arg, enum err_code code, const char *why);
void agent_secrets_fetch(struct agent *a, const char *instance, agent_secrets_fn *done, void *arg);
const Node__Secrets *agent_secrets_held(const struct agent *a, const char *instance); /* NULL: none */
void agent_secrets_drop(struct agent *a, const char *instance);                       /* wiped */
void agent_secrets_fini(struct agent *a);

/* Before a start of one with secret files: they are there (after a reboot of the machine they are not) and are its user's. True when it takes the
 * action: agent_docker_start_container() then follows, or a failed answer. */
bool agent_secrets_before_start(struct agent *a, const struct agent_action *act);
/* Drops the files of containers that are not known any more. */
void agent_secrets_sweep(struct agent *a);

#endif
