/* What single strings may look like, and which word was probably meant. */
#include "common/spec/spec_table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cron/cron.h"
#include "common/cron/zone.h"
#include "common/image_ref.h"
#include "common/spec/ids.h"
#include "common/spec/spec.h"
#include "common/spec/spec_units.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool only(const char *s, const char *chars) {
  return s[strspn(s, chars)] == 0;
}

/* No control character: such a path could not be shown, and nobody means one. */
static bool writable_down(const char *s) {
  for (; *s; s++)
    if ((uint8_t)*s < ' ' || *s == 0x7f)
      return false;
  return true;
}

static bool printable(const char *s) {
  for (; *s; s++)
    if ((uint8_t)*s <= ' ' || *s == 0x7f)
      return false;
  return true;
}

const char *spec_check_name(const char *s) {
  return spec_name_valid(s) ? NULL : "must be 1 to 63 small letters, digits and -, with no - at either end";
}

const char *spec_check_nonempty(const char *s) {
  return *s ? NULL : "must not be empty";
}

const char *spec_check_env_name(const char *s) {
  return *s && !strchr(DIGITS, *s) && only(s, LOWER UPPER DIGITS "_") ? NULL : "must be letters, digits and _, not beginning with a digit";
}

static bool dns_name(const char *s) {
  size_t len = strlen(s);
  if (len == 0 || len > 253)
    return false;
  for (const char *label = s;; label++) {
    size_t n = strcspn(label, ".");
    if (n == 0 || n > 63 || label[0] == '-' || label[n - 1] == '-')
      return false;
    label += n;
    if (!*label)
      break;
  }
  return only(s, LOWER DIGITS "-.");
}

const char *spec_check_domain(const char *s) {
  if (strchr(s, '*'))
    return "must be an exact name: wildcards are not allowed";
  struct in_addr address;
  if (inet_pton(AF_INET, s, &address) == 1)
    return "must be a name, not an address";
  return dns_name(s) ? NULL : "must be a domain name in small letters, like \"shop.example.com\"";
}

static bool address(const char *s) {
  struct in6_addr buffer;
  return inet_pton(AF_INET, s, &buffer) == 1 || inet_pton(AF_INET6, s, &buffer) == 1;
}

const char *spec_check_host(const char *s) {
  return address(s) || dns_name(s) ? NULL : "must be an IP address or a host name";
}

const char *spec_check_route(const char *s) {
  const char *star = strchr(s, '*');
  if (*s != '/')
    return "must begin with /";
  if (star && star[1])
    return "may have a * only at its end";
  return printable(s) && !strpbrk(s, "?#") ? NULL : "must be a path: no spaces, ? or #";
}

const char *spec_check_http_path(const char *s) {
  return *s == '/' && printable(s) ? NULL : "must be a path that begins with /, without spaces";
}

const char *spec_check_absolute(const char *s) {
  if (*s != '/')
    return "must be an absolute path";
  if (!writable_down(s))
    return "must not contain control characters";
  for (const char *p = s; *p; p += strcspn(p, "/")) {
    p += strspn(p, "/");
    if (strcspn(p, "/") == 2 && p[0] == '.' && p[1] == '.')
      return "must not contain ..";
  }
  return NULL;
}

const char *spec_check_label_name(const char *s) {
  if (strncmp(s, "orca.", 5) == 0)
    return "labels that begin with orca. are orca's own";
  if (strncmp(s, "com.docker.", 11) == 0)
    return "labels that begin with com.docker. are Docker's own";
  size_t len = strlen(s);
  return len && len <= 128 && only(s, LOWER UPPER DIGITS "-_./") ? NULL : "must be 1 to 128 letters, digits, - _ . and /";
}

const char *spec_check_service_ref(const char *s) {
  const char *slash = strchr(s, '/');
  char project[64];
  size_t len = slash ? (size_t)(slash - s) : 0;
  if (slash) {
    if (len >= sizeof project)
      return "must be NAME or PROJECT/NAME";
    memcpy(project, s, len);
    project[len] = 0;
  }
  return (!slash || spec_name_valid(project)) && spec_name_valid(slash ? slash + 1 : s) ? NULL : "must be NAME or PROJECT/NAME";
}

const char *spec_check_signal(const char *s) {
  static const char *const names[] = {"HUP",  "INT",  "QUIT", "ILL",  "TRAP",   "ABRT", "BUS",   "FPE",  "KILL", "USR1",
                                      "SEGV", "USR2", "PIPE", "ALRM", "TERM",   "CHLD", "CONT",  "STOP", "TSTP", "TTIN",
                                      "TTOU", "URG",  "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",   "PWR",  "SYS"};
  const char *name = strncmp(s, "SIG", 3) == 0 ? s + 3 : s;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return NULL;
  return "must be a signal's name, like \"SIGTERM\"";
}

