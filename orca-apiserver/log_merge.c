#include "orca-apiserver/log_merge.h"

int log_merge_pick(const struct log_merge_head *heads, size_t count, int64_t now, int64_t *ret_until, int64_t *ret_at) {
  size_t best = count;
  int64_t second = INT64_MAX;
  bool history = false, live = false;
  *ret_at = INT64_MAX;
  for (size_t i = 0; i < count; i++) {
    if (!heads[i].any) {
      history |= heads[i].state == LOG_MERGE_HISTORY;
      live |= heads[i].state == LOG_MERGE_LIVE;
    } else if (heads[i].in_pieces) { /* a line is not torn apart */
      *ret_until = heads[i].ns;
      return (int)i;
    } else if (best == count || heads[i].ns < heads[best].ns) {
      second = best == count ? INT64_MAX : heads[best].ns;
      best = i;
    } else if (heads[i].ns < second) {
      second = heads[i].ns;
    }
  }
  if (best == count || history)
    return -1;
  if (live && now - heads[best].arrived < LOG_MERGE_WINDOW) {
    *ret_at = heads[best].arrived + LOG_MERGE_WINDOW;
    return -1;
  }
  *ret_until = second;
  return (int)best;
}
