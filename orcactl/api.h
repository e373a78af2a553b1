/* orcactl's side of the REST API: one request at a time, with the context's token.
 *
 * An error of the server becomes its err_code and text; its `details` stay in ctl->details for ctl_fail(). ctl->unreachable says that no answer came
 * at all. Redirects are not followed and the environment's proxies not used: the token goes to the context's url and nowhere else.
 * Threads: none. */
#ifndef ORCA_ORCACTL_API_H
#define ORCA_ORCACTL_API_H

#include <jansson.h>
#include <stdbool.h>

#include "common/buf.h"
#include "orcactl/ctl.h"

/* ret may be NULL; the caller decrefs. path begins with a slash. */
int api_call(struct ctl *ctl, const char *method, const char *path, const json_t *body, json_t **ret, struct err *err);

/* Events until the server ends the stream (0), on_event returns false (0), or the connection is lost (-1). last_id: of an event seen before, or "".
 * A plain JSON answer is handed over as one event "message". */
int api_stream(struct ctl *ctl, const char *method, const char *path, const json_t *body, char last_id[64],
               bool (*on_event)(void *arg, const char *event, const char *data), void *arg, struct err *err);
/* The same of a GET that has no end: 0 too as soon as stdout's reader has gone, said or not. */
int api_follow(struct ctl *ctl, const char *path, char last_id[64], bool (*on_event)(void *arg, const char *event, const char *data), void *arg,
               struct err *err);
void api_end(struct ctl *ctl);

/* "/api/v1/services/NAME" (or jobs) + tail + "?project=P&QUERY", from NAME or PROJECT/NAME. -1: not a name. */
int api_service_path(const char *name, const char *tail, const char *query, char out[512], struct err *err);
int api_job_path(const char *name, const char *tail, const char *query, char out[512], struct err *err);
/* Appends "&KEY=VALUE", escaped; nothing for NULL. -1: too long, and nothing is appended. */
int api_add_query(struct buf *path, const char *key, const char *value);

/* Reading answers: "" and 0 for what is missing or of another type. */
const char *api_str(const json_t *object, const char *key);
long long api_int(const json_t *object, const char *key);
double api_num(const json_t *object, const char *key);

#endif
