/* What every daemon does at its start and its end, so that the skeletons don't drift.
 *
 *   int main(int argc, char **argv) {
 *     struct daemon d;
 *     if (!daemon_start(&d, argc, argv, "agent")) return d.exit_code;     // options, node.toml, logging, loop, signals
 *     … open what is needed with d.loop and d.config; on failure: return daemon_fail(&d, &err);
 *     daemon_ready(&d, "adopted 3 containers");                            // READY=1 to systemd
 *     return daemon_run(&d);                                               // until SIGTERM or SIGINT; then clean up
 *   }
 *
 * Options: -c FILE (node.toml), -n (check the configuration, print it, exit), -v (debug log; twice: trace; without it the log's level is
 * what cluster.toml says, once the daemon has heard of it: log_follow_level), --version, --help.
 * SIGTERM and SIGINT end the loop; SIGHUP calls `on_reload`. SIGPIPE is ignored.
 * The watchdog is fed from the loop when systemd asks for it (WATCHDOG_USEC). */
#ifndef ORCA_COMMON_DAEMON_DAEMON_H
#define ORCA_COMMON_DAEMON_DAEMON_H

#include <stdbool.h>

#include "common/bus/bus.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/spec/node_config.h"

#define ORCA_VERSION "0.1.0"

struct daemon {
  const char *name; /* "agent" */
  struct node_config config;
  struct loop *loop;
  int exit_code;
  int stop_signal;              /* which one ended daemon_run(); 0: none */
  void (*on_reload)(void *arg); /* SIGHUP; may stay NULL */
  void *reload_arg;
  struct loop_timer watchdog;
  int64_t watchdog_ns;
  int lock_fd; /* -1: none is held */
};

bool daemon_start(struct daemon *d, int argc, char **argv, const char *name);
/* One of a kind on a node: holds RUN_DIR/NAME.lock until the process ends. ERR_CONFLICT names the process that holds it. For those without state
 * of their own; who has a folder locks that. */
int daemon_hold(struct daemon *d, struct err *err);
/* A bus with this daemon's key (key_dir/NAME.key), reporting to the log. */
struct bus *daemon_bus(struct daemon *d, struct err *err);
void daemon_ready(struct daemon *d, const char *status);
void daemon_status(struct daemon *d, const char *status); /* STATUS= to systemd */
int daemon_run(struct daemon *d);                         /* the exit code */
int daemon_fail(struct daemon *d, const struct err *err); /* logs, returns 1 */
void daemon_fini(struct daemon *d);                       /* frees config and loop */

#endif
