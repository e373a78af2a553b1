/* Docker's streams in pieces of any size: frames of logs and execs, lines of events and pulls. What comes out must not depend on the cuts. */
#include <stdint.h>
#include <stdlib.h>

#include "orca-agent/docker_frames.h"
#include "orca-agent/docker_lines.h"
#include "tests/fuzz/fuzz.h"

static void count_frame(void *arg, int stream, const uint8_t *data, size_t len) {
  size_t *sum = arg;
  for (size_t n = 0; n < len; n++)
    *sum = *sum * 31 + data[n] + (size_t)stream;
}

static bool count_line(void *arg, const char *text, size_t len) {
  size_t *sum = arg;
  for (size_t n = 0; n < len; n++)
    *sum = *sum * 31 + (uint8_t)text[n];
  *sum = *sum * 31 + 7;
  return true;
}

static size_t run(const uint8_t *data, size_t size, size_t piece, bool lines) {
  struct docker_frames frames = {.have = 0};
  struct docker_lines l = DOCKER_LINES_INIT;
  size_t sum = 0;
  for (size_t at = 0; at < size; at += piece) {
    size_t len = size - at < piece ? size - at : piece;
    if (!(lines ? docker_lines_feed(&l, data + at, len, count_line, &sum) : docker_frames_feed(&frames, data + at, len, count_frame, &sum)))
      break;
  }
  docker_lines_fini(&l);
  return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  size_t piece = data[0] % 16 + 1;
  for (int lines = 0; lines < 2; lines++)
    if (run(data + 1, size - 1, piece, lines) != run(data + 1, size - 1, size, lines))
      abort();
  return 0;
}
