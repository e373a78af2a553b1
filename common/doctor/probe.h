/* Reads what doctor.h judges: the kernel's clock, file systems, limits, cgroups, sockets, files of keys. Nothing here changes anything.
 * Threads: any; no state. */
#ifndef ORCA_COMMON_DOCTOR_PROBE_H
#define ORCA_COMMON_DOCTOR_PROBE_H

#include "common/doctor/doctor.h"

#define DOCTOR_SOCKETS 4096u

void doctor_read_clock(struct doctor_clock *ret);
void doctor_read_disk(const char *path, struct doctor_disk *ret); /* borrows path */
void doctor_read_key(const char *path, struct doctor_key *ret);   /* borrows path */
/* The reading and the judging of what needs nothing else. */
void doctor_look_at_files(struct doctor_report *report, const char *who);
void doctor_look_at_cgroup(struct doctor_report *report);
void doctor_look_at_forward(struct doctor_report *report);
void doctor_look_at_sockets(struct doctor_report *report, const struct doctor_port *ports, size_t count);
/* NAME.key of each daemon, and what only the apiserver may read, as far as this process sees them. */
void doctor_look_at_keys(struct doctor_report *report, const char *key_dir, const char *const *names, size_t count);
void doctor_look_at_pem(struct doctor_report *report, const char *what, const char *path, int64_t now_s);

#endif
