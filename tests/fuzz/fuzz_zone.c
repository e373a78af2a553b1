/* A time zone's file: no bytes crash the parser, and what it takes answers for every time with an offset of less than 26 hours. */
#include <stdint.h>
#include <stdlib.h>

#include "common/cron/zone.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct err err;
  struct zone *zone = zone_parse(data, size, &err);
  for (int64_t at = -62135596800; zone && at < 253402300800; at += 86400 * 97) {
    int32_t offset = zone_offset(zone, at);
    if (offset <= -26 * 3600 || offset >= 26 * 3600)
      abort();
  }
  if (zone) {
    zone_offset(zone, INT64_MIN / 2);
    zone_offset(zone, INT64_MAX / 2);
  }
  zone_free(zone);
  return 0;
}
