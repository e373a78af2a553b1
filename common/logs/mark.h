/* A place in a container's log that survives whoever reads it: restarts of readers, lost connections, rotation.
 *
 * Lines have a time in nanoseconds, and each of the two streams' times only grow; the lines of both stand in one order. So a place is a line
 * (its stream, its time) and how many lines stand from the first such one on, itself included, up to and with the last one that was seen. The count
 * is 1 but for pieces of one long line, which share its time, and for a clock that was set back. Threads: pure functions, one owner. */
#ifndef ORCA_COMMON_LOGS_MARK_H
#define ORCA_COMMON_LOGS_MARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_mark {
  int64_t ns; /* 0: nothing was seen yet */
  bool err;   /* the line is of stderr */
  uint32_t count;
  int64_t newest[2]; /* of each stream, for log_mark_seen() */
};

/* The next line of the log was seen. */
void log_mark_seen(struct log_mark *mark, bool err, int64_t ns);

#define LOG_MARK_TEXT 48
/* "1795269365123456789-o-1", the end of a server-sent event's id. */
void log_mark_text(const struct log_mark *mark, char out[LOG_MARK_TEXT]);
/* len: of the text. -1: not one. */
int log_mark_parse(const char *text, size_t len, struct log_mark *ret);

/* ---- looking for the place in what is read again ---- */

enum log_seek_step {
  LOG_SEEK_OLD,  /* was seen, or stands before */
  LOG_SEEK_NEW,  /* behind the place: so is every line from here on */
  LOG_SEEK_GONE, /* the place is not in what is read: it begins too late, or the line was rotated away */
};
struct log_seek {
  struct log_mark mark;
  uint32_t left; /* to pass by, once the line was found */
  bool found;
};
void log_seek_init(struct log_seek *seek, const struct log_mark *mark);
enum log_seek_step log_seek_line(struct log_seek *seek, bool err, int64_t ns);

#endif
