/* Whether all is well, in one line, and if not why: the reasons by weight, the most important first.
 * Threads: pure functions. */
#ifndef ORCA_APISERVER_HEADLINE_H
#define ORCA_APISERVER_HEADLINE_H

#include "orca-apiserver/auth.h"
#include "orca-apiserver/routes_derive.h"
#include "orca-apiserver/status_view.h"

#define HEADLINE_REASONS 8
#define HEADLINE_TEXT 300
#define HEADLINE_WRONG 50 /* reasons of this weight and above are: not well */

struct headline_reason {
  int weight;
  char text[HEADLINE_TEXT];
};
struct headline {
  struct headline_reason reasons[HEADLINE_REASONS]; /* heaviest first */
  size_t count, wrong, notes;                       /* count: of those that are kept; wrong and notes: of all */
  size_t services, jobs, instances;                 /* what there is: services, jobs, ready instances */
  uint64_t wanted;
  const char *project; /* only this one was asked for; NULL: all */
};

void headline_add(struct headline *h, int weight, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* One service, as its view says. */
void headline_service(struct headline *h, const struct api_view *view);
/* One job that is no task, with its newest run that was not skipped (NULL: none yet), and an instance of it that is wanted (NULL: none). */
void headline_job(struct headline *h, const Model__Job *job, const Model__JobState *state, const Model__JobRun *last,
                  const Model__Instance *instance);
/* Nodes, the scheduler, proxies (table NULL: not known). */
void headline_cluster(struct headline *h, const struct api_cache *cache, const struct api_route_table *table);
/* "All is well: 3 services, 2 jobs, 5 of 5 instances ready", "Not well: A; B (and 2 more)". */
void headline_text(const struct headline *h, char *out, size_t size);

#endif
