#include "orca-apiserver/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"

#define PREFIX "orca_"
#define LETTERS 52 /* of 5 bits: 260 */

int api_token_make_text(char out[API_TOKEN_TEXT_MAX], struct err *err) {
  memcpy(out, PREFIX, sizeof PREFIX);
  return crypto_random_id(out + sizeof PREFIX - 1, LETTERS, err);
}

bool api_token_is_root(const Model__Token *t) {
  return api_role_from_text(PB_STR(t->role)) == API_ROLE_ADMIN && t->n_projects == 0 && !t->expires_ms && t->hash.len == 32;
}

static bool has_project(const Model__Token *t, const char *project) {
  for (size_t i = 0; i < t->n_projects; i++)
    if (strcmp(t->projects[i], project) == 0)
      return true;
  return false;
}

bool api_token_sees(const Model__Token *who, const Model__Token *other) {
  if (!who)
    return false;
  if (!who->n_projects)
    return true;
  for (size_t i = 0; i < other->n_projects; i++)
    if (!has_project(who, other->projects[i]))
      return false;
  return other->n_projects > 0;
}

const Model__Token *api_token_by_name(const struct api_cache *cache, const char *name, uint64_t *mod) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count; i++)
    if (strcmp(PB_STR(API_MSG(&all[i], Model__Token)->name), name) == 0) {
      *mod = ((const struct api_object *)all[i].value)->mod;
      return API_MSG(&all[i], Model__Token);
    }
  *mod = 0;
  return NULL;
}

static bool is_taken(const struct api_cache *cache, const char *name) {
  uint64_t mod;
  char key[KEY_MAX];
  key_named(key, KEY_TOKENS, name);
  return api_token_by_name(cache, name, &mod) || api_cache_object(cache, API_TOKENS, key);
}

bool api_token_is_over(const Model__Token *t, int64_t now_ms) {
  return t->expires_ms && !t->declared && t->expires_ms + API_TOKEN_KEPT_MS < now_ms;
}

static bool is_full(const struct api_cache *cache, int64_t now_ms) {
  size_t count, left = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count; i++)
    left += !api_token_is_over(API_MSG(&all[i], Model__Token), now_ms);
  return left >= API_TOKENS_MAX;
}

int api_token_check_new(const struct api_cache *cache, const Model__Token *by, const Model__Token *new, int64_t now_ms, struct err *err) {
  if (!by)
    return err_set(err, ERR_UNAUTHENTICATED, "the token that asks for another one is gone");
  if (!api_token_sees(by, new))
    return err_set(err, ERR_DENIED, "token %s is not for all of those projects: name some of its own with projects", PB_STR(by->name));
  if (by->expires_ms && (!new->expires_ms || new->expires_ms > by->expires_ms))
    return err_set(err, ERR_DENIED, "token %s expires: what it makes can't outlive it", PB_STR(by->name));
  if (new->expires_ms &&new->expires_ms <= now_ms)
    return err_set(err, ERR_INVALID, "expires: that is over already");
  if (is_taken(cache, new->name))
    return err_set(err, ERR_CONFLICT, "the name %s is taken by another token", new->name);
  if (is_full(cache, now_ms))
    return err_set(err, ERR_CONFLICT, "there are %d tokens already: remove some that nobody uses", API_TOKENS_MAX);
  return 0;
}

/* Another root token than those that `goes` names; its key in *ret. */
static const struct api_smap_entry *other_root(const struct api_cache *cache, bool (*goes)(const void *arg, const Model__Token *token),
                                               const void *arg) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Token *t = API_MSG(&all[i], Model__Token);
    if (api_token_is_root(t) && !goes(arg, t))
      return &all[i];
  }
  return NULL;
}

static bool is_it(const void *arg, const Model__Token *token) {
  return arg == token;
}

int api_token_check_removal(const struct api_cache *cache, const Model__Token *token, struct storec_txn *txn, struct err *err) {
  if (token->declared)
    return err_set(err, ERR_CONFLICT, "%s is declared in cluster.toml: take its [[token]] out there and deploy", PB_STR(token->name));
  if (!api_token_is_root(token))
    return 0;
  const struct api_smap_entry *other = other_root(cache, is_it, token);
  if (!other)
    return err_set(err, ERR_CONFLICT, "%s is the last admin token for all projects that does not expire: make another one first",
                   PB_STR(token->name));
  storec_if_mod_revision(txn, other->key, ((const struct api_object *)other->value)->mod);
  return 0;
}

/* ---- [[token]] ---- */

static const Model__TokenDecl *decl_of(const Model__ClusterSpec *cluster, const char *name) {
  for (size_t i = 0; i < cluster->n_tokens; i++)
    if (strcmp(PB_STR(cluster->tokens[i]->name), name) == 0)
      return cluster->tokens[i];
  return NULL;
}

static bool same(const Model__Token *t, const Model__TokenDecl *d) {
  if (t->hash.len != d->hash.len || memcmp(t->hash.data, d->hash.data, d->hash.len) != 0 || strcmp(PB_STR(t->role), PB_STR(d->role)) != 0 ||
      t->n_projects != d->n_projects)
    return false;
  for (size_t i = 0; i < d->n_projects; i++)
    if (strcmp(t->projects[i], d->projects[i]) != 0)
      return false;
  return true;
}

