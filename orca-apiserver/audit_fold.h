/* Lines of the audit log that are alike, within one minute, become one with a count: a flood costs a few lines.
 *
 * Alike: same actor, address, method, path and result. The first is written at once, its count when the minute is over. The table is bounded: those
 * whom nobody knows share a part of it, and an address a part of that; what finds no place is counted under "many".
 * Threads: one owner; time is passed in; no I/O. */
#ifndef ORCA_APISERVER_AUDIT_FOLD_H
#define ORCA_APISERVER_AUDIT_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUDIT_LINES 256
#define AUDIT_LINES_STRANGERS 96  /* at most, of those without an actor */
#define AUDIT_LINES_PER_ADDRESS 8 /* at most, of those without an actor */
#define AUDIT_LINES_PER_TOKEN 64  /* at most, of one that we know */
#define AUDIT_MINUTE_MS 60000

struct audit_line {
  int64_t ms; /* of the first */
  uint32_t seq;
  char actor[64], token_id[64], from[112], method[12], path[128], target[160], project[64];
  uint32_t status;
  char result[160]; /* "ok", "denied: the role of …" */
  uint64_t count, written;
};
struct audit_fold {
  struct audit_line *lines[AUDIT_LINES];
  size_t count;
};

void audit_fold_free(struct audit_fold *fold);
/* line: ms and seq as of now, count 1; copied. 1: of what was done, and there is no room: it must be told alone. -1: no memory. */
int audit_fold_note(struct audit_fold *fold, const struct audit_line *line);
/* When something has to be written next: INT64_MAX for never. soon_ms: how long a first line may wait for others to come. */
int64_t audit_fold_due(const struct audit_fold *fold, int64_t soon_ms);
/* Calls put for each line that is new, or whose minute is over and has been counted further; at most `max` of them. Nothing is forgotten before
 * audit_fold_written() says that they are stored. */
size_t audit_fold_pending(const struct audit_fold *fold, int64_t now_ms, size_t max, void (*put)(void *arg, const struct audit_line *line),
                          void *arg);
/* Those that were pending at that time are stored as they were then (count as of `put`). */
void audit_fold_written(struct audit_fold *fold, uint32_t seq, uint64_t count, int64_t now_ms);

#endif
