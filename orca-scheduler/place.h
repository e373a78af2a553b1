/* Where one instance goes: a pure decision over a table of nodes whose usage is kept incrementally.
 *
 * Filter first: a node is out for exactly one reason (enum place_reason, in the order in which they are checked). Among those left: if
 * the spec names a `spread` label, the value with the fewest instances of the service; then the best fit (fullest after); ties go to the value
 * (by default: the node) with the fewest instances of the service, then to the first by name. So the same state gives the same answer on every
 * master.
 *
 * Cost: one pass over the nodes for a decision (some tens of ns each); texts are made only for the verdicts that are kept.
 * Threads: none; no clock; the table is its owner's. */
#ifndef ORCA_SCHEDULER_PLACE_H
#define ORCA_SCHEDULER_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/model.pb-c.h"

#define PLACE_VERDICTS 32
#define PLACE_TEXT 160
#define PLACE_GPU_GROUPS 16 /* [[node.gpus]] that count; more are not used */
#define PLACE_PORTS 64      /* host ports of one instance that count */

/* What one instance takes from its node. `ports` holds port << 1 | protocol, sorted. */
struct place_need {
  uint64_t memory;
  uint32_t cpu_milli, pids;
  const Model__Gpu *gpu; /* borrowed from the revision's spec; NULL: none */
  uint16_t port_count;
  uint32_t ports[PLACE_PORTS];
};

struct place_port {
  uint32_t key; /* port << 1 | protocol */
  uint32_t users;
};

struct place_node {
  char *name;
  size_t index;                    /* place in the table; changes when nodes come and go */
  const Model__Node *record;       /* borrowed from sched_state; NULL: not registered */
  const Model__NodeStatus *status; /* borrowed; NULL: never reported */
  int64_t away_since_ms;           /* since when the scheduler has known, by its own clock; while its state is not READY */
  uint64_t memory_used;
  uint64_t cpu_used, pids_used;
  uint32_t gpus_used[PLACE_GPU_GROUPS];
  struct place_port *ports; /* sorted by key */
  size_t port_count, port_size;
  uint32_t instances;
};

struct place_table {
  struct place_node **nodes; /* sorted by name */
  size_t count, size;
};

void place_table_fini(struct place_table *table);
struct place_node *place_node_add(struct place_table *table, const char *name); /* NULL when memory ends; the name must be new */
void place_node_remove(struct place_table *table, struct place_node *node);     /* frees it: nothing may be counted on it any more */
struct place_node *place_node_find(const struct place_table *table, const char *name);

/* Counts an instance on its node, and takes it off again; gpu_group (-1: none) is what place_take() gave. -1 when memory ends. */
int place_take(struct place_node *node, const struct place_need *need, int *gpu_group);
void place_release(struct place_node *node, const struct place_need *need, int gpu_group);

enum place_reason {
  PLACE_FITS,
  PLACE_NOT_REGISTERED,
  PLACE_NOT_READY,
  PLACE_DOCKER,
  PLACE_DRAINING,
  PLACE_OTHER_NODE,
  PLACE_LABELS,
  PLACE_VOLUME,
  PLACE_AVOID,
  PLACE_PORT,
  PLACE_GPU,
  PLACE_MEMORY,
  PLACE_CPU,
  PLACE_PIDS,
  PLACE_REASON_COUNT
};

/* One question. The arrays go by node index; NULL: says nothing about any node. */
struct place_request {
  const struct place_need *need;
  const Model__Placement *placement; /* NULL: no wishes */
  const uint32_t *own;               /* instances of the service that are on the node */
  const char *const *avoid;          /* the service that keeps it away, or NULL */
  const bool *has_volumes;           /* NULL: bound to no node */
  const char *volume;                /* for the text: "shop/api-data is on n1" */
};

struct place_verdict {
  const char *node; /* borrowed from the table */
  bool chosen, fits;
  char reason[PLACE_TEXT];
};

struct place_answer {
  struct place_node *node; /* NULL: nothing fits */
  char reason[PLACE_TEXT]; /* why pending; "" when there is a node */
  struct place_verdict verdicts[PLACE_VERDICTS];
  size_t verdict_count;
};

/* -1 when memory ends. `ret` is written only on success. */
int place_instance(const struct place_table *table, const struct place_request *request, struct place_answer *ret);

#endif
