#include "common/doctor/doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DAY_S INT64_C(86400)
#define GIB ((double)(UINT64_C(1) << 30))

void doctor_free(struct doctor_report *r) {
  free(r->list);
  *r = (struct doctor_report){0};
}

static void printable(char *s) {
  for (; *s; s++)
    if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
      *s = '?';
}

void doctor_add(struct doctor_report *r, enum doctor_level level, const char *check, const char *advice, const char *fmt, ...) {
  if (r->count == r->size) {
    size_t size = r->size ? r->size * 2 : 16;
    struct doctor_finding *list = size > DOCTOR_MAX ? NULL : reallocarray(r->list, size, sizeof *list);
    if (!list)
      return;
    r->list = list;
    r->size = size;
  }
  struct doctor_finding *f = &r->list[r->count++];
  *f = (struct doctor_finding){.level = level};
  snprintf(f->check, sizeof f->check, "%s", check);
  snprintf(f->advice, sizeof f->advice, "%s", level == DOCTOR_WELL ? "" : advice);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(f->text, sizeof f->text, fmt, ap);
  va_end(ap);
  printable(f->text);
  printable(f->advice);
}

/* ---- clock ---- */

void doctor_check_clock(struct doctor_report *r, const struct doctor_clock *c) {
  static const char advice[] = "run systemd-timesyncd or chrony: `timedatectl set-ntp true`";
  if (!c->known)
    return; /* orcactl, which no unit confines, asks the same; and nodes' clocks are compared */
  if (!c->synchronised)
    doctor_add(r, DOCTOR_WARNING, "clock", advice, "the clock is not synchronised with any time server");
  else if (c->error_us > 1000000)
    doctor_add(r, DOCTOR_WARNING, "clock", advice, "the clock is synchronised, but may be %.1f s off", (double)c->error_us / 1e6);
  else
    doctor_add(r, DOCTOR_WELL, "clock", "", "the clock is synchronised, within %.0f ms", (double)c->error_us / 1e3);
}

void doctor_check_skew(struct doctor_report *r, const char *node, int64_t ahead_ms, int64_t rtt_ms) {
  int64_t off = ahead_ms < 0 ? -ahead_ms : ahead_ms;
  enum doctor_level level = off > 5000 + rtt_ms ? DOCTOR_WRONG : off > 500 + rtt_ms ? DOCTOR_WARNING : DOCTOR_WELL;
  doctor_add(r, level, "skew", "set both by the same time servers; certificates, schedules and the order of logs rest on it",
             level == DOCTOR_WELL ? "the clock of %s agrees with the master's (%.1f s %s it)" : "the clock of %s is %.1f s %s the master's", node,
             (double)off / 1000, ahead_ms < 0 ? "behind" : "ahead of");
}

/* ---- disk ---- */

void doctor_check_disk(struct doctor_report *r, const char *what, const struct doctor_disk *d) {
  if (d->error) {
    doctor_add(r, DOCTOR_WARNING, "disk", "look whether the folder is there", "%s, %.160s: %s", what, d->path, strerror(d->error));
    return;
  }
  double used = d->bytes ? 100.0 * (double)(d->bytes - d->bytes_free) / (double)d->bytes : 0;
  double files = d->files ? 100.0 * (double)(d->files - d->files_free) / (double)d->files : 0;
  enum doctor_level level = d->read_only || used >= 95 || files >= 95 || d->bytes_free < (UINT64_C(256) << 20) ? DOCTOR_WRONG
                            : used >= 85 || files >= 85                                                        ? DOCTOR_WARNING
                                                                                                               : DOCTOR_WELL;
  doctor_add(r, level, "disk",
             d->read_only ? "the file system went read-only: look at the kernel's log (`dmesg`), then remount it"
                          : "free some: old images (`docker image prune`), logs, or a larger disk",
             "%s, %.160s: %.0f %% full, %.1f GiB free%s", what, d->path, used, (double)d->bytes_free / GIB, d->read_only ? ", read-only" : "");
  if (level != DOCTOR_WELL && files >= 85)
    doctor_add(r, level, "disk", "many small files use them up: look for them with `du --inodes`", "%s, %.160s: %.0f %% of its inodes are used", what,
               d->path, files);
}

