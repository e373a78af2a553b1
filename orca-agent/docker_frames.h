/* Logs and the output of an exec come in frames: stream number, three zero bytes, length (big-endian, 32 bits), then the bytes.
 * Threads: none; one owner. */
#ifndef ORCA_AGENT_DOCKER_FRAMES_H
#define ORCA_AGENT_DOCKER_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct docker_frames {
  uint8_t head[8];
  unsigned have; /* of the header */
  uint32_t left; /* of the payload */
};
/* Hands on the payload piece by piece (stream 1: stdout, 2: stderr). false: not frames. */
bool docker_frames_feed(struct docker_frames *f, const uint8_t *data, size_t len, void (*out)(void *arg, int stream, const uint8_t *data, size_t len),
                        void *arg);

#endif
