/* Snapshot files: whole or not there, each call failing or the power going at it in turn; damage is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "orca-store/snapshot.h"
#include "tests/lib/simdisk.h"

#define DIR "snap"

static const uint8_t cluster[SNAPSHOT_CLUSTER_ID] = "a-cluster-of-two";

static int make(struct simdisk *s, uint64_t index, uint64_t term, size_t len, struct err *err) {
  struct disk *d = simdisk_disk(s);
  struct snapshot_meta meta = {.raft = {.index = index, .term = term}, .revision = index * 2, .data_format = 3};
  char path[SNAPSHOT_PATH_MAX];
  uint8_t data[3000];
  memcpy(meta.cluster_id, cluster, sizeof cluster);
  meta.raft.members.n = 1;
  meta.raft.members.m[0] = (struct raft_member){.id = 7, .voter = true, .address = "tcp://10.0.0.1:6883"};
  memset(data, (int)index, sizeof data);
  if (snapshot_begin(d, DIR, path, err) < 0)
    return -1;
  int fd = d->open(d, path, DISK_CREATE_NEW);
  if (fd < 0)
    return err_errno(err, -fd, "%s", path);
  int rc = disk_write_at(d, fd, data, len, 0);
  d->close(d, fd);
  return rc < 0 ? err_errno(err, -rc, "%s", path) : snapshot_commit(d, DIR, path, &meta, NULL, err);
}

static void count(void *arg, const char *file, const char *text) {
  (void)file;
  (void)text;
  ++*(int *)arg;
}

static void newest_whole_one(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct disk *d = simdisk_disk(s);
  struct snapshot_meta m;
  char path[SNAPSHOT_PATH_MAX];
  struct err err = {0};
  int skipped = 0;
  assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, count, &skipped, &err), 0);
  assert_int_equal(make(s, 10, 1, 1000, &err), 0);
  assert_int_equal(make(s, 30, 2, 3000, &err), 0);
  assert_int_equal(make(s, 20, 2, 0, &err), 0);
  assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, count, &skipped, &err), 1);
  assert_int_equal(m.raft.index, 30);
  assert_int_equal(m.raft.term, 2);
  assert_int_equal(m.revision, 60);
  assert_int_equal(m.size, 3000);
  assert_int_equal(m.data_format, 3);
  assert_string_equal(m.raft.members.m[0].address, "tcp://10.0.0.1:6883");
  assert_string_equal(path, DIR "/0000000000000002-000000000000001e.snap");
  assert_int_equal(make(s, 30, 2, 3000, &err), 0); /* the same once more: the first stays */
  assert_int_equal(skipped, 0);

  simdisk_bytes(s, path, NULL)[1234] ^= 4;
  assert_int_equal(snapshot_newest(d, DIR, cluster, false, &m, path, count, &skipped, &err), 1);
  assert_int_equal(m.raft.index, 30); /* not looked at */
  assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, count, &skipped, &err), 1);
  assert_int_equal(m.raft.index, 20);
  assert_int_equal(skipped, 1);
  assert_int_equal(snapshot_verify(d, DIR, NULL, NULL, NULL, &err), 1);
  assert_int_equal(make(s, 30, 2, 3000, &err), 0); /* a damaged one is replaced */
  size_t whole;
  assert_int_equal(snapshot_verify(d, DIR, NULL, NULL, &whole, &err), 0);
  assert_int_equal(whole, 3);

  assert_int_equal(snapshot_clean(d, DIR, 2, &err), 0);
  assert_int_equal(snapshot_verify(d, DIR, NULL, NULL, &whole, &err), 0);
  assert_int_equal(whole, 2);
  assert_int_equal(snapshot_newest(d, DIR, (const uint8_t *)"another cluster!", true, &m, path, NULL, NULL, &err), -1);
  assert_int_equal(err.code, ERR_INVALID);
  simdisk_free(s);
}

