/* An agent of a loop and a core, without sockets, files or masters: what tests of a part of the shell stand on. What its core wants done stays in its
 * queue. What goes wrong fails the test. */
#ifndef ORCA_TESTS_UNIT_AGENT_BARE_AGENT_H
#define ORCA_TESTS_UNIT_AGENT_BARE_AGENT_H

#include "orca-agent/agent.h"

/* The daemon is borrowed, and may be NULL. */
struct agent *bare_agent_new(struct daemon *daemon);
/* With its docker and http where it has them. What else a test has opened, it closes before. */
void bare_agent_free(struct agent *a);

/* A client of the Docker at this socket. */
void bare_agent_connect(struct agent *a, const char *path);
/* One more instance, the agent's own; ids come in their order. */
struct agent_instance *bare_agent_add(struct agent *a, const char *id);
/* Its loop turns for so long, or until something ends it. */
void bare_agent_run(struct agent *a, int64_t ns);

#endif
