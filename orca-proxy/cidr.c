#include "orca-proxy/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

bool cidr_parse(const char *text, struct cidr *ret) {
  char addr[64];
  size_t len = strcspn(text, "/");
  if (len == 0 || len >= sizeof addr)
    return false;
  memcpy(addr, text, len);
  addr[len] = 0;
  struct cidr c;
  unsigned base, most;
  if (inet_pton(AF_INET, addr, c.addr + 12) == 1) {
    memcpy(c.addr, mapped, sizeof mapped);
    base = 96;
    most = 32;
  } else if (inet_pton(AF_INET6, addr, c.addr) == 1) {
    base = 0;
    most = 128;
  } else {
    return false;
  }
  unsigned bits = most;
  if (text[len] == '/') {
    const char *p = text + len + 1;
    bits = 0;
    if (!*p || strlen(p) > 3)
      return false;
    for (; *p; p++) {
      if (*p < '0' || *p > '9')
        return false;
      bits = bits * 10 + (unsigned)(*p - '0');
    }
    if (bits > most)
      return false;
  }
  c.bits = (uint8_t)(base + bits);
  *ret = c;
  return true;
}

bool cidr_has(const struct cidr *list, unsigned count, const uint8_t addr[16]) {
  for (unsigned i = 0; i < count; i++) {
    unsigned whole = list[i].bits / 8, rest = list[i].bits % 8;
    if (memcmp(list[i].addr, addr, whole) == 0 && (rest == 0 || ((list[i].addr[whole] ^ addr[whole]) >> (8 - rest)) == 0))
      return true;
  }
  return false;
}

bool cidr_addr(const struct sockaddr *sa, uint8_t out[16]) {
  if (sa->sa_family == AF_INET) {
    struct sockaddr_in in;
    memcpy(&in, sa, sizeof in);
    memcpy(out, mapped, sizeof mapped);
    memcpy(out + 12, &in.sin_addr, 4);
    return true;
  }
  if (sa->sa_family == AF_INET6) {
    struct sockaddr_in6 in6;
    memcpy(&in6, sa, sizeof in6);
    memcpy(out, &in6.sin6_addr, 16);
    return true;
  }
  return false;
}
