#include "orca-scheduler/place.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

/* ---- the table ---- */

static size_t position(const struct place_table *table, const char *name, bool *found) {
  size_t lo = 0, hi = table->count;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    int order = strcmp(table->nodes[mid]->name, name);
    if (order == 0) {
      *found = true;
      return mid;
    }
    if (order < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  *found = false;
  return lo;
}

static void node_free(struct place_node *node) {
  free(node->ports);
  free(node->name);
  free(node);
}

void place_table_fini(struct place_table *table) {
  for (size_t i = 0; i < table->count; i++)
    node_free(table->nodes[i]);
  free(table->nodes);
  *table = (struct place_table){0};
}

static void renumber(struct place_table *table, size_t from) {
  for (size_t i = from; i < table->count; i++)
    table->nodes[i]->index = i;
}

struct place_node *place_node_add(struct place_table *table, const char *name) {
  if (table->count == table->size) {
    size_t size = table->size ? table->size * 2 : 16;
    struct place_node **nodes = reallocarray(table->nodes, size, sizeof(struct place_node *));
    if (!nodes)
      return NULL;
    table->nodes = nodes;
    table->size = size;
  }
  struct place_node *node = calloc(1, sizeof *node);
  if (!node || !(node->name = strdup(name))) {
    free(node);
    return NULL;
  }
  bool found;
  size_t at = position(table, name, &found);
  memmove(table->nodes + at + 1, table->nodes + at, (table->count - at) * sizeof(struct place_node *));
  table->nodes[at] = node;
  table->count++;
  renumber(table, at);
  return node;
}

void place_node_remove(struct place_table *table, struct place_node *node) {
  size_t at = node->index;
  table->count--;
  memmove(table->nodes + at, table->nodes + at + 1, (table->count - at) * sizeof(struct place_node *));
  renumber(table, at);
  node_free(node);
}

struct place_node *place_node_find(const struct place_table *table, const char *name) {
  bool found;
  size_t at = position(table, name, &found);
  return found ? table->nodes[at] : NULL;
}

/* ---- usage ---- */

static size_t port_position(const struct place_node *node, uint32_t key) {
  size_t lo = 0, hi = node->port_count;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (node->ports[mid].key < key)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static bool port_taken(const struct place_node *node, uint32_t key) {
  size_t at = port_position(node, key);
  return at < node->port_count && node->ports[at].key == key;
}

static void port_take(struct place_node *node, uint32_t key) {
  size_t at = port_position(node, key);
  if (at < node->port_count && node->ports[at].key == key) {
    node->ports[at].users++;
    return;
  }
  memmove(node->ports + at + 1, node->ports + at, (node->port_count - at) * sizeof *node->ports);
  node->ports[at] = (struct place_port){key, 1};
  node->port_count++;
}

static void port_release(struct place_node *node, uint32_t key) {
  size_t at = port_position(node, key);
  if (at == node->port_count || node->ports[at].key != key || --node->ports[at].users)
    return;
  node->port_count--;
  memmove(node->ports + at, node->ports + at + 1, (node->port_count - at) * sizeof *node->ports);
}

static bool same_or_any(const char *wanted, const char *has) {
  return !wanted || !*wanted || strcmp(wanted, PB_STR(has)) == 0;
}

static size_t gpu_groups(const struct place_node *node) {
  size_t n = node->record ? node->record->n_gpus : 0;
  return n < PLACE_GPU_GROUPS ? n : PLACE_GPU_GROUPS;
}

static bool gpu_matches(const Model__Gpu *wanted, const Model__Gpu *has) {
  return same_or_any(wanted->vendor, has->vendor) && same_or_any(wanted->model, has->model) &&
         PB_GET(has, vram_min, 0) >= PB_GET(wanted, vram_min, 0);
}

static uint32_t gpu_free(const struct place_node *node, size_t group) {
  uint32_t count = PB_GET(node->record->gpus[group], count, 1);
  return count > node->gpus_used[group] ? count - node->gpus_used[group] : 0;
}

/* The group that has room and leaves the least over; -1 when none has. most: the most free in a group that matches. */
static int gpu_choose(const struct place_node *node, const Model__Gpu *wanted, bool *matches, uint32_t *most) {
  int best = -1;
  *matches = false;
  *most = 0;
  for (size_t i = 0; i < gpu_groups(node); i++) {
    if (!gpu_matches(wanted, node->record->gpus[i]))
      continue;
    *matches = true;
    uint32_t left = gpu_free(node, i);
    if (left > *most)
      *most = left;
    if (left >= PB_GET(wanted, count, 1) && (best < 0 || left < gpu_free(node, (size_t)best)))
      best = (int)i;
  }
  return best;
}

int place_take(struct place_node *node, const struct place_need *need, int *gpu_group) {
  if (node->port_count + need->port_count > node->port_size) {
    size_t size = (node->port_count + need->port_count) * 2;
    struct place_port *ports = reallocarray(node->ports, size, sizeof *ports);
    if (!ports)
      return -1;
    node->ports = ports;
    node->port_size = size;
  }
  for (size_t i = 0; i < need->port_count; i++)
    port_take(node, need->ports[i]);
  node->memory_used += need->memory;
  node->cpu_used += need->cpu_milli;
  node->pids_used += need->pids;
  node->instances++;
  *gpu_group = -1;
  if (need->gpu && node->record) {
    bool matches;
    uint32_t most;
    *gpu_group = gpu_choose(node, need->gpu, &matches, &most);
    if (*gpu_group >= 0)
      node->gpus_used[*gpu_group] += PB_GET(need->gpu, count, 1);
  }
  return 0;
}

void place_release(struct place_node *node, const struct place_need *need, int gpu_group) {
  for (size_t i = 0; i < need->port_count; i++)
    port_release(node, need->ports[i]);
  node->memory_used -= need->memory;
  node->cpu_used -= need->cpu_milli;
  node->pids_used -= need->pids;
  node->instances--;
  if (gpu_group >= 0)
    node->gpus_used[gpu_group] -= PB_GET(need->gpu, count, 1);
}

/* ---- the filter ---- */

static const char *label_of(const struct place_node *node, const char *key) {
  for (size_t i = 0; node->record && i < node->record->n_labels; i++)
    if (strcmp(PB_STR(node->record->labels[i]->key), key) == 0)
      return PB_STR(node->record->labels[i]->value);
  return NULL;
}

static const Model__Pair *label_missing(const struct place_node *node, const Model__Placement *placement) {
  assert(placement);
  for (size_t i = 0; i < placement->n_labels; i++) {
    const char *has = label_of(node, PB_STR(placement->labels[i]->key));
    if (!has || strcmp(has, PB_STR(placement->labels[i]->value)) != 0)
      return placement->labels[i];
  }
  return NULL;
}

static uint64_t room(uint64_t capacity, uint64_t used) {
  return capacity > used ? capacity - used : 0;
}

static uint32_t port_conflict(const struct place_node *node, const struct place_need *need) {
  for (size_t i = 0; i < need->port_count; i++)
    if (port_taken(node, need->ports[i]))
      return need->ports[i];
  return 0;
}

static enum place_reason judge(const struct place_node *node, const struct place_request *request) {
  const struct place_need *need = request->need;
  const Model__Placement *placement = request->placement;
  const Model__NodeStatus *status = node->status;
  if (!node->record)
    return PLACE_NOT_REGISTERED;
  if (!status || PB_GET(status, state, MODEL__NODE_STATE__NODE_UNREACHABLE) != MODEL__NODE_STATE__NODE_READY)
    return PLACE_NOT_READY;
  if (!PB_GET(status, docker_ok, 0))
    return PLACE_DOCKER;
  if (PB_GET(node->record, drain, 0))
    return PLACE_DRAINING;
  if (placement && placement->node && *placement->node && strcmp(placement->node, node->name) != 0)
    return PLACE_OTHER_NODE;
  if (placement && placement->n_labels && label_missing(node, placement))
    return PLACE_LABELS;
  if (request->has_volumes && !request->has_volumes[node->index])
    return PLACE_VOLUME;
  if (request->avoid && request->avoid[node->index])
    return PLACE_AVOID;
  if (need->port_count && node->port_count && port_conflict(node, need))
    return PLACE_PORT;
  bool matches;
  uint32_t most;
  if (need->gpu && gpu_choose(node, need->gpu, &matches, &most) < 0)
    return PLACE_GPU;
  /* What asks for nothing always fits: capacity guards requests, it does not count heads. */
  if (need->memory && need->memory > room(PB_GET(status, memory, 0), node->memory_used))
    return PLACE_MEMORY;
  if (need->cpu_milli && need->cpu_milli > room(PB_GET(status, cpu_milli, 0), node->cpu_used))
    return PLACE_CPU;
  if (need->pids && PB_GET(status, pids, 0) && need->pids > room(PB_GET(status, pids, 0), node->pids_used))
    return PLACE_PIDS;
  return PLACE_FITS;
}

/* Thousandths of the node's cpu and memory that are asked for once the instance is there. */
static uint32_t fullness(const struct place_node *node, const struct place_need *need) {
  uint64_t memory = PB_GET(node->status, memory, 0), cpu = PB_GET(node->status, cpu_milli, 0);
  uint64_t m = memory ? (node->memory_used + need->memory) / (memory / 1000 + 1) : 0;
  uint64_t c = cpu ? (node->cpu_used + need->cpu_milli) * 1000 / cpu : 0;
  uint64_t both = (m + c) / 2;
  return both > 1000 ? 1000 : (uint32_t)both;
}

/* ---- texts ---- */

static void verdict_text(const struct place_node *node, const struct place_request *request, enum place_reason reason, char out[PLACE_TEXT]) {
  const struct place_need *need = request->need;
  const Model__NodeStatus *status = node->status;
  switch (reason) {
  case PLACE_FITS:
    snprintf(out, PLACE_TEXT, "fits: %" PRIu32 " %% full with it", fullness(node, need) / 10);
    return;
  case PLACE_NOT_REGISTERED:
    snprintf(out, PLACE_TEXT, "node: not registered");
    return;
  case PLACE_NOT_READY:
    snprintf(out, PLACE_TEXT, "node: not ready%s%.100s", status && *PB_STR(status->reason) ? ": " : "", status ? PB_STR(status->reason) : "");
    return;
  case PLACE_DOCKER:
    snprintf(out, PLACE_TEXT, "docker: not working%s%.100s", *PB_STR(status->docker_error) ? ": " : "", PB_STR(status->docker_error));
    return;
  case PLACE_DRAINING:
    snprintf(out, PLACE_TEXT, "node: draining");
    return;
  case PLACE_OTHER_NODE:
    assert(request->placement);
    snprintf(out, PLACE_TEXT, "node: wants %.64s", request->placement->node);
    return;
  case PLACE_LABELS: {
    const Model__Pair *label = label_missing(node, request->placement);
    const char *has = label_of(node, PB_STR(label->key));
    snprintf(out, PLACE_TEXT, "labels: wants %.40s=%.40s, %s%.40s", PB_STR(label->key), PB_STR(label->value), has ? "has " : "has none",
             has ? has : "");
    return;
  }
  case PLACE_VOLUME:
    snprintf(out, PLACE_TEXT, "volume: %.140s", PB_STR(request->volume));
    return;
  case PLACE_AVOID:
    snprintf(out, PLACE_TEXT, "avoid: %.130s is here", request->avoid[node->index]);
    return;
  case PLACE_PORT: {
    uint32_t key = port_conflict(node, need);
    snprintf(out, PLACE_TEXT, "port: %" PRIu32 "/%s is taken", key >> 1, key & 1 ? "udp" : "tcp");
    return;
  }
  case PLACE_GPU: {
    bool matches;
    uint32_t most;
    gpu_choose(node, need->gpu, &matches, &most);
    if (!matches)
      snprintf(out, PLACE_TEXT, "gpu: none that matches");
    else
      snprintf(out, PLACE_TEXT, "gpu: needs %" PRIu32 ", %" PRIu32 " free", PB_GET(need->gpu, count, 1), most);
    return;
  }
  case PLACE_MEMORY:
    snprintf(out, PLACE_TEXT, "memory: needs %" PRIu64 " MiB, %" PRIu64 " MiB free", (need->memory + (1 << 20) - 1) >> 20,
             room(PB_GET(status, memory, 0), node->memory_used) >> 20);
    return;
  case PLACE_CPU: {
    uint64_t left = room(PB_GET(status, cpu_milli, 0), node->cpu_used);
    snprintf(out, PLACE_TEXT, "cpu: needs %" PRIu32 ".%03" PRIu32 " cores, %" PRIu64 ".%03" PRIu64 " free", need->cpu_milli / 1000,
             need->cpu_milli % 1000, left / 1000, left % 1000);
    return;
  }
  case PLACE_PIDS:
    snprintf(out, PLACE_TEXT, "pids: needs %" PRIu32 ", %" PRIu64 " free", need->pids, room(PB_GET(status, pids, 0), node->pids_used));
    return;
  case PLACE_REASON_COUNT:
    break;
  }
  out[0] = 0;
}

static const char *reason_word(enum place_reason reason) {
  static const char *const words[PLACE_REASON_COUNT] = {[PLACE_FITS] = "fit",
                                                        [PLACE_NOT_REGISTERED] = "not registered",
                                                        [PLACE_NOT_READY] = "not ready",
                                                        [PLACE_DOCKER] = "docker",
                                                        [PLACE_DRAINING] = "draining",
                                                        [PLACE_OTHER_NODE] = "other node",
                                                        [PLACE_LABELS] = "labels",
                                                        [PLACE_VOLUME] = "volume",
                                                        [PLACE_AVOID] = "avoid",
                                                        [PLACE_PORT] = "port",
                                                        [PLACE_GPU] = "gpu",
                                                        [PLACE_MEMORY] = "memory",
                                                        [PLACE_CPU] = "cpu",
                                                        [PLACE_PIDS] = "pids"};
  return words[reason];
}

/* "no node fits: n1: memory: …" for one node, "none of 5 nodes fits: memory 3, labels 2" for more. */
static void pending_text(const struct place_table *table, const struct place_request *request, const size_t counts[PLACE_REASON_COUNT],
                         char out[PLACE_TEXT]) {
  if (table->count == 0) {
    snprintf(out, PLACE_TEXT, "there is no node yet");
    return;
  }
  if (table->count == 1) {
    char why[PLACE_TEXT];
    verdict_text(table->nodes[0], request, judge(table->nodes[0], request), why);
    snprintf(out, PLACE_TEXT, "no node fits: %.40s: %.100s", table->nodes[0]->name, why);
    return;
  }
  int used = snprintf(out, PLACE_TEXT, "none of %zu nodes fits", table->count);
  const char *separator = ": ";
  for (int r = 1; r < PLACE_REASON_COUNT && used < PLACE_TEXT; r++) {
    if (!counts[r])
      continue;
    used += snprintf(out + used, PLACE_TEXT - (size_t)used, "%s%s %zu", separator, reason_word((enum place_reason)r), counts[r]);
    separator = ", ";
  }
}

static void keep_verdict(struct place_answer *answer, const struct place_node *node, const struct place_request *request, enum place_reason reason) {
  struct place_verdict *verdict = &answer->verdicts[answer->verdict_count++];
  verdict->node = node->name;
  verdict->chosen = node == answer->node;
  verdict->fits = reason == PLACE_FITS;
  if (verdict->chosen)
    snprintf(verdict->reason, sizeof verdict->reason, "best fit: %" PRIu32 " %% full with it", fullness(node, request->need) / 10);
  else
    verdict_text(node, request, reason, verdict->reason);
}

/* ---- spread: instances of the service by the value of a label ---- */

struct by_value {
  const char *value; /* NULL: nodes without the label are one value together */
  uint32_t count;
  size_t node;
};

static int order_by_value(const void *a, const void *b) {
  const struct by_value *x = a, *y = b;
  if (!x->value || !y->value)
    return (x->value != NULL) - (y->value != NULL);
  return strcmp(x->value, y->value);
}

/* Per node: how many instances of the service share its value. NULL when memory ends. */
static uint32_t *spread_counts(const struct place_table *table, const struct place_request *request, const char *label) {
  struct by_value *list = calloc(table->count, sizeof *list);
  uint32_t *counts = calloc(table->count, sizeof *counts);
  if (!list || !counts) {
    free(list);
    free(counts);
    return NULL;
  }
  for (size_t i = 0; i < table->count; i++)
    list[i] = (struct by_value){label_of(table->nodes[i], label), request->own ? request->own[i] : 0, i};
  qsort(list, table->count, sizeof *list, order_by_value);
  for (size_t from = 0, to; from < table->count; from = to) {
    uint32_t sum = 0;
    for (to = from; to < table->count && order_by_value(&list[from], &list[to]) == 0; to++)
      sum += list[to].count;
    for (size_t i = from; i < to; i++)
      counts[list[i].node] = sum;
  }
  free(list);
  return counts;
}

/* ---- the decision ---- */

struct rank {
  uint32_t wished; /* instances that share the value of the label the spec names; 0 when it names none */
  uint32_t full;   /* more is better */
  uint32_t own;
};

static bool better(const struct rank *a, const struct rank *b) {
  if (a->wished != b->wished)
    return a->wished < b->wished;
  if (a->full != b->full)
    return a->full > b->full;
  return a->own < b->own; /* equal: the earlier name stays */
}

int place_instance(const struct place_table *table, const struct place_request *request, struct place_answer *ret) {
  const char *label = request->placement ? request->placement->spread : NULL;
  bool by_label = label && *label && strcmp(label, "node") != 0;
  bool by_node = label && strcmp(label, "node") == 0;
  uint32_t *shared = NULL;
  if (by_label && table->count && !(shared = spread_counts(table, request, label)))
    return -1;
  size_t counts[PLACE_REASON_COUNT] = {0};
  struct rank best = {0};
  ret->node = NULL;
  ret->reason[0] = 0;
  ret->verdict_count = 0;
  for (size_t i = 0; i < table->count; i++) {
    struct place_node *node = table->nodes[i];
    enum place_reason reason = judge(node, request);
    counts[reason]++;
    if (reason != PLACE_FITS)
      continue;
    uint32_t own = request->own ? request->own[i] : 0;
    struct rank rank = {.wished = shared ? shared[i] : by_node ? own : 0, .full = fullness(node, request->need), .own = own};
    if (ret->node && !better(&rank, &best))
      continue;
    ret->node = node;
    best = rank;
  }
  free(shared);
  if (ret->node)
    keep_verdict(ret, ret->node, request, PLACE_FITS);
  else
    pending_text(table, request, counts, ret->reason);
  for (size_t i = 0; i < table->count && ret->verdict_count < PLACE_VERDICTS; i++)
    if (table->nodes[i] != ret->node)
      keep_verdict(ret, table->nodes[i], request, judge(table->nodes[i], request));
  return 0;
}
