/* The durable log over a simulated disk: what was synced is there or is refused by name; what was not may be gone, never half there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto/crypto.h"
#include "orca-store/log.h"
#include "orca-store/log_format.h"
#include "tests/lib/simdisk.h"

#define DIR "log"
#define FIRST DIR "/0000000000000001.log"
#define HINT DIR "/synced"

static const uint8_t cluster[DLOG_CLUSTER_ID] = "a-cluster-of-two";

static struct dlog *open_log(struct simdisk *s, struct dlog_found *found, struct err *err) {
  struct dlog_options o = {.dir = DIR, .disk = simdisk_disk(s), .segment_size = 65536};
  struct dlog *log = NULL;
  memcpy(o.cluster_id, cluster, sizeof cluster);
  return dlog_open(&log, &o, found, err) < 0 ? NULL : log;
}

/* An entry's payload follows from its index and term, so that any of it can be checked. */
static size_t payload(uint64_t index, uint64_t term, uint8_t *out) {
  size_t len = (index * 37 + term * 11) % 900;
  for (size_t i = 0; i < len; i++)
    out[i] = (uint8_t)(index + term * 3 + i * 7);
  return len;
}

static int append(struct dlog *log, uint64_t first, size_t n, uint64_t term, struct err *err) {
  uint8_t data[64][1024];
  struct raft_entry e[64];
  size_t bytes = 0;
  for (size_t i = 0; i < n; i++) {
    e[i] = (struct raft_entry){.index = first + i, .term = term, .type = RAFT_ENTRY_DATA, .data = data[i]};
    e[i].len = payload(first + i, term, data[i]);
    bytes += e[i].len;
  }
  return dlog_reserve(log, n, bytes, err) < 0 ? -1 : dlog_write(log, NULL, e, n, err);
}

static void check_entry(struct dlog *log, uint64_t index, uint64_t term) {
  uint8_t expect[1024];
  struct raft_entry e;
  struct buf data = BUF_INIT(1 << 20);
  struct err err = {0};
  if (dlog_read(log, index, &e, &data, &err) < 0)
    fail_msg("%s", err.msg);
  assert_int_equal(e.index, index);
  assert_int_equal(e.term, term);
  size_t len = payload(index, term, expect);
  assert_int_equal(e.len, len);
  assert_memory_equal(len ? data.data : expect, expect, len);
  buf_free(&data);
}

static void sync_log(struct dlog *log) {
  struct raft_stable stable;
  struct err err = {0};
  if (dlog_sync(log, &stable, NULL, &err) < 0)
    fail_msg("%s", err.msg);
}

static void write_and_read_back(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  assert_non_null(log);
  assert_int_equal(found.last, 0);
  assert_int_equal(found.first, 1);
  struct raft_hard hard = {3, 7};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0);
  for (uint64_t i = 1; i <= 1000; i += 20)
    assert_int_equal(append(log, i, 20, 3, &err), 0);
  struct raft_stable stable;
  uint64_t ticket;
  assert_int_equal(dlog_sync(log, &stable, &ticket, &err), 0);
  assert_int_equal(stable.index, 1000);
  assert_int_equal(stable.term, 3);
  assert_int_equal(stable.hard.vote, 7);
  assert_int_equal(ticket, dlog_ticket(log));
  for (uint64_t i = 1; i <= 1000; i++)
    check_entry(log, i, 3);
  /* another leader's entries take the place of the last ones */
  hard = (struct raft_hard){4, 0};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0);
  assert_int_equal(append(log, 990, 2, 4, &err), 0);
  assert_int_equal(dlog_last(log), 991);
  sync_log(log);
  dlog_close(log);
  log = open_log(s, &found, &err);
  assert_non_null(log);
  assert_int_equal(found.hard.term, 4);
  assert_int_equal(found.hard.vote, 0);
  assert_int_equal(found.last, 991);
  assert_false(found.torn);
  check_entry(log, 989, 3);
  check_entry(log, 991, 4);
  struct raft_entry e;
  struct buf data = BUF_INIT(100);
  assert_int_equal(dlog_read(log, 992, &e, &data, &err), -1);
  assert_int_equal(err.code, ERR_NOT_FOUND);

  /* cutting drops whole segments, and what is left opens again */
  uint64_t before = dlog_bytes(log);
  assert_int_equal(dlog_cut(log, 500, &err), 0);
  assert_true(dlog_bytes(log) < before);
  assert_true(dlog_first(log) > 1 && dlog_first(log) <= 501);
  uint64_t first = dlog_first(log);
  check_entry(log, first, 3);
  assert_int_equal(dlog_read(log, first - 1, &e, &data, &err), -1);
  assert_int_equal(err.code, ERR_COMPACTED);
  dlog_close(log);
  log = open_log(s, &found, &err);
  assert_non_null(log);
  assert_int_equal(found.first, first);
  assert_int_equal(found.base_term, 3);
  check_entry(log, first, 3);
  assert_int_equal(append(log, 992, 3, 4, &err), 0);

  /* an installed snapshot */
  assert_int_equal(dlog_reset(log, 5000, 4, &err), 0);
  assert_int_equal(append(log, 5001, 3, 4, &err), 0);
  sync_log(log);
  dlog_close(log);
  log = open_log(s, &found, &err);
  assert_non_null(log);
  assert_int_equal(found.base_index, 5000);
  assert_int_equal(found.base_term, 4);
  assert_int_equal(found.last, 5003);
  check_entry(log, 5003, 4);
  assert_int_equal(dlog_follow_snapshot(log, 5001, 4, &err), 0);
  assert_int_equal(dlog_last(log), 5003);
  assert_int_equal(dlog_follow_snapshot(log, 4000, 4, &err), -1); /* what is between is missing */
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_int_equal(dlog_follow_snapshot(log, 6000, 5, &err), -1); /* a snapshot of a term the log never saw */
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_int_equal(dlog_follow_snapshot(log, 6000, 4, &err), 0);
  assert_int_equal(dlog_last(log), 6000);
  assert_int_equal(dlog_first(log), 6001);
  dlog_close(log);
  buf_free(&data);
  simdisk_free(s);
}