/* ---- Docker ---- */

static bool older(const char *version, unsigned major, unsigned minor) {
  unsigned a = 0, b = 0;
  return sscanf(version, "%u.%u", &a, &b) != 2 || a < major || (a == major && b < minor);
}

static void storage(struct doctor_report *r, const char *driver) {
  static const struct {
    const char *name, *why;
  } poor[] = {
      {"vfs", "every layer is a full copy"}, {"devicemapper", "it is slow, and gone from newer Dockers"}, {"aufs", "it is gone from newer Dockers"}};
  for (size_t i = 0; i < sizeof poor / sizeof *poor; i++)
    if (strcmp(driver, poor[i].name) == 0) {
      doctor_add(r, DOCTOR_WARNING, "docker", "use overlay2 (\"storage-driver\" in /etc/docker/daemon.json); images have to be pulled anew",
                 "the storage driver is %s: %s", driver, poor[i].why);
      return;
    }
  doctor_add(r, DOCTOR_WELL, "docker", "", "the storage driver is %s", driver);
}

void doctor_check_docker(struct doctor_report *r, const struct doctor_docker *d) {
  if (!d->reachable) {
    doctor_add(r, DOCTOR_WRONG, "docker", "`systemctl status docker`; the agent must be in the group docker", "Docker does not answer: %.200s",
               d->error);
    return;
  }
  if (older(d->api_version, 1, 41))
    doctor_add(r, DOCTOR_WRONG, "docker", "install Docker Engine 20.10 or newer", "Docker %.40s speaks API %.20s; orca needs 1.41", d->version,
               d->api_version);
  else if (older(d->version, 20, 10))
    doctor_add(r, DOCTOR_WARNING, "docker", "install Docker Engine 20.10 or newer", "Docker %.40s is older than what orca is tested with",
               d->version);
  else
    doctor_add(r, DOCTOR_WELL, "docker", "", "Docker %.40s, API %.20s", d->version, d->api_version);
  storage(r, d->storage_driver);
  doctor_add(r, DOCTOR_WELL, "docker", "", "orca's containers log by the driver `local`, for `orcactl logs`; Docker's default, %.40s, is for others",
             *d->log_driver ? d->log_driver : "none");
  if (!d->memory_limit || !d->cpu_quota || !d->pids_limit)
    doctor_add(r, DOCTOR_WARNING, "docker",
               "enable the controllers: on older kernels `cgroup_enable=memory swapaccount=1` on the kernel's command line",
               "this kernel lets Docker not limit%s%s%s", d->memory_limit ? "" : " memory", d->cpu_quota ? "" : " cpu", d->pids_limit ? "" : " pids");
}

/* ---- limits, cgroups, network ---- */

void doctor_check_files(struct doctor_report *r, const char *who, uint64_t soft, uint64_t hard) {
  (void)soft; /* daemons raise it themselves, up to the hard one */
  enum doctor_level level = hard < 1024 ? DOCTOR_WRONG : hard < 16384 ? DOCTOR_WARNING : DOCTOR_WELL;
  doctor_add(r, level, "files", "raise LimitNOFILE= of the unit, or `ulimit -Hn`", "%s may open %" PRIu64 " files", who, hard);
}

static bool has_word(const char *text, const char *word) {
  size_t len = strlen(word);
  for (const char *at = text; (at = strstr(at, word)); at += len)
    if ((at == text || strchr(" \t\n", at[-1])) && (!at[len] || strchr(" \t\n", at[len])))
      return true;
  return false;
}

/* /proc/cgroups: name, hierarchy, count, enabled. */
static bool enabled_v1(const char *text, const char *name) {
  size_t len = strlen(name);
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
    unsigned on;
    if (strncmp(line, name, len) == 0 && (line[len] == '\t' || line[len] == ' ') && sscanf(line + len, "%*u %*u %u", &on) == 1)
      return on != 0;
  }
  return false;
}

