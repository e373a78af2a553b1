/* Files of the infra directory on the node, and what host paths a mount may name; and the lock that keeps a second agent away.
 *
 *   STATE_DIR/agent/lock                   held while the agent lives; says its process
 *   STATE_DIR/agent/content/SHA256         fetched content, named by what it is
 *   STATE_DIR/agent/mounts/CONTAINER/N/…   the tree of an instance's Nth mount, with modes; bind-mounted read-only
 *
 * Threads: one owner. Blocking file I/O of small files. */
#ifndef ORCA_AGENT_FILES_H
#define ORCA_AGENT_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "proto/model.pb-c.h"

#define FILES_MAX ((size_t)1 << 20) /* bytes of one */
#define FILES_UNUSED_S 3600         /* content is kept for the next instance so long, then fetched again */

struct files;
struct files *files_open(const char *state_dir, struct err *err); /* makes the folders */
void files_close(struct files *f);
const char *files_dir(const struct files *f); /* STATE_DIR/agent */

bool files_have(const struct files *f, const char *sha256);
/* Refuses what does not hash to its name. */
int files_put(struct files *f, const char *sha256, const void *content, size_t len, struct err *err);
/* Makes the tree of one mount anew. container: its name. */
int files_lay(struct files *f, const char *container, size_t index, const Model__Mount *mount, struct err *err);
/* What Docker shall bind: the laid tree, or the real path of an allowed host path. */
int files_source(const struct files *f, const char *container, size_t index, const Model__Mount *mount, const Model__ClusterSpec *cluster,
                 char out[PATH_MAX], struct err *err);
/* The real path of an absolute one, when [policy] allow_host_paths has it: what a symbolic link leads to must be allowed too. */
int files_host_path(const char *path, const Model__ClusterSpec *cluster, char out[PATH_MAX], struct err *err);
/* A path that files_source gave, still: no part of it has become a symbolic link. What else is wrong with it is Docker's to say. */
int files_still_real(const char *path, struct err *err);
void files_drop(struct files *f, const char *container); /* the trees of a container that is gone */
/* The trees of containers that nobody knows any more (they went while no agent was there), and content that none has needed for FILES_UNUSED_S. */
void files_sweep(struct files *f, bool (*known)(void *arg, const char *container), void *arg, int64_t now_s);

#endif
