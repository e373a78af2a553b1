/* protobuf-c as the house uses it: hostile input checked, fields set without forgetting has_x.
 * Threads: pure functions. */
#ifndef ORCA_COMMON_BUS_PB_H
#define ORCA_COMMON_BUS_PB_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "common/buf.h"
#include "common/err.h"

/* Sets an optional scalar field: PB_SET(&spec, port, 80) is spec.has_port = 1, spec.port = 80. */
#define PB_SET(msg, field, value) ((msg)->has_##field = 1, (msg)->field = (value))
/* The field, or a default when it is absent. */
#define PB_GET(msg, field, otherwise) ((msg)->has_##field ? (msg)->field : (otherwise))
/* A string field that is never NULL. */
#define PB_STR(s) ((s) ? (s) : "")

/* Unpacks a message from a peer or a disk: NULL and *err when it is malformed, when any string in it is not UTF-8 or holds a NUL,
 * when it nests deeper than 32, when a field that is not repeated comes twice, or when it would take more than 48 MiB unpacked. The caller frees with
 * protobuf_c_message_free_unpacked(). */
ProtobufCMessage *pb_unpack(const ProtobufCMessageDescriptor *desc, const uint8_t *data, size_t len, struct err *err);

/* Appends the packed message; -1 when the buffer's cap or memory ended. */
int pb_pack(const ProtobufCMessage *msg, struct buf *to);

/* A deep copy (by packing), unknown fields included. NULL when memory ends. */
ProtobufCMessage *pb_clone(const ProtobufCMessage *msg);
/* Equal as packed bytes, unknown fields included. NULLs are equal to each other only. */
bool pb_equal(const ProtobufCMessage *a, const ProtobufCMessage *b);

bool pb_utf8_valid(const char *s, size_t len);
/* In place: a character that was cut goes, and what else is not UTF-8 is told as '?'. For texts that were cut at a length, or came from outside:
 * the other side refuses the whole message for one of them. */
void pb_make_utf8(char *text);

#endif
