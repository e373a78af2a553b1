#include "orca-apiserver/log_relay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "common/spec/spec.h"
#include "orca-apiserver/gateway.h"
#include "orca-apiserver/jobs.h"
#include "orca-apiserver/log_merge.h"
#include "orca-apiserver/routes.h"

#define SOURCES_MAX 1000u
#define CHUNKS_MAX 4u /* of one source; then its stream is held */
#define PIECE ((size_t)60 << 10)
#define RETRY (500 * NS_PER_MS)

struct chunk {
  Node__Item *item;
  int64_t arrived;
};

struct source { /* one instance */
  struct relay *relay;
  uint64_t number, epoch;
  char id[INSTANCE_ID_MAX], node[64];
  struct bus_call *call;
  struct chunk chunks[CHUNKS_MAX];
  size_t count, at; /* at: line of the first one */
  struct log_mark mark;
  bool first; /* was there when the stream began */
  bool live;  /* its history is told */
  bool over;  /* the agent has ended it: there will be no more */
  bool away;  /* cannot be read now */
  bool known; /* the store still has it */
  bool held, told_away, in_pieces, lost;
  int64_t retry_at;
  char note[200]; /* to be told behind the lines that there are */
};

struct relay {
  struct api_request *request; /* not counted: the stream is the request's */
  char project[64], name[64];
  uint64_t only; /* the one instance that is wanted; 0: all */
  bool job;      /* its runs are instances too; what an ended one wrote last is kept with the run */
  bool follow, events, timestamps, begun, told;
  uint64_t tail;
  bool has_tail;
  int64_t since_ns;
  struct log_resume resume;
  struct source **sources; /* by number */
  size_t count, size;
  struct loop_timer timer;
  const struct source *torn; /* text: its line is open */
  bool torn_err;
};

/* ---- what a client says ---- */

static int parse_place(const char *text, size_t len, struct log_resume_place *ret) {
  const char *colon = memchr(text, ':', len);
  char number[24];
  if (!colon || colon == text || (size_t)(colon - text) >= sizeof number || strspn(text, "0123456789") != (size_t)(colon - text))
    return -1;
  memcpy(number, text, (size_t)(colon - text));
  number[colon - text] = 0;
  ret->number = strtoull(number, NULL, 10);
  return log_mark_parse(colon + 1, len - (size_t)(colon + 1 - text), &ret->mark);
}

int log_resume_parse(const char *text, struct log_resume *ret, struct err *err) {
  *ret = (struct log_resume){0};
  if (*text == '@') {
    char *end;
    long long began = strtoll(text + 1, &end, 10);
    if (text[1] < '0' || text[1] > '9' || (*end && *end != ',') || began == INT64_MAX)
      return err_set(err, ERR_INVALID, "resume: no time");
    ret->began_ns = began;
    text = *end ? end + 1 : end;
  }
  size_t most = 1;
  for (const char *p = text; *p; p++)
    most += *p == ',';
  if (most > SOURCES_MAX || !(ret->places = calloc(most, sizeof *ret->places)))
    return err_set(err, ERR_INVALID, "resume: too many places");
  while (*text) {
    size_t len = strcspn(text, ",");
    if (parse_place(text, len, &ret->places[ret->count]) < 0) {
      free(ret->places);
      *ret = (struct log_resume){0};
      return err_set(err, ERR_INVALID, "resume: no place in a log");
    }
    ret->count++;
    text += len + (text[len] == ',');
  }
  return 0;
}

/* ---- lines as text ---- */

static void json_text(struct buf *out, const uint8_t *s, size_t len) {
  static const char hex[] = "0123456789abcdef";
  size_t plain = 0, i = 0;
  buf_add_byte(out, '"');
  while (i < len) {
    uint8_t c = s[i];
    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
      i++;
      continue;
    }
    size_t more = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    if (c >= 0xc0 && i + more <= len && pb_utf8_valid((const char *)s + i, more)) {
      i += more;
      continue;
    }
    buf_add(out, s + plain, i - plain);
    if (c >= 0x80) {
      buf_add(out, "\xef\xbf\xbd", 3);
    } else if (c == '"' || c == '\\') {
      const char escaped[2] = {'\\', (char)c};
      buf_add(out, escaped, 2);
    } else {
      const char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
      buf_add(out, escaped, 6);
    }
    plain = ++i;
  }
  buf_add(out, s + plain, len - plain);
  buf_add_byte(out, '"');
}

