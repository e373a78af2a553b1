/* HTTP by libmicrohttpd inside the house's loop: no thread of its own, so nothing here locks.
 *
 * Heads are bounded by the connection's memory (32 KiB), bodies by API_BODY_MAX; a request that is answered later is suspended, a
 * stream is suspended whenever it has nothing to say.
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_HTTP_H
#define ORCA_APISERVER_HTTP_H

#include <stdint.h>
#include <sys/socket.h>

#include "common/err.h"

struct api;
struct api_http;

/* address: "127.0.0.1". Port 0 picks one. */
struct api_http *api_http_open(struct api *api, const char *address, uint16_t port, struct err *err);
uint16_t api_http_port(const struct api_http *http);
void api_http_accepted(void *http, int fd, const struct sockaddr *from, socklen_t len); /* a connection from another listener; takes fd */
void api_http_close(struct api_http *http);                                             /* cuts what is open; takes NULL */

#endif
