/* Histories drawn from a seed: while faults go on, masters change their minds, services are removed and made anew under their names, containers end,
 * the clock is put back and the agent is replaced (what it asked for is still done later). At the end, once faults stop, what runs must be what is
 * wanted. */
#include "tests/unit/agent/core_rig.h"

static void go_down(void) {
  rig.up = false;
  rig.event_count = 0;
  struct rig_call *old[MAX_PENDING];
  unsigned count = rig.pending_count;
  memcpy(old, rig.pending, count * sizeof *old);
  rig.pending_count = 0;
  for (unsigned n = 0; n < count; n++) {
    if (!old[n]->effect_done && rig_chance(50))
      rig_run_effect(old[n]);
    old[n]->outcome = ERR_UNAVAILABLE;
    if (!old[n]->late)
      rig_reply(old[n]);
    free(old[n]);
  }
  rig_step(&(struct agent_event){.kind = AGENT_EV_DOCKER_DOWN, .text = "gone"});
  for (unsigned n = 0; n < rig.pending_count; n++)
    free(rig.pending[n]);
  rig.pending_count = 0;
  if (rig_chance(50)) /* a daemon without live restore takes its containers along */
    for (unsigned n = 0; n < rig.container_count; n++)
      if (rig.containers[n].state == AGENT_C_RUNNING)
        rig_end(&rig.containers[n], 137);
}

static void change_mind(void) {
  unsigned s = (unsigned)(rig_rnd() % SERVICES), n = (unsigned)(rig_rnd() % NUMBERS);
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  Node__Assignment *a = NULL;
  char id[INSTANCE_ID_MAX], *removed = id;
  instance_id(id, "shop", rig_services[s], n + 1);
  if (!rig.want[s][n].assigned) {
    rig.want[s][n].assigned = true;
    rig.want[s][n].stop = false;
    rig.want[s][n].made++;
    if (s == JOB || rig_chance(50)) { /* else its numbers begin anew, too */
      rig.want[s][n].epoch++;
      rig.want[s][n].revision = 1 + rig_rnd() % 3;
    } else {
      rig.want[s][n].epoch = rig.want[s][n].revision = 1;
    }
  } else if (rig_chance(40) && !(s == JOB && rig.want[s][n].stop)) { /* a run that was stopped does not come back */
    rig.want[s][n].stop = !rig.want[s][n].stop;
  } else if (rig_chance(50)) {
    rig.want[s][n].epoch++;
  } else {
    rig.want[s][n].assigned = false;
    rig_forget_told(s, n);
    d.removed = &removed;
    d.n_removed = 1;
  }
  if (rig.want[s][n].assigned) {
    a = rig_assignment(s, n);
    d.assigned = &a;
    d.n_assigned = 1;
  }
  if (rig_chance(80))
    rig_step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  else
    rig_tell_full();
  if (a)
    node__assignment__free_unpacked(a, NULL);
}

/* What was asked of Docker is done or not, its answers and events are lost; containers end before and while the new one looks. */
static void replace_agent(void) {
  if (rig_chance(50))
    rig_report_all();
  struct rig_call *old[MAX_PENDING];
  unsigned count = rig.pending_count;
  memcpy(old, rig.pending, count * sizeof *old);
  rig.pending_count = 0;
  for (unsigned n = 0; n < count; n++) {
    struct rig_call *p = old[n];
    /* A run's container that goes once more has happened to it takes the run along: nobody was told of it yet. */
    bool of_run = p->act.op_kind == AGENT_OP_REMOVE && strncmp(p->act.instance, "shop/job.", 9) == 0;
    if (rig.up && p->act.kind == AGENT_ACT_INSTANCE && p->act.op_kind != AGENT_OP_PREPARE && !of_run && !p->effect_done && rig_chance(30)) {
      p->late = true;
      p->due = rig.now + (int64_t)(rig_rnd() % 2000) * NS_PER_MS;
      rig.pending[rig.pending_count++] = p;
      continue;
    }
    if (rig_chance(50))
      rig_run_effect(p);
    free(p);
  }
  rig.event_count = 0;
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      rig.want[s][n].prepared = 0;
  agent_core_fini(&rig.core);
  rig_new_core();
  bool told_first = rig_chance(30);
  if (told_first)
    rig_tell_full();
  if (rig.up)
    rig_come_up();
  for (unsigned rounds = (unsigned)(rig_rnd() % 4); rounds; rounds--) {
    int64_t until = rig.now + (int64_t)(rig_rnd() % 40) * NS_PER_MS;
    while (rig_advance(until))
      ;
    struct agent_container *c = rig.container_count ? &rig.containers[rig_rnd() % rig.container_count] : NULL;
    if (c && c->state == AGENT_C_RUNNING)
      rig_end(c, rig_chance(50) ? 0 : 139);
    if (told_first && rig_chance(20))
      change_mind();
  }
  if (!told_first)
    rig_tell_full();
}

