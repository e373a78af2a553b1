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

/* ---- the store ---- */

/* NULL: there is none. Until the next change. */
static inline struct record *rig_find(const struct rig *r, const char *key) {
  for (size_t i = 0; i < r->count; i++)
    if (strcmp(r->records[i].key, key) == 0)
      return &r->records[i];
  return NULL;
}

/* Kept, and nobody hears of it: so for what the core has written itself. */
static inline void rig_keep(struct rig *r, const char *key, const uint8_t *value, size_t len) {
  struct record *record = rig_find(r, key);
  if (!record) {
    assert_true(r->count < r->most);
    record = &r->records[r->count++];
    *record = (struct record){0};
    snprintf(record->key, sizeof record->key, "%s", key);
  }
  uint8_t *copy = malloc(len + 1);
  assert_non_null(copy);
  memcpy(copy, value, len);
  free(record->value);
  record->value = copy;
  record->len = len;
}

static inline void rig_drop(struct rig *r, const char *key) {
  struct record *record = rig_find(r, key);
  if (!record)
    return;
  free(record->value);
  *record = r->records[--r->count];
}

/* Not checked as pb_unpack would: the core does that when it hears of it. */
static inline void *rig_unpack(const char *key, const ProtobufCMessageDescriptor *d, const uint8_t *value, size_t len) {
  void *m = protobuf_c_message_unpack(d, NULL, len, value);
  if (!m)
    fail_msg("%s: malformed", key);
  return m;
}

/* NULL: there is no such record. */
static inline void *rig_get(const struct rig *r, const ProtobufCMessageDescriptor *d, const char *key) {
  const struct record *record = rig_find(r, key);
  return record ? rig_unpack(key, d, record->value, record->len) : NULL;
}

/* What an action puts. */
static inline void *rig_action_message(const struct sched_action *a, const ProtobufCMessageDescriptor *d) {
  return rig_unpack(a->key, d, a->value, a->len);
}

/* ---- the core ---- */

/* The core is told of a change (value NULL: a deletion): as sched_core_step. The actions of its last decision stay. */
static inline int rig_hear(struct rig *r, const char *key, const uint8_t *value, size_t len, struct err *err) {
  const struct sched_event event = {.kind = value ? SCHED_EVENT_PUT : SCHED_EVENT_DELETE, .key = key, .value = value, .len = len};
  struct sched_actions none = {0};
  return sched_core_step(r->core, &event, r->now, &none, err);
}

/* A new core reads the store, from a record on and around: any order of prefixes must do. */
static inline void rig_begin(struct rig *r, size_t from) {
  sched_core_free(r->core);
  r->core = sched_core_new();
  assert_non_null(r->core);
  for (size_t i = 0; i < r->count; i++) {
    const struct record *record = &r->records[(from + i) % r->count];
    assert_int_equal(rig_hear(r, record->key, record->value, record->len, NULL), 0);
  }
  const struct sched_event synced = {.kind = SCHED_EVENT_SYNCED};
  assert_int_equal(sched_core_step(r->core, &synced, r->now, &r->actions, NULL), 0);
}

/* Decides; wall_ms 0: the clock on the wall says the same as the scheduler's. As sched_core_step. */
static inline int rig_decide(struct rig *r, int64_t wall_ms, struct err *err) {
  const struct sched_event event = {.kind = SCHED_EVENT_RUN, .wall_ms = wall_ms};
  return sched_core_step(r->core, &event, r->now, &r->actions, err);
}

/* The key that the transaction changes twice, which the store does not take; NULL: none. */
static inline const char *rig_changed_twice(const struct rig *r) {
  for (size_t i = 0; i < r->actions.count; i++)
    for (size_t k = 0; k < i; k++)
      if (strcmp(r->actions.list[i].key, r->actions.list[k].key) == 0)
        return r->actions.list[i].key;
  return NULL;
}

static inline const struct sched_service *rig_service(const struct rig *r, const char *name) {
  char id[64];
  snprintf(id, sizeof id, "shop/%s", name);
  return sched_state_service(sched_core_state(r->core), id);
}

static inline const struct sched_instance *rig_instance(const struct rig *r, const char *service, uint64_t number) {
  const struct sched_service *s = rig_service(r, service);
  return s ? sched_service_instance(s, number) : NULL;
}

/* ---- what others write ---- */

