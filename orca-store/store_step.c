/* Events into the core, its actions out: the log and its syncs, the deadline, and what follows from a new role or commit. */
#include "orca-store/store_int.h"

bool store_step_core(struct store *s, const struct raft_event *ev) {
  if (raft_step(s->raft, ev, loop_now(s->loop), &s->step.actions) < 0) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    store_fatal(s, &err);
    return false;
  }
  return true;
}

void store_step(struct store *s, const struct raft_event *ev) {
  if (store_step_core(s, ev))
    store_step_act(s);
}

static void synced(void *arg, const struct raft_stable *stable, const struct err *err) {
  struct store *s = arg;
  if (s->stopping)
    return;
  if (err) {
    store_fatal(s, err);
    return;
  }
  struct raft_event ev = {.type = RAFT_EV_STABLE, .stable = *stable};
  store_step(s, &ev);
}

static void role_changed(struct store *s) {
  store_leader_changed(s);
  if (store_is_leader(s))
    return;
  struct err err;
  err_set(&err, ERR_UNAVAILABLE, "this store is not the leader any more: the outcome is not known");
  proposals_refuse_all(&s->proposals, &s->proposals.waiting, &err);
}

static void write_log(struct store *s) {
  struct raft_actions *a = &s->step.actions;
  struct err err;
  for (size_t i = 0; i < a->n_append; i++)
    store_snapshots_logged(s, a->append[i].len);
  if (dlog_write(s->log, a->hard_changed ? &a->hard : NULL, a->append, a->n_append, &err) == 0) {
    syncer_want(s->step.syncer);
    return;
  }
  if (err.code != ERR_NO_SPACE) {
    store_fatal(s, &err);
    return;
  }
  store_note_fault(s, &err);
  struct raft_event ev = {.type = RAFT_EV_WRITE_FAILED, .stable = dlog_mark(s->log)};
  proposals_refuse_behind(&s->proposals, ev.stable.index, &err);
  store_step(s, &ev);
}

/* In the order of raft.h's contract. There are no messages while there is one member. */
void store_step_act(struct store *s) {
  struct raft_actions *a = &s->step.actions;
  bool role = a->role_changed;
  s->step.commit = a->commit > s->step.commit ? a->commit : s->step.commit;
  for (size_t i = 0; i < a->n_reads; i++)
    reads_heard(&s->reads, &a->reads[i]);
  if (a->write)
    write_log(s);
  if (s->stopping)
    return;
  store_set_timer(s, &s->step.tick, a->deadline);
  if (role)
    role_changed(s);
  if (!s->stopping && s->step.commit > kv_state(s->kv)->applied_index)
    store_apply(s);
  if (!s->stopping)
    reads_answer(&s->reads, kv_state(s->kv)->applied_index);
}

static void on_tick(void *arg) {
  struct raft_event ev = {.type = RAFT_EV_TICK};
  store_step(arg, &ev);
}

void store_step_init(struct store *s) {
  s->step.tick = (struct loop_timer){.cb = on_tick, .arg = s};
  raft_actions_init(&s->step.actions);
}

int store_step_start(struct store *s, struct err *err) {
  s->step.syncer = syncer_start(s->loop, s->log, synced, s, err);
  if (!s->step.syncer)
    return -1;
  struct raft_event ev = {.type = RAFT_EV_START};
  store_step(s, &ev);
  return 0;
}

void store_step_stop(struct store *s) {
  syncer_stop(s->step.syncer);
  s->step.syncer = NULL;
}

void store_step_fini(struct store *s) {
  loop_timer_cancel(s->loop, &s->step.tick);
  raft_actions_fini(&s->step.actions);
}
