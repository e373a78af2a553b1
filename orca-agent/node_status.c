/* What the node says of itself: capacity, versions, Docker's health, its named volumes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/agent.h"

#define MAX_VOLUMES 4096u

static uint32_t pid_max(void) {
  FILE *f = fopen("/proc/sys/kernel/pid_max", "re");
  unsigned n = 0;
  if (f && fscanf(f, "%u", &n) != 1)
    n = 0;
  if (f)
    fclose(f);
  return n ? n : 32768;
}

void agent_node_status_init(struct agent *a) {
  Model__NodeStatus *st = &a->node;
  struct utsname u;
  model__node_status__init(st);
  st->name = strdup(a->core.node);
  long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  PB_SET(st, cpu_milli, cores > 0 ? (uint32_t)cores * 1000 : 1000);
  PB_SET(st, memory, pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0);
  PB_SET(st, pids, pid_max());
  PB_SET(st, docker_ok, 0);
  PB_SET(st, cgroup, access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? 2 : 1);
  st->version = strdup(ORCA_VERSION);
  st->docker_version = a->docker_version;
  st->docker_error = a->docker_error;
  if (uname(&u) == 0) {
    st->kernel = strdup(u.release);
    st->arch = strdup(u.machine);
  }
}

static void free_volumes(Model__NodeStatus *st) {
  for (size_t n = 0; n < st->n_volumes; n++)
    free(st->volumes[n]);
  free(st->volumes);
  st->volumes = NULL;
  st->n_volumes = 0;
}

void agent_node_status_fini(struct agent *a) {
  Model__NodeStatus *st = &a->node;
  free_volumes(st);
  char *owned[] = {st->name, st->version, st->kernel, st->arch};
  for (size_t n = 0; n < sizeof owned / sizeof *owned; n++)
    if (owned[n] != protobuf_c_empty_string)
      free(owned[n]);
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void agent_node_status_set_volumes(struct agent *a, const json_t *answer) {
  const json_t *list = json_object_get(answer, "Volumes");
  size_t count = json_array_size(list), n = 0;
  if (count > MAX_VOLUMES)
    count = MAX_VOLUMES;
  char **names = calloc(count + 1, sizeof *names);
  if (!names)
    return;
  for (size_t at = 0; at < count; at++) {
    const json_t *labels = json_object_get(json_array_get(list, at), "Labels");
    const char *cluster = json_string_value(json_object_get(labels, AGENT_LABEL_CLUSTER)),
               *node = json_string_value(json_object_get(labels, AGENT_LABEL_NODE));
    const char *project = json_string_value(json_object_get(labels, AGENT_LABEL_PROJECT)),
               *source = json_string_value(json_object_get(labels, AGENT_LABEL_VOLUME));
    if (!cluster || !node || !project || !source || strcmp(cluster, a->self.cluster_id) != 0 || strcmp(node, a->self.node) != 0 ||
        strlen(project) > 64 || strlen(source) > 128 || asprintf(&names[n], "%s/%s", project, source) < 0)
      continue;
    n++;
  }
  qsort(names, n, sizeof *names, by_name);
  bool same = n == a->node.n_volumes;
  for (size_t at = 0; same && at < n; at++)
    same = strcmp(names[at], a->node.volumes[at]) == 0;
  if (same) {
    for (size_t at = 0; at < n; at++)
      free(names[at]);
    free(names);
    return;
  }
  free_volumes(&a->node);
  a->node.volumes = names;
  a->node.n_volumes = n;
  a->report.node_dirty = true;
}

void agent_node_status_add_volume(struct agent *a, const char *project, const char *source) {
  Model__NodeStatus *st = &a->node;
  char *name = NULL;
  if (asprintf(&name, "%s/%s", project, source) < 0)
    return;
  char **list = st->n_volumes < MAX_VOLUMES ? reallocarray(st->volumes, st->n_volumes + 1, sizeof *list) : NULL;
  if (list)
    st->volumes = list;
  if (!list || (st->n_volumes && bsearch(&name, list, st->n_volumes, sizeof *list, by_name))) {
    free(name);
    return;
  }
  list[st->n_volumes++] = name;
  qsort(list, st->n_volumes, sizeof *list, by_name);
  a->report.node_dirty = true;
}
