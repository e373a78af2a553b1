/* GET /events: the history both writers keep, in the order of the store's revisions; follow goes on where it stopped.
 *
 * Events of one transaction share a revision, and two writers' keys are only nearly in its order, so a reader looks a little back
 * (LOOK_BACK entries) beyond the first one it knows already. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/spec/spec.h"
#include "orca-apiserver/api.h"
#include "orca-apiserver/routes.h"

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 10000
#define LOOK_BACK 64
#define FOLLOW_AT_ONCE 200

struct found {
  const struct api_object *object;
  const char *key;
};

static int by_revision(const void *a, const void *b) {
  const struct found *x = a, *y = b;
  if (x->object->mod != y->object->mod)
    return x->object->mod < y->object->mod ? -1 : 1;
  return strcmp(x->key, y->key);
}

/* Those after the revision, unsorted; both histories are walked from their end. */
static size_t collect(const struct api_cache *cache, uint64_t after, struct found *list) {
  const enum api_kind kinds[] = {API_HISTORY_APISERVER, API_HISTORY_SCHEDULER};
  size_t found = 0;
  for (size_t k = 0; k < 2; k++) {
    size_t count, known = 0;
    const struct api_smap_entry *all = api_cache_all(cache, kinds[k], &count);
    for (size_t i = count; i-- > 0 && known < LOOK_BACK;) {
      const struct api_object *object = all[i].value;
      if (object->mod <= after)
        known++;
      else
        list[found++] = (struct found){object, all[i].key};
    }
  }
  qsort(list, found, sizeof *list, by_revision);
  return found;
}

static size_t history_size(const struct api_cache *cache) {
  return cache->tables[API_HISTORY_APISERVER].count + cache->tables[API_HISTORY_SCHEDULER].count;
}

static Model__Event *unpack(const struct api_object *object) {
  return (Model__Event *)(void *)pb_unpack(&model__event__descriptor, object->bytes, object->len, NULL);
}

/* ?kind=rollout is every rollout.…, ?kind=rollout.failed just that one. */
static bool kind_matches(const char *kind, const char *wanted) {
  size_t len = strlen(wanted);
  return strncmp(kind, wanted, len) == 0 && (!kind[len] || kind[len] == '.' || (len && wanted[len - 1] == '.'));
}

/* ?service=NAME or PROJECT/NAME */
static bool service_matches(const Model__Event *e, const char *wanted) {
  const char *slash = strchr(wanted, '/'), *project = PB_STR(e->project);
  if (slash && (strncmp(project, wanted, (size_t)(slash - wanted)) != 0 || project[slash - wanted]))
    return false;
  return strcmp(PB_STR(e->service), slash ? slash + 1 : wanted) == 0;
}

static bool visible(struct api_request *r, const Model__Event *e, const char *project) {
  const char *its = PB_STR(e->project), *kind = api_request_query(r, "kind"), *service = api_request_query(r, "service");
  if ((kind && *kind && !kind_matches(PB_STR(e->kind), kind)) || (service && *service && !service_matches(e, service)))
    return false;
  if (project && strcmp(project, its) != 0)
    return false;
  if (*its)
    return api_auth_sees(&r->api->cache, &r->who, its);
  /* Of no project: what is about the machines is for all, the rest for those who see all. */
  static const char *const open[] = {"node.", "proxy.", "api.", "cluster.", "scheduler."};
  for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
    if (strncmp(PB_STR(e->kind), open[i], strlen(open[i])) == 0)
      return true;
  return !api_auth_is_limited(&r->api->cache, &r->who);
}

static void event_json(const Model__Event *e, uint64_t revision, struct api_json *json) {
  char id[INSTANCE_ID_MAX] = "";
  if (e->has_instance)
    instance_id(id, PB_STR(e->project), PB_STR(e->service), e->instance);
  api_json_object(json, NULL);
  api_json_u64(json, "revision", revision);
  api_json_time(json, "time", e->ms);
  api_json_str(json, "kind", PB_STR(e->kind));
  api_json_str(json, "project", PB_STR(e->project));
  api_json_str(json, "service", PB_STR(e->service));
  api_json_str(json, "instance", id);
  api_json_str(json, "node", PB_STR(e->node));
  api_json_str(json, "message", PB_STR(e->message));
  api_json_str(json, "severity", PB_STR(e->severity));
  api_json_str(json, "actor", PB_STR(e->actor));
  api_json_object_end(json);
}