static void base64(struct buf *out, const uint8_t *s, size_t len) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < len; i += 3) {
    uint32_t v = (uint32_t)s[i] << 16 | (i + 1 < len ? (uint32_t)s[i + 1] << 8 : 0) | (i + 2 < len ? s[i + 2] : 0);
    char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < len ? digits[v >> 6 & 63] : '=', i + 2 < len ? digits[v & 63] : '='};
    buf_add(out, four, 4);
  }
}

static void time_text(struct buf *out, int64_t ns) {
  char text[32], nanos[16];
  api_time_text(ns / NS_PER_MS, text); /* 2026-01-02T03:04:05.678Z */
  buf_add(out, text, 20);
  snprintf(nanos, sizeof nanos, "%09" PRId64 "Z", ns % NS_PER_SEC);
  buf_add(out, nanos, 10);
}

void log_line_json(struct buf *out, const char *instance, int64_t ns, bool err, const uint8_t *text, size_t len, bool partial) {
  buf_add_str(out, "{\"instance\":\"");
  buf_add_str(out, instance);
  buf_add_str(out, "\",\"time\":\"");
  time_text(out, ns);
  buf_add_str(out, err ? "\",\"stream\":\"stderr\",\"text\":" : "\",\"stream\":\"stdout\",\"text\":");
  json_text(out, text, len);
  if (!pb_utf8_valid((const char *)text, len)) {
    buf_add_str(out, ",\"base64\":\"");
    base64(out, text, len);
    buf_add_byte(out, '"');
  }
  if (partial)
    buf_add_str(out, ",\"partial\":true");
  buf_add_byte(out, '}');
}

static void close_torn(struct relay *r, struct buf *out) {
  if (r->torn)
    buf_add_byte(out, '\n');
  r->torn = NULL;
}

/* For people: what they would otherwise take for silence. Of the cluster's own words: plain text. */
static void tell(struct relay *r, struct buf *out, const char *instance, const char *text) {
  if (r->events) {
    buf_add_str(out, "event: note\ndata: {\"instance\":\"");
    buf_add_str(out, instance);
    buf_add_str(out, "\",\"text\":");
    json_text(out, (const uint8_t *)text, strlen(text));
    buf_add_str(out, "}\n\n");
    return;
  }
  close_torn(r, out);
  buf_printf(out, "orca: %s: %s\n", instance, text);
}

static void put_line(struct source *s, const Node__LogLine *line, struct buf *out) {
  struct relay *r = s->relay;
  r->told = true;
  bool err = PB_GET(line, err, false), partial = PB_GET(line, partial, false);
  static const uint8_t nothing[1];
  const uint8_t *text = line->text.len ? line->text.data : nothing;
  log_mark_seen(&s->mark, err, line->ns);
  s->in_pieces = partial;
  if (r->events) {
    char id[LOG_MARK_TEXT + 24], mark[LOG_MARK_TEXT];
    log_mark_text(&s->mark, mark);
    snprintf(id, sizeof id, "id: %" PRIu64 ":", s->number);
    buf_add_str(out, id);
    buf_add_str(out, mark);
    buf_add_str(out, "\nevent: log\ndata: ");
    log_line_json(out, s->id, line->ns, err, text, line->text.len, partial);
    buf_add(out, "\n\n", 2);
    return;
  }
  bool goes_on = r->torn == s && r->torn_err == err;
  if (!goes_on)
    close_torn(r, out);
  if (r->timestamps && !goes_on) {
    time_text(out, line->ns);
    buf_add_byte(out, ' ');
  }
  buf_add(out, text, line->text.len);
  r->torn = partial ? s : NULL;
  r->torn_err = err;
  if (!partial)
    buf_add_byte(out, '\n');
}

/* ---- one instance's stream ---- */

static void drop_chunk(struct source *s) {
  node__item__free_unpacked(s->chunks[0].item, NULL);
  memmove(s->chunks, s->chunks + 1, --s->count * sizeof *s->chunks);
  s->at = 0;
}

static void wake(struct relay *r) {
  if (r->begun)
    api_stream_wake(r->request);
}

static void refuse(struct source *s, const char *why) {
  log_warn("an agent's log was refused", "instance", s->id, "error", why);
  bus_call_cancel(s->call);
  s->call = NULL;
  s->over = true;
  wake(s->relay);
}

