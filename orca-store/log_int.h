/* What the log's own files share: an open log and its segments. Not for anyone else. */
#ifndef ORCA_STORE_LOG_INT_H
#define ORCA_STORE_LOG_INT_H

#include <pthread.h>

#include "orca-store/log_format.h"

struct dlog_segment {
  uint64_t number, size, used, max_index;
  uint64_t synced; /* bytes of `used` that a sync has covered */
  bool busy;       /* a sync has its handle */
  int fd;
};

/* The owner's thread alone changes segments' number and order, and the state; it does so under the lock where the syncing thread looks:
 * segments, spare, mark, ticket, synced, poisoned. */
struct dlog {
  char *dir;
  struct disk *disk;
  uint8_t cluster_id[DLOG_CLUSTER_ID];
  uint64_t segment_size;
  int lock_fd, hint_fd;
  struct dlog_state state;
  uint8_t *batch;
  size_t cap_batch;

  pthread_mutex_t lock;
  pthread_cond_t made;
  struct dlog_segment *segs; /* the last is written to */
  size_t n_segs, cap_segs;
  struct dlog_segment spare; /* made ahead; number 0: none */
  bool making;
  struct raft_stable mark;
  uint64_t ticket, synced_ticket;
  uint64_t synced; /* position */
  bool poisoned;
};

static inline struct dlog_segment *dlog_active(struct dlog *log) {
  return &log->segs[log->n_segs - 1];
}

/* log.c */
int dlog_segment_path(const struct dlog *log, uint64_t number, char *out, size_t cap, struct err *err);
/* A segment in place and durable, its blocks reserved, or nothing. */
int dlog_make_segment(struct dlog *log, uint64_t number, uint64_t size, struct dlog_segment *ret, struct err *err);
int dlog_push_segment(struct dlog *log, const struct dlog_segment *seg, struct err *err);

/* log_recover.c: once, in this order, before anyone else knows the log. */
int dlog_take_lock(struct dlog *log, struct err *err);
int dlog_recover(struct dlog *log, struct dlog_found *found, struct err *err);

#endif
