#include "orca-agent/diagnose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/doctor/probe.h"
#include "common/spec/spec.h"

#define DOCKER_TIMEOUT (3 * NS_PER_SEC)

struct diagnosis {
  struct agent *a;
  struct bus_call *call; /* NULL once nobody waits for it */
  json_t *info, *version;
  char error[256];
  struct diagnosis *next;
};

/* ---- Docker ---- */

static const char *text_of(const json_t *json, const char *key) {
  const char *text = json_string_value(json_object_get(json, key));
  return text ? text : "";
}

static bool is_true(const json_t *json, const char *key) {
  return json_is_true(json_object_get(json, key));
}

void diagnose_docker(struct doctor_report *r, const json_t *info, const json_t *version, const char *error) {
  const struct doctor_docker d = {
      .reachable = json_is_object(info) && json_is_object(version),
      .error = error,
      .version = text_of(version, "Version"),
      .api_version = text_of(version, "ApiVersion"),
      .storage_driver = text_of(info, "Driver"),
      .cgroup_driver = text_of(info, "CgroupDriver"),
      .log_driver = text_of(info, "LoggingDriver"),
      .root = text_of(info, "DockerRootDir"),
      .memory_limit = is_true(info, "MemoryLimit"),
      .cpu_quota = is_true(info, "CpuCfsQuota") || is_true(info, "CPUCfsQuota"),
      .pids_limit = is_true(info, "PidsLimit"),
  };
  doctor_check_docker(r, &d);
  if (!d.reachable || d.root[0] != '/')
    return;
  struct doctor_disk disk;
  doctor_read_disk(d.root, &disk);
  if (!disk.error) /* under systemd its folder may be out of the agent's sight */
    doctor_check_disk(r, "Docker's root", &disk);
}

/* ---- ports ---- */

static size_t add_port(struct doctor_port *list, size_t count, size_t size, const char *who, uint32_t port, bool expected, bool wanted) {
  if (count >= size || !port || port > UINT16_MAX)
    return count;
  list[count] = (struct doctor_port){.port = (uint16_t)port, .expected = expected, .wanted = wanted};
  snprintf(list[count].who, sizeof list[count].who, "%.95s", who);
  return count + 1;
}

size_t diagnose_ports(const struct agent_core *core, struct doctor_port *list, size_t size) {
  size_t count = 0;
  for (size_t n = 0; n < core->count; n++) {
    const struct agent_instance *i = core->instances[n];
    const Model__Revision *revision = i->assigned ? i->assigned->revision : NULL;
    const Model__ServiceSpec *spec = revision ? revision->spec : NULL;
    if (!spec)
      continue;
    /* One that runs has its ports; one that should and doesn't may find them taken. */
    bool wanted = i->want == AGENT_WANT_RUN && i->c.state != AGENT_C_RUNNING;
    count = add_port(list, count, size, i->id, PB_GET(spec, host_port, 0), false, wanted);
    for (size_t k = 0; k < spec->n_extra_ports; k++)
      if (PB_GET(spec->extra_ports[k], protocol, MODEL__PROTOCOL__TCP) == MODEL__PROTOCOL__TCP)
        count = add_port(list, count, size, i->id, PB_GET(spec->extra_ports[k], host_port, 0), false, wanted);
    if (strcmp(PB_STR(spec->network), "host") == 0)
      count = add_port(list, count, size, i->id, PB_GET(spec, port, 0), false, wanted);
  }
  return count;
}

static void look_at_ports(struct agent *a, struct doctor_report *r) {
  const struct node_config *c = &a->daemon->config;
  struct doctor_port *list = calloc(DIAGNOSE_PORTS, sizeof *list);
  if (!list)
    return;
  size_t count = diagnose_ports(&a->core, list, DIAGNOSE_PORTS - 16);
  bool master = c->role == NODE_MASTER;
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-proxy (http)", c->port_http, false, false);
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-proxy (https)", c->port_https, false, false);
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-apiserver (REST)", c->port_api, master, false);
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-apiserver (node gateway)", c->port_gateway, master, false);
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-store", c->port_store, master, false);
  count = add_port(list, count, DIAGNOSE_PORTS, "orca-store (raft)", c->port_raft, false, false);
  doctor_look_at_sockets(r, list, count);
  free(list);
}

