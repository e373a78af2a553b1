#include "orca-apiserver/round.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/json_out.h"

#define TAKE_WRITES 500u             /* of one transaction: the store takes 1,000 operations, */
#define TAKE_BYTES ((size_t)2 << 20) /* and 4 MiB */
#define FULL_WRITES 10000u
#define FULL_EVENTS 2000u
#define STATUS_MAX ((size_t)8 << 10) /* bytes of an instance's status */
#define LAST_LINES_MAX 4096u
#define NODE_STATUS_MAX ((size_t)256 << 10) /* bytes of a node's */
#define IMAGE_MAX 512u

static void message_free(void *value) {
  if (value)
    protobuf_c_message_free_unpacked(value, NULL);
}

void api_round_init(struct api_round *r, const struct api_cache *cache) {
  *r = (struct api_round){.cache = cache};
}

void api_round_fini(struct api_round *r) {
  api_smap_clear(&r->writes, message_free);
  api_smap_clear(&r->flying, message_free);
  for (size_t i = 0; i < r->event_count; i++)
    model__event__free_unpacked(r->events[i], NULL);
  free(r->events);
  *r = (struct api_round){0};
}

bool api_round_is_empty(const struct api_round *r) {
  return !r->writes.count && !r->event_count;
}

bool api_round_is_full(const struct api_round *r) {
  return r->writes.count >= FULL_WRITES || r->event_count >= FULL_EVENTS;
}

static void drop_events(struct api_round *r, size_t count) {
  memmove(r->events, r->events + count, (r->event_count - count) * sizeof(Model__Event *));
  r->event_count -= count;
}

int api_round_take(struct api_round *r, Model__Event *events[API_TAKE_EVENTS], size_t *ret_count) {
  size_t bytes = 0;
  while (r->writes.count && r->flying.count < TAKE_WRITES && bytes < TAKE_BYTES) {
    const struct api_smap_entry *last = &r->writes.list[r->writes.count - 1]; /* the last one: nothing has to move up */
    void **slot = api_smap_slot(&r->flying, last->key);
    if (!slot && !r->flying.count)
      return -1;
    if (!slot)
      break; /* what fits goes */
    *slot = last->value;
    bytes += KEY_MAX + (last->value ? protobuf_c_message_get_packed_size(last->value) : 0);
    api_smap_take(&r->writes, last->key);
  }
  *ret_count = r->event_count < API_TAKE_EVENTS ? r->event_count : API_TAKE_EVENTS;
  if (*ret_count) {
    memcpy(events, r->events, *ret_count * sizeof(Model__Event *));
    drop_events(r, *ret_count);
  }
  return 0;
}

void api_round_landed(struct api_round *r) {
  api_smap_clear(&r->flying, message_free);
}

void api_round_lost(struct api_round *r) {
  api_smap_clear(&r->flying, message_free);
  api_smap_clear(&r->writes, message_free);
  for (size_t i = 0; i < r->event_count; i++)
    model__event__free_unpacked(r->events[i], NULL);
  r->event_count = 0;
}

/* ---- what the round will leave: its own writes, those on their way, then the cache ---- */

static const ProtobufCMessage *seen(const struct api_round *r, enum api_kind kind, const char *key) {
  size_t at = api_smap_lower(&r->writes, key);
  if (at < r->writes.count && strcmp(r->writes.list[at].key, key) == 0)
    return r->writes.list[at].value;
  at = api_smap_lower(&r->flying, key);
  if (at < r->flying.count && strcmp(r->flying.list[at].key, key) == 0)
    return r->flying.list[at].value;
  const struct api_object *object = api_cache_object(r->cache, kind, key);
  return object ? object->msg : NULL;
}

static int write_message(struct api_round *r, enum api_kind kind, const char *key, const ProtobufCMessage *msg) {
  if (pb_equal(seen(r, kind, key), msg))
    return 0;
  ProtobufCMessage *copy = pb_clone(msg);
  void **slot = copy ? api_smap_slot(&r->writes, key) : NULL;
  if (!slot) {
    message_free(copy);
    return -1;
  }
  message_free(*slot);
  *slot = copy;
  return 0;
}

