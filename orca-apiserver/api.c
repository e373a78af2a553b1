#include "orca-apiserver/api.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/crypto/crypto.h"
#include "common/log.h"
#include "orca-apiserver/routes.h"

#define TRIES 32
#define TRIM_AT_ONCE 64

static void waiters_due(void *arg);

void api_init(struct api *api, struct loop *loop, const struct node_config *config) {
  *api = (struct api){.loop = loop, .config = config};
  snprintf(api->why_not, sizeof api->why_not, "the store has not answered yet");
  api->waiters_timer = (struct loop_timer){.cb = waiters_due, .arg = api};
  api->started_ms = api_now_ms(api);
  api_audit_init(&api->audit, api);
  api_token_uses_init(&api->uses, api);
  struct err err;
  if (crypto_random(api->throttle.seed, sizeof api->throttle.seed, &err) < 0)
    log_warn("the throttle's seed can be guessed", "error", err.msg);
}

void api_end_waits(struct api *api) {
  while (api->waiters) { /* its owner frees what it holds */
    struct api_waiter *w = api->waiters;
    api->waiters = w->next;
    w->cb(w->arg);
    free(w);
  }
  loop_timer_cancel(api->loop, &api->waiters_timer);
}

void api_fini(struct api *api) {
  api_end_waits(api);
  api_audit_fini(&api->audit);
  api_token_uses_fini(&api->uses);
  keyring_wipe(&api->keyring);
  api_cache_fini(&api->cache);
  api_figures_fini(&api->figures);
}

int64_t api_now_ms(const struct api *api) {
  return loop_wall(api->loop) / NS_PER_MS;
}

/* ---- waiting for the cache ---- */

static void set_timer(struct api *api) {
  int64_t first = INT64_MAX;
  for (struct api_waiter *w = api->waiters; w; w = w->next)
    if (w->deadline < first)
      first = w->deadline;
  struct err err;
  if (!api->waiters)
    loop_timer_cancel(api->loop, &api->waiters_timer);
  else if (loop_timer_at(api->loop, &api->waiters_timer, first, &err) < 0)
    log_error("no timer", "error", err.msg);
}

static void wake_waiters(struct api *api) {
  int64_t now = loop_now(api->loop);
  struct api_waiter *due = NULL, **due_end = &due;
  for (struct api_waiter **at = &api->waiters; *at;) {
    struct api_waiter *w = *at;
    if (w->revision > api->cache.revision && w->deadline > now) {
      at = &w->next;
      continue;
    }
    *at = w->next;
    w->next = NULL;
    *due_end = w;
    due_end = &w->next;
  }
  while (due) { /* callbacks may wait again */
    struct api_waiter *w = due;
    due = w->next;
    w->cb(w->arg);
    free(w);
  }
  set_timer(api);
}

static void waiters_due(void *arg) {
  wake_waiters(arg);
}

void api_when(struct api *api, uint64_t revision, int64_t wait_ns, void (*cb)(void *arg), void *arg) {
  struct api_waiter *w = api->cache.revision >= revision ? NULL : malloc(sizeof *w);
  if (!w) {
    cb(arg);
    return;
  }
  *w = (struct api_waiter){.revision = revision, .deadline = loop_now(api->loop) + wait_ns, .cb = cb, .arg = arg};
  struct api_waiter **end = &api->waiters;
  while (*end)
    end = &(*end)->next;
  *end = w;
  set_timer(api);
}

void api_reached(struct api *api) {
  if (api->waiters)
    wake_waiters(api);
  api_wake_streams(api);
}

void api_wake_streams(void *arg) {
  const struct api *api = arg;
  for (struct api_request *r = api->streams, *next; r; r = next) {
    next = r->next_stream;
    api_stream_wake(r);
  }
}

/* ---- requests ---- */

/* A wait is a wait, whatever happens to the wall clock meanwhile. */
static int64_t throttle_now(const struct api *api) {
  return loop_now(api->loop) / NS_PER_MS;
}

/* A wrong token: 401, and after too many of them 429 until the address has waited. throttled: it has to wait whatever the token was. */
static void turn_away(struct api *api, struct api_request *r, bool gave_one, bool throttled) {
  int64_t now = throttle_now(api), wait = 0;
  if (gave_one)
    wait = throttled ? api_throttle_wait(&api->throttle, r->from.key, now) : api_throttle_failed(&api->throttle, r->from.key, now);
  api->wrong_tokens += gave_one;
  if (wait > 0) {
    r->retry_after = (unsigned)((wait + 999) / 1000);
    api_fail_with(r, ERR_BUSY, "too many wrong tokens from this address: wait %u s", r->retry_after);
  } else {
    api_fail_with(r, ERR_UNAUTHENTICATED, gave_one ? "this token is not known, or has expired" : "a token is needed: Authorization: Bearer TOKEN");
  }
}

