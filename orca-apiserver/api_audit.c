/* GET /audit: the newest lines that may be seen, oldest first; follow goes on where it stopped, and tells a line again when it was counted further.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

#define LOOK_BACK 512 /* lines of the last minute may still change */
#define FOLLOW_AT_ONCE 200

struct filter {
  struct api_request *request; /* not counted: the stream is the request's */
  uint64_t after;              /* what changed up to it has been told */
  /* One pass goes over the lines in their order and takes what changed between `after` and `up_to`; a slow reader leaves it at `next`. */
  uint64_t up_to;
  char next[KEY_MAX];
  int64_t from_ms;
  char project[64], actor[64];
  bool limited;
};

static Model__AuditEntry *unpack(const struct api_object *object) {
  return (Model__AuditEntry *)(void *)pb_unpack(&model__audit_entry__descriptor, object->bytes, object->len, NULL);
}

/* What was done under its name before it was made, another one did. */
static bool is_own(const struct api_request *r, const Model__AuditEntry *e) {
  const Model__Token *token = api_auth_token(&r->api->cache, &r->who);
  return token && strcmp(PB_STR(e->token_id), r->who.token_id) == 0 && e->ms >= token->created_ms;
}

/* A token of some projects sees what was done to those, and what it did itself. */
static bool visible(const struct filter *f, const Model__AuditEntry *e) {
  const struct api_request *r = f->request;
  const char *project = PB_STR(e->project);
  if ((f->project[0] && strcmp(f->project, project) != 0) || (f->actor[0] && strcmp(f->actor, PB_STR(e->actor)) != 0) || e->ms < f->from_ms)
    return false;
  return !f->limited || (*project && api_auth_sees(&r->api->cache, &r->who, project)) || is_own(r, e);
}

/* NULL: not for this one. */
static Model__AuditEntry *unpack_visible(const struct filter *f, const struct api_object *object) {
  Model__AuditEntry *e = object->mod > f->after ? unpack(object) : NULL;
  if (!e || visible(f, e))
    return e;
  model__audit_entry__free_unpacked(e, NULL);
  return NULL;
}

static void entry_json(const char *key, const Model__AuditEntry *e, uint64_t revision, struct api_json *json) {
  api_json_object(json, NULL);
  api_json_str(json, "id", key + strlen(KEY_AUDIT));
  api_json_u64(json, "revision", revision);
  api_json_time(json, "time", e->ms);
  api_json_str(json, "actor", PB_STR(e->actor));
  api_json_str(json, "from", PB_STR(e->from));
  api_json_str(json, "method", PB_STR(e->method));
  api_json_str(json, "path", PB_STR(e->path));
  api_json_str(json, "target", PB_STR(e->target));
  api_json_str(json, "project", PB_STR(e->project));
  api_json_u64(json, "status", e->status);
  api_json_str(json, "result", PB_STR(e->result));
  api_json_u64(json, "count", PB_GET(e, count, 1));
  api_json_object_end(json);
}

/* ---- follow ---- */

static size_t first_to_look_at(const struct filter *f, const struct api_smap_entry *all, size_t count) {
  size_t known = 0, i = count;
  while (i > 0 && known < LOOK_BACK)
    known += ((const struct api_object *)all[--i].value)->mod <= f->after;
  return i;
}

static enum api_piece fill(void *arg, struct buf *out) {
  struct filter *f = arg;
  const struct api_cache *cache = &f->request->api->cache;
  size_t count, told = 0, i;
  const struct api_smap_entry *all = api_cache_all(cache, API_AUDIT, &count);
  f->limited = api_auth_is_limited(cache, &f->request->who);
  if (!f->next[0])
    f->up_to = cache->revision;
  for (i = f->next[0] ? api_smap_lower(&cache->tables[API_AUDIT], f->next) : first_to_look_at(f, all, count); i < count; i++) {
    const struct api_object *object = all[i].value;
    if (told == FOLLOW_AT_ONCE)
      break;
    Model__AuditEntry *e = object->mod > f->after && object->mod <= f->up_to ? unpack(object) : NULL;
    if (e && visible(f, e)) {
      if (told++) /* cut off in the middle of a pass, a client gets all of it again */
        buf_printf(out, "id: %llu\n\n", (unsigned long long)f->after);
      buf_add_str(out, "event: audit\ndata: ");
      struct api_json json = {.out = out};
      entry_json(all[i].key, e, object->mod, &json);
      buf_add_byte(out, '\n');
    }
    if (e)
      model__audit_entry__free_unpacked(e, NULL);
  }
  snprintf(f->next, sizeof f->next, "%s", i < count ? all[i].key : "");
  if (i == count)
    f->after = f->up_to;
  if (told)
    buf_printf(out, "id: %llu\n\n", (unsigned long long)f->after);
  return out->len ? API_PIECE_SOME : API_PIECE_NONE;
}

static const struct api_stream_ops follow_ops = {.fill = fill, .free = free};

static void start_follow(struct api_request *r, const struct filter *filter) {
  struct filter *f = malloc(sizeof *f);
  if (!f) {
    api_fail_with(r, ERR_MEMORY, "no memory to follow the audit log");
    return;
  }
  *f = *filter;
  if (r->last_event_id)
    f->after = strtoull(r->last_event_id, NULL, 10);
  else if (!api_request_query(r, "since"))
    f->after = r->api->cache.revision;
  api_reply_stream(r, &follow_ops, f);
}

void api_get_audit(struct api_request *r) {
  struct filter f = {.request = r, .limited = api_auth_is_limited(&r->api->cache, &r->who)};
  const char *project = api_request_query(r, "project"), *actor = api_request_query(r, "actor");
  size_t limit, count, kept = 0;
  struct err err;
  if (api_parse_since(r, &f.after, &f.from_ms, &err) < 0 || api_parse_limit(r, &limit, &err) < 0) {
    api_fail(r, &err);
    return;
  }
  api_text_copy(f.project, sizeof f.project, project ? project : "");
  api_text_copy(f.actor, sizeof f.actor, actor ? actor : "");
  if (api_request_flag(r, "follow")) {
    start_follow(r, &f);
    return;
  }
  const struct api_smap_entry *all = api_cache_all(&r->api->cache, API_AUDIT, &count);
  size_t first = count;
  while (first > 0 && kept < limit) {
    Model__AuditEntry *e = unpack_visible(&f, all[--first].value);
    kept += e != NULL;
    if (e)
      model__audit_entry__free_unpacked(e, NULL);
  }
  struct api_json json = api_reply_json(r, 200);
  api_json_array(&json, "entries");
  for (size_t i = first; i < count; i++) { /* unpacked again, one at a time: thousands held at once leave the heap in pieces */
    Model__AuditEntry *e = unpack_visible(&f, all[i].value);
    if (!e)
      continue;
    entry_json(all[i].key, e, ((const struct api_object *)all[i].value)->mod, &json);
    model__audit_entry__free_unpacked(e, NULL);
  }
  api_json_array_end(&json);
  api_json_u64(&json, "revision", r->api->cache.revision);
  api_reply_end(r);
}
