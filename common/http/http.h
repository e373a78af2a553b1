/* A small asynchronous HTTP/1.1 client on the event loop, for Docker's socket and probes: Unix sockets and numeric addresses, no TLS.
 * Our own over llhttp, because libcurl brings two dozen libraries (three megabytes in each daemon) of which these two need nothing.
 *
 * Every request ends in exactly one `done`, at the latest when its deadline has passed. Answers are either collected
 * (up to max_body) or handed on as they come (`data`); redirects are not followed. Connections that may be kept are, a few of them; a request
 * that finds its kept one just ended is sent again on a new one.
 * Threads: the loop's. */
#ifndef ORCA_COMMON_HTTP_HTTP_H
#define ORCA_COMMON_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/loop.h"

struct http_client;
struct http_request;

struct http_client *http_client_new(struct loop *loop, struct err *err);
void http_client_free(struct http_client *client); /* ends all its requests without callbacks */

struct http_answer {
  int status;          /* 0 when there was no answer: err says why */
  const uint8_t *body; /* borrowed; followed by a NUL; empty when `data` took it */
  size_t len;
  const char *content_type; /* "" when absent */
};

struct http_options {
  const char *method;         /* "GET" */
  const char *url;            /* with unix_socket: "http://docker/v1.41/…" */
  const char *unix_socket;    /* NULL: TCP */
  const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
  const void *body;           /* copied */
  size_t body_len;
  int64_t timeout_ns;         /* whole request; 0: none (streams) */
  int64_t connect_timeout_ns; /* 0: timeout_ns, or 10 s */
  size_t max_body;            /* 0: 16 MiB. More: ERR_TOO_LARGE */
  bool fresh_connection;      /* probes: neither use nor leave a pooled one */
  /* Streaming: called for each piece of a 2xx body; return false to end the request (done gets ERR_CANCELLED). */
  bool (*data)(void *arg, const uint8_t *data, size_t len);
  /* err is NULL when an HTTP answer came, whatever its status. */
  void (*done)(void *arg, const struct http_answer *answer, const struct err *err);
  void *arg;
};
/* Everything in options is copied or used up before it returns. NULL and *err when it can't be started. */
struct http_request *http_start(struct http_client *client, const struct http_options *options, struct err *err);
void http_cancel(struct http_request *request); /* no callback comes after this */

/* Percent-encodes one path segment or query value into out; -1 when it does not fit. */
int http_escape(const char *text, char *out, size_t size);

#endif
