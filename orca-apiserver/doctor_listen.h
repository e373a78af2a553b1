/* Whether [api] listen names addresses that somebody can listen on.
 * Threads: reads the list of this machine's addresses; else pure. */
#ifndef ORCA_APISERVER_DOCTOR_LISTEN_H
#define ORCA_APISERVER_DOCTOR_LISTEN_H

#include "common/doctor/doctor.h"
#include "orca-apiserver/cache.h"

/* Addresses that are neither this machine's nor a node's, nor all (0.0.0.0, ::), are told as wrong. is_here: of this machine. */
void doctor_listen_check(struct doctor_report *report, const struct api_cache *cache, bool (*is_here)(const char *host));
bool doctor_listen_is_here(const char *host);

#endif
