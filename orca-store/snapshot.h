/* Snapshots as files: naming, metadata with a SHA-256, syncing, reading back, picking the newest that is whole, dropping older ones.
 *
 * DIR holds pairs TERM-INDEX.snap (the state machine's bytes, opaque here) and TERM-INDEX.meta (size, SHA-256, index, term, membership, format,
 * cluster; with a checksum of its own). The .meta is renamed into place last: without it there is no snapshot.
 *
 * Threads: the functions keep no state between calls and may run on any thread (hashing a large file takes a while), two that make
 * snapshots in the same folder not at once. Errors: ERR_NO_SPACE, ERR_IO, ERR_CORRUPT (names file and what does not hold), ERR_UNSUPPORTED (newer
 * format). */
#ifndef ORCA_STORE_SNAPSHOT_H
#define ORCA_STORE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-store/disk.h"
#include "orca-store/raft.h"

#define SNAPSHOT_PATH_MAX 512
#define SNAPSHOT_CLUSTER_ID 16

struct snapshot_meta {
  uint8_t cluster_id[SNAPSHOT_CLUSTER_ID];
  struct raft_snapshot raft; /* index, term, members */
  uint64_t revision;         /* of the key-value space, for people */
  uint32_t data_format;      /* of the state machine's bytes: its owner's number */
  uint64_t size;             /* bytes and SHA-256 of the .snap: filled in by snapshot_commit */
  uint8_t sha256[32];
};

/* 1. Where to write it: a temporary name in dir (made when missing), a left-over of it removed. The state machine's side writes the file there
 *    (mdb_env_copy2, or chunks from the leader). 2. snapshot_commit. A crash in between leaves a temporary that snapshot_clean removes. */
int snapshot_begin(struct disk *disk, const char *dir, char path[SNAPSHOT_PATH_MAX], struct err *err);

/* Syncs what was written at path, hashes it, writes and syncs the .meta, renames both, syncs the folder, then reads all of it back and
 * compares: only when this returned 0 may the log be cut. expect_sha256: NULL, or what the sender said. meta's size and sha256 are filled in. */
int snapshot_commit(struct disk *disk, const char *dir, const char *path, struct snapshot_meta *meta, const uint8_t *expect_sha256, struct err *err);

/* The newest (highest index) whose contents match: 1 and fills meta and the path of its .snap; 0 when there is none at all. -1: ERR_CORRUPT when
 * snapshots are there but none is whole. Damaged newer ones are told to `skipped` (NULL: not). verify false: only the metadata and the size are
 * checked. With verify what it returns is durable, too. */
int snapshot_newest(struct disk *disk, const char *dir, const uint8_t *cluster_id, bool verify, struct snapshot_meta *meta,
                    char path[SNAPSHOT_PATH_MAX], void (*skipped)(void *arg, const char *file, const char *text), void *arg, struct err *err);

/* Removes all but the `keep` newest, and temporaries. */
int snapshot_clean(struct disk *disk, const char *dir, size_t keep, struct err *err);

/* Offline: reads and hashes every snapshot, tells every fault. Returns the number of faults, -1 when the folder can't be read; *ret_count: whole ones
 * (NULL: not wanted). */
int snapshot_verify(struct disk *disk, const char *dir, void (*each)(void *arg, const char *file, uint64_t offset, const char *text), void *arg,
                    size_t *ret_count, struct err *err);

#endif
