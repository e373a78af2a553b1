#include "orca-agent/docker_lines.h"

#include <string.h>

void docker_lines_fini(struct docker_lines *lines) {
  buf_free(&lines->rest);
}

bool docker_lines_feed(struct docker_lines *lines, const uint8_t *data, size_t len, bool (*line)(void *arg, const char *text, size_t len),
                       void *arg) {
  while (len) {
    const uint8_t *end = memchr(data, '\n', len);
    size_t take = end ? (size_t)(end - data) : len;
    if (buf_add(&lines->rest, data, take) < 0)
      return false;
    if (!end)
      return true;
    data += take + 1;
    len -= take + 1;
    size_t n = lines->rest.len;
    if (n && lines->rest.data[n - 1] == '\r')
      n--;
    if (n && !line(arg, (const char *)lines->rest.data, n))
      return false;
    buf_reset(&lines->rest);
  }
  return true;
}
