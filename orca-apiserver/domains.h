/* Whose a domain is. Paths of one domain may lead to several services, but a path of somebody else's domain sees their visitors' cookies and can show
 * what it likes in their name: so only who may deploy both projects gives one a path of the other's.
 * Threads: pure functions of the cache. */
#ifndef ORCA_APISERVER_DOMAINS_H
#define ORCA_APISERVER_DOMAINS_H

#include <stdbool.h>

#include "common/err.h"
#include "orca-apiserver/cache.h"

/* A domain of `spec` that a service of a project has which the caller does not see; NULL: none. What the service has already, it keeps: the same
 * paths of it, or fewer. A NULL `sees` sees all. Until a rollout has completed the service has the domains of both revisions: it may roll
 * back by itself. */
const char *api_domain_of_others(const struct api_cache *cache, const Model__ServiceSpec *spec, bool (*sees)(void *arg, const char *project),
                                 void *arg);
#define API_DOMAIN_OF_OTHERS "%s is another project's: paths of it are given by a token for both projects"

/* A revision that comes back may find its domains with somebody else. 0, or -1 and ERR_CONFLICT. */
int api_domains_free(const struct api_cache *cache, const Model__ServiceSpec *spec, bool (*sees)(void *arg, const char *project), void *arg,
                     struct err *err);

#endif
