#include "common/logs/mark.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void log_mark_seen(struct log_mark *mark, bool err, int64_t ns) {
  if (ns <= mark->newest[err]) {
    mark->count++;
    return;
  }
  mark->newest[err] = ns;
  mark->ns = ns;
  mark->err = err;
  mark->count = 1;
}

void log_mark_text(const struct log_mark *mark, char out[LOG_MARK_TEXT]) {
  snprintf(out, LOG_MARK_TEXT, "%" PRId64 "-%c-%" PRIu32, mark->ns, mark->err ? 'e' : 'o', mark->count);
}

static const char *number(const char *at, const char *end, uint64_t max, uint64_t *ret) {
  uint64_t value = 0;
  const char *from = at;
  for (; at < end && *at >= '0' && *at <= '9'; at++) {
    if (value > (max - (uint64_t)(*at - '0')) / 10)
      return NULL;
    value = value * 10 + (uint64_t)(*at - '0');
  }
  *ret = value;
  return at == from ? NULL : at;
}

int log_mark_parse(const char *text, size_t len, struct log_mark *ret) {
  uint64_t ns, count;
  const char *end = text + len, *at = number(text, end, INT64_MAX - 1, &ns); /* there is a time after it */
  if (!at || end - at < 4 || at[0] != '-' || (at[1] != 'o' && at[1] != 'e') || at[2] != '-')
    return -1;
  bool err = at[1] == 'e';
  if (number(at + 3, end, UINT32_MAX, &count) != end || !ns || !count)
    return -1;
  *ret = (struct log_mark){.ns = (int64_t)ns, .err = err, .count = (uint32_t)count};
  ret->newest[err] = (int64_t)ns;
  return 0;
}

void log_seek_init(struct log_seek *seek, const struct log_mark *mark) {
  *seek = (struct log_seek){.mark = *mark, .left = mark->count, .found = mark->ns == 0};
}

enum log_seek_step log_seek_line(struct log_seek *seek, bool err, int64_t ns) {
  if (!seek->found) {
    if (err != seek->mark.err || ns < seek->mark.ns)
      return LOG_SEEK_OLD;
    if (ns > seek->mark.ns)
      return LOG_SEEK_GONE;
    seek->found = true;
  }
  if (!seek->left)
    return LOG_SEEK_NEW;
  seek->left--;
  return LOG_SEEK_OLD;
}
