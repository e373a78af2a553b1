/* The scheduler's core in random histories: a store, agents and proxies of a few lines each, virtual time, and faults: crashes of instances,
 * images that never get ready, slow and lost acknowledgements, nodes that come and go, transactions that fail or whose outcome is lost, schedulers
 * that die and start over. */
#include "tests/unit/scheduler/sim_cluster.h"

/* ---- what must hold ---- */

struct counts {
  uint32_t unstopped, existing, available, known_available;
};

/* As far as the scheduler can know: it dates readiness when it hears of it, and a crash on its way to it is not its fault. */
static bool seen_available(struct sim *s, int service, uint64_t number) {
  const struct sched_instance *instance = rig_instance(&s->h.rig, sim_service_name(service), number);
  return instance && instance->ready_since_ms && instance->ready_since_ms + (int64_t)s->min_ready <= s->h.rig.now;
}

static struct counts count_instances(struct sim *s, int service) {
  struct counts n = {0};
  const struct rig *r = &s->h.rig;
  char prefix[KEY_MAX];
  snprintf(prefix, sizeof prefix, "%sshop/%s/", KEY_INSTANCES, sim_service_name(service));
  for (size_t i = 0; i < r->count; i++) {
    if (!has_prefix(r->records[i].key, prefix))
      continue;
    Model__Instance *m = rig_get(r, &model__instance__descriptor, r->records[i].key);
    n.existing++;
    n.unstopped += m->desired != MODEL__DESIRED__DESIRED_STOP;
    for (int k = 0; k < MAX_AGENT; k++) {
      struct container *c = &s->containers[k];
      if (c->in_use && c->service == service && c->number == m->number && m->desired == MODEL__DESIRED__DESIRED_RUN && c->ready &&
          c->ready_since + (int64_t)s->min_ready <= s->h.now) {
        n.available++;
        n.known_available += seen_available(s, service, m->number);
      }
    }
    free_message(m);
  }
  return n;
}

/* What the scheduler has not heard of yet it can't keep. */
static bool knows_what_is_wanted(struct sim *s, int i) {
  const struct sched_service *service = rig_service(&s->h.rig, sim_service_name(i));
  return service && service->record && (service->record->stopped ? 0 : service->record->replicas) == s->wanted[i];
}

/* It counts on an instance whose crash it has not heard of. */
static bool is_deceived(struct sim *s, int service) {
  for (int k = 0; k < MAX_AGENT; k++) {
    const struct container *c = &s->containers[k];
    bool available = c->ready && c->ready_since + (int64_t)s->min_ready <= s->h.now;
    if (c->in_use && c->service == service && !available && seen_available(s, service, c->number))
      return true;
  }
  return false;
}

static void check_budgets(struct sim *s) {
  for (int i = 0; i < SERVICES; i++) {
    if (!knows_what_is_wanted(s, i) || is_deceived(s, i) || s->h.now < s->h.misled_until) {
      s->reached[i] = false;
      continue;
    }
    struct counts n = count_instances(s, i);
    uint32_t keep = s->wanted[i] > s->unavailable[i] ? s->wanted[i] - s->unavailable[i] : 0;
    if (s->strategy[i] == 2)
      keep = s->wanted[i] > 1 ? s->wanted[i] - (s->unavailable[i] ? s->unavailable[i] : 1) : 0;
    if (s->strategy[i] == 1)
      keep = 0;
    if (n.available >= keep)
      s->reached[i] = s->reached[i] || n.known_available >= keep;
    else
      CHECK(&s->h, !s->reached[i], "%s: %u available, budget %u", sim_service_name(i), n.available, keep);
  }
}

static void check_surge(struct sim *s, const uint32_t before[SERVICES], const bool created[SERVICES]) {
  for (int i = 0; i < SERVICES; i++) {
    if (!created[i])
      continue;
    struct counts n = count_instances(s, i);
    const struct sched_service *service = rig_service(&s->h.rig, sim_service_name(i));
    uint32_t wanted = service->record->stopped ? 0 : service->record->replicas;
    uint32_t surge = s->strategy[i] ? 0 : s->surge[i] || s->unavailable[i] ? s->surge[i] : 1;
    CHECK(&s->h, n.unstopped <= wanted + surge, "%s: %u un-STOPped of %u + %u (%u before)", sim_service_name(i), n.unstopped, wanted, surge,
          before[i]);
    if (s->strategy[i] == 2)
      CHECK(&s->h, n.existing <= wanted, "%s: %u exist of %u, stop-first", sim_service_name(i), n.existing, wanted);
  }
}

