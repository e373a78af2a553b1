#include "common/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "common/log.h"
#include "common/spec/faults.h"

#define LARGE_BLOCK (256 << 10)

static void usage(FILE *to, const char *name) {
  fprintf(to,
          "usage: orca-%s -c NODE.toml [-n] [-v]\n"
          "  -c FILE     this node's configuration\n"
          "  -n          check it, print it, exit\n"
          "  -v          log more (twice: everything)\n"
          "  --version   print the version\n",
          name);
}

static void print_config(const struct node_config *c) {
  printf(
      "name = \"%s\"\naddress = \"%s\"\nrole = \"%s\"\nstate_dir = \"%s\"\nrun_dir = \"%s\"\nkey_dir = \"%s\"\ndocker = \"%s\"\ncluster = \"%s\"\n",
      c->name, c->address, c->role == NODE_MASTER ? "master" : "worker", c->state_dir, c->run_dir, c->key_dir, c->docker, c->cluster_id);
  for (size_t i = 0; i < c->master_count; i++)
    printf("master = \"%s\" at \"%s\"\n", c->masters[i].name, c->masters[i].address);
  printf("ports: api %u, gateway %u, store %u, raft %u, gossip %u, http %u, https %u\n", c->port_api, c->port_gateway, c->port_store, c->port_raft,
         c->port_gossip, c->port_http, c->port_https);
}

static void on_stop(void *arg, int signo) {
  struct daemon *d = arg;
  log_info("stopping", "signal", strsignal(signo));
  d->stop_signal = signo;
  loop_stop(d->loop);
}

static void on_hup(void *arg, int signo) {
  (void)signo;
  struct daemon *d = arg;
  if (d->on_reload)
    d->on_reload(d->reload_arg);
}

/* sd_notify(3): one datagram to the socket that systemd names; written here rather than linking libsystemd into every daemon. */
static void notify(const char *text) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path)
    return;
  memcpy(to.sun_path, path, strlen(path));
  if (path[0] == '@')
    to.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return;
  socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&to, len) < 0)
    log_warn("systemd could not be told", "error", strerror(errno));
  close(fd);
}

static void feed_watchdog(void *arg) {
  struct daemon *d = arg;
  notify("WATCHDOG=1");
  struct err err;
  if (loop_timer_in(d->loop, &d->watchdog, d->watchdog_ns, &err) < 0)
    log_error("watchdog", "error", err.msg);
}

static int start_watchdog(struct daemon *d, struct err *err) {
  const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
  if (!usec || (pid && strtol(pid, NULL, 10) != getpid()))
    return 0;
  d->watchdog_ns = (int64_t)(strtoull(usec, NULL, 10) / 3) * NS_PER_US;
  if (d->watchdog_ns <= 0)
    return 0;
  d->watchdog = (struct loop_timer){.cb = feed_watchdog, .arg = d};
  return loop_timer_in(d->loop, &d->watchdog, d->watchdog_ns, err);
}

static int read_config(struct daemon *d, const char *file) {
  struct spec_faults faults = {0};
  struct err err;
  int rc = node_config_read(file, &d->config, &faults, &err);
  if (rc < 0) {
    struct buf text = BUF_INIT(1 << 16);
    for (size_t i = 0; i < faults.count; i++) {
      spec_fault_print(&faults.list[i], &text);
      buf_add_byte(&text, '\n');
    }
    fprintf(stderr, "%s", buf_str(&text));
    if (!faults.count)
      fprintf(stderr, "orca-%s: %s\n", d->name, err.msg);
    buf_free(&text);
  }
  spec_faults_free(&faults);
  return rc;
}

/* What is large goes back when it is freed. By itself glibc learns from the first large block to keep all later ones of that size: one file of a
 * deploy, and a daemon was megabytes larger for ever. */
static void keep_no_large_blocks(void) {
  mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
  mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK);
}

