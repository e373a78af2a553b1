/* WebSocket (RFC 6455) over any pipe of bytes: framing by wslay, bounded, both roles.
 *
 * The owner hands in two functions that read and write what is there now, calls ws_read() when there may be something to read and ws_write() when
 * there is room, and waits for what ws_wants_read() and ws_wants_write() say. Only whole binary messages are handed on; text, what is too long, not
 * masked as its role asks, or not in order closes the conversation with the code that the RFC gives it (1002, 1003, 1009; none for a frame whose
 * head makes no sense at all), and that is its end.
 * A held conversation reads no more of its pipe: what was already read is kept, and that is bounded.
 * Threads: none; one owner. Nothing calls back but from ws_read(), ws_write() and ws_resume(); ws_free() not from within a callback. */
#ifndef ORCA_COMMON_WS_WS_H
#define ORCA_COMMON_WS_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

#define WS_KEY_LEN 24    /* Sec-WebSocket-Key: base64 of 16 bytes */
#define WS_ACCEPT_LEN 28 /* Sec-WebSocket-Accept: base64 of a SHA-1 */

enum ws_role { WS_SERVER, WS_CLIENT };
enum ws_code {
  WS_GOOD = 1000,
  WS_GOING_AWAY = 1001,
  WS_PROTOCOL = 1002,
  WS_UNSUPPORTED = 1003,
  WS_POLICY = 1008,
  WS_TOO_BIG = 1009,
  WS_INTERNAL = 1011,
};

struct ws;

struct ws_ops {
  /* What is there now: 0 for the pipe's end; -1 with errno EAGAIN, or broken. */
  ssize_t (*read)(void *arg, uint8_t *to, size_t len);
  ssize_t (*write)(void *arg, const uint8_t *data, size_t len);
  void (*message)(void *arg, const uint8_t *data, size_t len); /* borrowed */
};

/* max: bytes of one message that comes in, of all its fragments. NULL when memory ended. */
struct ws *ws_new(enum ws_role role, size_t max, const struct ws_ops *ops, void *arg);
void ws_free(struct ws *ws); /* takes NULL */

/* Bytes that came with the handshake, read before anything else. -1: no memory. */
int ws_give(struct ws *ws, const uint8_t *data, size_t len);

/* false: over, nothing more will come in (the peer closed, or the pipe did, or what came was refused: ws_why()). */
bool ws_read(struct ws *ws);
/* false: the pipe is broken, or the close of both sides has been said. */
bool ws_write(struct ws *ws);
bool ws_wants_read(const struct ws *ws);
bool ws_wants_write(const struct ws *ws);

int ws_send(struct ws *ws, const void *data, size_t len); /* a binary message, queued; -1: no memory, or it is closing */
size_t ws_queued(const struct ws *ws);                    /* bytes that wait to be written */
void ws_ping(struct ws *ws);
void ws_pong(struct ws *ws); /* unasked: "still here", when the peer's pings may wait behind what we don't read */
void ws_close(struct ws *ws, enum ws_code code, const char *reason); /* queued behind what was sent */

void ws_hold(struct ws *ws);
void ws_resume(struct ws *ws);
bool ws_is_held(const struct ws *ws);
uint64_t ws_frames(const struct ws *ws); /* that came in, pongs too: a sign of life */
unsigned ws_why(const struct ws *ws);    /* the code the peer closed with, or ours once it is written; 0: none was said */

/* ---- the handshake's head (section 4) ---- */

/* What the client's head says; NULL where it says nothing. */
struct ws_offer {
  const char *upgrade, *connection, *version, *key, *protocols, *origin, *host;
};
/* 0: it may be upgraded, accept is filled. -1 and ERR_UNSUPPORTED: no upgrade is asked for (426); ERR_DENIED: a page of another origin; ERR_INVALID.
 */
int ws_accept(const struct ws_offer *offer, const char *protocol, char accept[WS_ACCEPT_LEN + 1], struct err *err);
void ws_accept_of(const char *key, char accept[WS_ACCEPT_LEN + 1]);
int ws_new_key(char key[WS_KEY_LEN + 1], struct err *err);

#endif
