/* The head of an answer to "Connection: Upgrade", as a client reads it, in pieces of any size: 101 and then raw bytes, or an ordinary refusal.
 * For Docker's exec streams and orcactl's WebSocket. Strict: what is not HTTP/1.1 (RFC 9112) is no answer.
 * Threads: none; one owner. */
#ifndef ORCA_COMMON_HTTP_UPGRADE_H
#define ORCA_COMMON_HTTP_UPGRADE_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define HTTP_UPGRADE_HEAD_MAX ((size_t)16 << 10)
#define HTTP_UPGRADE_BODY_MAX ((size_t)64 << 10)

enum http_upgrade_state { HTTP_UPGRADE_MORE, HTTP_UPGRADE_DONE, HTTP_UPGRADE_REFUSED, HTTP_UPGRADE_BAD };

struct http_upgrade {
  llhttp_t parser;
  enum http_upgrade_state state;
  int status;
  size_t head;               /* bytes of it so far */
  char protocol[32];         /* what Upgrade says */
  char accept[64];           /* Sec-WebSocket-Accept */
  char subprotocol[32];      /* Sec-WebSocket-Protocol */
  struct buf body;           /* of a refusal */
  char name[32], value[256]; /* of the header under way; longer ones are none of ours */
  size_t name_len, value_len;
  bool twice;
};

void http_upgrade_init(struct http_upgrade *u);
void http_upgrade_fini(struct http_upgrade *u);
/* *used: bytes taken; after HTTP_UPGRADE_DONE the rest is of the new protocol. */
enum http_upgrade_state http_upgrade_feed(struct http_upgrade *u, const uint8_t *data, size_t len, size_t *used);
/* The peer has closed: a refusal whose body ends so is complete. */
enum http_upgrade_state http_upgrade_end(struct http_upgrade *u);

#endif
