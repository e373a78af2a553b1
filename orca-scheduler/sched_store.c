#include "orca-scheduler/sched_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/cron/zone.h"
#include "common/log.h"
#include "common/spec/ids.h"
#include "common/storec/storec.h"
#include "orca-scheduler/sched_core.h"

#define LEASE_NS (5 * NS_PER_SEC)
#define TXN_TIMEOUT_NS (10 * NS_PER_SEC)
#define AGAIN_NS (250 * NS_PER_MS)

static const char *const mirrored[] = {KEY_CLUSTER,     "/leader/",    KEY_SERVICES,        KEY_REVISIONS, KEY_NODES,
                                       KEY_NODE_STATUS, KEY_INSTANCES, KEY_INSTANCE_STATUS, KEY_ROLLOUTS,  KEY_HISTORY_SCHEDULER,
                                       KEY_JOBS,        KEY_JOB_STATE, KEY_JOB_RUNS};

struct sched_store {
  struct loop *loop;
  struct storec *storec;
  struct storec_mirror *mirror;
  struct storec_lease *lease;
  struct sched_core *core;
  struct sched_actions actions;
  char *node;
  void (*status)(void *arg, const char *text);
  void *status_arg;
  struct loop_hook hook;
  struct loop_timer timer;    /* the core's next moment, or another try */
  int64_t base_ms, base_mono; /* see now_ms() */

  uint64_t lease_id;   /* 0: none */
  uint64_t leader_mod; /* of the key, as mirrored; 0: absent */
  bool leader_is_this_node;
  uint64_t my_mod; /* of the key as this process wrote it; 0: never, or no longer */
  bool synced, in_flight;
  bool stale;                              /* the core holds decisions that may not have happened */
  bool announced;                          /* that it leads */
  bool due;                                /* there may be something to decide */
  uint64_t mirror_revision, wait_revision; /* nothing is decided before the mirror has reached the latter */
};

/* Unix time that does not jump: read once, then carried on by the monotonic clock, so that no min_ready or time limit is cut short or drawn
 * out when somebody sets the clock. */
static int64_t now_ms(const struct sched_store *s) {
  return s->base_ms + (loop_now(s->loop) - s->base_mono) / NS_PER_MS;
}

static void tell_status(struct sched_store *s, const char *text) {
  if (s->status)
    s->status(s->status_arg, text);
}

static void set_timer(struct sched_store *s, int64_t at) {
  struct err err;
  if (loop_timer_at(s->loop, &s->timer, at, &err) < 0)
    log_error("timer", "error", err.msg);
}

static void try_again(struct sched_store *s) {
  set_timer(s, loop_now(s->loop) + AGAIN_NS);
}

static bool leads(const struct sched_store *s) {
  return s->lease_id && s->my_mod && s->leader_mod == s->my_mod;
}

static void stop_leading(struct sched_store *s, const char *why) {
  if (s->announced) {
    log_warn("does not lead any more", "reason", why);
    tell_status(s, "standby");
  }
  s->announced = false;
}

/* ---- the mirror → the core ---- */

static void feed(struct sched_store *s, const struct sched_event *event) {
  struct err err;
  if (sched_core_step(s->core, event, now_ms(s), &s->actions, &err) == 0)
    return;
  log_warn("a record is not understood", "key", event->key, "error", err.msg);
  if (err.code == ERR_MEMORY)
    s->stale = true;
}

static void leader_changed(struct sched_store *s, uint64_t mod_revision, bool this_node) {
  s->leader_mod = mod_revision;
  s->leader_is_this_node = this_node;
  if (s->announced && !leads(s))
    stop_leading(s, "another one has taken over");
  s->due = true;
}

static void follow_level(const uint8_t *value, size_t len) {
  struct err err;
  Model__ClusterSpec *cluster = (Model__ClusterSpec *)pb_unpack(&model__cluster_spec__descriptor, value, len, &err);
  if (!cluster)
    return; /* a core's record would be named; this one's other fields are not the scheduler's */
  log_follow_level(PB_STR(cluster->log_level));
  model__cluster_spec__free_unpacked(cluster, NULL);
}

static void on_put(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t mod_revision) {
  struct sched_store *s = arg;
  if (strcmp(key, KEY_SCHEDULER_LEADER) == 0) {
    struct err err;
    Model__Leader *leader = (Model__Leader *)pb_unpack(&model__leader__descriptor, value, len, &err);
    leader_changed(s, mod_revision, leader && strcmp(PB_STR(leader->node), s->node) == 0);
    if (leader)
      model__leader__free_unpacked(leader, NULL);
    return;
  }
  if (strcmp(key, KEY_CLUSTER) == 0) {
    follow_level(value, len);
    return;
  }
  const struct sched_event event = {.kind = SCHED_EVENT_PUT, .key = key, .value = value, .len = len};
  feed(s, &event);
}

