#include "orca-apiserver/doctor_listen.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"

static bool same(const struct sockaddr *sa, const char *host) {
  char text[INET6_ADDRSTRLEN] = "";
  if (!sa || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
    return false;
  const void *addr = sa->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr
                                              : (const void *)&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
  struct in6_addr wanted; /* fits both */
  size_t len = sa->sa_family == AF_INET ? sizeof(struct in_addr) : sizeof wanted;
  return inet_ntop(sa->sa_family, addr, text, sizeof text) && inet_pton(sa->sa_family, host, &wanted) == 1 && memcmp(addr, &wanted, len) == 0;
}

bool doctor_listen_is_here(const char *host) {
  struct ifaddrs *all = NULL;
  bool found = false;
  if (getifaddrs(&all) < 0)
    return true; /* nothing is known: nothing is claimed */
  for (const struct ifaddrs *one = all; one && !found; one = one->ifa_next)
    found = same(one->ifa_addr, host);
  freeifaddrs(all);
  return found;
}

static bool is_a_nodes(const struct api_cache *cache, const char *host) {
  size_t count;
  const struct api_smap_entry *nodes = api_cache_all(cache, API_NODES, &count);
  for (size_t i = 0; i < count; i++)
    if (strcmp(PB_STR(API_MSG(&nodes[i], Model__Node)->address), host) == 0)
      return true;
  return false;
}

void doctor_listen_check(struct doctor_report *r, const struct api_cache *cache, bool (*is_here)(const char *host)) {
  const Model__ClusterSpec *cluster = api_cache_cluster(cache, NULL);
  for (size_t i = 0; cluster && i < cluster->n_api_listen; i++) {
    const char *listen = PB_STR(cluster->api_listen[i]);
    char host[64];
    if (!spec_listen_host(listen, host, sizeof host) || spec_listen_is_loopback(listen) || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
        is_a_nodes(cache, host) || is_here(host))
      continue;
    doctor_add(r, DOCTOR_WRONG, "ports", "put a node's own address there (`orcactl nodes -o wide`), or give this machine that one",
               "[api] listen of cluster.toml names %.80s, which is no node's address: nobody listens there", listen);
  }
}
