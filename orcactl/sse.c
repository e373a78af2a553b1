#include "orcactl/sse.h"

#include <stdio.h>
#include <string.h>

void sse_init(struct sse *s) {
  *s = (struct sse){.line = BUF_INIT(SSE_LINE_MAX), .data = BUF_INIT(SSE_LINE_MAX)};
}

void sse_free(struct sse *s) {
  buf_free(&s->line);
  buf_free(&s->data);
}

static void field(struct sse *s, const char *name, const char *value) {
  if (strcmp(name, "data") == 0) {
    if (s->data.len)
      buf_add_byte(&s->data, '\n');
    buf_add_str(&s->data, value);
  } else if (strcmp(name, "event") == 0) {
    snprintf(s->event, sizeof s->event, "%s", value);
  } else if (strcmp(name, "id") == 0 && strlen(value) < sizeof s->id) {
    snprintf(s->id, sizeof s->id, "%s", value);
  }
}

static bool end_of_line(struct sse *s, bool (*on_event)(void *arg, const char *event, const char *data), void *arg) {
  if (buf_failed(&s->line) || buf_failed(&s->data))
    return false;
  bool go_on = true;
  if (s->line.len == 0) {
    if (s->data.len)
      go_on = on_event(arg, s->event[0] ? s->event : "message", buf_str(&s->data));
    buf_reset(&s->data);
    s->event[0] = 0;
  } else if (s->line.data[0] != ':') {
    char *text = (char *)s->line.data, *colon = memchr(text, ':', s->line.len);
    if (colon) {
      *colon = 0;
      field(s, text, colon[1] == ' ' ? colon + 2 : colon + 1);
    } else {
      field(s, text, "");
    }
  }
  buf_reset(&s->line);
  return go_on;
}

bool sse_feed(struct sse *s, const char *data, size_t len, bool (*on_event)(void *arg, const char *event, const char *data), void *arg) {
  for (size_t i = 0; i < len; i++) {
    bool lf_of_cr = data[i] == '\n' && s->after_cr;
    s->after_cr = data[i] == '\r';
    if (lf_of_cr)
      continue;
    if (data[i] == '\n' || data[i] == '\r') {
      if (!end_of_line(s, on_event, arg))
        return false;
    } else if (buf_add_byte(&s->line, (uint8_t)data[i]) < 0) {
      return false;
    }
  }
  return true;
}
