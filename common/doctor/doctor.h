/* Checks of a machine: each judges what was read, and says what to do when it is not well. What is read is read by probe.h.
 *
 * Texts are bounded and printable; nothing in them is a secret. Threads: pure functions; a report belongs to its caller. */
#ifndef ORCA_COMMON_DOCTOR_DOCTOR_H
#define ORCA_COMMON_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DOCTOR_MAX 256u /* findings of one report; more are left out */

enum doctor_level { DOCTOR_WELL, DOCTOR_WARNING, DOCTOR_WRONG };

struct doctor_finding {
  enum doctor_level level;
  char check[24], text[320], advice[320];
};
struct doctor_report {
  struct doctor_finding *list;
  size_t count, size;
};
void doctor_free(struct doctor_report *report);
void doctor_add(struct doctor_report *report, enum doctor_level level, const char *check, const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- clock ---- */

struct doctor_clock {
  bool known, synchronised;
  int64_t error_us; /* the kernel's own bound of how far off it may be */
};
void doctor_check_clock(struct doctor_report *report, const struct doctor_clock *clock);
/* Another machine's clock against this one's; rtt_ms: how long the asking took. */
void doctor_check_skew(struct doctor_report *report, const char *node, int64_t ahead_ms, int64_t rtt_ms);

/* ---- disk ---- */

struct doctor_disk {
  const char *path;
  int error;                                     /* errno of statvfs, 0: none */
  uint64_t bytes, bytes_free, files, files_free; /* files 0: the file system does not count them */
  bool read_only;
};
void doctor_check_disk(struct doctor_report *report, const char *what, const struct doctor_disk *disk);

/* ---- Docker ---- */

struct doctor_docker {
  bool reachable;
  const char *error; /* when not */
  const char *version, *api_version, *storage_driver, *cgroup_driver, *log_driver, *root;
  bool memory_limit, cpu_quota, pids_limit; /* what this kernel lets it do */
};
void doctor_check_docker(struct doctor_report *report, const struct doctor_docker *docker);

/* ---- limits, cgroups, network ---- */

void doctor_check_files(struct doctor_report *report, const char *who, uint64_t soft, uint64_t hard);
/* version 1 or 2; text: /proc/cgroups, or cgroup.controllers. */
void doctor_check_cgroup(struct doctor_report *report, unsigned version, const char *text);
void doctor_check_forward(struct doctor_report *report, bool known, bool on);

/* ---- sockets ---- */

struct doctor_socket {
  uint8_t address[16];
  bool v6;
  uint16_t port;
};
/* Those that listen, from /proc/net/tcp or tcp6; lines that are not understood are passed over. Returns how many were added. */
size_t doctor_parse_sockets(const char *text, bool v6, struct doctor_socket *list, size_t size);
struct doctor_port {
  char who[96]; /* "orca-proxy http", "shop/db.1" */
  uint16_t port;
  bool expected; /* it should be listened on now; else it is only taken into account */
  bool wanted;   /* somebody will want it, and nobody of ours has it: who listens there is in the way */
};
/* Who listens on what against what is declared. complete: the table of sockets could be read. */
void doctor_check_sockets(struct doctor_report *report, const struct doctor_socket *list, size_t count, const struct doctor_port *ports,
                          size_t port_count, bool complete);

/* ---- certificates, keys, store ---- */

/* not_after_s: Unix; 0: it could not be read, error says why. */
void doctor_check_certificate(struct doctor_report *report, const char *what, int64_t not_after_s, int64_t now_s, const char *error);

struct doctor_key {
  const char *path;
  int error; /* errno of stat, 0: none */
  mode_t mode;
  uid_t owner;
  bool is_file;
};
void doctor_check_key(struct doctor_report *report, const struct doctor_key *key, uid_t self);

struct doctor_store {
  bool reachable;
  const char *error, *fault;
  uint64_t db_size, db_used, log_size, keys, revision, compact_revision;
};
void doctor_check_store(struct doctor_report *report, const struct doctor_store *store);

#endif
