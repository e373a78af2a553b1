#include "orca-proxy/head.h"

#include <llhttp.h>
#include <string.h>
#include <strings.h>

bool span_is(struct span s, const char *text) {
  size_t len = strlen(text);
  return s.len == len && memcmp(s.at, text, len) == 0;
}

bool span_is_nocase(struct span s, const char *text) {
  size_t len = strlen(text);
  return s.len == len && strncasecmp((const char *)s.at, text, len) == 0;
}

bool span_same_nocase(struct span a, struct span b) {
  return a.len == b.len && strncasecmp((const char *)a.at, (const char *)b.at, a.len) == 0;
}

static const struct {
  const char *name;
} field_names[] = {[FIELD_OTHER] = {""},
#define X(id, text) [id] = {text},
                   HEAD_FIELD_IDS(X)
#undef X
};

#define FIELD_NAME_MAX 21

/* The names of each length, 0-terminated. A test compares it with the list in the header. */
static const uint8_t by_length[FIELD_NAME_MAX + 1][4] = {
    [2] = {FIELD_TE},
    [4] = {FIELD_HOST},
    [6] = {FIELD_ACCEPT, FIELD_EXPECT},
    [7] = {FIELD_UPGRADE, FIELD_REFERER, FIELD_TRAILER},
    [9] = {FIELD_FORWARDED, FIELD_X_REAL_IP},
    [10] = {FIELD_CONNECTION, FIELD_USER_AGENT, FIELD_KEEP_ALIVE},
    [14] = {FIELD_CONTENT_LENGTH, FIELD_HTTP2_SETTINGS},
    [15] = {FIELD_X_FORWARDED_FOR},
    [16] = {FIELD_PROXY_CONNECTION, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PORT},
    [17] = {FIELD_TRANSFER_ENCODING, FIELD_X_FORWARDED_PROTO, FIELD_WS_KEY},
    [19] = {FIELD_PROXY_AUTHORIZATION},
    [20] = {FIELD_WS_ACCEPT},
    [21] = {FIELD_WS_VERSION},
};

enum field_id field_id_of(struct span name) {
  if (name.len > FIELD_NAME_MAX)
    return FIELD_OTHER;
  for (const uint8_t *id = by_length[name.len]; *id; id++) {
    const char *text = field_names[*id].name;
    size_t i = 0;
    for (; i < name.len; i++) {
      uint8_t b = name.at[i];
      b = b == '_' ? '-' : (b >= 'A' && b <= 'Z') ? (uint8_t)(b | 0x20) : b;
      if (b != (uint8_t)text[i])
        break;
    }
    if (i == name.len)
      return (enum field_id) * id;
  }
  return FIELD_OTHER;
}

struct span head_value(const struct head *h, enum field_id id) {
  return h->first[id] >= 0 ? h->fields[h->first[id]].value : (struct span){NULL, 0};
}

static bool is_blank(uint8_t c) {
  return c == ' ' || c == '\t';
}

static struct span trim(const uint8_t *from, const uint8_t *to) {
  while (from < to && is_blank(*from))
    from++;
  while (to > from && is_blank(to[-1]))
    to--;
  return (struct span){from, (size_t)(to - from)};
}

bool head_next_token(struct span *rest, struct span *token) {
  while (rest->len) {
    const uint8_t *comma = memchr(rest->at, ',', rest->len);
    const uint8_t *end = comma ? comma : rest->at + rest->len;
    *token = trim(rest->at, end);
    size_t used = (size_t)(end - rest->at) + (comma ? 1 : 0);
    rest->at += used;
    rest->len -= used;
    if (token->len)
      return true;
  }
  return false;
}

bool head_may_be_complete(const uint8_t *data, size_t len, size_t from) {
  from = from > 3 ? from - 3 : 0;
  while (from < len) {
    const uint8_t *lf = memchr(data + from, '\n', len - from);
    if (!lf)
      return false;
    from = (size_t)(lf - data) + 1;
    if (from < len && data[from] == '\n')
      return true;
    if (from + 1 < len && data[from] == '\r' && data[from + 1] == '\n')
      return true;
  }
  return false;
}

/* ---- llhttp: it only reports where things are; all within one call, so each span comes in one piece ---- */