static void on_item(void *arg, const uint8_t *body, size_t len) {
  struct source *s = arg;
  struct err err;
  Node__Item *item = (Node__Item *)pb_unpack(&node__item__descriptor, body, len, &err);
  if (!item || item->body_case != NODE__ITEM__BODY_LOG) {
    if (item)
      node__item__free_unpacked(item, NULL);
    refuse(s, item ? "not a piece of a log" : err.msg);
    return;
  }
  for (size_t i = 0; i < item->log->n_lines; i++)
    if (PB_GET(item->log->lines[i], ns, 0) <= 0) {
      node__item__free_unpacked(item, NULL);
      refuse(s, "a line has no time");
      return;
    }
  s->told_away = false;
  s->live |= PB_GET(item->log, live, false);
  s->lost |= PB_GET(item->log, lost, false);
  if (item->log->n_lines) {
    s->chunks[s->count++] = (struct chunk){item, loop_now(s->relay->request->api->loop)};
    if (s->count == CHUNKS_MAX) {
      s->held = true;
      bus_call_hold(s->call);
    }
  } else {
    node__item__free_unpacked(item, NULL);
  }
  wake(s->relay);
}

static void on_done(void *arg, const uint8_t *body, size_t len) {
  (void)body;
  (void)len;
  struct source *s = arg;
  s->call = NULL;
  s->held = false;
  s->over = true;
  wake(s->relay);
}

static void on_failed(void *arg, const struct err *why) {
  struct source *s = arg;
  s->call = NULL;
  s->held = false;
  s->away = true;
  s->retry_at = loop_now(s->relay->request->api->loop) + RETRY;
  s->over = !s->relay->follow;
  if (why->code != ERR_NOT_FOUND && (s->over || !s->told_away)) {
    api_text_copy(s->note, sizeof s->note, why->msg);
    for (char *p = s->note; *p; p++)
      if ((unsigned char)*p < 0x20 || *p == 0x7f)
        *p = ' ';
    s->told_away = true;
  }
  wake(s->relay);
}

static const struct log_resume_place *place_of(const struct relay *r, uint64_t number) {
  for (size_t i = 0; i < r->resume.count; i++)
    if (r->resume.places[i].number == number)
      return &r->resume.places[i];
  return NULL;
}

static void ask(struct source *s, struct bus_conn *conn) {
  static const struct bus_call_ops ops = {.done = on_done, .failed = on_failed, .item = on_item};
  struct relay *r = s->relay;
  Node__ReadLogs read = NODE__READ_LOGS__INIT;
  read.instance = s->id;
  PB_SET(&read, follow, r->follow);
  bool resumed = r->resume.began_ns || r->resume.count;
  if (s->mark.ns) {
    PB_SET(&read, after_ns, s->mark.ns);
    PB_SET(&read, after_count, s->mark.count);
    PB_SET(&read, after_err, s->mark.err);
  } else {
    /* Of one whose place the client did not say, nothing was seen: since the stream began, when not all of it was wanted. */
    int64_t began = r->resume.began_ns ? r->resume.began_ns : r->resume.count ? r->resume.places[0].mark.ns + 1 : 0;
    int64_t since = resumed && (r->has_tail || !r->resume.began_ns) && began > r->since_ns ? began : r->since_ns;
    if (since)
      PB_SET(&read, since_ns, since);
    if (r->has_tail && s->first && !resumed)
      PB_SET(&read, tail, r->tail);
  }
  Node__Call call = NODE__CALL__INIT;
  call.body_case = NODE__CALL__BODY_READ_LOGS;
  call.read_logs = &read;
  s->call = bus_call(conn, &call.base, 0, &ops, s);
  s->away = !s->call;
  s->live = false;
}

static void source_free(struct source *s) {
  bus_call_cancel(s->call);
  while (s->count)
    drop_chunk(s);
  if (s->relay->torn == s)
    s->relay->torn = NULL;
  free(s);
}

/* ---- which instances there are ---- */

static struct source *find(struct relay *r, uint64_t number) {
  for (size_t i = 0; i < r->count; i++)
    if (r->sources[i]->number == number)
      return r->sources[i];
  return NULL;
}

