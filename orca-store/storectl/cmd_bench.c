#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/bus/pb.h"
#include "common/daemon/masters.h"
#include "orca-store/storectl/storectl.h"

#define PREFIX "/bench/"
#define KEYS 100000u

struct bench;
struct slot { /* one call after the other */
  struct bench *b;
  struct storec *store;
  int64_t started;
};

struct bench {
  struct sctl *ctl;
  struct slot *slots;
  uint8_t *value;
  int64_t *latencies;
  uint64_t sent, answered, failed, random;
  struct err first_failure;
};

static int64_t mono(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static uint64_t next_random(struct bench *b) {
  b->random ^= b->random << 13;
  b->random ^= b->random >> 7;
  b->random ^= b->random << 17;
  return b->random;
}

static void send_next(struct slot *slot);

static void finished(struct slot *slot, const struct err *err) {
  struct bench *b = slot->b;
  if (err && b->failed++ == 0)
    b->first_failure = *err;
  b->latencies[b->answered++] = mono() - slot->started;
  if (b->answered == b->ctl->total)
    sctl_end(b->ctl, b->failed ? 1 : 0);
  else if (b->sent < b->ctl->total)
    send_next(slot);
}

static void committed(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  (void)succeeded;
  (void)revision;
  finished(arg, err);
}

static void replied(void *arg, const Store__Reply *reply, const struct err *err) {
  (void)reply;
  finished(arg, err);
}

static void send_next(struct slot *slot) {
  struct bench *b = slot->b;
  char key[64];
  snprintf(key, sizeof key, PREFIX "%08" PRIu64, next_random(b) % (b->ctl->reads ? b->ctl->limit : KEYS));
  b->sent++;
  slot->started = mono();
  if (b->ctl->reads) {
    Store__Call call = STORE__CALL__INIT;
    Store__RangeRequest r = STORE__RANGE_REQUEST__INIT;
    r.has_key = 1;
    r.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    PB_SET(&r, serializable, b->ctl->serializable);
    call.body_case = STORE__CALL__BODY_RANGE;
    call.range = &r;
    storec_call(slot->store, &call, b->ctl->timeout_ns, replied, slot);
    return;
  }
  struct storec_txn *txn = storec_txn_new();
  if (!txn) {
    struct err err;
    err_set(&err, ERR_MEMORY, "out of memory");
    finished(slot, &err);
    return;
  }
  storec_put(txn, key, b->value, b->ctl->value_size, 0);
  storec_commit(slot->store, txn, b->ctl->timeout_ns, committed, slot);
}

static int by_size(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void report(struct bench *b, int64_t took) {
  struct sctl *ctl = b->ctl;
  qsort(b->latencies, ctl->total, sizeof *b->latencies, by_size);
  double per_second = (double)ctl->total * 1e9 / (double)took;
  double p50 = (double)b->latencies[ctl->total / 2] / 1e3, p99 = (double)b->latencies[ctl->total * 99 / 100] / 1e3,
         max = (double)b->latencies[ctl->total - 1] / 1e3;
  if (ctl->json)
    printf("{\"kind\":\"%s\",\"total\":%" PRIu64 ",\"outstanding\":%" PRIu64 ",\"clients\":%" PRIu64 ",\"value_size\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           ctl->reads ? "reads" : "writes", ctl->total, ctl->outstanding, ctl->clients, ctl->value_size, b->failed, per_second, p50, p99, max);
  else
    printf("%" PRIu64 " %s, %" PRIu64 " outstanding: %.0f/s, p50 %.0f us, p99 %.0f us, max %.0f us, %" PRIu64 " failed\n", ctl->total,
           ctl->reads ? "reads" : "writes", ctl->outstanding, per_second, p50, p99, max, b->failed);
  if (b->failed)
    sctl_fail(&b->first_failure);
}

/* Connections beside the first one, to the same stores with the same key. */
static struct storec *another(struct sctl *ctl, struct err *err) {
  struct masters masters;
  if (masters_stores(&ctl->config, &masters, err) < 0)
    return NULL;
  struct storec *store = storec_new(ctl->bus, ctl->loop, masters.list, masters.count, err);
  masters_free(&masters);
  return store;
}

static int bench_calls(struct bench *b, struct storec **stores) {
  struct sctl *ctl = b->ctl;
  ctl->done = false;
  b->sent = b->answered = 0;
  int64_t start = mono();
  for (uint64_t i = 0; i < ctl->outstanding && b->sent < ctl->total; i++) {
    b->slots[i] = (struct slot){.b = b, .store = stores[i % ctl->clients]};
    send_next(&b->slots[i]);
  }
  int rc = sctl_wait(ctl);
  report(b, mono() - start);
  return rc;
}

/* Something to read, unless it is there. */
static int show_count(struct sctl *ctl, const Store__Reply *reply) {
  ctl->limit = PB_GET(reply->range, count, 0);
  return 0;
}

static int prepare_reads(struct sctl *ctl) {
  for (unsigned round = 0;; round++) {
    Store__Call call = STORE__CALL__INIT;
    Store__RangeRequest r = STORE__RANGE_REQUEST__INIT;
    struct sctl how = {.prefix = true};
    int rc = 1;
    if (sctl_key_range(&how, PREFIX, &r.key, &r.range_end) == 0) {
      r.has_key = r.has_range_end = 1;
      PB_SET(&r, count_only, true);
      call.body_case = STORE__CALL__BODY_RANGE;
      call.range = &r;
      rc = sctl_call(ctl, &call, show_count);
    }
    free(r.key.data);
    free(r.range_end.data);
    if (rc || ctl->limit || round)
      return rc;
    char *argv[] = {(char[]){PREFIX "00000000"}, (char[]){"something to read"}, NULL};
    struct sctl put = *ctl;
    put.argc = 2;
    put.argv = argv;
    if ((rc = sctl_put(&put)))
      return rc;
  }
}

int sctl_bench(struct sctl *ctl) {
  struct bench b = {.ctl = ctl, .random = UINT64_C(0x9e3779b97f4a7c15)};
  struct err err;
  if (!ctl->clients || ctl->clients > 1000 || !ctl->outstanding || ctl->outstanding > 100000 || !ctl->total || ctl->total > 100000000 ||
      ctl->value_size > (1536u << 10))
    return sctl_usage("bench: clients 1 to 1,000, outstanding 1 to 100,000, total 1 to 100,000,000, value-size up to 1,572,864");
  if (ctl->reads && prepare_reads(ctl))
    return 1;
  b.slots = calloc(ctl->outstanding, sizeof *b.slots);
  b.latencies = calloc(ctl->total, sizeof *b.latencies);
  b.value = calloc(ctl->value_size + 1, 1);
  struct storec **stores = calloc(ctl->clients, sizeof(struct storec *));
  int rc = 1;
  if (b.slots && b.latencies && b.value && stores) {
    memset(b.value, 'v', ctl->value_size);
    stores[0] = ctl->store;
    rc = 0;
    for (uint64_t i = 1; i < ctl->clients && rc == 0; i++)
      if (!(stores[i] = another(ctl, &err)))
        rc = sctl_fail(&err);
    /* Connecting is not what is measured. */
    int64_t until = loop_now(ctl->loop) + ctl->timeout_ns;
    for (uint64_t i = 0; i < ctl->clients && rc == 0; i++)
      while (!storec_is_up(stores[i]) && loop_now(ctl->loop) < until)
        if (loop_once(ctl->loop, 50 * NS_PER_MS, &err) < 0)
          rc = sctl_fail(&err);
    if (rc == 0)
      rc = bench_calls(&b, stores);
    for (uint64_t i = 1; i < ctl->clients; i++)
      storec_free(stores[i]);
  }
  free(stores);
  free(b.slots);
  free(b.latencies);
  free(b.value);
  return rc;
}
