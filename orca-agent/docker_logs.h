/* One reading of a container's log, on a connection of its own to Docker: it is read from only while its owner takes what comes, so a slow
 * reader holds Docker back and nothing grows.
 *
 * Docker's own way to follow is not to be trusted with content: across a rotation it repeats lines, and leaves out whole files when the reader is
 * behind (20.10, both drivers). A reading without `follow` is of one moment and whole. So
 * `follow` here is good for waking only.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_DOCKER_LOGS_H
#define ORCA_AGENT_DOCKER_LOGS_H

#include "common/err.h"
#include "common/loop.h"
#include "orca-agent/log_lines.h"

struct docker_logs;

struct docker_logs_ops {
  /* There may be lines in docker_logs_lines(). true: all were taken. false: it was paused, or closed. */
  bool (*readable)(void *arg, struct docker_logs *logs);
  /* It is over: why->code ERR_NONE: all was read. The owner closes it, now or later. */
  void (*done)(void *arg, struct docker_logs *logs, const struct err *why);
};

#define DOCKER_LOGS_ALL UINT64_MAX
struct docker_logs_options {
  const char *socket_path, *container;
  uint64_t tail;    /* the newest so many; DOCKER_LOGS_ALL */
  int64_t since_ns; /* 0: from the first */
  bool follow;
  const struct docker_logs_ops *ops;
  void *arg;
};
/* NULL: *err says why. No callback comes before it has returned. */
struct docker_logs *docker_logs_open(struct loop *loop, const struct docker_logs_options *options, struct err *err);
void docker_logs_close(struct docker_logs *logs); /* takes NULL */
struct log_lines *docker_logs_lines(struct docker_logs *logs);
void docker_logs_pause(struct docker_logs *logs); /* out of `readable`, which then returns false */
void docker_logs_resume(struct docker_logs *logs);

#endif
