/* The further loopback addresses of the API, of [api] listen of cluster.toml: opened and closed as it changes, while what is connected stays
 * connected.
 *
 * Addresses that are not loopback are the proxies', who speak TLS (certificate.h): they are passed over here.
 * The node's default address is not among them: it is always open, as orcactl's context names it. An address that can't be had is said (log,
 * event, `status`) and tried again.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_LISTENERS_H
#define ORCA_APISERVER_LISTENERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/err.h"
#include "orca-apiserver/json_out.h"

struct api;
struct api_listeners;

/* Hands a connection over; takes fd. */
typedef void api_accept_fn(void *arg, int fd, const struct sockaddr *from, socklen_t len);

/* own: the default address, "127.0.0.1:6880". */
struct api_listeners *api_listeners_new(struct api *api, const char *own, api_accept_fn *accepted, void *arg, struct err *err);
void api_listeners_free(struct api_listeners *l); /* takes NULL */
/* What cluster.toml says now. Copied. */
void api_listeners_want(struct api_listeners *l, char *const *addresses, size_t count);
/* One string for each that can't be had. */
void api_listeners_problems(const struct api_listeners *l, struct api_json *json);

/* A listening socket for "ADDRESS:PORT" or "[ADDRESS]:PORT"; -1. Port 0 picks one: *ret_port, which may be NULL. */
int api_listen_on(const char *text, uint16_t *ret_port, struct err *err);

#endif
