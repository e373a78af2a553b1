#include "common/http/upgrade.h"

#include <string.h>
#include <strings.h>

static int take(char *to, size_t size, size_t *have, const char *at, size_t len) {
  size_t room = size - 1 - *have, n = len < room ? len : room;
  memcpy(to + *have, at, n);
  *have += n;
  to[*have] = 0;
  return len > room;
}

static int on_name(llhttp_t *p, const char *at, size_t len) {
  struct http_upgrade *u = p->data;
  if (u->value_len) { /* a new one begins */
    u->name_len = u->value_len = 0;
    u->value[0] = 0;
  }
  take(u->name, sizeof u->name, &u->name_len, at, len);
  return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len) {
  struct http_upgrade *u = p->data;
  take(u->value, sizeof u->value, &u->value_len, at, len);
  return 0;
}

static void keep(struct http_upgrade *u, char *to, size_t size) {
  if (*to || u->value_len >= size) {
    u->twice = true;
    return;
  }
  memcpy(to, u->value, u->value_len + 1);
}

static int on_value_complete(llhttp_t *p) {
  struct http_upgrade *u = p->data;
  while (u->value_len && (u->value[u->value_len - 1] == ' ' || u->value[u->value_len - 1] == '\t'))
    u->value[--u->value_len] = 0;
  if (strcasecmp(u->name, "Upgrade") == 0)
    keep(u, u->protocol, sizeof u->protocol);
  else if (strcasecmp(u->name, "Sec-WebSocket-Accept") == 0)
    keep(u, u->accept, sizeof u->accept);
  else if (strcasecmp(u->name, "Sec-WebSocket-Protocol") == 0)
    keep(u, u->subprotocol, sizeof u->subprotocol);
  u->name_len = u->value_len = 0;
  u->name[0] = u->value[0] = 0;
  return 0;
}

static int on_head(llhttp_t *p) {
  struct http_upgrade *u = p->data;
  u->status = p->status_code;
  /* Another 1xx has no meaning to us; 101 without its two headers is none. */
  return u->twice || (u->status < 200 && (u->status != 101 || !p->upgrade)) ? -1 : 0;
}

static int on_body(llhttp_t *p, const char *at, size_t len) {
  struct http_upgrade *u = p->data;
  return buf_add(&u->body, at, len);
}

static int on_complete(llhttp_t *p) {
  struct http_upgrade *u = p->data;
  if (!p->upgrade)
    u->state = HTTP_UPGRADE_REFUSED;
  return p->upgrade ? 0 : HPE_PAUSED;
}

static const llhttp_settings_t *settings(void) {
  static const llhttp_settings_t s = {.on_header_field = on_name,
                                      .on_header_value = on_value,
                                      .on_header_value_complete = on_value_complete,
                                      .on_headers_complete = on_head,
                                      .on_body = on_body,
                                      .on_message_complete = on_complete};
  return &s;
}

void http_upgrade_init(struct http_upgrade *u) {
  *u = (struct http_upgrade){.body = BUF_INIT(HTTP_UPGRADE_BODY_MAX)};
  llhttp_init(&u->parser, HTTP_RESPONSE, settings());
  u->parser.data = u;
}

void http_upgrade_fini(struct http_upgrade *u) {
  buf_free(&u->body);
}

enum http_upgrade_state http_upgrade_feed(struct http_upgrade *u, const uint8_t *data, size_t len, size_t *used) {
  *used = 0;
  if (u->state != HTTP_UPGRADE_MORE || !len)
    return u->state;
  enum llhttp_errno rc = llhttp_execute(&u->parser, (const char *)data, len);
  const char *at = llhttp_get_error_pos(&u->parser);
  *used = rc == HPE_OK || !at ? len : (size_t)(at - (const char *)data);
  if (u->status == 0)
    u->head += *used;
  if (rc == HPE_PAUSED_UPGRADE)
    u->state = u->status == 101 ? HTTP_UPGRADE_DONE : HTTP_UPGRADE_BAD;
  else if (u->state == HTTP_UPGRADE_MORE && (rc != HPE_OK || u->head > HTTP_UPGRADE_HEAD_MAX))
    u->state = HTTP_UPGRADE_BAD;
  return u->state;
}

enum http_upgrade_state http_upgrade_end(struct http_upgrade *u) {
  if (u->state == HTTP_UPGRADE_MORE)
    llhttp_finish(&u->parser); /* tells on_complete, when that is an end */
  if (u->state == HTTP_UPGRADE_MORE)
    u->state = HTTP_UPGRADE_BAD;
  return u->state;
}
