/* orca-store: the cluster's state. Start-up, then the loop. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/daemon/daemon.h"
#include "common/daemon/masters.h"
#include "common/log.h"
#include "orca-store/store.h"
#include "orca-store/store_rpc.h"

struct app {
  struct daemon d;
  struct acl acl;
  struct store *store;
  struct store_rpc *rpc;
};

/* For the signal handler alone; written once before it is installed. */
static char crash_file[4096];

/* A fault may come from the map (a torn page, a failed read): leave word, so that the next start does not trust it. */
static void on_fault(int signo) {
  int fd = open(crash_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (fd >= 0)
    close(fd);
  raise(signo); /* SA_RESETHAND: the default action now */
}

static int watch_for_faults(const char *dir, struct err *err) {
  int n = snprintf(crash_file, sizeof crash_file, "%s/crashed", dir);
  if (n < 0 || (size_t)n >= sizeof crash_file)
    return err_set(err, ERR_INVALID, "path too long: %s", dir);
  struct sigaction act = {.sa_handler = on_fault, .sa_flags = (int)SA_RESETHAND};
  const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    sigaction(signals[i], &act, NULL);
  return 0;
}

static void on_serving(void *arg) {
  struct app *app = arg;
  const struct kv_state *st = kv_state(store_kv(app->store));
  char text[96];
  snprintf(text, sizeof text, "serving at revision %llu, %llu keys", (unsigned long long)st->revision, (unsigned long long)st->keys);
  daemon_ready(&app->d, text);
}

static void on_changed(void *arg, bool compacted) {
  struct app *app = arg;
  store_rpc_changed(app->rpc, compacted);
}

/* What was promised can no longer be kept: nothing more may be answered, not even by the way out. */
static void on_fatal(void *arg, const struct err *why) {
  struct app *app = arg;
  log_error("the store cannot go on", "error", why->msg, "code", err_code_text(why->code));
  if (why->code == ERR_CORRUPT && crash_file[0])
    close(open(crash_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* the next start rebuilds the map */
  (void)app;
  _exit(1);
}

static void on_note(void *arg, const char *what, const char *text) {
  (void)arg;
  log_info(what, "detail", text);
}

static void on_reload(void *arg) {
  struct app *app = arg;
  struct err err;
  if (acl_load(&app->acl, app->d.config.key_dir, &err) < 0) {
    log_warn("the keys were not read again", "error", err.msg);
    return;
  }
  store_rpc_recheck(app->rpc);
  log_info("read the keys again");
}

static int run(struct app *app, struct bus **bus, struct err *err) {
  static const struct store_ops ops = {.serving = on_serving, .changed = on_changed, .fatal = on_fatal, .note = on_note};
  const struct node_config *c = &app->d.config;
  char dir[4096], endpoint[MASTERS_ENDPOINT_MAX];
  int n = snprintf(dir, sizeof dir, "%s/store", c->state_dir);
  if (n < 0 || (size_t)n >= sizeof dir)
    return err_set(err, ERR_INVALID, "state_dir is too long");
  if (masters_endpoint(c->address, c->port_store, endpoint, err) < 0)
    return -1;
  if (acl_load(&app->acl, c->key_dir, err) < 0)
    return -1;
  struct store_options options = {
      .loop = app->d.loop, .dir = dir, .cluster_id = c->cluster_id, .node = c->name, .address = c->address, .ops = &ops, .arg = app};
  if (mkdir(c->state_dir, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "%s", c->state_dir);
  if (watch_for_faults(dir, err) < 0 || !(app->store = store_open(&options, err)))
    return -1;
  if (!(*bus = daemon_bus(&app->d, err)) || !(app->rpc = store_rpc_new(app->d.loop, *bus, app->store, &app->acl, endpoint, err)))
    return -1;
  app->d.on_reload = on_reload;
  app->d.reload_arg = app;
  return daemon_run(&app->d);
}

int main(int argc, char **argv) {
  struct app app = {0};
  struct bus *bus = NULL;
  struct err err;
  if (!daemon_start(&app.d, argc, argv, "store"))
    return app.d.exit_code;
  int rc = run(&app, &bus, &err);
  if (rc < 0)
    rc = daemon_fail(&app.d, &err);
  store_rpc_free(app.rpc);
  if (store_close(app.store, &err) < 0)
    rc = daemon_fail(&app.d, &err);
  bus_free(bus);
  daemon_fini(&app.d);
  return rc;
}