static void on_del(void *arg, const char *key, uint64_t mod_revision) {
  (void)mod_revision;
  struct sched_store *s = arg;
  if (strcmp(key, KEY_SCHEDULER_LEADER) == 0) {
    leader_changed(s, 0, false);
    return;
  }
  if (strcmp(key, KEY_CLUSTER) == 0)
    return;
  const struct sched_event event = {.kind = SCHED_EVENT_DELETE, .key = key};
  feed(s, &event);
}

static void on_end_of_revision(void *arg, uint64_t revision) {
  struct sched_store *s = arg;
  s->mirror_revision = revision;
  s->due = true;
}

static void on_synced(void *arg, uint64_t revision) {
  struct sched_store *s = arg;
  s->mirror_revision = revision;
  s->synced = s->due = true;
  const struct sched_event event = {.kind = SCHED_EVENT_SYNCED};
  feed(s, &event);
  log_debug("in touch with the store", "revision", log_u64(revision));
}

static void on_lost(void *arg, const struct err *why) {
  struct sched_store *s = arg;
  s->synced = false;
  log_warn("the store is away", "error", why->msg);
}

/* A new core, filled from the store as it is now. The old mirror's leader stays known until the new one tells it again. */
static int begin_anew(struct sched_store *s, struct err *err) {
  static const struct storec_mirror_ops ops = {on_put, on_del, on_end_of_revision, on_synced, on_lost};
  storec_mirror_free(s->mirror);
  s->mirror = NULL;
  sched_core_free(s->core);
  s->synced = s->stale = false;
  s->mirror_revision = 0;
  s->leader_mod = 0;
  s->leader_is_this_node = false;
  s->core = sched_core_new();
  if (!s->core)
    return err_set(err, ERR_MEMORY, "no memory for the core");
  sched_core_zones(s->core, zone_load);
  s->mirror = storec_mirror_new(s->storec, mirrored, sizeof mirrored / sizeof *mirrored, &ops, s, err);
  return s->mirror ? 0 : -1;
}

/* ---- leadership ---- */

static void campaign_done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct sched_store *s = arg;
  s->in_flight = false;
  s->due = true;
  if (err) {
    log_warn("the leadership could not be asked for", "error", err->msg);
    s->due = false;
    try_again(s);
    return;
  }
  if (!succeeded)
    return; /* the mirror tells who has it */
  s->my_mod = s->wait_revision = revision;
}

static void campaign(struct sched_store *s) {
  struct storec_txn *txn = storec_txn_new();
  if (!txn) {
    try_again(s);
    return;
  }
  Model__Leader leader = MODEL__LEADER__INIT;
  leader.node = s->node;
  PB_SET(&leader, since_ms, now_ms(s));
  storec_if_mod_revision(txn, KEY_SCHEDULER_LEADER, s->leader_mod);
  storec_put_message(txn, KEY_SCHEDULER_LEADER, &leader.base, s->lease_id);
  s->in_flight = true;
  storec_commit(s->storec, txn, TXN_TIMEOUT_NS, campaign_done, s);
}

static void on_granted(void *arg, uint64_t id) {
  struct sched_store *s = arg;
  s->lease_id = id;
  s->my_mod = 0; /* what was written under the lease before has gone with it */
  s->due = true;
}

static void on_lease_lost(void *arg) {
  struct sched_store *s = arg;
  s->lease_id = 0;
  s->my_mod = 0;
  stop_leading(s, "the lease has ended");
}

/* ---- deciding ---- */

static void decided(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct sched_store *s = arg;
  s->in_flight = false;
  s->due = true;
  if (!err && succeeded) {
    s->wait_revision = revision;
    return;
  }
  /* What the core believes may not have happened. The leadership is taken anew in any case, so that it can't happen later. */
  log_warn("a decision was not stored", "reason", err ? err->msg : "the leadership has changed");
  s->stale = true;
  s->my_mod = 0;
  stop_leading(s, "a decision was not stored");
  if (err) {
    s->due = false;
    try_again(s);
  }
}

static void commit(struct sched_store *s) {
  struct storec_txn *txn = storec_txn_new();
  if (!txn) {
    s->stale = true;
    s->my_mod = 0;
    try_again(s);
    return;
  }
  storec_if_mod_revision(txn, KEY_SCHEDULER_LEADER, s->my_mod);
  for (size_t i = 0; i < s->actions.count; i++) {
    const struct sched_action *action = &s->actions.list[i];
    if (action->kind == SCHED_ACTION_PUT)
      storec_put(txn, action->key, action->value, action->len, 0);
    else
      storec_delete(txn, action->key);
  }
  s->in_flight = true;
  storec_commit(s->storec, txn, TXN_TIMEOUT_NS, decided, s);
}