/* A text that people will read in their terminals, from a peer who may want more than to be read. Cut and made printable where it is. */
static void tame(char *text, size_t max) {
  if (!text)
    return;
  size_t len = strnlen(text, max);
  if (text[len]) {
    while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
      len--;
    text[len] = 0;
  }
  for (unsigned char *p = (unsigned char *)text; *p; p++) {
    if (*p < 0x20 || *p == 0x7f)
      *p = ' ';
    else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) /* C1: controls too */
      p[0] = p[1] = ' ';
  }
}

static int delete_key(struct api_round *r, enum api_kind kind, const char *key) {
  if (!seen(r, kind, key))
    return 0;
  void **slot = api_smap_slot(&r->writes, key);
  if (!slot)
    return -1;
  message_free(*slot);
  *slot = NULL;
  return 0;
}

/* ---- instances ---- */

static bool is_address(const char *text) {
  uint8_t parsed[16];
  return inet_pton(AF_INET, text, parsed) == 1 || inet_pton(AF_INET6, text, parsed) == 1;
}

static bool is_tail_of_log(const ProtobufCBinaryData *lines) {
  return !lines->len || (lines->len <= LAST_LINES_MAX && !memchr(lines->data, 0, lines->len) && pb_utf8_valid((const char *)lines->data, lines->len));
}

/* An agent that was restarted does not know how the run before the one it found had ended; what it said of it then stays. */
static void keep_last_words(Model__InstanceStatus *status, const Model__InstanceStatus *before) {
  if (!before || status->has_ended_ms || before->epoch != status->epoch || !before->has_ended_ms ||
      strcmp(PB_STR(before->container_id), PB_STR(status->container_id)) != 0)
    return;
  PB_SET(status, ended_ms, before->ended_ms);
  status->has_last_lines = before->has_last_lines;
  status->last_lines = before->last_lines;
  status->ended_by = before->ended_by;
}

static int take_status(struct api_round *r, const char *node, Model__InstanceStatus *status) {
  char key[KEY_MAX];
  const char *project = PB_STR(status->project), *service = PB_STR(status->service);
  const Model__Instance *instance =
      spec_name_valid(project) && spec_name_valid(service) ? api_cache_instance(r->cache, project, service, status->number) : NULL;
  if (!instance || instance->epoch != status->epoch || strcmp(PB_STR(instance->node), node) != 0 ||
      (*PB_STR(status->address) && !is_address(status->address))) {
    r->refused++;
    return 0;
  }
  tame(status->reason, 512);
  tame(status->progress, 256);
  tame(status->container_id, 64);
  tame(status->ended_by, 256);
  if (!is_tail_of_log(&status->last_lines)) {
    r->refused++;
    return 0;
  }
  if (protobuf_c_message_get_packed_size(&status->base) > STATUS_MAX) {
    r->refused++;
    return 0;
  }
  key_numbered(key, KEY_INSTANCE_STATUS, project, service, status->number);
  const Model__InstanceStatus *before = (const Model__InstanceStatus *)(const void *)seen(r, API_INSTANCE_STATUS, key);
  /* `drained` is ours: agents know nothing of proxies. */
  bool drained = before && before->epoch == status->epoch && before->drained;
  status->has_drained = drained;
  status->drained = drained;
  char *named = status->node, own[64];
  snprintf(own, sizeof own, "%s", node);
  status->node = own;
  Model__InstanceStatus whole = *status;
  keep_last_words(&whole, before);
  int rc = write_message(r, API_INSTANCE_STATUS, key, &whole.base);
  status->node = named;
  return rc;
}

static int take_gone(struct api_round *r, const char *node, const char *id) {
  char project[64], service[64], key[KEY_MAX];
  uint64_t number;
  if (!instance_id_parse(id, project, service, &number)) {
    r->refused++;
    return 0;
  }
  key_numbered(key, KEY_INSTANCE_STATUS, project, service, number);
  const Model__InstanceStatus *status = (const Model__InstanceStatus *)(const void *)seen(r, API_INSTANCE_STATUS, key);
  if (!status || strcmp(PB_STR(status->node), node) != 0)
    return 0;
  return delete_key(r, API_INSTANCE_STATUS, key);
}

static bool is_reported(const Node__StatusReport *report, const Model__InstanceStatus *status) {
  for (size_t i = 0; i < report->n_instances; i++) {
    const Model__InstanceStatus *s = report->instances[i];
    if (s->number == status->number && strcmp(PB_STR(s->service), PB_STR(status->service)) == 0 &&
        strcmp(PB_STR(s->project), PB_STR(status->project)) == 0)
      return true;
  }
  return false;
}

