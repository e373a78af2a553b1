/* What the node and its running containers use, read from cgroup files, /proc and /sys every 15 s while something runs,
 * every 2 s while somebody looks at the figures.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_USAGE_H
#define ORCA_AGENT_USAGE_H

#include "orca-agent/agent.h"

struct usage *usage_open(struct agent *a, struct err *err);
void usage_close(struct usage *u);
/* Instances came or went: sample again soon, or stop sampling. */
void usage_changed(struct usage *u);
/* Somebody looks: sample at this interval for a while. */
void usage_watch(struct usage *u, uint32_t interval_ms, uint32_t for_ms);
/* Adds the newest figures to a report, once. */
void usage_add(struct usage *u, Node__StatusReport *m);
bool usage_pending(const struct usage *u);

#endif
