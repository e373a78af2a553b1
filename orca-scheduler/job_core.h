/* The next step of one job: which runs begin, end, are tried again or forgotten, and when it is asked again.
 *
 * A pure function of what the job wants, its state and runs so far, what is known of its instances, and two clocks; asked again
 * without a change it answers with nothing to do. What it answers is written in one transaction, so that a tick is taken, and its run there,
 * together or not at all: after a crash at any point no tick is taken twice and none is lost.
 *
 *   run         leaves it when                                                     for
 *   PENDING     its instance runs                                                  RUNNING
 *   both        its instance ended with exit code 0                                SUCCEEDED
 *               the attempt failed (exit code, cannot be made, its node is gone)   PENDING, with attempts left; else FAILED
 *               the attempt was too long                                           PENDING, with attempts left; else TIMED_OUT
 *               the job is stopped, or removed, or another run replaces it         STOPPED
 * A run that waits for another try has no instance. An instance that is not its run's present one, or whose run has ended, is stopped.
 *
 * Ticks. state.next_tick_ms is the next one that nobody has taken. When it has come, it is taken: one run (or a skipped one), and the next is
 * the first after now: however many have been missed, one run makes up for them. Ticks go by the wall clock and never back behind the last one that
 * was taken, unless the clock was put back by more than JOB_CLOCK_BACK: then it had been wrong, and they begin again from what it says now. A new
 * revision, a new job of that name and one that was stopped begin with the first tick after they came.
 *
 * One at a time (forbid, replace): no instance is made, nor sent to a node, while another of the job may still run; on a node that cannot be reached
 * it may, and is not waited for until the node is back. Runs that were asked for wait; ticks are skipped. At most JOB_LIVE_MAX go on at once in any
 * case. Of ticks that are skipped in a row only the first is told as an event; they are kept beside the other ended runs, as many, so that they push
 * none of those out. Times that lie further ahead than they can are of a clock that was wrong, and have come. Times: Unix ms. wall: the wall clock as
 * it is; now: the scheduler's, which does not jump; runs go by it. Threads: none. */
#ifndef ORCA_SCHEDULER_JOB_CORE_H
#define ORCA_SCHEDULER_JOB_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cron/cron.h"
#include "proto/model.pb-c.h"

#define JOB_TEXT 320
#define JOB_STATES 7u /* of model.RunState */
#define JOB_NEVER INT64_MAX
#define JOB_CLOCK_BACK (INT64_C(3) * 3600 * 1000)
#define JOB_CANNOT_START 3u /* tries of the agent to make a container that end an attempt */
#define JOB_RETRY_MS 1000   /* doubled with each attempt */
#define JOB_RETRY_MAX_MS 300000
#define JOB_LAST_LINES_MS 3000 /* so long an ended instance is kept for its last lines to come */
#define JOB_UNSEEN_MS 5000     /* one that was sent to a node and stopped before its agent said anything: so long it may be on its way */
#define JOB_NODE_LOST_MS 30000 /* an agent may be away for so long (its own upgrade, a short cut) without costing an attempt */
#define JOB_LIVE_MAX 100u      /* runs at once, with overlap = allow; beyond it ticks are skipped */
#define JOB_FORGET_MAX 100u    /* of one step: a transaction holds only so much */
#define JOB_NEW_RUNS 8u        /* of one step */

struct job_rules {
  bool scheduled;
  struct cron cron;
  cron_offset_fn *offset; /* NULL: UTC */
  void *offset_arg;
  const char *error; /* scheduled, but it cannot be: why; borrowed */
  Model__Overlap overlap;
  uint32_t retries, history;
  uint64_t timeout_ms; /* 0: none */
};

struct job_input {
  bool exists, suspended, task;
  uint64_t revision, requested;
  int64_t created_ms;     /* of the job */
  int64_t changed_ms;     /* of the job or its revision, the later: no tick before it counts */
  bool revision_known;    /* its record is there */
  uint64_t last_instance; /* the highest number that is taken: a service of that name may have left something behind */
  struct job_rules rules;
};

/* What a JobState says, and will say. All zero: there is none. */
struct job_state {
  uint64_t handled, first_number, next_number, next_instance, revision; /* first_number: of the runs that are of this job and not of one before it */
  int64_t last_tick_ms, next_tick_ms, created_ms, last_success_ms;
  uint64_t ended[JOB_STATES]; /* runs that have ended so far, by their state */
  char error[JOB_TEXT];
};

struct job_instance {
  uint64_t number;
  bool placed, stopped;   /* has a node; its record says STOP */
  bool lost;              /* its node is none any more, or (set here) has been out of reach for JOB_NODE_LOST_MS */
  int64_t unreachable_ms; /* since when it cannot be reached; 0: it can */
  bool node_exists, reported;
  bool unseen; /* nothing was ever heard of it */
  bool running, ended, cannot_start;
  bool told; /* how it ended, with its last lines */
  int32_t exit_code;
  uint32_t tries;
  int64_t since_ms; /* desired_since_ms: it was placed, or stopped */
  int64_t started_ms;
  const char *detail; /* borrowed; may be NULL */
  /* Answers. */
  bool stop, drop; /* drop: the record goes */
  bool hold;       /* it is not to get a node yet */
  const char *why; /* borrowed literal */
};

struct job_run {
  uint64_t number, revision, instance; /* instance 0: none at present */
  Model__RunState state;
  int64_t scheduled_ms, started_ms, ended_ms, next_try_ms;
  uint32_t attempts;
  int32_t exit_code;
  uint64_t request;   /* which of the job's; 0: a tick */
  bool exit_known;    /* exit_code is of the present attempt */
  bool revision_gone; /* nobody knows any more what it would run */
  char reason[JOB_TEXT];
  /* Answers. */
  bool changed, forget, create; /* create: an instance, whose number it names */
};

enum job_event_kind { JOB_STARTED, JOB_SUCCEEDED, JOB_FAILED, JOB_SKIPPED, JOB_TIMED_OUT, JOB_RETRIED, JOB_STOPPED };
struct job_event {
  enum job_event_kind kind;
  uint64_t run;
};
#define JOB_EVENTS 64u

struct job_output {
  bool state_changed;
  bool forget;          /* nothing is left of the job: its state goes */
  bool more;            /* there was too much for one step */
  int64_t next_ms;      /* ask again at this time of `now`; JOB_NEVER */
  int64_t next_wall_ms; /* and at this one of the wall clock */
  struct job_event events[JOB_EVENTS];
  size_t event_count;
};

/* runs and instances are in order of numbers; runs has room for JOB_NEW_RUNS more, *run_count grows by the new ones. */
void job_step(const struct job_input *in, struct job_state *state, struct job_run *runs, size_t *run_count, struct job_instance *instances,
              size_t instance_count, int64_t now_ms, int64_t wall_ms, struct job_output *out);

bool job_run_is_over(Model__RunState state);

#endif
