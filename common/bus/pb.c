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
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;  /* overlong forms */
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

void pb_make_utf8(char *text) {
  size_t len = strlen(text), cut = len;
  while (cut > 0 && len - cut < 3 && !pb_utf8_valid(text, cut))
    cut--;
  if (pb_utf8_valid(text, cut)) {
    text[cut] = 0;
    return;
  }
  for (; *text; text++)
    if ((unsigned char)*text >= 0x80)
      *text = '?';
}

/* ---- the wire form is checked before protobuf-c sees it: depth, size once unpacked, that nothing single comes twice, and that strings are UTF-8
 * without NUL ----
 *
 * protobuf-c would take a field that comes twice, as the standard says: the later one wins, and messages are merged. Nobody packs like that but
 * an attacker, for whom merging 8 MiB of such fields is hours of work. And an empty message is two bytes on the wire, a hundred in memory. */

#define MAX_UNPACKED ((size_t)48 << 20) /* bytes, by estimate: a range's answer of 4 MiB of tiny keys comes to 35 MiB */
#define MAX_FIELDS 512u                 /* of one kind of message */
#define ALLOCATION 16u                  /* what malloc adds */
#define SCANNED 40u                     /* what protobuf-c notes of each field while it unpacks */

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

/* Past one field's value: *ret_size says how much of it is content, 0 for a number. */
static int skip(const char *name, const uint8_t **p, const uint8_t *end, unsigned wire_type, uint64_t *ret_size, struct err *err) {
  uint64_t size = 0;
  bool ok = true;
  switch (wire_type) {
  case PROTOBUF_C_WIRE_TYPE_VARINT:
    ok = varint(p, end, &size);
    size = 0;
    break;
  case PROTOBUF_C_WIRE_TYPE_64BIT:
    size = 8;
    break;
  case PROTOBUF_C_WIRE_TYPE_32BIT:
    size = 4;
    break;
  case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
    ok = varint(p, end, &size);
    break;
  default: /* groups are not ours */
    return err_set(err, ERR_INVALID, "malformed %s: wire type %u", name, wire_type);
  }
  if (!ok)
    return err_set(err, ERR_INVALID, "malformed %s", name);
  if (size > (uint64_t)(end - *p))
    return err_set(err, ERR_INVALID, "%s is cut short", name);
  *ret_size = size;
  return 0;
}

/* What the field takes once it is unpacked, beyond its own bytes and those of messages within. */
static size_t cost(const ProtobufCFieldDescriptor *field, unsigned wire_type, uint64_t size) {
  if (!field)
    return sizeof(ProtobufCMessageUnknownField) + ALLOCATION + SCANNED;
  if (field->label != PROTOBUF_C_LABEL_REPEATED)
    return 0;
  bool packed = wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && field->type != PROTOBUF_C_TYPE_MESSAGE &&
                field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_BYTES;
  return SCANNED + (packed ? sizeof(uint64_t) * size : sizeof(ProtobufCBinaryData) + ALLOCATION);
}

static int check(const ProtobufCMessageDescriptor *desc, const uint8_t *p, size_t len, unsigned depth, size_t *left, struct err *err) {
  uint8_t seen[MAX_FIELDS / 8] = {0};
  if (depth > MAX_DEPTH)
    return err_set(err, ERR_INVALID, "message nests deeper than %d", MAX_DEPTH);
  if (desc->n_fields > MAX_FIELDS)
    return err_set(err, ERR_INTERNAL, "%s has more fields than can be checked", desc->short_name);
  size_t spent = desc->sizeof_message + ALLOCATION;
  const uint8_t *end = p + len;
  while (p < end) {
    uint64_t tag, size = 0;
    if (!varint(&p, end, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX)
      return err_set(err, ERR_INVALID, "malformed %s", desc->short_name);
    if (skip(desc->short_name, &p, end, (unsigned)(tag & 7), &size, err) < 0)
      return -1;
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
    if (field && field->label != PROTOBUF_C_LABEL_REPEATED) {
      size_t at = (size_t)(field - desc->fields);
      if (seen[at / 8] & 1u << at % 8)
        return err_set(err, ERR_INVALID, "%s.%s is there twice", desc->short_name, field->name);
      seen[at / 8] |= (uint8_t)(1u << at % 8);
    }
    spent += cost(field, (unsigned)(tag & 7), size);
    if (spent > *left)
      return err_set(err, ERR_TOO_LARGE, "%s takes more than %zu MiB when it is unpacked", desc->short_name, MAX_UNPACKED >> 20);
    if (field && (tag & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
      if (field->type == PROTOBUF_C_TYPE_STRING && (!pb_utf8_valid((const char *)p, size) || memchr(p, 0, size)))
        return err_set(err, ERR_INVALID, "%s.%s is not UTF-8 text", desc->short_name, field->name);
      if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        size_t rest = *left - spent;
        if (check(field->descriptor, p, size, depth + 1, &rest, err) < 0)
          return -1;
        spent = *left - rest;
      }
    }
    p += size;
  }
  if (spent > *left)
    return err_set(err, ERR_TOO_LARGE, "%s takes more than %zu MiB when it is unpacked", desc->short_name, MAX_UNPACKED >> 20);
  *left -= spent;
  return 0;
}

ProtobufCMessage *pb_unpack(const ProtobufCMessageDescriptor *desc, const uint8_t *data, size_t len, struct err *err) {
  size_t left = MAX_UNPACKED;
  if (check(desc, data, len, 0, &left, err) < 0)
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
