#include "orca-agent/net_stats.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_bridge.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_MAX (256u << 10)
#define BRIDGES_MAX 1024u

/* The whole file, or as much as fits; -1. */
static ssize_t read_all(const char *path, uint8_t *to, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  size_t len = 0;
  if (fd < 0)
    return -1;
  while (len < size) {
    ssize_t n = read(fd, to + len, size - len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break;
    len += (size_t)n;
  }
  close(fd);
  return (ssize_t)len;
}

static int read_number(const char *path, uint64_t *ret) {
  uint8_t text[64];
  ssize_t len = read_all(path, text, sizeof text - 1);
  if (len <= 0)
    return -1;
  text[len] = 0;
  char *end;
  *ret = strtoull((const char *)text, &end, 0);
  return end == (const char *)text ? -1 : 0;
}

int net_stats_arp(const char *text, const char *address, uint8_t mac[6]) {
  size_t len = strlen(address);
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
    unsigned flags, m[6];
    if (strncmp(line, address, len) != 0 || line[len] != ' ')
      continue;
    if (sscanf(line + len, " 0x%*x 0x%x %2x:%2x:%2x:%2x:%2x:%2x", &flags, &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 7 || !(flags & 2))
      continue;
    for (size_t i = 0; i < 6; i++)
      mac[i] = (uint8_t)m[i];
    return 0;
  }
  return -1;
}

/* What Docker gives an interface that nobody gave another one to. */
static int default_mac(const char *address, uint8_t mac[6]) {
  struct in_addr in;
  if (inet_pton(AF_INET, address, &in) != 1)
    return -1;
  mac[0] = 0x02;
  mac[1] = 0x42;
  memcpy(mac + 2, &in.s_addr, 4);
  return 0;
}

int net_stats_fdb(const uint8_t *table, size_t len, const uint8_t mac[6], unsigned *ret_port) {
  struct __fdb_entry entry;
  for (size_t at = 0; at + sizeof entry <= len; at += sizeof entry) {
    memcpy(&entry, table + at, sizeof entry);
    if (entry.is_local || memcmp(entry.mac_addr, mac, 6) != 0)
      continue;
    *ret_port = entry.port_no | (unsigned)entry.port_hi << 8;
    return 0;
  }
  return -1;
}

static int interface_of_port(const char *sys, const char *bridge, unsigned port, char interface[IF_NAMESIZE]) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/class/net/%s/brif", sys, bridge);
  DIR *dir = opendir(path);
  bool found = false;
  for (const struct dirent *e; dir && !found && (e = readdir(dir));) {
    uint64_t number;
    if (e->d_name[0] == '.' || strlen(e->d_name) >= IF_NAMESIZE)
      continue;
    snprintf(path, sizeof path, "%s/class/net/%s/brif/%s/port_no", sys, bridge, e->d_name);
    found = read_number(path, &number) == 0 && number == port;
    if (found)
      snprintf(interface, IF_NAMESIZE, "%.15s", e->d_name);
  }
  if (dir)
    closedir(dir);
  return found ? 0 : -1;
}

int net_stats_find(const char *proc, const char *sys, const char *address, char interface[IF_NAMESIZE]) {
  char path[PATH_MAX];
  uint8_t mac[6], *table = *address ? malloc(TABLE_MAX + 1) : NULL;
  if (!table)
    return -1;
  snprintf(path, sizeof path, "%s/net/arp", proc);
  ssize_t len = read_all(path, table, TABLE_MAX);
  table[len > 0 ? len : 0] = 0;
  int rc = -1;
  if (net_stats_arp((const char *)table, address, mac) < 0 && default_mac(address, mac) < 0) {
    free(table);
    return -1;
  }
  snprintf(path, sizeof path, "%s/class/net", sys);
  DIR *dir = opendir(path);
  unsigned bridges = 0, port;
  for (const struct dirent *e; dir && rc < 0 && bridges < BRIDGES_MAX && (e = readdir(dir));) {
    if (e->d_name[0] == '.' || strlen(e->d_name) >= IF_NAMESIZE)
      continue;
    snprintf(path, sizeof path, "%s/class/net/%s/brforward", sys, e->d_name);
    len = read_all(path, table, TABLE_MAX);
    if (len < 0)
      continue;
    bridges++;
    if (net_stats_fdb(table, (size_t)len, mac, &port) == 0)
      rc = interface_of_port(sys, e->d_name, port, interface);
  }
  if (dir)
    closedir(dir);
  free(table);
  return rc;
}

int net_stats_read(const char *sys, const char *interface, uint64_t *ret_rx, uint64_t *ret_tx) {
  char path[PATH_MAX];
  uint64_t rx, tx;
  snprintf(path, sizeof path, "%s/class/net/%s/statistics/tx_bytes", sys, interface);
  if (read_number(path, &rx) < 0)
    return -1;
  snprintf(path, sizeof path, "%s/class/net/%s/statistics/rx_bytes", sys, interface);
  if (read_number(path, &tx) < 0)
    return -1;
  *ret_rx = rx;
  *ret_tx = tx;
  return 0;
}