static int on_target(llhttp_t *p, const char *at, size_t len) {
  struct head *h = p->data;
  h->target = (struct span){(const uint8_t *)at, len};
  return 0;
}

static int on_reason(llhttp_t *p, const char *at, size_t len) {
  struct head *h = p->data;
  h->reason = (struct span){(const uint8_t *)at, len};
  return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t len) {
  struct head *h = p->data;
  if (h->count == HEAD_FIELDS_MAX) {
    h->bad_status = 431;
    h->why = "too many header fields";
    return HPE_USER;
  }
  h->fields[h->count].name = (struct span){(const uint8_t *)at, len};
  h->count++;
  return 0;
}

static int on_complete(llhttp_t *p) {
  (void)p;
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_target, .on_status = on_reason, .on_header_field = on_field, .on_headers_complete = on_complete};

static enum head_result bad(struct head *h, int status, const char *why) {
  h->bad_status = status;
  h->why = why;
  return HEAD_BAD;
}

static enum head_result run(struct head *h, llhttp_t *p, llhttp_type_t type, const uint8_t *data, size_t len) {
  h->size = 0;
  h->is_request = type == HTTP_REQUEST;
  h->count = 0;
  h->method = h->target = h->reason = h->host = (struct span){NULL, 0};
  h->bad_status = 0;
  h->length = 0;
  h->expects_continue = h->upgrade_websocket = false;
  memset(h->first, 0xff, sizeof h->first);
  llhttp_init(p, type, &settings);
  p->data = h;
  switch (llhttp_execute(p, (const char *)data, len)) {
  case HPE_PAUSED:
    h->size = (size_t)((const uint8_t *)llhttp_get_error_pos(p) - data);
    return HEAD_OK;
  case HPE_OK:
    return len >= HEAD_MAX ? bad(h, 431, "the head is larger than 16 KiB") : HEAD_PARTIAL;
  case HPE_INVALID_VERSION:
    return bad(h, 505, "HTTP/1.0 or HTTP/1.1 is spoken here");
  case HPE_USER:
    return HEAD_BAD;
  default:
    return bad(h, 400, llhttp_get_error_reason(p));
  }
}

/* Everything between the start line and the blank line must be exactly NAME ":" VALUE CRLF: this refuses obs-fold, bare
 * line feeds and white space where llhttp is kind, and finds the values. `line` is where the first field must begin. */
static enum head_result walk_fields(struct head *h, const uint8_t *data, const uint8_t *line) {
  const uint8_t *end = data + h->size - 2; /* the blank line */
  if (h->size < 4 || memcmp(end - 2, "\r\n\r\n", 4) != 0)
    return bad(h, 400, "lines end in CR LF");
  for (unsigned i = 0; i < h->count; i++) {
    struct head_field *f = &h->fields[i];
    if (f->name.at != line || f->name.len == 0 || line[f->name.len] != ':')
      return bad(h, 400, "malformed header field");
    const uint8_t *next = i + 1 < h->count ? h->fields[i + 1].name.at : end;
    const uint8_t *value = line + f->name.len + 1;
    if (next - value < 2 || next[-2] != '\r' || next[-1] != '\n')
      return bad(h, 400, "malformed header field");
    size_t raw = (size_t)(next - 2 - value);
    if (memchr(value, '\n', raw) || memchr(value, '\r', raw) || memchr(value, 0, raw))
      return bad(h, 400, "header fields may not be folded");
    f->value = trim(value, next - 2);
    f->id = field_id_of(f->name);
    f->named_by_connection = false;
    if (f->id != FIELD_OTHER && h->first[f->id] < 0)
      h->first[f->id] = (int16_t)i;
    line = next;
  }
  if (line != end)
    return bad(h, 400, "malformed header field");
  return HEAD_OK;
}

static bool parse_length(struct span s, uint64_t *ret) {
  if (s.len == 0 || s.len > 18)
    return false;
  uint64_t v = 0;
  for (size_t i = 0; i < s.len; i++) {
    if (s.at[i] < '0' || s.at[i] > '9')
      return false;
    v = v * 10 + (uint64_t)(s.at[i] - '0');
  }
  *ret = v;
  return true;
}

struct connection_options {
  bool close, keep_alive, upgrade;
};

