/* A WebSocket of either role is fed anything, in pieces of any size, held now and then. Whatever comes out is whole messages within the limit; the
 * pieces' size changes nothing of them. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/ws/exec_wire.h"
#include "common/ws/ws.h"
#include "tests/fuzz/fuzz.h"

#define LIMIT 1024u

struct feed {
  struct ws *ws;
  const uint8_t *data;
  size_t left, piece, sum, messages;
  bool holds;
};

static ssize_t on_read(void *arg, uint8_t *to, size_t len) {
  struct feed *f = arg;
  size_t n = len < f->piece ? len : f->piece;
  if (n > f->left)
    n = f->left;
  if (!n) {
    errno = EAGAIN;
    return -1;
  }
  memcpy(to, f->data, n);
  f->data += n;
  f->left -= n;
  return (ssize_t)n;
}

static ssize_t on_write(void *arg, const uint8_t *data, size_t len) {
  (void)arg;
  (void)data;
  return (ssize_t)len;
}

static void on_message(void *arg, const uint8_t *data, size_t len) {
  struct feed *f = arg;
  struct exec_control control;
  if (len > LIMIT)
    abort();
  for (size_t n = 0; n < len; n++)
    f->sum = f->sum * 31 + data[n];
  f->sum = f->sum * 31 + 7;
  f->messages++;
  if (len && data[0] == EXEC_CONTROL && exec_control_parse(data + 1, len - 1, &control)) {
    struct buf b = BUF_INIT(8192);
    struct exec_control again;
    exec_control_write(&control, &b);
    if (control.kind != EXEC_ERROR && (!exec_control_parse(b.data + 1, b.len - 1, &again) || again.kind != control.kind))
      abort();
    buf_free(&b);
  }
  if (f->holds)
    ws_hold(f->ws);
}

static struct feed run(const uint8_t *data, size_t size, size_t piece, enum ws_role role, bool holds) {
  static const struct ws_ops ops = {on_read, on_write, on_message};
  struct feed f = {.data = data, .left = size, .piece = piece, .holds = holds};
  f.ws = ws_new(role, LIMIT, &ops, &f);
  if (!f.ws)
    abort();
  for (;;) {
    size_t left = f.left, messages = f.messages;
    bool more = ws_read(f.ws);
    ws_write(f.ws);
    if (ws_is_held(f.ws))
      ws_resume(f.ws);
    else if (!more || (f.left == left && f.messages == messages))
      break;
  }
  ws_free(f.ws);
  return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  enum ws_role role = data[0] & 1 ? WS_SERVER : WS_CLIENT;
  size_t piece = data[0] / 2 % 32 + 1;
  struct feed whole = run(data + 1, size - 1, size, role, false), pieces = run(data + 1, size - 1, piece, role, false);
  if (whole.sum != pieces.sum)
    abort();
  run(data + 1, size - 1, piece, role, true);
  return 0;
}
