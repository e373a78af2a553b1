#include "orca-agent/keeper_rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-agent/verdicts.h"
#include "proto/keeper.pb-c.h"

#define MAX_STREAMS 8u
#define MAX_ARGS 256u

/* What a stream has been told of one instance. */
struct told {
  char instance[INSTANCE_ID_MAX];
  char container[AGENT_CONTAINER_ID];
  int64_t started_ms;
  uint64_t revision, epoch;
  bool seen;
};

struct stream {
  struct keeper_link *k;
  struct bus_call *call;
  struct told *told;
  size_t count, size;
  bool full_sent, blocked;
  char log_level[16]; /* as told last */
  struct stream *next;
};

struct keeper_link {
  struct agent *a;
  struct bus_listener *listener;
  struct stream *streams;
};

/* ---- targets ---- */

static const Model__ServiceSpec *probed(const struct agent_instance *i) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  bool probes = spec && (spec->readiness || spec->startup || spec->liveness);
  return probes && i->want == AGENT_WANT_RUN && i->phase == MODEL__PHASE__PHASE_RUNNING && i->c.detailed && i->c.id[0] ? spec : NULL;
}

static Model__Probe *probe_copy(const Model__Probe *probe, uint32_t port) {
  Model__Probe *copy = probe ? (Model__Probe *)pb_clone(&probe->base) : NULL;
  if (copy)
    spec_fill_probe(copy, port);
  return copy;
}

static Keeper__Target *target_of(const struct agent *a, const struct agent_instance *i, const Model__ServiceSpec *spec) {
  Keeper__Target *t = malloc(sizeof *t);
  if (!t)
    return NULL;
  keeper__target__init(t);
  t->instance = strdup(i->id);
  t->container_id = strdup(i->c.id);
  t->address = strdup(i->c.host_network ? a->daemon->config.address : i->c.address);
  PB_SET(t, started_ms, i->c.started_ns / NS_PER_MS);
  uint32_t port = PB_GET(spec, port, 0);
  t->readiness = probe_copy(spec->readiness, port);
  t->startup = probe_copy(spec->startup, port);
  t->liveness = probe_copy(spec->liveness, port);
  return t;
}

static struct told *told_of(struct stream *s, const char *instance) {
  for (size_t n = 0; n < s->count; n++)
    if (strcmp(s->told[n].instance, instance) == 0)
      return &s->told[n];
  return NULL;
}

static struct told *told_add(struct stream *s) {
  if (s->count == s->size) {
    size_t size = s->size ? s->size * 2 : 16;
    struct told *told = reallocarray(s->told, size, sizeof *told);
    if (!told)
      return NULL;
    s->told = told;
    s->size = size;
  }
  return &s->told[s->count++];
}

