#include "orca-agent/report.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-agent/secret_values.h"

/* ---- lists whose beginning is under way ---- */

static int grow(void **list, size_t *size, size_t count, size_t item) {
  if (count < *size)
    return 0;
  size_t more = *size ? *size * 2 : 16;
  void *bigger = reallocarray(*list, more, item);
  if (!bigger)
    return -1;
  *list = bigger;
  *size = more;
  return 0;
}

void report_fini(struct report *r) {
  for (size_t n = 0; n < r->gone_count; n++)
    free(r->gone[n]);
  for (size_t n = 0; n < r->image_count; n++)
    node__image_resolved__free_unpacked(r->images[n], NULL);
  for (size_t n = 0; n < r->event_count; n++)
    model__event__free_unpacked(r->events[n], NULL);
  free(r->gone);
  free(r->images);
  free(r->events);
  *r = (struct report){0};
}

/* What Docker, a probe or the system said, cut where it was too long. */
static char *said(const char *text) {
  char *copy = strdup(text);
  if (copy)
    pb_make_utf8(copy);
  return copy;
}

void report_gone(struct report *r, const char *instance) {
  void *list = r->gone;
  char *copy = strdup(instance);
  if (!copy || grow(&list, &r->gone_size, r->gone_count, sizeof *r->gone) < 0) {
    free(copy); /* said again with the next full report */
    return;
  }
  r->gone = list;
  r->gone[r->gone_count++] = copy;
}

void report_image(struct report *r, const struct agent_action *act) {
  void *list = r->images;
  Node__ImageResolved *image = malloc(sizeof *image);
  if (!image || grow(&list, &r->image_size, r->image_count, sizeof *r->images) < 0) {
    free(image);
    return;
  }
  node__image_resolved__init(image);
  image->project = strdup(act->project);
  image->service = strdup(act->service);
  image->image = strdup(act->name);
  PB_SET(image, revision, act->number);
  r->images = list;
  r->images[r->image_count++] = image;
}

void report_event(struct report *r, const struct agent_action *act, const char *node, int64_t wall_ms) {
  void *list = r->events;
  if (r->event_count >= REPORT_MAX_EVENTS && r->event_sent == 0) {
    model__event__free_unpacked(r->events[0], NULL);
    memmove(r->events, r->events + 1, --r->event_count * sizeof *r->events);
    r->event_dropped++;
  }
  Model__Event *event = malloc(sizeof *event);
  if (!event || r->event_count >= 2 * REPORT_MAX_EVENTS || grow(&list, &r->event_size, r->event_count, sizeof *r->events) < 0) {
    free(event);
    r->event_dropped++;
    return;
  }
  r->events = list;
  model__event__init(event);
  PB_SET(event, ms, wall_ms);
  event->kind = strdup(act->name);
  event->node = strdup(node);
  event->message = said(act->text);
  event->severity = strdup(act->severity ? act->severity : "info");
  event->actor = strdup("agent");
  if (*act->instance) {
    event->project = strdup(act->project);
    event->service = strdup(act->service);
    PB_SET(event, instance, act->number);
  }
  r->events[r->event_count++] = event;
}

bool report_pending(const struct report *r, const struct agent_core *core) {
  return r->full || r->node_dirty || r->gone_count || r->image_count || r->event_count || core->status_seq > r->acked_seq;
}

void report_restart(struct report *r) {
  r->full = true;
  r->node_dirty = true;
  r->acked_seq = 0;
  report_failed(r);
}

void report_failed(struct report *r) {
  r->gone_sent = r->image_sent = r->event_sent = 0;
}

void report_acked(struct report *r) {
  r->acked_seq = r->sent_seq;
  for (size_t n = 0; n < r->gone_sent; n++)
    free(r->gone[n]);
  for (size_t n = 0; n < r->image_sent; n++)
    node__image_resolved__free_unpacked(r->images[n], NULL);
  for (size_t n = 0; n < r->event_sent; n++)
    model__event__free_unpacked(r->events[n], NULL);
  r->gone_count -= r->gone_sent;
  r->image_count -= r->image_sent;
  r->event_count -= r->event_sent;
  if (r->gone_sent)
    memmove(r->gone, r->gone + r->gone_sent, r->gone_count * sizeof *r->gone);
  if (r->image_sent)
    memmove(r->images, r->images + r->image_sent, r->image_count * sizeof *r->images);
  if (r->event_sent)
    memmove(r->events, r->events + r->event_sent, r->event_count * sizeof *r->events);
  report_failed(r);
}

/* ---- the message ---- */

static void add_secret(Model__InstanceStatus *st, const char *name, uint64_t version, bool global) {
  Model__SecretVersion **list = reallocarray(st->secrets, st->n_secrets + 1, sizeof *list);
  Model__SecretVersion *one = list ? malloc(sizeof *one) : NULL;
  if (list)
    st->secrets = list;
  if (!one)
    return;
  model__secret_version__init(one);
  one->name = strdup(name);
  PB_SET(one, version, version);
  PB_SET(one, global, global);
  st->secrets[st->n_secrets++] = one;
}

