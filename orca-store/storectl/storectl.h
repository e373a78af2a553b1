/* orca-storectl: the operator's key to the store itself, in the manner of etcdctl. One verb, one function; the table is in main.c.
 * Threads: one. Exit codes: 0 done; 1 failed or, for a txn, decided against; 2 wrong usage. */
#ifndef ORCA_STORE_STORECTL_STORECTL_H
#define ORCA_STORE_STORECTL_STORECTL_H

#include <stdbool.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/bus/bus.h"
#include "common/spec/node_config.h"
#include "common/storec/storec.h"

struct sctl {
  /* Options. */
  bool json, prefix, keys_only, serializable, reads;
  uint64_t revision, limit, clients, outstanding, total, value_size, lease;
  int64_t timeout_ns;
  int argc; /* what follows the verb */
  char **argv;

  struct node_config config;
  struct loop *loop;
  struct bus *bus;
  struct storec *store;
  bool done;
  int rc;
};

/* What `snapshot save` puts behind the store's bytes: by it `snapshot restore` knows that they are whole, and of its own cluster. */
#define SCTL_TRAILER_MAGIC "orcasnap"
struct sctl_trailer {
  char magic[8];
  uint8_t cluster[16]; /* of the SHA-256 of the cluster's id */
  uint8_t sha256[32];  /* of what is before */
};

int sctl_range(struct sctl *ctl);
int sctl_put(struct sctl *ctl);
int sctl_del(struct sctl *ctl);
int sctl_txn(struct sctl *ctl);
int sctl_watch(struct sctl *ctl);
int sctl_lease(struct sctl *ctl);
int sctl_compact(struct sctl *ctl);
int sctl_status(struct sctl *ctl);
int sctl_snapshot(struct sctl *ctl);
int sctl_restore(struct sctl *ctl, const char *file); /* what follows `snapshot` */
int sctl_verify(struct sctl *ctl);
int sctl_bench(struct sctl *ctl);

int sctl_fail(const struct err *err);    /* prints, 1 */
int sctl_usage(const char *text);        /* prints, 2 */
void sctl_end(struct sctl *ctl, int rc); /* from a callback: ends sctl_wait() */
int sctl_wait(struct sctl *ctl);         /* runs the loop until then; the exit code */
/* One call: shows the reply with show(), waits. */
typedef int sctl_show_fn(struct sctl *ctl, const Store__Reply *reply);
int sctl_call(struct sctl *ctl, const Store__Call *call, sctl_show_fn *show);

/* Keys and values as people can read them: text as it is, other bytes as \xNN. */
void sctl_print_bytes(FILE *to, const ProtobufCBinaryData *b);
void sctl_print_json_bytes(FILE *to, const ProtobufCBinaryData *b); /* a JSON string; of bytes that are not text, base16 behind "hex:" */
/* A key and, with --prefix, where its prefix ends; freed with the two free()s. */
int sctl_key_range(struct sctl *ctl, const char *key, ProtobufCBinaryData *ret_key, ProtobufCBinaryData *ret_end);
int sctl_number(const char *text, int base, uint64_t *ret); /* -1 when it is not one */
int sctl_read_stdin(struct buf *to);

#endif
