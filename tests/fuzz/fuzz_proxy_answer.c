/* Answers: whatever is accepted is written for the client so that it reads the same status and the same framing. The file of routes, too, which comes
 * from a disk. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "orca-proxy/head.h"
#include "orca-proxy/routes.h"
#include "orca-proxy/serial.h"
#include "tests/fuzz/fuzz.h"

static void check(bool ok) {
  if (!ok)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct head h, again;
  static uint8_t out[SERIAL_MAX];
  struct err err;
  Node__RouteTable *table = routes_from_file(data, size, &err);
  if (table)
    node__route_table__free_unpacked(table, NULL);
  bool to_head = size % 2;
  if (head_parse_answer(&h, data, size, to_head) != HEAD_OK)
    return 0;
  check(h.size <= size && h.status >= 100 && h.status < 600);
  enum body_kind body = h.body == BODY_UNTIL_CLOSE ? BODY_CHUNKED : h.body;
  size_t n = serial_answer(out, sizeof out, &h, &(struct serial_answer){.keep_alive = true, .body = body});
  if (!n || n > HEAD_MAX || h.count > HEAD_FIELDS_MAX - 4)
    return 0;
  check(head_parse_answer(&again, out, n, to_head) == HEAD_OK);
  check(again.size == n && again.status == h.status && again.minor == 1);
  if (body != BODY_NONE)
    check(again.body == body && (body != BODY_LENGTH || again.length == h.length));
  return 0;
}