/* ?since=: a time (RFC 3339), an age ("10m"), or a revision of the store. */
int api_parse_since(struct api_request *r, uint64_t *after, int64_t *from_ms, struct err *err) {
  const char *since = api_request_query(r, "since");
  *after = 0;
  *from_ms = 0;
  if (!since || !*since)
    return 0;
  char *end;
  unsigned long long number = strtoull(since, &end, 10);
  if (*since >= '0' && *since <= '9' && !*end) {
    *after = number;
    return 0;
  }
  uint64_t age;
  if (api_time_parse(since, from_ms) == 0)
    return 0;
  if (spec_parse_duration(since, &age, NULL) == 0) {
    *from_ms = api_now_ms(r->api) - (int64_t)age;
    return 0;
  }
  return err_set(err, ERR_INVALID, "since: a time (2026-01-02T03:04:05Z), an age (10m) or a revision of the store");
}

int api_parse_limit(struct api_request *r, size_t *ret, struct err *err) {
  const char *limit = api_request_query(r, "limit");
  *ret = LIMIT_DEFAULT;
  if (!limit)
    return 0;
  char *end;
  unsigned long number = strtoul(limit, &end, 10);
  if (*limit < '0' || *limit > '9' || *end || number > LIMIT_MAX)
    return err_set(err, ERR_INVALID, "limit: a number up to %d", LIMIT_MAX);
  *ret = number;
  return 0;
}

/* The history is cut at its old end. *ret: the oldest event that both writers still have all after of; false: nothing was cut yet. */
static bool kept_since(const struct api_cache *cache, uint64_t *ret_revision, int64_t *ret_ms) {
  static const struct {
    enum api_kind kind;
    size_t max;
  } writers[] = {{API_HISTORY_APISERVER, API_HISTORY_MAX}, {API_HISTORY_SCHEDULER, API_HISTORY_MAX}};
  *ret_revision = 0;
  *ret_ms = 0;
  for (size_t k = 0; k < sizeof writers / sizeof writers[0]; k++) {
    size_t count;
    const struct api_smap_entry *all = api_cache_all(cache, writers[k].kind, &count);
    if (count < writers[k].max)
      continue;
    const struct api_object *oldest = all[0].value;
    Model__Event *e = unpack(oldest);
    if (oldest->mod > *ret_revision)
      *ret_revision = oldest->mod;
    if (e && e->ms > *ret_ms)
      *ret_ms = e->ms;
    if (e)
      model__event__free_unpacked(e, NULL);
  }
  return *ret_revision != 0;
}

static bool is_cut(const struct api_cache *cache, uint64_t after, int64_t from_ms, uint64_t *kept, int64_t *kept_ms) {
  return kept_since(cache, kept, kept_ms) && after + 1 < *kept && from_ms < *kept_ms;
}

/* ---- follow ---- */

struct follow {
  struct api_request *request; /* not counted: the stream is the request's */
  uint64_t after;
  uint64_t skip_of; /* a client that comes again has seen the first `skip` of this revision */
  size_t skip;
  int64_t from_ms;
  bool looked; /* whether what it asks for is still there */
  char *project;
};

static void follow_free(void *arg) {
  struct follow *f = arg;
  free(f->project);
  free(f);
}