static inline void rig_put_bytes(struct rig *r, const char *key, const uint8_t *value, size_t len) {
  rig_keep(r, key, value, len);
  if (r->watch)
    r->watch(r->watch_arg, key, value, len);
  else
    assert_int_equal(rig_hear(r, key, value, len, NULL), 0);
}

static inline void rig_put(struct rig *r, const char *key, const ProtobufCMessage *m) {
  uint8_t bytes[8192];
  assert_true(protobuf_c_message_get_packed_size(m) <= sizeof bytes);
  rig_put_bytes(r, key, bytes, protobuf_c_message_pack(m, bytes));
}

/* Nobody hears of the deletion of what is not there. */
static inline void rig_delete(struct rig *r, const char *key) {
  if (!rig_find(r, key))
    return;
  rig_drop(r, key);
  if (r->watch)
    r->watch(r->watch_arg, key, NULL, 0);
  else
    assert_int_equal(rig_hear(r, key, NULL, 0, NULL), 0);
}

/* Docker works on it; since_ms 0: nobody says since when. */
static inline void rig_put_node_status(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms) {
  char key[KEY_MAX];
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  status.name = text(name);
  PB_SET(&status, state, ready ? MODEL__NODE_STATE__NODE_READY : MODEL__NODE_STATE__NODE_UNREACHABLE);
  PB_SET(&status, since_ms, since_ms);
  PB_SET(&status, docker_ok, 1);
  PB_SET(&status, memory, memory);
  PB_SET(&status, cpu_milli, 64000);
  key_named(key, KEY_NODE_STATUS, name);
  rig_put(r, key, &status.base);
}

static inline void rig_put_node(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms) {
  char key[KEY_MAX];
  Model__Node node = MODEL__NODE__INIT;
  node.name = text(name);
  key_named(key, KEY_NODES, name);
  rig_put(r, key, &node.base);
  rig_put_node_status(r, name, ready, memory, since_ms);
}

/* The names and the image of the spec are set here; created_ms 0: nobody says when. */
static inline void rig_put_revision(struct rig *r, const char *name, uint64_t number, Model__ServiceSpec *spec, int64_t created_ms) {
  char key[KEY_MAX];
  Model__Revision m = MODEL__REVISION__INIT;
  m.project = spec->project = text("shop");
  m.name = spec->name = text(name);
  spec->image = text("x");
  m.spec = spec;
  PB_SET(&m, number, number);
  PB_SET(&m, created_ms, created_ms);
  key_numbered(key, KEY_REVISIONS, "shop", name, number);
  rig_put(r, key, &m.base);
}

static inline void rig_put_service(struct rig *r, const char *name, const Model__Service *m) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, "shop", name);
  rig_put(r, key, &m->base);
}

static inline void rig_put_instance_status(struct rig *r, const char *service, const Model__InstanceStatus *m) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", service, m->number);
  rig_put(r, key, &m->base);
}

/* An instance of epoch 1 runs where it was sent. */
static inline void rig_put_running(struct rig *r, const char *service, uint64_t number, const char *node) {
  Model__InstanceStatus m = MODEL__INSTANCE_STATUS__INIT;
  m.node = text(node);
  PB_SET(&m, number, number);
  PB_SET(&m, epoch, 1);
  PB_SET(&m, phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&m, ready, 1);
  rig_put_instance_status(r, service, &m);
}

/* ---- its life ---- */

/* An empty store of at most so many records. The core is there, and has not read it: rig_begin. */
static inline void rig_init(struct rig *r, int64_t now, size_t most) {
  *r = (struct rig){.now = now, .most = most, .records = calloc(most, sizeof *r->records), .core = sched_core_new()};
  assert_non_null(r->records);
  assert_non_null(r->core);
}

static inline void rig_fini(struct rig *r) {
  for (size_t i = 0; i < r->count; i++)
    free(r->records[i].value);
  free(r->records);
  sched_core_free(r->core);
  sched_actions_fini(&r->actions);
  *r = (struct rig){0};
}

/* For cmocka: *state is a struct rig. */
static inline int rig_setup(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  assert_non_null(r);
  rig_init(r, NOW, 4000);
  *state = r;
  return 0;
}

static inline int rig_teardown(void **state) {
  rig_fini(*state);
  free(*state);
  return 0;
}

#endif
