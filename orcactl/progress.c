#include "orcactl/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/text.h"
#include "orcactl/view.h"

void progress_free(struct progress *p) {
  free(p->lines);
  p->lines = NULL;
  p->count = p->drawn = 0;
}

static void copy(char *to, size_t size, const char *from) {
  char *clean = text_cleaned(from);
  snprintf(to, size, "%s", clean ? clean : "");
  free(clean);
}

static struct progress_line *line_of(struct progress *p, const char *service) {
  for (size_t i = 0; i < p->count; i++)
    if (strcmp(p->lines[i].service, service) == 0)
      return &p->lines[i];
  if (p->count == PROGRESS_MAX)
    return NULL;
  struct progress_line *lines = reallocarray(p->lines, p->count + 1, sizeof *lines);
  if (!lines)
    return NULL;
  p->lines = lines;
  lines[p->count] = (struct progress_line){0};
  copy(lines[p->count].service, sizeof lines[p->count].service, service);
  return &lines[p->count++];
}

static void print_line(const struct progress *p, const struct progress_line *l, struct buf *out) {
  char state[40];
  snprintf(state, sizeof state, "%s", l->state);
  for (char *c = state; *c; c++)
    if (*c == '_')
      *c = ' ';
  struct buf rest = BUF_INIT(4096);
  buf_printf(&rest, "  %lld/%lld ready", l->ready, l->replicas);
  if (*l->phase)
    buf_printf(&rest, "  %s", l->phase);
  unsigned used = text_width(l->service) + 2 + (text_width(state) > 12 ? text_width(state) : 12);
  const char *color = p->color ? table_color_code(view_status_color(l->state)) : "";
  buf_printf(out, "%s  %s%-12s%s", l->service, color, state, *color ? "\033[0m" : "");
  text_cut(buf_str(&rest), p->width > used ? p->width - used : p->width ? 0 : 4096, out);
  buf_free(&rest);
}

static void draw(struct progress *p, const struct progress_line *changed, struct buf *out) {
  if (!p->live || p->count + 1 >= p->height) {
    print_line(p, changed, out);
    buf_add_byte(out, '\n');
    return;
  }
  if (p->drawn)
    buf_printf(out, "\033[%zuA", p->drawn);
  for (size_t i = 0; i < p->count; i++) {
    buf_add_str(out, "\r");
    print_line(p, &p->lines[i], out);
    buf_add_str(out, "\033[K\n");
  }
  p->drawn = p->count;
}

static void on_progress(struct progress *p, const json_t *data, struct buf *out) {
  struct progress_line *l = line_of(p, api_str(data, "service"));
  if (!l)
    return;
  const char *why = api_str(data, "last_error");
  copy(l->state, sizeof l->state, api_str(data, "state"));
  copy(l->phase, sizeof l->phase, *why ? why : api_str(data, "phase"));
  l->ready = api_int(data, "ready");
  l->replicas = api_int(data, "replicas");
  draw(p, l, out);
}

static void on_done(struct progress *p, const json_t *data, struct buf *out) {
  size_t i;
  json_t *s;
  json_array_foreach(json_object_get(data, "services"), i, s) {
    const char *state = api_str(s, "state");
    if (!view_status_is_bad(state))
      continue;
    buf_add_str(out, p->color ? table_color_code(TABLE_RED) : "");
    text_clean(api_str(s, "service"), out);
    buf_add_str(out, ": ");
    for (const char *c = state; *c; c++)
      if (*c >= 'a' && *c <= 'z')
        buf_add_byte(out, (uint8_t)*c);
      else
        buf_add_byte(out, ' ');
    buf_add_str(out, p->color ? "\033[0m" : "");
    if (*api_str(s, "reason")) {
      buf_add_str(out, ": ");
      text_clean(api_str(s, "reason"), out);
    }
    if (strcmp(state, "pending") == 0)
      buf_add_str(out, "; it is deployed, and goes on by itself then");
    buf_add_byte(out, '\n');
  }
}

void progress_event(struct progress *p, const char *event, const json_t *data, struct buf *out) {
  if (strcmp(event, "progress") == 0)
    on_progress(p, data, out);
  else if (strcmp(event, "done") == 0)
    on_done(p, data, out);
}
