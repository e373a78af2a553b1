#include "orca-proxy/balance.h"

#define SAMPLE 32 /* endpoints looked at for one request; more than these are sampled from a moving start */

static bool was_tried(const int32_t *tried, unsigned count, size_t i) {
  for (unsigned k = 0; k < count; k++)
    if (tried[k] == (int32_t)i)
      return true;
  return false;
}

int balance_pick(struct balance_endpoint *(*get)(void *arg, size_t i), void *arg, size_t count, uint32_t turn, const int32_t *tried,
                 unsigned tried_count, int64_t now) {
  int best = -1, best_ejected = -1;
  uint32_t least = UINT32_MAX;
  int64_t soonest = INT64_MAX;
  size_t start = count ? turn % count : 0;
  for (size_t k = 0, seen = 0; k < count && (seen < SAMPLE || best < 0); k++) {
    size_t i = start + k < count ? start + k : start + k - count;
    if (tried_count && was_tried(tried, tried_count, i))
      continue;
    const struct balance_endpoint *e = get(arg, i);
    if (!e)
      continue;
    seen++;
    if (e->ejected_until > now) {
      if (e->ejected_until < soonest) {
        soonest = e->ejected_until;
        best_ejected = (int)i;
      }
    } else if (e->outstanding < least) {
      least = e->outstanding;
      best = (int)i;
    }
  }
  return best >= 0 ? best : best_ejected;
}

void balance_failed(struct balance_endpoint *e, int64_t now) {
  if (e->ejected_until > now) /* one that is out already and was tried for want of others */
    return;
  if (e->failures < BALANCE_FAILURES)
    e->failures++;
  /* After an ejection the first failure is enough: it is on probation. */
  if (e->failures < BALANCE_FAILURES && e->ejections == 0)
    return;
  int64_t time = BALANCE_EJECT_MS << (e->ejections < 6 ? e->ejections : 6);
  e->ejected_until = now + (time < BALANCE_EJECT_MAX_MS ? time : BALANCE_EJECT_MAX_MS);
  if (e->ejections < 6)
    e->ejections++;
  e->failures = 0;
}

void balance_answered(struct balance_endpoint *e) {
  e->failures = 0;
  e->ejections = 0;
  e->ejected_until = 0;
}

bool balance_may_retry(enum balance_failure failure, unsigned attempts, bool idempotent, bool replayable, bool sent) {
  if (attempts >= BALANCE_ATTEMPTS || !replayable)
    return false;
  switch (failure) {
  case FAILED_TO_CONNECT:
    return true;
  case FAILED_UNANSWERED:
    return idempotent || !sent;
  case FAILED_ANSWER:
    return false;
  }
  return false;
}
