/* Who is asking, and what that one may do.
 *
 * Tokens are stored as SHA-256 of their text and compared in constant time; a role is a set of permissions; a token that names projects
 * sees nothing of the others: what it may not see does not exist for it.
 * Threads: pure functions of the cache. */
#ifndef ORCA_APISERVER_AUTH_H
#define ORCA_APISERVER_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "orca-apiserver/cache.h"

/* What a route asks for. 0 is none at all: routes.c does not build with it. */
enum api_permission { API_PERM_OPEN = 1, API_PERM_METRICS, API_PERM_VIEW, API_PERM_OPERATE, API_PERM_DEPLOY, API_PERM_ADMIN, API_PERM_END };
enum api_role { API_ROLE_NONE, API_ROLE_VIEWER, API_ROLE_DEPLOYER, API_ROLE_ADMIN };

#define API_TOKEN_MAX 256 /* characters of a token's text */

struct api_principal {
  enum api_role role;
  bool local;        /* came over loopback without a proxy before it */
  char token_id[64]; /* "" when nobody: the token is looked up again at each use, so that a revoked one ends at once */
  char name[64];     /* of the token, for history */
  uint8_t hash[8];   /* the beginning of its hash: another token of that name is another one */
  uint64_t scope;    /* of its role and its projects: when they change, it is another one, too */
  bool declared;     /* by cluster.toml: its text was chosen by somebody */
};

enum api_role api_role_from_text(const char *role);
const char *api_role_text(enum api_role role);              /* "none" where it is none */
enum api_role api_role_for(enum api_permission permission); /* the least that has it */
bool api_role_allows(enum api_role role, enum api_permission permission);
/* `authorization` is the header's value, NULL when there is none. False: nobody we know. */
bool api_auth_check(const struct api_cache *cache, const char *authorization, int64_t now_ms, struct api_principal *ret);
const Model__Token *api_auth_token(const struct api_cache *cache,
                                   const struct api_principal *who); /* NULL: nobody; revoked, or given other rights, since */
bool api_auth_allows(const struct api_principal *who, enum api_permission permission);
bool api_auth_sees(const struct api_cache *cache, const struct api_principal *who, const char *project);
bool api_auth_is_limited(const struct api_cache *cache, const struct api_principal *who); /* to some projects, or no longer known */

bool api_auth_is_known(const struct api_cache *cache, const struct api_principal *who, int64_t now_ms); /* neither changed nor expired since */

#endif
