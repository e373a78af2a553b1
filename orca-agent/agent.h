/* The agent's shell: carries out what the core decides, and tells it what happened.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_AGENT_H
#define ORCA_AGENT_AGENT_H

#include "common/bus/bus.h"
#include "common/daemon/daemon.h"
#include "common/http/http.h"
#include "orca-agent/core.h"
#include "orca-agent/docker.h"
#include "orca-agent/docker_parse.h"
#include "orca-agent/files.h"
#include "orca-agent/report.h"
#include "orca-agent/secret_files.h"

struct gateway;
struct keeper_link;
struct last_words;
struct log_streams;
struct usage;
struct verdicts;
struct diagnosis;
struct exec_sessions;
struct exec_marks;

struct agent {
  struct daemon *daemon;
  struct loop *loop;
  struct bus *bus;
  struct http_client *http;
  struct docker *docker;
  struct docker_self self;
  struct agent_core core;
  struct agent_actions queue; /* what the core asked for and is not begun yet */
  size_t queue_at;
  bool draining, closing;
  struct files *files;
  struct secret_files secret_files;
  struct agent_held *held_secrets; /* of containers about to be made */
  struct gateway *gateway;
  struct keeper_link *keeper;
  struct usage *usage;
  struct log_streams *logs;
  struct last_words *words;
  struct verdicts *verdicts;
  struct diagnosis *diagnoses; /* under way */
  struct exec_marks *exec_marks;
  struct exec_sessions *execs;
  Model__NodeStatus node; /* its strings are the agent's */
  char docker_version[64], docker_error[256];
  struct report report;
  struct loop_timer tick;
  struct loop_hook hook;
  uint64_t told_seq; /* core.status_seq that gateway and keeper have been told of */
};

/* Tells everybody what has changed. In this order: what the keeper last said is known again before a report could call a running container not ready.
 */
void agent_settle(struct agent *a);

int agent_open(struct agent *a, struct daemon *d, struct err *err);
void agent_close(struct agent *a);

/* Steps the core and does what it says. May be called from anywhere but a core step. */
void agent_event(struct agent *a, const struct agent_event *ev);
bool agent_knows(void *agent, const char *container); /* a container of an instance that it has to do with, by its name */
struct agent_now agent_now(const struct agent *a);

/* agent_docker.c */
void agent_docker_do(struct agent *a, const struct agent_action *act);
int agent_docker_start(struct agent *a, struct err *err);
void agent_docker_start_container(struct agent *a, const struct agent_action *act); /* the START itself, when nothing is missing before it */
/* agent_prepare.c */
void agent_prepare(struct agent *a, const struct agent_action *act);
/* node_status.c */
void agent_node_status_init(struct agent *a);
void agent_node_status_set_volumes(struct agent *a, const json_t *answer); /* of GET /volumes */
void agent_node_status_add_volume(struct agent *a, const char *project, const char *source);
void agent_node_status_fini(struct agent *a);

#endif