/* What the container has; without one, what it waits for. */
static void add_secrets(Model__InstanceStatus *st, const struct agent_instance *i) {
  struct secret_label had;
  const Model__SecretVersion *missing = agent_instance_missing_secret(i);
  if (!i->c.id[0] && missing)
    add_secret(st, PB_STR(missing->name), 0, false);
  for (const char *at = i->c.secrets; i->c.id[0] && secret_label_next(&at, &had);)
    add_secret(st, had.name, had.version, had.global);
}

Model__InstanceStatus *report_instance(const struct agent_core *core, const struct agent_instance *i) {
  Model__InstanceStatus *st = malloc(sizeof *st);
  if (!st)
    return NULL;
  model__instance_status__init(st);
  st->project = strdup(i->project);
  st->service = strdup(i->service);
  PB_SET(st, number, i->number);
  PB_SET(st, epoch, i->assigned ? i->assigned->instance->epoch : i->c.epoch);
  st->node = strdup(core->node);
  PB_SET(st, phase, i->phase);
  PB_SET(st, ready, i->ready);
  PB_SET(st, started, i->started);
  if (i->c.id[0])
    st->container_id = strdup(i->c.id);
  const char *address = i->c.host_network ? core->address : i->c.address;
  if (*address)
    st->address = strdup(address);
  PB_SET(st, restarts, i->restarts);
  if (i->exit_handled_ns) {
    PB_SET(st, exit_code, i->last_exit);
    PB_SET(st, oom_killed, i->last_oom);
  }
  st->reason = said(i->reason);
  PB_SET(st, since_ms, i->since_ms);
  if (i->c.started_ns)
    PB_SET(st, started_ms, i->c.started_ns / NS_PER_MS);
  if (i->ready)
    PB_SET(st, ready_since_ms, i->ready_since_ms);
  if (i->next_try_ms)
    PB_SET(st, next_try_ms, i->next_try_ms);
  if (i->ended_ms) {
    PB_SET(st, ended_ms, i->ended_ms);
    st->ended_by = said(i->ended_by);
  }
  if (i->last_lines && (st->last_lines.data = malloc(i->last_lines_len))) {
    memcpy(st->last_lines.data, i->last_lines, i->last_lines_len);
    st->last_lines.len = i->last_lines_len;
    st->has_last_lines = true;
  }
  if (i->progress[0])
    st->progress = said(i->progress);
  add_secrets(st, i);
  return st;
}

static bool gone_now(const struct agent_instance *i) {
  return i->want == AGENT_WANT_STOP && i->c.state == AGENT_C_NONE && i->op == AGENT_OP_NONE;
}

static void add_instances(struct report *r, const struct agent_core *core, Node__StatusReport *m) {
  size_t lines = 0;
  m->instances = calloc(core->count ? core->count : 1, sizeof *m->instances);
  for (size_t n = 0; m->instances && n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->want == AGENT_WANT_NONE || gone_now(i) || (!r->full && i->status_seq <= r->acked_seq))
      continue;
    Model__InstanceStatus *st = report_instance(core, i);
    if (!st)
      continue;
    if ((lines += st->last_lines.len) > REPORT_LINES)
      st->has_last_lines = false;
    m->instances[m->n_instances++] = st;
  }
}

static void add_gone(struct report *r, const struct agent_core *core, Node__StatusReport *m) {
  size_t extra = r->full ? core->count : 0;
  m->gone = calloc(r->gone_count + extra + 1, sizeof *m->gone);
  if (!m->gone)
    return;
  for (size_t n = 0; n < r->gone_count; n++)
    if ((m->gone[m->n_gone] = strdup(r->gone[n])))
      m->n_gone++;
  r->gone_sent = r->gone_count;
  for (size_t n = 0; n < extra; n++)
    if (gone_now(core->instances[n]) && (m->gone[m->n_gone] = strdup(core->instances[n]->id)))
      m->n_gone++;
}

Node__StatusReport *report_build(struct report *r, const struct agent_core *core, const Model__NodeStatus *node) {
  Node__StatusReport *m = malloc(sizeof *m);
  if (!m)
    return NULL;
  node__status_report__init(m);
  PB_SET(m, full, r->full);
  if (r->node_dirty || r->full)
    m->node = (Model__NodeStatus *)pb_clone(&node->base);
  add_instances(r, core, m);
  add_gone(r, core, m);
  m->images = calloc(r->image_count + 1, sizeof *m->images);
  for (size_t n = 0; m->images && n < r->image_count; n++)
    if ((m->images[m->n_images] = (Node__ImageResolved *)pb_clone(&r->images[n]->base)))
      m->n_images++;
  r->image_sent = m->images ? r->image_count : 0;
  size_t events = r->event_count < REPORT_EVENTS ? r->event_count : REPORT_EVENTS;
  m->events = calloc(events + 1, sizeof *m->events);
  for (size_t n = 0; m->events && n < events; n++)
    if ((m->events[m->n_events] = (Model__Event *)pb_clone(&r->events[n]->base)))
      m->n_events++;
  r->event_sent = m->events ? events : 0;
  r->sent_seq = core->status_seq;
  return m;
}
