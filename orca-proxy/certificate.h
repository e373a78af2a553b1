/* The certificate that the API's clients see: made of a key of the proxy's own, signed by the apiserver with the cluster's CA, cached in
 * STATE_DIR/proxy/api.pem (key and chain, 0400), renewed at two thirds of its life, or when an address has come that it is not for.
 *
 * Without an apiserver what is cached serves on. Threads: the loop's. */
#ifndef ORCA_PROXY_CERTIFICATE_H
#define ORCA_PROXY_CERTIFICATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/tls/server.h"
#include "orca-proxy/state.h"

struct certificate;

/* Reads the cached one. changed: there is another (certificate_server), or another fault. */
struct certificate *certificate_new(struct loop *loop, struct state *state, void (*changed)(void *arg), void *arg, struct err *err);
void certificate_free(struct certificate *c); /* takes NULL */

/* The addresses it has to be for, without ports; copied. None: no certificate is needed now. */
int certificate_want(struct certificate *c, const char *const *addresses, size_t count, struct err *err);
/* Who can be asked; NULL: nobody now. Call it again when the conversation is up. */
void certificate_connected(struct certificate *c, struct bus_conn *conn);

/* For new connections; borrowed, NULL while there is none. It changes with `changed`. */
struct tls_server *certificate_server(const struct certificate *c);
int64_t certificate_ends_s(const struct certificate *c); /* Unix; 0: there is none */
bool certificate_covers(const struct certificate *c, const char *address);
const char *certificate_fault(const struct certificate *c); /* ""; why there is none, or none that lasts */

/* When to ask for the next: a pure function of Unix times in seconds. */
int64_t certificate_renew_at(int64_t not_before_s, int64_t not_after_s);

#endif
