#include "orca-agent/usage.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/cgroup.h"
#include "orca-agent/net_stats.h"

#define EVERY (15 * NS_PER_SEC)
#define FIRST NS_PER_SEC /* after something came up: people look at once */
#define WATCHED_EVERY_MIN (2 * NS_PER_SEC)
#define WATCHED_FOR_MAX (60 * NS_PER_SEC)
#define NET_TRIES 4u /* samples that look for a container's interface; one that never speaks is not looked for all the time */

struct sample {
  char instance[INSTANCE_ID_MAX];
  pid_t pid;
  struct cgroup_paths paths;
  struct cgroup_usage last;
  int64_t at;
  uint32_t cpu_milli;
  bool valid;
  char interface[IF_NAMESIZE]; /* the host's end; "": not known */
  unsigned net_tries;
  bool has_net;
  uint64_t net_rx, net_tx;
};

struct usage {
  struct agent *a;
  struct loop_timer timer;
  struct sample *samples; /* one per running container, in the core's order */
  size_t count;
  bool fresh;
  int64_t watched_every, watched_until; /* somebody looks: sample more often until then */
  uint64_t node_cpu_ns, node_memory;
};

static struct sample *sample_of(const struct usage *u, const struct agent_instance *i) {
  for (size_t n = 0; n < u->count; n++)
    if (u->samples[n].pid == i->c.pid && strcmp(u->samples[n].instance, i->id) == 0)
      return &u->samples[n];
  return NULL;
}

static bool runs(const struct agent_instance *i) {
  return i->c.state == AGENT_C_RUNNING && i->c.detailed && i->c.pid > 0;
}

static void take(struct sample *s, int64_t now) {
  struct cgroup_usage got;
  if (!s->paths.text && cgroup_find("/proc", "/sys/fs/cgroup", s->pid, &s->paths) < 0) {
    s->valid = false;
    return;
  }
  bool before = s->valid;
  s->valid = cgroup_read(&s->paths, &got) == 0;
  if (!s->valid)
    return;
  if (before && now > s->at && got.cpu_ns >= s->last.cpu_ns)
    s->cpu_milli = (uint32_t)((double)(got.cpu_ns - s->last.cpu_ns) * 1000 / (double)(now - s->at));
  s->last = got;
  s->at = now;
}

static void take_net(struct sample *s, const char *address, bool again) {
  s->has_net = false;
  if (!*s->interface && (s->net_tries < NET_TRIES || again)) {
    s->net_tries++;
    if (net_stats_find("/proc", "/sys", address, s->interface) < 0)
      s->interface[0] = 0;
  }
  if (!*s->interface)
    return;
  s->has_net = net_stats_read("/sys", s->interface, &s->net_rx, &s->net_tx) == 0;
  if (!s->has_net)
    s->interface[0] = 0;
}

static void free_samples(struct usage *u) {
  for (size_t n = 0; n < u->count; n++)
    cgroup_paths_free(&u->samples[n].paths);
  free(u->samples);
}

static void sample_all(struct usage *u) {
  const struct agent_core *core = &u->a->core;
  size_t count = 0;
  for (size_t n = 0; n < core->count; n++)
    count += runs(core->instances[n]);
  struct sample *now = calloc(count + 1, sizeof *now);
  if (!now)
    return;
  count = 0;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (!runs(i))
      continue;
    struct sample *old = sample_of(u, i);
    if (old) {
      now[count] = *old;
      old->paths = (struct cgroup_paths){0}; /* it has moved */
    } else {
      memcpy(now[count].instance, i->id, sizeof now[count].instance);
      now[count].pid = i->c.pid;
    }
    take(&now[count], loop_now(u->a->loop));
    if (!i->c.host_network)
      take_net(&now[count], i->c.address, u->watched_until > loop_now(u->a->loop));
    count++;
  }
  free_samples(u);
  u->samples = now;
  u->count = count;
  if (cgroup_read_node("/proc", &u->node_cpu_ns, &u->node_memory) < 0)
    u->node_cpu_ns = u->node_memory = 0;
  u->fresh = true;
}

static void set_timer(struct usage *u, int64_t in) {
  if (loop_timer_in(u->a->loop, &u->timer, in, NULL) < 0)
    log_error("no memory for a timer");
}

static void on_timer(void *arg) {
  struct usage *u = arg;
  sample_all(u);
  if (u->count)
    set_timer(u, u->watched_until > loop_now(u->a->loop) ? u->watched_every : EVERY);
}

struct usage *usage_open(struct agent *a, struct err *err) {
  struct usage *u = calloc(1, sizeof *u);
  if (!u) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  u->a = a;
  u->timer = (struct loop_timer){.cb = on_timer, .arg = u};
  set_timer(u, FIRST);
  return u;
}

void usage_close(struct usage *u) {
  if (!u)
    return;
  loop_timer_cancel(u->a->loop, &u->timer);
  free_samples(u);
  free(u);
}

void usage_changed(struct usage *u) {
  const struct agent_core *core = &u->a->core;
  for (size_t n = 0; n < core->count; n++) {
    if (!runs(core->instances[n]) || sample_of(u, core->instances[n]))
      continue;
    int64_t soon = loop_now(u->a->loop) + FIRST;
    if (!loop_timer_is_set(&u->timer) || u->timer.at > soon)
      set_timer(u, FIRST);
    return;
  }
}

void usage_watch(struct usage *u, uint32_t interval_ms, uint32_t for_ms) {
  int64_t now = loop_now(u->a->loop), every = interval_ms * NS_PER_MS, length = for_ms * NS_PER_MS;
  bool began = u->watched_until > now;
  u->watched_every = every < WATCHED_EVERY_MIN ? WATCHED_EVERY_MIN : every > EVERY ? EVERY : every;
  u->watched_until = now + (length > WATCHED_FOR_MAX ? WATCHED_FOR_MAX : length);
  if (began || !loop_timer_is_set(&u->timer))
    return;
  set_timer(u, 0);
}

bool usage_pending(const struct usage *u) {
  return u->fresh;
}

void usage_add(struct usage *u, Node__StatusReport *m) {
  if (!u->fresh)
    return;
  u->fresh = false;
  PB_SET(m, cpu_ns, u->node_cpu_ns);
  PB_SET(m, memory_used, u->node_memory);
  m->usage = calloc(u->count + 1, sizeof *m->usage);
  for (size_t n = 0; m->usage && n < u->count; n++) {
    const struct sample *s = &u->samples[n];
    Node__Usage *one = s->valid ? malloc(sizeof *one) : NULL;
    if (!one)
      continue;
    node__usage__init(one);
    one->instance = strdup(s->instance);
    PB_SET(one, cpu_ns, s->last.cpu_ns);
    PB_SET(one, memory, s->last.memory);
    PB_SET(one, pids, s->last.pids);
    PB_SET(one, cpu_milli, s->cpu_milli);
    if (s->has_net) {
      PB_SET(one, net_rx, s->net_rx);
      PB_SET(one, net_tx, s->net_tx);
    }
    m->usage[m->n_usage++] = one;
  }
}
