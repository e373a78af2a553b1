#include "orca-apiserver/throttle.h"

#include <string.h>

#include "common/crypto/crypto.h"

static unsigned set_of(const struct api_throttle *t, const uint8_t key[16]) {
  uint8_t text[32], hash[32];
  memcpy(text, t->seed, 16);
  memcpy(text + 16, key, 16);
  crypto_sha256(text, sizeof text, hash);
  return (hash[0] | (unsigned)hash[1] << 8) % API_THROTTLE_SETS;
}

static uint32_t score_now(const struct api_throttle_place *p, int64_t now_ms) {
  int64_t forgiven = now_ms > p->counted_ms ? (now_ms - p->counted_ms) / API_THROTTLE_FORGIVE_MS : 0;
  return forgiven >= p->score ? 0 : p->score - (uint32_t)forgiven;
}

int64_t api_throttle_wait(const struct api_throttle *t, const uint8_t key[16], int64_t now_ms) {
  const struct api_throttle_place *set = t->places[set_of(t, key)];
  for (unsigned i = 0; i < API_THROTTLE_WAYS; i++)
    if (set[i].score && memcmp(set[i].key, key, 16) == 0)
      return set[i].until_ms > now_ms ? set[i].until_ms - now_ms : 0;
  return 0;
}

static struct api_throttle_place *place_of(struct api_throttle *t, const uint8_t key[16], int64_t now_ms) {
  struct api_throttle_place *set = t->places[set_of(t, key)], *least = &set[0];
  for (unsigned i = 0; i < API_THROTTLE_WAYS; i++) {
    if (set[i].score && memcmp(set[i].key, key, 16) == 0)
      return &set[i];
    if (score_now(&set[i], now_ms) < score_now(least, now_ms))
      least = &set[i];
  }
  *least = (struct api_throttle_place){.counted_ms = now_ms};
  memcpy(least->key, key, 16);
  return least;
}

int64_t api_throttle_failed(struct api_throttle *t, const uint8_t key[16], int64_t now_ms) {
  struct api_throttle_place *p = place_of(t, key, now_ms);
  uint32_t score = score_now(p, now_ms);
  if (score != p->score || now_ms < p->counted_ms)
    p->counted_ms = now_ms;
  p->score = score < API_THROTTLE_SCORE_MAX ? score + 1 : score;
  if (p->score <= API_THROTTLE_FREE)
    return 0;
  if (p->until_ms > now_ms) /* trying on lengthens the next wait, not this one */
    return p->until_ms - now_ms;
  unsigned doublings = p->score - API_THROTTLE_FREE - 1;
  int64_t wait = doublings < 9 ? INT64_C(1000) << doublings : API_THROTTLE_WAIT_MAX_MS;
  p->until_ms = now_ms + (wait < API_THROTTLE_WAIT_MAX_MS ? wait : API_THROTTLE_WAIT_MAX_MS);
  return p->until_ms - now_ms;
}
