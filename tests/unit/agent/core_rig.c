#include "tests/unit/agent/core_rig.h"

struct rig rig;
const char *const rig_services[SERVICES] = {"api", "db", "web", "job"};

void rig_begin(uint64_t seed, bool faults) {
  memset(&rig, 0, sizeof rig);
  rig.seed = seed;
  rig.rng = seed * 0x9e3779b97f4a7c15u + 1;
  rig.now = NS_PER_SEC;
  rig.faults = faults;
  rig_new_core();
}

void rig_finish(void) {
  for (unsigned n = 0; n < rig.pending_count; n++)
    free(rig.pending[n]);
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      rig_forget_told(s, n);
  agent_actions_fini(&rig.out);
  agent_core_fini(&rig.core);
}

uint64_t rig_rnd(void) {
  rig.rng ^= rig.rng << 13;
  rig.rng ^= rig.rng >> 7;
  rig.rng ^= rig.rng << 17;
  return rig.rng;
}

bool rig_chance(unsigned percent) {
  return rig_rnd() % 100 < percent;
}

/* ---- time ---- */

struct agent_now rig_now(void) {
  return (struct agent_now){rig.now, rig_wall_ns() / NS_PER_MS};
}

int64_t rig_wall_ns(void) {
  return INT64_C(1700000000000) * NS_PER_MS + rig.now + rig.clock;
}

bool rig_advance(int64_t until) {
  int64_t next = agent_core_next(&rig.core);
  int what = 0; /* 0: a tick, 1: an answer, 2: an event of Docker */
  unsigned which = 0;
  for (unsigned n = 0; n < rig.pending_count; n++)
    if (rig.pending[n]->due < next) {
      next = rig.pending[n]->due;
      what = 1;
      which = n;
    }
  if (rig.event_count && rig.events[0].due < next) {
    next = rig.events[0].due;
    what = 2;
  }
  if (next > until) {
    rig.now = until;
    return false;
  }
  if (next > rig.now)
    rig.now = next;
  if (what == 0) {
    rig_step(&(struct agent_event){.kind = AGENT_EV_TICK});
  } else if (what == 1) {
    struct rig_call *p = rig.pending[which];
    if (!p->effect_done) {
      /* Docker does it now and answers a little later: what happens in between is what makes it hard. */
      rig_run_effect(p);
      p->due = rig.now + (int64_t)(rig_rnd() % 15) * NS_PER_MS;
      return true;
    }
    rig.pending[which] = rig.pending[--rig.pending_count];
    if (!p->late)
      rig_reply(p);
    free(p);
  } else {
    struct rig_event e = rig.events[0];
    memmove(rig.events, rig.events + 1, --rig.event_count * sizeof *rig.events);
    e.ev.container_id = e.id;
    rig_step(&e.ev);
  }
  return true;
}

void rig_settle(int64_t seconds) {
  int64_t end = rig.now + seconds * NS_PER_SEC;
  while (rig_advance(end))
    ;
}

void rig_until(enum agent_op op) {
  while (!rig.pending_count || rig.pending[0]->act.op_kind != op)
    assert_true(rig_advance(rig.now + NS_PER_SEC));
}

/* ---- the agent ---- */

void rig_step(const struct agent_event *ev) {
  agent_core_step(&rig.core, ev, rig_now(), &rig.out);
  rig_take_actions();
}

void rig_new_core(void) {
  struct err err;
  assert_int_equal(agent_core_init(&rig.core, "n1", "cluster0001", SLOTS, &err), 0);
}

void rig_replace_agent(void) {
  agent_core_fini(&rig.core);
  rig_new_core();
  rig.event_count = 0;
  rig_come_up();
}

/* ---- masters and keeper ---- */