static void check_settled(struct sim *s) {
  for (int i = 0; i < SERVICES; i++) {
    Model__Service *m = sim_get_service(s, i);
    if (!m) {
      struct counts left = count_instances(s, i);
      CHECK(&s->h, left.existing == 0, "%s: %u are left of it", sim_service_name(i), left.existing);
      continue;
    }
    char key[KEY_MAX];
    key_service(key, KEY_ROLLOUTS, "shop", sim_service_name(i));
    Model__Rollout *r = rig_get(&s->h.rig, &model__rollout__descriptor, key);
    CHECK(&s->h, r, "%s: no rollout", sim_service_name(i));
    struct counts n = count_instances(s, i);
    uint32_t wanted = m->stopped ? 0 : m->replicas;
    bool back = r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK;
    CHECK(&s->h, r->state != MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK || m->stopped || s->behaviour[i][r->stable_revision] != GOOD,
          "%s: still rolling back", sim_service_name(i));
    CHECK(&s->h, r->revision == m->revision, "%s: rollout of %" PRIu64 " while %" PRIu64 " is wanted", sim_service_name(i), r->revision, m->revision);
    uint64_t runs = back ? r->stable_revision : m->revision;
    if (s->behaviour[i][runs] == GOOD && r->state != MODEL__ROLLOUT_STATE__ROLLOUT_ROLLING_BACK) {
      CHECK(&s->h, n.available == wanted && n.existing == wanted, "%s: %u available, %u exist, %u wanted (state %d, %s, %s)", sim_service_name(i),
            n.available, n.existing, wanted, (int)r->state, PB_STR(r->phase), PB_STR(r->reason));
      CHECK(&s->h, m->stopped || r->state != MODEL__ROLLOUT_STATE__ROLLOUT_PROGRESSING, "%s: still progressing: %s", sim_service_name(i),
            PB_STR(r->phase));
    }
    free_message(m);
    free_message(r);
  }
}

/* ---- what the scheduler does, and the time ---- */

static void tell(const struct sim *s, const struct sched_action *a) {
  if (!s->h.story)
    return;
  if (a->kind == SCHED_ACTION_DELETE) {
    say(&s->h, "  delete %s", a->key);
  } else if (sim_service_of_key(a->key) >= 0) {
    Model__Instance *m = rig_action_message(a, &model__instance__descriptor);
    say(&s->h, "  put %s rev %" PRIu64 " node '%s' desired %d: %s", a->key, m->revision, m->node, (int)m->desired, PB_STR(m->reason));
    free_message(m);
  } else if (has_prefix(a->key, KEY_ROLLOUTS)) {
    Model__Rollout *m = rig_action_message(a, &model__rollout__descriptor);
    say(&s->h, "  rollout %s state %d rev %" PRIu64 " stable %" PRIu64 " phase '%s' reason '%s'", m->service, (int)m->state, m->revision,
        m->stable_revision, PB_STR(m->phase), PB_STR(m->reason));
    free_message(m);
  }
}

static void apply(struct sim *s) {
  const struct sched_actions *actions = &s->h.rig.actions;
  uint32_t before[SERVICES];
  bool created[SERVICES] = {false};
  const char *twice = rig_changed_twice(&s->h.rig);
  CHECK(&s->h, !twice, "%s is changed twice", twice);
  for (int i = 0; i < SERVICES; i++)
    before[i] = count_instances(s, i).unstopped;
  for (size_t i = 0; i < actions->count; i++) {
    const struct sched_action *a = &actions->list[i];
    if (has_prefix(a->key, KEY_HISTORY))
      continue;
    int service = sim_service_of_key(a->key);
    tell(s, a);
    if (a->kind == SCHED_ACTION_DELETE) {
      rig_delete(&s->h.rig, a->key);
      continue;
    }
    if (service >= 0 && !rig_find(&s->h.rig, a->key))
      created[service] = true;
    rig_put_bytes(&s->h.rig, a->key, a->value, a->len);
  }
  check_surge(s, before, created);
}

static bool run(struct sim *s) {
  for (int i = 0; i < SERVICES; i++)
    s->reached[i] = s->reached[i] && knows_what_is_wanted(s, i) && !is_deceived(s, i);
  if (!history_decide(&s->h))
    return false;
  int64_t next = s->h.rig.actions.next_ms;
  if (s->h.faults && chance(&s->h, 2)) { /* refused: another leads */
    say(&s->h, "transaction refused");
    sim_start_over(s);
  } else {
    apply(s);
    if (s->h.faults && chance(&s->h, 2)) {
      say(&s->h, "outcome lost");
      sim_start_over(s);
    }
    sim_catch_up(s);
  }
  if (s->h.rig.actions.next_ms > next)
    s->h.rig.actions.next_ms = next;
  sim_agents_look(s);
  check_budgets(s);
  return true;
}