/* After a full report, what the node had and no longer has is gone, unless it is still to run there: then its agent is about to make it. */
static int sweep(struct api_round *r, const char *node, const Node__StatusReport *report) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(r->cache, API_INSTANCE_STATUS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__InstanceStatus *status = API_MSG(&all[i], Model__InstanceStatus);
    if (strcmp(PB_STR(status->node), node) != 0 || is_reported(report, status))
      continue;
    const Model__Instance *instance = api_cache_instance(r->cache, PB_STR(status->project), PB_STR(status->service), status->number);
    bool wanted = instance && instance->desired != MODEL__DESIRED__DESIRED_STOP && instance->epoch == status->epoch &&
                  strcmp(PB_STR(instance->node), node) == 0;
    if (!wanted && delete_key(r, API_INSTANCE_STATUS, all[i].key) < 0)
      return -1;
  }
  return 0;
}

/* ---- images, nodes, events ---- */

static int take_image(struct api_round *r, const char *node, const Node__ImageResolved *image, int64_t now_ms) {
  char key[KEY_MAX], own[64];
  const char *project = PB_STR(image->project), *service = PB_STR(image->service);
  if (!spec_name_valid(project) || !spec_name_valid(service) || !*PB_STR(image->image) || strlen(image->image) > IMAGE_MAX ||
      !api_cache_revision(r->cache, project, service, image->revision)) {
    r->refused++;
    return 0;
  }
  key_numbered(key, KEY_REVISION_STATUS, project, service, image->revision);
  if (seen(r, API_REVISION_STATUS, key))
    return 0; /* the first one's word stays */
  Model__RevisionStatus status = MODEL__REVISION_STATUS__INIT;
  snprintf(own, sizeof own, "%s", node);
  status.image = image->image;
  status.node = own;
  PB_SET(&status, resolved_ms, now_ms);
  return write_message(r, API_REVISION_STATUS, key, &status.base);
}

static const Model__NodeStatus *node_status(const struct api_round *r, const char *node, char key[KEY_MAX]) {
  key_named(key, KEY_NODE_STATUS, node);
  return (const Model__NodeStatus *)(const void *)seen(r, API_NODE_STATUS, key);
}

static int node_event(struct api_round *r, const char *node, const char *kind, const char *message, const char *severity, int64_t now_ms) {
  char copies[4][256];
  api_text_copy(copies[0], sizeof copies[0], kind);
  api_text_copy(copies[1], sizeof copies[1], node);
  api_text_copy(copies[2], sizeof copies[2], message);
  api_text_copy(copies[3], sizeof copies[3], severity);
  char actor[] = "apiserver";
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, now_ms);
  event.kind = copies[0];
  event.node = copies[1];
  event.message = copies[2];
  event.severity = copies[3];
  event.actor = actor;
  return api_round_event(r, &event);
}

/* What the agent says of its node, with the state that we give it. */
static int put_node(struct api_round *r, const char *node, const Model__NodeStatus *said, Model__NodeState state, const char *reason,
                    int64_t now_ms) {
  char key[KEY_MAX], own[64], why[256];
  const Model__NodeStatus *before = node_status(r, node, key);
  Model__NodeStatus status = MODEL__NODE_STATUS__INIT;
  if (said)
    status = *said;
  else if (before)
    status = *before;
  bool same_state = before && before->state == state;
  snprintf(own, sizeof own, "%s", node);
  api_text_copy(why, sizeof why, reason);
  status.name = own;
  status.reason = why;
  PB_SET(&status, state, state);
  PB_SET(&status, since_ms, same_state && before->since_ms ? before->since_ms : now_ms);
  if (write_message(r, API_NODE_STATUS, key, &status.base) < 0)
    return -1;
  if (same_state)
    return 0;
  bool ready = state == MODEL__NODE_STATE__NODE_READY;
  return node_event(r, node, ready ? "node.ready" : "node.unreachable", ready ? "its agent is connected and has reported" : reason,
                    ready ? "info" : "warn", now_ms);
}