bool daemon_start(struct daemon *d, int argc, char **argv, const char *name) {
  static const struct option options[] = {{"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
  *d = (struct daemon){.name = name, .lock_fd = -1};
  keep_no_large_blocks();
  const char *file = NULL;
  bool check_only = false;
  int verbose = 0;
  for (int c; (c = getopt_long(argc, argv, "c:nvh", options, NULL)) != -1;) {
    switch (c) {
    case 'c':
      file = optarg;
      break;
    case 'n':
      check_only = true;
      break;
    case 'v':
      verbose++;
      break;
    case 'V':
      printf("orca-%s %s\n", name, ORCA_VERSION);
      return false;
    case 'h':
      usage(stdout, name);
      return false;
    default:
      usage(stderr, name);
      d->exit_code = 2;
      return false;
    }
  }
  if (!file || optind != argc) {
    usage(stderr, name);
    d->exit_code = 2;
    return false;
  }
  d->exit_code = 1;
  if (read_config(d, file) < 0)
    return false;
  if (check_only) {
    print_config(&d->config);
    d->exit_code = 0;
    node_config_free(&d->config);
    return false;
  }
  log_init(name, d->config.name);
  if (verbose)
    log_pin_level(verbose > 1 ? LOG_LEVEL_TRACE : LOG_LEVEL_DEBUG);
  crypto_private_process(); /* keys, tokens and secrets live in it */
  signal(SIGPIPE, SIG_IGN);
  setenv("ZSYS_SIGHANDLER", "false", 1);
  struct err err;
  d->loop = loop_new(NULL, &err);
  if (!d->loop || loop_signal(d->loop, SIGTERM, on_stop, d, &err) < 0 || loop_signal(d->loop, SIGINT, on_stop, d, &err) < 0 ||
      loop_signal(d->loop, SIGHUP, on_hup, d, &err) < 0 || start_watchdog(d, &err) < 0) {
    daemon_fail(d, &err);
    daemon_fini(d);
    return false;
  }
  return true;
}

int daemon_hold(struct daemon *d, struct err *err) {
  char path[4096], pid[32] = "";
  if (snprintf(path, sizeof path, "%s/%s.lock", d->config.run_dir, d->name) >= (int)sizeof path)
    return err_set(err, ERR_INVALID, "run_dir is too long");
  if (mkdir(d->config.run_dir, 0755) < 0 && errno != EEXIST)
    return err_errno(err, errno, "run_dir %s", d->config.run_dir);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return err_errno(err, errno, "%s", path);
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    int why = errno;
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    pid[n > 0 ? strcspn(pid, " \n") : 0] = 0;
    close(fd);
    return why == EWOULDBLOCK ? err_set(err, ERR_CONFLICT, "%s is in use by another orca-%s, process %s", path, d->name, *pid ? pid : "?")
                              : err_errno(err, why, "lock %s", path);
  }
  int len = snprintf(pid, sizeof pid, "%-10ld\n", (long)getpid());
  if (pwrite(fd, pid, (size_t)len, 0) != len && errno != ENOSPC) { /* a full disk keeps nobody from starting */
    err_errno(err, errno, "%s", path);
    close(fd);
    return -1;
  }
  d->lock_fd = fd;
  return 0;
}

static void report_peer(void *arg, const char *peer, const char *what) {
  (void)arg;
  log_warn("refused on the bus", "peer", peer, "what", what);
}

struct bus *daemon_bus(struct daemon *d, struct err *err) {
  struct bus_key_pair keys;
  if (bus_key_load(d->config.key_dir, d->name, &keys, err) < 0)
    return NULL;
  struct bus_config config = {.keys = &keys, .report = report_peer};
  struct bus *bus = bus_new(d->loop, &config, err);
  explicit_bzero(&keys, sizeof keys);
  return bus;
}

void daemon_ready(struct daemon *d, const char *status) {
  log_info("ready", "version", ORCA_VERSION, "status", status);
  notify("READY=1");
  daemon_status(d, status);
}

void daemon_status(struct daemon *d, const char *status) {
  (void)d;
  if (!status)
    return;
  char text[256];
  snprintf(text, sizeof text, "STATUS=%s", status);
  notify(text);
}

int daemon_run(struct daemon *d) {
  struct err err;
  int rc = loop_run(d->loop, &err);
  notify("STOPPING=1");
  d->exit_code = rc < 0 ? daemon_fail(d, &err) : 0;
  return d->exit_code;
}

int daemon_fail(struct daemon *d, const struct err *err) {
  log_error(err->msg, "code", err_code_text(err->code));
  d->exit_code = 1;
  return 1;
}

void daemon_fini(struct daemon *d) {
  if (d->lock_fd >= 0)
    close(d->lock_fd);
  d->lock_fd = -1;
  if (d->loop) {
    loop_timer_cancel(d->loop, &d->watchdog);
    loop_free(d->loop);
    d->loop = NULL;
  }
  node_config_free(&d->config);
}
