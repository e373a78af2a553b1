/* Where a request came from: for the throttle, the audit log, and for who counts as local.
 *
 * orca-proxy terminates TLS and hands over on loopback; it says the client's address in X-Forwarded-For. Only a peer on loopback is believed: then
 * the address is "10.0.0.7 via 127.0.0.1", so that a reader knows that it was told, not seen. Of several addresses the last counts: what came before
 * it was the client's to write. Threads: pure functions. */
#ifndef ORCA_APISERVER_FROM_H
#define ORCA_APISERVER_FROM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define API_FROM_MAX 112

struct api_from {
  char text[API_FROM_MAX]; /* "10.0.0.7", "10.0.0.7 via 127.0.0.1", "unknown" */
  uint8_t key[16];         /* of the throttle: the address, of an IPv6 one the network of 64 bits */
  bool local;              /* over loopback, and no proxy before it */
};

/* peer may be NULL. forwarded: the last X-Forwarded-For, NULL when there is none; proxied: there was some header of a proxy. */
void api_from_make(const struct sockaddr *peer, const char *forwarded, bool proxied, struct api_from *ret);

/* Whether a Host field (NULL: none came) names this machine: a page whose own name leads here for a moment has another one. */
bool api_host_is_local(const char *host);

#endif
