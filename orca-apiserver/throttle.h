/* Wrong tokens of one address: after a few, the next ones are told to wait, longer each time.
 *
 * What it is for: whoever tries tokens costs next to nothing and learns nothing quickly. What it must not be: a way to lock others out, who share
 * that address (NAT, the loopback of one machine). So a right token is right whatever its address did, when it was made here: with 256 random bits it
 * cannot be guessed at any speed. A token of cluster.toml, whose text somebody chose, has to wait like a wrong one, unless it was used from this very
 * address before (api_token_use).
 *
 * A bounded table: a set of places for each hash of an address; the least guilty of a full set gives way. One failure is forgiven every
 * API_THROTTLE_FORGIVE. The hash has a secret seed, so that nobody chooses whom he shares a set with.
 * Threads: one owner; time is passed in, of a clock that nobody sets. */
#ifndef ORCA_APISERVER_THROTTLE_H
#define ORCA_APISERVER_THROTTLE_H

#include <stdint.h>

#define API_THROTTLE_SETS 128
#define API_THROTTLE_WAYS 8
#define API_THROTTLE_FREE 10 /* wrong tokens before the first wait */
#define API_THROTTLE_FORGIVE_MS 60000
#define API_THROTTLE_WAIT_MAX_MS 300000
#define API_THROTTLE_SCORE_MAX 20

struct api_throttle_place {
  uint8_t key[16];
  uint32_t score; /* failures not yet forgiven; 0: free */
  int64_t counted_ms, until_ms;
};
struct api_throttle {
  uint8_t seed[16];
  struct api_throttle_place places[API_THROTTLE_SETS][API_THROTTLE_WAYS];
};

/* How long this address still has to wait: 0 when it need not. */
int64_t api_throttle_wait(const struct api_throttle *throttle, const uint8_t key[16], int64_t now_ms);
/* A wrong token. Returns how long the address has to wait from now on. */
int64_t api_throttle_failed(struct api_throttle *throttle, const uint8_t key[16], int64_t now_ms);

#endif