static enum api_piece fill(void *arg, struct buf *out) {
  struct follow *f = arg;
  const struct api_cache *cache = &f->request->api->cache;
  struct found *list = calloc(history_size(cache) + 1, sizeof *list);
  if (!list)
    return API_PIECE_LAST; /* the client comes again with Last-Event-ID */
  if (!f->looked) {
    uint64_t kept;
    int64_t kept_ms;
    f->looked = true;
    if (is_cut(cache, f->after, f->from_ms, &kept, &kept_ms)) {
      buf_add_str(out, "event: trimmed\ndata: ");
      struct api_json json = {.out = out};
      api_json_object(&json, NULL);
      api_json_u64(&json, "oldest", kept);
      api_json_time(&json, "oldest_time", kept_ms);
      api_json_object_end(&json);
      buf_add_str(out, "\n\n");
    }
  }
  size_t found = collect(cache, f->after, list);
  size_t told = 0, of_revision = 0;
  for (size_t i = 0; i < found && told < FOLLOW_AT_ONCE; i++) {
    uint64_t revision = list[i].object->mod;
    bool last_of_it = i + 1 == found || list[i + 1].object->mod != revision;
    of_revision = i && list[i - 1].object->mod == revision ? of_revision + 1 : 1;
    bool seen = revision == f->skip_of && of_revision <= f->skip;
    Model__Event *e = seen ? NULL : unpack(list[i].object);
    if (e && e->ms >= f->from_ms && visible(f->request, e, f->project)) {
      buf_add_str(out, "event: event\n");
      if (last_of_it) /* inside of a revision it also says how many of it were told */
        buf_printf(out, "id: %llu\n", (unsigned long long)revision);
      else
        buf_printf(out, "id: %llu.%zu\n", (unsigned long long)revision, of_revision);
      buf_add_str(out, "data: ");
      struct api_json json = {.out = out};
      event_json(e, revision, &json);
      buf_add_str(out, "\n\n");
    }
    if (e)
      model__event__free_unpacked(e, NULL);
    if (last_of_it)
      f->after = revision;
    told += last_of_it;
  }
  free(list);
  return out->len ? API_PIECE_SOME : API_PIECE_NONE;
}

/* "REVISION", or "REVISION.HOW MANY of it". */
static void parse_id(const char *id, struct follow *f) {
  char *end;
  f->after = strtoull(id, &end, 10);
  if (*end != '.' || !f->after)
    return;
  f->skip = strtoull(end + 1, NULL, 10);
  f->skip_of = f->after--;
}

static const struct api_stream_ops follow_ops = {.fill = fill, .free = follow_free};

static void start_follow(struct api_request *r, uint64_t after, int64_t from_ms) {
  struct follow *f = calloc(1, sizeof *f);
  const char *project = api_request_query(r, "project");
  if (f && project && !(f->project = strdup(project))) {
    free(f);
    f = NULL;
  }
  if (!f) {
    api_fail_with(r, ERR_MEMORY, "no memory to follow events");
    return;
  }
  f->request = r;
  f->from_ms = from_ms;
  f->after = after;
  if (r->last_event_id)
    parse_id(r->last_event_id, f);
  else if (!api_request_query(r, "since"))
    f->after = r->api->cache.revision; /* from now on */
  api_reply_stream(r, &follow_ops, f);
}

void api_get_events(struct api_request *r) {
  const struct api_cache *cache = &r->api->cache;
  uint64_t after;
  int64_t from_ms;
  size_t limit;
  struct err err;
  if (api_parse_since(r, &after, &from_ms, &err) < 0 || api_parse_limit(r, &limit, &err) < 0) {
    api_fail(r, &err);
    return;
  }
  if (api_request_flag(r, "follow")) {
    start_follow(r, after, from_ms);
    return;
  }
  const char *project = api_request_query(r, "project");
  struct found *list = calloc(history_size(cache) + 1, sizeof *list);
  if (list) {
    /* Unpacked twice, one at a time: thousands held at once leave the heap in pieces. */
    size_t found = collect(cache, after, list), first = found;
    for (size_t i = found; i-- > 0 && found - first < limit;) { /* the newest `limit` of those that may be seen, moved to the end */
      Model__Event *e = unpack(list[i].object);
      if (e && e->ms >= from_ms && visible(r, e, project))
        list[--first] = list[i];
      if (e)
        model__event__free_unpacked(e, NULL);
    }
    struct api_json json = api_reply_json(r, 200);
    api_json_array(&json, "events");
    for (size_t i = first; i < found; i++) {
      Model__Event *e = unpack(list[i].object);
      if (!e)
        continue;
      event_json(e, list[i].object->mod, &json);
      model__event__free_unpacked(e, NULL);
    }
    api_json_array_end(&json);
    api_json_u64(&json, "revision", cache->revision);
    uint64_t oldest;
    int64_t oldest_ms;
    bool asks = api_request_query(r, "since") != NULL, cut = asks && is_cut(cache, after, from_ms, &oldest, &oldest_ms);
    api_json_bool(&json, "trimmed", cut);
    if (cut) {
      api_json_u64(&json, "oldest", oldest);
      api_json_time(&json, "oldest_time", oldest_ms);
    } else {
      api_json_null(&json, "oldest");
      api_json_null(&json, "oldest_time");
    }
    api_reply_end(r);
  } else {
    api_fail_with(r, ERR_MEMORY, "no memory for events");
  }
  free(list);
}