/* Another leader's entries begin before a segment's first record, then a snapshot is installed and the segment before is dropped. */
static void a_reset_behind_a_replaced_tail(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  struct raft_hard hard = {1, 1};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0);
  uint64_t last = 0;
  for (; last < 150; last += 10)
    assert_int_equal(append(log, last + 1, 10, 1, &err), 0);
  assert_true(dlog_bytes(log) > 65536);
  hard = (struct raft_hard){2, 0};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0);
  assert_int_equal(append(log, 20, 10, 2, &err), 0);
  uint64_t ticket = dlog_ticket(log);
  assert_int_equal(dlog_reset(log, 400, 2, &err), 0);
  assert_int_equal(dlog_ticket(log), ticket); /* nothing to wait for */
  assert_int_equal(dlog_bytes(log), 65536);
  dlog_close(log);
  log = open_log(s, &found, &err);
  if (!log)
    fail_msg("%s", err.msg);
  assert_int_equal(found.base_index, 400);
  assert_int_equal(found.last, 400);
  dlog_close(log);
  simdisk_free(s);
}

static void bad_batches_are_refused(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  assert_int_equal(append(log, 2, 1, 1, &err), -1); /* a gap */
  assert_int_equal(err.code, ERR_INVALID);
  assert_int_equal(dlog_reserve(log, 1, (size_t)1 << 40, &err), -1);
  assert_int_equal(err.code, ERR_TOO_LARGE);
  assert_int_equal(append(log, 1, 1, 1, &err), 0);

  struct dlog_found second;
  assert_null(open_log(s, &second, &err));
  assert_int_equal(err.code, ERR_CONFLICT);
  char pid[64];
  snprintf(pid, sizeof pid, "process %ld", (long)getpid());
  assert_non_null(strstr(err.msg, pid));
  dlog_close(log);
  simdisk_free(s);
}

/* One entry larger than a usual segment. */
static void large_entries(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  size_t len = 300000;
  uint8_t *data = calloc(1, len);
  memset(data, 'x', len);
  for (uint64_t i = 1; i <= 3; i++) {
    struct raft_entry e = {.index = i, .term = 1, .type = RAFT_ENTRY_DATA, .data = data, .len = len};
    assert_int_equal(dlog_reserve(log, 1, len, &err), 0);
    assert_int_equal(dlog_write(log, NULL, &e, 1, &err), 0);
    sync_log(log);
  }
  dlog_close(log);
  log = open_log(s, &found, &err);
  assert_non_null(log);
  struct raft_entry e;
  struct buf got = BUF_INIT(1 << 20);
  assert_int_equal(dlog_read(log, 2, &e, &got, &err), 0);
  assert_int_equal(got.len, len);
  assert_memory_equal(got.data, data, len);
  buf_free(&got);
  free(data);
  dlog_close(log);
  simdisk_free(s);
}

/* ---------------------------------------------------------------- a workload under faults */

struct promise {
  uint64_t written, synced; /* last index a call said was written, synced */
  uint64_t term_written, term_synced, cut;
  bool ended;
  enum err_code code;
};

