#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "common/daemon/daemon.h"
#include "common/daemon/masters.h"
#include "common/spec/faults.h"
#include "orca-store/storectl/storectl.h"

static const struct verb {
  const char *name, *args, *help;
  int (*run)(struct sctl *ctl);
  bool offline; /* no node.toml */
} verbs[] = {
    {"status", "", "what the store says of itself", sctl_status, false},
    {"range", "KEY [--prefix] [--rev N] [--limit N] [--keys-only] [--serializable]", "read keys", sctl_range, false},
    {"put", "KEY VALUE [--lease ID]", "write a key; VALUE - reads it from stdin", sctl_put, false},
    {"del", "KEY [--prefix]", "delete keys", sctl_del, false},
    {"txn", "", "compares, then, else, from stdin: three groups of lines with an empty line between", sctl_txn, false},
    {"watch", "KEY [--prefix] [--rev N]", "every change, from now on or from a revision", sctl_watch, false},
    {"lease", "grant SECONDS | keep-alive ID | revoke ID | list", "leases", sctl_lease, false},
    {"compact", "REVISION", "forget the history before it", sctl_compact, false},
    {"snapshot", "save FILE | restore FILE",
     "a consistent copy of the state; that copy as the state of this node's store, which must not run and have no state", sctl_snapshot, false},
    {"verify", "DIR", "check every record of a store's folder (STATE_DIR/store); the store need not run", sctl_verify, true},
    {"bench", "[--reads] [--clients N] [--outstanding N] [--total N] [--value-size BYTES]", "measure", sctl_bench, false},
};

static void usage(FILE *to) {
  fprintf(to, "usage: orca-storectl -c NODE.toml [-o json] [--timeout SECONDS] VERB\n");
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
    fprintf(to, "  %s%s%s\n      %s\n", verbs[i].name, *verbs[i].args ? " " : "", verbs[i].args, verbs[i].help);
}

int sctl_fail(const struct err *err) {
  fprintf(stderr, "orca-storectl: %s: %s\n", err_code_text(err->code), err->msg);
  return 1;
}

int sctl_usage(const char *text) {
  fprintf(stderr, "orca-storectl: %s\n", text);
  return 2;
}

int sctl_number(const char *text, int base, uint64_t *ret) {
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, base);
  if (errno || *end || end == text || text[0] == '-')
    return -1;
  *ret = n;
  return 0;
}

int sctl_read_stdin(struct buf *to) {
  char chunk[65536];
  size_t n;
  while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
    buf_add(to, chunk, n);
  return ferror(stdin) || buf_failed(to) ? -1 : 0;
}

static bool is_text(const ProtobufCBinaryData *b) {
  for (size_t i = 0; i < b->len; i++)
    if (b->data[i] < 0x20 || b->data[i] == 0x7f)
      return false;
  return pb_utf8_valid((const char *)b->data, b->len);
}

void sctl_print_bytes(FILE *to, const ProtobufCBinaryData *b) {
  bool text = is_text(b);
  for (size_t i = 0; i < b->len; i++) {
    uint8_t c = b->data[i];
    if (c == '\\')
      fputs("\\\\", to);
    else if (text || (c >= 0x20 && c < 0x7f))
      fputc(c, to);
    else
      fprintf(to, "\\x%02x", c);
  }
}

