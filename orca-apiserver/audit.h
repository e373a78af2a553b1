/* The audit log: who did what, from where, on what, and how it ended; /audit/TIME-SEQ, the newest API_AUDIT_MAX.
 *
 * A change is written in its own transaction: what was changed is in the log, also when this process is killed right after. What was refused (401,
 * 403, 404 where a token sees only some projects, 429, and each change that could not be made) is written a moment later, folded (audit_fold.h); what
 * was counted further than it was written is lost when this process dies. Bodies are never in it: no value of a secret passes through here. Entries
 * of those whom nobody knows are at most API_AUDIT_STRANGERS, those of what was refused to others at most API_AUDIT_REFUSED: no flood of wrong
 * tokens, and none of a viewer's, pushes a change out of the log. Threads: the loop's. */
#ifndef ORCA_APISERVER_AUDIT_H
#define ORCA_APISERVER_AUDIT_H

#include "common/loop.h"
#include "common/storec/storec.h"
#include "orca-apiserver/audit_fold.h"

#define API_AUDIT_MAX 10000
#define API_AUDIT_STRANGERS 2500
#define API_AUDIT_REFUSED 2500

struct api;
struct api_request;

struct api_audit {
  struct api *api;
  struct audit_fold fold;
  struct loop_timer timer;
  uint32_t seq;
  bool flushing; /* lines are on their way to the store */
};

void api_audit_init(struct api_audit *audit, struct api *api);
void api_audit_fini(struct api_audit *audit);

/* What the request is about, for its line: project "" when it is of none, and "shop/api", "secret shop/DB_URL". Handlers say it as soon as they know.
 */
void api_audit_target(struct api_request *request, const char *project, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* For what changes nothing: no line for its good end. */
void api_audit_nothing(struct api_request *request);
/* For what is to be seen though it changes nothing in the store (a command in a container): a line now. result "ok", or why not. */
void api_audit_note(struct api_request *request, int status, const char *result);

/* api.c's and request.c's: */
void api_audit_change(const struct api_request *request, struct storec_txn *txn); /* the line of a change, in its transaction */
void api_audit_answered(struct api_request *request);

#endif
