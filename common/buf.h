/* A growing byte buffer with a cap: nothing a peer sends makes a daemon grow without bound.
 *
 * After a failed append (cap reached or no memory) the buffer keeps what it had and stays failed: check once, at
 * the end, with buf_failed(). The bytes are always followed by a NUL that does not count, so buf_str() is cheap.
 * Threads: none; one owner. */
#ifndef ORCA_COMMON_BUF_H
#define ORCA_COMMON_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf {
  uint8_t *data;
  size_t len, size, cap;
  bool failed;
};

#define BUF_INIT(cap_) ((struct buf){.cap = (cap_)})

void buf_free(struct buf *b); /* takes an initialised buf or one of all zeroes; usable again after */
void buf_reset(struct buf *b);
int buf_reserve(struct buf *b, size_t more); /* room for `more` bytes behind len */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_add_str(struct buf *b, const char *s);
int buf_add_byte(struct buf *b, uint8_t c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
ssize_t buf_read(struct buf *b, int fd, size_t most); /* read(2) to its end: bytes, 0 at the end, -1 with errno (EFBIG: the cap) */
int buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void buf_consume(struct buf *b, size_t n); /* drops the first n bytes */
bool buf_failed(const struct buf *b);
const char *buf_str(struct buf *b);                /* borrowed until the next change; "" when empty */
uint8_t *buf_take(struct buf *b, size_t *ret_len); /* the caller frees; the buffer is empty after; NULL when failed or never written */

#endif
