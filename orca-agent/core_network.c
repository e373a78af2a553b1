/* Bridge networks: one per project (and one per named network in it), made before the first container that needs it, removed by the
 * agent that made it when nothing on the node needs it any more. Agents of one cluster on one Docker share them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-agent/core_internal.h"

struct agent_network *agent_network_for(struct agent_step *s, const char *name, const char *project) {
  struct agent_core *core = s->core;
  for (size_t n = 0; n < core->network_count; n++)
    if (strcmp(core->networks[n]->name, name) == 0)
      return core->networks[n];
  if (core->network_count == core->network_size) {
    size_t size = core->network_size ? core->network_size * 2 : 8;
    struct agent_network **list = reallocarray(core->networks, size, sizeof *list);
    if (!list)
      return NULL;
    core->networks = list;
    core->network_size = size;
  }
  struct agent_network *network = calloc(1, sizeof *network);
  if (!network)
    return NULL;
  agent_copy(network->name, sizeof network->name, name);
  agent_copy(network->project, sizeof network->project, project);
  core->networks[core->network_count++] = network;
  return network;
}

static bool needed(const struct agent_core *core, const struct agent_network *network) {
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    if (i->c.id[0] && strcmp(i->c.network, network->name) == 0)
      return true;
    const Model__ServiceSpec *spec = agent_instance_spec(i);
    char name[AGENT_NAME_MAX];
    if (!spec || i->want != AGENT_WANT_RUN)
      continue;
    agent_network_name(core, spec, name);
    if (strcmp(name, network->name) == 0)
      return true;
  }
  return false;
}

void agent_network_reconcile(struct agent_step *s, struct agent_network *network) {
  bool due = network->state == AGENT_NETWORK_NEW || (network->state == AGENT_NETWORK_FAILED && s->now.mono_ns >= network->next_try);
  if (s->core->docker != AGENT_DOCKER_UP || !due)
    return;
  network->state = AGENT_NETWORK_NEW; /* what nobody needs any more is not due again and again */
  if (!needed(s->core, network))
    return;
  struct agent_action *act = agent_act(s, AGENT_ACT_NETWORK_CREATE);
  if (!act)
    return;
  agent_copy(act->name, sizeof act->name, network->name);
  agent_copy(act->project, sizeof act->project, network->project);
  act->op = network->op_id = ++s->core->next_op;
  network->state = AGENT_NETWORK_CREATING;
}

void agent_networks_listed(struct agent_step *s, const struct agent_event *ev) {
  struct agent_core *core = s->core;
  for (size_t n = 0; n < ev->network_count; n++) {
    const struct agent_found_network *found = &ev->networks[n];
    struct agent_network *network = agent_network_for(s, found->name, found->project);
    if (!network || network->op_id)
      continue;
    network->ours = found->ours;
    network->state = AGENT_NETWORK_READY;
  }
  for (size_t n = 0; n < core->network_count; n++) {
    struct agent_network *network = core->networks[n];
    bool there = false;
    for (size_t m = 0; m < ev->network_count && !there; m++)
      there = strcmp(network->name, ev->networks[m].name) == 0;
    if (!there && network->state == AGENT_NETWORK_READY)
      network->state = AGENT_NETWORK_NEW;
  }
}

void agent_network_event(struct agent_step *s, const struct agent_event *ev) {
  struct agent_core *core = s->core;
  struct agent_network *network = NULL;
  for (size_t n = 0; n < core->network_count && !network; n++)
    if (ev->op && core->networks[n]->op_id == ev->op)
      network = core->networks[n];
  if (!network)
    return;
  bool removing = network->state == AGENT_NETWORK_REMOVING;
  network->op_id = 0;
  if (removing) {
    /* Refused because somebody still uses it: it is there. Anything else: the next need makes it again if it is not. */
    network->state = ev->code == ERR_DENIED ? AGENT_NETWORK_READY : AGENT_NETWORK_NEW;
  } else if (ev->code == ERR_NONE) {
    network->state = AGENT_NETWORK_READY;
    network->ours = ev->ours;
    network->failure.failures = 0;
  } else {
    network->state = AGENT_NETWORK_FAILED;
    agent_copy(network->error, sizeof network->error, ev->text);
    network->next_try = s->now.mono_ns + agent_backoff_failure(&network->failure, AGENT_BACKOFF_FIRST);
  }
}

void agent_networks_tidy(struct agent_step *s) {
  struct agent_core *core = s->core;
  if (!core->have_desired)
    return;
  size_t kept = 0;
  for (size_t n = 0; n < core->network_count; n++) {
    struct agent_network *network = core->networks[n];
    bool idle = !network->op_id && !needed(core, network);
    if (idle && network->state != AGENT_NETWORK_READY) {
      free(network);
      continue;
    }
    core->networks[kept++] = network;
    struct agent_action *act = idle && network->ours ? agent_act(s, AGENT_ACT_NETWORK_REMOVE) : NULL;
    if (!act)
      continue;
    agent_copy(act->name, sizeof act->name, network->name);
    act->op = network->op_id = ++core->next_op;
    network->state = AGENT_NETWORK_REMOVING;
  }
  core->network_count = kept;
}
