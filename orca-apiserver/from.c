#include "orca-apiserver/from.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* IPv4 as ::ffff:a.b.c.d. */
static void map_v4(const struct in_addr *v4, struct in6_addr *to) {
  static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
  memcpy(to->s6_addr, prefix, sizeof prefix);
  memcpy(to->s6_addr + 12, v4, 4);
}

static bool address_of(const struct sockaddr *peer, struct in6_addr *ret) {
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  if (!peer)
    return false;
  if (peer->sa_family == AF_INET6) {
    memcpy(&in6, peer, sizeof in6);
    *ret = in6.sin6_addr;
    return true;
  }
  if (peer->sa_family != AF_INET)
    return false;
  memcpy(&in, peer, sizeof in);
  map_v4(&in.sin_addr, ret);
  return true;
}

static bool is_loopback(const struct in6_addr *a) {
  return IN6_IS_ADDR_V4MAPPED(a) ? a->s6_addr[12] == 127 : IN6_IS_ADDR_LOOPBACK(a);
}

static void write_address(const struct in6_addr *a, char out[INET6_ADDRSTRLEN]) {
  if (IN6_IS_ADDR_V4MAPPED(a))
    inet_ntop(AF_INET, a->s6_addr + 12, out, INET6_ADDRSTRLEN);
  else
    inet_ntop(AF_INET6, a, out, INET6_ADDRSTRLEN);
}

/* The last of a list: "10.0.0.7", "[2001:db8::1]:4711", "10.0.0.7:4711". */
static bool parse_forwarded(const char *list, struct in6_addr *ret) {
  const char *last = strrchr(list, ',');
  last = last ? last + 1 : list;
  last += strspn(last, " \t");
  char text[INET6_ADDRSTRLEN + 1];
  struct in_addr v4;
  bool bracket = *last == '[';
  size_t len = bracket ? strcspn(++last, "]") : strcspn(last, " \t");
  if (len >= sizeof text)
    return false;
  memcpy(text, last, len);
  text[len] = 0;
  char *colon = strchr(text, ':');
  if (!bracket && colon && !strchr(colon + 1, ':'))
    *colon = 0;
  if (inet_pton(AF_INET, text, &v4) == 1) {
    map_v4(&v4, ret);
    return true;
  }
  return inet_pton(AF_INET6, text, ret) == 1;
}

static void set_key(const struct in6_addr *a, uint8_t key[16]) {
  memcpy(key, a->s6_addr, 16);
  if (!IN6_IS_ADDR_V4MAPPED(a))
    memset(key + 8, 0, 8);
}

bool api_host_is_local(const char *host) {
  char name[INET6_ADDRSTRLEN];
  struct in6_addr address;
  struct in_addr v4;
  if (!host)
    return true;
  bool bracket = *host == '[';
  host += bracket;
  size_t len = strcspn(host, bracket ? "]" : ":");
  const char *rest = host + len + bracket;
  if (len >= sizeof name || (bracket && host[len] != ']') || (*rest && (*rest != ':' || strspn(rest + 1, "0123456789") != strlen(rest + 1))))
    return false;
  memcpy(name, host, len);
  name[len] = 0;
  if (inet_pton(AF_INET, name, &v4) == 1)
    map_v4(&v4, &address);
  else if (inet_pton(AF_INET6, name, &address) != 1)
    return strcasecmp(name, "localhost") == 0;
  return is_loopback(&address);
}

void api_from_make(const struct sockaddr *peer, const char *forwarded, bool proxied, struct api_from *ret) {
  struct in6_addr address, client;
  char near[INET6_ADDRSTRLEN], far[INET6_ADDRSTRLEN];
  *ret = (struct api_from){.text = "unknown"};
  if (!address_of(peer, &address))
    return;
  bool loopback = is_loopback(&address);
  ret->local = loopback && !proxied && !forwarded;
  write_address(&address, near);
  set_key(&address, ret->key);
  if (!loopback || !forwarded) {
    snprintf(ret->text, sizeof ret->text, "%s", near);
  } else if (parse_forwarded(forwarded, &client)) {
    write_address(&client, far);
    set_key(&client, ret->key);
    snprintf(ret->text, sizeof ret->text, "%s via %s", far, near);
  } else {
    snprintf(ret->text, sizeof ret->text, "unknown via %s", near);
  }
}
