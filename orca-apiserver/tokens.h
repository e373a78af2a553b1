/* What may be done with tokens: the rules, without I/O.
 *
 * A token that everything hangs on (a "root" one: admin, of all projects, without an end) may go only while there is another. Nobody makes a token
 * that exceeds his own: in projects, or in time. Those of cluster.toml (declared) come and go with it; their names are theirs alone. The key of a
 * token is its name, so that two of one name cannot come to be; that of the first one is "first", its name "admin". Threads: pure functions of the
 * cache. */
#ifndef ORCA_APISERVER_TOKENS_H
#define ORCA_APISERVER_TOKENS_H

#include <stdbool.h>

#include "common/storec/storec.h"
#include "orca-apiserver/auth.h"
#include "orca-apiserver/cache.h"

#define API_TOKENS_MAX 1000
#define API_TOKEN_PROJECTS_MAX 64
#define API_TOKEN_TEXT_MAX 64
#define API_TOKEN_KEPT_MS (INT64_C(7) * 24 * 3600 * 1000) /* an expired one is still listed, until others are made */

/* "orca_" and 52 letters and digits of 5 random bits each. The caller wipes it. */
int api_token_make_text(char out[API_TOKEN_TEXT_MAX], struct err *err);

bool api_token_is_root(const Model__Token *token);
/* A token sees those that see no more projects than itself; NULL: nobody's token sees nothing. */
bool api_token_sees(const Model__Token *who, const Model__Token *other);
const Model__Token *api_token_by_name(const struct api_cache *cache, const char *name, uint64_t *mod);
/* Expired for so long that it makes room for a new one. */
bool api_token_is_over(const Model__Token *token, int64_t now_ms);
/* May `by` make this one now? Unique, not more than its own, not too many. */
int api_token_check_new(const struct api_cache *cache, const Model__Token *by, const Model__Token *new, int64_t now_ms, struct err *err);
/* May it go? Then txn holds when it still may: it compares with another root token. */
int api_token_check_removal(const struct api_cache *cache, const Model__Token *token, struct storec_txn *txn, struct err *err);

/* cluster.toml as the store has it, where more than the apiserver can read it: without its tokens, which are records of their own. Borrows from it.
 */
Model__ClusterSpec api_cluster_without_tokens(const Model__ClusterSpec *cluster);
/* Whether those tokens are as it says already. */
bool api_tokens_are_declared(const struct api_cache *cache, const Model__ClusterSpec *cluster);
/* Tokens as cluster.toml says: those that are new or others, and those that are gone, into txn (NULL: only whether it can be done). */
int api_tokens_declare(const struct api_cache *cache, const Model__ClusterSpec *cluster, const char *actor, int64_t now_ms, struct storec_txn *txn,
                       struct err *err);

#endif