static void tick(struct sim *s, int64_t until) {
  history_go_on(&s->h, sim_next(s), until);
  sim_agents_work(s);
  check_budgets(s);
  sim_deliver(s);
  for (int n = 0; run(s); n++)
    CHECK(&s->h, n < 1000, "it decides without end");
  check_budgets(s);
}

static void advance(struct sim *s, int64_t ms) {
  int64_t until = s->h.now + ms;
  for (int n = 0; s->h.now < until; n++) {
    CHECK(&s->h, n < 200000, "it never comes to rest");
    tick(s, until);
  }
}

/* ---- what happens to it ---- */

static void user_acts(struct sim *s) {
  int i = (int)rnd(&s->h, SERVICES);
  Model__Service *m = sim_get_service(s, i);
  switch (rnd(&s->h, 7)) {
  case 6:
    if (m && chance(&s->h, 30)) {
      sim_purge(s, i);
      if (chance(&s->h, 50))
        sim_deploy(s, i, GOOD, m->replicas);
    }
    break;
  case 0:
  case 1:
    if (!m || chance(&s->h, 60))
      sim_deploy(s, i, GOOD, m ? m->replicas : 1 + (uint32_t)rnd(&s->h, 4));
    else
      sim_deploy(s, i, (enum behaviour)rnd(&s->h, 4), m->replicas);
    break;
  case 2:
    if (m) {
      PB_SET(m, replicas, (uint32_t)rnd(&s->h, s->strategy[i] == 2 ? NODES + 1 : 6)); /* a host port is there once per node */
      say(&s->h, "scale %s to %u", sim_service_name(i), m->replicas);
      rig_put_service(&s->h.rig, sim_service_name(i), m);
      sim_set_wanted(s, i, m->stopped ? 0 : m->replicas);
    }
    break;
  case 3:
    if (m) {
      PB_SET(m, stopped, !m->stopped);
      say(&s->h, "%s %s", m->stopped ? "stop" : "start", sim_service_name(i));
      rig_put_service(&s->h.rig, sim_service_name(i), m);
      sim_set_wanted(s, i, m->stopped ? 0 : m->replicas);
    }
    break;
  case 4:
    if (m) {
      PB_SET(m, generation, m->generation + 1);
      say(&s->h, "restart %s", sim_service_name(i));
      rig_put_service(&s->h.rig, sim_service_name(i), m);
    }
    break;
  case 5:
    if (m && m->revision > 1) {
      uint64_t to = 1 + rnd(&s->h, s->last_revision[i]);
      char key[KEY_MAX];
      key_numbered(key, KEY_REVISIONS, "shop", sim_service_name(i), to);
      PB_SET(m, revision, rig_find(&s->h.rig, key) ? to : m->revision);
      say(&s->h, "roll back %s to %" PRIu64, sim_service_name(i), m->revision);
      rig_put_service(&s->h.rig, sim_service_name(i), m);
    }
    break;
  }
  free_message(m);
}

static void misfortune(struct sim *s) {
  static const int64_t jumps[] = {-INT64_C(31536000000), -3600000, -5000, 5000, 3600000, INT64_C(31536000000)};
  switch (rnd(&s->h, 5)) {
  case 4:
    if (chance(&s->h, 50)) {
      s->h.wall += jumps[rnd(&s->h, sizeof jumps / sizeof *jumps)];
      say(&s->h, "the clock is set: %" PRId64 " ms ahead", s->h.wall - FIRST_MS);
    } else {
      sim_delete_node(s, (int)rnd(&s->h, NODES));
    }
    break;
  case 0:
  case 1: {
    struct container *c = &s->containers[rnd(&s->h, 12)];
    if (c->in_use && c->running && !c->stopping) {
      say(&s->h, "crash of %s.%" PRIu64, sim_service_name(c->service), c->number);
      sim_crash(s, c);
    }
    break;
  }
  case 2:
    sim_put_node(s, (int)rnd(&s->h, NODES), chance(&s->h, 60));
    break;
  case 3:
    say(&s->h, "the scheduler dies");
    sim_start_over(s);
    break;
  }
}

