/* What the scheduler knows: the records of the store by service and node, indexed, with the usage of every node kept as records come
 * and go. Filled from the mirror's puts and deletes; between them sched_core writes its own decisions into it.
 *
 * Ownership: everything here belongs to the state. Malformed values are refused and leave the state as it was.
 * Threads: none. Times: Unix ms. */
#ifndef ORCA_SCHEDULER_SCHED_STATE_H
#define ORCA_SCHEDULER_SCHED_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-scheduler/needs.h"
#include "orca-scheduler/place.h"
#include "orca-scheduler/rollout.h"
#include "orca-scheduler/sched_map.h"
#include "proto/model.pb-c.h"

struct sched_job;
struct zone;

struct sched_revision {
  uint64_t number;
  Model__Revision *record;  /* the spec as written */
  Model__ServiceSpec *spec; /* with defaults */
  struct place_need need;   /* borrows from spec */
  struct rollout_policy policy;
  uint64_t min_ready_ms, drain_limit_ms;
  bool gone; /* deleted from the store, kept for the instances that still run it */
};

struct sched_instance {
  struct sched_service *service;
  uint64_t number;
  Model__Instance *record;                /* NULL: only a status is known */
  Model__InstanceStatus *status;          /* NULL: its agent has said nothing, or nothing is left of it */
  int64_t ready_since_ms, first_ready_ms; /* by the scheduler's own clock where it saw the change; 0: not ready, never was */
  bool was_reported;                      /* its agent has said something of it, as far as this scheduler has seen */
  bool on_hold;                           /* of a job: another of it may still run */
  bool leaves;                            /* of a job: its record goes with this step */
  bool was_available;                     /* ready for min_ready, at some time that this scheduler has seen */
  bool orphan;                            /* its service was deleted while it ran: it is not of the service that came after under that name */
  struct place_node *counted;             /* where its need is taken; NULL */
  const struct sched_revision *counted_as;
  int gpu_group;
};

struct sched_service {
  char *id; /* PROJECT/NAME */
  char project[64], name[64];
  Model__Service *record; /* NULL: there is none (any more) */
  Model__Rollout *rollout;
  struct sched_job *job;             /* what there is of a job of this name (sched_jobs.h); NULL: nothing */
  struct sched_revision **revisions; /* sorted by number */
  size_t revision_count, revision_size;
  struct sched_instance **instances; /* sorted by number */
  size_t instance_count, instance_size;
  size_t pending;      /* RUN without a node, at its last step */
  bool rollout_is_old; /* the rollout is of a deleted service of that name: only its next_number counts */
  int64_t wake_ms;     /* ROLLOUT_NEVER */
  bool dirty;
  struct sched_service *next_dirty;
};

struct sched_event_key { /* of an event in /history/scheduler/, oldest first */
  int64_t ms;
  uint32_t seq;
};

struct sched_state {
  struct sched_map services;
  struct sched_service **list; /* the same, in order of appearance */
  size_t count, size;
  struct place_table nodes;
  struct sched_service *dirty, **dirty_end;
  bool retry;                                                   /* something that pending instances may have waited for has changed */
  bool synced;                                                  /* the first state is complete: changes from here on are seen as they happen */
  int64_t synced_ms;                                            /* since then, and without a gap */
  size_t avoiding;                                              /* revisions with placement.avoid */
  struct zone *(*load_zone)(const char *name, struct err *err); /* NULL: only UTC is known */
  struct sched_event_key *history;                              /* a ring */
  size_t history_first, history_count, history_size;
};

void sched_state_init(struct sched_state *state);
void sched_state_fini(struct sched_state *state);

/* One key of the mirror. Keys that the scheduler does not need are passed over. -1: malformed, or no memory (ERR_MEMORY: the state is not to be
 * trusted any more). */
int sched_state_put(struct sched_state *state, const char *key, const uint8_t *value, size_t len, int64_t now_ms, struct err *err);
int sched_state_delete(struct sched_state *state, const char *key, struct err *err);

struct sched_service *sched_state_service(const struct sched_state *state, const char *id); /* NULL when unknown */
const struct sched_revision *sched_service_revision(const struct sched_service *service, uint64_t number);
struct sched_instance *sched_service_instance(const struct sched_service *service, uint64_t number);
void sched_state_touch(struct sched_state *state, struct sched_service *service); /* it is to be stepped */
struct sched_service *sched_state_next(struct sched_state *state);                /* takes the next to be stepped; NULL: none */
void sched_state_tidy(struct sched_state *state, struct sched_service *service);  /* forgets what is left of nothing; the service may be freed */

/* The scheduler's own changes. */
struct sched_instance *sched_state_add(struct sched_state *state, struct sched_service *service, uint64_t number,
                                       Model__Instance *record); /* takes record; NULL: no memory */
int sched_instance_place(struct sched_state *state, struct sched_instance *instance,
                         struct place_node *node);                                    /* counts it there and names it in its record */
void sched_instance_drop(struct sched_state *state, struct sched_instance *instance); /* its record is deleted; the instance may be freed */
int sched_history_add(struct sched_state *state, int64_t ms, uint32_t seq);

/* The status, when it is about this very placement of it. */
const Model__InstanceStatus *sched_instance_status(const struct sched_instance *instance);

#endif
