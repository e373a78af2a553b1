/* secret_files of containers, on tmpfs: they never touch a disk, and are gone with the machine's power.
 *
 *   BASE/CONTAINER/NAME    0400, of the container's user; the folder is bound read-only at /run/secrets
 * BASE is RUN_DIR/agent-secrets where RUN_DIR is on tmpfs, else /dev/shm/orca-CLUSTER8-NODE; 0700. A container's folder is 0700 until all
 * of its files are there, 0750 while nobody has found out whose they are, 0755 from then on: BASE keeps others away, the bind mount leads past it.
 * Threads: one owner. Blocking I/O on small files in memory. */
#ifndef ORCA_AGENT_SECRET_FILES_H
#define ORCA_AGENT_SECRET_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"
#include "proto/node.pb-c.h"

struct secret_files {
  char base[PATH_MAX];
  int fd;         /* of base; -1: not there: made with the first container, removed with the last */
  struct err why; /* when base is "" */
};

/* What is there already is taken over; where it can't be had that is said at the first use: most nodes never need it. */
void secret_files_open(struct secret_files *f, const char *run_dir, const char *cluster8, const char *node);
void secret_files_close(struct secret_files *f);

/* Makes a container's folder anew. */
int secret_files_lay(struct secret_files *f, const char *container, const Model__ServiceSpec *spec, const Node__Secrets *values, struct err *err);
/* All of them. */
bool secret_files_there(const struct secret_files *f, const char *container);
bool secret_files_owned(const struct secret_files *f, const char *container);
int secret_files_own(struct secret_files *f, const char *container, uid_t uid, struct err *err);
int secret_files_path(const struct secret_files *f, const char *container, char out[PATH_MAX], struct err *err);
void secret_files_drop(struct secret_files *f, const char *container);
/* Removes the folders of containers that nobody knows. */
void secret_files_sweep(struct secret_files *f, bool (*known)(void *arg, const char *container), void *arg);

#endif