static void one_history(unsigned long seed) {
  struct sim *s = sim_new(seed);
  for (int i = 0; i < SERVICES; i++)
    sim_deploy(s, i, GOOD, 1 + (uint32_t)rnd(&s->h, 4));
  s->h.faults = chance(&s->h, 80);
  unsigned acts = 4 + (unsigned)rnd(&s->h, 12);
  for (unsigned i = 0; i < acts; i++) {
    advance(s, (int64_t)rnd(&s->h, chance(&s->h, 30) ? 60000 : 4000) + 1);
    if (s->h.faults && chance(&s->h, 40))
      misfortune(s);
    else
      user_acts(s);
  }
  say(&s->h, "the faults end");
  s->h.faults = false;
  for (int i = 0; i < NODES; i++)
    sim_put_node(s, i, true);
  for (int i = 0; i < MAX_AGENT; i++) /* acknowledgements that were lost are sent again */
    if (s->containers[i].in_use && s->containers[i].drained_at == NEVER - 1 && !s->containers[i].drained)
      s->containers[i].drained_at = s->h.now + 100;
  /* db must be there for api: what the user left stopped or broken is a reason to wait for ever. */
  Model__Service *db = sim_get_service(s, 1);
  if (!db || db->stopped || db->replicas == 0 || s->behaviour[1][db->revision] != GOOD)
    sim_deploy(s, 1, GOOD, 2);
  free_message(db);
  advance(s, 900000);
  if (s->last_revision[1] + 1 < MAX_REVISIONS)
    check_settled(s);
  /* A settled state: no actions, also not for a scheduler that has just come. */
  for (int i = 0; i < SERVICES; i++) {
    Model__Service *m = sim_get_service(s, i);
    bool good = !m || s->behaviour[i][m->revision] == GOOD;
    free_message(m);
    if (!good) {
      sim_free(s);
      return;
    }
  }
  history_go_to(&s->h, s->h.now + 1000);
  CHECK(&s->h, !run(s), "acts on a settled state");
  sim_start_over(s);
  CHECK(&s->h, !run(s), "a new scheduler acts on a settled state");
  history_go_to(&s->h, s->h.now + 3600000);
  CHECK(&s->h, !run(s), "acts on a settled state an hour later");
  sim_free(s);
}

static void test_histories(void **state) {
  (void)state;
  histories(one_history, 200);
}

/* ---- a rollback leaves the old instances alone ---- */

static size_t running_numbers(struct sim *s, int service, uint64_t out[16]) {
  size_t n = 0;
  for (uint64_t number = 1; number < 200; number++) {
    char key[KEY_MAX];
    key_numbered(key, KEY_INSTANCES, "shop", sim_service_name(service), number);
    Model__Instance *m = rig_get(&s->h.rig, &model__instance__descriptor, key);
    if (!m)
      continue;
    if (m->desired == MODEL__DESIRED__DESIRED_RUN && n < 16)
      out[n++] = m->number;
    free_message(m);
  }
  return n;
}

static void one_rollback(unsigned long seed) {
  struct sim *s = sim_new(seed);
  for (int i = 0; i < SERVICES; i++) {
    s->strategy[i] = 0;
    s->unavailable[i] = 0;
    sim_deploy(s, i, GOOD, 1 + (uint32_t)rnd(&s->h, 4));
  }
  advance(s, 60000);
  check_settled(s);
  uint64_t before[16], after[16];
  size_t n = running_numbers(s, 2, before);
  Model__Service *m = sim_get_service(s, 2);
  sim_deploy(s, 2, (enum behaviour)(1 + rnd(&s->h, 3)), m->replicas);
  free_message(m);
  advance(s, 1 + (int64_t)rnd(&s->h, 3000));
  if (chance(&s->h, 30))
    sim_start_over(s);
  advance(s, 300000);
  char key[KEY_MAX];
  key_service(key, KEY_ROLLOUTS, "shop", sim_service_name(2));
  Model__Rollout *r = rig_get(&s->h.rig, &model__rollout__descriptor, key);
  CHECK(&s->h, r->state == MODEL__ROLLOUT_STATE__ROLLOUT_ROLLED_BACK, "not rolled back: %d %s %s", (int)r->state, PB_STR(r->phase),
        PB_STR(r->reason));
  CHECK(&s->h, *PB_STR(r->reason), "rolled back without a reason");
  free_message(r);
  CHECK(&s->h, running_numbers(s, 2, after) == n && memcmp(before, after, n * sizeof *before) == 0, "a rollback touched the old instances");
  check_settled(s);
  sim_free(s);
}

static void test_rollbacks(void **state) {
  (void)state;
  const char *one = getenv("ORCA_SEED");
  for (unsigned long seed = 0; seed < 100; seed++)
    if (!one || seed == strtoul(one, NULL, 10))
      one_rollback(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories), cmocka_unit_test(test_rollbacks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