void doctor_check_cgroup(struct doctor_report *r, unsigned version, const char *text) {
  static const struct { const char *v1, *v2; } needed[] = {{"memory", "memory"}, {"cpu", "cpu"}, {"pids", "pids"}};
  char missing[64] = "";
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (version == 2 ? !has_word(text, needed[i].v2) : !enabled_v1(text, needed[i].v1)) {
      strncat(missing, " ", sizeof missing - strlen(missing) - 1);
      strncat(missing, needed[i].v1, sizeof missing - strlen(missing) - 1);
    }
  if (*missing)
    doctor_add(r, DOCTOR_WRONG, "cgroup", "boot with `cgroup_enable=memory systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
               "cgroup v%u without%s: limits do not hold and figures are missing", version, missing);
  else
    doctor_add(r, DOCTOR_WELL, "cgroup", "", "cgroup v%u with memory, cpu and pids", version);
}

void doctor_check_forward(struct doctor_report *r, bool known, bool on) {
  if (known)
    doctor_add(r, on ? DOCTOR_WELL : DOCTOR_WRONG, "network",
               "`sysctl -w net.ipv4.ip_forward=1`; Docker sets it at its start, something has unset it",
               on ? "the kernel forwards packets (ip_forward)" : "ip_forward is off: containers reach nothing outside of their node");
}

/* ---- sockets ---- */

static bool parse_address(const char *hex, size_t len, uint8_t out[16]) {
  memset(out, 0, 16);
  if (strspn(hex, "0123456789ABCDEFabcdef") < len)
    return false;
  for (size_t word = 0; word < len / 8; word++) {
    char part[9];
    memcpy(part, hex + word * 8, 8);
    part[8] = 0;
    uint32_t value = (uint32_t)strtoul(part, NULL, 16); /* in the machine's own byte order */
    memcpy(out + word * 4, &value, 4);
  }
  return true;
}

size_t doctor_parse_sockets(const char *text, bool v6, struct doctor_socket *list, size_t size) {
  size_t count = 0, digits = v6 ? 32 : 8;
  for (const char *line = text; line && *line && count < size; line = strchr(line, '\n'), line += line != NULL) {
    const char *at = line + strspn(line, " ");
    at += strspn(at, "0123456789");
    if (strncmp(at, ": ", 2) != 0)
      continue;
    at += 2;
    struct doctor_socket s = {.v6 = v6};
    unsigned port, state;
    if (strlen(at) < digits + 1 || !parse_address(at, digits, s.address) || at[digits] != ':' ||
        sscanf(at + digits, ":%4x %*[0-9A-Fa-f]:%*x %2x", &port, &state) != 2 || state != 0x0a)
      continue;
    s.port = (uint16_t)port;
    list[count++] = s;
  }
  return count;
}

static void socket_text(const struct doctor_socket *s, char out[80]) {
  char address[INET6_ADDRSTRLEN] = "?";
  inet_ntop(s->v6 ? AF_INET6 : AF_INET, s->address, address, sizeof address);
  snprintf(out, 80, s->v6 ? "[%s]:%u" : "%s:%u", address, s->port);
}

static bool is_loopback(const struct doctor_socket *s) {
  static const uint8_t one[16] = {[15] = 1};
  return s->v6 ? memcmp(s->address, one, 16) == 0 : s->address[0] == 127;
}