bool api_admit(struct api *api, struct api_request *r, const char *authorization) {
  bool known = api_auth_check(&api->cache, authorization, api_now_ms(api), &r->who);
  bool throttled = known && r->who.declared && api_throttle_wait(&api->throttle, r->from.key, throttle_now(api)) > 0 &&
                   !api_token_came_from(&api->uses, r->who.token_id, r->from.key);
  if (throttled) {
    r->who = (struct api_principal){.local = r->who.local};
    known = false;
  } else if (known) {
    api_token_used(&api->uses, r->who.token_id, r->from.key);
  }
  enum api_match match = api_route_find(r->method, r->path, &r->route, r->param, r->allow);
  if (match == API_MATCH && (r->route->permission == API_PERM_OPEN || (!known && !authorization && api_auth_allows(&r->who, r->route->permission))))
    return true;
  if (!api->synced) {
    api_fail_with(r, ERR_UNAVAILABLE, "not ready: %s", api->why_not);
  } else if (!known) {
    turn_away(api, r, authorization != NULL, throttled);
  } else if (match == API_MATCH_NONE) {
    api_fail_with(r, ERR_NOT_FOUND, "no such path: %.100s", r->path);
  } else if (match == API_MATCH_NO_METHOD) {
    api_fail_with(r, ERR_METHOD, "%.16s is not for this path: %s is", r->method, r->allow);
  } else if (!api_auth_allows(&r->who, r->route->permission)) {
    api_fail_with(r, ERR_DENIED, "token %s has the role %s: this takes %s", r->who.name, api_role_text(r->who.role),
                  api_role_text(api_role_for(r->route->permission)));
  } else {
    r->allow[0] = 0;
    return true;
  }
  if (match != API_MATCH_NO_METHOD || r->status != 405)
    r->allow[0] = 0;
  return false;
}

void api_dispatch(struct api *api, struct api_request *r) {
  struct err err;
  if (!api_auth_is_known(&api->cache, &r->who, api_now_ms(api))) { /* a body may take minutes to come */
    api_fail_with(r, ERR_UNAUTHENTICATED, "this token is not known any more, or has expired");
    return;
  }
  if (r->query_cut) {
    api_fail_with(r, ERR_INVALID, "query: more than %d parameters", API_QUERY_MAX);
    return;
  }
  if (api_request_check_query(r, &err) < 0 || (r->route->takes && api_request_parse(r, &err) < 0)) {
    api_fail(r, &err);
    return;
  }
  r->route->handler(r);
  json_decref(r->json); /* an answer may take long, and its reader longer */
  r->json = NULL;
}

const Model__Service *api_find_service_err(struct api_request *r, uint64_t *mod, struct err *err) {
  const struct api_cache *cache = &r->api->cache;
  const char *project = api_request_query(r, "project");
  if (project) {
    const Model__Service *one = api_auth_sees(cache, &r->who, project) ? api_cache_service(cache, project, r->param, mod) : NULL;
    api_audit_target(r, project, "%.64s/%s", project, r->param);
    if (!one)
      err_set(err, ERR_NOT_FOUND, "service not found: %.64s/%s", project, r->param);
    return one;
  }
  size_t count, found = 0;
  const struct api_smap_entry *all = api_cache_all(cache, API_SERVICES, &count);
  const Model__Service *service = NULL;
  char projects[256] = "";
  for (size_t i = 0; i < count; i++) {
    const Model__Service *s = API_MSG(&all[i], Model__Service);
    if (strcmp(PB_STR(s->name), r->param) != 0 || !api_auth_sees(cache, &r->who, PB_STR(s->project)))
      continue;
    size_t used = strlen(projects);
    snprintf(projects + used, sizeof projects - used, "%s%s", found ? ", " : "", s->project);
    found++;
    service = s;
    *mod = ((const struct api_object *)all[i].value)->mod;
  }
  if (found == 1) {
    api_audit_target(r, service->project, "%s/%s", service->project, r->param);
    return service;
  }
  if (found)
    err_set(err, ERR_CONFLICT, "several projects have a service %s: %s; say PROJECT/%s (in the API ?project=)", r->param, projects, r->param);
  else
    err_set(err, ERR_NOT_FOUND, "service not found: %s", r->param);
  return NULL;
}

const Model__Service *api_find_service(struct api_request *r, uint64_t *mod) {
  struct err err;
  const Model__Service *service = api_find_service_err(r, mod, &err);
  if (!service)
    api_fail(r, &err);
  return service;
}