static struct source *add(struct relay *r, const Model__Instance *one) {
  if (r->count == SOURCES_MAX)
    return NULL;
  if (r->count == r->size) {
    size_t size = r->size ? r->size * 2 : 8;
    struct source **list = reallocarray(r->sources, size, sizeof *list);
    if (!list)
      return NULL;
    r->sources = list;
    r->size = size;
  }
  struct source *s = calloc(1, sizeof *s);
  if (!s)
    return NULL;
  s->relay = r;
  s->number = one->number;
  s->first = !r->begun;
  instance_id(s->id, r->project, r->name, one->number);
  const struct log_resume_place *place = place_of(r, one->number);
  if (place)
    s->mark = place->mark;
  r->sources[r->count++] = s;
  return s;
}

static void look(struct relay *r) {
  size_t count;
  const struct api_smap_entry *all = api_cache_of_service(&r->request->api->cache, API_INSTANCES, r->project, r->name, &count);
  for (size_t i = 0; i < r->count; i++)
    r->sources[i]->known = false;
  for (size_t i = 0; i < count; i++) {
    const Model__Instance *one = API_MSG(&all[i], Model__Instance);
    if (!one->node || !*one->node || (r->only && one->number != r->only))
      continue;
    struct source *s = find(r, one->number);
    if (!s && !(s = add(r, one)))
      continue;
    s->known = true;
    if (s->epoch != one->epoch) { /* it was placed anew: its container is another one */
      bus_call_cancel(s->call);
      s->call = NULL;
      s->over = s->away = s->held = false;
      s->epoch = one->epoch;
      api_text_copy(s->node, sizeof s->node, one->node);
    }
  }
}

static void forget_gone(struct relay *r) {
  size_t kept = 0;
  for (size_t i = 0; i < r->count; i++) {
    struct source *s = r->sources[i];
    if (!s->known && !s->count && (s->over || s->away || !s->call))
      source_free(s);
    else
      r->sources[kept++] = s;
  }
  r->count = kept;
}

static void open_those_due(struct relay *r, struct buf *out) {
  int64_t now = loop_now(r->request->api->loop);
  const struct gateway *g = r->request->api->gateway;
  for (size_t i = 0; i < r->count; i++) {
    struct source *s = r->sources[i];
    if (s->call || s->over || s->count || s->retry_at > now) /* the mark is behind what waits here */
      continue;
    struct bus_conn *conn = g ? gateway_agent(g, s->node) : NULL;
    if (conn)
      ask(s, conn);
    if (s->call)
      continue;
    s->away = true;
    s->retry_at = now + RETRY;
    if (!s->told_away && out) {
      char text[160];
      snprintf(text, sizeof text, "the agent of node %s is not connected", s->node);
      tell(r, out, s->id, text);
    }
    s->told_away = s->told_away || out;
    s->over = !r->follow;
  }
}

/* ---- the stream ---- */

static void on_timer(void *arg) {
  wake(arg);
}

static void relay_free(void *arg) {
  struct relay *r = arg;
  r->begun = false; /* nobody is to be woken */
  loop_timer_cancel(r->request->api->loop, &r->timer);
  for (size_t i = 0; i < r->count; i++)
    source_free(r->sources[i]);
  free(r->sources);
  free(r->resume.places);
  free(r);
}

static void emit(struct source *s, int64_t until, struct buf *out) {
  const Node__LogChunk *chunk = s->chunks[0].item->log;
  if (s->lost)
    tell(s->relay, out, s->id, "lines are missing here: they were rotated away before they were read");
  s->lost = false;
  do
    put_line(s, chunk->lines[s->at++], out);
  while (s->at < chunk->n_lines && out->len < PIECE && (chunk->lines[s->at]->ns <= until || s->in_pieces));
  if (s->at < chunk->n_lines)
    return;
  drop_chunk(s);
  if (s->held && !s->count) {
    s->held = false;
    bus_call_resume(s->call);
  }
}

static int pick(struct relay *r, int64_t *until, int64_t *at) {
  static struct log_merge_head heads[SOURCES_MAX];
  for (size_t i = 0; i < r->count; i++) {
    const struct source *s = r->sources[i];
    heads[i] = (struct log_merge_head){.any = s->count != 0, .in_pieces = s->in_pieces};
    heads[i].state = s->over || s->away ? LOG_MERGE_OVER : s->live ? LOG_MERGE_LIVE : LOG_MERGE_HISTORY;
    if (s->count) {
      heads[i].ns = s->chunks[0].item->log->lines[s->at]->ns;
      heads[i].arrived = s->chunks[0].arrived;
    }
  }
  return log_merge_pick(heads, r->count, loop_now(r->request->api->loop), until, at);
}

