#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "orca-store/disk.h"
#include "orca-store/kv.h"
#include "orca-store/log.h"
#include "orca-store/snapshot.h"
#include "orca-store/storectl/storectl.h"

struct verifying {
  uint64_t faults;
};

static void log_fault(void *arg, const struct dlog_fault *f) {
  struct verifying *v = arg;
  if (!f->torn)
    v->faults++;
  printf("log/%s: offset %" PRIu64 ", entry %" PRIu64 ": %s%s\n", f->file, f->offset, f->index, f->text,
         f->torn ? " (an unfinished write, no damage)" : "");
}

static void snapshot_fault(void *arg, const char *file, uint64_t offset, const char *text) {
  struct verifying *v = arg;
  v->faults++;
  printf("snapshots/%s: offset %" PRIu64 ": %s\n", file, offset, text);
}

static void map_fault(void *arg, const char *what) {
  struct verifying *v = arg;
  v->faults++;
  printf("kv: %s\n", what);
}

static int join(char out[4096], const char *dir, const char *name) {
  int n = snprintf(out, 4096, "%s/%s", dir, name);
  return n < 0 || n >= 4096 ? -1 : 0;
}

int sctl_verify(struct sctl *ctl) {
  struct verifying v = {0};
  struct dlog_summary log = {0};
  struct err err;
  char path[4096];
  struct stat st;
  if (ctl->argc != 1 || join(path, ctl->argv[0], "snapshots") < 0)
    return sctl_usage("verify: one DIR");
  if (join(path, ctl->argv[0], "log") < 0 || stat(path, &st) < 0) {
    err_set(&err, ERR_NOT_FOUND, "%s is not a store's folder: it has no log/", ctl->argv[0]);
    return sctl_fail(&err);
  }
  if (dlog_verify(disk_posix(), path, NULL, log_fault, &v, &log, &err) < 0)
    return sctl_fail(&err);
  printf("log: %" PRIu64 " segments, %" PRIu64 " records, entries %" PRIu64 " to %" PRIu64 "\n", log.segments, log.records, log.first, log.last);
  size_t whole = 0;
  join(path, ctl->argv[0], "snapshots");
  if (stat(path, &st) == 0 && snapshot_verify(disk_posix(), path, snapshot_fault, &v, &whole, &err) < 0)
    return sctl_fail(&err);
  printf("snapshots: %zu whole\n", whole);
  join(path, ctl->argv[0], "kv");
  struct kv *kv = kv_open_read(path, &err);
  uint64_t records = 0;
  if (!kv) {
    map_fault(&v, err.msg);
  } else {
    const struct kv_state *s = kv_state(kv);
    if (kv_verify(kv, map_fault, &v, &records, &err) < 0)
      map_fault(&v, err.msg);
    if (s->applied_index > log.last && log.last >= log.first)
      map_fault(&v, "it holds entries that the log does not have");
    printf("kv: %" PRIu64 " records, %" PRIu64 " keys, revision %" PRIu64 ", entry %" PRIu64 "\n", records, s->keys, s->revision, s->applied_index);
  }
  kv_close(kv);
  if (v.faults)
    printf("%" PRIu64 " faults\n", v.faults);
  else
    printf("no faults\n");
  return v.faults ? 1 : 0;
}