/* Writes batches with syncs between some of them, a term's end, a cut; stops at the first failure. */
static void workload(struct simdisk *s, struct promise *p) {
  struct dlog_found found;
  struct err err = {0};
  struct raft_stable stable;
  struct dlog *log = open_log(s, &found, &err);
  *p = (struct promise){0};
  bool ok = log != NULL;
  for (uint64_t i = 0; ok && i < 60; i++) {
    if (i % 20 == 0) {
      struct raft_hard hard = {1 + i / 20, i % 3};
      ok = dlog_write(log, &hard, NULL, 0, &err) == 0;
      if (ok)
        p->term_written = hard.term;
    }
    ok = ok && append(log, p->written + 1, 4, 1, &err) == 0;
    if (ok)
      p->written += 4;
    if (ok && i % 3 == 0) {
      ok = dlog_sync(log, &stable, NULL, &err) == 0;
      if (ok) {
        assert_int_equal(stable.index, p->written);
        p->synced = stable.index;
        p->term_synced = stable.hard.term;
      }
    }
    if (ok && i == 45) {
      ok = dlog_cut(log, 100, &err) == 0;
      p->cut = 100;
    }
  }
  p->ended = ok;
  p->code = ok ? ERR_NONE : err.code;
  if (!ok && log && err.code == ERR_IO) { /* final: nothing works any more */
    assert_int_equal(append(log, p->written + 1, 1, 1, &err), -1);
    assert_int_equal(dlog_sync(log, &stable, NULL, &err), -1);
  }
  dlog_close(log);
}

static void check_promise(struct simdisk *s, const struct promise *p, uint64_t n, const char *what) {
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  if (!log)
    fail_msg("%s at call %lu: %s", what, (unsigned long)n, err.msg);
  if (dlog_last(log) < p->synced || found.hard.term < p->term_synced)
    fail_msg("%s at call %lu: synced %lu in term %lu, found %lu in term %lu", what, (unsigned long)n, (unsigned long)p->synced,
             (unsigned long)p->term_synced, (unsigned long)dlog_last(log), (unsigned long)found.hard.term);
  assert_true(dlog_first(log) <= p->cut + 1);
  for (uint64_t i = dlog_first(log); i <= dlog_last(log); i++)
    check_entry(log, i, 1);
  /* and it goes on from there, twice over */
  uint64_t last = dlog_last(log);
  assert_int_equal(append(log, last + 1, 5, 1, &err), 0);
  sync_log(log);
  dlog_close(log);
  log = open_log(s, &found, &err);
  if (!log)
    fail_msg("%s at call %lu, then written to: %s", what, (unsigned long)n, err.msg);
  assert_int_equal(dlog_last(log), last + 5);
  assert_false(found.torn);
  dlog_close(log);
  assert_int_equal(dlog_verify(simdisk_disk(s), DIR, cluster, NULL, NULL, NULL, &err), 0);
}

enum end { KILL, POWER_CUT };

static void every_call_fails(enum simdisk_fault fault, enum end end, const char *what) {
  struct promise p;
  for (uint64_t n = 1;; n++) {
    struct simdisk *s = simdisk_new(n);
    simdisk_fail_at(s, n, fault);
    workload(s, &p);
    bool came = simdisk_has_failed(s);
    if (end == KILL)
      simdisk_kill(s);
    else
      simdisk_power_cut(s);
    check_promise(s, &p, n, what);
    simdisk_free(s);
    if (!came)
      break;
  }
}

static void each_call_fails_in_turn(void **state) {
  (void)state;
  every_call_fails(SIMDISK_EIO, KILL, "EIO");
  every_call_fails(SIMDISK_EIO, POWER_CUT, "EIO, power cut");
  every_call_fails(SIMDISK_TORN_EIO, KILL, "torn write");
  every_call_fails(SIMDISK_TORN_EIO, POWER_CUT, "torn write, power cut");
  every_call_fails(SIMDISK_ENOSPC, KILL, "ENOSPC");
  every_call_fails(SIMDISK_ENOSPC, POWER_CUT, "ENOSPC, power cut");
}

static void power_goes_at_each_call_in_turn(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 6; seed++) {
    for (uint64_t n = 1;; n++) {
      struct promise p;
      struct simdisk *s = simdisk_new(seed * 1000003 + n);
      simdisk_stop_at(s, n);
      workload(s, &p);
      bool came = simdisk_has_failed(s);
      simdisk_power_cut(s);
      check_promise(s, &p, n, "power cut");
      simdisk_free(s);
      if (!came)
        break;
    }
  }
}

