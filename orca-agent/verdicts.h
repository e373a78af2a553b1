/* What the keeper says; and its last verdicts on disk (STATE_DIR/agent/verdicts), so that an agent that restarts does not call ready instances
 * unready until the keeper has spoken again.
 *
 * One line each: CONTAINER STARTED_MS STARTED READY. Disposable: a missing or torn file only costs that moment.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_VERDICTS_H
#define ORCA_AGENT_VERDICTS_H

#include "orca-agent/agent.h"
#include "proto/keeper.pb-c.h"

/* What the keeper says, as the core takes it; borrows its texts. */
struct agent_event verdict_event(const Keeper__Verdict *said);

struct verdicts *verdicts_open(struct agent *a, struct err *err);
void verdicts_close(struct verdicts *v);
/* Something changed: gives the core what is remembered of containers it has just found, and writes what is new. */
void verdicts_restore(struct verdicts *v);

#endif
