#include "tests/unit/scheduler/core_rig.h"

/* ---- its life ---- */

void rig_init(struct rig *r, int64_t now, size_t most) {
  *r = (struct rig){.now = now, .most = most, .records = calloc(most, sizeof *r->records), .core = sched_core_new()};
  assert_non_null(r->records);
  assert_non_null(r->core);
}

void rig_fini(struct rig *r) {
  for (size_t i = 0; i < r->count; i++)
    free(r->records[i].value);
  free(r->records);
  sched_core_free(r->core);
  sched_actions_fini(&r->actions);
  *r = (struct rig){0};
}

int rig_setup(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  assert_non_null(r);
  rig_init(r, NOW, 4000);
  *state = r;
  return 0;
}

int rig_teardown(void **state) {
  rig_fini(*state);
  free(*state);
  return 0;
}

/* ---- the store ---- */

struct record *rig_find(const struct rig *r, const char *key) {
  for (size_t i = 0; i < r->count; i++)
    if (strcmp(r->records[i].key, key) == 0)
      return &r->records[i];
  return NULL;
}

void rig_keep(struct rig *r, const char *key, const uint8_t *value, size_t len) {
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

void rig_drop(struct rig *r, const char *key) {
  struct record *record = rig_find(r, key);
  if (!record)
    return;
  free(record->value);
  *record = r->records[--r->count];
}

/* Not checked as pb_unpack would: the core does that when it hears of it. */
static void *rig_unpack(const char *key, const ProtobufCMessageDescriptor *d, const uint8_t *value, size_t len) {
  void *m = protobuf_c_message_unpack(d, NULL, len, value);
  if (!m)
    fail_msg("%s: malformed", key);
  return m;
}

void *rig_get(const struct rig *r, const ProtobufCMessageDescriptor *d, const char *key) {
  const struct record *record = rig_find(r, key);
  return record ? rig_unpack(key, d, record->value, record->len) : NULL;
}

void *rig_action_message(const struct sched_action *a, const ProtobufCMessageDescriptor *d) {
  return rig_unpack(a->key, d, a->value, a->len);
}

/* ---- the core ---- */

int rig_hear(struct rig *r, const char *key, const uint8_t *value, size_t len, struct err *err) {
  const struct sched_event event = {.kind = value ? SCHED_EVENT_PUT : SCHED_EVENT_DELETE, .key = key, .value = value, .len = len};
  struct sched_actions none = {0};
  return sched_core_step(r->core, &event, r->now, &none, err);
}

void rig_begin(struct rig *r, size_t from) {
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

int rig_decide(struct rig *r, int64_t wall_ms, struct err *err) {
  const struct sched_event event = {.kind = SCHED_EVENT_RUN, .wall_ms = wall_ms};
  return sched_core_step(r->core, &event, r->now, &r->actions, err);
}

const char *rig_changed_twice(const struct rig *r) {
  for (size_t i = 0; i < r->actions.count; i++)
    for (size_t k = 0; k < i; k++)
      if (strcmp(r->actions.list[i].key, r->actions.list[k].key) == 0)
        return r->actions.list[i].key;
  return NULL;
}

const struct sched_service *rig_service(const struct rig *r, const char *name) {
  char id[64];
  snprintf(id, sizeof id, "shop/%s", name);
  return sched_state_service(sched_core_state(r->core), id);
}

const struct sched_instance *rig_instance(const struct rig *r, const char *service, uint64_t number) {
  const struct sched_service *s = rig_service(r, service);
  return s ? sched_service_instance(s, number) : NULL;
}

/* ---- what others write: it is kept, and the core hears of it ---- */

void rig_put_bytes(struct rig *r, const char *key, const uint8_t *value, size_t len) {
  rig_keep(r, key, value, len);
  if (r->watch)
    r->watch(r->watch_arg, key, value, len);
  else
    assert_int_equal(rig_hear(r, key, value, len, NULL), 0);
}

void rig_put(struct rig *r, const char *key, const ProtobufCMessage *m) {
  uint8_t bytes[8192];
  assert_true(protobuf_c_message_get_packed_size(m) <= sizeof bytes);
  rig_put_bytes(r, key, bytes, protobuf_c_message_pack(m, bytes));
}

void rig_delete(struct rig *r, const char *key) {
  if (!rig_find(r, key))
    return;
  rig_drop(r, key);
  if (r->watch)
    r->watch(r->watch_arg, key, NULL, 0);
  else
    assert_int_equal(rig_hear(r, key, NULL, 0, NULL), 0);
}

void rig_put_node_status(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms) {
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

void rig_put_node(struct rig *r, const char *name, bool ready, uint64_t memory, int64_t since_ms) {
  char key[KEY_MAX];
  Model__Node node = MODEL__NODE__INIT;
  node.name = text(name);
  key_named(key, KEY_NODES, name);
  rig_put(r, key, &node.base);
  rig_put_node_status(r, name, ready, memory, since_ms);
}

void rig_put_revision(struct rig *r, const char *name, uint64_t number, Model__ServiceSpec *spec, int64_t created_ms) {
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

void rig_put_service(struct rig *r, const char *name, const Model__Service *m) {
  char key[KEY_MAX];
  key_service(key, KEY_SERVICES, "shop", name);
  rig_put(r, key, &m->base);
}

void rig_put_instance_status(struct rig *r, const char *service, const Model__InstanceStatus *m) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, "shop", service, m->number);
  rig_put(r, key, &m->base);
}

void rig_put_running(struct rig *r, const char *service, uint64_t number, const char *node) {
  Model__InstanceStatus m = MODEL__INSTANCE_STATUS__INIT;
  m.node = text(node);
  PB_SET(&m, number, number);
  PB_SET(&m, epoch, 1);
  PB_SET(&m, phase, MODEL__PHASE__PHASE_RUNNING);
  PB_SET(&m, ready, 1);
  rig_put_instance_status(r, service, &m);
}
