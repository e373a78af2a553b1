/* `orca.exec.v1`, the WebSocket subprotocol of exec: each binary message is one channel byte, then bytes. docs/exec-protocol.md is for people.
 * Threads: pure functions. */
#ifndef ORCA_COMMON_WS_EXEC_WIRE_H
#define ORCA_COMMON_WS_EXEC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define EXEC_PROTOCOL "orca.exec.v1"
#define EXEC_MESSAGE_MAX ((size_t)64 << 10) /* with its channel byte */
#define EXEC_SIDE_MAX 10000u                /* rows or columns of a terminal */

enum exec_channel { EXEC_STDIN = 0, EXEC_STDOUT = 1, EXEC_STDERR = 2, EXEC_CONTROL = 3 };

enum exec_control_kind {
  EXEC_RESIZE,  /* → {"resize":[rows,cols]} */
  EXEC_EOF,     /* → {"eof":true} */
  EXEC_STARTED, /* ← {"started":true} */
  EXEC_EXIT,    /* ← {"exit":42} */
  EXEC_ERROR,   /* ← {"error":"…","code":"unavailable"} */
};
struct exec_control {
  enum exec_control_kind kind;
  uint32_t rows, cols;
  int32_t exit_code;
  char text[512], code[32]; /* of an error */
};
/* What follows the channel byte. false: not one of ours. */
bool exec_control_parse(const uint8_t *data, size_t len, struct exec_control *ret);
/* The whole message, channel byte first. */
void exec_control_write(const struct exec_control *control, struct buf *out);

#endif
