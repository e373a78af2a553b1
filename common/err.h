/* Error values.
 *
 * A function that can fail takes a `struct err *` that its caller owns as its last parameter, returns 0 or -1
 * (or NULL), and fills it only on failure. Library code returns errors and never logs; whoever decides what to do
 * about one logs it, once. Callers prepend context: "deploy shop/api: image: not found".
 * Threads: no shared state. No text here may hold a secret. */
#ifndef ORCA_COMMON_ERR_H
#define ORCA_COMMON_ERR_H

#include <stddef.h>

/* code, text on the wire and in JSON, HTTP status. Numbers on the wire are the order here: append only. */
#define ERR_CODES(X)                                                                                                                                 \
  X(ERR_NONE, "ok", 200)                                                                                                                             \
  X(ERR_INVALID, "invalid", 400)                                                                                                                     \
  X(ERR_UNAUTHENTICATED, "unauthenticated", 401)                                                                                                     \
  X(ERR_DENIED, "denied", 403)                                                                                                                       \
  X(ERR_NOT_FOUND, "not_found", 404)                                                                                                                 \
  X(ERR_METHOD, "method_not_allowed", 405)                                                                                                           \
  X(ERR_CONFLICT, "conflict", 409)                                                                                                                   \
  X(ERR_COMPACTED, "compacted", 410)                                                                                                                 \
  X(ERR_TOO_LARGE, "too_large", 413)                                                                                                                 \
  X(ERR_UNPROCESSABLE, "unprocessable", 422)                                                                                                         \
  X(ERR_BUSY, "busy", 429)                                                                                                                           \
  X(ERR_INTERNAL, "internal", 500)                                                                                                                   \
  X(ERR_UNSUPPORTED, "not_supported", 501)                                                                                                           \
  X(ERR_UNAVAILABLE, "unavailable", 503)                                                                                                             \
  X(ERR_NO_LEADER, "no_leader", 503)                                                                                                                 \
  X(ERR_TIMEOUT, "timeout", 504)                                                                                                                     \
  X(ERR_NO_SPACE, "no_space", 507)                                                                                                                   \
  X(ERR_IO, "io", 500)                                                                                                                               \
  X(ERR_CORRUPT, "corrupt", 500)                                                                                                                     \
  X(ERR_CANCELLED, "cancelled", 499)                                                                                                                 \
  X(ERR_MEMORY, "out_of_memory", 503)

enum err_code {
#define X(code, text, http) code,
  ERR_CODES(X)
#undef X
      ERR_CODE_COUNT
};

struct err {
  enum err_code code;
  int sys_errno; /* 0 when no system call is behind it */
  char msg[512]; /* always NUL-terminated, one line, printable */
};

/* Fills *e (a NULL e is allowed: the caller does not care) and returns -1, so `return err_set(...)` reads well. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same from an errno value: appends its text and picks the code (ENOSPC → ERR_NO_SPACE, ENOMEM → ERR_MEMORY …). */
int err_errno(struct err *e, int sys_errno, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message. Returns -1. */
int err_context(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* it does not see into err.c, and must know that what follows a failure is not reached with rubbish */
#define err_set(...) (err_set(__VA_ARGS__), -1)
#define err_errno(...) (err_errno(__VA_ARGS__), -1)
#define err_context(...) (err_context(__VA_ARGS__), -1)
#endif

const char *err_code_text(enum err_code code);         /* "not_found" */
int err_code_http(enum err_code code);                 /* 404 */
enum err_code err_code_from_text(const char *text);    /* ERR_INTERNAL when unknown */
enum err_code err_code_from_number(unsigned long num); /* from a peer: ERR_INTERNAL when out of range */

#endif
