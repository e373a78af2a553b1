/* Answers to an upgrade, in pieces of any size: what is made of them must not depend on the cuts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/http/upgrade.h"
#include "tests/fuzz/fuzz.h"

struct result {
  enum http_upgrade_state state;
  int status;
  size_t used, body;
};

static struct result run(const uint8_t *data, size_t size, size_t piece) {
  struct http_upgrade u;
  size_t at = 0, used;
  http_upgrade_init(&u);
  while (at < size && u.state == HTTP_UPGRADE_MORE) {
    size_t n = size - at < piece ? size - at : piece;
    http_upgrade_feed(&u, data + at, n, &used);
    if (used > n)
      abort();
    at += used;
  }
  if (u.state == HTTP_UPGRADE_DONE && (u.status != 101 || !*u.protocol))
    abort();
  if (u.body.len > HTTP_UPGRADE_BODY_MAX)
    abort();
  struct result r = {u.state, u.status, at, u.body.len};
  http_upgrade_end(&u);
  http_upgrade_fini(&u);
  return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || size > 12000)
    return 0;
  struct result whole = run(data + 1, size - 1, size), pieces = run(data + 1, size - 1, data[0] % 16 + 1u);
  if (whole.state != pieces.state || (whole.state == HTTP_UPGRADE_DONE && whole.used != pieces.used) ||
      (whole.state == HTTP_UPGRADE_REFUSED && whole.body != pieces.body))
    abort();
  return 0;
}
