#include "orca-agent/exec_process.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "orca-agent/cgroup.h"

pid_t exec_process_pid(const json_t *exec) {
  json_int_t pid = json_integer_value(json_object_get(exec, "Pid"));
  return pid > 1 && pid < INT32_MAX ? (pid_t)pid : 0;
}

/* Docker's pid may be another process's by now: only one inside of the container's cgroup is meant. */
static bool is_of_container(const char *container, pid_t pid) {
  struct cgroup_paths paths;
  if (cgroup_find("/proc", "/sys/fs/cgroup", pid, &paths) < 0)
    return false;
  bool is = strstr(paths.cpu, container) || strstr(paths.memory, container) || strstr(paths.pids, container);
  cgroup_paths_free(&paths);
  return is;
}

/* An exec's process leads a session, and so a group, of its own. On a terminal its end hangs up those in the foreground. */
bool exec_process_signal(const char *container, pid_t pid, int signo) {
  pid_t group = pid > 1 ? getpgid(pid) : -1;
  if (group < 0)
    return false;
  if (!is_of_container(container, pid)) {
    log_warn("a command that nobody listens to was left alone", "container", container, "pid", log_i64(pid), "error",
             "its process is not known to be of the container");
    return false;
  }
  pid_t to = group == pid ? -pid : pid;
  if (kill(to, signo) == 0) {
    kill(to, SIGCONT); /* a stopped one hears it too */
    return true;
  }
  if (errno != ESRCH)
    log_warn("a command that nobody listens to could not be ended", "container", container, "pid", log_i64(pid), "error", strerror(errno));
  return false;
}
