#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/spec/faults.h"
#include "common/spec/node_config.h"
#include "orcactl/ctl.h"
#include "orcactl/files.h"
#include "orcactl/units.h"

#define NODE_TOML "/etc/orca/node.toml"
#define PACKAGED "/usr/libexec/orca/"

extern char **environ;

/* "/usr/local/libexec/orca/" for an orcactl in /usr/local/bin; beside it, where there is no such folder. */
static int programs_folder(char out[PATH_MAX], struct err *err) {
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n < 0)
    return err_errno(err, errno, "/proc/self/exe");
  self[n] = 0;
  *strrchr(self, '/') = 0; /* it is absolute */
  static const char *const below[] = {"../libexec/orca/", ""};
  for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
    char path[PATH_MAX + 32], real[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/%sorca-agent", self, below[i]);
    if (len < 0 || (size_t)len >= sizeof path || !realpath(path, real) || access(real, X_OK) < 0)
      continue;
    *(strrchr(real, '/') + 1) = 0;
    if (strpbrk(real, " \t\"'\\%$"))
      return err_set(err, ERR_INVALID, "%s: a unit can't name programs in a folder with such letters", real);
    snprintf(out, PATH_MAX, "%s", real);
    return 0;
  }
  return err_set(err, ERR_NOT_FOUND,
                 "no orca-agent in ../libexec/orca or beside this orcactl (%s): `make install PREFIX=/usr/local` puts all where they belong", self);
}

/* The unit with the folder of this machine's programs in it. The caller frees. */
static char *unit_text(const struct unit_file *unit, const char *folder) {
  struct buf text = BUF_INIT((size_t)1 << 16);
  const char *p = unit->text, *at;
  while ((at = strstr(p, PACKAGED))) {
    buf_add(&text, p, (size_t)(at - p));
    buf_add_str(&text, folder);
    p = at + sizeof PACKAGED - 1;
  }
  buf_add_str(&text, p);
  char *copy = buf_failed(&text) ? NULL : strdup(buf_str(&text));
  buf_free(&text);
  return copy;
}

static int run(const char *const *argv, struct err *err) {
  pid_t pid;
  int status, rc = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ);
  if (rc != 0)
    return err_errno(err, rc, "%s", argv[0]);
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR)
      return err_errno(err, errno, "%s", argv[0]);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return err_set(err, ERR_INTERNAL, "`%s %s` failed: see above", argv[0], argv[1]);
  return 0;
}

/* "master" or "worker", from the option or node.toml. */
static int role_of(struct ctl *ctl, bool *ret_master, struct err *err) {
  const char *role = ctl_value(ctl, "role");
  if (role) {
    *ret_master = strcmp(role, "master") == 0;
    return *ret_master || strcmp(role, "worker") == 0 ? 0 : err_set(err, ERR_INVALID, "--role %s: want master or worker", role);
  }
  struct node_config config;
  struct spec_faults faults = {0};
  int rc = node_config_read(NODE_TOML, &config, &faults, err);
  if (rc == 0) {
    *ret_master = config.role == NODE_MASTER;
    node_config_free(&config);
  } else {
    err_context(err, "the role of this node (or say --role)");
  }
  spec_faults_free(&faults);
  return rc;
}

static int check_machine(struct err *err) {
  if (geteuid() != 0)
    return err_set(err, ERR_DENIED, "users and units are root's to make: run it with sudo (or look first: --print)");
  if (access("/run/systemd/system", F_OK) < 0)
    return err_set(err, ERR_UNSUPPORTED,
                   "systemd does not run this machine: start the daemons as your init system does (`make up` does it for a try)");
  if (access("/lib/systemd/system/orca-agent.service", F_OK) == 0)
    return err_set(err, ERR_CONFLICT,
                   "orca is installed as a package here, with its units: systemctl enable --now orca-master.target (or orca-worker.target)");
  return 0;
}

static int install(bool master, bool start, const char *folder, struct err *err) {
  const char *target = master ? "orca-master.target" : "orca-worker.target";
  const char *const sysusers[] = {"systemd-sysusers", "orca.conf", NULL};
  const char *const tmpfiles[] = {"systemd-tmpfiles", "--create", "orca.conf", NULL};
  const char *const reload[] = {"systemctl", "daemon-reload", NULL};
  const char *const enable[] = {"systemctl", "enable", target, NULL}, *const now[] = {"systemctl", "start", target, NULL};
  for (size_t i = 0; i < unit_file_count; i++) {
    if (unit_files[i].master_only && !master)
      continue;
    char path[PATH_MAX], *text = unit_text(&unit_files[i], folder);
    snprintf(path, sizeof path, "%s", unit_files[i].path);
    *strrchr(path, '/') = 0;
    int rc = !text                                ? err_set(err, ERR_MEMORY, "no memory")
             : files_mkdir_p(path, 0755, err) < 0 ? -1
                                                  : files_write(unit_files[i].path, text, strlen(text), 0644, err);
    free(text);
    if (rc < 0)
      return -1;
    printf("wrote %s\n", unit_files[i].path);
  }
  fflush(stdout);
  return run(sysusers, err) < 0 || run(tmpfiles, err) < 0 || run(reload, err) < 0 || run(enable, err) < 0 || (start && run(now, err) < 0) ? -1 : 0;
}

int cmd_install_service(struct ctl *ctl) {
  struct err err;
  bool master = false;
  char folder[PATH_MAX];
  bool print = ctl_flag(ctl, "print");
  if ((!print && check_machine(&err) < 0) || role_of(ctl, &master, &err) < 0 || programs_folder(folder, &err) < 0)
    return ctl_fail(ctl, &err);
  if (!print) {
    if (install(master, ctl_flag(ctl, "start"), folder, &err) < 0)
      return ctl_fail(ctl, &err);
    if (!ctl_flag(ctl, "start"))
      printf("Start it: systemctl start orca-%s.target\n", master ? "master" : "worker");
    return CTL_OK;
  }
  for (size_t i = 0; i < unit_file_count; i++) {
    if (unit_files[i].master_only && !master)
      continue;
    char *text = unit_text(&unit_files[i], folder);
    printf("# ---- %s\n%s\n", unit_files[i].path, text ? text : "");
    free(text);
  }
  return CTL_OK;
}
