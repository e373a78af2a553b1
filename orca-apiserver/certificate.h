/* Certificates for the proxies, which take the API's connections from other machines: signed by the cluster's CA, whose key nobody but this
 * process can read (KEY_DIR/apiserver/ca.key; the certificate is KEY_DIR/ca.pem). The key stays in memory only while one is signed.
 *
 * The names are those of the node whose proxy asks, as the store has them: its name and address, the addresses of [api] listen that are not
 * another node's, loopback, and orca.DOMAIN. What the request says of itself is not looked at.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_CERTIFICATE_H
#define ORCA_APISERVER_CERTIFICATE_H

#include "common/bus/bus.h"
#include "orca-apiserver/api.h"
#include "proto/node.pb-c.h"

#define API_CERTIFICATE_DAYS 90
#define API_CERTIFICATE_NAMES_MAX 72

/* The names for a node's certificate, copied into `room`; how many. A pure function of the cache. */
size_t api_certificate_names(const struct api_cache *cache, const char *node, char room[API_CERTIFICATE_NAMES_MAX][256]);

/* Answers the call, at once. */
void api_certificate_sign(struct api *api, const char *node, struct bus_call *call, const Node__SignCertificate *ask);

#endif