static void wrong_hash_is_refused(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct disk *d = simdisk_disk(s);
  struct snapshot_meta meta = {.raft = {.index = 5, .term = 1, .members = {.n = 1, .m = {{.id = 1, .voter = true}}}}};
  uint8_t sha[32] = {1};
  char path[SNAPSHOT_PATH_MAX];
  struct err err = {0};
  assert_int_equal(snapshot_begin(d, DIR, path, &err), 0);
  simdisk_set(s, path, "abc", 3);
  assert_int_equal(snapshot_commit(d, DIR, path, &meta, sha, &err), -1);
  assert_int_equal(err.code, ERR_CORRUPT);
  assert_int_equal(snapshot_newest(d, DIR, NULL, true, &meta, path, NULL, NULL, &err), 0);
  simdisk_free(s);
}

static void every_flipped_bit_is_seen(void **state) {
  (void)state;
  struct simdisk *s = simdisk_new(1);
  struct disk *d = simdisk_disk(s);
  struct snapshot_meta m;
  char path[SNAPSHOT_PATH_MAX];
  struct err err = {0};
  assert_int_equal(make(s, 16, 1, 300, &err), 0);
  static const char *const files[] = {DIR "/0000000000000001-0000000000000010.snap", DIR "/0000000000000001-0000000000000010.meta"};
  for (size_t f = 0; f < 2; f++) {
    int64_t len;
    simdisk_bytes(s, files[f], &len);
    for (int64_t at = 0; at < len; at++) {
      simdisk_bytes(s, files[f], NULL)[at] ^= (uint8_t)(1 << at % 8);
      assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, NULL, NULL, &err), -1);
      assert_int_equal(err.code, ERR_CORRUPT);
      assert_int_equal(snapshot_verify(d, DIR, NULL, NULL, NULL, &err), 1);
      simdisk_bytes(s, files[f], NULL)[at] ^= (uint8_t)(1 << at % 8);
    }
  }
  assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, NULL, NULL, &err), 1);
  d->unlink(d, files[0]);
  assert_int_equal(snapshot_newest(d, DIR, cluster, true, &m, path, NULL, NULL, &err), -1);
  assert_int_equal(err.code, ERR_CORRUPT);
  simdisk_free(s);
}

/* An old one is there, a second is made and the old one removed, something fails at call n: whatever was committed is whole, and there is always one.
 */
static void a_fault_at_each_call(void **state) {
  (void)state;
  for (int kind = 0; kind < 8; kind++) {
    for (uint64_t n = 1;; n++) {
      struct simdisk *s = simdisk_new(n * 8 + (uint64_t)kind);
      struct disk *d = simdisk_disk(s);
      struct snapshot_meta m;
      struct err err = {0};
      char path[SNAPSHOT_PATH_MAX];
      assert_int_equal(make(s, 1, 1, 700, &err), 0);
      if (kind < 6)
        simdisk_fail_at(s, n, (enum simdisk_fault)(kind / 2));
      else
        simdisk_stop_at(s, n);
      uint64_t committed = 1;
      if (make(s, 2, 1, 900, &err) == 0) {
        committed = 2;
        if (snapshot_clean(d, DIR, 1, &err) == 0 && make(s, 3, 1, 500, &err) == 0)
          committed = 3;
      }
      bool came = simdisk_has_failed(s);
      if (kind % 2)
        simdisk_power_cut(s);
      else
        simdisk_kill(s);
      if (snapshot_newest(d, DIR, cluster, true, &m, path, NULL, NULL, &err) != 1)
        fail_msg("kind %d at call %lu: %s", kind, (unsigned long)n, err.msg);
      assert_true(m.raft.index >= committed);
      assert_int_equal(snapshot_clean(d, DIR, 1, &err), 0);
      assert_int_equal(make(s, 4, 1, 100, &err), 0);
      simdisk_free(s);
      if (!came)
        break;
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(newest_whole_one),
      cmocka_unit_test(wrong_hash_is_refused),
      cmocka_unit_test(every_flipped_bit_is_seen),
      cmocka_unit_test(a_fault_at_each_call),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
