/* The agent's core against a Docker in memory that is slow, fails, forgets to answer, loses events, dies and comes back, and masters who say what
 * is wanted. At every step an instance has at most one action under way, no more begin at once than there are slots, nothing is created but what
 * was prepared, from the image of its own spec, and a job's run is never started twice: what goes against that fails the test.
 *
 * One world at a time, in `rig`: rig_begin() makes it, rig_finish() frees it. All that happens in it is drawn from the seed. Tests look into it and
 * put into it what they like; what a function takes is borrowed, what it gives is the rig's or the core's unless it says otherwise. */
#ifndef ORCA_TESTS_UNIT_AGENT_CORE_RIG_H
#define ORCA_TESTS_UNIT_AGENT_CORE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-agent/core.h"
#include "orca-agent/report.h"

#define MAX_CONTAINERS 64
#define MAX_PENDING 512
#define MAX_NETWORKS 32
#define MAX_EVENTS 256
#define NUMBERS 3
#define SLOTS 2
#define EPOCHS 256

/* The services of the project "shop". */
enum {
  API,
  STORES, /* has a volume that is another in each revision */
  OPEN,   /* is on the host's network, with a secret */
  JOB,    /* ends */
  SERVICES
};
extern const char *const rig_services[SERVICES];

struct rig_call { /* what the core has asked of Docker */
  struct agent_action act;
  int64_t due;
  bool effect_done, late; /* late: asked for by an agent that is gone; nobody hears the answer */
  enum err_code outcome;
  struct agent_container made; /* CREATE: what was asked for */
  unsigned image;
  uint64_t prepares;                               /* PREPARE: for what */
  struct agent_container snapshot[MAX_CONTAINERS]; /* LIST: as it was when Docker looked */
  unsigned snapshot_count;
  struct agent_found_network nets[MAX_NETWORKS];
  unsigned net_count;
  char text[AGENT_CONTAINER_ID];
  struct agent_container seen;
};

struct rig_event {
  struct agent_event ev;
  char id[AGENT_CONTAINER_ID];
  int64_t due;
};

struct rig_want {
  bool assigned, stop;
  uint64_t epoch, revision;
  unsigned made;               /* how many services of this name there were before; its image is another in each */
  uint64_t prepared;           /* for which revision of which of them */
  Model__InstanceStatus *told; /* as the masters have it */
};

extern struct rig {
  struct agent_core core;
  struct agent_actions out;
  int64_t now;
  uint64_t seed;
  int64_t clock; /* how far the wall clock was put */
  uint64_t rng;
  struct agent_container containers[MAX_CONTAINERS];
  unsigned container_count, next_id;
  struct agent_found_network networks[MAX_NETWORKS];
  unsigned network_count;
  struct rig_call *pending[MAX_PENDING];
  unsigned pending_count;
  unsigned conflicts; /* creates that were refused because of their name */
  struct rig_event events[MAX_EVENTS];
  unsigned event_count;
  int64_t event_floor; /* the stream keeps its order */
  bool up, faults, image_there[EPOCHS];
  unsigned gone, resolved, starts, creates;
  struct rig_want want[SERVICES][NUMBERS];
  unsigned runs[NUMBERS][EPOCHS]; /* starts of the job's instances */
} rig;

/* Docker is not there yet, nothing is wanted. With faults it is slow, loses and refuses. */
void rig_begin(uint64_t seed, bool faults);
void rig_finish(void);

uint64_t rig_rnd(void);
bool rig_chance(unsigned percent);

/* ---- time ---- */

struct agent_now rig_now(void);
int64_t rig_wall_ns(void);
/* What comes next, when it comes by then (mono); false: nothing did, and it is then. */
bool rig_advance(int64_t until);
void rig_settle(int64_t seconds);
/* Until the first that is under way is this. */
void rig_until(enum agent_op op);

/* ---- the agent ---- */

void rig_step(const struct agent_event *ev);
/* In place of one that is gone: the caller has ended it. */
void rig_new_core(void);
/* One that begins anew and knows nothing; what Docker wanted to say to the other one is lost. */
void rig_replace_agent(void);

/* ---- Docker ---- */

void rig_come_up(void);
void rig_end(struct agent_container *c, int32_t code);
void rig_remove(struct agent_container *c);
bool rig_is_job(const struct agent_container *c);
/* What the core has decided becomes calls, and the rules above are looked after. */
void rig_take_actions(void);
/* Docker does what it is asked for, as the call's outcome says; once. */
void rig_run_effect(struct rig_call *call);
/* And says so. */
void rig_reply(struct rig_call *call);
/* It does nothing, and will answer with this. */
void rig_refuse(struct rig_call *call, enum err_code outcome);
/* This and nothing else is under way, and is never answered: the core hears of a timeout. */
void rig_hangs(enum agent_op op);

/* ---- masters and keeper ---- */

/* One that is wanted, as a master says it; the caller frees it. */
Node__Assignment *rig_assignment(unsigned service, unsigned number);
/* Number 1 of a service is wanted; said to nobody yet. */
void rig_want(unsigned service, uint64_t epoch, uint64_t revision);
/* All that is wanted, and nothing else. */
void rig_tell_full(void);
/* The same of one that is wanted otherwise than rig_assignment() makes it. */
void rig_tell(Node__Assignment *a);
/* What the agent says of its instances is what masters have of them from now on. */
void rig_report_all(void);
void rig_forget_told(unsigned service, unsigned number);
/* Its liveness probe has failed. */
void rig_verdict_on(const struct agent_container *c);

/* ---- how stories begin ---- */

/* Without faults: Docker is there, number 1 of a service is wanted, the agent has been told. */
void rig_wanted(uint64_t seed, unsigned service);
/* shop/api.1, running for some seconds. */
const struct agent_instance *rig_running(void);

#endif
