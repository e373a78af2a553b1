/* The chunked transfer coding (RFC 9112 section 7.1), decoded strictly and written anew.
 *
 * Sizes are 1 to 15 hex digits; extensions are read over (at most 256 bytes a chunk) and not passed on; every line ends in
 * CR LF; trailer fields are checked like header fields, and at most 8 KiB of them are kept.
 * Threads: pure functions. */
#ifndef ORCA_PROXY_CHUNK_H
#define ORCA_PROXY_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define CHUNK_TRAILERS_MAX ((size_t)8192)
#define CHUNK_HEAD_MAX 20 /* bytes of "SIZE CR LF" as written here */

struct chunk_decoder {
  uint8_t state;
  uint8_t digits;
  uint16_t skipped;    /* bytes of this chunk's extension */
  uint64_t left;       /* data bytes of this chunk still to come */
  struct buf trailers; /* "NAME: VALUE CR LF" each, those that may be passed on */
  struct buf line;     /* the trailer line that is being read */
  size_t trailer_bytes;
};

void chunk_init(struct chunk_decoder *d);
void chunk_fini(struct chunk_decoder *d);

enum chunk_result { CHUNK_MORE, CHUNK_DONE, CHUNK_BAD };

/* Decodes data in place: the body bytes found are moved together, *ret_at says where they begin and *ret_len how many they are. *used: bytes eaten,
 * all of them unless CHUNK_DONE (what follows belongs to the next message). */
enum chunk_result chunk_decode(struct chunk_decoder *d, uint8_t *data, size_t len, size_t *used, uint8_t **ret_at, size_t *ret_len);

/* Writes the head of a chunk of `len` bytes and returns its length. */
size_t chunk_head(char out[CHUNK_HEAD_MAX], size_t len);

#endif
