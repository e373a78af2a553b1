/* Bytes that a container has sent and received, read without any privilege: from the host's end of its veth pair.
 *
 * Its network name space is closed to us (/proc/PID/net wants the right to trace it, Docker's own figures take a second each), but what the host
 * knows is open: address → MAC (/proc/net/arp, or Docker's own 02:42:ADDRESS) → port of a bridge (its forwarding table in sysfs) → interface →
 * counters. The way is looked for once per container and then two files are read, some 10 µs; looking takes a read of each bridge's table. Threads:
 * reads files; no state. */
#ifndef ORCA_AGENT_NET_STATS_H
#define ORCA_AGENT_NET_STATS_H

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>

/* The interface of the container with this address. proc and sys: "/proc" and "/sys" (others in tests). -1: not found; it has not spoken for some
 * minutes, or is on the host's network, or not on a bridge. */
int net_stats_find(const char *proc, const char *sys, const char *address, char interface[IF_NAMESIZE]);
/* As the container sees it: what the host's end has sent, it has received. -1: it is gone. */
int net_stats_read(const char *sys, const char *interface, uint64_t *ret_rx, uint64_t *ret_tx);

/* For tests. */
int net_stats_arp(const char *text, const char *address, uint8_t mac[6]); /* /proc/net/arp */
int net_stats_fdb(const uint8_t *table, size_t len, const uint8_t mac[6],
                  unsigned *ret_port); /* brforward: struct __fdb_entry of linux/if_bridge.h */

#endif