/* Reads Connection and marks the fields it names. The ones that decide host and framing are never the sender's to take away. */
static void read_connection(struct head *h, struct connection_options *o) {
  for (int i = h->first[FIELD_CONNECTION]; i >= 0 && i < (int)h->count; i++) {
    if (h->fields[i].id != FIELD_CONNECTION)
      continue;
    struct span rest = h->fields[i].value, token;
    while (head_next_token(&rest, &token)) {
      if (span_is_nocase(token, "close"))
        o->close = true;
      else if (span_is_nocase(token, "keep-alive"))
        o->keep_alive = true;
      else if (span_is_nocase(token, "upgrade"))
        o->upgrade = true;
      else
        for (unsigned k = 0; k < h->count; k++)
          if (span_same_nocase(h->fields[k].name, token))
            h->fields[k].named_by_connection = true;
    }
  }
}

struct counts {
  unsigned host, length, transfer, expect, upgrade;
};

static void count_fields(const struct head *h, struct counts *n) {
  for (unsigned i = 0; i < h->count; i++) {
    n->host += h->fields[i].id == FIELD_HOST;
    n->length += h->fields[i].id == FIELD_CONTENT_LENGTH;
    n->transfer += h->fields[i].id == FIELD_TRANSFER_ENCODING;
    n->expect += h->fields[i].id == FIELD_EXPECT;
    n->upgrade += h->fields[i].id == FIELD_UPGRADE;
  }
}

/* A field that matters is spelt with '-', not '_': a peer that reads it otherwise would see another message. */
static bool has_disguised_field(const struct head *h) {
  for (unsigned i = 0; i < h->count; i++) {
    enum field_id id = h->fields[i].id;
    if ((id == FIELD_CONTENT_LENGTH || id == FIELD_TRANSFER_ENCODING) && memchr(h->fields[i].name.at, '_', h->fields[i].name.len))
      return true;
  }
  return false;
}

/* The framing fields, the same for both kinds: how many bytes follow. -1: refused. */
static int read_framing(struct head *h, const struct counts *n) {
  h->body = BODY_NONE;
  if (n->length > 1 || n->transfer > 1 || (n->length && n->transfer) || has_disguised_field(h))
    return -1;
  if (n->length) {
    if (!parse_length(head_value(h, FIELD_CONTENT_LENGTH), &h->length))
      return -1;
    h->body = h->length ? BODY_LENGTH : BODY_NONE;
  }
  if (n->transfer) {
    if (h->minor == 0 || !span_is_nocase(head_value(h, FIELD_TRANSFER_ENCODING), "chunked"))
      return -1;
    h->body = BODY_CHUNKED;
  }
  return 0;
}

static bool has_token(struct span list, const char *word) {
  struct span token;
  while (head_next_token(&list, &token))
    if (span_is_nocase(token, word))
      return true;
  return false;
}

