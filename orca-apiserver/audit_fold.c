#include "orca-apiserver/audit_fold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void audit_fold_free(struct audit_fold *f) {
  for (size_t i = 0; i < f->count; i++)
    free(f->lines[i]);
  f->count = 0;
}

/* "denied: the role of …": the code says what it was, the text may name what differs from one to the next. */
static size_t code_len(const char *result) {
  return strcspn(result, ":");
}

static bool alike(const struct audit_line *a, const struct audit_line *b) {
  size_t code = code_len(a->result);
  if (a->status < 400 && strcmp(a->target, b->target) != 0) /* what was done is told apart by what it was done to */
    return false;
  return a->status == b->status && strcmp(a->token_id, b->token_id) == 0 && strcmp(a->from, b->from) == 0 && strcmp(a->method, b->method) == 0 &&
         strcmp(a->path, b->path) == 0 && code == code_len(b->result) && strncmp(a->result, b->result, code) == 0;
}

/* A line of a time to come is of before the clock was set back: its minute is over. */
static bool is_open(const struct audit_line *line, int64_t now_ms) {
  return now_ms >= line->ms && now_ms < line->ms + AUDIT_MINUTE_MS;
}

static struct audit_line *find(const struct audit_fold *f, const struct audit_line *like) {
  for (size_t i = 0; i < f->count; i++)
    if (is_open(f->lines[i], like->ms) && alike(like, f->lines[i]))
      return f->lines[i];
  return NULL;
}

static bool has_place(const struct audit_fold *f, const struct audit_line *line) {
  if (f->count >= AUDIT_LINES - 2) /* two are left for "many": of those we know, and of strangers */
    return false;
  size_t strangers = 0, same = 0;
  for (size_t i = 0; i < f->count && line->token_id[0]; i++)
    same += strcmp(f->lines[i]->token_id, line->token_id) == 0;
  if (line->token_id[0])
    return same < AUDIT_LINES_PER_TOKEN;
  for (size_t i = 0; i < f->count; i++)
    if (!f->lines[i]->token_id[0]) {
      strangers++;
      same += strcmp(f->lines[i]->from, line->from) == 0;
    }
  return strangers < AUDIT_LINES_STRANGERS && same < AUDIT_LINES_PER_ADDRESS;
}

int audit_fold_note(struct audit_fold *f, const struct audit_line *line) {
  struct audit_line *there = find(f, line);
  struct audit_line many;
  if (!there && !has_place(f, line)) {
    if (line->status < 400)
      return 1;
    many = *line;
    snprintf(many.from, sizeof many.from, "many");
    snprintf(many.path, sizeof many.path, "many");
    snprintf(many.actor, sizeof many.actor, "%s", line->token_id[0] ? "many" : "");
    snprintf(many.token_id, sizeof many.token_id, "%s", line->token_id[0] ? "many" : "");
    many.method[0] = many.target[0] = many.project[0] = 0;
    many.status = 0;
    snprintf(many.result, sizeof many.result, "refused: more kinds of refusals than are told apart");
    line = &many;
    there = find(f, line);
    if (!there && f->count == AUDIT_LINES)
      return 0; /* those of the last minute are being written: the store is slow, and "many" is known already */
  }
  if (there) {
    there->count++;
    if (strcmp(there->target, line->target) != 0) {
      snprintf(there->target, sizeof there->target, "%s", "several");
      if (strcmp(there->project, line->project) != 0)
        there->project[0] = 0;
    }
    return 0;
  }
  struct audit_line *new = malloc(sizeof *new);
  if (!new)
    return -1;
  *new = *line;
  new->count = 1;
  new->written = 0;
  f->lines[f->count++] = new;
  return 0;
}

int64_t audit_fold_due(const struct audit_fold *f, int64_t soon_ms) {
  int64_t due = INT64_MAX;
  for (size_t i = 0; i < f->count; i++) {
    int64_t at = f->lines[i]->ms + (f->lines[i]->written ? AUDIT_MINUTE_MS : soon_ms);
    if (at < due)
      due = at;
  }
  return due;
}

size_t audit_fold_pending(const struct audit_fold *f, int64_t now_ms, size_t max, void (*put)(void *arg, const struct audit_line *line), void *arg) {
  size_t told = 0;
  for (size_t i = 0; i < f->count && told < max; i++) {
    const struct audit_line *line = f->lines[i];
    if (line->written && (is_open(line, now_ms) || line->count == line->written))
      continue;
    put(arg, line);
    told++;
  }
  return told;
}

void audit_fold_written(struct audit_fold *f, uint32_t seq, uint64_t count, int64_t now_ms) {
  size_t kept = 0;
  for (size_t i = 0; i < f->count; i++) {
    struct audit_line *line = f->lines[i];
    if (line->seq == seq)
      line->written = count;
    if (line->written == line->count && !is_open(line, now_ms))
      free(line);
    else
      f->lines[kept++] = line;
  }
  f->count = kept;
}
