/* One try of a probe, carried out: http GET, tcp connect, or exec through the agent. Ends in exactly one `done`, at the latest at its timeout.
 *
 * What answers is hostile: an http answer is judged by its status alone (2xx and 3xx pass, redirects are not followed), at most 4 KiB of it are read,
 * and the connection is closed then. Nothing is reused between tries. Threads: the loop's. */
#ifndef ORCA_KEEPER_TRY_H
#define ORCA_KEEPER_TRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bus/bus.h"
#include "common/http/http.h"
#include "common/loop.h"
#include "proto/model.pb-c.h"

struct keeper_try;

struct keeper_try_tools { /* borrowed for the tries' lives */
  struct loop *loop;
  struct http_client *http;
  struct bus_conn *agent;
};

struct keeper_try_what { /* borrowed until keeper_try_start() returns */
  const Model__Probe *probe;
  const char *instance, *container_id, *address;
  int64_t timeout; /* ns */
};

/* reason: "" on success; borrowed. The try is freed before it is called. */
typedef void keeper_try_done(void *arg, bool success, const char *reason);

/* Never calls done before it returns; NULL when memory ends. */
struct keeper_try *keeper_try_start(const struct keeper_try_tools *tools, const struct keeper_try_what *what, keeper_try_done *done, void *arg);
void keeper_try_cancel(struct keeper_try *t); /* no callback comes after this; takes NULL */

#endif
