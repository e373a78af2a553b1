#include "common/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void buf_free(struct buf *b) {
  if (!b)
    return;
  free(b->data);
  *b = BUF_INIT(b->cap);
}

void buf_reset(struct buf *b) {
  b->len = 0;
  b->failed = false;
  if (b->data)
    b->data[0] = 0;
}

int buf_reserve(struct buf *b, size_t more) {
  if (b->failed)
    return -1;
  if (more > b->cap || b->len > b->cap - more) {
    b->failed = true;
    return -1;
  }
  size_t need = b->len + more + 1;
  if (need <= b->size)
    return 0;
  size_t size = b->size ? b->size : 64;
  while (size < need)
    size *= 2;
  if (size > b->cap + 1)
    size = b->cap + 1;
  uint8_t *data = realloc(b->data, size);
  if (!data) {
    b->failed = true;
    return -1;
  }
  b->data = data;
  b->size = size;
  b->data[b->len] = 0; /* also before anything is added */
  return 0;
}

int buf_add(struct buf *b, const void *data, size_t len) {
  if (buf_reserve(b, len) < 0)
    return -1;
  if (len)
    memcpy(b->data + b->len, data, len);
  b->len += len;
  b->data[b->len] = 0;
  return 0;
}

int buf_add_str(struct buf *b, const char *s) {
  return buf_add(b, s, strlen(s));
}

int buf_add_byte(struct buf *b, uint8_t c) {
  return buf_add(b, &c, 1);
}

ssize_t buf_read(struct buf *b, int fd, size_t most) {
  if (buf_reserve(b, most) < 0) {
    errno = most > b->cap || b->len > b->cap - most ? EFBIG : ENOMEM;
    return -1;
  }
  ssize_t n;
  do
    n = read(fd, b->data + b->len, most);
  while (n < 0 && errno == EINTR);
  if (n > 0)
    b->len += (size_t)n;
  b->data[b->len] = 0;
  return n;
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  int rc = -1;
  if (n < 0)
    b->failed = true;
  else if (buf_reserve(b, (size_t)n) == 0) {
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
    rc = 0;
  }
  va_end(again);
  return rc;
}

int buf_printf(struct buf *b, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int rc = buf_vprintf(b, fmt, ap);
  va_end(ap);
  return rc;
}

void buf_consume(struct buf *b, size_t n) {
  if (n >= b->len) {
    b->len = 0;
  } else {
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
  }
  if (b->data)
    b->data[b->len] = 0;
}

bool buf_failed(const struct buf *b) {
  return b->failed;
}

const char *buf_str(struct buf *b) {
  return b->data ? (const char *)b->data : "";
}

uint8_t *buf_take(struct buf *b, size_t *ret_len) {
  if (b->failed) {
    buf_free(b);
    return NULL;
  }
  uint8_t *data = b->data;
  if (ret_len)
    *ret_len = b->len;
  b->data = NULL;
  buf_free(b);
  return data;
}
