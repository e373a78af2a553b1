/* Where the proxy listens, and the sockets of it: HTTP on every address of the node (or only loopback when the node's address is one), the API on
 * those of [api] listen that are this machine's.
 *
 * The sockets are control's; workers get descriptors of their own for them. They outlive the process: systemd holds them (common/daemon/fdstore.h),
 * or the process before this one hands them over (handover.h). Those that were taken over are adopted first, and used where what is wanted now
 * is what they are; what nobody wants is closed by listen_close_others().
 *
 * Several sockets of one address share it (SO_REUSEPORT), but not with another process: a port that is taken is ERR_CONFLICT. Sockets are never
 * added to an address that has some: connections would wait in one that an older process, or a smaller number of workers, knows nothing of.
 * Threads: one. */
#ifndef ORCA_PROXY_LISTEN_H
#define ORCA_PROXY_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-proxy/table.h"
#include "orca-proxy/worker.h"

#define LISTEN_API_MAX 16 /* addresses of the API */
#define LISTEN_MAX (WORKER_MAX * 2 + LISTEN_API_MAX)
#define LISTEN_NAME_MAX 64

struct listen_address {
  union table_addr addr;
  bool optional; /* where the machine has no IPv6 */
  bool dual;     /* [::] that takes IPv4 too; 0.0.0.0 where there is no IPv6 */
};
struct listen_socket {
  int fd;
  bool claimed; /* by an address of `front`; else it was only adopted */
  enum front front;
  union table_addr addr;
};
struct listen_sockets {
  unsigned count;
  struct listen_socket list[LISTEN_MAX];
};

/* The addresses of HTTP: one or two. */
unsigned listen_http(const char *node_address, uint16_t port, struct listen_address ret[2]);
/* "ADDRESS:PORT"; false when it is none, or not an address of this machine. */
bool listen_api(const char *text, struct listen_address *ret);

/* Takes fd: a socket that listens on TCP is kept, anything else is closed. */
void listen_adopt(struct listen_sockets *s, int fd);
/* Sees to it that the address has sockets of that front: those it has, else `count` new ones. patient: waits up to a second for an address that is
 * taken, as the proxy before this one may be ending. */
int listen_ensure(struct listen_sockets *s, enum front front, const struct listen_address *a, unsigned count, bool patient, struct err *err);
bool listen_has(const struct listen_sockets *s, enum front front, const struct listen_address *a);
/* Closes what listens for that front elsewhere; told is called once for each address, before its sockets are closed. Returns whether there were. */
bool listen_close_others(struct listen_sockets *s, enum front front, const struct listen_address *keep, unsigned count,
                         void (*told)(const char *name));
/* And what was adopted and nobody claimed. */
void listen_close_unclaimed(struct listen_sockets *s, void (*told)(const char *name));
void listen_close_all(struct listen_sockets *s);

/* Descriptors of a worker's own: every socket is some worker's, every worker has one of each address. ret: LISTEN_MAX. -1: none was made. */
int listen_share(const struct listen_sockets *s, unsigned worker, unsigned workers, struct worker_listener *ret, struct err *err);

/* A name for the address, of letters, digits and -. */
void listen_name(const union table_addr *a, char out[LISTEN_NAME_MAX]);

#endif
