/* Where in its file a service's key was written: faults that are found when all is read (between services, by the policy, by the server) are told
 * there. Threads: none. Reads files of the infra directory. */
#ifndef ORCA_ORCACTL_PLACES_H
#define ORCA_ORCACTL_PLACES_H

#include <stdbool.h>

#include "common/spec/spec.h"

/* key: "domains", "deploy.max_surge", "domains[1]". As far as the key is there; false when not even its first part is, and the place of [[service]]
 * is the best that there is. */
bool place_of_key(const char *dir, const struct spec_place *of, const char *key, unsigned *ret_line, unsigned *ret_column);
/* Faults at "PROJECT/NAME.key" that have the place of their [[service]] get that of the key. */
void places_refine(const char *dir, const struct spec_set *set, struct spec_faults *faults);

#endif
