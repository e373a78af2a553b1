/* Docker's answer to GET /containers/ID/logs?timestamps=1, cut into lines: chunked coding, frames of 8 bytes before each message, a time of
 * exactly 30 characters, the text. Docker cuts lines at 16 KiB: a message without a line end goes on in the next one of its stream.
 *
 * Hostile until looked at: whatever is not exactly this is malformed, and no size of a peer's choice is ever allocated. One buffer, nothing copied:
 * what is received is unwrapped in place and lines point into it. Threads: none; one owner. */
#ifndef ORCA_AGENT_LOG_LINES_H
#define ORCA_AGENT_LOG_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINES_BUFFER ((size_t)64 << 10)

enum log_chunk_state { LOG_CHUNK_SIZE, LOG_CHUNK_EXTENSION, LOG_CHUNK_DATA, LOG_CHUNK_DATA_END, LOG_CHUNK_TRAILER, LOG_CHUNK_OVER };

struct log_lines {
  uint8_t *buf;    /* LOG_LINES_BUFFER bytes; the owner's */
  size_t at, have; /* what is unwrapped and not taken: [at, have) */
  enum log_chunk_state state;
  uint64_t left; /* of the chunk */
  unsigned digits, trailer;
  char second[20]; /* the last time's, up to its seconds; and */
  int64_t second_ns;
  char fault[96]; /* Docker's own words in a frame of the third kind; else what is malformed */
};

struct log_line {
  int64_t ns;
  bool err, partial;
  const uint8_t *text; /* into the buffer, until the next log_lines_room() */
  size_t len;
};

void log_lines_init(struct log_lines *l, uint8_t *buf);
/* Where to receive to; *ret_room is 0 when the buffer is full of what was not taken. */
uint8_t *log_lines_room(struct log_lines *l, size_t *ret_room);
/* len bytes were received there. false: malformed, fault says how. */
bool log_lines_received(struct log_lines *l, size_t len);
/* 1: *ret is the next line; 0: more must be received; -1: malformed. */
int log_lines_next(struct log_lines *l, struct log_line *ret);
/* The answer was complete, and all of it taken. */
bool log_lines_over(const struct log_lines *l);

/* "2026-11-21T12:00:00.123456789Z" (30 characters) in ns; -1: anything else. */
int64_t log_lines_time(struct log_lines *l, const uint8_t *text);

#endif
