/* The log's bytes. All numbers little-endian.
 *
 * Segment header, 64 bytes, the same in every format to come: magic[8], version u32, 64 u32, cluster[16], number u64, zeros, CRC32C u32 of the 60
 * before. Records follow, each at a multiple of 8: 0 header_crc u32   over segment number, offset and bytes 4..39: a record holds only where it was
 * written 4 len u32          of the payload 8 type u8, entry_type u8, 0 u16, 0 u32 16 index u64        ENTRY: its index. HARD: the last entry's
 * before it. RESET: the base 24 term u64         ENTRY, RESET: its term. HARD: the hard state's 32 synced u64       position (number << 32 | offset)
 * before which all had been synced when this was written: never 0 in its upper half 40 payload, zeros up to a multiple of 8 end payload_crc u32
 * (seeded with header_crc), DLOG_END u32 HARD's payload: vote u64, last_term u64, where the segment before ended u64 (0: not the first record of a
 * segment). Every segment begins with one.
 *
 * Torn or damaged? What a sync has covered must be whole; what none has covered may, after a power cut, be there in part: any of its 512-byte
 * sectors, in any order, the others as they were: zeros, since segments are preallocated and written once. So a record that does not hold is
 *   torn     when a part of it was never written: one of its sectors' shares is all zeros, or its end is (a process killed while writing); and
 *   damaged  when all of it was written, or when anything says that it had been synced: a later record's `synced`, or the file `synced`, which
 *            has the newest position a sync had covered. That file is not synced itself: after SIGKILL it is exact, after a power cut it may lag,
 * never lead. The same for an end that comes too early. */
#ifndef ORCA_STORE_LOG_FORMAT_H
#define ORCA_STORE_LOG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-store/log.h"

#define DLOG_FORMAT 1
#define DLOG_HEADER 64
#define DLOG_RECORD_HEADER 40
#define DLOG_RECORD_OVERHEAD 48
#define DLOG_HARD_PAYLOAD 24
#define DLOG_END UINT32_C(0x6163726f)
#define DLOG_SEGMENT_MAX (UINT32_C(96) << 20)
#define DLOG_NAME_MAX 32
#define DLOG_HINT_BYTES 16

enum dlog_type { DLOG_HARD = 1, DLOG_ENTRY = 2, DLOG_RESET = 3 };

struct dlog_record {
  enum dlog_type type;
  enum raft_entry_type entry_type; /* ENTRY */
  uint64_t index, term, synced;
  uint64_t vote, last_term, prev_end; /* HARD */
  const uint8_t *data;                /* ENTRY: borrowed */
  uint32_t len;
};

enum dlog_seen { DLOG_SEEN_RECORD, DLOG_SEEN_END, DLOG_SEEN_TORN, DLOG_SEEN_DAMAGED };

static inline uint64_t dlog_position(uint64_t number, uint64_t offset) {
  return number << 32 | offset;
}
static inline size_t dlog_record_size(size_t len) {
  return DLOG_RECORD_OVERHEAD + ((len + 7) & ~(size_t)7);
}

/* Writes dlog_record_size() bytes for a record at `offset` of segment `number`. HARD: the payload is made here. */
size_t dlog_put_record(uint8_t *out, uint64_t number, uint64_t offset, const struct dlog_record *rec);
/* Looks at what stands at offset of a segment, of which `bytes` has what begins at `begin`. *text says what is wrong with it (TORN, DAMAGED). rec is
 * filled for RECORD only. */
enum dlog_seen dlog_get_record(const uint8_t *bytes, size_t size, uint64_t begin, uint64_t number, uint64_t offset, struct dlog_record *rec,
                               const char **text);
/* The next whole record behind offset, wherever it begins; false when there is none. */
bool dlog_find_record(const uint8_t *seg, size_t size, uint64_t number, uint64_t *offset, struct dlog_record *rec);

void dlog_put_header(uint8_t out[DLOG_HEADER], uint64_t number, const uint8_t cluster_id[DLOG_CLUSTER_ID]);
/* ERR_UNSUPPORTED (newer), ERR_INVALID (another cluster's), ERR_CORRUPT. The caller adds the file's name. cluster_id NULL: any. */
int dlog_check_header(const uint8_t *seg, size_t size, uint64_t number, const uint8_t *cluster_id, struct err *err);

void dlog_put_hint(uint8_t out[DLOG_HINT_BYTES], uint64_t position);
uint64_t dlog_get_hint(const uint8_t in[DLOG_HINT_BYTES]); /* 0: none that holds */

void dlog_name(char out[DLOG_NAME_MAX], uint64_t number);
bool dlog_parse_name(const char *name, uint64_t *ret);
bool dlog_is_zero(const uint8_t *data, size_t len);

/* ---------------------------------------------------------------- reading a folder (log_replay.c) */

struct dlog_place { /* a segment, as reading left it */
  uint64_t number, size, used, max_index;
};

/* What a log's records come to. */
struct dlog_state {
  struct raft_hard hard;
  uint64_t base_index, base_term, last, last_term;
  uint64_t *positions; /* of entry base_index + 1 + i */
  size_t cap_positions;
};
int dlog_state_add(struct dlog_state *s, uint64_t index, uint64_t term, uint64_t position);
void dlog_state_reset(struct dlog_state *s, uint64_t index, uint64_t term);

struct dlog_replay {
  struct disk *disk;
  const char *dir;
  const uint8_t *cluster_id; /* NULL: any */
  void (*fault)(void *arg, const struct dlog_fault *fault);
  void *arg;

  struct dlog_state state;
  struct dlog_place *places;
  size_t n_places;
  uint64_t records, bytes;
  uint64_t synced;  /* the hint: position; 0: none */
  uint64_t torn_at; /* position of the cut; 0: none */
  size_t damaged;   /* faults that are not torn tails */
};
/* Reads everything, changes nothing. -1: err (unreadable, newer format, another cluster's); damage is told to `fault` and counted. */
int dlog_replay(struct dlog_replay *r, struct err *err);
void dlog_replay_fini(struct dlog_replay *r);

int dlog_path(char *out, size_t cap, const char *dir, const char *name, struct err *err);

#endif
