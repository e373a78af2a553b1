#include "orcactl/loopback.h"

#include <arpa/inet.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STATE_LISTEN 0x0au

struct place {
  uint32_t address[4]; /* IPv4 as ::ffff:a.b.c.d; in network order */
  unsigned port;
};

static bool parse(const char *text, int port, struct place *ret) {
  *ret = (struct place){.address = {[2] = htonl(0xffff)}, .port = (unsigned)port};
  return inet_pton(AF_INET, text, &ret->address[3]) == 1 || inet_pton(AF_INET6, text, ret->address) == 1;
}

/* "0100007F:1AE0", or four such words before the colon: each as this machine reads it. */
static bool read_place(const char *text, struct place *ret) {
  *ret = (struct place){.address = {[2] = htonl(0xffff)}};
  uint32_t *a = ret->address;
  return strcspn(text, ":") == 8 ? sscanf(text, "%8x:%x", &a[3], &ret->port) == 2
                                 : sscanf(text, "%8x%8x%8x%8x:%x", &a[0], &a[1], &a[2], &a[3], &ret->port) == 5;
}

static bool same(const struct place *a, const struct place *b) {
  return a->port == b->port && memcmp(a->address, b->address, sizeof a->address) == 0;
}

static bool is_v4(const struct place *p) {
  return !p->address[0] && !p->address[1] && p->address[2] == htonl(0xffff);
}

/* Of all addresses; :: is also of those of IPv4. */
static bool is_any_for(const struct place *p, const struct place *server) {
  return !p->address[0] && !p->address[1] && !p->address[3] && (!p->address[2] || is_v4(server));
}

static bool is_trusted(uid_t user) {
  const struct passwd *apiserver = getpwnam("orca-apiserver");
  return user == 0 || user == geteuid() || (apiserver && user == apiserver->pw_uid);
}

/* The accepted end, and the socket that accepts: an end that waits to be accepted has no owner yet, and is told as root's. */
static bool is_meant(const struct place *local, const struct place *remote, unsigned state, const struct place *server, const struct place *own) {
  if (state == STATE_LISTEN)
    return local->port == server->port && (same(local, server) || is_any_for(local, server));
  return same(local, server) && same(remote, own);
}

static int check_table(const char *path, const struct place *server, const struct place *own, struct err *err) {
  FILE *table = fopen(path, "re");
  char line[512], local[64], remote[64];
  int rc = 0;
  while (table && rc == 0 && fgets(line, sizeof line, table)) {
    struct place at, from;
    unsigned state, user;
    if (sscanf(line, " %*[^:]: %63s %63s %x %*s %*s %*s %u", local, remote, &state, &user) != 4 || !read_place(local, &at) ||
        !read_place(remote, &from) || !is_meant(&at, &from, state, server, own) || is_trusted(user))
      continue;
    const struct passwd *who = getpwuid(user);
    rc = err_set(err, ERR_DENIED, "port %u of this machine is held by user %s (%u), who is not the apiserver's: nothing was sent there", server->port,
                 who ? who->pw_name : "?", user);
  }
  if (table)
    fclose(table);
  return rc;
}

int loopback_check(const char *server, int server_port, const char *own, int own_port, struct err *err) {
  struct place there, here;
  if (!parse(server, server_port, &there) || !parse(own, own_port, &here))
    return err_set(err, ERR_INTERNAL, "not addresses: %s, %s", server, own);
  return check_table("/proc/self/net/tcp", &there, &here, err) < 0 || check_table("/proc/self/net/tcp6", &there, &here, err) < 0 ? -1 : 0;
}
