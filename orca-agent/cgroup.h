/* What a container uses, read from its cgroup files (v1 and v2): Docker's own stats take a second each.
 * Threads: reads files; no state. */
#ifndef ORCA_AGENT_CGROUP_H
#define ORCA_AGENT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup_paths { /* folders, in text; "" where there is none */
  const char *cpu, *memory, *pids;
  bool v2;
  char *text; /* NULL: not found yet */
};

struct cgroup_usage {
  uint64_t cpu_ns, memory; /* memory: without the page cache that can be dropped */
  uint32_t pids;
};

/* From /proc/PID/cgroup. proc and root: "/proc" and "/sys/fs/cgroup" (others in tests). -1: the process is gone, or none found. */
int cgroup_find(const char *proc, const char *root, pid_t pid, struct cgroup_paths *ret);
void cgroup_paths_free(struct cgroup_paths *paths);
int cgroup_read(const struct cgroup_paths *paths, struct cgroup_usage *ret);
/* Of the node: /proc/stat and /proc/meminfo. */
int cgroup_read_node(const char *proc, uint64_t *ret_cpu_ns, uint64_t *ret_memory_used);

#endif
