#include "orca-proxy/chunk.h"

#include <string.h>

#include "orca-proxy/head.h"

#define EXTENSION_MAX 256

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF, DONE };

void chunk_init(struct chunk_decoder *d) {
  *d = (struct chunk_decoder){.trailers = BUF_INIT(CHUNK_TRAILERS_MAX), .line = BUF_INIT(CHUNK_TRAILERS_MAX)};
}

void chunk_fini(struct chunk_decoder *d) {
  buf_free(&d->trailers);
  buf_free(&d->line);
}

static int hex(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_token_char(uint8_t c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c));
}

/* A trailer must not change what the head has said (RFC 9110 section 6.5.1): what the proxy acts on is dropped. */
static int keep_trailer(struct chunk_decoder *d) {
  const uint8_t *line = d->line.data;
  size_t len = d->line.len, name = 0;
  while (name < len && is_token_char(line[name]))
    name++;
  if (name == 0 || name == len || line[name] != ':')
    return -1;
  size_t from = name + 1;
  while (from < len && (line[from] == ' ' || line[from] == '\t'))
    from++;
  while (len > from && (line[len - 1] == ' ' || line[len - 1] == '\t'))
    len--;
  if (field_id_of((struct span){line, name}) == FIELD_OTHER) {
    buf_add(&d->trailers, line, name);
    buf_add_str(&d->trailers, ": ");
    buf_add(&d->trailers, line + from, len - from);
    buf_add_str(&d->trailers, "\r\n");
  }
  return buf_failed(&d->trailers) ? -1 : 0;
}

static enum chunk_result step(struct chunk_decoder *d, uint8_t c) {
  switch (d->state) {
  case SIZE: {
    int v = hex(c);
    if (v >= 0) {
      if (++d->digits > 15)
        return CHUNK_BAD;
      d->left = d->left << 4 | (unsigned)v;
      return CHUNK_MORE;
    }
    if (!d->digits)
      return CHUNK_BAD;
    if (c == '\r')
      d->state = SIZE_LF;
    else if (c == ';')
      d->state = EXTENSION;
    else
      return CHUNK_BAD;
    return CHUNK_MORE;
  }
  case EXTENSION:
    if (c == '\r')
      d->state = SIZE_LF;
    else if ((c < 0x20 && c != '\t') || c == 0x7f || ++d->skipped > EXTENSION_MAX)
      return CHUNK_BAD;
    return CHUNK_MORE;
  case SIZE_LF:
    if (c != '\n')
      return CHUNK_BAD;
    d->state = d->left ? DATA : TRAILER;
    return CHUNK_MORE;
  case DATA_CR:
    if (c != '\r')
      return CHUNK_BAD;
    d->state = DATA_LF;
    return CHUNK_MORE;
  case DATA_LF:
    if (c != '\n')
      return CHUNK_BAD;
    d->state = SIZE;
    d->digits = 0;
    d->skipped = 0;
    return CHUNK_MORE;
  case TRAILER:
    if (++d->trailer_bytes > CHUNK_TRAILERS_MAX)
      return CHUNK_BAD;
    if (c == '\r')
      d->state = TRAILER_LF;
    else if ((c < 0x20 && c != '\t') || c == 0x7f || buf_add_byte(&d->line, c) < 0)
      return CHUNK_BAD;
    return CHUNK_MORE;
  case TRAILER_LF:
    if (c != '\n')
      return CHUNK_BAD;
    if (d->line.len == 0) {
      d->state = DONE;
      return CHUNK_DONE;
    }
    if (keep_trailer(d) < 0)
      return CHUNK_BAD;
    buf_reset(&d->line);
    d->state = TRAILER;
    return CHUNK_MORE;
  default: /* DATA never comes here; after DONE nothing is the decoder's */
    return CHUNK_BAD;
  }
}

enum chunk_result chunk_decode(struct chunk_decoder *d, uint8_t *data, size_t len, size_t *used, uint8_t **ret_at, size_t *ret_len) {
  size_t i = 0, out = 0, gathered = 0;
  enum chunk_result r = CHUNK_MORE;
  while (i < len && r == CHUNK_MORE) {
    if (d->state != DATA) {
      r = step(d, data[i++]);
      continue;
    }
    size_t run = len - i < d->left ? len - i : (size_t)d->left;
    if (gathered == 0)
      out = i;
    else if (out + gathered != i)
      memmove(data + out + gathered, data + i, run);
    gathered += run;
    i += run;
    d->left -= run;
    if (d->left == 0)
      d->state = DATA_CR;
  }
  *used = i;
  *ret_at = data + out;
  *ret_len = gathered;
  return r;
}

size_t chunk_head(char out[CHUNK_HEAD_MAX], size_t len) {
  static const char digits[] = "0123456789abcdef";
  char text[16];
  size_t n = 0;
  do
    text[n++] = digits[len & 15];
  while (len >>= 4);
  for (size_t i = 0; i < n; i++)
    out[i] = text[n - 1 - i];
  out[n] = '\r';
  out[n + 1] = '\n';
  return n + 2;
}