static int check_decl(const struct api_cache *cache, const Model__ClusterSpec *cluster, size_t at, struct err *err) {
  const Model__TokenDecl *d = cluster->tokens[at];
  const char *name = PB_STR(d->name);
  if (d->value)
    return err_set(err, ERR_INVALID, "cluster.token: the value of %s must not be sent, only its hash, which orcactl makes", name);
  if (d->hash.len != 32)
    return err_set(err, ERR_INVALID, "cluster.token: %s has no hash", name);
  if (!*name || strlen(name) > 63 || api_role_from_text(PB_STR(d->role)) == API_ROLE_NONE || d->n_projects > API_TOKEN_PROJECTS_MAX)
    return err_set(err, ERR_INVALID, "cluster.token: %.63s is not a token", name);
  for (size_t i = 0; i < at; i++) {
    if (strcmp(PB_STR(cluster->tokens[i]->name), name) == 0)
      return err_set(err, ERR_UNPROCESSABLE, "cluster.token: %s is there twice", name);
    if (memcmp(cluster->tokens[i]->hash.data, d->hash.data, 32) == 0)
      return err_set(err, ERR_UNPROCESSABLE, "cluster.token: %s and %s have the same value", cluster->tokens[i]->name, name);
  }
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Token *t = API_MSG(&all[i], Model__Token);
    if (t->declared)
      continue;
    if (strcmp(PB_STR(t->name), name) == 0 || strcmp(PB_STR(t->id), name) == 0)
      return err_set(err, ERR_UNPROCESSABLE,
                     "cluster.token: the name %s is taken by a token that was made by hand: remove that, or take another name", name);
    if (t->hash.len == 32 && memcmp(t->hash.data, d->hash.data, 32) == 0)
      return err_set(err, ERR_UNPROCESSABLE, "cluster.token: %s has the value of token %s", name, PB_STR(t->name));
  }
  return 0;
}

static bool will_go(const void *arg, const Model__Token *token) {
  const Model__TokenDecl *d = decl_of(arg, PB_STR(token->name));
  return token->declared && (!d || d->n_projects || api_role_from_text(PB_STR(d->role)) != API_ROLE_ADMIN);
}

static int check_root_stays(const struct api_cache *cache, const Model__ClusterSpec *cluster, struct storec_txn *txn, struct err *err) {
  static const void *const nobody = NULL;
  for (size_t i = 0; i < cluster->n_tokens; i++)
    if (!cluster->tokens[i]->n_projects && api_role_from_text(PB_STR(cluster->tokens[i]->role)) == API_ROLE_ADMIN)
      return 0;
  if (!other_root(cache, is_it, nobody))
    return 0; /* there is none now, and this takes none away */
  const struct api_smap_entry *other = other_root(cache, will_go, cluster);
  if (!other)
    return err_set(err, ERR_UNPROCESSABLE,
                   "cluster.token: without the last admin token for all projects nobody could do anything: make another one first");
  if (txn)
    storec_if_mod_revision(txn, other->key, ((const struct api_object *)other->value)->mod);
  return 0;
}

static void put_decl(const Model__TokenDecl *d, const Model__Token *old, uint64_t mod, const char *actor, int64_t now_ms, struct storec_txn *txn) {
  char key[KEY_MAX], name[64], by[64];
  snprintf(name, sizeof name, "%s", d->name);
  snprintf(by, sizeof by, "%s", actor);
  Model__Token token = MODEL__TOKEN__INIT;
  token.id = name;
  token.name = name;
  token.has_hash = 1;
  token.hash = d->hash;
  token.role = d->role;
  token.projects = d->projects;
  token.n_projects = d->n_projects;
  token.created_by = by;
  PB_SET(&token, declared, 1);
  PB_SET(&token, created_ms, old ? old->created_ms : now_ms);
  if (old && old->last_used_ms)
    PB_SET(&token, last_used_ms, old->last_used_ms);
  key_named(key, KEY_TOKENS, name);
  storec_if_mod_revision(txn, key, mod);
  storec_put_message(txn, key, &token.base, 0);
}

Model__ClusterSpec api_cluster_without_tokens(const Model__ClusterSpec *cluster) {
  Model__ClusterSpec without = *cluster;
  without.n_tokens = 0;
  without.tokens = NULL;
  return without;
}

bool api_tokens_are_declared(const struct api_cache *cache, const Model__ClusterSpec *cluster) {
  size_t count, left = cluster->n_tokens;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  for (size_t i = 0; i < count; i++) {
    const Model__Token *t = API_MSG(&all[i], Model__Token);
    const Model__TokenDecl *d = t->declared ? decl_of(cluster, PB_STR(t->name)) : NULL;
    if (t->declared && (!d || !same(t, d)))
      return false;
    left -= d != NULL;
  }
  return left == 0;
}

int api_tokens_declare(const struct api_cache *cache, const Model__ClusterSpec *cluster, const char *actor, int64_t now_ms, struct storec_txn *txn,
                       struct err *err) {
  size_t count;
  const struct api_smap_entry *all = api_cache_all(cache, API_TOKENS, &count);
  if (cluster->n_tokens > API_TOKENS_MAX / 2)
    return err_set(err, ERR_UNPROCESSABLE, "cluster.token: more than %d", API_TOKENS_MAX / 2);
  for (size_t i = 0; i < cluster->n_tokens; i++)
    if (check_decl(cache, cluster, i, err) < 0)
      return -1;
  if (check_root_stays(cache, cluster, txn, err) < 0)
    return -1;
  for (size_t i = 0; txn && i < count; i++) {
    const Model__Token *t = API_MSG(&all[i], Model__Token);
    if (t->declared && !decl_of(cluster, PB_STR(t->name)))
      storec_delete(txn, all[i].key);
  }
  for (size_t i = 0; txn && i < cluster->n_tokens; i++) {
    uint64_t mod;
    const Model__Token *old = api_token_by_name(cache, cluster->tokens[i]->name, &mod);
    if (!old || !same(old, cluster->tokens[i]))
      put_decl(cluster->tokens[i], old, mod, actor, now_ms, txn);
  }
  return 0;
}
