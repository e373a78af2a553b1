#include "orca-scheduler/sched_copy.h"

#include "common/bus/pb.h"
#include "common/spec/ids.h"

struct copying {
  struct sched_state *to;
  struct buf packed;
  int64_t now;
  struct err *err;
};

static int put(struct copying *c, const char *key, const ProtobufCMessage *message) {
  buf_reset(&c->packed);
  if (pb_pack(message, &c->packed) < 0)
    return err_set(c->err, ERR_MEMORY, "no memory to copy the state");
  return sched_state_put(c->to, key, c->packed.data, c->packed.len, c->now, c->err);
}

static int copy_nodes(struct copying *c, const struct sched_state *from) {
  char key[KEY_MAX];
  for (size_t i = 0; i < from->nodes.count; i++) {
    const struct place_node *node = from->nodes.nodes[i];
    key_named(key, KEY_NODES, node->name);
    if (node->record && put(c, key, &node->record->base) < 0)
      return -1;
    key_named(key, KEY_NODE_STATUS, node->name);
    if (node->status && put(c, key, &node->status->base) < 0)
      return -1;
  }
  return 0;
}

static int copy_instance(struct copying *c, const struct sched_service *service, const struct sched_instance *from) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCES, service->project, service->name, from->number);
  if (from->record && put(c, key, &from->record->base) < 0)
    return -1;
  key_numbered(key, KEY_INSTANCE_STATUS, service->project, service->name, from->number);
  if (from->status && put(c, key, &from->status->base) < 0)
    return -1;
  const struct sched_service *copy = sched_state_service(c->to, service->id);
  struct sched_instance *to = copy ? sched_service_instance(copy, from->number) : NULL;
  if (!to)
    return 0;
  /* What this scheduler has seen with its own clock. */
  to->ready_since_ms = from->ready_since_ms;
  to->first_ready_ms = from->first_ready_ms;
  to->was_available = from->was_available;
  to->orphan = from->orphan;
  return 0;
}

static int copy_service(struct copying *c, const struct sched_service *from) {
  char key[KEY_MAX];
  for (size_t i = 0; i < from->revision_count; i++) {
    key_numbered(key, KEY_REVISIONS, from->project, from->name, from->revisions[i]->number);
    if (put(c, key, &from->revisions[i]->record->base) < 0)
      return -1;
  }
  key_service(key, KEY_SERVICES, from->project, from->name);
  if (from->record && put(c, key, &from->record->base) < 0)
    return -1;
  key_service(key, KEY_ROLLOUTS, from->project, from->name);
  if (from->rollout && put(c, key, &from->rollout->base) < 0)
    return -1;
  for (size_t i = 0; i < from->instance_count; i++)
    if (copy_instance(c, from, from->instances[i]) < 0)
      return -1;
  struct sched_service *to = sched_state_service(c->to, from->id);
  if (!to)
    return 0;
  to->pending = from->pending;
  to->rollout_is_old = from->rollout_is_old;
  to->wake_ms = from->wake_ms;
  for (size_t i = 0; i < from->revision_count; i++) {
    key_numbered(key, KEY_REVISIONS, from->project, from->name, from->revisions[i]->number);
    if (from->revisions[i]->gone && sched_state_delete(c->to, key, c->err) < 0)
      return -1;
  }
  return 0;
}

int sched_state_copy(struct sched_state *to, const struct sched_state *from, int64_t now_ms, struct err *err) {
  struct copying c = {.to = to, .packed = BUF_INIT((size_t)16 << 20), .now = now_ms, .err = err};
  int rc = copy_nodes(&c, from);
  for (size_t i = 0; rc == 0 && i < from->count; i++)
    rc = copy_service(&c, from->list[i]);
  to->synced = true;
  buf_free(&c.packed);
  return rc;
}
