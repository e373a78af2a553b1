#include "orca-agent/last_words.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"
#include "common/log.h"
#include "orca-agent/docker_logs.h"

#define AT_ONCE 16u
#define WAITING_MAX 256u
#define TAIL 64u              /* lines and pieces of lines, those of a run that has begun meanwhile among them */
#define LATE (40 * NS_PER_MS) /* Docker stamps a line when it reads it, perhaps after the end; the next start takes longer */
#define TIMEOUT (2 * NS_PER_SEC)
#define TURN_TIMEOUT (10 * NS_PER_SEC) /* of one that waits for its turn: a container is not removed meanwhile */

/* ---- the text ---- */

void last_lines_add(struct last_lines *l, const uint8_t *text, size_t len, bool partial) {
  if (len > LAST_BYTES - 1) {
    text += len - (LAST_BYTES - 1);
    len = LAST_BYTES - 1;
  }
  if (l->len + len + 1 > sizeof l->text) {
    size_t drop = l->len + len + 1 - sizeof l->text;
    memmove(l->text, l->text + drop, l->len - drop);
    l->len -= drop;
  }
  memcpy(l->text + l->len, text, len);
  l->len += len;
  if (!partial)
    l->text[l->len++] = '\n';
}

static size_t char_len(const char *s, size_t left) {
  unsigned char c = (unsigned char)*s;
  size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
  return c && len <= left && pb_utf8_valid(s, len) ? len : 0;
}

void last_lines_end(struct last_lines *l) {
  if (l->len && l->text[l->len - 1] == '\n')
    l->len--;
  size_t from = l->len, lines = 0;
  while (from && l->len - from < LAST_BYTES && (l->text[from - 1] != '\n' || ++lines < LAST_LINES))
    from--;
  while (from < l->len && ((unsigned char)l->text[from] & 0xc0) == 0x80) /* the rest of a character that was cut */
    from++;
  memmove(l->text, l->text + from, l->len - from);
  l->len -= from;
  for (size_t i = 0, n; i < l->len; i += n) {
    n = char_len(l->text + i, l->len - i);
    if (!n) {
      l->text[i] = '?';
      n = 1;
    }
  }
}

/* ---- reading ---- */

struct reading {
  struct last_words *all;
  struct agent_action act;
  bool under_way; /* else it waits for its turn */
  struct docker_logs *logs;
  struct loop_timer timer;
  struct last_lines lines;
  struct reading *next;
};

struct last_words {
  struct agent *a;
  struct reading *list;    /* in the order in which they were asked for */
  unsigned count, waiting; /* under way; not yet */
  struct loop_timer turn;
};

static void drop(struct reading *r) {
  struct last_words *w = r->all;
  for (struct reading **at = &w->list; *at; at = &(*at)->next)
    if (*at == r) {
      *at = r->next;
      break;
    }
  if (r->under_way)
    w->count--;
  else
    w->waiting--;
  docker_logs_close(r->logs);
  loop_timer_cancel(w->a->loop, &r->timer);
  free(r);
}

static void tell(struct agent *a, const struct agent_action *act, const char *words, size_t len) {
  agent_event(
      a, &(struct agent_event){.kind = AGENT_EV_WORDS, .instance = act->instance, .time_ns = (int64_t)act->number, .text = words, .text_len = len});
}

static void finish(struct reading *r) {
  struct last_words *w = r->all;
  struct agent_action act = r->act;
  static struct last_lines lines;
  last_lines_end(&r->lines);
  lines = r->lines;
  drop(r);
  if (loop_timer_in(w->a->loop, &w->turn, 0, NULL) < 0)
    log_error("no memory for a timer");
  tell(w->a, &act, lines.text, lines.len);
}

static bool on_readable(void *arg, struct docker_logs *logs) {
  struct reading *r = arg;
  struct log_line line;
  int rc;
  while ((rc = log_lines_next(docker_logs_lines(logs), &line)) == 1)
    if (line.ns <= (int64_t)r->act.number + LATE)
      last_lines_add(&r->lines, line.text, line.len, line.partial);
  if (rc < 0)
    finish(r);
  return rc == 0;
}

static void on_done(void *arg, struct docker_logs *logs, const struct err *why) {
  (void)logs;
  (void)why; /* a container without a log that can be read had no last words */
  finish(arg);
}

static void on_timeout(void *arg) {
  finish(arg);
}

static void begin(struct reading *r) {
  static const struct docker_logs_ops ops = {on_readable, on_done};
  struct agent *a = r->all->a;
  struct err err;
  r->under_way = true;
  r->all->count++;
  r->all->waiting--;
  r->logs = docker_logs_open(a->loop, &(struct docker_logs_options){a->daemon->config.docker, r->act.container, TAIL, 0, false, &ops, r}, &err);
  if (!r->logs || loop_timer_in(a->loop, &r->timer, TIMEOUT, &err) < 0)
    finish(r);
}

static void on_turn(void *arg) {
  struct last_words *w = arg;
  struct reading *r = w->list;
  while (r && r->under_way)
    r = r->next;
  if (!r || w->count >= AT_ONCE)
    return;
  begin(r); /* r may be gone */
  if (loop_timer_in(w->a->loop, &w->turn, 0, NULL) < 0)
    log_error("no memory for a timer");
}

void last_words_read(struct last_words *w, const struct agent_action *act) {
  struct reading *r = w->waiting < WAITING_MAX ? calloc(1, sizeof *r) : NULL;
  if (!r) {
    tell(w->a, act, "", 0);
    return;
  }
  r->all = w;
  r->act = *act;
  r->timer = (struct loop_timer){.cb = on_timeout, .arg = r};
  struct reading **last = &w->list;
  while (*last)
    last = &(*last)->next;
  *last = r;
  w->waiting++;
  if (w->count < AT_ONCE)
    begin(r);
  else if (loop_timer_in(w->a->loop, &r->timer, TURN_TIMEOUT, NULL) < 0)
    finish(r);
}

struct last_words *last_words_open(struct agent *a, struct err *err) {
  struct last_words *w = calloc(1, sizeof *w);
  if (!w) {
    err_set(err, ERR_MEMORY, "no memory for logs");
    return NULL;
  }
  w->a = a;
  w->turn = (struct loop_timer){.cb = on_turn, .arg = w};
  return w;
}

void last_words_close(struct last_words *w) {
  if (!w)
    return;
  while (w->list)
    drop(w->list);
  loop_timer_cancel(w->a->loop, &w->turn);
  free(w);
}
