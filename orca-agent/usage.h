/* What the node and its running containers use, read from cgroup files and /proc every 15 s while something runs.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_USAGE_H
#define ORCA_AGENT_USAGE_H

#include "orca-agent/agent.h"

struct usage *usage_open(struct agent *a, struct err *err);
void usage_close(struct usage *u);
/* Instances came or went: sample again soon, or stop sampling. */
void usage_changed(struct usage *u);
/* Adds the newest figures to a report, once. */
void usage_add(struct usage *u, Node__StatusReport *m);
bool usage_pending(const struct usage *u);

#endif
