#include "orca-agent/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "orca-agent/diagnose.h"
#include "orca-agent/agent_secrets.h"
#include "orca-agent/exec_marks.h"
#include "orca-agent/exec_session.h"
#include "orca-agent/gateway_rpc.h"
#include "orca-agent/keeper_rpc.h"
#include "orca-agent/last_words.h"
#include "orca-agent/log_stream.h"
#include "orca-agent/usage.h"
#include "orca-agent/verdicts.h"

struct agent_now agent_now(const struct agent *a) {
  return (struct agent_now){loop_now(a->loop), loop_wall(a->loop) / NS_PER_MS};
}

bool agent_knows(void *arg, const char *container) {
  const struct agent *a = arg;
  char name[AGENT_NAME_MAX];
  for (size_t n = 0; n < a->core.count; n++) {
    agent_container_name(&a->core, a->core.instances[n], name);
    if (strcmp(name, container) == 0)
      return true;
  }
  return false;
}

/* ---- actions ---- */

static void log_history(const struct agent_action *act) {
  enum log_level level = strcmp(act->severity, "error") == 0 ? LOG_LEVEL_ERROR : strcmp(act->severity, "warn") == 0 ? LOG_LEVEL_WARN : LOG_LEVEL_INFO;
  log_at(level, act->name, "instance", *act->instance ? act->instance : NULL, "detail", act->text);
}

static void gone(struct agent *a, const struct agent_action *act) {
  const struct agent_instance *i = agent_core_find(&a->core, act->instance);
  if (i) {
    char name[AGENT_NAME_MAX];
    agent_container_name(&a->core, i, name);
    files_drop(a->files, name);
    secret_files_drop(&a->secret_files, name);
    agent_secrets_drop(a, act->instance);
  }
  report_gone(&a->report, act->instance);
}

static void carry_out(struct agent *a, const struct agent_action *act) {
  switch (act->kind) {
  case AGENT_ACT_INSTANCE:
    if (act->op_kind == AGENT_OP_PREPARE)
      agent_prepare(a, act);
    else if (act->op_kind != AGENT_OP_REMOVE || !log_streams_hold(a->logs, act))
      agent_docker_do(a, act);
    break;
  case AGENT_ACT_LIST:
  case AGENT_ACT_IMAGE_LOOK:
  case AGENT_ACT_IMAGE_PULL:
  case AGENT_ACT_NETWORK_CREATE:
  case AGENT_ACT_NETWORK_REMOVE:
  case AGENT_ACT_REMOVE_STRAY:
    agent_docker_do(a, act);
    break;
  case AGENT_ACT_RESOLVED:
    log_info("image resolved", "project", act->project, "service", act->service, "revision", log_u64(act->number), "image", act->name);
    report_image(&a->report, act);
    break;
  case AGENT_ACT_WORDS:
    last_words_read(a->words, act);
    break;
  case AGENT_ACT_GONE:
    gone(a, act);
    break;
  case AGENT_ACT_EVENT:
    log_history(act);
    report_event(&a->report, act, a->core.node, loop_wall(a->loop) / NS_PER_MS);
    break;
  }
}

static void set_tick(struct agent *a) {
  int64_t at = agent_core_next(&a->core);
  if (at == INT64_MAX)
    loop_timer_cancel(a->loop, &a->tick);
  else if (loop_timer_at(a->loop, &a->tick, at, NULL) < 0)
    log_error("no memory for a timer");
}

void agent_event(struct agent *a, const struct agent_event *ev) {
  if (a->closing)
    return;
  agent_core_step(&a->core, ev, agent_now(a), &a->queue);
  if (a->draining)
    return;
  a->draining = true;
  while (a->queue_at < a->queue.count) {
    struct agent_action act = a->queue.list[a->queue_at++]; /* a copy: carrying it out may make the list grow */
    carry_out(a, &act);
  }
  a->queue.count = a->queue_at = 0;
  if (a->queue.failed)
    log_error("no memory: some actions were left out");
  a->queue.failed = false;
  a->draining = false;
  set_tick(a);
}

static void on_tick(void *arg) {
  agent_event(arg, &(struct agent_event){.kind = AGENT_EV_TICK});
}

void agent_settle(struct agent *a) {
  if (a->told_seq != a->core.status_seq) {
    a->told_seq = a->core.status_seq;
    verdicts_restore(a->verdicts);
    keeper_flush(a->keeper);
    usage_changed(a->usage);
    log_streams_changed(a->logs);
  }
  gateway_flush(a->gateway);
}

/* At the end of each round, once for all that happened in it. */
static bool on_round(void *arg) {
  agent_settle(arg);
  return false;
}

/* ---- life ---- */

int agent_open(struct agent *a, struct daemon *d, struct err *err) {
  *a = (struct agent){.daemon = d, .loop = d->loop};
  const struct node_config *config = &d->config;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  a->tick = (struct loop_timer){.cb = on_tick, .arg = a};
  a->hook = (struct loop_hook){.cb = on_round, .arg = a};
  if (agent_core_init(&a->core, config->name, config->cluster_id, cores > 0 ? (unsigned)cores : 1, err) < 0)
    return -1;
  snprintf(a->core.address, sizeof a->core.address, "%s", config->address);
  a->self = (struct docker_self){a->core.cluster_id, a->core.node};
  agent_node_status_init(a);
  secret_files_open(&a->secret_files, config->run_dir, a->core.cluster8, a->core.node);
  if (!(a->files = files_open(config->state_dir, err)) || !(a->verdicts = verdicts_open(a, err)) || !(a->bus = daemon_bus(d, err)) ||
      !(a->http = http_client_new(a->loop, err)) || !(a->docker = docker_new(a->loop, a->http, config->docker, err)) ||
      !(a->usage = usage_open(a, err)) || !(a->logs = log_streams_open(a, err)) || !(a->words = last_words_open(a, err)) ||
      !(a->keeper = keeper_open(a, err)) || !(a->exec_marks = exec_marks_open(files_dir(a->files), err)) ||
      !(a->execs = exec_sessions_open(a, err)) || !(a->gateway = gateway_open(a, err)) || agent_docker_start(a, err) < 0)
    return -1;
  loop_hook_add(a->loop, &a->hook);
  return 0;
}

void agent_close(struct agent *a) {
  if (a->gateway)
    loop_hook_remove(a->loop, &a->hook);
  loop_timer_cancel(a->loop, &a->tick);
  a->closing = true; /* what is under way ends with an error, and nothing comes of it */
  exec_sessions_close(a->execs);
  log_streams_close(a->logs);
  last_words_close(a->words);
  docker_free(a->docker);
  gateway_close(a->gateway);
  diagnose_close(a);
  keeper_close(a->keeper);
  usage_close(a->usage);
  http_client_free(a->http);
  bus_free(a->bus);
  verdicts_close(a->verdicts);
  agent_secrets_fini(a);
  exec_marks_close(a->exec_marks);
  files_close(a->files);
  report_fini(&a->report);
  agent_actions_fini(&a->queue);
  agent_node_status_fini(a);
  agent_core_fini(&a->core);
}