Node__Assignment *rig_assignment(unsigned service, unsigned number) {
  Model__ServiceSpec spec = MODEL__SERVICE_SPEC__INIT;
  Model__Revision rev = MODEL__REVISION__INIT;
  Model__Instance inst = MODEL__INSTANCE__INIT;
  Node__Assignment a = NODE__ASSIGNMENT__INIT;
  char name[16], project[] = "shop", image[16], node[] = "n1", hash[32];
  Model__Volume volume = MODEL__VOLUME__INIT, *volumes[] = {&volume};
  Model__SecretVersion secret = MODEL__SECRET_VERSION__INIT, *secrets[] = {&secret};
  Model__Pair pair = MODEL__PAIR__INIT, *env[] = {&pair};
  char source[16], target[] = "/data", key[] = "DB", value[] = "${secrets.DB}", host[] = "host";
  snprintf(name, sizeof name, "%s", rig_services[service]);
  spec.name = inst.service = rev.name = name;
  spec.project = inst.project = rev.project = project;
  spec.image = image;
  inst.node = node;
  snprintf(image, sizeof image, "app:%u", rig.want[service][number].made + 1);
  snprintf(hash, sizeof hash, "hash%u-%u", (unsigned)rig.want[service][number].revision, rig.want[service][number].made);
  PB_SET(&rev, created_ms, rig.want[service][number].made + 1);
  rev.spec_hash = hash;
  PB_SET(&rev, number, rig.want[service][number].revision);
  PB_SET(&inst, number, number + 1);
  PB_SET(&inst, epoch, rig.want[service][number].epoch);
  PB_SET(&inst, revision, rig.want[service][number].revision);
  if (service == JOB)
    PB_SET(&inst, job, 1);
  if (service == STORES) {
    snprintf(source, sizeof source, "v%u", (unsigned)rig.want[service][number].revision);
    volume.source = source;
    volume.target = target;
    spec.volumes = volumes;
    spec.n_volumes = 1;
  }
  if (service == OPEN) {
    spec.network = host;
    pair.key = secret.name = key;
    pair.value = value;
    spec.env = env;
    spec.n_env = 1;
    PB_SET(&secret, version, 1);
    a.secrets = secrets;
    a.n_secrets = 1;
  }
  PB_SET(&inst, desired, rig.want[service][number].stop ? MODEL__DESIRED__DESIRED_STOP : MODEL__DESIRED__DESIRED_RUN);
  rev.spec = &spec;
  a.instance = &inst;
  a.revision = &rev;
  return (Node__Assignment *)pb_clone(&a.base);
}

void rig_want(unsigned service, uint64_t epoch, uint64_t revision) {
  rig.want[service][0].assigned = true;
  rig.want[service][0].epoch = epoch;
  rig.want[service][0].revision = revision;
}

void rig_tell_full(void) {
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  Node__Assignment *list[SERVICES * NUMBERS];
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++)
      if (rig.want[s][n].assigned) {
        list[d.n_assigned] = rig_assignment(s, n);
        list[d.n_assigned++]->status = rig.want[s][n].told ? (Model__InstanceStatus *)pb_clone(&rig.want[s][n].told->base) : NULL;
      }
  Model__ClusterSpec cluster = MODEL__CLUSTER_SPEC__INIT;
  Model__Policy policy = MODEL__POLICY__INIT;
  PB_SET(&policy, allow_host_network, 1);
  cluster.policy = &policy;
  d.cluster = &cluster;
  d.assigned = list;
  PB_SET(&d, full, 1);
  rig_step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
  for (size_t n = 0; n < d.n_assigned; n++)
    node__assignment__free_unpacked(list[n], NULL);
}

void rig_tell(Node__Assignment *a) {
  Node__DesiredState d = NODE__DESIRED_STATE__INIT;
  d.assigned = &a;
  d.n_assigned = 1;
  PB_SET(&d, full, 1);
  rig_step(&(struct agent_event){.kind = AGENT_EV_DESIRED, .desired = &d});
}

void rig_report_all(void) {
  for (unsigned s = 0; s < SERVICES; s++)
    for (unsigned n = 0; n < NUMBERS; n++) {
      char id[INSTANCE_ID_MAX];
      instance_id(id, "shop", rig_services[s], n + 1);
      const struct agent_instance *i = agent_core_find(&rig.core, id);
      if (!rig.want[s][n].assigned || !i || !i->assigned || !rig.core.have_desired || !agent_core_settled(&rig.core))
        continue;
      rig_forget_told(s, n);
      rig.want[s][n].told = report_instance(&rig.core, i);
    }
}

void rig_forget_told(unsigned s, unsigned n) {
  if (rig.want[s][n].told)
    model__instance_status__free_unpacked(rig.want[s][n].told, NULL);
  rig.want[s][n].told = NULL;
}

void rig_verdict_on(const struct agent_container *c) {
  char id[INSTANCE_ID_MAX];
  if (!rig.container_count || rig_is_job(c))
    return;
  instance_id(id, c->project, c->service, c->number);
  rig_step(&(struct agent_event){.kind = AGENT_EV_VERDICT, .instance = id, .container_id = c->id, .started_ms = c->started_ns / NS_PER_MS});
}

/* ---- how stories begin ---- */

void rig_wanted(uint64_t seed, unsigned service) {
  rig_begin(seed, false);
  rig_come_up();
  rig_want(service, 1, 1);
  rig_tell_full();
}

const struct agent_instance *rig_running(void) {
  rig_wanted(7, API);
  rig_settle(5);
  const struct agent_instance *i = agent_core_find(&rig.core, "shop/api.1");
  assert_non_null(i);
  assert_int_equal(i->phase, MODEL__PHASE__PHASE_RUNNING);
  assert_int_equal(rig.resolved, 1);
  return i;
}
