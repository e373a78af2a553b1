/* What a keeper says of what runs here, in a call and in what is remembered of it on disk: whatever it is, the core takes or leaves it, and what the
 * node then reports is a message that a master takes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/loop.h"
#include "orca-agent/report.h"
#include "orca-agent/verdicts.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

#define STARTED_MS INT64_C(1700000000000)

static struct agent_container containers[2] = {
    {.name = "orca-cluster0-n1.shop.api.1", .address = "172.18.0.2"},
    {.name = "orca-cluster0-n1.shop.web.1", .address = "172.18.0.3"},
};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  static const char *const services[] = {"api", "web"};
  (void)argc;
  (void)argv;
  fuzz_make_dir("agent");
  for (size_t i = 0; i < 2; i++) {
    struct agent_container *c = &containers[i];
    memset(c->id, 'a' + (int)i, AGENT_CONTAINER_ID - 1);
    snprintf(c->project, sizeof c->project, "shop");
    snprintf(c->service, sizeof c->service, "%s", services[i]);
    snprintf(c->network, sizeof c->network, "orca-cluster0-shop");
    c->ours = c->detailed = true;
    c->number = c->epoch = c->revision = 1;
    c->state = AGENT_C_RUNNING;
    c->started_ns = STARTED_MS * NS_PER_MS;
  }
  return 0;
}

static void step(struct agent *a, const struct agent_event *ev, int64_t s) {
  agent_core_step(&a->core, ev, (struct agent_now){s * NS_PER_SEC, STARTED_MS + s * 1000}, &a->queue);
}

/* Two containers run: Docker lists them and is asked for more of each. */
static void begin(struct agent *a) {
  struct err err;
  if (agent_core_init(&a->core, "n1", "cluster0001", 2, &err) < 0)
    abort();
  step(a, &(struct agent_event){.kind = AGENT_EV_DOCKER_UP}, 1);
  step(a, &(struct agent_event){.kind = AGENT_EV_LISTED, .op = a->core.list_op, .containers = containers, .container_count = 2}, 2);
  for (size_t n = 0; n < a->queue.count; n++) {
    const struct agent_action act = a->queue.list[n];
    for (size_t i = 0; i < 2 && act.op_kind == AGENT_OP_INSPECT; i++)
      if (strcmp(act.container, containers[i].id) == 0)
        step(a, &(struct agent_event){.kind = AGENT_EV_DONE, .op = act.op, .instance = act.instance, .containers = &containers[i]}, 3);
  }
  for (size_t i = 0; i < 2; i++)
    if (a->core.count != 2 || a->core.instances[i]->phase != MODEL__PHASE__PHASE_RUNNING)
      abort();
}

static void say(struct agent *a, const uint8_t *data, size_t size) {
  struct err err;
  Keeper__Verdicts *m = (Keeper__Verdicts *)(void *)pb_unpack(&keeper__verdicts__descriptor, data, size, &err);
  for (size_t i = 0; m && i < m->n_verdicts; i++) {
    struct agent_event ev = verdict_event(m->verdicts[i]);
    step(a, &ev, 10 + (int64_t)i);
  }
  if (m)
    keeper__verdicts__free_unpacked(m, NULL);
}

static void remember(struct agent *a, const uint8_t *data, size_t size) {
  struct err err;
  fuzz_write("agent/verdicts", data, size);
  struct verdicts *v = verdicts_open(a, &err);
  if (!v)
    abort();
  verdicts_restore(v);
  verdicts_close(v);
}

static void report(struct agent *a) {
  struct report r = {.full = true};
  struct err err;
  struct buf packed = BUF_INIT((size_t)1 << 20);
  Model__NodeStatus node = MODEL__NODE_STATUS__INIT;
  for (size_t i = 0; i < a->queue.count; i++)
    if (a->queue.list[i].kind == AGENT_ACT_EVENT)
      report_event(&r, &a->queue.list[i], "n1", STARTED_MS);
  Node__StatusReport *m = report_build(&r, &a->core, &node);
  if (!m || pb_pack(&m->base, &packed) < 0)
    abort();
  node__status_report__free_unpacked(m, NULL);
  m = (Node__StatusReport *)(void *)pb_unpack(&node__status_report__descriptor, packed.data, packed.len, &err);
  if (!m || m->n_instances != a->core.count)
    abort();
  node__status_report__free_unpacked(m, NULL);
  buf_free(&packed);
  report_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct daemon daemon;
  static struct agent agent;
  if (size < 1 || size > 1 << 16 || (!agent.loop && !(agent.loop = loop_new(NULL, NULL))))
    return 0;
  daemon.config.state_dir = fuzz_dir;
  agent.daemon = &daemon;
  agent.draining = true; /* what the core asks for stays in the queue */
  begin(&agent);
  if (data[0] & 1)
    remember(&agent, data + 1, size - 1);
  else
    say(&agent, data + 1, size - 1);
  report(&agent);
  agent_core_fini(&agent.core);
  agent_actions_fini(&agent.queue);
  agent.queue = (struct agent_actions){0};
  return 0;
}
