/* Docker's Engine API v1.41 over its unix socket, asynchronously: every call ends in one `done`, at the latest at its deadline.
 *
 * Answers are hostile until looked at: sizes are capped here, docker_parse.c checks types. The link (docker_link_start) pings until Docker
 * answers, then reads its events, and says up and down; at down all calls in flight end with ERR_UNAVAILABLE.
 * Threads: the loop's. */
#ifndef ORCA_AGENT_DOCKER_H
#define ORCA_AGENT_DOCKER_H

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"
#include "common/http/http.h"
#include "common/loop.h"

struct docker;
struct docker_call;

struct docker *docker_new(struct loop *loop, struct http_client *http, const char *socket_path, struct err *err);
void docker_free(struct docker *d); /* ends its calls with ERR_CANCELLED; the link says nothing any more */

struct docker_reply {
  enum err_code code;  /* ERR_NONE: 2xx, or 304 */
  int status;          /* 0: no answer */
  const char *message; /* Docker's own words, or why there was no answer; never NULL */
  const json_t *json;  /* of a JSON answer; NULL otherwise */
};
typedef void docker_done_fn(void *arg, const struct docker_reply *reply);
typedef bool docker_data_fn(void *arg, const uint8_t *data, size_t len); /* false: enough */

struct docker_options {
  const char *method, *path; /* "/containers/json?all=1"; the version is put before it */
  json_t *body;              /* taken; NULL: none */
  const char *const *headers;
  int64_t timeout_ns; /* 0: none (streams) */
  docker_data_fn *data;
  docker_done_fn *done;
  void *arg;
};
/* Never calls back before it has returned. NULL only when memory ended: nothing will be called. */
struct docker_call *docker_call(struct docker *d, const struct docker_options *options);
void docker_cancel(struct docker_call *call); /* no callback comes after this */

/* ---- the link ---- */

struct docker_link_ops {
  void (*up)(void *arg, const char *version);
  void (*down)(void *arg, const char *why); /* once per loss, and once when the first contact fails */
  void (*event)(void *arg, const json_t *event);
};
/* filters: JSON of the events wanted, borrowed. */
int docker_link_start(struct docker *d, const char *filters, const struct docker_link_ops *ops, void *arg, struct err *err);

#endif
