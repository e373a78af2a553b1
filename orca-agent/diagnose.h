/* What is well and what is not on this node, for `orcactl doctor`: the machine's clock, disks, limits, sockets, keys, and what Docker says of itself.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_DIAGNOSE_H
#define ORCA_AGENT_DIAGNOSE_H

#include <jansson.h>

#include "common/doctor/doctor.h"
#include "orca-agent/agent.h"

#define DIAGNOSE_PORTS 4096u

/* Answers the call (Reply.diagnosis), once Docker has told or its time is over. */
void diagnose(struct agent *a, struct bus_call *call);
void diagnose_close(struct agent *a); /* forgets those under way: once Docker's calls and the conversations have ended */

/* For tests: the judging of GET /info and GET /version; either may be NULL. */
void diagnose_docker(struct doctor_report *report, const json_t *info, const json_t *version, const char *error);
/* The host ports that what is assigned here declares; returns how many. */
size_t diagnose_ports(const struct agent_core *core, struct doctor_port *list, size_t size);

#endif
