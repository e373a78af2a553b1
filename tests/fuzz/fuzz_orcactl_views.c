/* What an API, or who stands in for it, answers orcactl: events in pieces of any size, JSON of any shape. Nothing that it prints moves the cursor. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/ctl.h"
#include "orcactl/progress.h"
#include "orcactl/sse.h"
#include "orcactl/text.h"
#include "orcactl/view.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  text_init();
  return 0;
}

static void harmless(const struct buf *out) {
  if (out->len && (memchr(out->data, 0x1b, out->len) || memchr(out->data, '\r', out->len) || memchr(out->data, 7, out->len)))
    abort();
}

static bool on_event(void *arg, const char *event, const char *data) {
  struct progress *p = arg;
  struct buf out = BUF_INIT((size_t)1 << 22);
  json_t *json = json_loads(data, 0, NULL);
  if (json)
    progress_event(p, event, json, &out);
  harmless(&out);
  buf_free(&out);
  json_decref(json);
  return true;
}

static void feed(const char *data, size_t size, size_t piece) {
  struct sse s;
  struct progress p = {0};
  sse_init(&s);
  for (size_t at = 0; at < size; at += piece)
    if (!sse_feed(&s, data + at, size - at < piece ? size - at : piece, on_event, &p))
      break;
  sse_free(&s);
  progress_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size || size > 1 << 16)
    return 0;
  feed((const char *)data, size, size);
  feed((const char *)data, size, data[0] % 7 + 1);
  struct ctl ctl = {.width = data[0]};
  struct buf out = BUF_INIT((size_t)1 << 22), clean = BUF_INIT((size_t)1 << 20), cut = BUF_INIT((size_t)1 << 20);
  json_t *json = json_loadb((const char *)data, size, 0, NULL);
  if (json)
    view_status(&ctl, json, &out);
  harmless(&out);
  json_decref(json);
  char *text = strndup((const char *)data, size);
  if (!text)
    return 0;
  text_clean(text, &clean);
  harmless(&clean);
  text_cut(buf_str(&clean), data[0] % 40, &cut);
  if (text_width(buf_str(&cut)) > data[0] % 40u)
    abort();
  text_time(text);
  free(text);
  buf_free(&out);
  buf_free(&clean);
  buf_free(&cut);
  return 0;
}