static void tell_notes(struct relay *r, struct buf *out) {
  for (size_t i = 0; i < r->count; i++) {
    struct source *s = r->sources[i];
    if (!*s->note || s->count)
      continue;
    tell(r, out, s->id, s->note);
    s->note[0] = 0;
  }
}

/* The run whose container is gone, as far as it was kept: the one that is asked for, else the newest. */
static const Model__JobRun *kept_run(const struct relay *r) {
  const struct api_cache *cache = &r->request->api->cache;
  size_t count;
  const struct api_smap_entry *list = api_cache_of_service(cache, API_JOB_RUNS, r->project, r->name, &count);
  for (size_t i = count; i-- > 0;) {
    const Model__JobRun *run = API_MSG(&list[i], Model__JobRun);
    if (run->instance && (r->only ? run->instance == r->only : run->state != MODEL__RUN_STATE__RUN_SKIPPED))
      return run;
  }
  return NULL;
}

/* Its last lines have no time of their own: they get that of the run's end. */
static void tell_kept_run(struct relay *r, struct buf *out) {
  const Model__JobRun *run = kept_run(r);
  if (!run || !api_run_is_over(run))
    return;
  char id[INSTANCE_ID_MAX], text[160];
  int64_t ns = (run->ended_ms > 0 ? run->ended_ms : 1) * NS_PER_MS;
  instance_id(id, r->project, r->name, run->instance);
  size_t len = run->has_last_lines ? run->last_lines.len : 0;
  if (r->since_ns && ns < r->since_ns)
    return;
  snprintf(text, sizeof text, "run %" PRIu64 " has ended (%s), its container is gone%s", run->number, api_run_state_text(run->state),
           len ? "; these are the last lines that were kept" : "; of its log nothing was kept");
  tell(r, out, id, text);
  const uint8_t *at = run->last_lines.data;
  uint64_t left = 0; /* lines to come */
  for (size_t i = 0; i < len; i++)
    left += at[i] == '\n' || i + 1 == len;
  for (; len > 0; left--) {
    const uint8_t *end = memchr(at, '\n', len);
    size_t line = end ? (size_t)(end - at) : len;
    if (!r->has_tail || left <= r->tail) {
      if (r->events) {
        buf_add_str(out, "event: log\ndata: ");
        log_line_json(out, id, ns, false, at, line, false);
        buf_add(out, "\n\n", 2);
      } else {
        if (r->timestamps) {
          time_text(out, ns);
          buf_add_byte(out, ' ');
        }
        buf_add(out, at, line);
        buf_add_byte(out, '\n');
      }
    }
    line += end != NULL;
    at += line;
    len -= line;
  }
}

static bool is_over(const struct relay *r) {
  const struct api_cache *cache = &r->request->api->cache;
  for (size_t i = 0; i < r->count; i++)
    if (!r->sources[i]->over || r->sources[i]->count)
      return false;
  return !r->follow || (!r->count && !api_cache_service(cache, r->project, r->name, NULL) && !api_cache_job(cache, r->project, r->name, NULL));
}

static enum api_piece fill(void *arg, struct buf *out) {
  struct relay *r = arg;
  struct loop *loop = r->request->api->loop;
  if (r->events && !r->begun)
    buf_printf(out, "event: start\ndata: {\"time_ns\":\"%" PRId64 "\"}\n\n", r->resume.began_ns ? r->resume.began_ns : loop_wall(loop));
  if (r->begun && r->follow)
    look(r);
  bool resumed = r->resume.began_ns || r->resume.count;
  if (r->job && r->follow && !r->begun && !r->count && !resumed)
    tell_kept_run(r, out);
  r->begun = true;
  forget_gone(r);
  open_those_due(r, out);
  int64_t until, at = INT64_MAX;
  for (int which; out->len < PIECE && (which = pick(r, &until, &at)) >= 0;)
    emit(r->sources[which], until, out);
  tell_notes(r, out);
  if (is_over(r)) {
    close_torn(r, out);
    if (r->job && !r->follow && !r->told && !resumed)
      tell_kept_run(r, out);
    return API_PIECE_LAST;
  }
  for (size_t i = 0; i < r->count; i++)
    if (!r->sources[i]->call && !r->sources[i]->over && r->sources[i]->retry_at < at)
      at = r->sources[i]->retry_at;
  struct err err;
  if (at == INT64_MAX)
    loop_timer_cancel(loop, &r->timer);
  else if (loop_timer_at(loop, &r->timer, at, &err) < 0)
    return API_PIECE_LAST; /* the client comes again */
  return out->len ? API_PIECE_SOME : API_PIECE_NONE;
}

