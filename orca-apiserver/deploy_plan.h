/* What a deploy changes: the state there is and the set that was sent, in; new services and revisions, out. Nothing is written here.
 *
 * A spec makes a new revision when it differs from the wanted one by spec_same_revision() (unresolved, defaults filled in, replicas apart). `scale`
 * survives a deploy that leaves the file's replicas as they were. A revision that failed or was rolled back is tried again by a deploy of the same (a
 * new generation), and a deploy starts what was stopped. Threads: pure functions; the plan owns its messages. */
#ifndef ORCA_APISERVER_DEPLOY_PLAN_H
#define ORCA_APISERVER_DEPLOY_PLAN_H

#include <stdbool.h>

#include "common/spec/spec.h"
#include "orca-apiserver/cache.h"

enum api_change {
  API_CHANGE_NONE,
  API_CHANGE_CREATE,
  API_CHANGE_UPDATE, /* a new revision */
  API_CHANGE_RETRY,  /* the same revision again: it had failed */
  API_CHANGE_SCALE,
  API_CHANGE_START,
  API_CHANGE_REMOVE,
};
const char *api_change_text(enum api_change change);

struct api_plan_item {
  enum api_change change;
  char project[64], name[64];
  bool is_job;
  bool takes_over;           /* created, while a job (a service) of that name is removed by the same plan */
  Model__Service *service;   /* as it shall be; NULL for NONE and REMOVE, and of a job */
  Model__Job *job;           /* the same of a job */
  Model__Revision *revision; /* to be created, or NULL */
  uint64_t service_mod;      /* mod_revision it was planned on: 0 = there was none */
  bool stop_first;           /* binds a host port or a volume: the old one goes before the new one comes */
  char *diff;                /* unified, in TOML form; NULL when there is none */
};
struct api_plan {
  struct api_plan_item *items;
  size_t count, size;
  bool cluster_changes;
  uint64_t cluster_mod;
};

struct api_plan_options {
  bool prune;        /* remove what is not in the set: of the projects it names, or of all when the set has the cluster's file with it */
  bool diffs;        /* fill in `diff` */
  const char *actor; /* token name */
  int64_t now_ms;
  /* Which projects the caller may touch: others are left alone by prune. */
  bool (*sees)(void *arg, const char *project);
  void *arg;
};

/* -1: out of memory, or faults between the services and with the cluster's policy (all of them in *faults). */
int api_plan_make(const struct api_cache *cache, const struct spec_set *set, const struct api_plan_options *options, struct api_plan *ret,
                  struct spec_faults *faults, struct err *err);
void api_plan_free(struct api_plan *plan);

/* A new revision of `service` with this spec: bumps its numbers and returns the record. NULL when memory ends. */
Model__Revision *api_plan_revision(Model__Service *service, const Model__ServiceSpec *spec, const char *actor, int64_t now_ms);
/* The highest revision that is there of this name, or that something runs which is left of a service or job that was removed: numbers of a new one
 * go on from it. */
uint64_t api_plan_last_revision(const struct api_cache *cache, const char *project, const char *name);
/* Where `rollback` without a number goes: the last one that completed, else the one before; 0: nowhere. */
uint64_t api_plan_rollback_target(const struct api_cache *cache, const Model__Service *service);

#endif