enum head_result head_parse_request(struct head *h, const uint8_t *data, size_t len) {
  llhttp_t p;
  enum head_result r = run(h, &p, HTTP_REQUEST, data, len < HEAD_MAX ? len : HEAD_MAX);
  if (r != HEAD_OK)
    return r;
  if (p.http_major != 1 || p.http_minor > 1)
    return bad(h, 505, "HTTP/1.0 or HTTP/1.1 is spoken here");
  h->minor = p.http_minor;
  h->method_id = p.method;
  const char *name = llhttp_method_name((llhttp_method_t)p.method);
  size_t name_len = strlen(name);
  /* METHOD SP target SP HTTP/1.x CRLF, single spaces; before it only blank lines (RFC 9112 section 2.2). */
  const uint8_t *end = h->target.at + h->target.len;
  if (!h->target.len || (size_t)(h->target.at - data) < name_len + 1 || h->target.at[-1] != ' ' || data + h->size - end < 13 ||
      memcmp(end, p.http_minor ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n", 11) != 0)
    return bad(h, 400, "malformed request line");
  h->method = (struct span){h->target.at - 1 - name_len, name_len};
  if (memcmp(h->method.at, name, name_len) != 0)
    return bad(h, 400, "malformed request line");
  for (const uint8_t *c = data; c < h->method.at; c += 2)
    if (h->method.at - c < 2 || c[0] != '\r' || c[1] != '\n')
      return bad(h, 400, "malformed request line");
  if ((r = walk_fields(h, data, end + 11)) != HEAD_OK)
    return r;

  struct counts n = {0};
  count_fields(h, &n);
  if (n.host > 1)
    return bad(h, 400, "more than one Host");
  if (n.host)
    h->host = head_value(h, FIELD_HOST);
  else if (h->minor == 1)
    return bad(h, 400, "HTTP/1.1 needs a Host");
  if (read_framing(h, &n) < 0)
    return bad(h, 400, "ambiguous or unknown body framing");

  struct connection_options o = {0};
  read_connection(h, &o);
  h->keep_alive = h->minor == 1 ? !o.close : o.keep_alive && !o.close;
  if (n.expect && h->minor == 1) {
    if (n.expect > 1 || !span_is_nocase(head_value(h, FIELD_EXPECT), "100-continue"))
      return bad(h, 417, "only 100-continue can be expected");
    h->expects_continue = h->body != BODY_NONE;
  }
  switch (h->method_id) {
  case HTTP_GET:
    /* RFC 6455 section 4.1. Any other upgrade is not passed on: it is hop-by-hop. */
    h->upgrade_websocket = o.upgrade && h->minor == 1 && h->body == BODY_NONE && n.upgrade == 1 &&
                           has_token(head_value(h, FIELD_UPGRADE), "websocket") && head_value(h, FIELD_WS_KEY).len == 24 &&
                           h->first[FIELD_WS_VERSION] >= 0;
    h->idempotent = !h->upgrade_websocket;
    break;
  case HTTP_HEAD:
  case HTTP_OPTIONS:
  case HTTP_PUT:
  case HTTP_DELETE:
  case HTTP_PROPFIND:
  case HTTP_SEARCH:
  case HTTP_REPORT:
    h->idempotent = true;
    break;
  default:
    h->idempotent = false;
  }
  return HEAD_OK;
}

enum head_result head_parse_answer(struct head *h, const uint8_t *data, size_t len, bool to_head) {
  llhttp_t p;
  enum head_result r = run(h, &p, HTTP_RESPONSE, data, len < HEAD_MAX ? len : HEAD_MAX);
  if (r != HEAD_OK) {
    if (r == HEAD_BAD)
      h->bad_status = 502;
    return r;
  }
  h->minor = p.http_minor;
  h->status = p.status_code;
  if (p.http_major != 1 || p.http_minor > 1 || h->status < 100 || h->status > 599)
    return bad(h, 502, "not an HTTP/1 answer");
  /* HTTP/1.x SP status [SP reason] CRLF */
  const uint8_t *eol = memchr(data, '\n', h->size);
  if (!eol || eol - data < 13 || eol[-1] != '\r' || memcmp(data, p.http_minor ? "HTTP/1.1 " : "HTTP/1.0 ", 9) != 0)
    return bad(h, 502, "malformed status line");
  if (data + 12 != eol - 1 && data[12] != ' ')
    return bad(h, 502, "malformed status line");
  for (const uint8_t *c = data + 12; c < eol - 1; c++)
    if (*c < 0x20 && *c != '\t')
      return bad(h, 502, "malformed status line");
  h->reason = trim(data + 12, eol - 1);
  if ((r = walk_fields(h, data, eol + 1)) != HEAD_OK) {
    h->bad_status = 502;
    return r;
  }

  struct counts n = {0};
  count_fields(h, &n);
  if (read_framing(h, &n) < 0)
    return bad(h, 502, "ambiguous or unknown body framing in the answer");
  struct connection_options o = {0};
  read_connection(h, &o);
  h->keep_alive = h->minor == 1 ? !o.close : o.keep_alive && !o.close;
  /* RFC 9112 section 6.3, points 1 and 8. */
  if (to_head || h->status < 200 || h->status == 204 || h->status == 304)
    h->body = BODY_NONE;
  else if (h->body == BODY_NONE && !n.length) {
    h->body = BODY_UNTIL_CLOSE;
    h->keep_alive = false;
  }
  h->upgrade_websocket = h->status == 101 && o.upgrade && n.upgrade == 1 && span_is_nocase(head_value(h, FIELD_UPGRADE), "websocket");
  return HEAD_OK;
}
