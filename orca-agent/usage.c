#include "orca-agent/usage.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/cgroup.h"

#define EVERY (15 * NS_PER_SEC)
#define FIRST NS_PER_SEC /* after something came up: people look at once */

struct sample {
  char instance[INSTANCE_ID_MAX];
  pid_t pid;
  struct cgroup_paths paths;
  struct cgroup_usage last;
  int64_t at;
  uint32_t cpu_milli;
  bool valid;
};

struct usage {
  struct agent *a;
  struct loop_timer timer;
  struct sample *samples; /* one per running container, in the core's order */
  size_t count;
  bool fresh;
  uint64_t node_cpu_ns, node_memory;
};

static struct sample *sample_of(struct usage *u, const struct agent_instance *i) {
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
  if (!*s->paths.cpu && !*s->paths.memory && cgroup_find("/proc", "/sys/fs/cgroup", s->pid, &s->paths) < 0) {
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

static void sample_all(struct usage *u) {
  const struct agent_core *core = &u->a->core;
  struct sample *now = calloc(core->count + 1, sizeof *now);
  size_t count = 0;
  if (!now)
    return;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (!runs(i))
      continue;
    const struct sample *old = sample_of(u, i);
    if (old) {
      now[count] = *old;
    } else {
      memcpy(now[count].instance, i->id, sizeof now[count].instance);
      now[count].pid = i->c.pid;
    }
    take(&now[count++], loop_now(u->a->loop));
  }
  free(u->samples);
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
    set_timer(u, EVERY);
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
  free(u->samples);
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
    m->usage[m->n_usage++] = one;
  }
}