static void full_disk_and_back(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(4);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  uint64_t last = 0;
  simdisk_set_full(s, true);
  while (append(log, last + 1, 10, 1, &err) == 0) {
    last += 10;
    assert_true(last < 10000);
  }
  assert_int_equal(err.code, ERR_NO_SPACE);
  assert_true(last > 0);
  assert_int_equal(dlog_last(log), last);
  struct raft_hard hard = {9, 1};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0); /* still room for that */
  sync_log(log);
  check_entry(log, last, 1);
  simdisk_set_full(s, false);
  assert_int_equal(append(log, last + 1, 10, 9, &err), 0);
  sync_log(log);
  dlog_close(log);
  log = open_log(s, &found, &err);
  assert_int_equal(found.last, last + 10);
  assert_int_equal(found.hard.term, 9);
  dlog_close(log);
  simdisk_free(s);
}

/* ---------------------------------------------------------------- damage */

static struct simdisk *filled(uint64_t *ret_last, int64_t *ret_used) {
  struct simdisk *s = simdisk_new(5);
  struct dlog_found found;
  struct err err = {0};
  struct dlog *log = open_log(s, &found, &err);
  struct raft_hard hard = {2, 1};
  assert_int_equal(dlog_write(log, &hard, NULL, 0, &err), 0);
  for (uint64_t i = 1; i <= 15; i++) {
    assert_int_equal(append(log, i, 1, 2, &err), 0);
    sync_log(log);
  }
  *ret_last = dlog_last(log);
  dlog_close(log);
  int64_t len;
  uint8_t *bytes = simdisk_bytes(s, FIRST, &len);
  while (len > 0 && bytes[len - 1] == 0)
    len--;
  *ret_used = len;
  return s;
}

static void count_fault(void *arg, const struct dlog_fault *f) {
  (void)f;
  ++*(int *)arg;
}

/* Every single flipped bit of what was synced is refused by name: also in the very last record. */
static void every_flipped_bit_is_named(void **state) {
  (void)state;
  uint64_t last;
  int64_t used;
  struct simdisk *s = filled(&last, &used);
  struct dlog_found found;
  struct err err = {0};
  for (int64_t at = 0; at < used; at++) {
    uint8_t *bytes = simdisk_bytes(s, FIRST, NULL), bit = (uint8_t)(1 << at % 8);
    int faults = 0;
    bytes[at] ^= bit;
    assert_null(open_log(s, &found, &err));
    if (err.code != ERR_CORRUPT || !strstr(err.msg, "0000000000000001.log"))
      fail_msg("offset %ld: %s", (long)at, err.msg);
    assert_true(dlog_verify(simdisk_disk(s), DIR, cluster, count_fault, &faults, NULL, &err) > 0);
    assert_true(faults > 0);
    bytes[at] ^= bit;
  }
  struct dlog *log = open_log(s, &found, &err);
  assert_non_null(log);
  assert_int_equal(found.last, last);
  dlog_close(log);

  /* the tail zeroed, the file cut short, the file gone: each had been synced */
  uint8_t *bytes = simdisk_bytes(s, FIRST, NULL), saved[65536];
  memcpy(saved, bytes, sizeof saved);
  memset(bytes + used / 2, 0, (size_t)(used - used / 2));
  assert_null(open_log(s, &found, &err));
  assert_int_equal(err.code, ERR_CORRUPT);
  simdisk_set(s, FIRST, saved, used - 100);
  assert_null(open_log(s, &found, &err));
  assert_int_equal(err.code, ERR_CORRUPT);
  simdisk_disk(s)->unlink(simdisk_disk(s), FIRST);
  assert_null(open_log(s, &found, &err));
  assert_int_equal(err.code, ERR_CORRUPT);
  simdisk_free(s);
}

