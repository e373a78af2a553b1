/* The durable log: Raft's entries and hard state in preallocated segments, append only.
 *
 * DIR holds lock (who has the folder), segments named by their number (0000000000000001.log …) and `synced`, a hint. A segment is
 * a header (magic, format version, cluster, number, checksum), then records: hard state, entry, reset. A record carries a CRC32C over
 * where it stands, its type, index, term, length and payload. Nothing is ever overwritten: an entry with an index that is there already
 * replaces that one and all behind it by coming later, so that a sync never races a truncation.
 *
 * Opening tells a torn tail (a write that no sync had covered when the power went: cut off, and reported) from damage (named with file, offset and
 * index, and refused: never skipped). How: log_format.h.
 *
 * Threads: dlog_sync() from one other thread, at any time; all else from the owner's. Errors: ERR_NO_SPACE leaves the log as it was
 * and usable; ERR_IO is final (after a failed sync nobody knows what is on disk): every later call fails, and the process must end. */
#ifndef ORCA_STORE_LOG_H
#define ORCA_STORE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "orca-store/disk.h"
#include "orca-store/raft.h"

#define DLOG_CLUSTER_ID 16

struct dlog;

struct dlog_options {
  const char *dir;                     /* made when missing. Copied */
  struct disk *disk;                   /* borrowed; NULL: disk_posix() */
  uint8_t cluster_id[DLOG_CLUSTER_ID]; /* a log of another cluster is refused */
  uint32_t segment_size;               /* bytes; 0: 4 MiB */
};

/* What opening found. */
struct dlog_found {
  struct raft_hard hard;
  uint64_t base_index,
      base_term;        /* the entry before the first: 0, or what a reset (an installed snapshot) put there; base_term 0: not known (compacted) */
  uint64_t first, last; /* entries; last < first: none */
  bool torn;            /* an unsynced tail was cut off … */
  char torn_text[256];  /* … here: file, offset, for the log line */
};

/* Takes the lock; ERR_CONFLICT names the pid that has it. ERR_CORRUPT names file, offset and index. ERR_UNSUPPORTED: a newer format, by name.
 * What it accepts has been synced when it returns. */
int dlog_open(struct dlog **ret, const struct dlog_options *options, struct dlog_found *found, struct err *err);
/* Without a sync: call dlog_sync() first for a clean stop. NULL is fine. The thread that syncs must have ended. */
void dlog_close(struct dlog *log);

/* Room for n entries with `bytes` of payload in all, and still for hard state and no-ops behind them. Makes a segment when it must.
 * ERR_NO_SPACE; ERR_TOO_LARGE for more than 64 MiB at once. */
int dlog_reserve(struct dlog *log, size_t n, size_t bytes, struct err *err);

/* One batch, as raft_actions has it: hard (NULL: unchanged), then entries. Whole or not at all. It is in the file, not yet durable. */
int dlog_write(struct dlog *log, const struct raft_hard *hard, const struct raft_entry *entries, size_t n, struct err *err);

/* Syncs all that was written before the call, with one fdatasync (two when a segment has just ended), and says what that is.
 * Blocks; from the syncing thread. Also makes the next segment ready when the present one is filling up. */
int dlog_sync(struct dlog *log, struct raft_stable *ret, uint64_t *ret_ticket, struct err *err);
/* Counts dlog_write()s. What was written with ticket t is durable once a sync returned a ticket ≥ t. */
uint64_t dlog_ticket(const struct dlog *log);
/* Last entry and hard state written (what RAFT_EV_WRITE_FAILED wants). */
struct raft_stable dlog_mark(const struct dlog *log);

/* Reads one entry: its payload is put behind what `data` holds already, entry->data stays NULL (the buffer may move). ERR_COMPACTED before the first,
 * ERR_NOT_FOUND behind the last, ERR_CORRUPT with file and offset when its checksum does not hold. */
int dlog_read(struct dlog *log, uint64_t index, struct raft_entry *entry, struct buf *data, struct err *err);

uint64_t dlog_first(const struct dlog *log); /* last + 1 when there is none */
uint64_t dlog_last(const struct dlog *log);
uint64_t dlog_bytes(const struct dlog *log); /* on disk, whole segments */

/* Drops whole segments that hold only entries ≤ index: call it when a snapshot at or behind index has been read back. */
int dlog_cut(struct dlog *log, uint64_t index, struct err *err);
/* Forgets every entry; the next has index + 1 (a snapshot was installed). Durable when it returns; not beside a running dlog_sync(). */
int dlog_reset(struct dlog *log, uint64_t index, uint64_t term, struct err *err);

/* At start: a log that ends before the newest snapshot, begins behind it or has another term there (a crash between installing a snapshot and
 * resetting the log) is reset to it. */
int dlog_follow_snapshot(struct dlog *log, uint64_t index, uint64_t term, struct err *err);

/* ---------------------------------------------------------------- offline */

struct dlog_fault {
  const char *file; /* name in the folder */
  uint64_t offset;  /* in bytes */
  uint64_t index;   /* of the entry, or of the last good one before it; 0: not known */
  const char *text; /* "payload checksum does not match" … */
  bool torn;        /* an unsynced tail: not damage */
};
struct dlog_summary {
  uint64_t segments, records, bytes, first, last;
  struct raft_hard hard;
};
/* Reads the whole folder without a lock and without changing it, tells every fault to `each`, and counts (summary may be NULL).
 * cluster_id NULL: any. Returns the number of faults that are damage, -1 when the folder can't be read. */
int dlog_verify(struct disk *disk, const char *dir, const uint8_t *cluster_id, void (*each)(void *arg, const struct dlog_fault *fault), void *arg,
                struct dlog_summary *summary, struct err *err);

#endif