/* Compares what the stream has been told with what is, and tells the difference. */
static void tell(struct stream *s) {
  struct agent *a = s->k->a;
  /* Before it is known what runs here and what of it is to be probed, a list would be too short: the keeper would forget targets, and begin
   * anew with "not ready" when they come. Until then it goes on with those it has. */
  if (s->blocked || (!s->full_sent && !(a->core.have_desired && agent_core_settled(&a->core))))
    return;
  Keeper__Targets targets = KEEPER__TARGETS__INIT;
  PB_SET(&targets, full, !s->full_sent);
  targets.set = calloc(a->core.count + 1, sizeof *targets.set);
  targets.removed = calloc(s->count + 1, sizeof *targets.removed);
  struct told *now = calloc(a->core.count + 1, sizeof *now);
  size_t now_count = 0;
  for (size_t n = 0; n < s->count; n++)
    s->told[n].seen = false;
  for (size_t n = 0; targets.set && targets.removed && now && n < a->core.count; n++) {
    const struct agent_instance *i = a->core.instances[n];
    const Model__ServiceSpec *spec = probed(i);
    if (!spec)
      continue;
    struct told entry = {.started_ms = i->c.started_ns / NS_PER_MS, .revision = i->c.revision, .epoch = i->c.epoch};
    memcpy(entry.instance, i->id, sizeof entry.instance);
    memcpy(entry.container, i->c.id, sizeof entry.container);
    struct told *old = told_of(s, i->id);
    bool same =
        s->full_sent && old && strcmp(old->container, entry.container) == 0 && old->started_ms == entry.started_ms && old->revision == entry.revision;
    if (old)
      old->seen = true;
    now[now_count++] = entry;
    if (!same && (targets.set[targets.n_set] = target_of(a, i, spec)))
      targets.n_set++;
  }
  for (size_t n = 0; targets.removed && s->full_sent && n < s->count; n++)
    if (!s->told[n].seen)
      targets.removed[targets.n_removed++] = s->told[n].instance;
  int rc = 0;
  char log_level[sizeof s->log_level] = "";
  if (a->core.cluster)
    snprintf(log_level, sizeof log_level, "%s", *PB_STR(a->core.cluster->log_level) ? a->core.cluster->log_level : "info");
  bool level_due = *log_level && strcmp(log_level, s->log_level) != 0;
  if (level_due)
    targets.log_level = log_level;
  if (now && (!s->full_sent || targets.n_set || targets.n_removed || level_due)) {
    Keeper__Item item = KEEPER__ITEM__INIT;
    item.body_case = KEEPER__ITEM__BODY_TARGETS;
    item.targets = &targets;
    rc = bus_push(s->call, &item.base);
    s->blocked = rc == 1;
    if (rc == 0) {
      s->full_sent = true;
      if (level_due)
        memcpy(s->log_level, log_level, sizeof s->log_level);
      s->count = 0;
      for (size_t n = 0; n < now_count; n++) {
        struct told *entry = told_add(s);
        if (entry)
          *entry = now[n];
      }
    }
  }
  for (size_t n = 0; n < targets.n_set; n++)
    keeper__target__free_unpacked(targets.set[n], NULL);
  free(targets.set);
  free(targets.removed);
  free(now);
}

void keeper_flush(struct keeper_link *k) {
  for (struct stream *s = k->streams; s; s = s->next)
    tell(s);
}

static void stream_free(struct stream *s) {
  struct stream **at = &s->k->streams;
  while (*at && *at != s)
    at = &(*at)->next;
  if (*at)
    *at = s->next;
  free(s->told);
  free(s);
}

static void on_cancelled(void *arg) {
  stream_free(arg);
}

static void on_ready(void *arg) {
  struct stream *s = arg;
  s->blocked = false;
  tell(s);
}

static void hello(struct keeper_link *k, struct bus_call *call) {
  static const struct bus_answer_ops ops = {.cancelled = on_cancelled, .ready = on_ready};
  struct err err;
  size_t count = 0;
  for (struct stream *s = k->streams; s; s = s->next)
    count++;
  struct stream *s = count < MAX_STREAMS ? calloc(1, sizeof *s) : NULL;
  if (!s) {
    err_set(&err, ERR_BUSY, "too many keepers");
    bus_fail(call, &err);
    return;
  }
  s->k = k;
  s->call = call;
  s->next = k->streams;
  k->streams = s;
  bus_answer_on(call, &ops, s);
  tell(s);
}

/* ---- verdicts ---- */

static void verdicts(struct keeper_link *k, const Keeper__Verdicts *m) {
  for (size_t n = 0; n < m->n_verdicts; n++) {
    struct agent_event ev = verdict_event(m->verdicts[n]);
    agent_event(k->a, &ev);
  }
}

static bool is_command(const Model__Probe *probe, const Keeper__Exec *m) {
  if (!probe || probe->n_exec != m->n_argv)
    return false;
  for (size_t n = 0; n < m->n_argv; n++)
    if (strcmp(probe->exec[n], m->argv[n]) != 0)
      return false;
  return true;
}

/* The keeper runs what the service's probes say, and nothing else: its key is not a key to the containers. */
static bool is_probe(const struct agent_instance *i, const Keeper__Exec *m) {
  const Model__ServiceSpec *spec = agent_instance_spec(i);
  return spec && (is_command(spec->readiness, m) || is_command(spec->startup, m) || is_command(spec->liveness, m));
}

