/* Address ranges such as 10.0.0.0/8 or fd00::/8, and what is in them. A plain address is a range of one.
 * Threads: pure functions. */
#ifndef ORCA_PROXY_CIDR_H
#define ORCA_PROXY_CIDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct cidr {
  uint8_t addr[16]; /* IPv4 as ::ffff:a.b.c.d, so that one compare serves both families */
  uint8_t bits;     /* of 128 */
};

bool cidr_parse(const char *text, struct cidr *ret);
bool cidr_has(const struct cidr *list, unsigned count, const uint8_t addr[16]);
/* The 16-byte form of an AF_INET or AF_INET6 address; false for other families. */
bool cidr_addr(const struct sockaddr *sa, uint8_t out[16]);

#endif
