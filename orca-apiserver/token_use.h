/* When each token was used last, and from where: known at once, stored at most once a minute, all of them in one transaction.
 *
 * Threads: the loop's. */
#ifndef ORCA_APISERVER_TOKEN_USE_H
#define ORCA_APISERVER_TOKEN_USE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/loop.h"
#include "orca-apiserver/smap.h"

#define API_TOKEN_USE_EVERY_MS 60000
#define API_TOKEN_USE_PLACES 8

struct api;

struct api_token_uses {
  struct api *api;
  struct api_smap all; /* id → struct api_token_use */
  struct loop_timer timer;
  int64_t written_ms;
  bool writing;
};

void api_token_uses_init(struct api_token_uses *uses, struct api *api);
void api_token_uses_fini(struct api_token_uses *uses);
/* It was right, and came from there (throttle's key). */
void api_token_used(struct api_token_uses *uses, const char *id, const uint8_t from[16]);
bool api_token_came_from(const struct api_token_uses *uses, const char *id, const uint8_t from[16]);
/* 0: not since this process started. */
int64_t api_token_last_used(const struct api_token_uses *uses, const char *id);

#endif
