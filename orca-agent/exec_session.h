/* `orcactl exec`: commands in running containers with their input and output on a stream of the gateway's (StartExec, ExecInput).
 *
 * Output is pushed by credit: without credit Docker's socket is not read, and Docker stops the command. Input comes one piece at a time and is
 * answered once Docker has taken it. When the stream is cancelled, or the conversation is lost, the command is ended: Docker leaves it running when
 * its connection closes and has no call to end it, so its process group gets SIGHUP, and SIGKILL five seconds later; when the agent itself went,
 * by the next one (exec_marks.h). What has left that group (setsid) lives on until its container stops.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_EXEC_SESSION_H
#define ORCA_AGENT_EXEC_SESSION_H

#include "common/bus/bus.h"
#include "common/err.h"
#include "proto/node.pb-c.h"

#define EXEC_SESSIONS_MAX 64u
#define EXEC_INPUT_MAX ((size_t)64 << 10) /* bytes of one ExecInput */

struct agent;
struct exec_sessions;

struct exec_sessions *exec_sessions_open(struct agent *a, struct err *err);
/* Before Docker's client and the gateway are closed. Hangs up the commands it knows the processes of. Takes NULL. */
void exec_sessions_close(struct exec_sessions *execs);

/* Both answer the call, now or later. */
void exec_sessions_start(struct exec_sessions *execs, struct bus_call *call, const Node__StartExec *m);
void exec_sessions_input(struct exec_sessions *execs, struct bus_call *call, const Node__ExecInput *m);

#endif