void doctor_check_sockets(struct doctor_report *r, const struct doctor_socket *list, size_t count, const struct doctor_port *ports, size_t port_count,
                          bool complete) {
  if (!complete) {
    doctor_add(r, DOCTOR_WARNING, "ports", "look by hand: `ss -ltn`", "the table of listening sockets could not be read");
    return;
  }
  size_t open = 0, others = 0;
  for (size_t p = 0; p < port_count; p++) {
    bool found = false;
    for (size_t i = 0; i < count; i++)
      found |= list[i].port == ports[p].port;
    open += found && ports[p].expected;
    if (ports[p].wanted && found)
      doctor_add(r, DOCTOR_WRONG, "ports", "end who listens there (`ss -ltnp`), or take another port in the spec",
                 "port %u, which %s declares, is taken by somebody else", ports[p].port, ports[p].who);
    else if (ports[p].expected && !found)
      doctor_add(r, DOCTOR_WRONG, "ports", "look at its log; `orcactl status` says more", "nobody listens on port %u, where %s should", ports[p].port,
                 ports[p].who);
  }
  char text[240] = "", one[80];
  for (size_t i = 0; i < count; i++) {
    bool known = is_loopback(&list[i]);
    for (size_t p = 0; p < port_count && !known; p++)
      known = ports[p].port == list[i].port;
    for (size_t k = 0; k < i && !known; k++)
      known = list[k].port == list[i].port && !is_loopback(&list[k]);
    if (known)
      continue;
    others++;
    socket_text(&list[i], one);
    size_t used = strlen(text);
    if (used + strlen(one) + 3 < sizeof text)
      snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", one);
  }
  doctor_add(r, DOCTOR_WELL, "ports", "", "%zu of orca's and its services' ports are listened on", open);
  if (others)
    doctor_add(r, DOCTOR_WELL, "ports", "", "not of orca, and reachable from outside: %s%s", text, others > 8 ? " and more" : "");
}

/* ---- certificates, keys, store ---- */

void doctor_check_certificate(struct doctor_report *r, const char *what, int64_t not_after_s, int64_t now_s, const char *error) {
  static const char advice[] = "the API's own are renewed by the proxy while it reaches an apiserver; a CA is made anew by its administrator";
  int64_t left = not_after_s - now_s;
  if (!not_after_s)
    doctor_add(r, DOCTOR_WRONG, "certificates", "look at the file and who may read it", "%s: %.200s", what, error);
  else if (left <= 0)
    doctor_add(r, DOCTOR_WRONG, "certificates", advice, "%s ended %" PRId64 " days ago", what, -left / DAY_S);
  else
    doctor_add(r, left < 7 * DAY_S ? DOCTOR_WARNING : DOCTOR_WELL, "certificates", advice, "%s is good for %" PRId64 " days", what, left / DAY_S);
}

void doctor_check_key(struct doctor_report *r, const struct doctor_key *k, uid_t self) {
  if (k->error == ENOENT)
    return; /* not this node's */
  if (k->error)
    doctor_add(r, DOCTOR_WARNING, "keys", "run it as the user whose key it is, or as root", "%.200s: %s", k->path, strerror(k->error));
  else if (!k->is_file)
    doctor_add(r, DOCTOR_WRONG, "keys", "put a file with the key there", "%.200s is not a file", k->path);
  else if (k->mode & 077)
    doctor_add(r, DOCTOR_WRONG, "keys", "`chmod 0400` it, and think of it as seen: make new keys", "%.200s can be read by others (mode %04o)",
               k->path, (unsigned)(k->mode & 07777));
  else if (self && k->owner != self && k->owner)
    doctor_add(r, DOCTOR_WARNING, "keys", "`chown` it to the daemon's user", "%.200s belongs to user %u", k->path, (unsigned)k->owner);
  else
    doctor_add(r, DOCTOR_WELL, "keys", "", "%.200s is private", k->path);
}

void doctor_check_store(struct doctor_report *r, const struct doctor_store *s) {
  if (!s->reachable) {
    doctor_add(r, DOCTOR_WRONG, "store", "`systemctl status orca-store` and its log", "the store does not answer: %.200s", s->error);
    return;
  }
  if (s->fault && *s->fault)
    doctor_add(r, DOCTOR_WRONG, "store", "free disk space where its state is; it goes on by itself", "the store complains: %.200s", s->fault);
  uint64_t behind = s->revision > s->compact_revision ? s->revision - s->compact_revision : 0;
  enum doctor_level level = s->db_used > (UINT64_C(4) << 30) || behind > 10000000 ? DOCTOR_WARNING : DOCTOR_WELL;
  doctor_add(r, level, "store", "it is larger than it should be: look at its log for compaction",
             "%" PRIu64 " keys, %.1f MiB used of %.1f MiB, log %.1f MiB, %" PRIu64 " revisions kept", s->keys, (double)s->db_used / 1048576,
             (double)s->db_size / 1048576, (double)s->log_size / 1048576, behind);
}
