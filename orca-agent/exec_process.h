/* The process of an exec: Docker has no call to end it. Its pid is what Docker said, perhaps a while ago. Threads: none. */
#ifndef ORCA_AGENT_EXEC_PROCESS_H
#define ORCA_AGENT_EXEC_PROCESS_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* Of Docker's answer about an exec; 0: it says none. */
pid_t exec_process_pid(const json_t *exec);

/* To it and all that it has started, where that is still of its process group. false: nothing was signalled, and nothing will be: it is gone, or is
 * not known to be of the container (said in the log). */
bool exec_process_signal(const char *container, pid_t pid, int signo);

#endif
