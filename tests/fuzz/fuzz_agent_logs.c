/* A container's log as Docker sends it: chunks, frames, times, in pieces of any size; and a place in it, found again. The first byte says how it is
 * cut up. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/logs/mark.h"
#include "orca-agent/last_words.h"
#include "orca-agent/log_lines.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t buf[LOG_LINES_BUFFER];
  static struct last_lines last;
  if (size < 1)
    return 0;
  size_t piece = (size_t)data[0] + 1, lines = 0;
  struct log_mark mark = {0};
  struct log_lines l;
  struct log_line line;
  log_mark_parse((const char *)data, size < LOG_MARK_TEXT ? size : LOG_MARK_TEXT, &mark);
  struct log_seek seek;
  log_seek_init(&seek, &mark);
  mark = (struct log_mark){0};
  log_lines_init(&l, buf);
  last.len = 0;
  for (size_t at = 1; at < size;) {
    size_t room;
    uint8_t *to = log_lines_room(&l, &room);
    size_t take = size - at < piece ? size - at : piece;
    take = take < room ? take : room;
    if (!take)
      break;
    memcpy(to, data + at, take);
    at += take;
    if (!log_lines_received(&l, take))
      break;
    int rc;
    while ((rc = log_lines_next(&l, &line)) == 1) {
      if (line.ns < 0 || line.text < buf || line.text + line.len > buf + sizeof buf)
        abort();
      log_mark_seen(&mark, line.err, line.ns);
      log_seek_line(&seek, line.err, line.ns);
      last_lines_add(&last, line.text, line.len, line.partial);
      lines++;
    }
    if (rc < 0)
      break;
  }
  last_lines_end(&last);
  if (last.len > LAST_BYTES || (lines && !mark.count))
    abort();
  return 0;
}
