#include "common/bus/frame.h"

#include <string.h>

#include "common/bus/pb.h"

/* Kinds that speak of a call which the receiver made: they carry by_answerer. */
static bool from_answerer(Bus__Kind kind) {
  return kind == BUS__KIND__REPLY || kind == BUS__KIND__ERROR || kind == BUS__KIND__ITEM;
}

static bool has_body(Bus__Kind kind) {
  return kind == BUS__KIND__CALL || kind == BUS__KIND__REPLY || kind == BUS__KIND__ITEM;
}

static int check(const Bus__Header *h, size_t body_len, struct err *err) {
  if (!h->has_kind || (int)h->kind < BUS__KIND__PING || h->kind > BUS__KIND__CANCEL)
    return err_set(err, ERR_INVALID, "frame of unknown kind");
  bool about_peers_call = PB_GET(h, by_answerer, false);
  uint64_t id = PB_GET(h, id, 0);
  switch (h->kind) {
  case BUS__KIND__PING:
  case BUS__KIND__PONG:
    if (!PB_GET(h, session, 0))
      return err_set(err, ERR_INVALID, "ping without a session");
    break;
  case BUS__KIND__ERROR: /* id 0 refuses the conversation itself */
    if (id && !about_peers_call)
      return err_set(err, ERR_INVALID, "error to a call of its own");
    break;
  case BUS__KIND__CALL:
  case BUS__KIND__REPLY:
  case BUS__KIND__ITEM:
  case BUS__KIND__CREDIT:
  case BUS__KIND__CANCEL:
  case _BUS__KIND_IS_INT_SIZE:
    if (!id)
      return err_set(err, ERR_INVALID, "frame without a call's id");
    if (about_peers_call != from_answerer(h->kind))
      return err_set(err, ERR_INVALID, "frame of kind %d from the wrong side", (int)h->kind);
    break;
  }
  if (body_len && !has_body(h->kind))
    return err_set(err, ERR_INVALID, "frame of kind %d with a body", (int)h->kind);
  return 0;
}

int bus_frame_decode(const uint8_t *data, size_t len, size_t body_len, struct bus_frame *ret, struct err *err) {
  if (len > FRAME_MAX)
    return err_set(err, ERR_INVALID, "header of %zu bytes", len);
  Bus__Header *h = (Bus__Header *)pb_unpack(&bus__header__descriptor, data, len, err);
  if (!h)
    return -1;
  int rc = 0;
  struct bus_frame frame = {
      .version = PB_GET(h, version, 0),
      .kind = PB_GET(h, kind, BUS__KIND__PING),
      .id = PB_GET(h, id, 0),
      .session = PB_GET(h, session, 0),
      .deadline_ms = PB_GET(h, deadline_ms, 0),
      .credit = PB_GET(h, credit, 0),
  };
  if (frame.version == 0)
    rc = err_set(err, ERR_INVALID, "frame without a version");
  else if (frame.version > FRAME_VERSION)
    rc = err_set(err, ERR_UNSUPPORTED, "bus version %u, this side speaks %u", frame.version, FRAME_VERSION);
  else
    rc = check(h, body_len, err);
  if (rc == 0 && frame.kind == BUS__KIND__ERROR)
    err_set(&frame.error, err_code_from_number(PB_GET(h, code, 0)), "%s", PB_STR(h->message));
  if (rc == 0 || frame.version > FRAME_VERSION)
    *ret = frame;
  bus__header__free_unpacked(h, NULL);
  return rc;
}

size_t bus_frame_encode(const struct bus_frame *frame, uint8_t out[FRAME_MAX]) {
  Bus__Header h = BUS__HEADER__INIT;
  struct err error;
  PB_SET(&h, version, frame->version ? frame->version : FRAME_VERSION);
  PB_SET(&h, kind, frame->kind);
  if (frame->id)
    PB_SET(&h, id, frame->id);
  if (frame->id && from_answerer(frame->kind))
    PB_SET(&h, by_answerer, 1);
  if (frame->session)
    PB_SET(&h, session, frame->session);
  if (frame->deadline_ms)
    PB_SET(&h, deadline_ms, frame->deadline_ms);
  if (frame->credit)
    PB_SET(&h, credit, frame->credit);
  if (frame->kind == BUS__KIND__ERROR) {
    error = frame->error;
    PB_SET(&h, code, (uint32_t)error.code);
    pb_make_utf8(error.msg); /* it quotes what peers and files said, cut at a length */
    h.message = error.msg;
  }
  return bus__header__pack(&h, out);
}