/* ---- the request ---- */

static int find_subject(struct api_request *request, struct relay *r, struct err *err) {
  struct api_subject of;
  if (api_find_subject(request, &of, err) < 0)
    return -1;
  api_text_copy(r->project, sizeof r->project, of.project);
  api_text_copy(r->name, sizeof r->name, of.name);
  r->job = of.job != NULL;
  return 0;
}

static int parse_number(const char *text, const char *what, uint64_t *ret, struct err *err) {
  char *end;
  *ret = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || strlen(text) > 18)
    return err_set(err, ERR_INVALID, "%s: a number", what);
  return 0;
}

static int parse_query(struct api_request *request, struct relay *r, struct err *err) {
  const char *tail = api_request_query(request, "tail"), *since = api_request_query(request, "since"),
             *instance = api_request_query(request, "instance"), *resume = api_request_query(request, "resume");
  int64_t ms;
  uint64_t age;
  r->follow = api_request_flag(request, "follow");
  r->events = r->follow || api_request_flag(request, "events");
  r->timestamps = api_request_flag(request, "timestamps");
  r->has_tail = tail && *tail && strcmp(tail, "all") != 0;
  if (r->has_tail && parse_number(tail, "tail", &r->tail, err) < 0)
    return -1;
  if (since && *since) {
    if (api_time_parse(since, &ms) == 0)
      r->since_ns = ms > 0 ? ms * NS_PER_MS : 0;
    else if (spec_parse_duration(since, &age, NULL) == 0 && age < INT64_MAX / NS_PER_MS)
      r->since_ns = loop_wall(request->api->loop) - (int64_t)age * NS_PER_MS;
    else
      return err_set(err, ERR_INVALID, "since: a time (2026-01-02T03:04:05Z) or an age (10m)");
  }
  if (instance && *instance) {
    const char *dot = strrchr(instance, '.'); /* 3, web.3 and shop/web.3 are the same */
    if (parse_number(dot ? dot + 1 : instance, "instance", &r->only, err) < 0)
      return -1;
    bool there = r->only && api_cache_instance(&request->api->cache, r->project, r->name, r->only);
    if (!there && !(r->only && r->job && kept_run(r)))
      return err_set(err, ERR_NOT_FOUND, "no such instance: %s/%s.%" PRIu64, r->project, r->name, r->only);
  }
  if (!resume && request->last_event_id)
    resume = request->last_event_id;
  return resume ? log_resume_parse(resume, &r->resume, err) : 0;
}

void api_get_logs(struct api_request *request) {
  static const struct api_stream_ops ops = {.fill = fill, .free = relay_free};
  struct err err;
  struct relay *r = calloc(1, sizeof *r);
  if (!r) {
    api_fail_with(request, ERR_MEMORY, "no memory for logs");
    return;
  }
  r->request = request;
  r->timer = (struct loop_timer){.cb = on_timer, .arg = r};
  if (find_subject(request, r, &err) < 0 || parse_query(request, r, &err) < 0) {
    api_fail(request, &err);
    relay_free(r);
    return;
  }
  look(r);
  open_those_due(r, NULL);
  size_t away = 0;
  for (size_t i = 0; i < r->count; i++)
    away += r->sources[i]->away;
  if (!r->follow && r->count && away == r->count) {
    api_fail_with(request, ERR_UNAVAILABLE, "the agent of node %s is not connected", r->sources[0]->node);
    relay_free(r);
    return;
  }
  for (size_t i = 0; i < r->count && away; i++) { /* said with the first piece */
    r->sources[i]->retry_at = 0;
    r->sources[i]->over = false;
  }
  bool events = r->events;
  api_reply_stream(request, &ops, r);
  if (!events)
    request->content_type = "text/plain; charset=utf-8";
}