const char *spec_check_cidr(const char *s) {
  char host[64];
  const char *slash = strchr(s, '/');
  size_t len = slash ? (size_t)(slash - s) : strlen(s);
  if (len >= sizeof host)
    return "must be an address or a network like \"10.0.0.0/8\"";
  memcpy(host, s, len);
  host[len] = 0;
  bool ok = address(host);
  if (ok && slash) {
    char *end;
    unsigned long bits = slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : 999;
    ok = bits <= (strchr(host, ':') ? 128u : 32u) && !*end;
  }
  return ok ? NULL : "must be an address or a network like \"10.0.0.0/8\"";
}

static bool is_wildcard(const char *host) {
  struct in_addr v4;
  struct in6_addr v6;
  return (inet_pton(AF_INET, host, &v4) == 1 && v4.s_addr == INADDR_ANY) || (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

bool spec_listen_host(const char *listen, char *out, size_t size) {
  const char *colon = strrchr(listen, ':');
  size_t len = colon ? (size_t)(colon - listen) : 0, brackets = len > 2 && listen[0] == '[' && listen[len - 1] == ']';
  if (!len || len - 2 * brackets >= size)
    return false;
  memcpy(out, listen + brackets, len - 2 * brackets);
  out[len - 2 * brackets] = 0;
  return address(out);
}

bool spec_listen_is_loopback(const char *listen) {
  char host[64];
  struct in_addr v4;
  struct in6_addr v6;
  if (!spec_listen_host(listen, host, sizeof host))
    return false;
  return inet_pton(AF_INET, host, &v4) == 1 ? ntohl(v4.s_addr) >> 24 == 127 : inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

const char *spec_check_listen(const char *s) {
  char host[64];
  const char *colon = strrchr(s, ':');
  size_t len = colon ? (size_t)(colon - s) : 0;
  if (len == 0 || len >= sizeof host)
    return "must be ADDRESS:PORT";
  bool v6 = s[0] == '[' && s[len - 1] == ']' && len > 2;
  memcpy(host, v6 ? s + 1 : s, v6 ? len - 2 : len);
  host[v6 ? len - 2 : len] = 0;
  if (!address(host) || (strchr(host, ':') && !v6))
    return "must be ADDRESS:PORT, an IPv6 address in [ ]";
  if (is_wildcard(host))
    return "must name an address of a node: each node listens on those of the list that are its own";
  size_t n = strlen(colon + 1);
  return n && n <= 5 && only(colon + 1, DIGITS) && atoi(colon + 1) > 0 && atoi(colon + 1) < 65536 ? NULL : "must end in a port between 1 and 65535";
}

const char *spec_check_curve_key(const char *s) {
  return !*s || (strlen(s) == 40 && printable(s) && !strpbrk(s, "\"'\\,;`|_~")) ? NULL : "must be a CURVE key of 40 characters (Z85)";
}

const char *spec_check_cap(const char *s) {
  return *s && only(s, UPPER DIGITS "_") ? NULL : "must be a capability's name, like \"NET_ADMIN\"";
}

const char *spec_check_device(const char *s) {
  return strncmp(s, "/dev/", 5) == 0 && !strstr(s, "..") && printable(s) ? NULL : "must be a device below /dev, as HOST[:CONTAINER[:rwm]]";
}

const char *spec_check_image(const char *s) {
  struct image_ref ref;
  return image_ref_is_id(s) || image_ref_parse(s, &ref) == 0 ? NULL : "must be an image's name, like \"registry.example.com/shop/api:1.4\"";
}

/* USER, UID, either with :GROUP: what /etc/passwd can hold. */
const char *spec_check_user(const char *s) {
  const char *colon = strchr(s, ':');
  size_t len = colon ? (size_t)(colon - s) : strlen(s);
  bool ok = len && only(s, LOWER UPPER DIGITS "_.-:$") && *s != '-' && (!colon || (colon[1] && colon[1] != '-' && !strchr(colon + 1, ':')));
  const char *dollar = strchr(s, '$'); /* of a machine's account, at the end of a name */
  return ok && strlen(s) <= 128 && (!dollar || !dollar[1] || dollar[1] == ':') ? NULL : "must be USER or UID, or either with :GROUP";
}

const char *spec_check_driver(const char *s) {
  size_t len = strlen(s);
  return len && len <= 256 && only(s, LOWER UPPER DIGITS "-_./:") && !strchr("-./:", *s) && !strstr(s, "..")
             ? NULL
             : "must be the name of a volume driver, like \"local\" or \"example/driver:1\"";
}

const char *spec_check_cluster_id(const char *s) {
  size_t len = strlen(s);
  return len >= 8 && len <= 64 && only(s, LOWER DIGITS "-") ? NULL : "must be 8 to 64 small letters, digits and -";
}

const char *spec_check_volume_name(const char *s) {
  size_t len = strlen(s);
  if (*s == '/' || *s == '.')
    return "must be a volume's name: paths belong into `mounts`";
  return len && len <= 64 && only(s, LOWER UPPER DIGITS "-_.") && *s != '-' && *s != '_' ? NULL : "must be 1 to 64 letters, digits, - _ and .";
}

const char *spec_check_target(const char *s) {
  const char *wrong = spec_check_absolute(s);
  if (wrong)
    return wrong;
  if (s[strspn(s, "/.")] == 0)
    return "must not be the container's root";
  if (strchr(s, ':'))
    return "must not contain :";
  /* What the kernel shows there is what keeps a container in; mounted over, its protections are gone with it. */
  static const char *const kernels[] = {"proc", "sys", "dev"};
  const char *first = s;
  while (*first == '/' || (first[0] == '.' && (first[1] == '/' || !first[1])))
    first++;
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
    if (strcspn(first, "/") == strlen(kernels[i]) && strncmp(first, kernels[i], strlen(kernels[i])) == 0)
      return "must not be /proc, /sys or /dev, or below";
  return NULL;
}

const char *spec_check_below(const char *s) {
  if (*s == '/')
    return "must be a relative path";
  while (*s) {
    size_t n = strcspn(s, "/");
    if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
      return "must be a path without empty parts, . and ..";
    s += n;
    if (*s == '/' && !*++s)
      return "must not end in /";
  }
  return NULL;
}

const char *spec_check_sha256(const char *s) {
  return strlen(s) == 64 && only(s, "0123456789abcdef") ? NULL : "must be 64 hexadecimal digits in small letters";
}

const char *spec_check_secret_name(const char *s) {
  return spec_secret_name_valid(s, strlen(s)) ? NULL : "must be a name of a secret: a letter or _, then letters, digits, _ . -";
}

const char *spec_check_mount_source(const char *s) {
  if (!*s)
    return "must not be empty";
  if (*s == '/')
    return spec_check_absolute(s);
  if (!writable_down(s))
    return "must not contain control characters";
  for (int depth = 0; *s; s += strspn(s, "/")) { /* relative to the infra directory, and never out of it */
    size_t n = strcspn(s, "/");
    depth += n == 2 && s[0] == '.' && s[1] == '.' ? -1 : !(n == 1 && s[0] == '.');
    if (depth < 0)
      return "must not lead out of the infra directory";
    s += n;
  }
  return NULL;
}

const char *spec_check_schedule(const char *s) {
  struct cron cron;
  struct err err;
  int64_t next;
  if (cron_parse(s, &cron, &err) < 0)
    return "must be cron: six fields (second minute hour day month weekday) or five (without seconds), like \"0 30 2 * * *\", or @daily and such";
  return cron_next(&cron, 0, NULL, NULL, &next) ? NULL : "never happens: no month has that day";
}

const char *spec_check_zone(const char *s) {
  if (!zone_name_valid(s))
    return "must be a time zone's name, like \"Europe/Berlin\"";
  return zone_exists(s) ? NULL : "is not a time zone that this machine's tzdata knows, like \"Europe/Berlin\"";
}

const char *spec_check_alias(const char *s) {
  return dns_name(s) ? NULL : "must be a DNS name in small letters";
}

/* ---- did you mean ---- */

#define WORD_MAX 40

static unsigned least(unsigned a, unsigned b) {
  return a < b ? a : b;
}

/* Edits (insert, delete, replace, swap neighbours) between two words. */
static unsigned distance(const char *a, const char *b) {
  size_t n = strlen(a), m = strlen(b);
  if (n > WORD_MAX || m > WORD_MAX)
    return WORD_MAX;
  unsigned rows[3][WORD_MAX + 1] = {{0}};
  unsigned *before = rows[0], *last = rows[1], *row = rows[2];
  for (size_t j = 0; j <= m; j++)
    last[j] = (unsigned)j;
  for (size_t i = 1; i <= n; i++) {
    row[0] = (unsigned)i;
    for (size_t j = 1; j <= m; j++) {
      row[j] = least(least(last[j] + 1, row[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = least(row[j], before[j - 2] + 1);
    }
    unsigned *spare = before;
    before = last;
    last = row;
    row = spare;
  }
  return last[m];
}

const char *spec_nearest(const char *text, const char *(*name)(const void *list, size_t i), const void *list) {
  const char *best = NULL;
  size_t len = strlen(text);
  unsigned best_distance = len <= 4 ? 2 : len <= 8 ? 3 : 4; /* one less than this is near enough */
  const char *n;
  for (size_t i = 0; (n = name(list, i)); i++) {
    unsigned d = distance(text, n);
    size_t other = strlen(n);
    bool part = len >= 4 && (strncmp(n, text, len) == 0 || (other >= 4 && strncmp(n, text, other) == 0)); /* "replica_count" */
    if (part && d > 2)
      d = 2;
    if (d < best_distance) {
      best = n;
      best_distance = d;
    }
  }
  return best;
}
