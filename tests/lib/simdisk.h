/* A disk in memory with power cuts: what no sync has covered is lost, kept or torn sector by sector, drawn from a seed. Folder entries (new files,
 * renames, removals) last only when their folder was synced. Calls can be made to fail, by number. One folder level. Ownership: simdisk_new's caller.
 * Threads: one. */
#ifndef ORCA_TESTS_LIB_SIMDISK_H
#define ORCA_TESTS_LIB_SIMDISK_H

#include <stdbool.h>
#include <stdint.h>

#include "orca-store/disk.h"

struct simdisk;

enum simdisk_fault {
  SIMDISK_EIO,      /* the call fails and does nothing */
  SIMDISK_TORN_EIO, /* a write does a part of it, then fails */
  SIMDISK_ENOSPC,   /* a write or allocation does a part of it, then fails */
};

struct simdisk *simdisk_new(uint64_t seed);
void simdisk_free(struct simdisk *s);
struct disk *simdisk_disk(struct simdisk *s); /* borrowed */

/* The power goes: handles are closed, locks end, what was not synced is drawn. */
void simdisk_power_cut(struct simdisk *s);
/* The process dies: handles are closed, locks end, all that was written stays. */
void simdisk_kill(struct simdisk *s);

/* The n-th changing call from now (write, sync, allocate, rename, unlink, open for writing …) fails thus; 0: none. */
void simdisk_fail_at(struct simdisk *s, uint64_t n, enum simdisk_fault fault);
/* From now on the n-th changing call and all after it do nothing at all, as if the power had gone there: they fail with EIO. */
void simdisk_stop_at(struct simdisk *s, uint64_t n);
bool simdisk_has_failed(const struct simdisk *s); /* did the call that was to fail come? */
uint64_t simdisk_calls(const struct simdisk *s);
void simdisk_set_full(struct simdisk *s, bool full); /* allocations and growing writes fail with ENOSPC */

/* Test access to a file's bytes as they are now: NULL when it is not there. */
uint8_t *simdisk_bytes(struct simdisk *s, const char *path, int64_t *ret_len);
int simdisk_set(struct simdisk *s, const char *path, const void *data, int64_t len); /* makes it, durable */

#endif
