#include "orca-proxy/serial.h"

#include <string.h>

struct out {
  uint8_t *at, *end;
  bool full;
};

static inline void put(struct out *o, const void *data, size_t len) {
  if (len == 0)
    return;
  if (len > (size_t)(o->end - o->at)) {
    o->full = true;
    return;
  }
  memcpy(o->at, data, len);
  o->at += len;
}

#define PUT(o, literal) put((o), "" literal, sizeof(literal) - 1)

static inline void put_span(struct out *o, struct span s) {
  put(o, s.at, s.len);
}

static void put_number(struct out *o, uint64_t v) {
  char text[20];
  size_t n = sizeof text;
  do
    text[--n] = (char)('0' + v % 10);
  while (v /= 10);
  put(o, text + n, sizeof text - n);
}

/* Fields that are spelt the plain way already ("Name: value CR LF") and stand side by side are copied in one piece. */
static void put_fields(struct out *o, const struct head *h, const bool drop[FIELD_ID_COUNT]) {
  const uint8_t *from = NULL, *to = NULL;
  for (unsigned i = 0; i < h->count; i++) {
    const struct head_field *f = &h->fields[i];
    if (drop[f->id] || f->named_by_connection)
      continue;
    const uint8_t *end = f->value.at + f->value.len;
    if (f->value.at == f->name.at + f->name.len + 2 && f->value.at[-1] == ' ' && end[0] == '\r') {
      if (to != f->name.at) {
        put(o, from, (size_t)(to - from));
        from = f->name.at;
      }
      to = end + 2;
      continue;
    }
    put(o, from, (size_t)(to - from));
    from = to = NULL;
    put_span(o, f->name);
    PUT(o, ": ");
    put_span(o, f->value);
    PUT(o, "\r\n");
  }
  put(o, from, (size_t)(to - from));
}

/* All values of a list field, joined, each followed by ", ". */
static void put_list(struct out *o, const struct head *h, enum field_id id) {
  for (int i = h->first[id]; i >= 0 && i < (int)h->count; i++)
    if (h->fields[i].id == id && h->fields[i].value.len) {
      put_span(o, h->fields[i].value);
      PUT(o, ", ");
    }
}

static void put_forwarding(struct out *o, const struct head *h, const struct target *t, const struct serial_peer *peer) {
  PUT(o, "X-Forwarded-For: ");
  if (peer->trusted)
    put_list(o, h, FIELD_X_FORWARDED_FOR);
  put(o, peer->ip, peer->ip_len);
  PUT(o, "\r\nX-Forwarded-Proto: ");
  struct span proto = peer->trusted ? head_value(h, FIELD_X_FORWARDED_PROTO) : (struct span){NULL, 0};
  if (proto.len)
    put_span(o, proto);
  else
    put(o, peer->proto, strlen(peer->proto));
  struct span host = peer->trusted ? head_value(h, FIELD_X_FORWARDED_HOST) : (struct span){NULL, 0};
  if (!host.len)
    host = t->authority;
  if (host.len) {
    PUT(o, "\r\nX-Forwarded-Host: ");
    put_span(o, host);
  }
  PUT(o, "\r\nForwarded: ");
  if (peer->trusted)
    put_list(o, h, FIELD_FORWARDED);
  if (peer->is_v6) {
    PUT(o, "for=\"[");
    put(o, peer->ip, peer->ip_len);
    PUT(o, "]\"");
  } else {
    PUT(o, "for=");
    put(o, peer->ip, peer->ip_len);
  }
  if (t->authority.len) { /* RFC 7239 section 4: a port or an IPv6 literal needs quotes */
    PUT(o, ";host=\"");
    put_span(o, t->authority);
    PUT(o, "\"");
  }
  PUT(o, ";proto=");
  put(o, peer->proto, strlen(peer->proto));
  PUT(o, "\r\n");
}

