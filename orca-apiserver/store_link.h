/* Between the store and the cache: the mirror that feeds it, what a fresh cluster gets first, and the gateway's opening.
 *
 * What a fresh cluster gets: this node's own record, from node.toml and the public keys in key_dir, and when the store has no token at all the
 * first one, whose hash `orcactl init` left in key_dir/apiserver/first-token.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_STORE_LINK_H
#define ORCA_APISERVER_STORE_LINK_H

#include "common/bus/bus.h"
#include "common/err.h"

struct api;
struct store_link;

/* Starts; returns at once. api->store and api->commit are set. */
struct store_link *store_link_open(struct api *api, const struct bus_address *stores, size_t count, struct err *err);
/* Ends what is on its way; the gateway is closed with it. */
void store_link_close(struct store_link *link);

#endif
