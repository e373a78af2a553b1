/* A cluster in a random history: services and nodes as the apiserver would write them, agents and proxies of a few lines each, and a watch by which
 * the scheduler hears of all that late. Ownership: sim_free frees what sim_new made. Threads: one. */
#ifndef ORCA_TESTS_UNIT_SCHEDULER_SIM_CLUSTER_H
#define ORCA_TESTS_UNIT_SCHEDULER_SIM_CLUSTER_H

#include "tests/unit/scheduler/random_history.h"

#define MAX_AGENT 256
#define SERVICES 3
#define NODES 4
#define FIRST_MS INT64_C(1700000000000)

enum behaviour { GOOD, NEVER_READY, CRASHING, CANNOT_START };
#define MAX_REVISIONS 64

struct event { /* on its way to the scheduler */
  int64_t at;
  char key[KEY_MAX];
  uint8_t *value; /* NULL: deleted */
  size_t len;
};

struct container {
  int service;
  uint64_t number, revision, epoch;
  char node[16];
  int64_t started_at, ready_at, gone_at, drained_at, crash_at; /* NEVER: not planned */
  bool running, ready, drained, stopping;
  uint32_t restarts;
  int64_t ready_since;
  bool in_use;
};

struct sim {
  struct history h;
  struct event *queue;
  size_t queue_len, queue_size;
  int64_t last_delivery;
  struct container containers[MAX_AGENT];
  enum behaviour behaviour[SERVICES][MAX_REVISIONS];
  uint64_t last_revision[SERVICES];
  bool reached[SERVICES]; /* the budget was reached, and nothing but the scheduler has taken from it since */
  uint32_t wanted[SERVICES];
  uint32_t surge[SERVICES], unavailable[SERVICES];
  int strategy[SERVICES]; /* 0 rolling, 1 recreate, 2 stop-first */
  uint64_t min_ready;
};

struct sim *sim_new(unsigned long seed);
void sim_free(struct sim *s);

const char *sim_service_name(int i);
/* Whose instance a key is of; -1: nobody's. */
int sim_service_of_key(const char *key);

/* ---- what the apiserver would do ---- */

/* NULL: there is none. The caller frees it. */
Model__Service *sim_get_service(struct sim *s, int i);
/* So many are wanted of it from now on. */
void sim_set_wanted(struct sim *s, int i, uint32_t n);
/* The service and its revisions; what runs of it is the scheduler's to clear away. */
void sim_purge(struct sim *s, int i);
void sim_deploy(struct sim *s, int i, enum behaviour behaviour, uint32_t replicas);
void sim_delete_node(struct sim *s, int i);
/* There is room for all on one: a node that was away gets nothing back. */
void sim_put_node(struct sim *s, int i, bool ready);

/* ---- agents and proxies ---- */

/* They see what they are given to do. */
void sim_agents_look(struct sim *s);
/* What they have planned and is due comes about. */
void sim_agents_work(struct sim *s);
void sim_crash(struct sim *s, struct container *c);

/* ---- the scheduler's shell ---- */

void sim_start_over(struct sim *s);
/* What is due on its way to the scheduler arrives. */
void sim_deliver(struct sim *s);
/* Everything on its way arrives now: the mirror has reached the transaction's revision. */
void sim_catch_up(struct sim *s);
/* When an agent has something to do, or something arrives. NEVER: not by itself. */
int64_t sim_next(const struct sim *s);

#endif