/* Without the hint (lost with the power) flips are still seen, but zeros at the very end cannot be told from a torn write. */
static void flipped_bits_without_the_hint(void **state) {
  (void)state;
  uint64_t last;
  int64_t used;
  struct simdisk *s = filled(&last, &used);
  struct dlog_found found;
  struct err err = {0};
  memset(simdisk_bytes(s, HINT, NULL), 0, DLOG_HINT_BYTES);
  for (int64_t at = 0; at < used; at++) {
    uint8_t *bytes = simdisk_bytes(s, FIRST, NULL);
    bytes[at] ^= 0x10;
    assert_null(open_log(s, &found, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    bytes[at] ^= 0x10;
  }
  simdisk_free(s);
}

static void foreign_and_newer(void **state) {
  (void)state;
  uint64_t last;
  int64_t used;
  struct simdisk *s = filled(&last, &used);
  struct dlog_options o = {.dir = DIR, .disk = simdisk_disk(s), .cluster_id = "another cluster"};
  struct dlog *log;
  struct dlog_found found;
  struct err err = {0};
  assert_int_equal(dlog_open(&log, &o, &found, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
  assert_non_null(strstr(err.msg, "another cluster"));

  uint8_t *bytes = simdisk_bytes(s, FIRST, NULL);
  bytes[8] = 2;
  uint32_t crc = crypto_crc32c(0, bytes, 60);
  for (int i = 0; i < 4; i++)
    bytes[60 + i] = (uint8_t)(crc >> (8 * i));
  assert_null(open_log(s, &found, &err));
  assert_int_equal(err.code, ERR_UNSUPPORTED);
  assert_non_null(strstr(err.msg, "log format 2"));
  simdisk_free(s);
}

/* ---------------------------------------------------------------- two threads, a real disk */

struct syncer {
  struct dlog *log;
  pthread_mutex_t lock;
  uint64_t stable;
  bool stop;
};

static void *sync_all_the_time(void *arg) {
  struct syncer *y = arg;
  for (;;) {
    struct raft_stable stable;
    struct err err = {0};
    pthread_mutex_lock(&y->lock);
    bool stop = y->stop; /* set behind the last write: the sync after it covers all */
    pthread_mutex_unlock(&y->lock);
    if (dlog_sync(y->log, &stable, NULL, &err) < 0)
      return strdup(err.msg);
    pthread_mutex_lock(&y->lock);
    y->stable = stable.index;
    pthread_mutex_unlock(&y->lock);
    if (stop)
      return NULL;
  }
}

static void writing_beside_syncing(void **state) {
  (void)state;
  char dir[] = "/tmp/test_log_XXXXXX", path[512];
  assert_non_null(mkdtemp(dir));
  struct dlog_options o = {.segment_size = 65536};
  snprintf(path, sizeof path, "%s/log", dir);
  o.dir = path;
  struct dlog_found found;
  struct err err = {0};
  struct syncer y = {.lock = PTHREAD_MUTEX_INITIALIZER};
  if (dlog_open(&y.log, &o, &found, &err) < 0)
    fail_msg("%s", err.msg);
  pthread_t thread;
  pthread_create(&thread, NULL, sync_all_the_time, &y);
  for (uint64_t i = 1; i <= 4000; i += 8) {
    assert_int_equal(append(y.log, i, 8, 1, &err), 0);
    if (i % 400 == 1) {
      pthread_mutex_lock(&y.lock);
      uint64_t stable = y.stable;
      pthread_mutex_unlock(&y.lock);
      assert_int_equal(dlog_cut(y.log, stable > 200 ? stable - 200 : 0, &err), 0);
      check_entry(y.log, i, 1);
    }
  }
  pthread_mutex_lock(&y.lock);
  y.stop = true;
  pthread_mutex_unlock(&y.lock);
  void *failed;
  pthread_join(thread, &failed);
  if (failed)
    fail_msg("%s", (char *)failed);
  assert_int_equal(y.stable, 4000);

  struct dlog *second;
  assert_int_equal(dlog_open(&second, &o, &found, &err), -1);
  assert_int_equal(err.code, ERR_CONFLICT);
  dlog_close(y.log);
  assert_int_equal(dlog_open(&y.log, &o, &found, &err), 0);
  assert_int_equal(found.last, 4000);
  check_entry(y.log, 4000, 1);
  assert_int_equal(dlog_cut(y.log, 4000, &err), 0);
  uint64_t number = 1;
  dlog_close(y.log);
  for (; number < 200; number++) {
    char name[DLOG_NAME_MAX], file[600];
    dlog_name(name, number);
    snprintf(file, sizeof file, "%s/%s", path, name);
    unlink(file);
  }
  char file[600];
  snprintf(file, sizeof file, "%s/lock", path);
  unlink(file);
  snprintf(file, sizeof file, "%s/synced", path);
  unlink(file);
  assert_int_equal(rmdir(path), 0);
  assert_int_equal(rmdir(dir), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(write_and_read_back), cmocka_unit_test(a_reset_behind_a_replaced_tail), cmocka_unit_test(bad_batches_are_refused),
      cmocka_unit_test(large_entries),       cmocka_unit_test(each_call_fails_in_turn),        cmocka_unit_test(power_goes_at_each_call_in_turn),
      cmocka_unit_test(full_disk_and_back),  cmocka_unit_test(every_flipped_bit_is_named),     cmocka_unit_test(flipped_bits_without_the_hint),
      cmocka_unit_test(foreign_and_newer),   cmocka_unit_test(writing_beside_syncing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
