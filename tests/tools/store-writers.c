/* Writers for the crash tests of the store: store-writers -c NODE.toml PREFIX COUNT [VALUE_SIZE]
 *
 * COUNT writers, each on a conversation of its own, write PREFIXnn/SEQ = SEQ and PREFIXnn/last = SEQ in one transaction, one after the other, as fast
 * as answers come, until SIGTERM. Each acknowledged write is one line on stdout, "nn SEQ REVISION", written at once with one write(2), so that the
 * reader of a pipe knows what had been promised. An outcome that is not known (a lost answer) is followed by the next number: never reported, may be
 * there. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/spec/faults.h"
#include "common/spec/node_config.h"
#include "common/storec/storec.h"

struct writer {
  struct storec *store;
  const char *prefix;
  unsigned number;
  uint64_t seq;
  char *value;
  size_t size;
};

static void write_next(struct writer *w);

static void done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct writer *w = arg;
  if (err && err->code != ERR_TIMEOUT && err->code != ERR_UNAVAILABLE && err->code != ERR_NO_SPACE && err->code != ERR_CANCELLED)
    fprintf(stderr, "writer %u: %s\n", w->number, err->msg);
  if (!err && succeeded) {
    char line[96];
    int n = snprintf(line, sizeof line, "%u %llu %llu\n", w->number, (unsigned long long)w->seq, (unsigned long long)revision);
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
      _exit(1); /* nobody counts any more */
  }
  if (err && err->code == ERR_CANCELLED)
    return;
  w->seq++;
  write_next(w);
}

static void write_next(struct writer *w) {
  char key[256];
  struct storec_txn *txn = storec_txn_new();
  if (!txn)
    _exit(1);
  int n = snprintf(w->value, w->size + 1, "%llu ", (unsigned long long)w->seq);
  w->value[n] = '.';
  snprintf(key, sizeof key, "%s%02u/%010llu", w->prefix, w->number, (unsigned long long)w->seq);
  storec_put(txn, key, w->value, w->size, 0);
  snprintf(key, sizeof key, "%s%02u/last", w->prefix, w->number);
  storec_put(txn, key, w->value, w->size, 0);
  storec_commit(w->store, txn, 5 * NS_PER_SEC, done, w);
}

static void stop(void *arg, int signo) {
  (void)signo;
  loop_stop(arg);
}

int main(int argc, char **argv) {
  struct node_config config;
  struct spec_faults faults = {0};
  struct err err;
  if (argc < 5 || strcmp(argv[1], "-c") != 0 || node_config_read(argv[2], &config, &faults, &err) < 0 || config.master_count == 0) {
    fprintf(stderr, "usage: store-writers -c NODE.toml PREFIX COUNT [VALUE_SIZE]\n");
    return 2;
  }
  unsigned count = (unsigned)strtoul(argv[4], NULL, 10);
  size_t size = argc > 5 ? strtoul(argv[5], NULL, 10) : 256;
  struct loop *loop = loop_new(NULL, &err);
  struct bus_key_pair keys;
  char endpoint[320];
  snprintf(endpoint, sizeof endpoint, "tcp://%s:%u", config.masters[0].address, config.port_store);
  setenv("ZSYS_SIGHANDLER", "false", 1);
  if (!loop || loop_signal(loop, SIGTERM, stop, loop, &err) < 0 || bus_key_load(config.key_dir, "admin", &keys, &err) < 0) {
    fprintf(stderr, "%s\n", err.msg);
    return 1;
  }
  struct bus_config bus_config = {.keys = &keys};
  struct bus *bus = bus_new(loop, &bus_config, &err);
  struct writer *writers = calloc(count, sizeof *writers);
  for (unsigned i = 0; bus && writers && i < count; i++) {
    struct bus_address address = {.endpoint = endpoint, .server_key = config.masters[0].store_key};
    writers[i] = (struct writer){.prefix = argv[3], .number = i, .seq = 1, .size = size < 32 ? 32 : size};
    writers[i].value = malloc(writers[i].size + 1);
    writers[i].store = storec_new(bus, loop, &address, 1, &err);
    if (!writers[i].value || !writers[i].store) {
      fprintf(stderr, "%s\n", err.msg);
      return 1;
    }
    memset(writers[i].value, '.', writers[i].size + 1);
    write_next(&writers[i]);
  }
  int rc = bus && writers ? loop_run(loop, &err) : -1;
  for (unsigned i = 0; writers && i < count; i++) {
    storec_free(writers[i].store);
    free(writers[i].value);
  }
  free(writers);
  bus_free(bus);
  loop_free(loop);
  node_config_free(&config);
  return rc < 0;
}