static void put_body_fields(struct out *o, enum body_kind body, uint64_t length) {
  if (body == BODY_LENGTH) {
    PUT(o, "Content-Length: ");
    put_number(o, length);
    PUT(o, "\r\n");
  } else if (body == BODY_CHUNKED) {
    PUT(o, "Transfer-Encoding: chunked\r\n");
  }
}

size_t serial_request(uint8_t *buf, size_t cap, const struct head *h, const struct target *t, struct span path, const struct serial_peer *peer) {
  static const bool drop[2][FIELD_ID_COUNT] = {
#define HOP                                                                                                                                          \
  [FIELD_HOST] = true, [FIELD_CONNECTION] = true, [FIELD_CONTENT_LENGTH] = true, [FIELD_TRANSFER_ENCODING] = true, [FIELD_TE] = true,                \
  [FIELD_UPGRADE] = true, [FIELD_KEEP_ALIVE] = true, [FIELD_PROXY_CONNECTION] = true, [FIELD_PROXY_AUTHORIZATION] = true,                            \
  [FIELD_HTTP2_SETTINGS] = true, [FIELD_EXPECT] = true, [FIELD_FORWARDED] = true, [FIELD_X_FORWARDED_FOR] = true, [FIELD_X_FORWARDED_PROTO] = true,  \
  [FIELD_X_FORWARDED_HOST] = true
      {HOP, [FIELD_X_FORWARDED_PORT] = true, [FIELD_X_REAL_IP] = true},
      {HOP},
#undef HOP
  };
  struct out o = {buf, buf + cap, false};
  put_span(&o, h->method);
  PUT(&o, " ");
  put_span(&o, path);
  put_span(&o, t->query);
  PUT(&o, " HTTP/1.1\r\nHost: ");
  put_span(&o, t->authority);
  PUT(&o, "\r\n");
  put_fields(&o, h, drop[peer->trusted]);
  if (h->body == BODY_NONE && h->first[FIELD_CONTENT_LENGTH] >= 0)
    PUT(&o, "Content-Length: 0\r\n");
  put_body_fields(&o, h->body, h->length);
  if (h->expects_continue)
    PUT(&o, "Expect: 100-continue\r\n");
  if (h->upgrade_websocket)
    PUT(&o, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
  put_forwarding(&o, h, t, peer);
  PUT(&o, "\r\n");
  return o.full ? 0 : (size_t)(o.at - buf);
}

size_t serial_answer(uint8_t *buf, size_t cap, const struct head *h, const struct serial_answer *how) {
  static const bool drop[FIELD_ID_COUNT] = {
      [FIELD_CONNECTION] = true, [FIELD_CONTENT_LENGTH] = true, [FIELD_TRANSFER_ENCODING] = true, [FIELD_TE] = true,
      [FIELD_UPGRADE] = true,    [FIELD_KEEP_ALIVE] = true,     [FIELD_PROXY_CONNECTION] = true};
  struct out o = {buf, buf + cap, false};
  PUT(&o, "HTTP/1.1 ");
  char status[4] = {(char)('0' + h->status / 100), (char)('0' + h->status / 10 % 10), (char)('0' + h->status % 10), ' '};
  put(&o, status, sizeof status);
  put_span(&o, h->reason);
  PUT(&o, "\r\n");
  put_fields(&o, h, drop);
  if (h->upgrade_websocket) {
    PUT(&o, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    return o.full ? 0 : (size_t)(o.at - buf);
  }
  if (h->status < 200) {
    PUT(&o, "\r\n");
    return o.full ? 0 : (size_t)(o.at - buf);
  }
  /* No body follows but its length may be told: to HEAD, with 304, or a length of zero. */
  if (how->body == BODY_NONE && h->first[FIELD_CONTENT_LENGTH] >= 0 && h->status != 204)
    put_body_fields(&o, BODY_LENGTH, h->length);
  put_body_fields(&o, how->body, h->length);
  if (!how->keep_alive)
    PUT(&o, "Connection: close\r\n");
  else if (how->http10)
    PUT(&o, "Connection: keep-alive\r\n");
  PUT(&o, "\r\n");
  return o.full ? 0 : (size_t)(o.at - buf);
}
