/* Asking on the terminal for what must not be seen.
 * Threads: none. */
#ifndef ORCA_ORCACTL_ASK_H
#define ORCA_ORCACTL_ASK_H

#include "common/buf.h"
#include "common/err.h"

/* One line, without echo when stdin is a terminal (then `prompt` is shown); everything to its end, without one line end, when it is not.
 * The caller wipes `to`. */
int ask_hidden(const char *prompt, struct buf *to, struct err *err);

#endif
