/* Cuts a stream into lines: Docker's events and pull progress are one JSON text a line.
 * Threads: none; one owner. */
#ifndef ORCA_AGENT_DOCKER_LINES_H
#define ORCA_AGENT_DOCKER_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define DOCKER_LINE_MAX ((size_t)1 << 20)

struct docker_lines {
  struct buf rest;
};
#define DOCKER_LINES_INIT ((struct docker_lines){BUF_INIT(DOCKER_LINE_MAX)})
void docker_lines_fini(struct docker_lines *lines);
/* Calls line for each whole one (without its end). false: one is longer than the cap, or line said no more. */
bool docker_lines_feed(struct docker_lines *lines, const uint8_t *data, size_t len, bool (*line)(void *arg, const char *text, size_t len), void *arg);

#endif
