#include "orca-apiserver/auth.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "orca-apiserver/json_out.h"

enum api_role api_role_from_text(const char *role) {
  if (strcmp(role, "admin") == 0)
    return API_ROLE_ADMIN;
  if (strcmp(role, "deployer") == 0)
    return API_ROLE_DEPLOYER;
  if (strcmp(role, "viewer") == 0)
    return API_ROLE_VIEWER;
  return API_ROLE_NONE;
}

bool api_role_allows(enum api_role role, enum api_permission permission) {
  switch (permission) {
  case API_PERM_OPEN:
    return true;
  case API_PERM_METRICS:
  case API_PERM_VIEW:
    return role >= API_ROLE_VIEWER;
  case API_PERM_OPERATE:
  case API_PERM_DEPLOY:
    return role >= API_ROLE_DEPLOYER;
  case API_PERM_ADMIN:
    return role == API_ROLE_ADMIN;
  case API_PERM_END:
    break;
  }
  return false;
}

const char *api_role_text(enum api_role role) {
  static const char *const texts[] = {"none", "viewer", "deployer", "admin"};
  return texts[role];
}

enum api_role api_role_for(enum api_permission permission) {
  enum api_role role = API_ROLE_NONE;
  while (role < API_ROLE_ADMIN && !api_role_allows(role, permission))
    role++;
  return role;
}

bool api_auth_allows(const struct api_principal *who, enum api_permission permission) {
  return (permission == API_PERM_METRICS && who->local) || api_role_allows(who->role, permission);
}

static const char *bearer(const char *authorization) {
  if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
    return NULL;
  const char *token = authorization + 7;
  while (*token == ' ')
    token++;
  size_t len = strlen(token);
  return len && len <= API_TOKEN_MAX ? token : NULL;
}

/* FNV-1a. Not a secret, and an admin's to say: nobody gains by two that are alike. */
static uint64_t add_text(uint64_t hash, const char *text) {
  do
    hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
  while (*text++);
  return hash;
}

static uint64_t scope_of(const Model__Token *t) {
  uint64_t hash = add_text(UINT64_C(0xcbf29ce484222325), PB_STR(t->role));
  for (size_t i = 0; i < t->n_projects; i++)
    hash = add_text(hash, t->projects[i]);
  return hash;
}

bool api_auth_check(const struct api_cache *cache, const char *authorization, int64_t now_ms, struct api_principal *ret) {
  const char *token = bearer(authorization);
  if (!token)
    return false;
  uint8_t hash[32];
  crypto_sha256(token, strlen(token), hash);
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  const Model__Token *found = NULL;
  /* All of them, so that the time taken does not tell which one came close. */
  for (size_t i = 0; i < count; i++) {
    const Model__Token *t = API_MSG(&all[i], Model__Token);
    if (t->hash.len == sizeof hash && crypto_equal(t->hash.data, hash, sizeof hash))
      found = t;
  }
  if (!found || (found->expires_ms && found->expires_ms <= now_ms))
    return false;
  enum api_role role = api_role_from_text(PB_STR(found->role));
  if (role == API_ROLE_NONE || strlen(PB_STR(found->id)) >= sizeof ret->token_id)
    return false;
  ret->role = role;
  snprintf(ret->token_id, sizeof ret->token_id, "%s", PB_STR(found->id));
  api_text_copy(ret->name, sizeof ret->name, PB_STR(found->name));
  memcpy(ret->hash, hash, sizeof ret->hash);
  ret->scope = scope_of(found);
  ret->declared = found->declared;
  return true;
}

const Model__Token *api_auth_token(const struct api_cache *cache, const struct api_principal *who) {
  char key[KEY_MAX];
  key_named(key, KEY_TOKENS, who->token_id);
  const struct api_object *object = api_cache_object(cache, API_TOKENS, key);
  const Model__Token *token = object ? (const Model__Token *)(const void *)object->msg : NULL;
  bool same = token && token->hash.len == 32 && memcmp(token->hash.data, who->hash, sizeof who->hash) == 0 && scope_of(token) == who->scope;
  return same ? token : NULL;
}

bool api_auth_sees(const struct api_cache *cache, const struct api_principal *who, const char *project) {
  if (!who->token_id[0])
    return who->local; /* metrics on loopback: the only thing that is read without a token */
  const Model__Token *token = api_auth_token(cache, who);
  if (!token)
    return false;
  for (size_t i = 0; i < token->n_projects; i++)
    if (strcmp(token->projects[i], project) == 0)
      return true;
  return token->n_projects == 0;
}

bool api_auth_is_limited(const struct api_cache *cache, const struct api_principal *who) {
  if (!who->token_id[0])
    return !who->local;
  const Model__Token *token = api_auth_token(cache, who);
  return !token || token->n_projects > 0;
}

bool api_auth_is_known(const struct api_cache *cache, const struct api_principal *who, int64_t now_ms) {
  const Model__Token *token = api_auth_token(cache, who);
  return !who->token_id[0] || (token && (!token->expires_ms || token->expires_ms > now_ms));
}