static void check_end(uint64_t seed) {
  unsigned wanted = 0;
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++) {
      char id[INSTANCE_ID_MAX];
      instance_id(id, "shop", rig_services[s], n + 1);
      unsigned found = 0;
      for (unsigned c = 0; c < rig.container_count; c++)
        if (strcmp(rig.containers[c].service, rig_services[s]) == 0 && rig.containers[c].number == n + 1) {
          found++;
          if ((rig.containers[c].state != AGENT_C_RUNNING && !(s == JOB && rig.containers[c].state == AGENT_C_EXITED)) ||
              rig.containers[c].epoch != rig.want[s][n].epoch || rig.containers[c].revision != rig.want[s][n].revision ||
              strtoul(strchr(rig.containers[c].spec_hash, '-') + 1, NULL, 10) != rig.want[s][n].made)
            fail_msg("seed %llu: %s is in state %d, epoch %llu, want running, %llu", (unsigned long long)seed, id, (int)rig.containers[c].state,
                     (unsigned long long)rig.containers[c].epoch, (unsigned long long)rig.want[s][n].epoch);
        }
      bool want = rig.want[s][n].assigned && !rig.want[s][n].stop;
      bool taken_away = s == JOB && !found && rig.runs[n][rig.want[s][n].epoch % EPOCHS];
      wanted += want && !taken_away;
      if (found != want && !taken_away)
        fail_msg("seed %llu: %s has %u containers, want %d", (unsigned long long)seed, id, found, want);
      const struct agent_instance *i = agent_core_find(&rig.core, id);
      if (want && !(s == JOB && i && i->phase == MODEL__PHASE__PHASE_EXITED) && (!i || i->phase != MODEL__PHASE__PHASE_RUNNING || !i->ready))
        fail_msg("seed %llu: %s runs and is said to be in phase %d: %s", (unsigned long long)seed, id, i ? (int)i->phase : -1, i ? i->reason : "");
    }
  assert_int_equal(rig.container_count, wanted);
  assert_int_equal(rig.core.busy_slots, 0);
}

static bool is_told_of(const struct agent_container *c) {
  const Model__InstanceStatus *told = rig.want[JOB][c->number - 1].told;
  return told && told->epoch == c->epoch && (told->phase == MODEL__PHASE__PHASE_RUNNING || told->phase == MODEL__PHASE__PHASE_EXITED);
}

static void run_seed(uint64_t seed) {
  rig_begin(seed, true);
  if (rig_chance(80))
    rig_come_up();
  rig_tell_full();
  for (unsigned round = 0; round < 200; round++) {
    int64_t until = rig.now + (int64_t)(rig_rnd() % 2000) * NS_PER_MS;
    if (rig_chance(5))
      until += (int64_t)(rig_rnd() % 90) * NS_PER_SEC;
    while (rig_advance(until))
      ;
    unsigned what = (unsigned)(rig_rnd() % 100);
    if (what < 40) {
      change_mind();
    } else if (what < 60 && rig.container_count) {
      struct agent_container *c = &rig.containers[rig_rnd() % rig.container_count];
      if (c->state == AGENT_C_RUNNING)
        rig_end(c, rig_chance(50) ? 0 : 139);
    } else if (what < 68 && rig.container_count) {
      struct agent_container *c = &rig.containers[rig_rnd() % rig.container_count];
      if (rig_is_job(c) && !is_told_of(c)) /* a run that is taken away is begun anew by an agent that has never heard of it */
        continue;
      if (what < 65)
        rig_remove(c);
      else
        c->state = AGENT_C_BROKEN;
    } else if (what < 75) {
      if (rig.up)
        go_down();
      else
        rig_come_up();
    } else if (what < 78 && rig.network_count) {
      rig.network_count--;
    } else if (what < 88) {
      replace_agent();
    } else if (what < 92) {
      rig_verdict_on(&rig.containers[rig.container_count ? rig_rnd() % rig.container_count : 0]);
    } else if (what < 96) {
      rig_report_all();
    } else if (what < 97) {
      rig.clock += (int64_t)(rig_rnd() % 7200) * NS_PER_SEC - 3600 * NS_PER_SEC;
    }
  }
  rig.faults = false;
  if (!rig.up)
    rig_come_up();
  rig_tell_full();
  rig_settle(400);
  check_end(seed);
  /* And then nothing moves any more. */
  unsigned starts = rig.starts, creates = rig.creates;
  rig_settle(300);
  assert_int_equal(rig.starts, starts);
  assert_int_equal(rig.creates, creates);
  rig_finish();
}

static void test_histories(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 300; seed++)
    run_seed(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_histories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
