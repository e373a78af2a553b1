/* What the files that decide share among themselves: one RUN of the core, and the writes it gathers. Not for others.
 * -1 and NULL: memory has ended. */
#ifndef ORCA_SCHEDULER_SCHED_RUN_H
#define ORCA_SCHEDULER_SCHED_RUN_H

#include "orca-scheduler/sched_core.h"

struct run {
  struct sched_core *core;
  struct sched_actions *actions;
  int64_t now;
  int64_t wall; /* the clock on the wall, for schedules alone */
};

int run_put(struct run *run, const char *key, const ProtobufCMessage *message);
int run_delete(struct run *run, const char *key);
int run_put_instance(struct run *run, const struct sched_instance *instance);
int run_set_text(char **field, const char *text);
/* An event for people; number 0: it is about the whole service. */
int run_tell(struct run *run, const struct sched_service *service, uint64_t number, const char *severity, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* In the state only: place_pending writes it, wherever it goes. */
struct sched_instance *run_create_instance(struct run *run, struct sched_service *service, uint64_t number, uint64_t revision, uint64_t generation);
/* A place for each instance of the job that has none; those from fresh_from on are written in any case. */
int run_place_pending(struct run *run, struct sched_service *service, uint64_t fresh_from);
struct sched_state *run_state(struct run *run);

#endif