/* ---- writes ---- */

void api_change_wanted(struct api *api, struct storec_txn *txn) {
  const struct api_object *last = api_cache_object(&api->cache, API_WANTED, KEY_WANTED);
  Model__Wanted wanted = MODEL__WANTED__INIT;
  PB_SET(&wanted, changed_ms, api_now_ms(api));
  storec_if_mod_revision(txn, KEY_WANTED, last ? last->mod : 0);
  storec_put_message(txn, KEY_WANTED, &wanted.base, 0);
}

static void write_once(struct api_write *w);

static void write_free(struct api_write *w) {
  if (w->free_ctx)
    w->free_ctx(w->ctx);
  spec_faults_free(&w->faults);
  api_request_unref(w->request);
  free(w);
}

static void write_seen(void *arg) {
  struct api_write *w = arg;
  w->answer(w);
  write_free(w);
}

static void write_again(void *arg) {
  write_once(arg);
}

static void write_done(void *arg, bool succeeded, uint64_t revision, const struct err *err) {
  struct api_write *w = arg;
  w->api->disk_full = err && err->code == ERR_NO_SPACE;
  if (err) {
    api_fail(w->request, err);
    write_free(w);
  } else if (succeeded) {
    w->request->audit.done = !w->more;
    api_when(w->api, revision, 5 * NS_PER_SEC, w->more ? write_again : write_seen, w);
  } else if (++w->tries == TRIES) {
    api_fail_with(w->request, ERR_CONFLICT, "others keep changing the same; try again");
    write_free(w);
  } else {
    /* Somebody was faster: the cache must have what he wrote before it is tried again. */
    api_when(w->api, revision, 100 * NS_PER_MS, write_again, w);
  }
}

static void write_once(struct api_write *w) {
  struct err err;
  struct storec_txn *txn = storec_txn_new();
  if (!txn) {
    api_fail_with(w->request, ERR_MEMORY, "no memory for a transaction");
    write_free(w);
    return;
  }
  int rc = w->build(w, txn, &err);
  w->more = rc == 2;
  if (rc == 0)
    api_audit_change(w->request, txn);
  if (rc == 0 || rc == 2) {
    w->api->commit(w->api->commit_arg, txn, write_done, w);
    return;
  }
  storec_txn_free(txn);
  if (rc < 0 && w->faults.count) {
    api_fail_faults(w->request, ERR_UNPROCESSABLE, &w->faults);
  } else if (rc < 0) {
    api_fail(w->request, &err);
  } else {
    api_audit_nothing(w->request);
    w->answer(w);
  }
  write_free(w);
}

void api_write_start(const struct api_write *write) {
  struct api *api = write->api;
  struct api_write *w = malloc(sizeof *w);
  if (!w || !api->in_touch) {
    api_fail_with(write->request, w ? ERR_UNAVAILABLE : ERR_MEMORY, "%s", w ? api->why_not : "no memory");
    if (write->free_ctx)
      write->free_ctx(write->ctx);
    free(w);
    return;
  }
  *w = *write;
  api_request_ref(w->request);
  write_once(w);
}

/* ---- history ---- */

void api_event(struct api *api, struct storec_txn *txn, const Model__Event *event) {
  char key[KEY_MAX];
  key_event(key, KEY_HISTORY_APISERVER, event->ms, api->event_seq++);
  storec_put_message(txn, key, &event->base, 0);
  size_t count;
  const struct api_smap_entry *old = api_cache_all(&api->cache, API_HISTORY_APISERVER, &count);
  for (size_t i = 0; i < TRIM_AT_ONCE && i + API_HISTORY_MAX < count; i++)
    storec_delete(txn, old[i].key);
}

void api_service_event(struct api *api, struct storec_txn *txn, const struct api_request *by, const char *kind, const char *project,
                       const char *service, const char *fmt, ...) {
  char whole[1024], text[512], copies[4][128];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(whole, sizeof whole, fmt, ap);
  va_end(ap);
  api_text_copy(text, sizeof text, whole);
  snprintf(copies[0], sizeof copies[0], "%s", kind);
  snprintf(copies[1], sizeof copies[1], "%s", project);
  snprintf(copies[2], sizeof copies[2], "%s", service);
  snprintf(copies[3], sizeof copies[3], "%s", by ? by->who.name : "apiserver");
  char severity[] = "info";
  Model__Event event = MODEL__EVENT__INIT;
  PB_SET(&event, ms, api_now_ms(api));
  event.kind = copies[0];
  event.project = copies[1];
  event.service = copies[2];
  event.message = text;
  event.severity = severity;
  event.actor = copies[3];
  api_event(api, txn, &event);
}