static void exec(struct keeper_link *k, struct bus_conn *conn, struct bus_call *call, const Keeper__Exec *m) {
  struct err err;
  const struct agent_instance *i = agent_core_find(&k->a->core, PB_STR(m->instance));
  if (!i || !i->c.id[0] || strcmp(i->c.id, PB_STR(m->container_id)) != 0)
    err_set(&err, ERR_NOT_FOUND, "no such container");
  else if (!m->n_argv || m->n_argv > MAX_ARGS)
    err_set(&err, ERR_INVALID, "an exec needs a command");
  else if (!is_probe(i, m)) {
    err_set(&err, ERR_DENIED, "not the command of a probe of %s", i->id);
    bus_conn_refused(conn, err.msg);
  } else {
    exec_run(k->a, call, i->c.id, m->argv, m->n_argv, PB_GET(m, timeout_ms, 3000));
    return;
  }
  bus_fail(call, &err);
}

/* ---- the listener ---- */

static void on_call(void *arg, struct bus_conn *conn, struct bus_call *call, const uint8_t *body, size_t len) {
  struct keeper_link *k = arg;
  struct err err;
  Keeper__Call *m = (Keeper__Call *)pb_unpack(&keeper__call__descriptor, body, len, &err);
  if (!m) {
    bus_conn_refused(conn, err.msg);
    bus_fail(call, &err);
    return;
  }
  switch (m->body_case) {
  case KEEPER__CALL__BODY_HELLO:
    hello(k, call);
    break;
  case KEEPER__CALL__BODY_VERDICTS: {
    verdicts(k, m->verdicts);
    Keeper__Done done = KEEPER__DONE__INIT;
    Keeper__Reply reply = KEEPER__REPLY__INIT;
    reply.body_case = KEEPER__REPLY__BODY_DONE;
    reply.done = &done;
    bus_reply(call, &reply.base);
    break;
  }
  case KEEPER__CALL__BODY_EXEC:
    exec(k, conn, call, m->exec);
    break;
  case KEEPER__CALL__BODY__NOT_SET:
  case _KEEPER__CALL__BODY__CASE_IS_INT_SIZE:
    err_set(&err, ERR_UNSUPPORTED, "not a call this agent knows");
    bus_fail(call, &err);
    break;
  }
  keeper__call__free_unpacked(m, NULL);
}

/* Read at each connection, so that a key made later than the agent's start is let in. */
static bool allow(void *arg, const char *public_key, char who[64], uint64_t *tag) {
  struct keeper_link *k = arg;
  char path[PATH_MAX], key[BUS_KEY_LEN + 1] = "";
  snprintf(path, sizeof path, "%s/keeper.pub", k->a->daemon->config.key_dir);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0)
    return false;
  ssize_t n = read(fd, key, BUS_KEY_LEN);
  close(fd);
  if (n != BUS_KEY_LEN || strcmp(key, public_key) != 0)
    return false;
  snprintf(who, 64, "keeper@%.50s", k->a->core.node);
  *tag = 0;
  return true;
}

struct keeper_link *keeper_open(struct agent *a, struct err *err) {
  static const struct bus_conn_ops ops = {.call = on_call};
  struct keeper_link *k = calloc(1, sizeof *k);
  char endpoint[PATH_MAX];
  if (!k) {
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  k->a = a;
  if (mkdir(a->daemon->config.run_dir, 0755) < 0 && errno != EEXIST) {
    err_errno(err, errno, "run_dir %s", a->daemon->config.run_dir);
    free(k);
    return NULL;
  }
  snprintf(endpoint, sizeof endpoint, "ipc://%s/agent.sock", a->daemon->config.run_dir);
  k->listener = bus_listen(a->bus, endpoint, allow, &ops, k, err);
  if (!k->listener) {
    free(k);
    return NULL;
  }
  return k;
}

void keeper_close(struct keeper_link *k) {
  if (!k)
    return;
  bus_listener_free(k->listener);
  while (k->streams)
    stream_free(k->streams);
  free(k);
}
