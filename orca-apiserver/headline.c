#include "orca-apiserver/headline.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"

void headline_add(struct headline *h, int weight, const char *fmt, ...) {
  char whole[2 * HEADLINE_TEXT];
  va_list ap;
  *(weight >= HEADLINE_WRONG ? &h->wrong : &h->notes) += 1;
  size_t at = h->count;
  while (at > 0 && h->reasons[at - 1].weight < weight)
    at--;
  if (at == HEADLINE_REASONS)
    return;
  if (h->count < HEADLINE_REASONS)
    h->count++;
  memmove(&h->reasons[at + 1], &h->reasons[at], (h->count - at - 1) * sizeof h->reasons[0]);
  va_start(ap, fmt);
  vsnprintf(whole, sizeof whole, fmt, ap);
  va_end(ap);
  h->reasons[at].weight = weight;
  api_text_copy(h->reasons[at].text, sizeof h->reasons[at].text, whole);
}

void headline_service(struct headline *h, const struct api_view *v) {
  static const struct {
    const char *status, *text;
    int weight;
  } words[] = {
      {"failed", "has failed", 80},           {"crashing", "is in a crash loop", 78},
      {"pending", "is pending", 75},          {"rolling_back", "is being rolled back", 72},
      {"rolled_back", "was rolled back", 70}, {"degraded", "has too few ready instances", 60},
  };
  const char *project = PB_STR(v->service->project), *name = PB_STR(v->service->name);
  h->services++;
  h->instances += v->ready < v->replicas ? v->ready : v->replicas; /* while a rollout has more than are wanted */
  h->wanted += v->replicas;
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (strcmp(v->status, words[i].status) == 0) {
      headline_add(h, words[i].weight, "%s/%s %s%s%s", project, name, words[i].text, *v->last_error ? ": " : "", v->last_error);
      return;
    }
  if (strcmp(v->status, "deploying") == 0)
    headline_add(h, 20, "%s/%s is being deployed%s%s", project, name, *v->last_error ? ": " : "", v->last_error);
  else if (v->secrets_newer)
    headline_add(h, 10, "%s/%s runs with older secrets than there are", project, name);
}

void headline_job(struct headline *h, const Model__Job *job, const Model__JobState *state, const Model__JobRun *last,
                  const Model__Instance *instance) {
  const char *project = PB_STR(job->project), *name = PB_STR(job->name);
  h->jobs++;
  if (state && *PB_STR(state->error)) {
    headline_add(h, 74, "job %s/%s: %s", project, name, state->error);
  } else if (instance && !*PB_STR(instance->node)) {
    headline_add(h, 73, "job %s/%s is pending%s%s", project, name, *PB_STR(instance->reason) ? ": " : "", PB_STR(instance->reason));
  } else if (last && (last->state == MODEL__RUN_STATE__RUN_FAILED || last->state == MODEL__RUN_STATE__RUN_TIMED_OUT)) {
    headline_add(h, 58, "the last run of job %s/%s has %s%s%s", project, name, last->state == MODEL__RUN_STATE__RUN_FAILED ? "failed" : "timed out",
                 *PB_STR(last->reason) ? ": " : "", PB_STR(last->reason));
  }
}

static void of_node(struct headline *h, const struct api_cache *cache, const char *name) {
  const Model__NodeStatus *status = api_cache_node_status(cache, name);
  if (!status)
    headline_add(h, 90, "node %s has not reported yet", name);
  else if (status->state != MODEL__NODE_STATE__NODE_READY)
    headline_add(h, 90, "node %s is unreachable%s%s", name, *PB_STR(status->reason) ? ": " : "", PB_STR(status->reason));
  else if (!status->docker_ok)
    headline_add(h, 88, "Docker on node %s does not answer%s%s", name, *PB_STR(status->docker_error) ? ": " : "", PB_STR(status->docker_error));
}

static void of_proxies(struct headline *h, const struct api_route_table *table) {
  for (size_t i = 0; i < table->proxies.count; i++) {
    const struct api_proxy *p = table->proxies.list[i].value;
    if (p && !p->connected)
      headline_add(h, 66, "the proxy on node %s is not connected", p->name);
    else if (p && *p->fault)
      headline_add(h, 68, "the proxy on node %s can't %s", p->name, p->fault);
  }
}

void headline_cluster(struct headline *h, const struct api_cache *cache, const struct api_route_table *table) {
  size_t count;
  const struct api_smap_entry *nodes = api_cache_all(cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++)
    of_node(h, cache, PB_STR(API_MSG(&nodes[i], Model__Node)->name));
  if (!api_cache_object(cache, API_LEADER, KEY_SCHEDULER_LEADER))
    headline_add(h, 92, "no scheduler leads: nothing new is placed");
  if (table)
    of_proxies(h, table);
}

static size_t reasons(const struct headline *h, size_t of, char *out, size_t size) {
  size_t used = 0, told = 0;
  for (size_t i = 0; i < h->count && i < 2 && (of == h->notes || h->reasons[i].weight >= HEADLINE_WRONG); i++, told++) {
    int n = snprintf(out + used, size - used, "%s%s", i ? "; " : "", h->reasons[i].text);
    used = n < 0 || (size_t)n >= size - used ? size - 1 : used + (size_t)n;
  }
  if (of > told && used < size)
    snprintf(out + used, size - used, " (and %zu more)", of - told);
  return told;
}

void headline_text(const struct headline *h, char *out, size_t size) {
  char list[3 * HEADLINE_TEXT], whole[4 * HEADLINE_TEXT], services[120] = "", jobs[40] = "", counts[200] = "";
  if (h->services)
    snprintf(services, sizeof services, "%zu service%s, ", h->services, h->services == 1 ? "" : "s");
  if (h->jobs)
    snprintf(jobs, sizeof jobs, "%zu job%s", h->jobs, h->jobs == 1 ? "" : "s");
  if (h->services)
    snprintf(counts, sizeof counts, "%s%s%s%zu of %" PRIu64 " instance%s ready", services, jobs, h->jobs ? ", " : "", h->instances, h->wanted,
             h->wanted == 1 ? "" : "s");
  else if (h->jobs)
    snprintf(counts, sizeof counts, "%s", jobs);
  else if (h->project)
    snprintf(counts, sizeof counts, "nothing of project %.63s is deployed", h->project);
  else
    snprintf(counts, sizeof counts, "nothing is deployed yet");
  if (h->wrong) {
    reasons(h, h->wrong, list, sizeof list);
    snprintf(whole, sizeof whole, "Not well: %s", list);
  } else if (h->notes) {
    reasons(h, h->notes, list, sizeof list);
    snprintf(whole, sizeof whole, "All is well: %s; %s", counts, list);
  } else {
    snprintf(whole, sizeof whole, "All is well: %s", counts);
  }
  api_text_copy(out, size, whole);
}