/* ---- all of it ---- */

static void look(struct diagnosis *d, struct doctor_report *r) {
  static const char *const keys[] = {"agent.key"};
  const struct node_config *c = &d->a->daemon->config;
  struct doctor_clock clock;
  struct doctor_disk disk;
  doctor_read_clock(&clock);
  doctor_check_clock(r, &clock);
  doctor_read_disk(c->state_dir, &disk);
  doctor_check_disk(r, "state folder", &disk);
  diagnose_docker(r, d->info, d->version, d->error);
  look_at_ports(d->a, r);
  doctor_look_at_files(r, "the agent");
  doctor_look_at_cgroup(r);
  doctor_look_at_forward(r);
  doctor_look_at_keys(r, c->key_dir, keys, sizeof keys / sizeof *keys);
}

static void answer(struct diagnosis *d) {
  struct doctor_report r = {0};
  look(d, &r);
  Node__Diagnosis diagnosis = NODE__DIAGNOSIS__INIT;
  Node__Finding *findings = calloc(r.count + 1, sizeof *findings), **list = calloc(r.count + 1, sizeof(Node__Finding *));
  diagnosis.findings = list;
  for (size_t i = 0; findings && list && i < r.count; i++) {
    node__finding__init(&findings[i]);
    findings[i].check = r.list[i].check;
    findings[i].text = r.list[i].text;
    findings[i].advice = r.list[i].advice;
    PB_SET(&findings[i], level, (uint32_t)r.list[i].level);
    list[diagnosis.n_findings++] = &findings[i];
  }
  PB_SET(&diagnosis, now_ms, loop_wall(d->a->loop) / NS_PER_MS);
  Node__Reply reply = NODE__REPLY__INIT;
  reply.body_case = NODE__REPLY__BODY_DIAGNOSIS;
  reply.diagnosis = &diagnosis;
  bus_reply(d->call, &reply.base);
  free(list);
  free(findings);
  doctor_free(&r);
}

static void drop(struct diagnosis *d) {
  struct diagnosis **at = &d->a->diagnoses;
  while (*at != d)
    at = &(*at)->next;
  *at = d->next;
  json_decref(d->info);
  json_decref(d->version);
  free(d);
}

static void finish(struct diagnosis *d) {
  if (d->call && !d->a->closing)
    answer(d);
  drop(d);
}

static void take(struct diagnosis *d, const struct docker_reply *reply, json_t **to) {
  if (reply->code == ERR_NONE && reply->json)
    *to = json_deep_copy(reply->json);
  else
    snprintf(d->error, sizeof d->error, "%.250s", reply->message);
}

static void on_info(void *arg, const struct docker_reply *reply) {
  struct diagnosis *d = arg;
  take(d, reply, &d->info);
  finish(d);
}

static void ask(struct diagnosis *d, const char *path, docker_done_fn *done) {
  if (docker_call(d->a->docker, &(struct docker_options){.method = "GET", .path = path, .timeout_ns = DOCKER_TIMEOUT, .done = done, .arg = d}))
    return;
  snprintf(d->error, sizeof d->error, "no memory to ask it");
  finish(d);
}

static void on_version(void *arg, const struct docker_reply *reply) {
  struct diagnosis *d = arg;
  take(d, reply, &d->version);
  if (d->version)
    ask(d, "/info", on_info);
  else
    finish(d);
}

static void cancelled(void *arg) {
  ((struct diagnosis *)arg)->call = NULL;
}

void diagnose(struct agent *a, struct bus_call *call) {
  static const struct bus_answer_ops ops = {.cancelled = cancelled};
  struct diagnosis *d = calloc(1, sizeof *d);
  if (!d) {
    struct err err;
    err_set(&err, ERR_MEMORY, "no memory to look");
    bus_fail(call, &err);
    return;
  }
  d->a = a;
  d->call = call;
  d->next = a->diagnoses;
  a->diagnoses = d;
  bus_answer_on(call, &ops, d);
  ask(d, "/version", on_version);
}

void diagnose_close(struct agent *a) {
  while (a->diagnoses)
    drop(a->diagnoses);
}
