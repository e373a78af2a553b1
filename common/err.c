#include "common/err.h"
#undef err_set /* what err.h tells the analyzer */
#undef err_errno
#undef err_context

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *text;
  int http;
} codes[] = {
#define X(code, text, http) [code] = {text, http},
    ERR_CODES(X)
#undef X
};

/* Messages carry what peers and users sent: keep them to one printable line (UTF-8 bytes pass). */
static void one_line(char *s) {
  for (; *s; s++)
    if ((unsigned char)*s < 0x20 || *s == 0x7f)
      *s = ' ';
}

__attribute__((format(printf, 4, 0))) static void vset(struct err *e, enum err_code code, int sys_errno, const char *fmt, va_list ap) {
  e->code = code;
  e->sys_errno = sys_errno;
  vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

int err_set(struct err *e, enum err_code code, const char *fmt, ...) {
  if (!e)
    return -1;
  va_list ap;
  va_start(ap, fmt);
  vset(e, code, 0, fmt, ap);
  va_end(ap);
  one_line(e->msg);
  return -1;
}

static enum err_code code_of_errno(int sys_errno) {
  switch (sys_errno) {
  case ENOSPC:
  case EDQUOT:
    return ERR_NO_SPACE;
  case ENOMEM:
    return ERR_MEMORY;
  case ENOENT:
    return ERR_NOT_FOUND;
  case EACCES:
  case EPERM:
    return ERR_DENIED;
  case ETIMEDOUT:
    return ERR_TIMEOUT;
  case ECONNREFUSED:
  case ECONNRESET:
  case ENETUNREACH:
  case EHOSTUNREACH:
  case EPIPE:
    return ERR_UNAVAILABLE;
  case EEXIST:
  case EADDRINUSE:
    return ERR_CONFLICT;
  default:
    return ERR_IO;
  }
}

int err_errno(struct err *e, int sys_errno, const char *fmt, ...) {
  if (!e)
    return -1;
  va_list ap;
  va_start(ap, fmt);
  vset(e, code_of_errno(sys_errno), sys_errno, fmt, ap);
  va_end(ap);
  size_t used = strlen(e->msg);
  char text[96];
  snprintf(e->msg + used, sizeof e->msg - used, ": %s", strerror_r(sys_errno, text, sizeof text));
  one_line(e->msg);
  return -1;
}

int err_context(struct err *e, const char *fmt, ...) {
  if (!e)
    return -1;
  char head[sizeof e->msg];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(head, sizeof head, fmt, ap);
  va_end(ap);
  char tail[sizeof e->msg];
  memcpy(tail, e->msg, sizeof tail);
  /* The context never crowds out the cause: it gets at most half of the room. */
  snprintf(e->msg, sizeof e->msg, "%.*s: %.*s", (int)(sizeof e->msg / 2), head, (int)(sizeof e->msg / 2 - 4), tail);
  one_line(e->msg);
  return -1;
}

const char *err_code_text(enum err_code code) {
  return (unsigned)code < ERR_CODE_COUNT ? codes[code].text : codes[ERR_INTERNAL].text;
}

int err_code_http(enum err_code code) {
  return (unsigned)code < ERR_CODE_COUNT ? codes[code].http : codes[ERR_INTERNAL].http;
}

enum err_code err_code_from_text(const char *text) {
  for (unsigned i = 0; i < ERR_CODE_COUNT; i++)
    if (strcmp(codes[i].text, text) == 0)
      return (enum err_code)i;
  return ERR_INTERNAL;
}

enum err_code err_code_from_number(unsigned long num) {
  return num < ERR_CODE_COUNT && num != ERR_NONE ? (enum err_code)num : ERR_INTERNAL;
}
