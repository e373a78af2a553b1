/* Heads written anew: what goes to an instance and what goes back to a client. Framing and hop-by-hop fields are
 * the proxy's own, never the peer's.
 * Threads: pure functions. */
#ifndef ORCA_PROXY_SERIAL_H
#define ORCA_PROXY_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orca-proxy/head.h"
#include "orca-proxy/target.h"

/* Room for a head as written here: what came in, and what the proxy adds (at most two hosts of 16 KiB would be: the target's
 * authority in Host, X-Forwarded-Host and Forwarded is at most TARGET_HOST_MAX + port). */
#define SERIAL_MAX (HEAD_MAX + 4096)

struct serial_peer {
  const char *ip; /* the client's address as text, IPv6 without brackets */
  size_t ip_len;
  bool is_v6;
  bool trusted;      /* its own forwarding fields are believed, and added to */
  const char *proto; /* "http" */
};

/* Both return the length, 0 when it does not fit in cap. strip: path to forward in place of t->path. */
size_t serial_request(uint8_t *out, size_t cap, const struct head *h, const struct target *t, struct span path, const struct serial_peer *peer);

struct serial_answer {
  bool http10;         /* the client speaks 1.0 */
  bool keep_alive;     /* the client's connection stays */
  enum body_kind body; /* how the body goes to the client */
};
size_t serial_answer(uint8_t *out, size_t cap, const struct head *h, const struct serial_answer *how);

#endif
