#include "orca-agent/docker_frames.h"

bool docker_frames_feed(struct docker_frames *f, const uint8_t *data, size_t len, void (*out)(void *arg, int stream, const uint8_t *data, size_t len),
                        void *arg) {
  while (len) {
    if (f->left) {
      size_t take = f->left < len ? f->left : len;
      out(arg, f->head[0], data, take);
      f->left -= (uint32_t)take;
      data += take;
      len -= take;
      continue;
    }
    f->head[f->have++] = *data++;
    len--;
    if (f->have < sizeof f->head)
      continue;
    f->have = 0;
    if (f->head[0] > 2 || f->head[1] || f->head[2] || f->head[3])
      return false;
    f->left = (uint32_t)f->head[4] << 24 | (uint32_t)f->head[5] << 16 | (uint32_t)f->head[6] << 8 | f->head[7];
  }
  return true;
}
