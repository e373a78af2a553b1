#include "orca-scheduler/needs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

uint32_t needs_count(const Model__Service *service) {
  return PB_GET(service, stopped, 0) ? 0 : PB_GET(service, replicas, 1);
}

static void add_port(struct place_need *need, uint32_t port, Model__Protocol protocol) {
  if (!port || need->port_count == PLACE_PORTS)
    return;
  uint32_t key = port << 1 | (protocol == MODEL__PROTOCOL__UDP);
  size_t at = 0;
  while (at < need->port_count && need->ports[at] < key)
    at++;
  if (at < need->port_count && need->ports[at] == key)
    return;
  memmove(need->ports + at + 1, need->ports + at, (need->port_count - at) * sizeof *need->ports);
  need->ports[at] = key;
  need->port_count++;
}

void needs_resources(const Model__ServiceSpec *spec, struct place_need *ret) {
  *ret = (struct place_need){0};
  const Model__Resources *resources = spec->resources;
  if (resources) {
    uint64_t limit = PB_GET(resources, memory, 0);
    ret->memory = PB_GET(resources, memory_request, limit);
    ret->cpu_milli = PB_GET(resources, cpu_milli, 0);
    ret->pids = PB_GET(resources, pids, 0);
    if (resources->gpu && PB_GET(resources->gpu, count, 1) > 0)
      ret->gpu = resources->gpu;
  }
  bool host = spec->network && strcmp(spec->network, "host") == 0;
  if (host)
    add_port(ret, PB_GET(spec, port, 0), MODEL__PROTOCOL__TCP);
  add_port(ret, PB_GET(spec, host_port, 0), MODEL__PROTOCOL__TCP);
  for (size_t i = 0; i < spec->n_extra_ports; i++)
    add_port(ret, PB_GET(spec->extra_ports[i], host_port, 0), PB_GET(spec->extra_ports[i], protocol, MODEL__PROTOCOL__TCP));
}

bool needs_full_name(const char *project, const char *reference, char out[NEEDS_NAME_MAX]) {
  int n = strchr(reference, '/') ? snprintf(out, NEEDS_NAME_MAX, "%s", reference) : snprintf(out, NEEDS_NAME_MAX, "%s/%s", project, reference);
  return n > 0 && n < NEEDS_NAME_MAX;
}
