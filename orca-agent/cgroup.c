#include "orca-agent/cgroup.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int slurp(const char *path, char *out, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  size_t len = 0;
  ssize_t n;
  while (len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
    len += (size_t)n;
  close(fd);
  out[len] = 0;
  return len ? 0 : -1;
}

static int read_file(const char *dir, const char *name, char *out, size_t size) {
  char path[PATH_MAX + 64];
  if (!*dir || snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
    return -1;
  return slurp(path, out, size);
}

static bool number(const char *text, uint64_t *ret) {
  if (!isdigit((unsigned char)*text))
    return false;
  *ret = strtoull(text, NULL, 10);
  return true;
}

/* "KEY VALUE" lines. */
static bool field(const char *text, const char *key, uint64_t *ret) {
  size_t len = strlen(key);
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
    if (strncmp(line, key, len) == 0 && (line[len] == ' ' || line[len] == ':'))
      return number(line + len + 1 + strspn(line + len + 1, " "), ret);
  return false;
}

static bool has_controller(const char *list, size_t len, const char *name) {
  size_t want = strlen(name);
  for (const char *p = list; p < list + len;) {
    size_t n = strcspn(p, ",:");
    if (n == want && memcmp(p, name, n) == 0)
      return true;
    p += n + 1;
  }
  return false;
}

static void set_folder(char out[PATH_MAX], const char *root, const char *controller, const char *path) {
  const char *slash = *controller ? "/" : "";
  if (snprintf(out, PATH_MAX, "%s%s%s%s", root, slash, controller, path) >= PATH_MAX || access(out, F_OK) < 0)
    out[0] = 0;
}

struct found {
  char cpu[PATH_MAX], memory[PATH_MAX], pids[PATH_MAX];
  bool v2;
};

/* There is one of these for each container: no more than they need. */
static int keep(const struct found *found, struct cgroup_paths *ret) {
  size_t cpu = strlen(found->cpu) + 1, memory = strlen(found->memory) + 1, pids = strlen(found->pids) + 1;
  char *text = malloc(cpu + memory + pids);
  if (!text)
    return -1;
  memcpy(text, found->cpu, cpu);
  memcpy(text + cpu, found->memory, memory);
  memcpy(text + cpu + memory, found->pids, pids);
  *ret = (struct cgroup_paths){.cpu = text, .memory = text + cpu, .pids = text + cpu + memory, .v2 = found->v2, .text = text};
  return 0;
}

void cgroup_paths_free(struct cgroup_paths *paths) {
  free(paths->text);
  *paths = (struct cgroup_paths){0};
}

int cgroup_find(const char *proc, const char *root, pid_t pid, struct cgroup_paths *ret) {
  char path[PATH_MAX], text[8192];
  struct found found = {.cpu = ""};
  snprintf(path, sizeof path, "%s/%d/cgroup", proc, (int)pid);
  if (pid <= 0 || slurp(path, text, sizeof text) < 0)
    return -1;
  char *save = NULL;
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char *controllers = strchr(line, ':');
    char *at = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!at || at[1] != '/' || strstr(at, "/../"))
      continue;
    controllers++;
    size_t len = (size_t)(at - controllers);
    if (len == 0 && !*found.cpu && !*found.memory) {
      set_folder(found.cpu, root, "", at + 1);
      found.v2 = *found.cpu != 0;
      if (found.v2) {
        memcpy(found.memory, found.cpu, sizeof found.memory);
        memcpy(found.pids, found.cpu, sizeof found.pids);
      }
    }
    /* A v1 hierarchy for a controller wins over the (then empty) unified one. */
    if (has_controller(controllers, len, "cpuacct")) {
      set_folder(found.cpu, root, "cpuacct", at + 1);
      found.v2 = false;
    }
    if (has_controller(controllers, len, "memory"))
      set_folder(found.memory, root, "memory", at + 1);
    if (has_controller(controllers, len, "pids"))
      set_folder(found.pids, root, "pids", at + 1);
  }
  if (!*found.cpu && !*found.memory)
    return -1;
  return keep(&found, ret);
}

static uint64_t less(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

int cgroup_read(const struct cgroup_paths *paths, struct cgroup_usage *ret) {
  char text[16384];
  uint64_t n = 0, cache = 0;
  struct cgroup_usage u = {0};
  if (paths->v2) {
    if (read_file(paths->cpu, "cpu.stat", text, sizeof text) < 0 || !field(text, "usage_usec", &n))
      return -1;
    u.cpu_ns = n * 1000;
    if (read_file(paths->memory, "memory.current", text, sizeof text) == 0 && number(text, &n)) {
      if (read_file(paths->memory, "memory.stat", text, sizeof text) == 0)
        field(text, "inactive_file", &cache);
      u.memory = less(n, cache);
    }
  } else {
    if (read_file(paths->cpu, "cpuacct.usage", text, sizeof text) < 0 || !number(text, &u.cpu_ns))
      return -1;
    if (read_file(paths->memory, "memory.usage_in_bytes", text, sizeof text) == 0 && number(text, &n)) {
      if (read_file(paths->memory, "memory.stat", text, sizeof text) == 0)
        field(text, "total_inactive_file", &cache);
      u.memory = less(n, cache);
    }
  }
  if (read_file(paths->pids, "pids.current", text, sizeof text) == 0 && number(text, &n))
    u.pids = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
  *ret = u;
  return 0;
}

int cgroup_read_node(const char *proc, uint64_t *ret_cpu_ns, uint64_t *ret_memory_used) {
  char text[16384];
  uint64_t total = 0, available = 0, user = 0, nice = 0, kernel = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
  if (read_file(proc, "meminfo", text, sizeof text) < 0 || !field(text, "MemTotal", &total) || !field(text, "MemAvailable", &available))
    return -1;
  if (read_file(proc, "stat", text, sizeof text) < 0 ||
      sscanf(text, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &user, &nice, &kernel, &idle, &iowait,
             &irq, &softirq) != 7)
    return -1;
  long hz = sysconf(_SC_CLK_TCK);
  *ret_cpu_ns = (user + nice + kernel + irq + softirq) * (UINT64_C(1000000000) / (uint64_t)(hz > 0 ? hz : 100));
  *ret_memory_used = less(total, available) * 1024;
  return 0;
}
