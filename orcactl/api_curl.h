/* What api.c shares with exec's connection: one set of options for whatever goes to the API, the context's CA among them.
 * Threads: none. */
#ifndef ORCA_ORCACTL_API_CURL_H
#define ORCA_ORCACTL_API_CURL_H

#include <curl/curl.h>

#include "common/buf.h"
#include "orcactl/ctl.h"

/* Loads the context and makes ctl->curl ready for a request to it: all but what is asked for. why is where libcurl says what went wrong;
 * ctl->stranger says it when who answered may not hear the token. */
int api_prepare(struct ctl *ctl, char why[CURL_ERROR_SIZE], struct err *err);
/* -1, and what the server said with this status. */
int api_refused(struct ctl *ctl, long status, struct buf *body, struct err *err);

#endif
