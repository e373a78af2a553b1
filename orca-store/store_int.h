/* What the files of the shell share: its state, and what they call of each other. Not for anyone else.
 *
 * One round of the loop goes through them in this order: store_intake.c → store_step.c (core and log) → store_apply.c (map, answers). Beside them
 * stand store_leader.c, store_snapshots.c and, at the start, store_recover.c. A part of the state that names a file is changed there alone. */
#ifndef ORCA_STORE_STORE_INT_H
#define ORCA_STORE_STORE_INT_H

#include <pthread.h>

#include "common/buf.h"
#include "orca-store/lease.h"
#include "orca-store/log.h"
#include "orca-store/proposals.h"
#include "orca-store/reads.h"
#include "orca-store/snapshot.h"
#include "orca-store/store.h"
#include "orca-store/syncer.h"

#define STORE_BATCH_BYTES ((size_t)16 << 20) /* of proposals, in one write to the log or one transaction of the map */
#define STORE_HISTORY_SAMPLES 10u

struct store_job { /* what the thread for files does */
  enum { JOB_COPY, JOB_COPY_OUT, JOB_COMMIT } kind;
  char path[SNAPSHOT_PATH_MAX];
  struct snapshot_meta meta;
  int fd;
  bool failed;
  struct err err;
  store_copy_fn *done;
  void *arg;
};

struct store {
  struct loop *loop;
  const struct store_ops *ops;
  void *arg;
  char *dir, *node;
  char log_dir[SNAPSHOT_PATH_MAX], kv_dir[SNAPSHOT_PATH_MAX], snap_dir[SNAPSHOT_PATH_MAX];
  uint8_t cluster_id[DLOG_CLUSTER_ID];
  size_t map_size;

  struct dlog *log;
  struct raft *raft;
  struct kv *kv;
  struct proposals proposals;
  struct reads reads;
  bool serving, stopping;
  char fault[256];    /* the last refusal for want of space; "" when none */
  struct buf scratch; /* an entry's payload, read from the log */

  struct loop_hook hook; /* store_intake.c */

  struct { /* store_step.c */
    struct raft_actions actions;
    struct syncer *syncer;
    struct loop_timer tick;
    uint64_t commit; /* entries up to here may be applied */
  } step;

  struct { /* store_apply.c */
    size_t batch_limit;
    struct loop_timer space_timer; /* set: there was no room */
  } apply;

  struct { /* store_leader.c */
    struct lease_clock *leases;
    struct loop_timer lease_timer, history_timer;
    uint64_t samples[STORE_HISTORY_SAMPLES]; /* revisions, one a minute */
    size_t n_samples;
    bool compacting;
  } leader;

  struct { /* store_snapshots.c */
    uint64_t each_entries, each_bytes;
    uint64_t newest, before; /* index of the newest (store_recover.c sets it first) and of the one before it */
    uint64_t bytes;          /* put into the log since */
    int64_t not_before;
    struct store_job job;
    pthread_t worker;
    bool runs; /* the worker has the job */
  } snapshots;
};

/* store.c */
void store_fatal(struct store *s, const struct err *err);
void store_note_fault(struct store *s, const struct err *err);               /* err: a refusal; only want of space counts. ERR_NONE: there is room */
void store_set_timer(struct store *s, struct loop_timer *timer, int64_t at); /* INT64_MAX: never */

/* store_recover.c: log, map and core as they were left. What it has opened when it fails is the caller's to close. */
int store_recover(struct store *s, const char *address, struct err *err);

/* store_intake.c */
void store_intake_init(struct store *s);
void store_intake_fini(struct store *s); /* what waits is refused */

/* store_step.c */
void store_step_init(struct store *s);
void store_step_fini(struct store *s);
int store_step_start(struct store *s, struct err *err); /* the syncing thread, and the core's first step */
void store_step_stop(struct store *s);                  /* the syncing thread has ended */
/* The two halves of a step, for who has something to do in between. false: memory ended, which was fatal. */
bool store_step_core(struct store *s, const struct raft_event *ev);
void store_step_act(struct store *s);
void store_step(struct store *s, const struct raft_event *ev);

/* store_apply.c */
void store_apply_init(struct store *s);
void store_apply_fini(struct store *s);
void store_apply(struct store *s); /* all that is committed and has room */
bool store_trim(struct store *s);  /* one step of dropping old history. true: there may be more */

/* store_leader.c */
int store_leader_init(struct store *s, struct err *err);
void store_leader_fini(struct store *s);
void store_leader_changed(struct store *s); /* this member's role is another */
void store_leader_applied(struct store *s, const struct kv_result *r);
void store_leader_plan_history(struct store *s);

/* store_snapshots.c */
void store_snapshots_init(struct store *s, uint64_t each_entries, uint64_t each_bytes); /* 0: the default */
void store_snapshots_stop(struct store *s);                                             /* waits for the thread */
void store_snapshots_logged(struct store *s, size_t bytes);                             /* so much more has gone into the log */
void store_snapshots_consider(struct store *s);                                         /* is one due? */

#endif
