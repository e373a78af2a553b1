/* The frame of a bus message (proto/bus.proto) as a plain struct: everything a peer may say, checked before anyone acts on it.
 * Threads: pure functions. */
#ifndef ORCA_COMMON_BUS_FRAME_H
#define ORCA_COMMON_BUS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "proto/bus.pb-c.h"

#define FRAME_VERSION 1u
#define FRAME_MAX 1024u /* bytes of a packed header: the longest error message and room for fields of later versions */

struct bus_frame {
  uint32_t version;
  Bus__Kind kind;
  uint64_t id, session;
  uint32_t deadline_ms, credit;
  struct err error; /* of ERROR */
};

/* ERR_INVALID: refuse and count. ERR_UNSUPPORTED: a newer version; *ret then holds what could be read (version, kind, id). */
int bus_frame_decode(const uint8_t *data, size_t len, size_t body_len, struct bus_frame *ret, struct err *err);
/* Returns the length; out is always large enough. */
size_t bus_frame_encode(const struct bus_frame *frame, uint8_t out[FRAME_MAX]);

#endif
