/* Requests: whatever is accepted has one meaning, and what is written for the instance is read back as the same message. The body is decoded whole
 * and in pieces, with the same result. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "orca-proxy/chunk.h"
#include "orca-proxy/head.h"
#include "orca-proxy/serial.h"
#include "orca-proxy/target.h"
#include "tests/fuzz/fuzz.h"

static void check(bool ok) {
  if (!ok)
    abort();
}

static void check_body(const uint8_t *body, size_t len) {
  uint8_t *whole = malloc(len + 1), *pieces = malloc(len + 1), *joined = malloc(len + 1), *at;
  check(whole && pieces && joined);
  memcpy(whole, body, len);
  memcpy(pieces, body, len);
  struct chunk_decoder a, b;
  chunk_init(&a);
  chunk_init(&b);
  size_t used, got, joined_len = 0, eaten = 0;
  enum chunk_result r = chunk_decode(&a, whole, len, &used, &at, &got), s = CHUNK_MORE;
  for (size_t from = 0; from < len && s == CHUNK_MORE;) {
    size_t n = 1 + (from * 7) % 13, piece_used, piece_got;
    uint8_t *piece;
    if (n > len - from)
      n = len - from;
    s = chunk_decode(&b, pieces + from, n, &piece_used, &piece, &piece_got);
    memcpy(joined + joined_len, piece, piece_got);
    joined_len += piece_got;
    eaten += piece_used;
    from += n;
  }
  check(r == s || len == 0);
  if (r != CHUNK_BAD && len)
    check(joined_len == got && memcmp(joined, at, got) == 0 && eaten == used && strcmp(buf_str(&a.trailers), buf_str(&b.trailers)) == 0);
  chunk_fini(&a);
  chunk_fini(&b);
  free(whole);
  free(pieces);
  free(joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct head h, again;
  static uint8_t room[HEAD_MAX], out[SERIAL_MAX];
  if (head_parse_request(&h, data, size) != HEAD_OK)
    return 0;
  check(h.size <= size && head_may_be_complete(data, size, 0));
  struct target t;
  const char *why;
  if (h.body == BODY_CHUNKED)
    check_body(data + h.size, size - h.size);
  if (!target_parse(&t, &h, room, &why))
    return 0;
  check(t.path.len > 0 && (t.path.at[0] == '/' || t.path.at[0] == '*'));
  check(memmem(t.path.at, t.path.len, "/../", 4) == NULL);
  struct serial_peer peer = {.ip = "10.0.0.1", .ip_len = 8, .trusted = size % 2, .proto = "http"};
  size_t n = serial_request(out, sizeof out, &h, &t, size % 3 ? t.path : target_strip(t.path, size % 5), &peer);
  if (!n)
    return 0;
  if (n > HEAD_MAX || h.count > HEAD_FIELDS_MAX - 8 || (h.minor == 0 && !t.authority.len))
    return 0;
  check(head_parse_request(&again, out, n) == HEAD_OK && again.size == n);
  check(again.body == h.body && again.length == h.length && again.method_id == h.method_id && again.upgrade_websocket == h.upgrade_websocket);
  check(t.authority.len == 0 || (again.host.len == t.authority.len && memcmp(again.host.at, t.authority.at, t.authority.len) == 0));
  check(again.keep_alive);
  return 0;
}
