/* Heads of HTTP/1 messages: parsed by llhttp in strict mode, then checked again for what llhttp lets through.
 *
 * The whole head lies in one piece of memory; spans point into it, nothing is copied. What passes here is unambiguous:
 * exactly one reading of where the head ends, which host is meant and how the body is framed (RFC 9112 sections 2 to 6).
 * Anything else is refused with a status for the client.
 * Threads: pure functions; a struct head is its caller's. */
#ifndef ORCA_PROXY_HEAD_H
#define ORCA_PROXY_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_MAX ((size_t)16384) /* bytes of a head, both directions */
#define HEAD_FIELDS_MAX 128

struct span {
  const uint8_t *at;
  size_t len;
};
#define SPAN(literal) ((struct span){(const uint8_t *)(literal), sizeof(literal) - 1})
bool span_is(struct span s, const char *text);        /* byte for byte */
bool span_is_nocase(struct span s, const char *text); /* ASCII case-insensitive; text is lower case */
bool span_same_nocase(struct span a, struct span b);

/* Fields the proxy acts on; all others are passed on as they are. */
#define HEAD_FIELD_IDS(X)                                                                                                                            \
  X(FIELD_HOST, "host")                                                                                                                              \
  X(FIELD_CONNECTION, "connection")                                                                                                                  \
  X(FIELD_CONTENT_LENGTH, "content-length")                                                                                                          \
  X(FIELD_TRANSFER_ENCODING, "transfer-encoding")                                                                                                    \
  X(FIELD_TE, "te")                                                                                                                                  \
  X(FIELD_TRAILER, "trailer")                                                                                                                        \
  X(FIELD_UPGRADE, "upgrade")                                                                                                                        \
  X(FIELD_KEEP_ALIVE, "keep-alive")                                                                                                                  \
  X(FIELD_PROXY_CONNECTION, "proxy-connection")                                                                                                      \
  X(FIELD_PROXY_AUTHORIZATION, "proxy-authorization")                                                                                                \
  X(FIELD_HTTP2_SETTINGS, "http2-settings")                                                                                                          \
  X(FIELD_EXPECT, "expect")                                                                                                                          \
  X(FIELD_ACCEPT, "accept")                                                                                                                          \
  X(FIELD_USER_AGENT, "user-agent")                                                                                                                  \
  X(FIELD_REFERER, "referer")                                                                                                                        \
  X(FIELD_FORWARDED, "forwarded")                                                                                                                    \
  X(FIELD_X_FORWARDED_FOR, "x-forwarded-for")                                                                                                        \
  X(FIELD_X_FORWARDED_PROTO, "x-forwarded-proto")                                                                                                    \
  X(FIELD_X_FORWARDED_HOST, "x-forwarded-host")                                                                                                      \
  X(FIELD_X_FORWARDED_PORT, "x-forwarded-port")                                                                                                      \
  X(FIELD_X_REAL_IP, "x-real-ip")                                                                                                                    \
  X(FIELD_WS_KEY, "sec-websocket-key")                                                                                                               \
  X(FIELD_WS_VERSION, "sec-websocket-version")                                                                                                       \
  X(FIELD_WS_ACCEPT, "sec-websocket-accept")

enum field_id {
  FIELD_OTHER,
#define X(id, name) id,
  HEAD_FIELD_IDS(X)
#undef X
      FIELD_ID_COUNT
};
/* '_' counts as '-': servers that make variables of fields can't tell them apart, so neither may an attacker. */
enum field_id field_id_of(struct span name);

struct head_field {
  struct span name, value; /* value without the white space around it */
  enum field_id id;
  bool named_by_connection; /* hop-by-hop by the sender's word */
};

enum body_kind {
  BODY_NONE,
  BODY_LENGTH,
  BODY_CHUNKED,
  BODY_UNTIL_CLOSE, /* answers only */
};

enum head_result {
  HEAD_OK,
  HEAD_PARTIAL, /* more bytes are needed; nothing in the head may be used but `size` == 0 */
  HEAD_BAD,     /* status and why say what to answer */
};

struct head {
  size_t size; /* bytes of the head, including the blank line (and blank lines before it) */
  bool is_request;
  uint8_t minor; /* HTTP/1.minor: 0 or 1 */

  struct span method, target; /* request */
  uint8_t method_id;          /* enum llhttp_method */
  bool idempotent;            /* by RFC 9110 section 9.2.2 */
  unsigned status;            /* answer */
  struct span reason;

  unsigned count;
  struct head_field fields[HEAD_FIELDS_MAX];
  int16_t first[FIELD_ID_COUNT]; /* index of the first field with that id; -1 */

  struct span host; /* request: the Host field's value; NULL when there is none (HTTP/1.0) */
  enum body_kind body;
  uint64_t length; /* with BODY_LENGTH */
  bool keep_alive;
  bool expects_continue;
  bool upgrade_websocket; /* request: a valid handshake. Answer: 101 that says websocket */

  int bad_status; /* with HEAD_BAD */
  const char *why;
};

enum head_result head_parse_request(struct head *h, const uint8_t *data, size_t len);
/* An answer to `method` (HEAD has no body). */
enum head_result head_parse_answer(struct head *h, const uint8_t *data, size_t len, bool to_head);

/* The value of the first field with that id, or a span with NULL. */
struct span head_value(const struct head *h, enum field_id id);

/* Goes through the comma-separated tokens of a list field: *rest is eaten up; false at the end. */
bool head_next_token(struct span *rest, struct span *token);

/* Where the blank line that ends a head has been seen, or it can't become a head any more: worth parsing again. `from` is how
 * many bytes an earlier call has looked at. */
bool head_may_be_complete(const uint8_t *data, size_t len, size_t from);

#endif
