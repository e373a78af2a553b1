#include "common/bus/pb.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 32

bool pb_utf8_valid(const char *s, size_t len) {
  const uint8_t *p = (const uint8_t *)s, *end = p + len;
  while (p < end) {
    uint8_t c = *p++;
    if (c < 0x80)
      continue;
    unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) < more)
      return false;
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80; /* overlong forms */
    uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf; /* surrogates, above U+10FFFF */
    if (*p < low || *p > high)
      return false;
    for (unsigned i = 1; i < more; i++)
      if ((p[i] & 0xc0) != 0x80)
        return false;
    p += more;
  }
  return true;
}

/* ---- the wire form is checked before protobuf-c sees it: depth, and that strings are UTF-8 without NUL ---- */

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *ret) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
    uint8_t c = *(*p)++;
    v |= (uint64_t)(c & 0x7f) << shift;
    if (!(c & 0x80)) {
      *ret = v;
      return true;
    }
  }
  return false;
}

static int check(const ProtobufCMessageDescriptor *desc, const uint8_t *p, size_t len, unsigned depth, struct err *err) {
  if (depth > MAX_DEPTH)
    return err_set(err, ERR_INVALID, "message nests deeper than %d", MAX_DEPTH);
  const uint8_t *end = p + len;
  while (p < end) {
    uint64_t tag, size;
    if (!varint(&p, end, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
      return err_set(err, ERR_INVALID, "malformed %s", desc->short_name);
    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
      if (!varint(&p, end, &size))
        return err_set(err, ERR_INVALID, "malformed %s", desc->short_name);
      continue;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
      size = 8;
      break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
      size = 4;
      break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
      if (!varint(&p, end, &size))
        return err_set(err, ERR_INVALID, "malformed %s", desc->short_name);
      break;
    default: /* groups are not ours */
      return err_set(err, ERR_INVALID, "malformed %s: wire type %u", desc->short_name, (unsigned)(tag & 7));
    }
    if (size > (uint64_t)(end - p))
      return err_set(err, ERR_INVALID, "%s is cut short", desc->short_name);
    if ((tag & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
      const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
      if (field && field->type == PROTOBUF_C_TYPE_STRING && (!pb_utf8_valid((const char *)p, size) || memchr(p, 0, size)))
        return err_set(err, ERR_INVALID, "%s.%s is not UTF-8 text", desc->short_name, field->name);
      if (field && field->type == PROTOBUF_C_TYPE_MESSAGE && check(field->descriptor, p, size, depth + 1, err) < 0)
        return -1;
    }
    p += size;
  }
  return 0;
}

ProtobufCMessage *pb_unpack(const ProtobufCMessageDescriptor *desc, const uint8_t *data, size_t len, struct err *err) {
  if (check(desc, data, len, 0, err) < 0)
    return NULL;
  ProtobufCMessage *msg = protobuf_c_message_unpack(desc, NULL, len, data);
  if (!msg)
    err_set(err, ERR_INVALID, "malformed %s", desc->short_name);
  return msg;
}

int pb_pack(const ProtobufCMessage *msg, struct buf *to) {
  size_t len = protobuf_c_message_get_packed_size(msg);
  if (buf_reserve(to, len) < 0)
    return -1;
  protobuf_c_message_pack(msg, to->data + to->len);
  to->len += len;
  to->data[to->len] = 0;
  return 0;
}

ProtobufCMessage *pb_clone(const ProtobufCMessage *msg) {
  struct buf packed = BUF_INIT(SIZE_MAX / 2);
  ProtobufCMessage *copy = NULL;
  if (pb_pack(msg, &packed) == 0)
    copy = protobuf_c_message_unpack(msg->descriptor, NULL, packed.len, packed.data);
  buf_free(&packed);
  return copy;
}

bool pb_equal(const ProtobufCMessage *a, const ProtobufCMessage *b) {
  if (!a || !b)
    return a == b;
  if (a->descriptor != b->descriptor)
    return false;
  struct buf pa = BUF_INIT(SIZE_MAX / 2), pb = BUF_INIT(SIZE_MAX / 2);
  bool equal = pb_pack(a, &pa) == 0 && pb_pack(b, &pb) == 0 && pa.len == pb.len && memcmp(pa.data, pb.data, pa.len) == 0;
  buf_free(&pa);
  buf_free(&pb);
  return equal;
}
