/* A scheduler's core and a store in memory that it works on: records are put and deleted, the core hears of them, decides, dies and begins again.
 * All of it is of the project "shop". Ownership: what a rig holds is its own until rig_fini; messages that are returned are the caller's.
 * Threads: one. */
#ifndef ORCA_TESTS_UNIT_SCHEDULER_CORE_RIG_H
#define ORCA_TESTS_UNIT_SCHEDULER_CORE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/ids.h"
#include "orca-scheduler/sched_core.h"

#define NOW INT64_C(1700000000000) /* when a rig of rig_setup begins */

struct record {
  char key[KEY_MAX];
  uint8_t *value;
  size_t len;
};

struct rig {
  struct sched_core *core;
  struct sched_actions actions; /* of the last decision, whatever the core has heard since */
  int64_t now;                  /* the scheduler's clock */
  struct record *records;       /* the store, in any order */
  size_t count, most;
  /* How the core hears of a change (value NULL: a deletion); NULL: at once. */
  void (*watch)(void *arg, const char *key, const uint8_t *value, size_t len);
  void *watch_arg;
};

static inline bool has_prefix(const char *key, const char *prefix) {
  return strncmp(key, prefix, strlen(prefix)) == 0;
}

static inline char *text(const char *s) {
  return (char *)(uintptr_t)s;
}

/* Any message of its own, or NULL. */
static inline void free_message(void *m) {
  protobuf_c_message_free_unpacked(m, NULL);
}

/* ---- its life ---- */

/* An empty store of at most so many records. The core is there, and has not read it: rig_begin. */
void rig_init(struct rig *r, int64_t now, size_t most);
void rig_fini(struct rig *r);
/* For cmocka: *state is a struct rig, at NOW. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* ---- the store ---- */

/* NULL: there is none. Until the next change. */
struct record *rig_find(const struct rig *r, const char *key);
/* A copy of the value is kept, or what is kept goes, and nobody hears of it: so for what the core has written itself. */
void rig_keep(struct rig *r, const char *key, const uint8_t *value, size_t len);
void rig_drop(struct rig *r, const char *key);
/* NULL: there is no such record. Free it with free_message, as what an action puts. */
void *rig_get(const struct rig *r, const ProtobufCMessageDescriptor *d, const char *key);
void *rig_action_message(const struct sched_action *a, const ProtobufCMessageDescriptor *d);

/* ---- the core ---- */

/* It is told of a change (value NULL: a deletion): as sched_core_step. The actions of its last decision stay. */
int rig_hear(struct rig *r, const char *key, const uint8_t *value, size_t len, struct err *err);
/* A new core reads the store, from a record on and around: any order of prefixes must do. */
void rig_begin(struct rig *r, size_t from);
/* Decides; wall_ms 0: the clock on the wall says the same as the scheduler's. As sched_core_step. */
int rig_decide(struct rig *r, int64_t wall_ms, struct err *err);
/* The key that the transaction changes twice, which the store does not take; NULL: none. */
const char *rig_changed_twice(const struct rig *r);
/* What it knows; NULL: nothing of that. Until it hears of something else, or decides. */
const struct sched_service *rig_service(const struct rig *r, const char *name);
const struct sched_instance *rig_instance(const struct rig *r, const char *service, uint64_t number);

/* ---- what others write: it is kept, and the core hears of it ---- */

void rig_put_bytes(struct rig *r, const char *key, const uint8_t *value, size_t len);
void rig_put(struct rig *r, const char *key, const ProtobufCMessage *m);
/* Nobody hears of the deletion of what is not there. */
void rig_delete(struct rig *r, const char *key);
/* Of a node where Docker works, with 64 cores; since_ms 0: nobody says since when. */
void rig_put_node_status(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms);
void rig_put_node(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms); /* the record and the status */
/* The names and the image of the spec are set here; created_ms 0: nobody says when. */
void rig_put_revision(struct rig *r, const char *name, uint64_t number, Model__ServiceSpec *spec, int64_t created_ms);
void rig_put_service(struct rig *r, const char *name, const Model__Service *m);
void rig_put_instance_status(struct rig *r, const char *service, const Model__InstanceStatus *m);
/* An instance of epoch 1 runs where it was sent, and is ready. */
void rig_put_running(struct rig *r, const char *service, uint64_t number, const char *node);

#endif