void sctl_print_json_bytes(FILE *to, const ProtobufCBinaryData *b) {
  bool text = b->len == 0 || pb_utf8_valid((const char *)b->data, b->len);
  fputs(text ? "\"" : "\"hex:", to);
  for (size_t i = 0; i < b->len; i++) {
    uint8_t c = b->data[i];
    if (!text)
      fprintf(to, "%02x", c);
    else if (c == '"' || c == '\\')
      fprintf(to, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
      fprintf(to, "\\u%04x", c);
    else
      fputc(c, to);
  }
  fputc('"', to);
}

int sctl_key_range(struct sctl *ctl, const char *key, ProtobufCBinaryData *ret_key, ProtobufCBinaryData *ret_end) {
  size_t n = strlen(key);
  bool all = n == 0 && ctl->prefix; /* from the zero byte to a zero byte: everything (store.proto, as in etcd) */
  ret_key->len = all ? 1 : n;
  ret_end->len = 0;
  ret_key->data = malloc(n + 1);
  ret_end->data = malloc(n + 1);
  if (!ret_key->data || !ret_end->data)
    return -1;
  memcpy(ret_key->data, key, n + 1);
  memcpy(ret_end->data, key, n + 1);
  if (!ctl->prefix)
    return 0;
  ret_end->len = all ? 1 : n;
  while (!all && ret_end->len && ret_end->data[ret_end->len - 1] == 0xff)
    ret_end->len--;
  if (!all && ret_end->len)
    ret_end->data[ret_end->len - 1]++;
  else
    ret_end->data[0] = 0, ret_end->len = 1;
  return 0;
}

/* ---------------------------------------------------------------- calls */

void sctl_end(struct sctl *ctl, int rc) {
  ctl->done = true;
  ctl->rc = rc;
}

int sctl_wait(struct sctl *ctl) {
  struct err err;
  while (!ctl->done)
    if (loop_once(ctl->loop, -1, &err) < 0)
      return sctl_fail(&err);
  return ctl->rc;
}

struct one_call {
  struct sctl *ctl;
  sctl_show_fn *show;
};

static void answered(void *arg, const Store__Reply *reply, const struct err *err) {
  struct one_call *one = arg;
  sctl_end(one->ctl, err ? sctl_fail(err) : one->show(one->ctl, reply));
}

int sctl_call(struct sctl *ctl, const Store__Call *call, sctl_show_fn *show) {
  struct one_call one = {ctl, show};
  ctl->done = false;
  storec_call(ctl->store, call, ctl->timeout_ns, answered, &one);
  return sctl_wait(ctl);
}

/* ---------------------------------------------------------------- start */

static int read_config(struct sctl *ctl, const char *file) {
  struct spec_faults faults = {0};
  struct err err;
  int rc = node_config_read(file, &ctl->config, &faults, &err);
  if (rc < 0) {
    struct buf text = BUF_INIT(1 << 16);
    for (size_t i = 0; i < faults.count; i++) {
      spec_fault_print(&faults.list[i], &text);
      buf_add_byte(&text, '\n');
    }
    fprintf(stderr, "%s", buf_str(&text));
    if (!faults.count)
      sctl_fail(&err);
    buf_free(&text);
  }
  spec_faults_free(&faults);
  return rc;
}

static int connect_store(struct sctl *ctl, struct err *err) {
  struct bus_key_pair keys;
  if (bus_key_load(ctl->config.key_dir, "admin", &keys, err) < 0)
    return -1;
  struct bus_config config = {.keys = &keys};
  ctl->bus = bus_new(ctl->loop, &config, err);
  explicit_bzero(&keys, sizeof keys);
  if (!ctl->bus)
    return -1;
  struct masters masters;
  if (masters_stores(&ctl->config, &masters, err) < 0)
    return -1;
  ctl->store = storec_new(ctl->bus, ctl->loop, masters.list, masters.count, err);
  masters_free(&masters);
  return ctl->store ? 0 : -1;
}

enum {
  OPT_PREFIX = 256,
  OPT_REV,
  OPT_LIMIT,
  OPT_KEYS_ONLY,
  OPT_SERIALIZABLE,
  OPT_READS,
  OPT_CLIENTS,
  OPT_OUTSTANDING,
  OPT_TOTAL,
  OPT_VALUE_SIZE,
  OPT_TIMEOUT,
  OPT_LEASE,
  OPT_VERSION
};

static int number_option(const char *name, uint64_t *ret, int base) {
  if (sctl_number(optarg, base, ret) == 0)
    return 0;
  fprintf(stderr, "orca-storectl: --%s %s: want a number\n", name, optarg);
  return -1;
}

/* -1: go on; else the exit code. */
static int read_options(struct sctl *ctl, int argc, char **argv, const char **file) {
  static const struct option options[] = {{"prefix", no_argument, NULL, OPT_PREFIX},
                                          {"rev", required_argument, NULL, OPT_REV},
                                          {"limit", required_argument, NULL, OPT_LIMIT},
                                          {"keys-only", no_argument, NULL, OPT_KEYS_ONLY},
                                          {"serializable", no_argument, NULL, OPT_SERIALIZABLE},
                                          {"reads", no_argument, NULL, OPT_READS},
                                          {"clients", required_argument, NULL, OPT_CLIENTS},
                                          {"outstanding", required_argument, NULL, OPT_OUTSTANDING},
                                          {"total", required_argument, NULL, OPT_TOTAL},
                                          {"value-size", required_argument, NULL, OPT_VALUE_SIZE},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          {"lease", required_argument, NULL, OPT_LEASE},
                                          {"version", no_argument, NULL, OPT_VERSION},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
  for (int c; (c = getopt_long(argc, argv, "c:o:h", options, NULL)) != -1;) {
    int bad = 0;
    uint64_t seconds;
    switch (c) {
    case 'c':
      *file = optarg;
      break;
    case 'o':
      if (strcmp(optarg, "json") != 0)
        return sctl_usage("-o: only json is known");
      ctl->json = true;
      break;
    case 'h':
      usage(stdout);
      return 0;
    case OPT_VERSION:
      printf("orca-storectl %s\n", ORCA_VERSION);
      return 0;
    case OPT_PREFIX:
      ctl->prefix = true;
      break;
    case OPT_REV:
      bad = number_option("rev", &ctl->revision, 10);
      break;
    case OPT_LIMIT:
      bad = number_option("limit", &ctl->limit, 10);
      break;
    case OPT_KEYS_ONLY:
      ctl->keys_only = true;
      break;
    case OPT_SERIALIZABLE:
      ctl->serializable = true;
      break;
    case OPT_READS:
      ctl->reads = true;
      break;
    case OPT_CLIENTS:
      bad = number_option("clients", &ctl->clients, 10);
      break;
    case OPT_OUTSTANDING:
      bad = number_option("outstanding", &ctl->outstanding, 10);
      break;
    case OPT_TOTAL:
      bad = number_option("total", &ctl->total, 10);
      break;
    case OPT_VALUE_SIZE:
      bad = number_option("value-size", &ctl->value_size, 10);
      break;
    case OPT_LEASE:
      bad = number_option("lease", &ctl->lease, 16);
      break;
    case OPT_TIMEOUT:
      bad = number_option("timeout", &seconds, 10);
      if (!bad)
        ctl->timeout_ns = (int64_t)(seconds < 86400 ? seconds : 86400) * NS_PER_SEC;
      break;
    default:
      usage(stderr);
      return 2;
    }
    if (bad)
      return 2;
  }
  return -1;
}

int main(int argc, char **argv) {
  struct sctl ctl = {.clients = 1, .outstanding = 64, .total = 10000, .value_size = 256, .timeout_ns = 10 * NS_PER_SEC};
  const char *file = NULL;
  struct err err;
  int rc = read_options(&ctl, argc, argv, &file);
  if (rc >= 0)
    return rc;
  const struct verb *verb = NULL;
  for (size_t i = 0; optind < argc && i < sizeof verbs / sizeof *verbs; i++)
    if (strcmp(verbs[i].name, argv[optind]) == 0)
      verb = &verbs[i];
  if (optind == argc) {
    usage(stderr);
    return 2;
  }
  if (!verb || (!file && !verb->offline)) {
    char text[160];
    snprintf(text, sizeof text, verb ? "%.40s: say which node: -c NODE.toml" : "unknown verb: %.40s (-h lists them)", argv[optind]);
    return sctl_usage(text);
  }
  ctl.argc = argc - optind - 1;
  ctl.argv = argv + optind + 1;
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0); /* the admin's key is in here */
  setenv("ZSYS_SIGHANDLER", "false", 1);
  if (verb->offline)
    return verb->run(&ctl);
  if (read_config(&ctl, file) < 0)
    return 1;
  ctl.loop = loop_new(NULL, &err);
  if (!ctl.loop || connect_store(&ctl, &err) < 0)
    rc = sctl_fail(&err);
  else
    rc = verb->run(&ctl);
  storec_free(ctl.store);
  bus_free(ctl.bus);
  loop_free(ctl.loop);
  node_config_free(&ctl.config);
  if (fflush(stdout) != 0)
    rc = rc ? rc : 1;
  return rc;
}
