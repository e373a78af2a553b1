/* Contexts: which cluster orcactl talks to, and as whom. They live in $ORCA_HOME, else ~/.orca:
 *
 *   config.json    {"current": "production", "contexts": {"production": {"url": "http://127.0.0.1:6880"}}}
 *                  a context over https has the cluster's CA beside it ("ca", PEM): the only root that is trusted for it
 *   tokens/NAME    the bearer token, 0400; refused when others can read it
 *
 * Threads: none. */
#ifndef ORCA_ORCACTL_CONTEXT_H
#define ORCA_ORCACTL_CONTEXT_H

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"

struct context {
  char name[64];
  char url[256];   /* without a slash at its end */
  char token[256]; /* wiped by context_free() */
  char ca[4096];   /* PEM; "" for http */
};

/* name NULL: $ORCA_CONTEXT, else the current one. -1: ERR_NOT_FOUND when there is none yet. */
int context_load(const char *name, struct context *ret, struct err *err);
void context_free(struct context *context);

/* Adds or replaces a context; it becomes the current one when `use` is set or there is none. Files are replaced atomically. */
int context_save(const struct context *context, bool use, struct err *err);

/* What there is: {"current": …, "contexts": {…}}, without tokens; the caller decrefs. NULL: err. */
json_t *context_all(struct err *err);
int context_use(const char *name, struct err *err);
/* With its token. None is current when it was. */
int context_remove(const char *name, struct err *err);

#endif
