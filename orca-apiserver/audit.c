#include "orca-apiserver/audit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

#define SOON_MS 100
#define AGAIN_MS 2000
#define AT_ONCE 100
#define TRIM_AT_ONCE 64
/* At the end of a key: of somebody without a token that we know; what was refused to one with a token. What was done has neither. */
#define STRANGER 's'
#define REFUSED 'r'

struct audit_batch {
  struct api_audit *audit;
  size_t count;
  struct {
    uint32_t seq;
    uint64_t count;
  } lines[AT_ONCE];
  struct storec_txn *txn;
};

static void due(void *arg);

void api_audit_init(struct api_audit *a, struct api *api) {
  *a = (struct api_audit){.api = api, .timer = {.cb = due, .arg = a}};
}

void api_audit_fini(struct api_audit *a) {
  loop_timer_cancel(a->api->loop, &a->timer);
  audit_fold_free(&a->fold);
}

/* ---- what is said about a request ---- */

void api_audit_target(struct api_request *r, const char *project, const char *fmt, ...) {
  char whole[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(whole, sizeof whole, fmt, ap);
  va_end(ap);
  api_text_copy(r->audit.target, sizeof r->audit.target, whole);
  api_text_copy(r->audit.project, sizeof r->audit.project, project);
}

void api_audit_nothing(struct api_request *r) {
  r->audit.done = true;
}

/* Of what a client sent: printable, and valid in any encoding. */
static void plain(char *to, size_t size, const char *from) {
  size_t n = 0;
  for (; *from && n + 1 < size; from++)
    to[n++] = *from > ' ' && *from < 0x7f ? *from : '?';
  to[n] = 0;
}

static void fill(const struct api_request *r, int status, const char *result, struct audit_line *line) {
  struct api_audit *a = &r->api->audit;
  *line = (struct audit_line){.ms = api_now_ms(r->api), .seq = a->seq++, .status = (uint32_t)status, .count = 1};
  api_text_copy(line->actor, sizeof line->actor, r->who.name);
  snprintf(line->token_id, sizeof line->token_id, "%s", r->who.token_id);
  snprintf(line->from, sizeof line->from, "%s", r->from.text);
  plain(line->method, sizeof line->method, r->method);
  plain(line->path, sizeof line->path, r->route ? r->route->path : r->path);
  const char *project = api_request_query(r, "project");
  if (r->audit.target[0]) {
    snprintf(line->target, sizeof line->target, "%s", r->audit.target);
    snprintf(line->project, sizeof line->project, "%s", r->audit.project);
  } else if (r->route && r->param[0]) {
    char copies[2][80];
    plain(copies[0], sizeof copies[0], project ? project : "");
    plain(copies[1], sizeof copies[1], r->param);
    snprintf(line->target, sizeof line->target, "%s%s%s", copies[0], *copies[0] ? "/" : "", copies[1]);
    snprintf(line->project, sizeof line->project, "%.63s", copies[0]);
  }
  api_text_copy(line->result, sizeof line->result, result);
}

/* ---- the store ---- */

static char kind_of(const char *key) {
  return key[strlen(key) - 1];
}

/* The oldest of strangers, or of refusals, when there are too many of those, the oldest of all otherwise. Some at once: not with each line. */
static void trim(const struct api_cache *cache, struct storec_txn *txn) {
  size_t count, strangers = 0, refused = 0, wanted = TRIM_AT_ONCE;
  const struct api_smap_entry *all = api_cache_all(cache, API_AUDIT, &count);
  if (count + AT_ONCE < API_AUDIT_STRANGERS)
    return;
  for (size_t i = 0; i < count; i++) {
    strangers += kind_of(all[i].key) == STRANGER;
    refused += kind_of(all[i].key) == REFUSED;
  }
  char of = strangers + AT_ONCE >= API_AUDIT_STRANGERS ? STRANGER : refused + AT_ONCE >= API_AUDIT_REFUSED ? REFUSED : 0;
  if (!of && count + AT_ONCE < API_AUDIT_MAX)
    return;
  for (size_t i = 0; i < count && wanted; i++)
    if (!of || kind_of(all[i].key) == of) {
      storec_delete(txn, all[i].key);
      wanted--;
    }
}

static void put(struct storec_txn *txn, const struct audit_line *line) {
  struct audit_line l = *line;
  char key[KEY_MAX], kind[] = {l.token_id[0] ? REFUSED : STRANGER, 0};
  Model__AuditEntry entry = MODEL__AUDIT_ENTRY__INIT;
  PB_SET(&entry, ms, l.ms);
  entry.actor = l.actor;
  entry.token_id = l.token_id;
  entry.from = l.from;
  entry.method = l.method;
  entry.path = l.path;
  if (l.target[0])
    entry.target = l.target;
  if (l.project[0])
    entry.project = l.project;
  if (l.status)
    PB_SET(&entry, status, l.status);
  entry.result = l.result;
  if (l.count > 1)
    PB_SET(&entry, count, l.count < UINT32_MAX ? (uint32_t)l.count : UINT32_MAX);
  key_event(key, KEY_AUDIT, l.ms, l.seq);
  if (!l.token_id[0] || l.status >= 400 || !l.status)
    strncat(key, kind, sizeof key - strlen(key) - 1);
  storec_put_message(txn, key, &entry.base, 0);
}

void api_audit_change(const struct api_request *r, struct storec_txn *txn) {
  struct audit_line line;
  fill(r, 200, "ok", &line);
  put(txn, &line);
  trim(&r->api->cache, txn);
}

/* ---- what is written a moment later ---- */

static void set_timer(struct api_audit *a, int64_t not_before_ms) {
  struct err err;
  int64_t at = audit_fold_due(&a->fold, SOON_MS), now = api_now_ms(a->api);
  if (a->flushing || at == INT64_MAX)
    return;
  if (at < not_before_ms)
    at = not_before_ms;
  if (at > now + AUDIT_MINUTE_MS) /* the clock was set back */
    at = now + AUDIT_MINUTE_MS;
  if (loop_timer_in(a->api->loop, &a->timer, at > now ? (at - now) * NS_PER_MS : 0, &err) < 0)
    log_error("no timer for the audit log", "error", err.msg);
}

static void written(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct audit_batch *batch = arg;
  struct api_audit *a = batch->audit;
  (void)revision;
  int64_t now = api_now_ms(a->api);
  a->flushing = false;
  if (err)
    log_warn("the audit log waits for the store", "error", err->msg);
  for (size_t i = 0; !err && succeeded && i < batch->count; i++)
    audit_fold_written(&a->fold, batch->lines[i].seq, batch->lines[i].count, now);
  set_timer(a, err ? now + AGAIN_MS : 0);
  free(batch);
}

static void add(void *arg, const struct audit_line *line) {
  struct audit_batch *batch = arg;
  batch->lines[batch->count].seq = line->seq;
  batch->lines[batch->count++].count = line->count;
  put(batch->txn, line);
}

static void due(void *arg) {
  struct api_audit *a = arg;
  struct api *api = a->api;
  int64_t now = api_now_ms(api);
  if (a->flushing)
    return;
  if (!api->in_touch) {
    set_timer(a, now + AGAIN_MS);
    return;
  }
  struct audit_batch *batch = calloc(1, sizeof *batch);
  struct storec_txn *txn = storec_txn_new();
  if (!batch || !txn) {
    free(batch);
    if (txn)
      storec_txn_free(txn);
    set_timer(a, now + AGAIN_MS);
    return;
  }
  batch->audit = a;
  batch->txn = txn;
  if (!audit_fold_pending(&a->fold, now, AT_ONCE, add, batch)) {
    free(batch);
    storec_txn_free(txn);
    audit_fold_written(&a->fold, UINT32_MAX, 0, now); /* those whose minute is over without another one */
    set_timer(a, 0);
    return;
  }
  trim(&api->cache, txn);
  a->flushing = true;
  api->commit(api->commit_arg, txn, written, batch);
}

static void alone_written(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct audit_line *line = arg;
  (void)revision;
  if (err || !succeeded)
    log_error("a line of the audit log is not stored", "actor", line->actor, "from", line->from, "target", line->target, "error",
              err ? err->msg : "a conflict");
  free(line);
}

/* What was done is told one by one when the table is full: nobody hides it behind a flood of refusals. */
static int write_alone(struct api *api, const struct audit_line *line) {
  struct audit_line *copy = api->in_touch ? malloc(sizeof *copy) : NULL;
  struct storec_txn *txn = copy ? storec_txn_new() : NULL;
  if (!txn) {
    free(copy);
    return -1;
  }
  *copy = *line;
  put(txn, line);
  trim(&api->cache, txn);
  api->commit(api->commit_arg, txn, alone_written, copy);
  return 0;
}

void api_audit_note(struct api_request *r, int status, const char *result) {
  struct api_audit *a = &r->api->audit;
  struct audit_line line;
  fill(r, status, result, &line);
  r->audit.done = true;
  int rc = audit_fold_note(&a->fold, &line);
  if (rc > 0)
    rc = write_alone(r->api, &line);
  if (rc < 0)
    log_error("no room for a line of the audit log", "actor", line.actor, "from", line.from, "path", line.path, "target", line.target, "result",
              line.result);
  set_timer(a, 0);
}

void api_audit_answered(struct api_request *r) {
  bool reads = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
  bool refused = r->status == 401 || r->status == 403 || r->status == 429 ||
                 (r->status == 404 && r->route && r->param[0] && api_auth_is_limited(&r->api->cache, &r->who));
  if (!r->api->synced || (reads && !refused) || (r->status < 400 && r->audit.done))
    return;
  api_audit_note(r, r->status, r->status < 400 ? "ok" : r->audit.result);
}