int api_round_node_state(struct api_round *r, const char *node, Model__NodeState state, const char *reason, int64_t now_ms) {
  return put_node(r, node, NULL, state, reason, now_ms);
}

int api_round_event(struct api_round *r, const Model__Event *event) {
  if (r->event_count == r->event_size) {
    size_t size = r->event_size ? r->event_size * 2 : 16;
    Model__Event **events = reallocarray(r->events, size, sizeof(Model__Event *));
    if (!events)
      return -1;
    r->events = events;
    r->event_size = size;
  }
  Model__Event *copy = (Model__Event *)(void *)pb_clone(&event->base);
  if (!copy)
    return -1;
  r->events[r->event_count++] = copy;
  return 0;
}

static bool is_kind(const char *text) {
  size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz._0123456789");
  return len && len <= 64 && !text[len];
}

/* An agent's own words, held within bounds and told as its node's. */
static int take_event(struct api_round *r, const char *node, const Model__Event *said, int64_t now_ms) {
  const char *project = PB_STR(said->project), *service = PB_STR(said->service), *severity = PB_STR(said->severity);
  if (!is_kind(PB_STR(said->kind)) || (*project && !spec_name_valid(project)) || (*service && !spec_name_valid(service))) {
    r->refused++;
    return 0;
  }
  bool known = strcmp(severity, "info") == 0 || strcmp(severity, "warn") == 0 || strcmp(severity, "error") == 0;
  char own[64], message[512], info[] = "info", actor[80];
  snprintf(own, sizeof own, "%s", node);
  snprintf(actor, sizeof actor, "agent@%s", own);
  api_text_copy(message, sizeof message, PB_STR(said->message));
  tame(message, sizeof message);
  Model__Event event = *said;
  event.node = own;
  event.message = message;
  event.actor = actor;
  if (!known)
    event.severity = info;
  event.base.n_unknown_fields = 0;
  /* A clock that is off would put the event where it is trimmed at once, or never. */
  if (said->ms < now_ms - 3600000 || said->ms > now_ms + 60000)
    PB_SET(&event, ms, now_ms);
  return api_round_event(r, &event);
}

static const Model__NodeStatus *tame_node(struct api_round *r, Model__NodeStatus *said) {
  if (!said)
    return NULL;
  char *const texts[] = {said->version, said->docker_version, said->docker_error, said->kernel, said->arch};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    tame(texts[i], 512);
  for (size_t i = 0; i < said->n_volumes; i++)
    tame(said->volumes[i], INSTANCE_ID_MAX);
  if (protobuf_c_message_get_packed_size(&said->base) <= NODE_STATUS_MAX)
    return said;
  r->refused++;
  return NULL; /* what it said before stays */
}

int api_round_report(struct api_round *r, const char *node, const Node__StatusReport *report, int64_t now_ms) {
  int rc = 0;
  for (size_t i = 0; i < report->n_instances && rc == 0; i++)
    rc = take_status(r, node, report->instances[i]);
  for (size_t i = 0; i < report->n_gone && rc == 0; i++)
    rc = take_gone(r, node, report->gone[i]);
  for (size_t i = 0; i < report->n_images && rc == 0; i++)
    rc = take_image(r, node, report->images[i], now_ms);
  for (size_t i = 0; i < report->n_events && rc == 0; i++) {
    if (i >= API_ROUND_EVENTS)
      r->refused++;
    else
      rc = take_event(r, node, report->events[i], now_ms);
  }
  if (rc == 0 && report->full)
    rc = sweep(r, node, report);
  /* Whoever reports is there. */
  if (rc == 0)
    rc = put_node(r, node, tame_node(r, report->node), MODEL__NODE_STATE__NODE_READY, "", now_ms);
  return rc;
}

int api_round_drained(struct api_round *r, const Model__Instance *instance) {
  char key[KEY_MAX];
  key_numbered(key, KEY_INSTANCE_STATUS, PB_STR(instance->project), PB_STR(instance->service), instance->number);
  const Model__InstanceStatus *before = (const Model__InstanceStatus *)(const void *)seen(r, API_INSTANCE_STATUS, key);
  if (!before || before->drained || before->epoch != instance->epoch)
    return 0;
  Model__InstanceStatus status = *before;
  PB_SET(&status, drained, 1);
  return write_message(r, API_INSTANCE_STATUS, key, &status.base);
}
