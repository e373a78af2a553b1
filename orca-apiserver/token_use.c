#include "orca-apiserver/token_use.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-apiserver/api.h"

#define AT_ONCE 200
#define SOON (NS_PER_SEC)

struct api_token_use {
  int64_t last_ms;
  uint8_t from[API_TOKEN_USE_PLACES][16];
  unsigned places, next;
};

static void due(void *arg);

void api_token_uses_init(struct api_token_uses *u, struct api *api) {
  *u = (struct api_token_uses){.api = api, .timer = {.cb = due, .arg = u}};
}

void api_token_uses_fini(struct api_token_uses *u) {
  loop_timer_cancel(u->api->loop, &u->timer);
  api_smap_clear(&u->all, free);
}

static void set_timer(struct api_token_uses *u) {
  struct err err;
  int64_t wait = u->written_ms + API_TOKEN_USE_EVERY_MS - api_now_ms(u->api);
  if (wait > API_TOKEN_USE_EVERY_MS) /* the clock was set back */
    wait = API_TOKEN_USE_EVERY_MS;
  wait = u->written_ms && wait > 0 ? wait * NS_PER_MS : SOON;
  if (!u->writing && !loop_timer_is_set(&u->timer) && loop_timer_in(u->api->loop, &u->timer, wait, &err) < 0)
    log_warn("no timer for the use of tokens", "error", err.msg);
}

bool api_token_came_from(const struct api_token_uses *u, const char *id, const uint8_t from[16]) {
  const struct api_token_use *use = api_smap_get(&u->all, id);
  for (unsigned i = 0; use && i < use->places; i++)
    if (memcmp(use->from[i], from, 16) == 0)
      return true;
  return false;
}

void api_token_used(struct api_token_uses *u, const char *id, const uint8_t from[16]) {
  struct api_token_use *use = api_smap_get(&u->all, id);
  if (!use) {
    void **slot = api_smap_slot(&u->all, id);
    if (!slot)
      return; /* it is only not noted */
    use = *slot = calloc(1, sizeof *use);
    if (!use) {
      api_smap_take(&u->all, id);
      return;
    }
  }
  use->last_ms = api_now_ms(u->api);
  if (!api_token_came_from(u, id, from)) {
    memcpy(use->from[use->next], from, 16);
    use->next = (use->next + 1) % API_TOKEN_USE_PLACES;
    use->places += use->places < API_TOKEN_USE_PLACES;
  }
  set_timer(u);
}

int64_t api_token_last_used(const struct api_token_uses *u, const char *id) {
  const struct api_token_use *use = api_smap_get(&u->all, id);
  return use ? use->last_ms : 0;
}

static void written(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct api *api = arg;
  (void)revision;
  api->uses.writing = false; /* whoever was faster changed a token: its use is written with the next use */
  if (err || !succeeded)
    log_debug("the use of tokens was not stored", "why", err ? err->msg : "somebody changed one");
}

static const Model__Token *token_of(const struct api *api, const char *id, uint64_t *mod) {
  char key[KEY_MAX];
  key_named(key, KEY_TOKENS, id);
  const struct api_object *object = api_cache_object(&api->cache, API_TOKENS, key);
  *mod = object ? object->mod : 0;
  return object ? (const Model__Token *)(const void *)object->msg : NULL;
}

static void put_use(struct storec_txn *txn, const Model__Token *token, uint64_t mod, int64_t last_ms) {
  char key[KEY_MAX];
  Model__Token *copy = (Model__Token *)(void *)pb_clone(&token->base);
  if (!copy)
    return;
  PB_SET(copy, last_used_ms, last_ms);
  key_named(key, KEY_TOKENS, copy->id);
  storec_if_mod_revision(txn, key, mod);
  storec_put_message(txn, key, &copy->base, 0);
  model__token__free_unpacked(copy, NULL);
}

static void due(void *arg) {
  struct api_token_uses *u = arg;
  struct api *api = u->api;
  struct storec_txn *txn = api->in_touch ? storec_txn_new() : NULL;
  u->written_ms = api_now_ms(api);
  if (!txn)
    return; /* the next use sets the timer again */
  for (size_t i = 0; i < u->all.count && storec_txn_ops(txn) < AT_ONCE;) {
    uint64_t mod;
    const struct api_token_use *use = u->all.list[i].value;
    const Model__Token *token = token_of(api, u->all.list[i].key, &mod);
    if (!token) {
      free(api_smap_take(&u->all, u->all.list[i].key));
      continue;
    }
    if (use->last_ms > token->last_used_ms)
      put_use(txn, token, mod, use->last_ms);
    i++;
  }
  if (!storec_txn_ops(txn)) {
    storec_txn_free(txn);
    return;
  }
  u->writing = true;
  api->commit(api->commit_arg, txn, written, api);
}
