/* A log folder with anything in it: verify and open must end in an answer, and what opens must go on and open again the same. Snapshots' metadata
 * too. Even first byte: the rest is a segment's bytes. Odd: the rest says what records to write, then what to spoil. */
#include <stdlib.h>
#include <string.h>

#include "orca-store/log.h"
#include "orca-store/log_format.h"
#include "orca-store/snapshot.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/simdisk.c"

#define SEGMENT 16384

static const uint8_t cluster[DLOG_CLUSTER_ID] = "fuzzed";

static size_t records(const uint8_t *data, size_t size, uint8_t *seg) {
  size_t at = DLOG_HEADER;
  uint8_t payload[256];
  memset(payload, 'p', sizeof payload);
  while (size >= 6 && at < SEGMENT - 1024) {
    struct dlog_record rec = {.type = (enum dlog_type)(data[0] % 4),
                              .entry_type = (enum raft_entry_type)(data[1] % 5),
                              .index = data[2],
                              .term = data[3],
                              .data = payload,
                              .len = data[4]};
    rec.synced = dlog_position(1, data[5] * 64u);
    rec.last_term = data[3];
    rec.vote = data[1];
    if (rec.type == DLOG_RESET)
      rec.len = 0;
    at += dlog_put_record(seg + at, 1, at, &rec);
    data += 6;
    size -= 6;
    if (size >= 3 && data[0] == 0xff) { /* spoil a byte of what there is */
      seg[(size_t)(data[1] << 8 | data[2]) % at] ^= 0x40;
      data += 3;
      size -= 3;
    }
  }
  return SEGMENT;
}

static void go_on(struct simdisk *s, struct dlog_options *o) {
  struct dlog *log;
  struct dlog_found found, again;
  struct raft_stable stable;
  struct err err = {0};
  if (dlog_open(&log, o, &found, &err) < 0)
    return;
  struct buf buf = BUF_INIT(1 << 20);
  struct raft_entry e = {.type = RAFT_ENTRY_DATA, .data = "abc", .len = 3};
  for (uint64_t i = dlog_first(log); i <= dlog_last(log) && i - dlog_first(log) < 1000; i++) {
    buf_reset(&buf);
    if (dlog_read(log, i, &e, &buf, &err) < 0)
      abort();
  }
  uint64_t last = dlog_last(log);
  e = (struct raft_entry){.index = last + 1, .term = found.hard.term + 1, .type = RAFT_ENTRY_DATA, .data = "abc", .len = 3};
  bool wrote = last < UINT64_MAX / 2 && found.hard.term < UINT64_MAX / 2 && dlog_reserve(log, 1, 3, &err) == 0 &&
               dlog_write(log, NULL, &e, 1, &err) == 0 && dlog_sync(log, &stable, NULL, &err) == 0;
  dlog_close(log);
  buf_free(&buf);
  if (!wrote)
    return;
  simdisk_power_cut(s);
  if (dlog_open(&log, o, &again, &err) < 0 || dlog_last(log) != last + 1)
    abort();
  dlog_close(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t seg[SEGMENT + 1024];
  struct simdisk *s = simdisk_new(1);
  struct dlog_options o = {.dir = "log", .disk = simdisk_disk(s), .segment_size = 65536};
  struct err err;
  memcpy(o.cluster_id, cluster, sizeof cluster);
  memset(seg, 0, sizeof seg);
  dlog_put_header(seg, 1, cluster);
  if (size > 0) {
    size_t len = size - 1 < SEGMENT - DLOG_HEADER ? size - 1 : SEGMENT - DLOG_HEADER;
    if (data[0] & 1) {
      len = records(data + 1, size - 1, seg);
      simdisk_set(s, "log/0000000000000001.log", seg, (int64_t)len);
    } else if (data[0] & 2) { /* the header too */
      simdisk_set(s, "log/0000000000000001.log", data + 1, (int64_t)(size - 1));
    } else {
      memcpy(seg + DLOG_HEADER, data + 1, len);
      simdisk_set(s, "log/0000000000000001.log", seg, (int64_t)(DLOG_HEADER + len));
    }
    if (data[0] & 4)
      simdisk_set(s, "log/synced", data + 1, (int64_t)(size - 1));
    simdisk_set(s, "snap/0000000000000001-0000000000000002.meta", data, (int64_t)size);
  }
  struct dlog_summary sum;
  dlog_verify(&s->disk, "log", NULL, NULL, NULL, &sum, &err);
  go_on(s, &o);
  struct snapshot_meta meta;
  char path[SNAPSHOT_PATH_MAX];
  if (snapshot_newest(&s->disk, "snap", NULL, true, &meta, path, NULL, NULL, &err) == 1)
    abort(); /* there is no .snap */
  simdisk_free(s);
  return 0;
}
