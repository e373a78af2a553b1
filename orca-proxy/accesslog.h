/* The access log: a line a request on stdout, as JSON or in the common format, written by a thread of its own: a reader that
 * stalls costs lines (counted and told), never a request.
 * Threads: accesslog_add() any; the rest one. */
#ifndef ORCA_PROXY_ACCESSLOG_H
#define ORCA_PROXY_ACCESSLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "orca-proxy/head.h"

enum accesslog_format { ACCESSLOG_OFF, ACCESSLOG_JSON, ACCESSLOG_COMMON };

struct accesslog_entry {
  const char *client, *service, *instance; /* service and instance may be "" */
  struct span method, host, target, referer, agent;
  unsigned minor, status, attempts;
  uint64_t bytes_in, bytes_out, us;
};

struct accesslog;
struct accesslog *accesslog_new(enum accesslog_format format, int fd, struct err *err); /* NULL with *err */
void accesslog_free(struct accesslog *log);                                             /* as accesslog_pause() */
/* Its thread ends, with all written, and begins again: around a fork. Nobody adds in between. A reader that stalls has half a second; what it has not
 * taken then is lost, and counted. */
void accesslog_pause(struct accesslog *log);
int accesslog_resume(struct accesslog *log, struct err *err);
void accesslog_add(struct accesslog *log, const struct accesslog_entry *e);
/* One line without I/O; returns its length, cut to cap. */
size_t accesslog_format(enum accesslog_format format, char *out, size_t cap, const struct accesslog_entry *e, int64_t wall_ms);

#endif
