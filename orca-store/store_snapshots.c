/* Snapshots of the map, and copies for whoever asks: when one is due, the thread that makes it, and what of the log may then go. */
#include "orca-store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orca-store/disk.h"

#define SNAPSHOT_ENTRIES UINT64_C(100000)
#define SNAPSHOT_BYTES ((uint64_t)64 << 20)
#define SNAPSHOTS_KEPT 2u

static void job_ended(void *arg);

static int copy_out(struct store_job *job, struct kv *kv) {
  if (kv_copy(kv, job->path, &job->err) < 0)
    return -1;
  job->fd = open(job->path, O_RDONLY | O_CLOEXEC);
  if (job->fd < 0)
    return err_errno(&job->err, errno, "%s", job->path);
  unlink(job->path);
  return 0;
}

/* What a copy holds is known only once it is there: the map went on while the thread came to life. */
static int copy_for_snapshot(struct store_job *job, struct kv *kv) {
  struct kv_state state;
  if (kv_copy(kv, job->path, &job->err) < 0 || kv_copy_state(job->path, &state, &job->err) < 0)
    return -1;
  job->meta.raft.index = state.applied_index;
  job->meta.raft.term = state.applied_term;
  job->meta.revision = state.revision;
  return 0;
}

static void *work(void *arg) {
  struct store *s = arg;
  struct store_job *job = &s->snapshots.job;
  int rc = -1;
  switch (job->kind) {
  case JOB_COPY:
    rc = copy_for_snapshot(job, s->kv);
    break;
  case JOB_COPY_OUT:
    rc = copy_out(job, s->kv);
    break;
  case JOB_COMMIT:
    rc = snapshot_commit(disk_posix(), s->snap_dir, job->path, &job->meta, NULL, &job->err);
    if (rc == 0)
      rc = snapshot_clean(disk_posix(), s->snap_dir, SNAPSHOTS_KEPT, &job->err);
    break;
  }
  job->failed = rc < 0;
  loop_post(s->loop, job_ended, s);
  return NULL;
}

static int start_job(struct store *s, struct err *err) {
  int rc = pthread_create(&s->snapshots.worker, NULL, work, s);
  if (rc)
    return err_errno(err, rc, "a thread for snapshots");
  s->snapshots.runs = true;
  return 0;
}

static void snapshot_failed(struct store *s, const struct err *err) {
  unlink(s->snapshots.job.path);
  s->ops->note(s->arg, "snapshot failed, trying again in 10 s", err->msg);
  s->snapshots.not_before = loop_now(s->loop) + 10 * NS_PER_SEC;
}

static void begin_snapshot(struct store *s) {
  struct err err;
  s->snapshots.job = (struct store_job){.kind = JOB_COPY, .fd = -1};
  if (snapshot_begin(disk_posix(), s->snap_dir, s->snapshots.job.path, &err) < 0 || start_job(s, &err) < 0)
    snapshot_failed(s, &err);
  else
    s->snapshots.bytes = 0;
}

void store_snapshots_logged(struct store *s, size_t bytes) {
  s->snapshots.bytes += bytes;
}

void store_snapshots_consider(struct store *s) {
  uint64_t applied = kv_state(s->kv)->applied_index;
  if (!s->snapshots.runs && loop_now(s->loop) >= s->snapshots.not_before &&
      (applied - s->snapshots.newest >= s->snapshots.each_entries || s->snapshots.bytes >= s->snapshots.each_bytes))
    begin_snapshot(s);
}

static void copied(struct store *s) {
  struct err err;
  const struct raft_members *members = raft_members_at(s->raft, s->snapshots.job.meta.raft.index);
  if (!members) {
    err_set(&err, ERR_INTERNAL, "the members as of entry %" PRIu64 " are not known", s->snapshots.job.meta.raft.index);
    snapshot_failed(s, &err);
    return;
  }
  s->snapshots.job.meta.raft.members = *members;
  memcpy(s->snapshots.job.meta.cluster_id, s->cluster_id, sizeof s->cluster_id);
  s->snapshots.job.meta.data_format = KV_FORMAT;
  s->snapshots.job.kind = JOB_COMMIT;
  if (start_job(s, &err) < 0)
    snapshot_failed(s, &err);
}

/* The log is cut behind the snapshot before the newest: should that one turn out damaged, the older one and the log still make the state. */
static void snapshot_made(struct store *s) {
  struct err err;
  s->snapshots.before = s->snapshots.newest;
  s->snapshots.newest = s->snapshots.job.meta.raft.index;
  char text[96];
  snprintf(text, sizeof text, "entry %" PRIu64 ", revision %" PRIu64 ", %" PRIu64 " bytes", s->snapshots.newest, s->snapshots.job.meta.revision,
           s->snapshots.job.meta.size);
  s->ops->note(s->arg, "snapshot made", text);
  if (s->snapshots.before && dlog_cut(s->log, s->snapshots.before, &err) < 0) {
    if (err.code != ERR_NO_SPACE) {
      store_fatal(s, &err);
      return;
    }
    s->ops->note(s->arg, "the log was not cut", err.msg);
  }
  struct raft_event ev = {.type = RAFT_EV_COMPACTED, .snapshot = &s->snapshots.job.meta.raft};
  store_step(s, &ev);
}

static void job_ended(void *arg) {
  struct store *s = arg;
  if (!s->snapshots.runs)
    return;
  pthread_join(s->snapshots.worker, NULL);
  s->snapshots.runs = false;
  struct store_job *job = &s->snapshots.job;
  if (s->stopping)
    return;
  if (job->kind == JOB_COPY_OUT) {
    store_copy_fn *done = job->done;
    job->done = NULL;
    done(job->arg, job->failed ? -1 : job->fd, job->failed ? &job->err : NULL);
  } else if (job->failed) {
    snapshot_failed(s, &job->err);
  } else if (job->kind == JOB_COPY) {
    copied(s);
  } else {
    snapshot_made(s);
  }
}

int store_copy(struct store *s, store_copy_fn *done, void *arg, struct err *err) {
  if (s->snapshots.runs)
    return err_set(err, ERR_BUSY, "a snapshot is being made: try again");
  s->snapshots.job = (struct store_job){.kind = JOB_COPY_OUT, .fd = -1, .done = done, .arg = arg};
  if (snapshot_begin(disk_posix(), s->snap_dir, s->snapshots.job.path, err) < 0)
    return -1;
  return start_job(s, err);
}

void store_snapshots_init(struct store *s, uint64_t each_entries, uint64_t each_bytes) {
  s->snapshots.each_entries = each_entries ? each_entries : SNAPSHOT_ENTRIES;
  s->snapshots.each_bytes = each_bytes ? each_bytes : SNAPSHOT_BYTES;
}

void store_snapshots_stop(struct store *s) {
  if (!s->snapshots.runs)
    return;
  pthread_join(s->snapshots.worker, NULL);
  s->snapshots.runs = false;
  loop_post_cancel(s->loop, job_ended, s); /* what it posted must not find the store freed */
  if (s->snapshots.job.fd >= 0)
    close(s->snapshots.job.fd);
}
