#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/log.h"
#include "orca-proxy/control.h"
#include "orca-proxy/worker.h"

static const char help[] = "orca-proxy also takes\n"
                           "  --workers N                    threads that carry bytes (default: one for each core, at most 4)\n"
                           "  --access-log json|common|off   a line for each request, on stdout (default: off)\n";

static bool set_option(struct control_options *o, const char *name, const char *value) {
  if (strcmp(name, "--workers") == 0) {
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    o->workers = (unsigned)n;
    return *value && !*end && n >= 1 && n <= WORKER_MAX;
  }
  o->log = strcmp(value, "json") == 0 ? ACCESSLOG_JSON : strcmp(value, "common") == 0 ? ACCESSLOG_COMMON : ACCESSLOG_OFF;
  return o->log != ACCESSLOG_OFF || strcmp(value, "off") == 0;
}

/* Takes this daemon's own options out of argv; what is left is every daemon's. false: bad use. */
static bool own_options(struct control_options *o, int *argc, char **argv, bool *ret_help) {
  int kept = 1;
  for (int i = 1; i < *argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
      *ret_help = true;
    if (strcmp(argv[i], "--workers") == 0 || strcmp(argv[i], "--access-log") == 0) {
      if (i + 1 >= *argc || !set_option(o, argv[i], argv[i + 1]))
        return false;
      i++;
    } else {
      argv[kept++] = argv[i];
    }
  }
  argv[kept] = NULL;
  *argc = kept;
  return true;
}

static unsigned default_workers(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > 4 ? 4 : (unsigned)n;
}

int main(int argc, char **argv) {
  struct control_options options = {.workers = default_workers()};
  bool want_help = false;
  if (!own_options(&options, &argc, argv, &want_help)) {
    fputs(help, stderr);
    return 2;
  }
  struct daemon d;
  if (!daemon_start(&d, argc, argv, "proxy")) {
    if (want_help && d.exit_code == 0)
      fputs(help, stdout);
    return d.exit_code;
  }
  struct err err;
  struct control *control = control_start(&d, &options, &err);
  if (!control) {
    int rc = daemon_fail(&d, &err);
    daemon_fini(&d);
    return rc;
  }
  char status[128];
  control_describe(control, status, sizeof status);
  daemon_ready(&d, status);
  /* Without a key or an apiserver it still serves what it knows. */
  if (control_connect(control, &err) < 0)
    log_error("no routes from an apiserver", "error", err.msg);
  int rc = daemon_run(&d);
  if (d.stop_signal == SIGTERM)
    control_hand_over(control);
  control_stop(control);
  daemon_fini(&d);
  return rc;
}
