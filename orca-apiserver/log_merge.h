/* Whose line is next, of several logs.
 *
 * What is history is merged exactly by time: nothing goes out while a log that still tells its history could have an older line. What happens now is
 * put in order within a small window: a line waits that long for older ones of others. Within one log the order is the log's own.
 * Threads: pure. */
#ifndef ORCA_APISERVER_LOG_MERGE_H
#define ORCA_APISERVER_LOG_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_MERGE_WINDOW INT64_C(200000000) /* ns; agents look again every 50 ms and more */

enum log_merge_state {
  LOG_MERGE_HISTORY, /* more of the past is to come */
  LOG_MERGE_LIVE,    /* whatever comes is new */
  LOG_MERGE_OVER,    /* nothing comes, or nobody knows when */
};
struct log_merge_head {
  enum log_merge_state state;
  bool any;        /* it has a next line, of this */
  int64_t ns;      /* time, which came */
  int64_t arrived; /* then (loop time) */
  bool in_pieces;  /* its last line goes on in the next */
};
/* -1: none yet; *ret_at is when to ask again (INT64_MAX: when something has come). Else its lines up to and with *ret_until, as far as they came
 * together with the first, may go out without asking again. */
int log_merge_pick(const struct log_merge_head *heads, size_t count, int64_t now, int64_t *ret_until, int64_t *ret_at);

#endif
