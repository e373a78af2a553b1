/* Cron: no text crashes the parser; the next occurrence lies ahead, and asking for it from just before gives it again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cron/cron.h"
#include "tests/fuzz/fuzz.h"

static int32_t summer(void *arg, int64_t at) { /* an hour ahead in every other half year */
  (void)arg;
  return (at / 15778800) % 2 ? 7200 : 3600;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[512];
  uint32_t after;
  if (size < sizeof after || size - sizeof after >= sizeof text)
    return 0;
  memcpy(&after, data, sizeof after);
  memcpy(text, data + sizeof after, size - sizeof after);
  text[size - sizeof after] = 0;
  struct cron c;
  struct err err;
  int64_t next, again;
  if (cron_parse(text, &c, &err) < 0)
    return 0;
  cron_offset_fn *const zones[] = {NULL, summer};
  for (int i = 0; i < 2; i++)
    if (cron_next(&c, after, zones[i], NULL, &next) && (next <= after || !cron_next(&c, next - 1, zones[i], NULL, &again) || again != next))
      abort();
  return 0;
}
