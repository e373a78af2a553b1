/* Commands that were begun in containers and are not known to have ended: one file each in STATE_DIR/agent/execs. Docker leaves them running when
 * their agent goes, however it goes; the next one finds them here and ends them (exec_session.c). Threads: the loop's. */
#ifndef ORCA_AGENT_EXEC_MARKS_H
#define ORCA_AGENT_EXEC_MARKS_H

#include "common/err.h"

struct exec_marks;

/* Makes the folder in agent_dir, which must be there. NULL and *err. */
struct exec_marks *exec_marks_open(const char *agent_dir, struct err *err);
void exec_marks_close(struct exec_marks *m); /* takes NULL; the files stay */

/* Before Docker is asked to start it. Ids are Docker's: hexadecimal, at most AGENT_CONTAINER_ID - 1. A disk that is full keeps no command from
 * running: it is said in the log. */
void exec_mark(struct exec_marks *m, const char *exec_id, const char *container);
void exec_unmark(struct exec_marks *m, const char *exec_id);

/* What is there, of which at most EXEC_MARKS_MAX are told. each() may call exec_unmark(). */
#define EXEC_MARKS_MAX 1000u
void exec_marks_each(struct exec_marks *m, void (*each)(void *arg, const char *exec_id, const char *container), void *arg);

#endif