static void log_actions(const struct sched_store *s) {
  if (!log_enabled(LOG_LEVEL_DEBUG))
    return;
  for (size_t i = 0; i < s->actions.count; i++)
    log_debug(s->actions.list[i].kind == SCHED_ACTION_PUT ? "put" : "delete", "key", s->actions.list[i].key);
}

static void decide(struct sched_store *s) {
  const struct sched_event event = {.kind = SCHED_EVENT_RUN, .wall_ms = loop_wall(s->loop) / NS_PER_MS};
  struct err err;
  if (sched_core_step(s->core, &event, now_ms(s), &s->actions, &err) < 0) {
    log_error("no decision", "error", err.msg);
    s->stale = true;
    s->my_mod = 0;
    try_again(s);
    return;
  }
  loop_timer_cancel(s->loop, &s->timer);
  if (s->actions.next_ms != ROLLOUT_NEVER)
    set_timer(s, s->base_mono + (s->actions.next_ms - s->base_ms) * NS_PER_MS);
  s->due = s->actions.more;
  if (s->actions.count == 0)
    return;
  log_actions(s);
  commit(s);
}

static void anew(struct sched_store *s) {
  struct err err;
  if (begin_anew(s, &err) == 0)
    return;
  log_error("cannot begin anew", "error", err.msg);
  s->stale = true;
  try_again(s);
}

static void lead_or_follow(struct sched_store *s) {
  if (s->stale && (!s->leader_is_this_node || leads(s))) {
    /* Fenced: by this process's new leadership, or by another's. */
    anew(s);
  } else if (!s->lease_id) {
    s->due = false;
  } else if (!leads(s)) {
    s->due = false;
    /* This node's own record is of a process that is dead, or of this one before it lost track. */
    if (!s->leader_mod || s->leader_is_this_node)
      campaign(s);
  } else {
    if (!s->announced) {
      log_info("leads");
      tell_status(s, "leads");
    }
    s->announced = true;
    decide(s);
  }
}

/* Once per round, after everything that arrived in it. */
static bool at_end_of_round(void *arg) {
  struct sched_store *s = arg;
  if (!s->due || s->in_flight || !s->synced || s->mirror_revision < s->wait_revision)
    return false;
  lead_or_follow(s);
  return false;
}

static void on_timer(void *arg) {
  struct sched_store *s = arg;
  s->due = true;
  struct err err;
  if (!s->mirror && begin_anew(s, &err) < 0)
    try_again(s);
}

/* ---- */

struct sched_store *sched_store_new(struct loop *loop, struct bus *bus, const struct sched_store_config *config, struct err *err) {
  static const struct storec_lease_ops lease_ops = {on_granted, on_lease_lost};
  struct sched_store *s = calloc(1, sizeof *s);
  if (!s || !(s->node = strdup(config->node))) {
    free(s);
    err_set(err, ERR_MEMORY, "no memory");
    return NULL;
  }
  s->loop = loop;
  s->status = config->status;
  s->status_arg = config->status_arg;
  s->base_mono = loop_now(loop);
  s->base_ms = loop_wall(loop) / NS_PER_MS;
  s->timer = (struct loop_timer){.cb = on_timer, .arg = s};
  s->hook = (struct loop_hook){.cb = at_end_of_round, .arg = s};
  loop_hook_add(loop, &s->hook);
  s->storec = storec_new(bus, loop, config->stores, config->store_count, err);
  if (!s->storec || begin_anew(s, err) < 0 || !(s->lease = storec_lease_new(s->storec, LEASE_NS, &lease_ops, s, err))) {
    sched_store_free(s);
    return NULL;
  }
  return s;
}

const struct sched_core *sched_store_core(const struct sched_store *s) {
  return s->synced && !s->stale ? s->core : NULL;
}

int64_t sched_store_now_ms(const struct sched_store *s) {
  return now_ms(s);
}

void sched_store_free(struct sched_store *s) {
  if (!s)
    return;
  loop_hook_remove(s->loop, &s->hook);
  storec_mirror_free(s->mirror);
  storec_lease_free(s->lease);
  storec_free(s->storec);
  loop_timer_cancel(s->loop, &s->timer); /* a commit that ends here wants to be tried again */
  sched_core_free(s->core);
  sched_actions_fini(&s->actions);
  free(s->node);
  free(s);
}
