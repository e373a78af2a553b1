#include "orca-store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/daemon/daemon.h"
#include "orca-store/mark.h"

void store_fatal(struct store *s, const struct err *err) {
  s->stopping = true;
  s->ops->fatal(s->arg, err);
}

void store_note_fault(struct store *s, const struct err *err) {
  if (err->code == ERR_NO_SPACE) {
    if (!s->fault[0])
      s->ops->note(s->arg, "writes are refused", err->msg);
    snprintf(s->fault, sizeof s->fault, "writes are refused: %.200s", err->msg);
  } else if (err->code == ERR_NONE && s->fault[0]) {
    s->fault[0] = 0;
    s->ops->note(s->arg, "writes are taken again", "there is room");
  }
}

void store_set_timer(struct store *s, struct loop_timer *timer, int64_t at) {
  struct err err;
  if (at == INT64_MAX)
    loop_timer_cancel(s->loop, timer);
  else if (loop_timer_at(s->loop, timer, at, &err) < 0)
    store_fatal(s, &err);
}

struct kv *store_kv(struct store *s) {
  return s->kv;
}

void store_check(struct store *s, const struct err *err) {
  if (err->code == ERR_CORRUPT)
    store_fatal(s, err);
}

bool store_is_leader(const struct store *s) {
  return raft_role(s->raft) == RAFT_LEADER;
}

void store_status(struct store *s, Store__StatusReply *r) {
  const struct kv_state *st = kv_state(s->kv);
  uint64_t size, used;
  kv_sizes(s->kv, &size, &used);
  r->node = s->node;
  r->version = (char *)(uintptr_t)ORCA_VERSION;
  PB_SET(r, leader, store_is_leader(s));
  r->leader_node = store_is_leader(s) ? s->node : NULL;
  PB_SET(r, term, raft_term(s->raft));
  PB_SET(r, commit_index, raft_commit(s->raft));
  PB_SET(r, applied_index, st->applied_index);
  PB_SET(r, revision, st->revision);
  PB_SET(r, compact_revision, st->compact_revision);
  PB_SET(r, db_size, size);
  PB_SET(r, db_used, used);
  PB_SET(r, log_size, dlog_bytes(s->log));
  PB_SET(r, keys, st->keys);
  if (s->fault[0])
    r->fault = s->fault;
}

/* What was refused may still look for its lease: the leader's part goes after the intake's. */
static void close_all(struct store *s) {
  store_intake_fini(s);
  store_apply_fini(s);
  store_leader_fini(s);
  store_step_fini(s);
  raft_free(s->raft);
  kv_close(s->kv);
  dlog_close(s->log);
  buf_free(&s->scratch);
  free(s->dir);
  free(s->node);
  free(s);
}

static int set_paths(struct store *s, struct err *err) {
  int a = snprintf(s->log_dir, sizeof s->log_dir, "%s/log", s->dir), b = snprintf(s->kv_dir, sizeof s->kv_dir, "%s/kv", s->dir),
      c = snprintf(s->snap_dir, sizeof s->snap_dir, "%s/snapshots", s->dir);
  if (a < 0 || b < 0 || c < 0 || (size_t)c >= sizeof s->snap_dir - 64)
    return err_set(err, ERR_INVALID, "path too long: %s", s->dir);
  if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
    return err_errno(err, errno, "%s", s->dir);
  return 0;
}

struct store *store_open(const struct store_options *o, struct err *err) {
  struct store *s = calloc(1, sizeof *s);
  if (!s) {
    err_set(err, ERR_MEMORY, "out of memory");
    return NULL;
  }
  *s = (struct store){.loop = o->loop,
                      .ops = o->ops,
                      .arg = o->arg,
                      .dir = strdup(o->dir),
                      .node = strdup(o->node),
                      .map_size = o->map_size,
                      .scratch = BUF_INIT(RAFT_ENTRY_MAX)};
  store_intake_init(s);
  store_step_init(s);
  store_apply_init(s);
  store_snapshots_init(s, o->snapshot_entries, o->snapshot_bytes);
  uint8_t hash[32];
  crypto_sha256(o->cluster_id, strlen(o->cluster_id), hash);
  memcpy(s->cluster_id, hash, sizeof s->cluster_id);
  if (store_leader_init(s, err) < 0)
    goto failed;
  if (!s->dir || !s->node) {
    err_set(err, ERR_MEMORY, "out of memory");
    goto failed;
  }
  if (set_paths(s, err) < 0 || store_recover(s, o->address, err) < 0 || store_step_start(s, err) < 0)
    goto failed;
  return s;
failed:
  close_all(s);
  return NULL;
}

int store_close(struct store *s, struct err *err) {
  if (!s)
    return 0;
  bool clean = !s->stopping;
  s->stopping = true;
  int rc = 0;
  struct raft_stable stable;
  uint64_t ticket;
  store_snapshots_stop(s);
  store_step_stop(s);
  if (clean)
    rc = dlog_sync(s->log, &stable, &ticket, err) < 0 || kv_sync(s->kv, err) < 0 || mark_write(s->dir, true, err) < 0 ? -1 : 0;
  close_all(s);
  return rc;
}
