/* The key-value state machine in a folder of its own: what its tests stand on. */
#ifndef ORCA_TESTS_UNIT_STORE_KV_RIG_H
#define ORCA_TESTS_UNIT_STORE_KV_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bus/pb.h"
#include "orca-store/kv.h"

struct rig {
  char dir[64];
  struct kv_options options;
  struct kv *kv;
  uint64_t index; /* of the last entry that was applied */
  uint64_t rng;
};

static inline void rig_open(struct rig *r) {
  struct err err;
  r->kv = kv_open(r->dir, &r->options, &err);
  if (!r->kv)
    fail_msg("%s", err.msg);
}

/* rig_fini() closes it and removes its folder. */
static inline void rig_init(struct rig *r, const struct kv_options *options, uint64_t seed) {
  *r = (struct rig){.dir = "/tmp/orca-kv-XXXXXX", .options = *options, .rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
  assert_non_null(mkdtemp(r->dir));
  rig_open(r);
}

static inline void rig_reopen(struct rig *r) {
  kv_close(r->kv);
  rig_open(r);
}

static inline void rig_fini(struct rig *r) {
  struct err err;
  kv_close(r->kv);
  assert_int_equal(kv_discard(r->dir, &err), 0);
  assert_int_equal(rmdir(r->dir), 0);
}

static inline uint64_t rnd(struct rig *r, uint64_t n) {
  r->rng ^= r->rng << 13;
  r->rng ^= r->rng >> 7;
  r->rng ^= r->rng << 17;
  return r->rng % n;
}

static inline ProtobufCBinaryData bytes(const char *s) {
  return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

/* The call as an entry of the log, proposed at that time; the caller frees it. */
static inline struct buf entry_of(const Store__Call *call, uint64_t time_ms) {
  struct buf packed = BUF_INIT(1 << 24), entry = BUF_INIT(1 << 24);
  assert_int_equal(pb_pack(&call->base, &packed), 0);
  assert_int_equal(kv_command(&entry, time_ms, packed.data, packed.len), 0);
  buf_free(&packed);
  return entry;
}

static inline void free_result(struct kv_result *result) {
  if (result->reply)
    store__reply__free_unpacked(result->reply, NULL);
}

/* One command as one batch. The caller frees the result. */
static inline struct kv_result apply(struct rig *r, const Store__Call *call) {
  struct buf entry = entry_of(call, 1000 + r->index);
  struct kv_result result;
  struct err err;
  /* Sometimes the batch is aborted first: it must leave no trace. */
  for (int attempt = rnd(r, 8) == 0 ? 0 : 1; attempt < 2; attempt++) {
    assert_int_equal(kv_begin(r->kv, entry.len, 1, &err), 0);
    if (kv_apply(r->kv, r->index + 1, 1, entry.data, entry.len, &result, &err) < 0)
      fail_msg("%s", err.msg);
    if (attempt == 0) {
      kv_abort(r->kv);
      free_result(&result);
    } else if (kv_commit(r->kv, &err) < 0) {
      fail_msg("%s", err.msg);
    }
  }
  r->index++;
  buf_free(&entry);
  return result;
}

/* For kv_verify() of what has no fault. */
static inline void no_fault(void *arg, const char *what) {
  (void)arg;
  fail_msg("%s", what);
}

#endif
